package balancer

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

var kinds = []string{RoundRobin, LeastConn, EWMA, ConsistHash}

// endpoints makes one endpoint per weight, all of one priority.
func endpoints(weights ...uint64) []*Endpoint {
	eps := make([]*Endpoint, len(weights))
	for i, w := range weights {
		eps[i] = NewEndpoint("10.0.0."+string(rune('1'+i)), 80, w, 0)
	}
	return eps
}

func picker(t testing.TB, kind string, eps []*Endpoint, prev Picker) Picker {
	t.Helper()
	p, err := New(kind, eps, prev)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// tally returns how often each endpoint is picked, for n different keys.
func tally(p Picker, eps []*Endpoint, n int) []int {
	counts := make([]int, len(eps))
	for key := range n {
		counts[p.Pick(nil, uint64(key))]++
	}
	return counts
}

// exhaust returns the endpoints in the order one exchange tries them.
func exhaust(t *testing.T, p Picker, key uint64) []int {
	t.Helper()
	var tried Tried
	var order []int
	for {
		i := p.Pick(&tried, key)
		if i < 0 {
			return order
		}
		if tried.Has(i) {
			t.Fatalf("endpoint %d picked again after %v", i, order)
		}
		tried.Add(i)
		order = append(order, i)
	}
}

func TestNewRefusesAnUnknownKind(t *testing.T) {
	p, err := New("random", endpoints(1, 1), nil)
	if err == nil || p != nil {
		t.Fatalf("New = %v, %v", p, err)
	}
	for _, want := range append(kinds, `"random"`) {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q does not name %s", err, want)
		}
	}
}

