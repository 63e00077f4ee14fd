package balancer

import (
	"math/bits"
	"sync/atomic"
)

// roundRobin serves every member by its weight, exactly: see Table.
type roundRobin struct {
	ranked[*rrGroup]
}

type rrGroup struct {
	members  []member
	priority int
	seq      *Sequence
	light    []uint64 // weights that can be summed up without overflow
	spread   atomic.Uint64
}

// maxSkips bounds the picks that are passed over for the sake of members that
// can't be used.
const maxSkips = 32

func newRoundRobin(eps []*Endpoint, prev Picker) *roundRobin {
	old, _ := prev.(*roundRobin)
	return &roundRobin{rank(eps, func(priority int, members []member) *rrGroup {
		g := &rrGroup{members: members, priority: priority}
		weights := make([]uint64, len(members))
		ids := make([]string, len(members))
		for i := range members {
			weights[i], ids[i] = members[i].weight, members[i].ID()
		}
		g.light = clamp(weights)
		var from *Sequence
		if old != nil {
			for _, o := range old.groups {
				if o.priority == priority {
					from = o.seq
				}
			}
		}
		g.seq = NewSequence(NewTable(weights), ids, from)
		return g
	})}
}

func (g *rrGroup) pick(tried *Tried, _ uint64, need demand) int {
	// Of the sequence, the search for somebody healthy has taken the same number of picks for each of the requests that ask for
	// anyone: what is left of it may be always the same member.
	if need.anyone() || tried != nil && tried.Len() > 0 {
		return g.pickSpread(tried, need)
	}
	m := &g.members[g.seq.Next()]
	if m.usable(tried, need) {
		return m.index
	}
	// Pass over the picks of the sick: what remains of the sequence keeps the
	// weights of the others among themselves.
	for range maxSkips {
		if m = &g.members[g.seq.Next()]; m.usable(tried, need) {
			return m.index
		}
	}
	return g.pickSpread(tried, need)
}

// pickSpread picks among the usable members by the golden ratio: proportional
// to their weights, though not exact. It is for retries, which must leave the
// sequence alone: were they to take picks from it, then of two nodes the dead
// one would come first for every request. It is also the way out when the
// sick weigh so much that passing over their picks gets long.
func (g *rrGroup) pickSpread(tried *Tried, need demand) int {
	total := g.usableWeight(tried, need)
	if total == 0 {
		return -1
	}
	return g.spreadAt(g.spread.Add(1), total, tried, need)
}

// usableWeight is the sum of the light weights of the usable members.
func (g *rrGroup) usableWeight(tried *Tried, need demand) (total uint64) {
	for i := range g.members {
		if g.members[i].usable(tried, need) {
			total += g.light[i]
		}
	}
	return total
}

// spreadAt returns the usable member at step n of the golden ratio; total is what the usable ones weigh.
func (g *rrGroup) spreadAt(n, total uint64, tried *Tried, need demand) int {
	const golden = 0x9e3779b97f4a7c15 // 2^64 / 1.618...
	at, _ := bits.Mul64(n*golden, total)
	last := -1
	for i := range g.members {
		if !g.members[i].usable(tried, need) {
			continue
		}
		last = g.members[i].index
		if at < g.light[i] {
			break
		}
		at -= g.light[i]
	}
	return last // -1 only if the last one fell ill just now
}
