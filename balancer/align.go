package balancer

import (
	"math"
	"math/bits"
)

// lead returns how far each branch is ahead of its share after the first n
// picks: picks minus expected picks.
func (t *Table) lead(n uint64) []float64 {
	out := make([]float64, len(t.weights))
	if t.total == 0 {
		return out
	}
	n %= t.total
	counts := make([]uint64, len(t.weights))
	t.served(n, counts)
	for i, c := range counts {
		// c - n*w/total, the whole part taken off exactly: the factors may be
		// too large for a float's 53 bits.
		hi, lo := bits.Mul64(n, t.reduced[i])
		whole, rest := bits.Div64(hi, lo, t.total)
		out[i] = float64(int64(c-whole)) - float64(rest)/float64(t.total)
	}
	return out
}

// align returns the position, within one period, whose lead is nearest to
// surplus (least squares; the first of equals). A sequence that starts there
// treats surplus as if this table itself had caused it.
func (t *Table) align(surplus []float64) uint64 {
	switch {
	case len(t.splits) == 1:
		return t.alignPair(surplus)
	case len(t.splits) > 1:
		return t.alignSampled(surplus)
	case t.total > 1:
		return t.alignSlots(surplus)
	}
	return 0
}

// alignSlots tries every position. With d = surplus - lead, one pick of branch
// b changes d by shares - e(b), which makes the sum of squares and its product
// with the shares cheap to carry along.
func (t *Table) alignSlots(surplus []float64) uint64 {
	const closer = 1e-9 // below this a difference is rounding
	k := len(t.weights)
	shares := make([]float64, k)
	picks := make([]float64, k)
	var square, product, norm float64
	for i := range shares {
		shares[i] = t.Share(i)
		square += surplus[i] * surplus[i]
		product += surplus[i] * shares[i]
		norm += shares[i] * shares[i]
	}
	best, at := square, uint64(0)
	for n := range t.total - 1 {
		b := t.At(n)
		d := surplus[b] + float64(n)*shares[b] - picks[b]
		square += 2*product + norm - 2*(d+shares[b]) + 1
		product += norm - shares[b]
		picks[b]++
		if square < best-closer {
			best, at = square, n+1
		}
	}
	return at
}

// alignPair inverts the split: position n leaves the left side
// ((n*left + total/2) mod total - total/2) / total behind.
func (t *Table) alignPair(surplus []float64) uint64 {
	s := &t.splits[0]
	behind := math.Round(-surplus[^s.onLeft] * float64(s.total))
	half := float64(s.total / 2)
	want := s.total/2 + uint64(int64(min(max(behind, -half), half)))
	want = min(want, s.total-1)
	hi, lo := bits.Mul64((want+s.total-s.total/2)%s.total, inverse(s.left, s.total))
	return bits.Rem64(hi, lo, s.total)
}

// inverse returns x with a*x = 1 mod m, for a and m without common divisor,
// m <= maxTotal.
func inverse(a, m uint64) uint64 {
	r0, r1 := int64(m), int64(a%m)
	x0, x1 := int64(0), int64(1)
	for r1 != 0 {
		q := r0 / r1
		r0, r1 = r1, r0-q*r1
		x0, x1 = x1, x0-q*x1
	}
	if x0 < 0 {
		x0 += int64(m)
	}
	return uint64(x0)
}

// alignSampled tries positions spread over a period that is too long to be
// searched, each with a few neighbours.
func (t *Table) alignSampled(surplus []float64) uint64 {
	samples := uint64(min(max(1<<16/len(t.weights), 64), 2048))
	best, at := -1.0, uint64(0)
	for i := range samples {
		hi, lo := bits.Mul64(t.total, i)
		n, _ := bits.Div64(hi, lo, samples)
		n = (n + i) % t.total
		var square float64
		for b, lead := range t.lead(n) {
			square += (surplus[b] - lead) * (surplus[b] - lead)
		}
		if best < 0 || square < best {
			best, at = square, n
		}
	}
	return at
}
