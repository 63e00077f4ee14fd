package balancer

import (
	"cmp"
	"slices"

	"github.com/cespare/xxhash/v2"
)

// hashing keeps equal keys together by consistent hashing: the members bid for
// a key as the branches of a Rendezvous do, so that its shares are those of the
// weights, and one that comes, goes or changes its weight moves no key but those
// that it gains or loses. A ring of points, whose number per weight depends on
// the divisors of all the weights, cannot promise that.
type hashing struct {
	ranked[*hashGroup]
}

type hashGroup struct {
	members []member
	// bidders are the members, by their position, in the order of their seeds.
	bidders []bidder
}

func newHashing(eps []*Endpoint) *hashing {
	h := &hashing{rank(eps, func(_ int, members []member) *hashGroup { return newHashGroup(members) })}
	h.keyed = true
	return h
}

func newHashGroup(members []member) *hashGroup {
	g := &hashGroup{members: members}
	for i := range members {
		g.bidders = append(g.bidders, bidder{xxhash.Sum64String(members[i].ID()), min(members[i].weight, maxBid), i})
	}
	slices.SortStableFunc(g.bidders, func(a, b bidder) int { return cmp.Compare(a.seed, b.seed) })
	return g
}

// pick asks after a member's health only when it has won so far.
func (g *hashGroup) pick(tried *Tried, key uint64, need demand) int {
	key = spreadKey(key)
	r := race{won: -1}
	for i := range g.bidders {
		b := &g.bidders[i]
		if t, ahead := r.ahead(b, key); ahead {
			if m := &g.members[b.branch]; m.usable(tried, need) {
				r = race{t, b.weight, m.index}
			}
		}
	}
	return r.won
}
