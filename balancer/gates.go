package balancer

import (
	"cmp"
	"errors"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// Gates are the gates of a process, by identity: whoever uses the same target shares one. They outlive all snapshots.
type Gates struct {
	clock    func() int64               // nanoseconds since 1970; never goes back
	troubled [Scopes]atomic.Int32       // gates that are not whole; one that is in quarantine besides counts twice
	forced   [Scopes]interface{ Inc() } // nil: not counted

	events chan *Transition
	lost   atomic.Uint64

	mu          sync.Mutex
	gates       map[Target]*Gate
	quarantines []*Quarantine // in force, in the order in which they were imposed
	ended       []*Quarantine // by themselves, and nobody was told yet
	imposed     uint64        // so far
}

// Quarantine is an operator's word that a target must not be used for a while. It is immutable.
type Quarantine struct {
	ID string
	// Target is what is shut; a branch without Owner means all branches of that name.
	Target
	Reason string
	Since  time.Time
	TTL    time.Duration
	// Replaced is the quarantine of the same target whose place this one has taken; nil for none.
	Replaced *Quarantine
}

func (q *Quarantine) until() int64 { return q.Since.UnixNano() + int64(q.TTL) }

// Until is when it ends by itself.
func (q *Quarantine) Until() time.Time { return q.Since.Add(q.TTL) }

func (q *Quarantine) shuts(t Target) bool {
	return q.Scope == t.Scope && q.Name == t.Name && (q.Owner == t.Owner || q.Owner == "" && q.Scope == OfBranch)
}

// MaxQuarantines bounds how many quarantines can be in force at a time.
const MaxQuarantines = 1000

// maxEvents bounds the transitions that wait for whoever takes them.
const maxEvents = 1000

// NewGates returns an empty set that tells the time by clock, in nanoseconds since 1970; nil: by the system's, without its steps.
func NewGates(clock func() int64) *Gates {
	if clock == nil {
		start := time.Now()
		wall := start.UnixNano()
		clock = func() int64 { return wall + int64(time.Since(start)) }
	}
	return &Gates{clock: clock, gates: map[Target]*Gate{}, events: make(chan *Transition, maxEvents)}
}

// Acquire returns the gate of t, and counts the caller as a user.
func (s *Gates) Acquire(t Target) *Gate {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.gates[t]
	if g == nil {
		g = &Gate{in: s, Target: t}
		s.shut(g)
		s.gates[t] = g
	}
	g.refs++
	return g
}

// Release undoes one Acquire. The last one forgets the gate; a quarantine stays in force for whoever uses the target next.
func (g *Gate) Release() {
	s := g.in
	s.mu.Lock()
	defer s.mu.Unlock()
	if g.refs--; g.refs > 0 {
		return
	}
	delete(s.gates, g.Target)
	g.swap(nil)
	if g.state.Swap(0) != 0 {
		s.troubled[g.Scope].Add(-1)
	}
}

// Sought says whether something is known about t, so that it needs its gate.
func (s *Gates) Sought(t Target) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire()
	return s.gates[t] != nil || slices.ContainsFunc(s.quarantines, func(q *Quarantine) bool { return q.shuts(t) })
}

// Has says whether anything in use is what t means; see Quarantine.Target.
func (s *Gates) Has(t Target) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gates[t] != nil {
		return true
	}
	if t.Scope == OfBranch && t.Owner == "" {
		for known := range s.gates {
			if known.Scope == OfBranch && known.Name == t.Name {
				return true
			}
		}
	}
	return false
}

// ErrTooMany says that MaxQuarantines are in force.
var ErrTooMany = errors.New(strconv.Itoa(MaxQuarantines) + " quarantines are in force; lift one of them")

// Impose shuts t, from now on and for ttl. It takes the place of an earlier quarantine of the same target.
func (s *Gates) Impose(t Target, ttl time.Duration, reason string) (*Quarantine, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire()
	var replaced *Quarantine
	left := slices.DeleteFunc(s.quarantines, func(q *Quarantine) bool {
		if q.Target == t {
			replaced = q
		}
		return q.Target == t
	})
	if len(left) >= MaxQuarantines { // then none was taken out
		return nil, ErrTooMany
	}
	s.imposed++
	q := &Quarantine{
		ID: strconv.FormatUint(s.imposed, 10), Target: t, Reason: reason, Since: time.Unix(0, s.clock()), TTL: ttl,
	}
	if replaced != nil {
		before := *replaced
		before.Replaced = nil // it is told once
		q.Replaced = &before
	}
	s.quarantines = append(left, q)
	s.reconsider(t)
	return q, nil
}

