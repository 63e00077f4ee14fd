package balancer

import (
	"math"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unicode"
)

// Scope is the kind of thing that a Gate stands before.
type Scope uint8

// The scopes, in the order in which a request comes to them.
const (
	OfRoute Scope = iota
	OfBranch
	OfEndpoint
	Scopes // how many there are
)

func (s Scope) String() string { return [...]string{"route", "branch", "endpoint"}[s] }

// State is what a Gate is in.
type State uint8

const (
	// Closed: everything passes (the circuit is closed).
	Closed State = iota
	// Open: broken, nothing passes for a while.
	Open
	// HalfOpen: a few requests pass, to see whether it is still broken.
	HalfOpen
	// Recovering: closed, but the share is still growing.
	Recovering
)

func (s State) String() string { return [...]string{"closed", "open", "half-open", "recovering"}[s] }

// Admission is a Gate's word on one request.
type Admission uint8

const (
	// Refused: not here.
	Refused Admission = iota
	// Admitted: it may pass.
	Admitted
	// Probing: it passes as a probe, and whoever sends it calls Leave once.
	Probing
)

// Gate stands before a route, a branch or an endpoint and says whether it may be used: breakers open and close it, operators shut it for a
// while (Quarantine). It is known by its identity and outlives every edit of what uses it. Everything is atomic; while nothing is wrong
// a request pays two loads. There is no timer: who comes after the time has passed moves the state on. The zero Gate is open to all and
// records nothing.
type Gate struct {
	in *Gates // nil in the zero Gate
	Target

	state      atomic.Uint64 // word
	quarantine atomic.Pointer[Quarantine]
	rules      atomic.Pointer[Rules] // by which it was judged last
	counts     atomic.Uint64         // of the present state, see count
	probes     atomic.Int32          // under way
	window     atomic.Pointer[window]
	last       atomic.Pointer[Transition]

	refs int // guarded by Gates.mu
}

// Target identifies what a Gate stands before.
type Target struct {
	Scope Scope
	// Owner is the key of the document whose route or split it is ("routes/1"), "" for an endpoint.
	Owner string
	// Name is that of the branch, or "host:port".
	Name string
}

// String returns the identity in words: "routes/1", "branch v2 of routes/1", "endpoint 10.0.0.1:80". A name that would break a line of a
// log is quoted.
func (t Target) String() string {
	name := t.Name
	if strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }) {
		name = strconv.Quote(name)
	}
	switch {
	case t.Scope == OfRoute:
		return t.Owner
	case t.Scope == OfEndpoint:
		return "endpoint " + name
	case t.Owner == "":
		return "branch " + name + " of every split"
	}
	return "branch " + name + " of " + t.Owner
}

// word is a state with what belongs to it, so that they change together: the time in microseconds since 1970 (until when it is open; else
// since when it is what it is), how often it has broken in a row, and the State. The zero word is closed for as long as one remembers.
type word uint64

const (
	stateBits = 3
	levelBits = 5
	maxLevel  = 1<<levelBits - 1
	micro     = int64(time.Microsecond)
)

func wordOf(s State, level uint8, at int64) word {
	return word(uint64(at/micro)<<(levelBits+stateBits) | uint64(level)<<stateBits | uint64(s))
}

func (w word) state() State { return State(w & (1<<stateBits - 1)) }
func (w word) level() uint8 { return uint8(w >> stateBits & maxLevel) }
func (w word) at() int64    { return int64(w>>(levelBits+stateBits)) * micro }

// tag tells the counts of one state from those of others.
func (w word) tag() uint64 { return uint64(w) >> stateBits & (1<<tagBits - 1) }

// Whole says that everything passes.
func (g *Gate) Whole() bool { return g.state.Load() == 0 && g.quarantine.Load() == nil }