func TestEveryKind(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			t.Run("no endpoints", func(t *testing.T) {
				if got := picker(t, kind, nil, nil).Pick(nil, 1); got != -1 {
					t.Errorf("Pick = %d", got)
				}
			})
			t.Run("one endpoint whatever its weight and health", func(t *testing.T) {
				eps := endpoints(0)
				eps[0].SetHealthy(false)
				p := picker(t, kind, eps, nil)
				if got := exhaust(t, p, 1); !slices.Equal(got, []int{0}) {
					t.Errorf("order %v", got)
				}
			})
			t.Run("weight 0 is left out", func(t *testing.T) {
				eps := endpoints(0, 2, 0, 1)
				p := picker(t, kind, eps, nil)
				if got := tally(p, eps, 300); got[0] != 0 || got[2] != 0 {
					t.Errorf("counts %v", got)
				}
				if got := exhaust(t, p, 5); len(got) != 2 {
					t.Errorf("order %v", got)
				}
			})
			t.Run("all weights 0 count alike", func(t *testing.T) {
				eps := endpoints(0, 0, 0)
				got := tally(picker(t, kind, eps, nil), eps, 3000)
				for _, n := range got {
					if n < 600 {
						t.Errorf("counts %v", got)
					}
				}
			})
			t.Run("every endpoint is tried once", func(t *testing.T) {
				eps := endpoints(1, 5, 100000, 3)
				p := picker(t, kind, eps, nil)
				for key := range uint64(50) {
					got := exhaust(t, p, key)
					slices.Sort(got)
					if !slices.Equal(got, []int{0, 1, 2, 3}) {
						t.Fatalf("tried %v", got)
					}
				}
			})
			t.Run("higher priority first", func(t *testing.T) {
				eps := endpoints(1, 1, 1, 1, 1)
				eps[1].Priority, eps[3].Priority, eps[4].Priority = 10, 10, -5
				p := picker(t, kind, eps, nil)
				for key := range uint64(20) {
					got := exhaust(t, p, key)
					slices.Sort(got[:2])
					slices.Sort(got[2:4])
					if !slices.Equal(got, []int{1, 3, 0, 2, 4}) {
						t.Fatalf("order %v", got)
					}
				}
				eps[1].SetHealthy(false)
				eps[3].SetHealthy(false)
				if got := tally(p, eps, 200); got[0] == 0 || got[2] == 0 || got[0]+got[2] != 200 {
					t.Errorf("first group down: counts %v", got)
				}
			})
			t.Run("unhealthy ones are left out", func(t *testing.T) {
				eps := endpoints(1, 1, 1)
				p := picker(t, kind, eps, nil)
				eps[1].SetHealthy(false)
				if got := tally(p, eps, 200); got[1] != 0 || got[0] == 0 || got[2] == 0 {
					t.Errorf("counts %v", got)
				}
				if got := exhaust(t, p, 3); len(got) != 2 || slices.Contains(got, 1) {
					t.Errorf("order %v", got)
				}
				eps[1].SetHealthy(true)
				if got := tally(p, eps, 200); got[1] == 0 {
					t.Errorf("healthy again: counts %v", got)
				}
			})
			t.Run("all unhealthy are all used", func(t *testing.T) {
				eps := endpoints(1, 1, 1)
				eps[2].Priority = -1
				p := picker(t, kind, eps, nil)
				for _, e := range eps {
					e.SetHealthy(false)
				}
				got := exhaust(t, p, 3)
				slices.Sort(got[:2])
				if !slices.Equal(got, []int{0, 1, 2}) {
					t.Errorf("order %v", got)
				}
			})
			t.Run("no allocation", func(t *testing.T) {
				eps := endpoints(3, 1, 1, 1)
				p := picker(t, kind, eps, nil)
				eps[0].SetHealthy(false)
				var tried Tried
				key := uint64(0)
				if got := testing.AllocsPerRun(200, func() {
					key++
					tried.Reset()
					for i := p.Pick(&tried, key); i >= 0; i = p.Pick(&tried, key) {
						tried.Add(i)
						if o, ok := p.(Observer); ok {
							o.Observe(i, time.Millisecond)
						}
					}
				}); got != 0 {
					t.Errorf("%v allocations", got)
				}
			})
			t.Run("concurrent", func(t *testing.T) {
				eps := endpoints(1, 2, 3, 0)
				p := picker(t, kind, eps, nil)
				var wg sync.WaitGroup
				for w := range 8 {
					wg.Go(func() {
						for n := range 500 {
							var tried Tried
							for i := p.Pick(&tried, uint64(n)); i >= 0; i = p.Pick(&tried, uint64(n)) {
								eps[i].Inflight.Add(1)
								eps[i].SetHealthy(n%7 != w%7)
								if o, ok := p.(Observer); ok {
									o.Observe(i, time.Duration(n))
								}
								tried.Add(i)
								eps[i].Inflight.Add(-1)
							}
							if tried.Has(3) || tried.Len() == 0 {
								t.Errorf("tried %d endpoints, the one of weight 0: %v", tried.Len(), tried.Has(3))
								return
							}
						}
					})
				}
				wg.Wait()
			})
		})
	}
}

func TestRoundRobinIsExact(t *testing.T) {
	eps := endpoints(80, 20, 0)
	if got := tally(picker(t, RoundRobin, eps, nil), eps, 300); !slices.Equal(got, []int{240, 60, 0}) {
		t.Errorf("counts %v", got)
	}
}

func TestRoundRobinKeepsWeightsAmongTheHealthy(t *testing.T) {
	eps := endpoints(5, 3, 1)
	p := picker(t, RoundRobin, eps, nil)
	eps[0].SetHealthy(false)
	if got := tally(p, eps, 400); got[1] < 298 || got[1] > 302 {
		t.Errorf("counts %v, want 0, 300, 100", got)
	}
	// The dead one outweighs the others by far.
	eps = endpoints(1e6, 3, 1)
	p = picker(t, RoundRobin, eps, nil)
	eps[0].SetHealthy(false)
	if got := tally(p, eps, 400); got[1] < 290 || got[1] > 310 {
		t.Errorf("counts %v, want about 0, 300, 100", got)
	}
}

