package balancer

import (
	"math"
	"testing"
)

// growing returns endpoints of equal weight that share their verdicts with the returned Healths.
func growing(k int) ([]*Endpoint, []*Health) {
	eps := endpoints(make([]uint64, k)...)
	judged := make([]*Health, k)
	for i, e := range eps {
		e.Weight = 1
		judged[i] = &Health{Ramps: true}
		e.Judge(judged[i])
	}
	return eps, judged
}

// TestShare: an endpoint gets its share of what its weight gives it, the others get the rest, and nothing is left unserved.
func TestShare(t *testing.T) {
	const picks = 20_000
	for _, kind := range kinds {
		for _, share := range []uint32{1, WholeShare / 4, WholeShare / 2, WholeShare} {
			eps, judged := growing(2)
			p := picker(t, kind, eps, nil)
			judged[0].SetShare(share)
			counts := make([]float64, 2)
			for n := range uint64(picks) {
				i := p.Pick(nil, n)
				if i < 0 {
					t.Fatalf("%s: nobody serves at share %d", kind, share)
				}
				counts[i]++
			}
			// Of the picks that fall to it, half as there are two; round robin makes the next of its turns come sooner for each that it misses.
			part := float64(share) / WholeShare
			want := part / 2
			if kind == RoundRobin {
				want = part / (1 + part)
			}
			if got := counts[0] / picks; math.Abs(got-want) > 0.02 {
				t.Errorf("%s, share %d of %d: %.3f of the picks, want %.3f", kind, share, WholeShare, got, want)
			}
		}
	}
}

// TestShareByKey: by consistent hashing a key comes back to an endpoint that grows once, and what is not that endpoint's stays.
func TestShareByKey(t *testing.T) {
	eps, judged := growing(3)
	p := picker(t, ConsistHash, eps, nil)
	home := make([]int, 3000)
	for key := range home {
		home[key] = p.Pick(nil, uint64(key))
	}
	back := make([]bool, len(home))
	for share := uint32(1); share <= WholeShare; share *= 2 {
		judged[1].SetShare(share)
		for key := range home {
			switch got := p.Pick(nil, uint64(key)); {
			case home[key] != 1 && got != home[key]:
				t.Fatalf("share %d: key %d went from %d to %d", share, key, home[key], got)
			case back[key] && got != 1:
				t.Fatalf("share %d: key %d had come back and left again", share, key)
			case home[key] == 1:
				back[key] = got == 1
			}
		}
	}
	for key := range home {
		if home[key] == 1 && !back[key] {
			t.Fatalf("key %d never came back", key)
		}
	}
}

// TestShareInPriority: a part of the highest priority is better than a lower one, and alone it serves everything.
func TestShareInPriority(t *testing.T) {
	for _, kind := range kinds {
		eps, judged := growing(3)
		eps[1].Priority, eps[2].Priority = -1, -1
		p := picker(t, kind, eps, nil)
		judged[0].SetShare(1)
		for n := range uint64(1000) {
			if i := p.Pick(nil, n); i != 0 {
				t.Fatalf("%s: %d serves, though 0 has the higher priority", kind, i)
			}
		}
		judged[0].Set(false)
		if i := p.Pick(nil, 1); i == 0 {
			t.Errorf("%s: 0 serves, though it is down", kind)
		}
		judged[1].Set(false)
		judged[2].Set(false)
		if i := p.Pick(nil, 1); i != 0 {
			t.Errorf("%s: all are down and %d serves, want the highest priority", kind, i)
		}
	}
}

// TestAllDown: when health is ignored, the weights still count, and nobody is left out by the rhythm of the search for somebody healthy.
func TestAllDown(t *testing.T) {
	for _, kind := range kinds {
		for _, weights := range [][]uint64{{1, 1}, {1, 3}, {1, 1, 1}, {2, 1, 1}} {
			eps := endpoints(weights...)
			p := picker(t, kind, eps, nil)
			var total uint64
			for i, e := range eps {
				e.SetHealthy(false)
				total += weights[i]
			}
			counts := make([]float64, len(eps))
			const picks = 4000
			for n := range uint64(picks) {
				next := Peek(p, n)
				i := p.Pick(nil, n)
				if i < 0 || kind != EWMA && i != next {
					t.Fatalf("%s %v: %d serves, and %d was to be next", kind, weights, i, next)
				}
				counts[i]++
			}
			for i, n := range counts {
				want := float64(weights[i]) / float64(total)
				if kind == LeastConn || kind == EWMA { // nothing is under way and nothing was measured
					want = 0
				}
				if n == 0 && kind != LeastConn || want > 0 && math.Abs(n/picks-want) > 0.1 {
					t.Errorf("%s %v: %d has %.3f of the picks, want %.3f", kind, weights, i, n/picks, want)
				}
			}
		}
	}
	eps := endpoints(1, 1)
	p := picker(t, LeastConn, eps, nil)
	eps[0].SetHealthy(false)
	eps[1].SetHealthy(false)
	if a, b := p.Pick(nil, 0), p.Pick(nil, 0); a == b {
		t.Errorf("of two equals that are down, least_conn picks %d twice", a)
	}
}

// TestJudge: one verdict holds for all endpoints that share it, in every picker, at the next pick.
func TestJudge(t *testing.T) {
	var h Health
	before, after := endpoints(1, 1), endpoints(1, 1)
	before[0].Judge(&h)
	after[0].Judge(&h)
	old := picker(t, RoundRobin, before, nil)
	next := picker(t, RoundRobin, after, old)
	after[0].SetHealthy(false)
	for range 10 {
		if old.Pick(nil, 0) != 1 || next.Pick(nil, 0) != 1 {
			t.Fatal("an endpoint that is down was picked")
		}
	}
	if before[0].Healthy() || !before[1].Healthy() {
		t.Error("the verdict is not shared")
	}
	h.Set(true)
	if !before[0].Healthy() || !after[0].Healthy() {
		t.Error("the recovery is not shared")
	}
}

// TestSucceed: what is under way at a change of the configuration still counts for least_conn.
func TestSucceed(t *testing.T) {
	before, after := endpoints(1, 1), endpoints(1, 1)
	for i := range after {
		after[i].Succeed(before[i])
	}
	before[0].Inflight.Add(1)
	p := picker(t, LeastConn, after, nil)
	for range 10 {
		if i := p.Pick(nil, 0); i != 1 {
			t.Fatalf("%d was picked, which has a long attempt under way", i)
		}
	}
	before[0].Inflight.Add(-1)
	if n := after[0].Inflight.Load(); n != 0 {
		t.Errorf("%d attempts are under way", n)
	}
}

// TestShareAlloc: neither shares nor the sick cost an allocation.
func TestShareAlloc(t *testing.T) {
	for _, kind := range kinds {
		eps, judged := growing(4)
		p := picker(t, kind, eps, nil)
		judged[0].SetShare(100)
		judged[1].Set(false)
		key := uint64(0)
		if n := testing.AllocsPerRun(1000, func() { key++; p.Pick(nil, key) }); n != 0 {
			t.Errorf("%s: %v allocations per pick", kind, n)
		}
	}
}
