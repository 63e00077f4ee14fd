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

func (g *rrGroup) pick(tried *Tried, _ uint64, sick bool) int {
	m := &g.members[g.seq.Next()]
	if m.usable(tried, sick) {
		return m.index
	}
	return g.pickOther(tried, sick)
}

// pickOther passes over picks of the sequence: what remains of it keeps the
// weights of the usable members among themselves, and a retry takes its pick
// from the sequence like any request, so the neighbour of a dead member does
// not serve both shares. When the dead weigh so much that this gets long, it
// spreads picks by the golden ratio instead: proportional, though no longer
// exact.
func (g *rrGroup) pickOther(tried *Tried, sick bool) int {
	var total uint64
	for i := range g.members {
		if g.members[i].usable(tried, sick) {
			total += g.light[i]
		}
	}
	if total == 0 {
		return -1
	}
	for range maxSkips {
		m := &g.members[g.seq.Next()]
		if m.usable(tried, sick) {
			return m.index
		}
	}
	const golden = 0x9e3779b97f4a7c15 // 2^64 / 1.618...
	at, _ := bits.Mul64(g.spread.Add(1)*golden, total)
	last := -1
	for i := range g.members {
		if !g.members[i].usable(tried, sick) {
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
