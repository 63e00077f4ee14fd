package dns

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"headgate/proxy/meter"
)

// scripted is a Source under the test's control.
type scripted struct {
	mu      sync.Mutex
	finding Finding
	err     error
	asked   int
	hold    chan struct{} // when not nil, an answer waits for it
}

func (s *scripted) find(ctx context.Context, _ string, _ bool) (Finding, error) {
	s.mu.Lock()
	s.asked++
	f, err, hold := s.finding, s.err, s.hold
	f.Records = append([]Record(nil), f.Records...)
	s.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			return Finding{}, ctx.Err()
		}
	}
	return f, err
}

func (s *scripted) set(err error, ttl time.Duration, addrs ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err, s.finding = err, Finding{TTL: ttl}
	for _, a := range addrs {
		s.finding.Records = append(s.finding.Records, Record{Addr: netip.MustParseAddr(a), Weight: 1})
	}
}

func (s *scripted) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
}

func resolver(t *testing.T, o Options) *Resolver {
	t.Helper()
	r := New(o)
	t.Cleanup(r.Close)
	return r
}

// now looks up without waiting for what takes its time.
func (n *Name) now(t *testing.T) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	a, err := n.Lookup(ctx)
	if err != nil {
		return "error"
	}
	return show(a.Records)
}

// age makes what is known of the name that much older.
func (n *Name) age(by time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, at := range []*time.Time{&n.learned, &n.fresh, &n.again, &n.families[0], &n.families[1]} {
		*at = at.Add(-by)
	}
}

var errServers = errors.New("SERVFAIL")

// TestLookup: an answer holds as long as its TTL, is used while the next one is asked for, and for as long as it may be when nobody answers.
func TestLookup(t *testing.T) {
	s := &scripted{}
	s.set(nil, time.Hour, "10.0.0.2", "10.0.0.1")
	r := resolver(t, Options{Source: s.find, Stale: time.Hour})
	n := r.Name("name.test")
	defer n.Release()
	f := func(want string) {
		t.Helper()
		eventually(t, want, func() bool { return n.now(t) == want })
	}
	if n.Answer() != nil || n.now(t) != "10.0.0.1 10.0.0.2" || n.now(t) != "10.0.0.1 10.0.0.2" || s.count() != 1 {
		t.Fatalf("asked %d times", s.count())
	}
	first := n.Answer()
	s.set(nil, time.Hour, "10.0.0.1", "10.0.0.2", "10.0.0.1")
	n.age(time.Hour + time.Minute)
	eventually(t, "a second question that is answered", func() bool {
		n.now(t)
		n.mu.Lock()
		defer n.mu.Unlock()
		return s.count() == 2 && n.asking == nil
	})
	if n.Answer() != first {
		t.Error("the same servers are another answer")
	}
	s.set(nil, time.Hour, "10.0.0.3")
	n.age(time.Hour + time.Minute)
	if got := n.now(t); got != "10.0.0.1 10.0.0.2" && got != "10.0.0.3" {
		t.Errorf("got %s", got)
	}
	f("10.0.0.3")
	s.set(errServers, 0)
	n.age(time.Hour + time.Minute)
	for range 10 {
		if got := n.now(t); got != "10.0.0.3" {
			t.Fatalf("while nobody answers: %s", got)
		}
	}
	n.age(2 * time.Hour)
	f("error")
	s.set(nil, time.Hour, "10.0.0.4")
	n.age(time.Hour)
	f("10.0.0.4")
	// A definite answer counts at once.
	s.set(&noName{"name.test", "no such name", 5}, 0)
	n.age(time.Hour + time.Minute)
	f("error")
	if !NotFound(n.Answer().Err) {
		t.Errorf("got %v", n.Answer().Err)
	}
}

// TestFailureIsNotAskedEveryTime: dials to a name that cannot be resolved share one question a second, and more seldom later.
func TestFailureIsNotAskedEveryTime(t *testing.T) {
	s := &scripted{}
	s.set(errServers, 0)
	r := resolver(t, Options{Source: s.find})
	n := r.Name("name.test")
	defer n.Release()
	for i := range 6 {
		for range 10 {
			if got := n.now(t); got != "error" {
				t.Fatal(got)
			}
		}
		n.mu.Lock()
		wait := time.Until(n.again)
		n.mu.Unlock()
		if most := min(failedAgain<<i, failedLongest); s.count() < i+1 || wait > most {
			t.Fatalf("asked %d times, again in %v", s.count(), wait)
		}
		n.age(failedLongest)
	}
}

// TestSlow: a lookup of a name that is known does not wait for a server that does not answer, and many do not ask many times.
func TestSlow(t *testing.T) {
	s := &scripted{hold: make(chan struct{})}
	s.set(nil, time.Minute, "10.0.0.1")
	r := resolver(t, Options{Source: s.find, Stale: time.Hour})
	n := r.Name("name.test")
	defer n.Release()
	short, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	if a, err := n.Lookup(short); err == nil || !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("%v, %v without an answer", a, err)
	}
	close(s.hold)
	eventually(t, "the answer", func() bool { return n.now(t) == "10.0.0.1" })
	s.mu.Lock()
	s.hold = make(chan struct{})
	s.mu.Unlock()
	n.age(2 * time.Minute)
	before := s.count()
	ended, cancel := context.WithCancel(context.Background())
	cancel() // whoever waits gets nothing
	for range 100 {
		if a, err := n.Lookup(ended); err != nil || show(a.Records) != "10.0.0.1" {
			t.Fatalf("%v, %v", a, err)
		}
	}
	eventually(t, "one question", func() bool { return s.count() == before+1 })
	close(s.hold)
}

