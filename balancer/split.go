package balancer

import (
	"math/bits"
	"slices"
)

// split divides picks between two sides so that after any n of them the left
// one has had n*left/total, rounded to the nearest integer: both sides are
// always within 1/2 of their quota.
//
// Nested splits add up their errors: a leaf of weight x below ancestors of
// weights a1, a2, ... (the root excluded) is off by at most
// 1/2 * (1 + x/a1 + x/a2 + ...). In a Huffman tree an uncle is never lighter
// than its nephews, so every ancestor weighs at least as much as the two below
// it together. The ancestors grow like the Fibonacci numbers and the sum stays
// below 3.3599, however many branches there are.
type split struct {
	left, total uint64
	onLeft      int32 // a split's index, or ^branch
	onRight     int32
}

// before returns how many of the first n picks go left and whether pick n goes
// left too. n must be below total.
func (s *split) before(n uint64) (lefts uint64, left bool) {
	hi, lo := bits.Mul64(n, s.left)
	lo, carry := bits.Add64(lo, s.total/2, 0)
	lefts, rest := bits.Div64(hi+carry, lo, s.total)
	return lefts, rest >= s.total-s.left
}

func (t *Table) atSplit(n uint64) int {
	if len(t.splits) == 0 {
		return -1
	}
	n %= t.total
	at := int32(len(t.splits) - 1)
	for at >= 0 {
		s := &t.splits[at]
		lefts, left := s.before(n)
		if left {
			n, at = lefts, s.onLeft
		} else {
			n, at = n-lefts, s.onRight
		}
	}
	return int(^at)
}

func (t *Table) servedSplit(n uint64, counts []uint64) {
	local := make([]uint64, len(t.splits))
	put := func(at int32, n uint64) {
		if at < 0 {
			counts[^at] += n
		} else {
			local[at] = n
		}
	}
	// A split stands behind the splits below it.
	put(int32(len(t.splits)-1), n)
	for i := len(t.splits) - 1; i >= 0; i-- {
		s := &t.splits[i]
		lefts := s.left
		if local[i] < s.total {
			lefts, _ = s.before(local[i])
		}
		put(s.onLeft, lefts)
		put(s.onRight, local[i]-lefts)
	}
}

// buildSplits makes the Huffman tree of the positive weights, of which there
// must be one at least. The two lightest nodes are joined first, so the
// branches that are picked most are found in the fewest steps.
func buildSplits(weights []uint64) []split {
	type node struct {
		weight uint64
		at     int32
	}
	var leaves []node
	for i, w := range weights {
		if w > 0 {
			leaves = append(leaves, node{w, ^int32(i)})
		}
	}
	slices.SortStableFunc(leaves, func(a, b node) int {
		if a.weight < b.weight {
			return -1
		}
		if a.weight > b.weight {
			return 1
		}
		return 0
	})
	if len(leaves) == 1 {
		only := leaves[0]
		return []split{{left: only.weight, total: only.weight, onLeft: only.at, onRight: only.at}}
	}
	// Joined nodes come out in ascending order, so two queues replace a heap.
	splits := make([]split, 0, len(leaves)-1)
	joined := make([]node, 0, len(leaves)-1)
	lightest := func() node {
		if len(joined) == 0 || len(leaves) > 0 && leaves[0].weight <= joined[0].weight {
			n := leaves[0]
			leaves = leaves[1:]
			return n
		}
		n := joined[0]
		joined = joined[1:]
		return n
	}
	for len(leaves)+len(joined) > 1 {
		light, heavy := lightest(), lightest()
		total := light.weight + heavy.weight
		joined = append(joined, node{total, int32(len(splits))})
		splits = append(splits, split{left: heavy.weight, total: total, onLeft: heavy.at, onRight: light.at})
	}
	return splits
}
