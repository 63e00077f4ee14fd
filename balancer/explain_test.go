package balancer

import (
	"slices"
	"testing"
	"time"
)

// pool makes endpoints a:80, b:80, ... of the weights.
func pool(weights ...uint64) []*Endpoint {
	var eps []*Endpoint
	for i, w := range weights {
		eps = append(eps, NewEndpoint(string(rune('a'+i)), 80, w, 0))
	}
	return eps
}

func TestPeekSequence(t *testing.T) {
	s := NewSequence(NewTable([]uint64{5, 3, 0, 2}), nil, nil)
	for range 200 {
		for range 3 {
			s.Peek()
		}
		n, branch := s.Peek()
		if gotN, got := s.NextN(); got != branch || gotN != n {
			t.Fatalf("pick %d went to %d, Peek said %d to %d", gotN, got, n, branch)
		}
	}
	if _, branch := NewSequence(NewTable([]uint64{0}), nil, nil).Peek(); branch != -1 {
		t.Errorf("without weights Peek says %d", branch)
	}
}

// What Peek says is what the next Pick returns, and asking does not change it.
func TestPeekIsTheNextPick(t *testing.T) {
	tests := []struct {
		name, kind string
		sick       []int
		eps        []*Endpoint
	}{
		{"round robin", RoundRobin, nil, pool(5, 1, 3)},
		{"round robin, one is sick", RoundRobin, []int{0}, pool(5, 1, 3)},
		{"round robin, the heavy one is sick", RoundRobin, []int{0}, pool(1_000_000, 1, 3)},
		{"round robin, all are sick", RoundRobin, []int{0, 1}, pool(2, 1)},
		{"round robin, all weigh nothing", RoundRobin, nil, pool(0, 0)},
		{"round robin, one", RoundRobin, nil, pool(0)},
		{"least connections", LeastConn, nil, pool(5, 1, 3)},
		{"least connections, equals", LeastConn, []int{1}, pool(1, 1, 1)},
		{"consistent hashing", ConsistHash, nil, pool(5, 1, 3)},
		{"consistent hashing, one is sick", ConsistHash, []int{2}, pool(5, 1, 3)},
		{"second priority", RoundRobin, []int{0}, []*Endpoint{NewEndpoint("a", 1, 1, 1), NewEndpoint("b", 1, 2, 0), NewEndpoint("c", 1, 1, 0)}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, err := New(tt.kind, tt.eps, nil)
			if err != nil {
				t.Fatal(err)
			}
			if KindOf(p) != tt.kind {
				t.Errorf("KindOf says %q", KindOf(p))
			}
			for _, i := range tt.sick {
				tt.eps[i].SetHealthy(false)
			}
			for key := range uint64(100) {
				want := Peek(p, key)
				for range 3 {
					if again := Peek(p, key); again != want {
						t.Fatalf("Peek said %d, then %d", want, again)
					}
				}
				got := p.Pick(nil, key)
				if got != want {
					t.Fatalf("request %d went to %d, Peek said %d", key, got, want)
				}
				tt.eps[got].Inflight.Add(1)
				if key%3 == 0 {
					tt.eps[got].Inflight.Add(-1)
				}
			}
		})
	}
}

func TestPeekEWMA(t *testing.T) {
	eps := pool(1, 1, 1)
	var now time.Duration
	p := newEWMA(eps, nil, func() time.Duration { return now })
	now = time.Second
	for i, rtt := range []time.Duration{30, 10, 20} {
		p.Observe(i, rtt*time.Millisecond)
	}
	if got := Peek(p, 0); got != 1 || KindOf(p) != EWMA {
		t.Errorf("Peek says %d of %s", got, KindOf(p))
	}
	eps[1].SetHealthy(false)
	if got := Peek(p, 0); got != 2 {
		t.Errorf("with the best one sick Peek says %d", got)
	}
}

func TestPeekWithoutEndpoints(t *testing.T) {
	for _, kind := range []string{RoundRobin, LeastConn, EWMA, ConsistHash} {
		p, err := New(kind, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := Peek(p, 1); got != -1 {
			t.Errorf("%s: %d", kind, got)
		}
	}
	if Peek(nil, 0) != -1 || KindOf(nil) != "" {
		t.Error("no picker")
	}
}

// Ten thousand questions leave the shares exact.
func TestPeekLeavesTheSharesAlone(t *testing.T) {
	p, err := New(RoundRobin, pool(8, 2), nil)
	if err != nil {
		t.Fatal(err)
	}
	got := make([]int, 2)
	for range 100 {
		for range 100 {
			Peek(p, 0)
		}
		got[p.Pick(nil, 0)]++
	}
	if !slices.Equal(got, []int{80, 20}) {
		t.Errorf("got %v", got)
	}
}