func TestRoundRobinRetriesDoNotBurdenTheNeighbour(t *testing.T) {
	eps := endpoints(1, 1, 1, 1)
	p := picker(t, RoundRobin, eps, nil)
	counts := make([]int, 4)
	for range 300 {
		var tried Tried
		i := p.Pick(&tried, 0)
		if i == 0 { // fails, though nobody has noticed yet
			tried.Add(i)
			i = p.Pick(&tried, 0)
		}
		counts[i]++
	}
	for i, n := range counts { // what fails over is spread in proportion, not exactly
		if want := 100; i == 0 && n != 0 || i > 0 && (n < want-3 || n > want+3) {
			t.Errorf("served %v", counts)
		}
	}
}

// Of two nodes, the dead one must not become the first choice of every request because the retry takes the turn of the living one.
func TestRoundRobinRetriesLeaveTheSequenceAlone(t *testing.T) {
	eps := endpoints(1, 1)
	p := picker(t, RoundRobin, eps, nil)
	first := make([]int, 2)
	for range 300 {
		var tried Tried
		i := p.Pick(&tried, 0)
		first[i]++
		if tried.Add(i); i == 0 {
			if i = p.Pick(&tried, 0); i != 1 {
				t.Fatalf("the retry went to %d", i)
			}
		}
	}
	if first[0] != 150 || first[1] != 150 {
		t.Errorf("first choices %v, want 150 each", first)
	}
}

func TestRoundRobinCarriesOver(t *testing.T) {
	eps := endpoints(1, 1)
	p := picker(t, RoundRobin, eps, nil)
	counts := make([]int, 2)
	for n := range 1000 {
		// The configuration is applied again before every pick; now and then the
		// weights change, and the endpoints are listed in another order.
		if n%2 == 0 {
			p = picker(t, RoundRobin, endpoints(1, 1), p)
			counts[p.Pick(nil, 0)]++
			continue
		}
		eps := endpoints(2, 3)
		slices.Reverse(eps)
		p = picker(t, RoundRobin, eps, p)
		counts[1-p.Pick(nil, 0)]++
	}
	if want := 450; counts[0] < want-1 || counts[0] > want+1 {
		t.Errorf("served %v, want %d and %d", counts, want, 1000-want)
	}
	// Another kind in between is no obstacle.
	if got := tally(picker(t, RoundRobin, eps, picker(t, EWMA, eps, p)), eps, 100); got[0] != 50 {
		t.Errorf("counts %v", got)
	}
}

func TestLeastConnPicksTheLeastLoaded(t *testing.T) {
	eps := endpoints(1, 2, 1)
	p := picker(t, LeastConn, eps, nil)
	for _, c := range []struct {
		inflight [3]int64
		want     int
	}{
		{[3]int64{0, 0, 0}, 1}, // 1, 1/2, 1
		{[3]int64{0, 2, 3}, 0}, // 1, 3/2, 4
		{[3]int64{9, 2, 3}, 1}, // 10, 3/2, 4
		{[3]int64{9, 8, 3}, 2}, // 10, 9/2, 4
	} {
		for i, n := range c.inflight {
			eps[i].Inflight.Store(n)
		}
		for range 4 {
			if got := p.Pick(nil, 0); got != c.want {
				t.Errorf("in flight %v: picked %d, want %d", c.inflight, got, c.want)
			}
		}
	}
}

func TestLeastConnEqualsTakeTurns(t *testing.T) {
	eps := endpoints(4, 4, 4)
	if got := tally(picker(t, LeastConn, eps, nil), eps, 300); !slices.Equal(got, []int{100, 100, 100}) {
		t.Errorf("counts %v", got)
	}
}

func TestLeastConnWithHugeWeights(t *testing.T) {
	eps := endpoints(1e15, 1e15+1)
	eps[0].Inflight.Store(1 << 40)
	eps[1].Inflight.Store(1 << 40)
	p := picker(t, LeastConn, eps, nil)
	for range 3 {
		if got := p.Pick(nil, 0); got != 1 {
			t.Fatalf("picked %d", got)
		}
	}
}

