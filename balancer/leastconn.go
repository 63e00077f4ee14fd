package balancer

import (
	"math/bits"
	"sync/atomic"
)

// leastConn picks the lowest (1+inflight)/weight (contract 3.2).
type leastConn struct {
	ranked[*lcGroup]
}

type lcGroup struct {
	members []member
	// from is where the next search starts, so that equals take turns.
	_    [cacheLine]byte
	from atomic.Uint64
	_    [cacheLine]byte
}

func newLeastConn(eps []*Endpoint) *leastConn {
	return &leastConn{rank(eps, func(_ int, members []member) *lcGroup {
		return &lcGroup{members: members}
	})}
}

func (g *lcGroup) pick(tried *Tried, _ uint64, need demand) int {
	if need.anyone() { // this request has had its turn when it asked for somebody healthy
		return g.pickFrom(g.from.Load(), tried, need)
	}
	return g.pickFrom(g.from.Add(1), tried, need)
}

// pickFrom searches from turn on, modulo the number of members.
func (g *lcGroup) pickFrom(turn uint64, tried *Tried, need demand) int {
	k := len(g.members)
	at := int(turn % uint64(k))
	best := -1
	var load, weight uint64
	for range k {
		if m := &g.members[at]; m.usable(tried, need) {
			// A negative count would be a caller's bug; it must not win every pick.
			l := 1 + uint64(max(m.inflight.Load(), 0))
			if best < 0 || lighter(l, m.weight, load, weight) {
				best, load, weight = m.index, l, m.weight
			}
		}
		if at++; at == k {
			at = 0
		}
	}
	return best
}

// lighter tells whether a/wa < b/wb.
func lighter(a, wa, b, wb uint64) bool {
	h1, l1 := bits.Mul64(a, wb)
	h2, l2 := bits.Mul64(b, wa)
	return h1 < h2 || h1 == h2 && l1 < l2
}
