package balancer

import (
	"encoding/binary"
	"math"
	"math/big"
	"math/rand/v2"
	"slices"
	"testing"
)

// quota checks counts, the picks among the first n of a table, against the
// documented bound, in exact arithmetic.
func quota(t *testing.T, tab *Table, n uint64, counts []uint64) {
	t.Helper()
	positive := 0
	for _, w := range tab.reduced {
		if w > 0 {
			positive++
		}
	}
	num, den := int64(168), int64(100)
	if positive <= 2 || len(tab.splits) == 0 {
		den = int64(max(2*positive-2, 1))
		num = den - 1
	}
	total := new(big.Int).SetUint64(tab.total)
	limit := new(big.Int).Mul(total, big.NewInt(num))
	for i, w := range tab.reduced {
		if w == 0 {
			if counts[i] != 0 {
				t.Fatalf("weights %v: branch %d of weight 0 served %d times in %d picks", tab.weights, i, counts[i], n)
			}
			continue
		}
		d := new(big.Int).Mul(new(big.Int).SetUint64(counts[i]), total)
		d.Sub(d, new(big.Int).Mul(new(big.Int).SetUint64(n), new(big.Int).SetUint64(w)))
		if d.Abs(d).Mul(d, big.NewInt(den)).Cmp(limit) > 0 {
			t.Fatalf("weights %v: branch %d served %d times in %d picks: off by more than %d/%d", tab.weights, i, counts[i], n, num, den)
		}
	}
}

// exact checks the same bound after every pick of the given number of periods.
// It is for tables with slots, whose products fit 64 bits.
func exact(t *testing.T, weights []uint64, periods uint64) {
	t.Helper()
	tab := NewTable(weights)
	positive := uint64(0)
	for _, w := range weights {
		if w > 0 {
			positive++
		}
	}
	den := int64(max(2*positive-2, 1))
	total := int64(tab.total)
	counts := make([]int64, len(weights))
	for n := range periods * tab.total {
		b := tab.At(n)
		if b < 0 || tab.reduced[b] == 0 {
			t.Fatalf("weights %v: pick %d went to %d", weights, n, b)
		}
		counts[b]++
		for i, c := range counts {
			d := c*total - int64(n+1)*int64(tab.reduced[i])
			if max(d, -d)*den > (den-1)*total {
				t.Fatalf("weights %v: branch %d off by %d/%d after %d picks", weights, i, d, total, n+1)
			}
		}
	}
}

func TestTableIsExactAfterEveryPick(t *testing.T) {
	for _, weights := range [][]uint64{
		{1}, {7}, {0, 3, 0}, {1, 1}, {50, 50}, {80, 20}, {1, 2, 3}, {5, 1, 1}, {0, 1, 0, 2},
		{1, 1, 1, 1, 1, 1, 1}, {1, 9999}, {9999, 1}, {1, 0, 9999}, {3, 65533}, {1, 65535},
		{30000, 35535, 1}, {1, 1, 1, 9997}, {999, 1000, 1001, 0, 7},
	} {
		exact(t, weights, 3)
	}
}

func TestTableIsExactForRandomWeights(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 400 {
		k := 1 + r.IntN(20)
		top := uint64(1) << r.IntN(12) // often small, often lopsided
		weights := make([]uint64, k)
		for i := range weights {
			weights[i] = r.Uint64N(top + 1)
		}
		weights[r.IntN(k)] = 1 + r.Uint64N(40)
		exact(t, weights, 1)
	}
}

func TestTableOfTheLongestStoredPeriod(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 4 {
		weights := make([]uint64, 20)
		left := uint64(maxSlots)
		for i := range weights[1:] {
			weights[i+1] = r.Uint64N(left/3) | 1
			left -= weights[i+1]
		}
		weights[0] = left
		if tab := NewTable(weights); len(tab.splits) != 0 {
			t.Fatalf("weights %v are computed, not stored", weights)
		}
		exact(t, weights, 1)
	}
}

func TestTableInAnyWindow(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 300 {
		weights := make([]uint64, 2+r.IntN(6))
		for i := range weights {
			weights[i] = r.Uint64N(15)
		}
		weights[0]++
		tab := NewTable(weights)
		for from := range tab.total {
			counts := make([]int64, len(weights))
			for n := range 2 * tab.total {
				counts[tab.At(from+n)]++
				for i, c := range counts {
					d := c*int64(tab.total) - int64(n+1)*int64(tab.reduced[i])
					if max(d, -d) >= 2*int64(tab.total) {
						t.Fatalf("weights %v: %d picks from %d: branch %d off by %d/%d", weights, n+1, from, i, d, tab.total)
					}
				}
			}
		}
	}
}

func TestTableIsPeriodicUpToTheLastPosition(t *testing.T) {
	manyBranches := make([]uint64, 300)
	for i := range manyBranches {
		manyBranches[i] = uint64(1 + i%7)
	}
	for _, weights := range [][]uint64{{1}, {1, 1}, {2, 1}, {80, 20}, {1, 9999}, {65535, 1}, {65520, 1}, manyBranches, {1, 1e12}, {1, 1e12, 1e15}} {
		tab := NewTable(weights)
		for _, n := range []uint64{0, 1, tab.total, fastLimit - 1, fastLimit - 2, fastLimit, fastLimit + 1, 1 << 32, 1<<63 - 1, math.MaxUint64 - 1, math.MaxUint64} {
			if got, want := tab.At(n), tab.At(n%tab.total); got != want {
				t.Errorf("weights %v (%d): At(%d) = %d, At(%d) = %d", weights[:min(len(weights), 5)], len(weights), n, got, n%tab.total, want)
			}
		}
	}
}