// Lift ends the quarantine id and returns it, nil when none of that id is in force.
func (s *Gates) Lift(id string) *Quarantine {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire()
	for i, q := range s.quarantines {
		if q.ID == id {
			s.quarantines = slices.Delete(s.quarantines, i, i+1)
			s.reconsider(q.Target)
			return q
		}
	}
	return nil
}

// Quarantines returns those in force, in the order in which they were imposed.
func (s *Gates) Quarantines() []*Quarantine {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire()
	return slices.Clone(s.quarantines)
}

// Expired returns the quarantines that have ended by themselves since it was last called.
func (s *Gates) Expired() []*Quarantine {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire()
	ended := s.ended
	s.ended = nil
	return ended
}

// expire takes out what has ended. The gates find that out by themselves.
func (s *Gates) expire() {
	now := s.clock()
	var left []*Quarantine
	for _, q := range s.quarantines {
		if q.until() > now {
			left = append(left, q)
		} else if len(s.ended) < MaxQuarantines {
			s.ended = append(s.ended, q)
		}
	}
	s.quarantines = left
}

// reconsider brings the gates that a quarantine of t concerns in line with what is in force.
func (s *Gates) reconsider(t Target) {
	q := Quarantine{Target: t}
	for known, g := range s.gates {
		if q.shuts(known) {
			s.shut(g)
		}
	}
}

// shut gives g the quarantine in force that lasts longest, or none.
func (s *Gates) shut(g *Gate) {
	var longest *Quarantine
	for _, q := range s.quarantines {
		if q.shuts(g.Target) && (longest == nil || q.until() > longest.until()) {
			longest = q
		}
	}
	g.swap(longest)
}

// CountForced makes c count the requests that go to a broken target of that scope because no other is left. It comes before the first
// request; c must be safe for concurrent use.
func (s *Gates) CountForced(of Scope, c interface{ Inc() }) { s.forced[of] = c }

// Events are the transitions as they happen. What nobody takes in time is dropped and counted by Lost.
func (s *Gates) Events() <-chan *Transition { return s.events }

// Lost returns how many transitions were dropped since it was last called.
func (s *Gates) Lost() uint64 { return s.lost.Swap(0) }

func (s *Gates) tell(t *Transition) {
	select {
	case s.events <- t:
	default:
		s.lost.Add(1)
	}
}

// View is what is known about a target.
type View struct {
	Target
	State State
	// Judged says that a breaker has counted requests of it.
	Judged bool
	// Until is when it stops being open; zero unless it is.
	Until time.Time
	// Probes are under way.
	Probes int
	// Share is what it gets of its share, 0 to 1.
	Share      float64
	Last       *Transition // nil when it has had none
	Quarantine *Quarantine // nil unless it is in quarantine
}

// Views returns what there is to tell about the targets in use, sorted: those that a breaker has judged, or that are not closed or in
// quarantine.
func (s *Gates) Views() []View {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []View
	for _, g := range s.gates {
		if v := g.View(); v.Judged || v.State != Closed || v.Quarantine != nil {
			list = append(list, v)
		}
	}
	slices.SortFunc(list, func(a, b View) int {
		return cmp.Or(cmp.Compare(a.Scope, b.Scope), cmp.Compare(a.Owner, b.Owner), cmp.Compare(a.Name, b.Name))
	})
	return list
}

// View returns what is known about the target now. It changes nothing.
func (g *Gate) View() View {
	v := View{Target: g.Target, Share: 1, Judged: g.rules.Load() != nil}
	if g.in == nil || g.Whole() {
		v.Last = g.last.Load()
		return v
	}
	now := g.in.clock()
	if q := g.quarantine.Load(); q != nil && now < q.until() {
		v.Quarantine = q
	}
	w := word(g.state.Load())
	v.State, v.Last, v.Probes = w.state(), g.last.Load(), int(max(g.probes.Load(), 0))
	switch {
	case v.State == Open && now < w.at():
		v.Until, v.Share = time.Unix(0, w.at()), 0
	case v.State == Open || v.State == HalfOpen: // the next request finds it half-open
		v.State, v.Share = HalfOpen, 0
	case v.State == Recovering:
		share := g.share(w, now)
		if v.Share = float64(share) / WholeShare; share == WholeShare {
			v.State = Closed
		}
	}
	if v.Quarantine != nil {
		v.Share = 0
	}
	return v
}

// Standing is the state in a word, for explanations: "quarantined" before all others, "" when all is well.
func (g *Gate) Standing() string {
	v := g.View()
	switch {
	case v.Quarantine != nil:
		return "quarantined"
	case v.State != Closed:
		return v.State.String()
	}
	return ""
}
