package dns

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// Name is what a Resolver knows of one name. Those who hold it share it.
type Name struct {
	r    *Resolver
	text string
	refs int // guarded by the resolver

	answer atomic.Pointer[Answer] // nil as long as nobody has asked
	turn   atomic.Uint32

	mu       sync.Mutex // held for moments only, never while somebody is asked
	watchers int
	learned  time.Time    // when the answer was good last
	fresh    time.Time    // until when it holds, ...
	families [2]time.Time // ... for each family
	again    time.Time    // not to be asked before
	failures int          // in a row
	asking   chan struct{}
	timer    *time.Timer
}

// Answer returns what is known, nil as long as nothing is, not even that asking failed.
func (n *Name) Answer() *Answer { return n.answer.Load() }

// Turn counts the uses of the answer, so that each can begin with another record.
func (n *Name) Turn() uint32 { return n.turn.Add(1) - 1 }

// String returns the name.
func (n *Name) String() string { return n.text }

// Watch keeps the answer fresh from now on, until Unwatch.
func (n *Name) Watch() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.watchers++; n.watchers == 1 && n.asking == nil && !n.r.opt.OnDemand {
		if wait := time.Until(n.again); wait > 0 {
			n.schedule(wait)
		} else {
			n.ask()
		}
	}
}

// Unwatch undoes one Watch.
func (n *Name) Unwatch() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.watchers > 0 {
		n.watchers--
	}
	if n.watchers == 0 {
		n.stop()
	}
}

// Lookup returns an answer with records. It waits, at most until ctx ends, when there is none yet, or when the question why there is none
// may be asked again. An old answer that is being renewed is returned at once.
func (n *Name) Lookup(ctx context.Context) (*Answer, error) {
	n.mu.Lock()
	if now := time.Now(); n.asking == nil && !now.Before(n.again) {
		n.expire(now)
		n.ask()
	}
	asking := n.asking
	usable := n.usable()
	n.mu.Unlock()
	if asking != nil && !usable {
		select {
		case <-asking:
		case <-ctx.Done():
		}
	}
	a := n.answer.Load()
	switch {
	case a == nil && ctx.Err() == nil:
		return nil, fmt.Errorf("%s: the resolver is closed", n.text)
	case a == nil:
		return nil, fmt.Errorf("%s: no answer: %w", n.text, ctx.Err())
	case a.Err != nil:
		return nil, a.Err
	}
	return a, nil
}

func (n *Name) usable() bool {
	a := n.answer.Load()
	return a != nil && a.Err == nil
}

// expire drops an answer that is too old to be used. The lock is held.
func (n *Name) expire(now time.Time) {
	if a := n.answer.Load(); a != nil && a.Err == nil && now.Sub(n.fresh) > n.r.opt.Stale {
		n.answer.Store(nil)
	}
}

// schedule asks after wait. The lock is held.
func (n *Name) schedule(wait time.Duration) {
	if n.timer == nil {
		n.timer = time.AfterFunc(wait, n.due)
	} else {
		n.timer.Reset(wait)
	}
}

func (n *Name) stop() {
	if n.timer != nil {
		n.timer.Stop()
	}
}

func (n *Name) due() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.watchers > 0 && n.asking == nil {
		n.ask()
	}
}

// ask begins a question, unless the resolver is closed. The lock is held.
func (n *Name) ask() {
	if !n.r.begin() {
		return
	}
	n.asking = make(chan struct{})
	known := n.usable()
	go func() {
		defer n.r.running.Done()
		f, err := n.r.lookup(n.text, known)
		if n.settle(f, err) && n.r.opt.Changed != nil {
			n.r.opt.Changed()
		}
	}()
}

// settle files what was learned, and says whether the answer has become another one.
func (n *Name) settle(f Finding, err error) (changed bool) {
	n.r.count(err)
	n.mu.Lock()
	defer n.mu.Unlock()
	defer func() {
		close(n.asking)
		n.asking = nil
	}()
	if n.r.ctx.Err() != nil { // broken off, which says nothing
		return false
	}
	now := time.Now()
	before := n.answer.Load()
	wait := n.r.holds(f)
	switch {
	case err == nil:
		var keep [2]bool
		for family, failed := range f.Failed {
			keep[family] = now.Sub(n.families[family]) <= n.r.opt.Stale
			if !failed {
				n.families[family] = now.Add(wait)
			}
		}
		if n.failures > 0 || before != nil && before.Err != nil { // it is well again
			n.r.opt.Logf("dns: %s: %s again", n.text, describe(f.Records))
		}
		n.learned, n.fresh, n.failures = now, now.Add(wait), 0
		if list := merged(f, before, keep); !sameRecords(before, list) {
			n.answer.Store(&Answer{Records: list})
			changed = true
		}
	case NotFound(err):
		if before == nil || before.Err == nil {
			n.r.opt.Logf("dns: %v", err)
		}
		n.failures = 0
		wait = min(max(untilKnown(err), n.r.opt.MinTTL), longestNo)
		changed = n.fail(before, err)
	default:
		if n.failures++; n.failures == 1 {
			n.r.opt.Logf("dns: %v%s", err, n.fallback(before))
		}
		wait = min(failedAgain<<min(n.failures-1, 8), failedLongest)
		if before == nil || before.Err != nil || now.Sub(n.fresh) > n.r.opt.Stale {
			changed = n.fail(before, err)
		}
	}
	if n.again = now.Add(wait); n.watchers > 0 && !n.r.opt.OnDemand {
		n.schedule(wait)
	}
	return changed
}

// fallback tells the log what is used while nobody answers.
func (n *Name) fallback(before *Answer) string {
	if before == nil || before.Err != nil {
		return "; no address is known"
	}
	return fmt.Sprintf("; %s stays in use for %v at most", describe(before.Records), n.r.opt.Stale)
}

// fail makes err the answer, and says whether there was a good one, or none, before.
func (n *Name) fail(before *Answer, err error) (changed bool) {
	n.answer.Store(&Answer{Err: err})
	return before == nil || before.Err == nil
}