func TestEWMA(t *testing.T) {
	var now time.Duration
	clock := func() time.Duration { return now }
	eps := endpoints(1, 1, 1)
	p := newEWMA(eps, nil, clock)
	p.Observe(0, 30*time.Millisecond)
	p.Observe(1, 20*time.Millisecond)
	p.Observe(2, 10*time.Millisecond)
	p.Observe(3, time.Hour) // no such endpoint
	p.Observe(-1, time.Hour)

	// Two different ones are compared, so the slowest never wins.
	if got := tally(p, eps, 400); got[0] != 0 || got[1] == 0 || got[2] <= got[1] {
		t.Errorf("counts %v", got)
	}

	// A measurement fades: after 20 s, 30 ms count 4 ms. The others are fresh.
	now = 20 * time.Second
	p.Observe(1, 20*time.Millisecond)
	p.Observe(2, 10*time.Millisecond)
	if got := tally(p, eps, 400); got[0] == 0 || got[1] != 0 {
		t.Errorf("after 20 s: counts %v", got)
	}

	// A replacement knows what was measured, by address; a newcomer starts with
	// the average and so neither draws all requests nor none.
	next := []*Endpoint{eps[2], NewEndpoint("10.9.9.9", 80, 1, 0), eps[1]}
	q := picker(t, EWMA, next, p).(*ewma)
	score := func(i int) float64 { return q.byIndex[i].score(now) }
	if !(score(0) < score(2)) || score(1) <= 0 || score(1) >= score(2) {
		t.Errorf("scores %v, %v, %v", score(0), score(1), score(2))
	}
}

func TestEWMAAveragesOverTenSeconds(t *testing.T) {
	var l latency
	l.observe(100*time.Millisecond, 0)
	l.observe(0, 10*time.Second) // weighs 1 - 1/e
	if got := l.score(10 * time.Second); got < 0.0367 || got > 0.0369 {
		t.Errorf("average %v, want 0.1/e", got)
	}
	l.observe(time.Hour, 9*time.Second) // a clock reading that comes late
	if got := l.score(10 * time.Second); got > 0.0369 {
		t.Errorf("average %v", got)
	}
}

func TestTried(t *testing.T) {
	var tried Tried
	for _, i := range []int{0, 63, 64, 1023, 63} {
		tried.Add(i)
	}
	for _, i := range []int{1024, -1, 1 << 40} { // never marked
		tried.Add(i)
		if tried.Has(i) {
			t.Errorf("Has(%d)", i)
		}
	}
	if tried.Len() != 4 || !tried.Has(0) || !tried.Has(63) || !tried.Has(64) || !tried.Has(1023) || tried.Has(1) {
		t.Errorf("set %+v", tried)
	}
	tried.Reset()
	if tried != (Tried{}) {
		t.Errorf("set %+v after Reset", tried)
	}
	var none *Tried
	if none.Has(0) || none.Len() != 0 {
		t.Error("a nil set is not empty")
	}
}

func TestEndpoint(t *testing.T) {
	for _, c := range []struct {
		host string
		want string
	}{{"127.0.0.1", "127.0.0.1:8443"}, {"api.example.com", "api.example.com:8443"}, {"::1", "[::1]:8443"}} {
		if got := NewEndpoint(c.host, 8443, 1, 0).ID(); got != c.want {
			t.Errorf("ID() = %s, want %s", got, c.want)
		}
		if got := (&Endpoint{Host: c.host, Port: 8443}).ID(); got != c.want {
			t.Errorf("ID() = %s, want %s", got, c.want)
		}
	}
	var e Endpoint
	if !e.Healthy() {
		t.Error("a new endpoint is not healthy")
	}
	e.SetHealthy(false)
	if e.Healthy() {
		t.Error("an unhealthy endpoint is healthy")
	}
}