// Admit decides about one request. draw is well spread over the requests: it decides who passes while the share is growing.
func (g *Gate) Admit(draw uint64) Admission {
	if g.Whole() {
		return Admitted
	}
	now := g.in.clock()
	if g.quarantined(now) != nil {
		return Refused
	}
	for {
		w := word(g.state.Load())
		switch w.state() {
		case Open:
			if now < w.at() {
				return Refused
			}
			g.move(w, wordOf(HalfOpen, w.level(), now), Reason{Kind: TimePassed})
		case HalfOpen:
			if g.probes.Add(1) <= g.rules.Load().Probes && word(g.state.Load()) == w {
				return Probing
			}
			g.probes.Add(-1)
			if word(g.state.Load()) == w {
				return Refused
			}
		case Recovering:
			if share := g.share(w, now); share < WholeShare {
				if uint32(draw>>48) < share {
					return Admitted
				}
				return Refused
			}
			g.move(w, 0, Reason{Kind: TimePassed})
		default:
			return Admitted
		}
	}
}

// Leave ends a probe, whatever it came to.
func (g *Gate) Leave() { g.probes.Add(-1) }

// Enter is Admit for a request that a picker has chosen the target for: the share has had its say, and a target that is open is used
// because there is no other. Refused says that others are probing it, or that it was quarantined meanwhile.
func (g *Gate) Enter() Admission {
	a := g.Admit(0)
	if a != Refused || word(g.state.Load()).state() == HalfOpen || g.quarantine.Load() != nil {
		return a
	}
	g.Force()
	return Admitted
}

// Force takes note of a request that goes to a broken target because no other is left.
func (g *Gate) Force() {
	if g.in != nil && g.in.forced[g.Scope] != nil {
		g.in.forced[g.Scope].Inc()
	}
}

// offers says whether the target could serve a pick that demands so much; it changes nothing.
func (g *Gate) offers(need demand) bool {
	if g.Whole() {
		return true
	}
	now := g.in.clock()
	if q := g.quarantine.Load(); q != nil && now < q.until() {
		return false
	}
	w := word(g.state.Load())
	switch w.state() {
	case Open:
		return now >= w.at() && g.probes.Load() == 0
	case HalfOpen:
		return g.probes.Load() < g.rules.Load().Probes
	case Recovering:
		return need == healthy || demand(g.share(w, now)) >= need
	}
	return true
}

// share is what a recovering target gets of its share by now, 1 to WholeShare.
func (g *Gate) share(w word, now int64) uint32 {
	ramp := int64(g.rules.Load().Ramp)
	passed := now - w.at()
	if passed >= ramp {
		return WholeShare
	}
	return uint32(max(float64(passed)/float64(ramp)*WholeShare, 1))
}

// Quarantined returns for how long the target is still shut by an operator, 0 when it is not.
func (g *Gate) Quarantined() time.Duration {
	if g.quarantine.Load() == nil {
		return 0
	}
	now := g.in.clock()
	if q := g.quarantined(now); q != nil {
		return time.Duration(q.until() - now)
	}
	return 0
}

// quarantined returns the quarantine in force, and drops one that has ended.
func (g *Gate) quarantined(now int64) *Quarantine {
	q := g.quarantine.Load()
	if q != nil && now >= q.until() {
		if g.quarantine.CompareAndSwap(q, nil) {
			g.in.troubled[g.Scope].Add(-1)
		}
		return nil
	}
	return q
}

// swap makes q the quarantine in force; nil: none.
func (g *Gate) swap(q *Quarantine) {
	had := g.quarantine.Swap(q) != nil
	switch has := q != nil; {
	case has && !had:
		g.in.troubled[g.Scope].Add(1)
	case had && !has:
		g.in.troubled[g.Scope].Add(-1)
	}
}

// OpenFor returns how long it takes until the next request may pass, as far as is known: 0 when one may pass now.
func (g *Gate) OpenFor() time.Duration {
	w := word(g.state.Load())
	if w.state() != Open {
		return 0
	}
	return max(time.Duration(w.at()-g.in.clock()), 0)
}

// Counting is 64 bits: the tag of the state that is counted for, successes in a row, failures.
const (
	tagBits     = 24
	failureBits = 24
	failureMask = 1<<failureBits - 1
	successBits = 64 - tagBits - failureBits
	successMask = 1<<successBits - 1
)