// TestWatch: a name in use is renewed when its TTL ends, without anybody asking, and no more when nobody watches it.
func TestWatch(t *testing.T) {
	s := &scripted{}
	s.set(nil, 0, "10.0.0.1")
	var changes atomic.Int64
	r := resolver(t, Options{Source: s.find, MinTTL: 5 * time.Millisecond, Stale: time.Hour, Changed: func() { changes.Add(1) }})
	n := r.Name("name.test")
	other := r.Name("name.test")
	if n != other {
		t.Fatal("two entries for one name")
	}
	n.Watch()
	other.Watch()
	eventually(t, "renewals", func() bool { return s.count() > 5 })
	n.Unwatch()
	if changes.Load() != 1 {
		t.Errorf("%d changes", changes.Load())
	}
	s.set(nil, 0, "10.0.0.2")
	eventually(t, "the change", func() bool { return show(n.Answer().Records) == "10.0.0.2" && changes.Load() == 2 })
	s.set(errServers, 0)
	asked := s.count()
	eventually(t, "a failure", func() bool { return s.count() > asked+1 })
	if show(n.Answer().Records) != "10.0.0.2" || changes.Load() != 2 {
		t.Errorf("%v, %d changes", n.Answer(), changes.Load())
	}
	other.Unwatch()
	eventually(t, "the last answer", func() bool {
		n.mu.Lock()
		defer n.mu.Unlock()
		return n.asking == nil
	})
	n.mu.Lock()
	if n.timer.Stop() {
		t.Error("the timer runs on")
	}
	n.mu.Unlock()
	n.Release()
	other.Release()
	if len(r.names) != 0 {
		t.Errorf("%d names are kept", len(r.names))
	}
}

// TestTTL is about its bounds.
func TestTTL(t *testing.T) {
	r := resolver(t, Options{Source: (&scripted{}).find, MinTTL: 2 * time.Second, MaxTTL: time.Minute})
	for _, c := range []struct {
		f    Finding
		want time.Duration
	}{
		{Finding{TTL: 0}, 2 * time.Second}, {Finding{TTL: 10 * time.Second}, 10 * time.Second}, {Finding{TTL: time.Hour}, time.Minute},
		{Finding{TTL: time.Hour, Exact: true}, time.Hour}, {Finding{TTL: seconds(noTTL)}, time.Minute},
	} {
		if got := r.holds(c.f); got != c.want {
			t.Errorf("%+v holds for %v, want %v", c.f, got, c.want)
		}
	}
}

// TestFamilyThatFails: its addresses stay, for as long as they may, while those of the other one are renewed.
func TestFamilyThatFails(t *testing.T) {
	s := &scripted{}
	s.set(nil, time.Minute, "10.0.0.1", "2001:db8::1")
	r := resolver(t, Options{Source: s.find, Stale: time.Hour})
	n := r.Name("name.test")
	defer n.Release()
	eventually(t, "both", func() bool { return n.now(t) == "10.0.0.1 2001:db8::1" })
	s.set(nil, time.Minute, "2001:db8::2")
	s.mu.Lock()
	s.finding.Failed = [2]bool{true, false}
	s.mu.Unlock()
	for range 2 {
		n.age(2 * time.Minute)
		eventually(t, "the old one and the new one", func() bool { return n.now(t) == "10.0.0.1 2001:db8::2" })
	}
	for range 2 {
		n.age(2 * time.Hour)
		eventually(t, "the new one", func() bool { return n.now(t) == "2001:db8::2" })
	}
}

// TestEnd: a resolver that is closed asks nobody, keeps nobody waiting, and says what it knew.
func TestEnd(t *testing.T) {
	s := &scripted{}
	s.set(nil, time.Hour, "10.0.0.1")
	r := New(Options{Source: s.find, Stale: time.Hour})
	n, never := r.Name("name.test"), r.Name("never.test")
	n.Watch()
	eventually(t, "the answer", func() bool { return n.now(t) == "10.0.0.1" })
	s.mu.Lock()
	s.hold = make(chan struct{})
	s.mu.Unlock()
	waits := make(chan string)
	go func() { waits <- never.now(t) }()
	eventually(t, "the question", func() bool { return s.count() == 2 })
	r.Close()
	if got := <-waits; got != "error" {
		t.Errorf("got %s", got)
	}
	n.age(2 * time.Hour / 4 * 3)
	if got := n.now(t); got != "10.0.0.1" {
		t.Errorf("got %s", got)
	}
	n.Unwatch()
	n.Release()
	never.Release()
}

// TestMetrics: questions by result, and the age of what is in use.
func TestMetrics(t *testing.T) {
	m := meter.New("")
	s := &scripted{}
	logged := make(chan string, 10)
	r := resolver(t, Options{
		Source: s.find, Meter: m, Name: "discovery", MinTTL: time.Hour, Stale: time.Hour,
		Logf: func(format string, _ ...any) { logged <- format },
	})
	for _, err := range []error{nil, &noName{}, errServers, context.DeadlineExceeded} {
		s.set(err, time.Hour, "10.0.0.1")
		n := r.Name(fmt.Sprint(err))
		defer n.Release()
		n.Watch()
		if n.now(t); err == nil {
			n.age(10 * time.Minute)
		}
	}
	var b strings.Builder
	if err := m.Write(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`headgate_dns_resolutions_total{resolver="discovery",result="ok"} 1`, `headgate_dns_resolutions_total{resolver="discovery",result="not_found"} 1`,
		`headgate_dns_resolutions_total{resolver="discovery",result="failed"} 1`, `headgate_dns_resolutions_total{resolver="discovery",result="timeout"} 1`,
		`headgate_dns_oldest_answer_seconds{resolver="discovery"} 60`,
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("there is no %s", want)
		}
	}
	if len(logged) != 3 {
		t.Errorf("%d lines in the log", len(logged))
	}
}
