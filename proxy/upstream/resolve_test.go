package upstream

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"headgate/conf/resource"
	"headgate/proxy/fault"
)

// names is a name service under the test's control.
type names struct {
	mu    sync.Mutex
	addrs []string
	err   error
	asked int
	hold  chan struct{} // when not nil, an answer waits for it
}

func (n *names) lookup(ctx context.Context, _ string) (out []netip.Addr, err error) {
	n.mu.Lock()
	n.asked++
	for _, a := range n.addrs {
		out = append(out, netip.MustParseAddr(a))
	}
	err = n.err
	hold := n.hold
	n.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return out, err
}

func (n *names) set(err error, addrs ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.err, n.addrs = err, addrs
}

func (n *names) count() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.asked
}

func resolver(n *names, refresh time.Duration) *Resolver {
	r := NewResolver(refresh)
	r.Lookup = n.lookup
	return r
}

func (r *Resolver) ask1(t *testing.T, within time.Duration) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	addrs, err := r.lookup(ctx, "name.test")
	if err != nil {
		return "error"
	}
	return fmt.Sprint(addrs)
}

// expire makes what is known of the name old enough to be asked for again, and by age.
func (r *Resolver) expire(age time.Duration) {
	r.mu.Lock()
	e := r.names["name.test"]
	r.mu.Unlock()
	e.mu.Lock()
	e.again = time.Time{}
	e.learned = e.learned.Add(-age)
	e.mu.Unlock()
}

func TestResolverRotates(t *testing.T) {
	n := &names{addrs: []string{"::ffff:10.0.0.1", "10.0.0.2", "2001:db8::3"}}
	r := resolver(n, time.Hour)
	for _, want := range []string{
		"[10.0.0.1 10.0.0.2 2001:db8::3]", "[10.0.0.2 2001:db8::3 10.0.0.1]", "[2001:db8::3 10.0.0.1 10.0.0.2]", "[10.0.0.1 10.0.0.2 2001:db8::3]",
	} {
		if got := r.ask1(t, time.Minute); got != want {
			t.Fatalf("got %s, want %s", got, want)
		}
	}
	if n.count() != 1 {
		t.Fatalf("asked %d times", n.count())
	}
}

func TestResolverTakesAddressesAsTheyAre(t *testing.T) {
	n := &names{err: errors.New("must not be asked")}
	for _, a := range []string{"10.1.2.3", "::1"} {
		got, err := resolver(n, time.Hour).lookup(context.Background(), a)
		if err != nil || !slices.Equal(got, []netip.Addr{netip.MustParseAddr(a)}) {
			t.Errorf("%s: %v, %v", a, got, err)
		}
	}
}

func TestResolverRefreshes(t *testing.T) {
	n := &names{addrs: []string{"10.0.0.1"}}
	r := resolver(n, time.Hour)
	f := func(want string) {
		t.Helper()
		if got := r.ask1(t, time.Minute); got != want {
			t.Fatalf("got %s, want %s", got, want)
		}
	}
	f("[10.0.0.1]")
	n.set(nil, "10.0.0.2", "10.0.0.3")
	f("[10.0.0.1]")
	r.expire(0)
	f("[10.0.0.2 10.0.0.3]")
	for _, failure := range []error{errors.New("SERVFAIL"), nil} { // nil: an answer without addresses
		n.set(failure)
		r.expire(0)
		f("[10.0.0.3 10.0.0.2]")
		f("[10.0.0.2 10.0.0.3]")
	}
	asked := n.count()
	f("[10.0.0.3 10.0.0.2]")
	if n.count() != asked {
		t.Fatal("a failing name server is asked for every dial")
	}
	r.expire(2 * staleFor)
	f("error")
	n.set(nil, "10.0.0.9")
	r.expire(0)
	f("[10.0.0.9]")
}

// TestResolverSlow: a name server that does not answer costs a dial to a known name a moment, and one to an unknown name its clock.
func TestResolverSlow(t *testing.T) {
	t.Parallel()
	n := &names{addrs: []string{"10.0.0.1"}, hold: make(chan struct{})}
	r := resolver(n, time.Hour)
	if got := r.ask1(t, 20*time.Millisecond); got != "error" {
		t.Fatalf("got %s without an answer", got)
	}
	close(n.hold)
	if got := r.ask1(t, time.Minute); got != "[10.0.0.1]" {
		t.Fatalf("got %s", got)
	}
	hold := make(chan struct{})
	n.mu.Lock()
	n.hold = hold
	n.mu.Unlock()
	r.expire(0)
	asked := n.count()
	var wg sync.WaitGroup
	var left atomic.Int64
	for range 5 {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
			defer cancel()
			if addrs, err := r.lookup(ctx, "name.test"); err != nil || len(addrs) != 1 {
				t.Errorf("%v, %v", addrs, err)
			}
			if ctx.Err() == nil {
				left.Add(1)
			}
		})
	}
	wg.Wait()
	if n.count() != asked+1 {
		t.Fatalf("asked %d times at once", n.count()-asked)
	}
	if left.Load() == 0 {
		t.Fatal("nobody had time left to dial")
	}
	n.set(nil, "10.0.0.2")
	close(hold)
	eventually(t, "the answer is filed", func() bool {
		e := r.names["name.test"]
		e.mu.Lock()
		defer e.mu.Unlock()
		return e.asking == nil
	})
}

// TestAddressesOfAName: one that refuses is passed over within the same attempt.
func TestAddressesOfAName(t *testing.T) {
	r := newRig(t)
	r.def.Pool.Size = 0 // dial each time
	n := &names{addrs: []string{"127.0.0.55", "127.0.0.1", "127.0.0.56"}}
	r.res.Lookup = n.lookup
	s := serve(t, answers(ok2))
	s.host = "three.test"
	u := r.upstream(nil, s)
	for range 6 {
		x := request("POST", "/", "data")
		do(u, x).want(t, 200, "ok")
		if x.Attempts.Count != 1 {
			t.Fatalf("%d attempts", x.Attempts.Count)
		}
	}
	n.set(errors.New("NXDOMAIN"))
	s2 := serve(t, answers(ok2))
	s2.host = "unknown.test"
	x := request("POST", "/", "data")
	do(r.upstream(nil, s2), x).wantFault(t, fault.UnknownNode)
	if statuses(x) != "503" {
		t.Fatalf("statuses %q", statuses(x))
	}
	do(r.upstream(func(d *resource.Upstream) { d.Nodes[0].Priority = 1 }, s2, s), request("POST", "/", "data")).want(t, 200, "ok")
}