func TestTableWithoutWeights(t *testing.T) {
	for _, weights := range [][]uint64{nil, {0}, {0, 0, 0}} {
		tab := NewTable(weights)
		for _, n := range []uint64{0, 1, math.MaxUint64} {
			if got := tab.At(n); got != -1 {
				t.Errorf("weights %v: At(%d) = %d", weights, n, got)
			}
		}
		if got := tab.Share(0); got != 0 {
			t.Errorf("weights %v: Share(0) = %v", weights, got)
		}
		if got := NewSequence(tab, nil, NewSequence(NewTable([]uint64{1}), nil, nil)).Next(); got != -1 {
			t.Errorf("weights %v: Next() = %d", weights, got)
		}
	}
}

func TestTableWithHugeWeights(t *testing.T) {
	const most = math.MaxUint64
	r := rand.New(rand.NewPCG(7, 8))
	cases := [][]uint64{
		{1, 1e12}, {1e12, 1}, {1e15, 1e15 - 1}, {0, 1e15, 0, 1}, {65536, 1}, {most, 1}, {most, most - 1},
		{1, 1e12, 1e12}, {1, 1e15, 3}, {most, most, 1}, {most, most - 1, 5, 0, 1},
	}
	for range 25 {
		weights := make([]uint64, 2+r.IntN(19))
		for i := range weights {
			weights[i] = r.Uint64() >> r.IntN(64)
		}
		cases = append(cases, weights)
	}
	// Fibonacci weights make the deepest Huffman tree.
	fibonacci := []uint64{1, 1}
	for len(fibonacci) < 60 {
		fibonacci = append(fibonacci, fibonacci[len(fibonacci)-1]+fibonacci[len(fibonacci)-2])
	}
	for _, weights := range append(cases, fibonacci) {
		tab := NewTable(weights)
		if tab.total == 0 {
			continue
		}
		starts := []uint64{0, tab.total - min(tab.total, 100)}
		for range 6 {
			starts = append(starts, r.Uint64N(tab.total))
		}
		for _, from := range starts {
			counts := make([]uint64, len(weights))
			tab.served(from, counts)
			for n := from; n < min(from+100, tab.total); n++ {
				quota(t, tab, n, counts)
				counts[tab.At(n)]++
			}
		}
		whole := make([]uint64, len(weights))
		tab.served(tab.total, whole)
		if !slices.Equal(whole, tab.reduced) {
			t.Errorf("weights %v: one period serves %v, want %v", weights, whole, tab.reduced)
		}
	}
}

func TestTableWithMoreBranchesThanSlotsCanName(t *testing.T) {
	weights := make([]uint64, maxSlots+10)
	weights[maxSlots+5] = 3
	tab := NewTable(weights)
	for n := range uint64(5) {
		if got := tab.At(n); got != maxSlots+5 {
			t.Fatalf("At(%d) = %d", n, got)
		}
	}
	weights[2] = 3
	tab = NewTable(weights)
	if a, b := tab.At(0), tab.At(1); a+b != maxSlots+7 || a == b {
		t.Fatalf("picks %d, %d", a, b)
	}
}

func TestTableKeepsItsWeights(t *testing.T) {
	given := []uint64{80, 0, 20}
	tab := NewTable(given)
	given[0] = 1
	tab.Weights()[2] = 7
	if got := tab.Weights(); !slices.Equal(got, []uint64{80, 0, 20}) {
		t.Errorf("Weights() = %v", got)
	}
	for i, want := range []float64{0.8, 0, 0.2} {
		if got := tab.Share(i); got != want {
			t.Errorf("Share(%d) = %v, want %v", i, got, want)
		}
	}
	if tab.Share(-1) != 0 || tab.Share(3) != 0 {
		t.Error("an unknown branch has a share")
	}
}

func FuzzTable(f *testing.F) {
	f.Add([]byte{50, 0, 0, 0, 0, 0, 0, 0, 50}, uint8(0), uint64(0))
	f.Add([]byte("\x01\x00\x00\x00\x00\x00\x00\x00\x0f\x27"), uint8(0), uint64(9999))
	f.Add([]byte("three branches, all of them far too heavy"), uint8(0), uint64(1<<63))
	f.Add([]byte("the same with weights that are small enough"), uint8(56), uint64(7))
	f.Add([]byte{}, uint8(3), uint64(1))
	f.Fuzz(func(t *testing.T, raw []byte, shift uint8, n uint64) {
		var weights []uint64
		for len(raw) > 0 && len(weights) < 40 {
			var word [8]byte
			raw = raw[copy(word[:], raw):]
			weights = append(weights, binary.LittleEndian.Uint64(word[:])>>(shift%64))
		}
		tab := NewTable(weights)
		if tab.total == 0 {
			if tab.At(n) != -1 {
				t.Fatalf("weights %v: At(%d) = %d", weights, n, tab.At(n))
			}
			return
		}
		for _, from := range []uint64{0, n % tab.total} {
			counts := make([]uint64, len(weights))
			tab.served(from, counts)
			for n := from; n < min(from+64, tab.total); n++ {
				quota(t, tab, n, counts)
				counts[tab.At(n)]++
			}
		}
	})
}

func TestPlace(t *testing.T) {
	for _, weights := range [][]uint64{{3, 1}, {1, 1 << 40}, {0, 5}, {0}, nil, slices.Repeat([]uint64{1}, 300)} {
		table := NewTable(weights)
		for _, n := range []uint64{0, 1, 7, 1 << 17, 1<<48 + 5, 1<<63 + 11} {
			place := table.Place(n)
			if table.At(place) != table.At(n) || table.Place(place) != place || table.total > 0 && place != n%table.total {
				t.Errorf("%d weights: pick %d is at %d", len(weights), n, place)
			}
		}
	}
}
