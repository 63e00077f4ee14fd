package balancer

import (
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
)

// ledger compares what was served with the sum of the expected shares.
type ledger struct {
	excess      []float64
	worst, mean float64
	n           int
}

func (l *ledger) pick(s *Sequence) {
	l.excess[s.Next()]++
	for i := range l.excess {
		l.excess[i] -= s.Table().Share(i)
		l.worst = max(l.worst, math.Abs(l.excess[i]))
		l.mean += (math.Abs(l.excess[i]) - l.mean) / float64(l.n+1)
		l.n++
	}
}

func TestSequenceWalksItsTable(t *testing.T) {
	s := NewSequence(NewTable([]uint64{3, 1, 2}), nil, nil)
	for want := range uint64(20) {
		n, branch := s.NextN()
		if n != want || branch != s.Table().At(n) {
			t.Fatalf("pick %d is pick %d for branch %d, the table says %d", want, n, branch, s.Table().At(want))
		}
	}
	if got, want := s.Next(), s.Table().At(20); got != want {
		t.Errorf("Next() = %d, want %d", got, want)
	}
}

func TestSequenceGoesOnWithTheSameWeights(t *testing.T) {
	ids := []string{"v1", "v2"}
	s := NewSequence(NewTable([]uint64{80, 20}), ids, nil)
	s.Next()
	if NewSequence(NewTable([]uint64{80, 20}), slices.Clone(ids), s) != s {
		t.Error("same weights and ids start a new sequence")
	}
	if NewSequence(NewTable([]uint64{80, 20}), []string{"v1", "v3"}, s) == s {
		t.Error("another branch, but the old sequence")
	}
	if NewSequence(NewTable([]uint64{20, 80}), ids, s) == s {
		t.Error("other weights, but the old sequence")
	}
}

func TestSequenceFlipFlop(t *testing.T) {
	tables := []*Table{NewTable([]uint64{50, 50}), NewTable([]uint64{80, 20})}
	for _, every := range []int{1, 2, 3, 4, 5, 7} {
		l := ledger{excess: make([]float64, 2)}
		var s *Sequence
		for n := range 10000 {
			if n%every == 0 {
				s = NewSequence(tables[n/every%2], nil, s)
			}
			l.pick(s)
		}
		if l.worst > 0.75+1e-9 {
			t.Errorf("change every %d picks: off by %.3f picks", every, l.worst)
		}
	}
}

// The bounds are the documented ones: 3/4 for two branches, otherwise 6 at
// worst and 3/4 on average, after any number of changes.
func TestSequenceUnderRandomChanges(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 12))
	for trial := range 120 {
		k := 2 + trial%9
		top := []uint64{1, 2, 5, 20, 300}[r.IntN(5)]
		tables := make([]*Table, 2+r.IntN(3))
		for i := range tables {
			weights := make([]uint64, k)
			for b := range weights {
				weights[b] = r.Uint64N(top + 1)
			}
			weights[r.IntN(k)]++
			tables[i] = NewTable(weights)
		}
		every := []int{1, 2, 3, 5, 0, 0}[r.IntN(6)] // 0: at random
		inTurn := r.IntN(2) == 0
		l := ledger{excess: make([]float64, k)}
		var s *Sequence
		for change := range 300 {
			at := change % len(tables)
			if !inTurn {
				at = r.IntN(len(tables))
			}
			s = NewSequence(tables[at], nil, s)
			picks := every
			if every == 0 {
				picks = 1 + r.IntN(5)
			}
			for range picks {
				l.pick(s)
			}
		}
		worst, mean := 6.0, 0.75
		if k == 2 {
			worst, mean = 0.75+1e-9, 0.5
		}
		if l.worst > worst || l.mean > mean {
			t.Errorf("trial %d, %d branches up to %d, change every %d picks: off by %.3f at worst, %.3f on average", trial, k, top, every, l.worst, l.mean)
		}
	}
}

func TestSequenceUnderChangesOfHugeWeights(t *testing.T) {
	r := rand.New(rand.NewPCG(13, 14))
	for _, c := range []struct {
		weights [2][]uint64
		bound   float64
	}{
		{[2][]uint64{{1, 1e12}, {1e12, 1e12 + 1}}, 0.75 + 1e-6},
		{[2][]uint64{{1e15, 1e15 + 1}, {8e14, 2e14 + 1}}, 0.75 + 1e-6},
		{[2][]uint64{{1, 1}, {1e15, 3}}, 0.75 + 1e-6},
		{[2][]uint64{{1e12, 1e12 + 1, 1e12 + 3}, {1e12, 1, 5e11}}, 3},
		{[2][]uint64{{1, 2, 3}, {1e12, 1e12 + 1, 1e12 + 3}}, 3},
	} {
		l := ledger{excess: make([]float64, len(c.weights[0]))}
		tables := [2]*Table{NewTable(c.weights[0]), NewTable(c.weights[1])}
		var s *Sequence
		for change := range 200 {
			s = NewSequence(tables[change%2], nil, s)
			for range 1 + r.IntN(4) {
				l.pick(s)
			}
		}
		if l.worst > c.bound {
			t.Errorf("weights %v: off by %.3f", c.weights, l.worst)
		}
	}
}

func TestSequenceKnowsBranchesByID(t *testing.T) {
	l := ledger{excess: make([]float64, 2)}
	same, swapped := NewTable([]uint64{3, 2}), NewTable([]uint64{2, 3})
	var s *Sequence
	for n := range 3000 {
		// The same two branches with the same weights, listed either way round.
		if n%2 == 0 {
			s = NewSequence(same, []string{"a", "b"}, s)
			l.pick(s)
			continue
		}
		s = NewSequence(swapped, []string{"b", "a"}, s)
		l.excess[1-s.Next()]++
		l.excess[0] -= 0.6
		l.excess[1] -= 0.4
	}
	if l.worst > 0.75+1e-9 {
		t.Errorf("off by %.3f", l.worst)
	}
}

func TestSequenceWhoseBranchesComeAndGo(t *testing.T) {
	var s *Sequence
	served := map[string]int{}
	names := []string{"a", "b", "c", "d"}
	for n := range 4000 {
		out := n % 4 // each one is away in turn
		ids := slices.Delete(slices.Clone(names), out, out+1)
		s = NewSequence(NewTable([]uint64{1, 1, 1}), ids, s)
		served[ids[s.Next()]]++
	}
	for _, id := range names {
		if got := served[id]; got < 980 || got > 1020 {
			t.Errorf("%s served %d of 4000, want about 1000", id, got)
		}
	}
}

func TestSequenceIsExactUnderConcurrency(t *testing.T) {
	const workers = 64
	weights := []uint64{5, 0, 3, 2}
	s := NewSequence(NewTable(weights), nil, nil)
	var counts [4]atomic.Uint64
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for range 500 {
				counts[s.Next()].Add(1)
			}
		})
	}
	wg.Wait()
	for i, w := range weights {
		if got, want := counts[i].Load(), w*workers*500/10; got != want {
			t.Errorf("branch %d served %d times, want %d", i, got, want)
		}
	}
}

func TestNextDoesNotAllocate(t *testing.T) {
	for _, weights := range [][]uint64{{80, 20}, {1, 1e12}, {1, 1e12, 1e15}} {
		s := NewSequence(NewTable(weights), nil, nil)
		if got := testing.AllocsPerRun(100, func() { s.NextN(); s.Next() }); got != 0 {
			t.Errorf("weights %v: %v allocations", weights, got)
		}
	}
}
