package balancer

import "math/bits"

// PickBranch takes the next pick of s and passes over the branches that their gates refuse, of which gates[i] is that of branch i: the others
// share what they leave by their weights. When every branch is broken all are used. The admission is Refused when all that have a weight
// are in quarantine; the branch is -1 when no branch has a weight. n is the number of the pick that has decided, as of Sequence.NextN.
func PickBranch(s *Sequence, gates []*Gate) (n uint64, branch int, a Admission) {
	n, branch = s.NextN()
	if branch < 0 || gates[branch].Whole() {
		return n, branch, Admitted
	}
	first := branch
	var refused uint64 // bits of branches that need not be asked again
	for range maxSkips {
		if branch >= 64 || refused>>branch&1 == 0 {
			if a = gates[branch].Admit(mix(n)); a != Refused {
				return n, branch, a
			}
			if branch < 64 {
				refused |= 1 << branch
			}
		}
		n, branch = s.NextN()
	}
	branch, a = pickLeft(s.table.reduced, gates, first, n)
	return n, branch, a
}

// PickKeyed is PickBranch where a key decides: next returns the branch of the key that is not in passed, -1 when there is none. While
// a branch recovers every key of its own comes back to it once, and stays. passed is room that is empty before and after.
func PickKeyed(gates []*Gate, key uint64, passed *Tried, next func(key uint64, passed *Tried) int) (branch int, a Admission) {
	first := next(key, nil)
	if first < 0 || gates[first].Whole() {
		return first, Admitted
	}
	defer passed.Reset()
	for branch = first; branch >= 0; branch = next(key, passed) {
		if a = gates[branch].Admit(mix(^key)); a != Refused {
			return branch, a
		}
		if passed.Add(branch); !passed.Has(branch) { // beyond what can be marked
			break
		}
	}
	passed.Reset()
	for branch = first; branch >= 0; branch = next(key, passed) {
		if gates[branch].Quarantined() == 0 {
			gates[branch].Force()
			return branch, Admitted
		}
		if passed.Add(branch); !passed.Has(branch) {
			break
		}
	}
	return first, Refused
}

// PeekBranch returns what PickBranch would return next, and takes nothing; a branch that is recovering counts as a whole one. It is -1 too
// when all that have a weight are in quarantine.
func PeekBranch(s *Sequence, gates []*Gate) int {
	n, branch := s.Peek()
	if branch < 0 {
		return branch
	}
	for i := range uint64(maxSkips) {
		if b := s.table.At(n + i); gates[b].offers(healthy) {
			return b
		}
	}
	if i := spreadBranch(s.table.reduced, n, func(i int) bool { return gates[i].offers(healthy) }); i >= 0 {
		return i
	}
	return spreadBranch(s.table.reduced, n, func(i int) bool { return gates[i].Quarantined() == 0 })
}

// PeekKeyed returns what PickKeyed would return, and takes nothing; a branch that is recovering counts as a whole one. It is -1 too when all are
// in quarantine.
func PeekKeyed(gates []*Gate, key uint64, next func(key uint64, passed *Tried) int) int {
	var passed Tried
	forced := -1
	for branch := next(key, &passed); branch >= 0; branch = next(key, &passed) {
		if gates[branch].offers(healthy) {
			return branch
		}
		if forced < 0 && gates[branch].Quarantined() == 0 {
			forced = branch
		}
		if passed.Add(branch); !passed.Has(branch) {
			break
		}
	}
	return forced
}

// pickLeft is the way out when the refused weigh so much that passing over their picks gets long, or when all are refused. first is the
// branch that was refused first, n the number of some pick.
func pickLeft(weights []uint64, gates []*Gate, first int, n uint64) (int, Admission) {
	if i := spreadBranch(weights, n, func(i int) bool { return gates[i].offers(healthy) }); i >= 0 {
		if a := gates[i].Admit(0); a != Refused {
			return i, a
		}
	}
	forced := first
	if gates[first].Quarantined() > 0 {
		if forced = spreadBranch(weights, n, func(i int) bool { return gates[i].Quarantined() == 0 }); forced < 0 {
			return first, Refused
		}
	}
	gates[forced].Force()
	return forced, Admitted
}

// spreadBranch picks among the branches that fit by the golden ratio: proportional to their weights, though not exact. It returns -1 when
// none that has a weight fits.
func spreadBranch(weights []uint64, n uint64, fits func(i int) bool) int {
	const golden = 0x9e3779b97f4a7c15 // 2^64 / 1.618...
	var total uint64
	for i, w := range weights {
		if w > 0 && fits(i) {
			total += w
		}
	}
	at, _ := bits.Mul64(n*golden, total)
	last := -1
	for i, w := range weights {
		if w == 0 || !fits(i) {
			continue
		}
		last = i
		if at < w {
			break
		}
		at -= w
	}
	return last
}
