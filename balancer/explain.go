package balancer

// Peek returns which pick would be next and whose it would be, as NextN does, and takes nothing: the next NextN returns the same as long
// as nobody else picks.
func (s *Sequence) Peek() (n uint64, branch int) {
	n = s.n.Load()
	return n, s.table.At(n)
}

// KindOf returns the name of p's kind (contract section 3.1, type), "" for a picker that New did not make.
func KindOf(p Picker) string {
	switch p.(type) {
	case *roundRobin:
		return RoundRobin
	case *leastConn:
		return LeastConn
	case *ewma:
		return EWMA
	case *hashing:
		return ConsistHash
	}
	return ""
}

// Peek returns what Pick would return for the first attempt of a request with that key, or -1, and changes nothing. Where Pick takes the
// better of two that it draws (ewma), Peek returns the best of all; and a node that Pick still spares (Health.SetShare) counts as a whole one.
func Peek(p Picker, key uint64) int {
	switch p := p.(type) {
	case *roundRobin:
		return peek(&p.ranked, (*rrGroup).peek)
	case *leastConn:
		return peek(&p.ranked, func(g *lcGroup, need demand) int { return g.pickFrom(g.from.Load()+1, nil, need) })
	case *ewma:
		return peek(&p.ranked, (*ewmaGroup).peek)
	case *hashing:
		return peek(&p.ranked, func(g *hashGroup, need demand) int { return g.pick(nil, key, need) })
	}
	return -1
}

// peek goes through the groups in the order of ranked.Pick.
func peek[G group](r *ranked[G], in func(g G, need demand) int) int {
	for _, need := range [...]demand{healthy | guarded, anyone | guarded} {
		for _, g := range r.groups {
			if i := in(g, need); i >= 0 {
				return i
			}
		}
	}
	return -1
}

func (g *rrGroup) peek(need demand) int {
	n, _ := g.seq.Peek()
	for i := range uint64(maxSkips + 1) {
		if m := &g.members[g.seq.table.At(n+i)]; !need.anyone() && m.usable(nil, need) {
			return m.index
		}
	}
	total := g.usableWeight(nil, need)
	if total == 0 {
		return -1
	}
	return g.spreadAt(g.spread.Load()+1, total, nil, need)
}

func (g *ewmaGroup) peek(need demand) int {
	now, best, low := g.now(), -1, 0.0
	for i := range g.members {
		if !g.members[i].usable(nil, need) {
			continue
		}
		if score := g.state[i].score(now); best < 0 || score < low {
			best, low = g.members[i].index, score
		}
	}
	return best
}
