package balancer

import (
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cespare/xxhash/v2"
)

const rendezvousKeys = 100_000

// choices returns what every key of the tests gets, by branch name.
func choices(t *testing.T, ids []string, weights []uint64) []string {
	t.Helper()
	r := NewRendezvous(ids, weights)
	got := make([]string, rendezvousKeys)
	for k := range got {
		i := r.Pick(testKey(k), nil)
		if i < 0 {
			t.Fatalf("key %d has no branch", k)
		}
		got[k] = ids[i]
	}
	return got
}

// testKey is of the size of the keys that the split uses.
func testKey(n int) uint64 { return xxhash.Sum64String(fmt.Sprintf("session-%d", n)) >> 32 }

// checkShare fails unless n of rendezvousKeys are what a share p gives, within 5 standard deviations of the
// binomial distribution and one for the rounding. The keys are the same each time, so that a check that passes always passes.
func checkShare(t *testing.T, what string, n int, p float64) {
	t.Helper()
	mean := rendezvousKeys * p
	if bound := 5*math.Sqrt(mean*(1-p)) + 1; math.Abs(float64(n)-mean) > bound {
		t.Errorf("%s: %d of %d keys, expected %.0f give or take %.0f", what, n, rendezvousKeys, mean, bound)
	}
}

func shareOf(weights []uint64, i int) float64 {
	var sum float64
	for _, w := range weights {
		sum += float64(w)
	}
	return float64(weights[i]) / sum
}

func TestRendezvousShares(t *testing.T) {
	for _, weights := range [][]uint64{
		{1}, {50, 50}, {80, 20}, {1, 0, 3}, {999, 1}, {1, 2, 3, 4, 5, 6, 7}, {1 << 62, 1 << 62, 1 << 61}, {math.MaxUint64, 1 << 62},
		slices.Repeat([]uint64{1}, 300),
	} {
		ids := make([]string, len(weights))
		for i := range ids {
			ids[i] = fmt.Sprintf("v%d", i)
		}
		count := map[string]int{}
		for _, id := range choices(t, ids, weights) {
			count[id]++
		}
		for i, w := range weights {
			weights[i] = min(w, math.MaxInt64)
		}
		for i, id := range ids {
			checkShare(t, fmt.Sprintf("%v: %s", weights, id), count[id], shareOf(weights, i))
		}
	}
}

// Weights that change, branches that come and go: the keys that move are those that have to, each to where it belongs.
func TestRendezvousMovesWhatMustMove(t *testing.T) {
	ids := []string{"a", "b", "c"}
	for _, tt := range []struct{ from, to []uint64 }{
		{[]uint64{50, 50, 0}, []uint64{80, 20, 0}},
		{[]uint64{50, 50, 0}, []uint64{50, 50, 10}}, // c comes
		{[]uint64{5, 3, 2}, []uint64{5, 3, 0}},      // c goes
		{[]uint64{5, 3, 2}, []uint64{5, 3, 4}},
		{[]uint64{5, 3, 2}, []uint64{500, 300, 200}}, // nothing
		{[]uint64{6, 2, 2}, []uint64{6, 3, 3}},       // as if a alone had shrunk
	} {
		before, after := choices(t, ids, tt.from), choices(t, ids, tt.to)
		moved := 0
		for k := range before {
			if before[k] == after[k] {
				continue
			}
			moved++
			was, is := slices.Index(ids, before[k]), slices.Index(ids, after[k])
			// to[is]/from[is] > to[was]/from[was]
			if tt.to[is]*tt.from[was] <= tt.to[was]*tt.from[is] {
				t.Fatalf("%v to %v: a key moved from %s to %s", tt.from, tt.to, before[k], after[k])
			}
		}
		var must float64
		for i := range ids {
			must += max(0, shareOf(tt.to, i)-shareOf(tt.from, i))
		}
		checkShare(t, fmt.Sprintf("%v to %v, moved", tt.from, tt.to), moved, must)
	}
}

// Whatever the weights become, no key moves between branches whose weights have grown alike, or towards one that has shrunk.
func TestRendezvousMovesTowardsGrowth(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	ids := []string{"a", "b", "c", "d", "e"}
	for range 200 {
		from, to := make([]uint64, len(ids)), make([]uint64, len(ids))
		for i := range ids {
			from[i], to[i] = 1+r.Uint64N(1000), 1+r.Uint64N(1000)
		}
		was, is := NewRendezvous(ids, from), NewRendezvous(ids, to)
		for key := range uint64(500) {
			a, b := was.Pick(key, nil), is.Pick(key, nil)
			if a != b && to[b]*from[a] <= to[a]*from[b] {
				t.Fatalf("%v to %v: key %d moved from %d to %d", from, to, key, a, b)
			}
		}
	}
}

func TestRendezvousDoesNotDependOnTheOrder(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	ids, weights := []string{"a", "b", "c", "d", "e"}, []uint64{5, 0, 9, 1, 1 << 40}
	want := choices(t, ids, weights)
	for range 5 {
		r.Shuffle(len(ids), func(i, j int) {
			ids[i], ids[j] = ids[j], ids[i]
			weights[i], weights[j] = weights[j], weights[i]
		})
		if got := choices(t, ids, weights); !slices.Equal(got, want) {
			t.Fatalf("%v gives other branches", ids)
		}
	}
}

