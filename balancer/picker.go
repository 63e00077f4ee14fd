package balancer

import (
	"cmp"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"
)

// The kinds of pickers, by the names of the Admin API (contract 3.1, `type`).
const (
	RoundRobin  = "roundrobin"
	ConsistHash = "chash"
	LeastConn   = "least_conn"
	EWMA        = "ewma"
)

// Picker chooses the endpoint of the next attempt. It is safe for concurrent
// use and allocates nothing.
//
// Every kind keeps these rules (contract 3.2):
//   - the highest priority first; a lower one only when every endpoint above it
//     was tried or is unhealthy;
//   - unhealthy endpoints and those whose breaker is open are left out, unless
//     that leaves none: then both are ignored;
//   - endpoints in quarantine are left out in any case;
//   - weight 0 is never picked, unless all weights are 0: then all count alike;
//   - a single endpoint is used whatever its weight and health;
//   - an endpoint with a share (Health.SetShare, or a breaker that has just been
//     closed) gets so much less of what falls to it, as long as others of its
//     priority can serve.
type Picker interface {
	// Pick returns an index into the endpoints, or -1 when every one that may
	// be used is in tried. tried may be nil. key is a 64-bit hash of what the
	// request is to be kept together by; only chash reads it.
	Pick(tried *Tried, key uint64) int
}

// Observer is a Picker that learns from response times (ewma).
type Observer interface {
	Picker
	// Observe records that endpoint i took rtt to answer. An unknown i is
	// ignored.
	Observe(i int, rtt time.Duration)
}

// New returns a picker of the kind for eps, which it keeps. It reads weights
// and priorities now and never again, so a change of them needs a new picker.
// prev is the picker that it replaces, or nil: the state of endpoints with the
// same identity is carried over when the kind is the same. An unknown kind is
// an error that names the known ones. Without endpoints, Pick returns -1.
func New(kind string, eps []*Endpoint, prev Picker) (Picker, error) {
	switch kind {
	case RoundRobin:
		return newRoundRobin(eps, prev), nil
	case LeastConn:
		return newLeastConn(eps), nil
	case EWMA:
		return newEWMA(eps, prev, monotonic()), nil
	case ConsistHash:
		return newHashing(eps), nil
	}
	return nil, fmt.Errorf("unknown balancer type %q: use %s, %s, %s or %s", kind, RoundRobin, ConsistHash, LeastConn, EWMA)
}

// maxTried bounds the endpoints that Tried can mark.
const maxTried = 1024

// Tried is the set of endpoints that an exchange has already attempted, by
// index. The zero value is empty. An index of 1024 or more is never marked, so
// that whoever retries needs a limit of its own beyond that.
type Tried struct {
	n    int
	bits [maxTried / 64]uint64
}

// Add marks i.
func (t *Tried) Add(i int) {
	if uint(i) >= maxTried || t.Has(i) {
		return
	}
	t.bits[i/64] |= 1 << (i % 64)
	t.n++
}

// Has tells whether i was marked. A nil set has nothing.
func (t *Tried) Has(i int) bool {
	return t != nil && uint(i) < maxTried && t.bits[uint(i)/64]&(1<<(uint(i)%64)) != 0
}

// Len returns how many are marked.
func (t *Tried) Len() int {
	if t == nil {
		return 0
	}
	return t.n
}

// Reset empties the set.
func (t *Tried) Reset() { *t = Tried{} }

// member is an endpoint as one group sees it.
type member struct {
	*Endpoint
	health   *Health       // of Endpoint, one step nearer
	inflight *atomic.Int64 // likewise
	gate     *Gate         // likewise
	index    int           // in the picker's endpoints
	weight   uint64        // never 0
}

// group is the members of one priority under one rule. pick returns an index
// into the picker's endpoints, or -1 when no member is usable.
type group interface {
	pick(tried *Tried, key uint64, need demand) int
}

// ranked is what all pickers have in common: the order of the groups, and what
// happens when nobody is healthy.
type ranked[G group] struct {
	groups  []G // the highest priority first
	members []member
	ramps   bool // shares may be less than whole
	// troubled counts the gates of endpoints that are not whole; nil without gates.
	troubled *atomic.Int32
	keyed    bool // equal keys meet equal demands
}

// Pick implements Picker.
func (r *ranked[G]) Pick(tried *Tried, key uint64) int {
	need, gates := healthy, demand(0)
	if r.troubled != nil && r.troubled.Load() != 0 {
		gates = guarded
	}
	if r.ramps || gates != 0 {
		need = r.draw(key)
	}
	for _, g := range r.groups {
		i := g.pick(tried, key, need|gates)
		if i < 0 && need != healthy { // a part of a member is better than a lower priority
			i = g.pick(tried, key, healthy|gates)
		}
		if i >= 0 {
			return i
		}
	}
	// Health may change under our feet: who is healthy by now and untried serves,
	// lest a flapping endpoint leave the request without any.
	some := false
	for i := range r.members {
		if m := &r.members[i]; m.meets(healthy | gates) {
			if !tried.Has(m.index) {
				return m.index
			}
			some = true
		}
	}
	if some {
		return -1
	}
	for _, g := range r.groups {
		if i := g.pick(tried, key, anyone|gates); i >= 0 {
			return i
		}
	}
	return -1
}

// draw returns the share that this pick demands. By key, every key comes back
// to a member that recovers once, and stays.
func (r *ranked[G]) draw(key uint64) demand {
	if r.keyed {
		return drawDemand(mix(^key))
	}
	return drawDemand(rand.Uint64())
}

// rank sorts the endpoints that may be picked at all into their groups: part
// makes the group of one priority.
func rank[G group](eps []*Endpoint, part func(priority int, members []member) G) ranked[G] {
	var members []member
	for i, e := range eps {
		if e.Weight > 0 {
			members = append(members, member{e, e.health(), e.Inflight, e.Gate(), i, e.Weight})
		}
	}
	if len(members) == 0 {
		for i, e := range eps {
			members = append(members, member{e, e.health(), e.Inflight, e.Gate(), i, 1})
		}
	}
	slices.SortStableFunc(members, func(a, b member) int { return cmp.Compare(b.Priority, a.Priority) })
	r := ranked[G]{members: members}
	for i := range members {
		r.ramps = r.ramps || members[i].health.Ramps
		if s := members[i].gate.in; s != nil {
			r.troubled = &s.troubled[OfEndpoint]
		}
	}
	for rest := members; len(rest) > 0; {
		n := 1
		for n < len(rest) && rest[n].Priority == rest[0].Priority {
			n++
		}
		r.groups = append(r.groups, part(rest[0].Priority, rest[:n:n]))
		rest = rest[n:]
	}
	return r
}

// below maps a random or well-spread x evenly to 0..n-1.
func below(x uint64, n int) int {
	hi, _ := bits.Mul64(x, uint64(n))
	return int(hi)
}
