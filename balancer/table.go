// Package balancer decides who serves the next request: a Table turns weights
// into an exact order, a Sequence walks it, and a Picker applies one rule
// (round robin, least connections, EWMA, consistent hashing) to the endpoints
// of an upstream. Everything on the request path is lock-free and allocates
// nothing; everything else runs when the configuration changes.
package balancer

import (
	"math/bits"
	"slices"
)

const (
	// maxSlots bounds the period that is laid out in memory. A longer one is
	// computed on every pick instead.
	maxSlots = 1 << 16

	// maxTotal bounds the sum of the weights so that every product of a
	// position and a weight fits 128 bits with room for rounding.
	maxTotal = 1 << 62

	// fastLimit is the first position for which the multiplication in slot is
	// not proven exact: 2^64 / maxSlots.
	fastLimit = 1 << 48
)

// Table is an immutable order of branches built from their weights. It is
// periodic: the period is the sum of the weights divided by their greatest
// common divisor, and a whole period serves every branch exactly.
//
// With w a branch's weight, W the sum and n any number of first picks, the
// branch has been served n*w/W times, give or take
//
//   - at most 1 - 1/(2k-2) when the period fits 65,536 slots or only two
//     weights are positive (k = number of positive weights): less than 1, so
//     less than 2 in any window of consecutive picks;
//   - less than 1.68 (half the sum of the reciprocal Fibonacci numbers) with
//     three or more positive weights and a longer period.
//
// A weight of 0 is never picked. A sum above 2^62 halves all weights until it
// fits, a positive weight never falling below 1.
type Table struct {
	narrow []uint8  // one slot per pick of the period, up to 256 branches
	wide   []uint16 // the same for more branches
	size   uint64   // number of slots
	magic  uint64   // floor(2^64/size) + 1

	splits []split // the tree of a long period; the root is the last one

	weights []uint64 // as given
	reduced []uint64 // after the clamp, divided by the gcd
	total   uint64   // sum of reduced: the period
}

// NewTable builds the table of weights; branch i has weights[i]. It copies
// weights, never panics, and takes O(period * log branches) time for periods
// up to 65,536 and O(branches * log branches) for longer ones.
func NewTable(weights []uint64) *Table {
	t := &Table{weights: slices.Clone(weights), reduced: clamp(weights)}
	var gcd uint64
	positive := 0
	for _, w := range t.reduced {
		if w > 0 {
			gcd = greatestDivisor(gcd, w)
			positive++
		}
	}
	if positive == 0 {
		return t
	}
	for i := range t.reduced {
		t.reduced[i] /= gcd
		t.total += t.reduced[i]
	}
	switch {
	case t.total > maxSlots || len(weights) > maxSlots:
		t.splits = buildSplits(t.reduced)
		return t
	case len(weights) <= 1<<8:
		t.narrow = buildSlots[uint8](t.reduced, positive)
		t.size = uint64(len(t.narrow))
	default:
		t.wide = buildSlots[uint16](t.reduced, positive)
		t.size = uint64(len(t.wide))
	}
	t.magic = ^uint64(0)/t.size + 1
	return t
}

// At returns the branch of pick n, counted from 0, or -1 when every weight is
// 0. It is a pure function of the weights and n.
func (t *Table) At(n uint64) int {
	if len(t.narrow) != 0 {
		return int(t.narrow[t.slot(n)])
	}
	if len(t.wide) != 0 {
		return int(t.wide[t.slot(n)])
	}
	return t.atSplit(n)
}

// Place returns where pick n stands in the table: n modulo the period, 0 when every weight is 0. At tells the same of both.
func (t *Table) Place(n uint64) uint64 {
	switch {
	case t.total == 0:
		return 0
	case t.total == t.size: // the slots of a single branch are more
		return t.slot(n)
	}
	return n % t.total
}

// slot is n modulo size by two multiplications. The rounded-up reciprocal
// overshoots by at most n*size/2^64 < 1 quotient steps below fastLimit.
func (t *Table) slot(n uint64) uint64 {
	if n >= fastLimit {
		return n % t.size
	}
	q, _ := bits.Mul64(n, t.magic)
	return n - q*t.size
}

// Weights returns a copy of the weights the table was built from.
func (t *Table) Weights() []uint64 { return slices.Clone(t.weights) }

// Share returns the part of all picks that branch i gets, 0 to 1. An unknown
// branch has none.
func (t *Table) Share(i int) float64 {
	if i < 0 || i >= len(t.reduced) || t.total == 0 {
		return 0
	}
	return float64(t.reduced[i]) / float64(t.total)
}

// served adds to counts how often each branch is picked in the first n picks
// of one period. n must not exceed the period.
func (t *Table) served(n uint64, counts []uint64) {
	switch {
	case len(t.narrow) != 0:
		for _, b := range t.narrow[:n] {
			counts[b]++
		}
	case len(t.wide) != 0:
		for _, b := range t.wide[:n] {
			counts[b]++
		}
	case len(t.splits) != 0:
		t.servedSplit(n, counts)
	}
}

// clamp returns the weights, shifted right together until their sum is at
// most maxTotal.
func clamp(weights []uint64) []uint64 {
	out := slices.Clone(weights)
	for shift := 0; ; shift++ {
		var sum, carry uint64
		fits := true
		for i, w := range weights {
			if w > 0 {
				out[i] = max(w>>shift, 1)
			}
			sum, carry = bits.Add64(sum, out[i], 0)
			fits = fits && carry == 0
		}
		if fits && sum <= maxTotal {
			return out
		}
	}
}

func greatestDivisor(a, b uint64) uint64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}