// Who does not bid loses its keys and nothing else happens; when it bids again it has the same keys.
func TestRendezvousPassesOver(t *testing.T) {
	r := NewRendezvous([]string{"a", "b", "c"}, []uint64{5, 3, 2})
	without := NewRendezvous([]string{"a", "b", "c"}, []uint64{5, 0, 2})
	var passed Tried
	passed.Add(1)
	for key := range uint64(10_000) {
		all, rest := r.Pick(key, nil), r.Pick(key, &passed)
		if rest != without.Pick(key, nil) || all != 1 && rest != all {
			t.Fatalf("key %d: %d, without b %d", key, all, rest)
		}
	}
	passed.Add(0)
	passed.Add(2)
	if got := r.Pick(1, &passed); got != -1 {
		t.Errorf("got %d where nobody bids", got)
	}
	if got := NewRendezvous([]string{"a"}, []uint64{0}).Pick(1, nil); got != -1 {
		t.Errorf("got %d where every weight is 0", got)
	}
}

// The decisions are part of what users rely on: they are the same on every platform and in every version.
func TestRendezvousIsFixed(t *testing.T) {
	r := NewRendezvous([]string{"v1", "v2", "v3"}, []uint64{50, 30, 20})
	var got []byte
	for key := range uint64(64) {
		got = append(got, '1'+byte(r.Pick(key<<20|key, nil)))
	}
	const want = "2221221112222211231111112211131311213113222111111131322222312212"
	if string(got) != want {
		t.Errorf("got %s", got)
	}
	for u, want := range map[uint64]uint64{
		1: 0xb17217f7d1cf79bf, math.MaxUint64: 1, 1 << 63: ln2 - 1, 1<<63 - 1: ln2, 0x123456789abcdef0: 0xa92f4b9d02b276a,
	} {
		if got := arrival(u); got != want {
			t.Errorf("arrival(%#x) = %#x", u, got)
		}
	}
}

// exactly returns -ln(u/2^64) in units of arrival, from a series of its own.
func exactly(u uint64) *big.Float {
	const bits = 200
	number := func(x uint64) *big.Float { return new(big.Float).SetPrec(bits).SetUint64(x) }
	minusLn := func(f *big.Float) *big.Float { // 2*atanh((1-f)/(1+f))
		z := new(big.Float).SetPrec(bits).Quo(new(big.Float).Sub(number(1), f), new(big.Float).Add(number(1), f))
		square, sum, power := new(big.Float).Mul(z, z), new(big.Float).SetPrec(bits), new(big.Float).Set(z)
		for n := uint64(1); n < 300; n += 2 {
			sum.Add(sum, new(big.Float).Quo(power, number(n)))
			power.Mul(power, square)
		}
		return sum.Mul(sum, number(2))
	}
	f, halvings := number(u), 64
	for f.Cmp(number(1)) >= 0 {
		f.Quo(f, number(2))
		halvings--
	}
	t := minusLn(new(big.Float).Quo(number(1), number(2)))
	t.Mul(t, number(uint64(halvings)))
	t.Add(t, minusLn(f))
	return t.Mul(t, number(1<<timePlaces))
}

func TestArrival(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	us := []uint64{1, 2, 3, 1 << 31, 1 << 62, 1 << 63, math.MaxUint64, math.MaxUint64 - 1, math.MaxUint64 - 1000}
	for i := range uint64(16) {
		us = append(us, (8+i/2)<<60-i%2, i<<60+1)
	}
	for range 300 {
		us = append(us, r.Uint64(), r.Uint64()>>r.IntN(64), -(1 + r.Uint64()>>r.IntN(64)))
	}
	worst := 0.0
	for _, u := range us {
		if u == 0 {
			continue
		}
		off, _ := new(big.Float).Sub(new(big.Float).SetUint64(arrival(u)), exactly(u)).Float64()
		worst = max(worst, math.Abs(off))
		if lowest(u) > arrival(u) {
			t.Errorf("%#x: lowest %#x is above %#x", u, lowest(u), arrival(u))
		}
	}
	if worst >= 40 {
		t.Errorf("the error is %v units", worst)
	}
	if arrival(0) != arrival(1) {
		t.Error("0 is not taken for 1")
	}
}

func TestRendezvousAllocatesNothing(t *testing.T) {
	r := NewRendezvous([]string{"a", "b", "c"}, []uint64{5, 3, 2})
	var passed Tried
	passed.Add(2)
	key := uint64(0)
	if n := testing.AllocsPerRun(500, func() { key++; r.Pick(key, nil); r.Pick(key, &passed) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkRendezvous(b *testing.B) {
	for _, n := range []int{2, 20, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			ids, weights := make([]string, n), slices.Repeat([]uint64{7}, n)
			for i := range ids {
				ids[i] = fmt.Sprint(i)
			}
			r, key := NewRendezvous(ids, weights), uint64(0)
			for b.Loop() {
				key++
				r.Pick(key, nil)
			}
		})
	}
}
