package balancer

import (
	"math"
	"testing"
)

func TestHashKeepsKeysTogether(t *testing.T) {
	eps := endpoints(1, 1, 1, 1, 1)
	p := picker(t, ConsistHash, eps, nil)
	again := picker(t, ConsistHash, endpoints(1, 1, 1, 1, 1), nil)
	for key := range uint64(500) {
		if a, b := p.Pick(nil, key), again.Pick(nil, key); a != b {
			t.Fatalf("key %d: %d, then %d", key, a, b)
		}
	}
}

func TestHashFollowsWeights(t *testing.T) {
	for _, weights := range [][]uint64{{1, 1, 1}, {20, 10, 10}, {1e15, 1e15, 1e15 - 1}, {500, 300, 201}, {10, 10, 5}, {1000, 3000, 7000}} {
		var sum float64
		for _, w := range weights {
			sum += float64(w)
		}
		eps := endpoints(weights...)
		const n = 20000
		got := tally(picker(t, ConsistHash, eps, nil), eps, n)
		for i, w := range weights {
			want := n * float64(w) / sum
			if float64(got[i]) < 0.95*want || float64(got[i]) > 1.05*want {
				t.Errorf("weights %v: counts %v", weights, got)
			}
		}
	}
}

// TestHashMovesOnlyTheShareOfAChange: keys move only to who has grown or come, or away from who has shrunk or gone, and no more of them than the new
// shares ask for; whatever the weights of the others are.
func TestHashMovesOnlyTheShareOfAChange(t *testing.T) {
	const n = 20000
	for _, c := range []struct {
		before, after []uint64 // of the same endpoints; 0 = none
	}{
		{[]uint64{1, 1, 1, 1, 0}, []uint64{1, 1, 1, 1, 1}},
		{[]uint64{1, 0, 1, 1, 1}, []uint64{1, 1, 1, 1, 1}},
		{[]uint64{10, 10, 10, 0}, []uint64{10, 10, 10, 5}},
		{[]uint64{50, 50, 0}, []uint64{50, 50, 1}},
		{[]uint64{1000, 3000, 0, 0}, []uint64{1000, 3000, 7, 0}},
		{[]uint64{6, 10, 15}, []uint64{6, 10, 0}},
		{[]uint64{2, 4, 6}, []uint64{2, 3, 6}},
		{[]uint64{100, 100, 100}, []uint64{100, 100, 163}},
		{[]uint64{1e12, 1, 1e12}, []uint64{1e12, 1e12, 1e12}},
	} {
		changed, sumBefore, sumAfter := -1, 0.0, 0.0
		for i := range c.before {
			sumBefore += float64(c.before[i])
			sumAfter += float64(c.after[i])
			if c.before[i] != c.after[i] {
				changed = i
			}
		}
		a, b := picker(t, ConsistHash, endpoints(c.before...), nil), picker(t, ConsistHash, endpoints(c.after...), nil)
		moved := 0
		for key := range uint64(n) {
			before, after := a.Pick(nil, key), b.Pick(nil, key)
			if before == after {
				continue
			}
			moved++
			if grew := c.after[changed] > c.before[changed]; grew && after != changed || !grew && before != changed {
				t.Fatalf("%v to %v: key %d moved from %d to %d", c.before, c.after, key, before, after)
			}
		}
		want := n * math.Abs(float64(c.after[changed])/sumAfter-float64(c.before[changed])/sumBefore)
		if float64(moved) < want*0.85-30 || float64(moved) > want*1.15+30 {
			t.Errorf("%v to %v: %d of %d keys moved, want about %.0f", c.before, c.after, moved, n, want)
		}
	}

	// A node that is down moves its own keys only, just as if it were gone.
	few, more := endpoints(3, 1, 2, 1), endpoints(3, 1, 2, 1, 5)
	a, b := picker(t, ConsistHash, few, nil), picker(t, ConsistHash, more, nil)
	more[4].SetHealthy(false)
	for key := range uint64(n) {
		if x, y := a.Pick(nil, key), b.Pick(nil, key); x != y {
			t.Fatalf("key %d: %d without the node, %d with it down", key, x, y)
		}
	}
}