// count adds a failure, or a success, to the counts of state w and returns how many there are; successes in a row that reach enough
// forget the failures.
func (g *Gate) count(w word, failed bool, enough uint32) (failures, successes uint32) {
	for {
		old := g.counts.Load()
		fails, good := old&failureMask, old>>failureBits&successMask
		if old>>(failureBits+successBits) != w.tag() {
			fails, good = 0, 0
		}
		if failed {
			fails, good = min(fails+1, failureMask), 0
		} else {
			good = min(good+1, successMask)
		}
		keep, run := fails, good
		if good >= uint64(enough) {
			keep, run = 0, 0
		}
		next := w.tag()<<(failureBits+successBits) | run<<failureBits | keep
		if next == old || g.counts.CompareAndSwap(old, next) {
			return uint32(fails), uint32(good)
		}
	}
}

// Record counts what a request came to, and moves the gate when that decides. r is what whoever sent the request judges by; nil: by what
// has broken the target, and nothing when it is closed. probe says that the request was admitted as one. It allocates only when a target
// with ratios is first seen and when the state changes.
func (g *Gate) Record(r *Rules, o Outcome, probe bool) {
	w := word(g.state.Load())
	switch {
	case g.in == nil:
		return
	case r == nil:
		if r = g.rules.Load(); r == nil || w == 0 {
			return
		}
	case g.rules.Load() != r:
		g.rules.Store(r)
	}
	failed := r.Unhealthy.Has(o.Status)
	switch w.state() {
	case Closed, Recovering:
		if w == 0 || g.in.clock()-int64(max(o.Took, o.Ago)) >= w.at() { // what was sent before it broke says nothing new
			g.judge(w, r, &o, failed)
		}
	case HalfOpen:
		slow := r.slow(&o)
		switch {
		case !probe:
		case failed || slow:
			g.open(w, r, Reason{Kind: ProbeFailed, Status: o.Status, Slow: slow && !failed})
		case r.Healthy.Has(o.Status):
			if _, good := g.count(w, false, math.MaxUint32); good >= max(r.Successes, 1) {
				if n := g.window.Load(); n != nil {
					n.forget()
				}
				next := wordOf(Recovering, w.level(), g.in.clock())
				if r.Ramp <= 0 {
					next = 0
				}
				g.move(w, next, Reason{Kind: ProbesPassed, Count: uint64(good)})
			}
		}
	}
}

// judge counts an outcome of a target that is closed.
func (g *Gate) judge(w word, r *Rules, o *Outcome, failed bool) {
	if r.Failures > 0 && (failed || r.Healthy.Has(o.Status) && g.counts.Load()&failureMask != 0) {
		if n, _ := g.count(w, failed, max(r.Successes, 1)); failed && n >= r.Failures {
			g.open(w, r, Reason{Kind: Failures, Count: uint64(n), Status: o.Status})
			return
		}
	}
	if r.Window <= 0 {
		return
	}
	n := g.window.Load()
	if n == nil {
		g.window.CompareAndSwap(nil, new(window))
		n = g.window.Load()
	}
	t := n.add(g.in.clock(), r.Window, failed, r.slow(o))
	switch {
	case t.total < uint64(r.MinRequests):
	case reaches(t.failed, t.total, r.ErrorRatio):
		g.open(w, r, Reason{Kind: ErrorRatio, Count: t.failed, Of: t.total, Status: o.Status})
	case reaches(t.slow, t.total, r.SlowRatio):
		g.open(w, r, Reason{Kind: SlowRatio, Count: t.slow, Of: t.total})
	}
}

// open breaks the target, unless its state has changed meanwhile.
func (g *Gate) open(w word, r *Rules, why Reason) {
	level := min(w.level()+1, maxLevel)
	now := g.in.clock()
	g.move(w, wordOf(Open, level, now+int64(r.openFor(level))), why)
}

// move changes the state and tells; it does nothing when the state is not before any more.
func (g *Gate) move(before, after word, why Reason) {
	if !g.state.CompareAndSwap(uint64(before), uint64(after)) {
		return
	}
	switch {
	case before == 0:
		g.in.troubled[g.Scope].Add(1)
	case after == 0:
		g.in.troubled[g.Scope].Add(-1)
	}
	t := &Transition{Target: g.Target, From: before.state(), To: after.state(), Why: why, At: g.in.clock()}
	if t.To == Open {
		t.For = time.Duration(after.at() - t.At)
	}
	g.last.Store(t)
	g.in.tell(t)
}
