package upstream

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"
)

// Resolver turns names into addresses and remembers them. A name that cannot be refreshed keeps its last good addresses for an hour;
// a name server that is slow or down costs a dial to a known name no more than a moment (reliability F31).
type Resolver struct {
	// Refresh is how long an answer is fresh; the next dial after it asks again.
	Refresh time.Duration
	// Lookup asks the system; tests replace it. It is never asked twice at a time for one name and should return soon after ctx ends.
	Lookup func(ctx context.Context, host string) ([]netip.Addr, error)

	mu    sync.Mutex
	names map[string]*name
}

// name is what is known of one host name.
type name struct {
	mu      sync.Mutex // held for moments only, never while the system is asked
	addrs   []netip.Addr
	learned time.Time
	err     error         // why the last question failed, nil when it did not
	again   time.Time     // not to be asked before
	asking  chan struct{} // closed when the present question is answered; nil when none is out
	turn    int
}

const (
	// staleFor is how long addresses that cannot be refreshed stay in use.
	staleFor = time.Hour
	// askFor bounds one question.
	askFor = 5 * time.Second
	// askAgain is the pause after a question that failed.
	askAgain = time.Second
	// refreshPatience is how long a dial that has old addresses waits for new ones.
	refreshPatience = 250 * time.Millisecond
)

// NewResolver returns a resolver that asks the operating system.
func NewResolver(refresh time.Duration) *Resolver {
	return &Resolver{Refresh: refresh, names: map[string]*name{}, Lookup: func(ctx context.Context, host string) ([]netip.Addr, error) {
		return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	}}
}

// lookup returns at least one address of host, starting with another one each time, or an error.
func (r *Resolver) lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{a}, nil
	}
	r.mu.Lock()
	e := r.names[host]
	if e == nil {
		e = &name{}
		r.names[host] = e
	}
	r.mu.Unlock()

	e.mu.Lock()
	defer e.mu.Unlock()
	if e.asking == nil && !time.Now().Before(e.again) {
		e.asking = make(chan struct{})
		go r.ask(e, host, e.asking)
	}
	if e.asking != nil {
		e.wait(ctx)
	}
	if len(e.addrs) == 0 {
		if e.err == nil {
			return nil, fmt.Errorf("no answer for %q: %w", host, ctx.Err())
		}
		return nil, e.err
	}
	out := make([]netip.Addr, 0, len(e.addrs))
	for i := range e.addrs {
		out = append(out, e.addrs[(e.turn+i)%len(e.addrs)])
	}
	e.turn = (e.turn + 1) % len(e.addrs)
	return out, nil
}

// wait lets go of the lock until the present question is answered, or for as long as it is worth waiting: a moment when there are
// old addresses, else until ctx ends.
func (e *name) wait(ctx context.Context) {
	asking := e.asking
	if len(e.addrs) > 0 {
		patience := refreshPatience
		if end, ok := ctx.Deadline(); ok {
			patience = min(patience, time.Until(end)/2)
		}
		short, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		ctx = short
	}
	e.mu.Unlock()
	defer e.mu.Lock()
	select {
	case <-asking:
	case <-ctx.Done():
	}
}

// ask asks the system and files the answer.
func (r *Resolver) ask(e *name, host string, done chan struct{}) {
	ctx, cancel := context.WithTimeout(context.Background(), askFor)
	defer cancel()
	addrs, err := r.Lookup(ctx, host)
	if err == nil && len(addrs) == 0 {
		err = fmt.Errorf("no address for %q", host)
	}
	now := time.Now()
	e.mu.Lock()
	defer e.mu.Unlock()
	e.asking, e.err = nil, err
	switch {
	case err == nil:
		e.addrs, e.learned, e.again, e.turn = make([]netip.Addr, len(addrs)), now, now.Add(r.Refresh), 0
		for i, a := range addrs {
			e.addrs[i] = a.Unmap()
		}
	default:
		e.again = now.Add(askAgain)
		if now.Sub(e.learned) > staleFor {
			e.addrs = nil
		}
	}
	close(done)
}
