package limit

import (
	"encoding/binary"
	"math"
	"sync"
	"sync/atomic"
	"testing"
)

const second = int64(1e9)

func keyOf(t interface{ Key([]byte) uint64 }, n int) uint64 {
	return t.Key(binary.AppendUvarint(nil, uint64(n)))
}

// together runs f in 64 goroutines that start at once.
func together(f func(g int)) {
	var done sync.WaitGroup
	begin := make(chan struct{})
	for g := range 64 {
		done.Go(func() {
			<-begin
			f(g)
		})
	}
	close(begin)
	done.Wait()
}

// A limit of N passes exactly N requests of a key in a window, whoever comes: also when the key is new to everybody, when its window has
// just ended, and when its cell is swept away at that moment.
func TestWindowIsExact(t *testing.T) {
	for _, sliding := range []bool{false, true} {
		windows := Windows{newTable[Window, *Window](1, 1<<20)} // one list: everybody meets
		s := Shape{Count: 100, Window: second, Sliding: sliding}
		const keys = 5 // with what else is in the list they stay below maxGroup
		for round := range int64(40) {
			var passed [keys]atomic.Int64
			now := (1000 + 3*round) * second // two windows after the last round: nothing of it counts any more
			together(func(g int) {
				for range 20 {
					for k := range keys {
						if windows.Take(keyOf(windows, k), s, now+int64(g)).OK {
							passed[k].Add(1)
						}
					}
					windows.sweep(now)
					windows.Take(keyOf(windows, 1000+int(round)*100+g%32), s, now) // rebuilds the list, within maxGroup
				}
			})
			for k := range keys {
				if n := passed[k].Load(); n != s.Count {
					t.Fatalf("sliding %v, round %d, key %d: %d passed", sliding, round, k, n)
				}
			}
		}
	}
}

// Everybody sees the end of the window at once, again and again; none of the windows may pass more, or less.
func TestWindowsFollowEachOther(t *testing.T) {
	windows := Windows{newTable[Window, *Window](4, 1<<20)}
	s := Shape{Count: 7, Window: second}
	key := keyOf(windows, 1)
	var passed [200]atomic.Int64
	var turn [len(passed)]sync.WaitGroup
	for i := range turn {
		turn[i].Add(64)
	}
	together(func(int) {
		for i := range passed {
			if windows.Take(key, s, int64(i+1)*10*second).OK {
				passed[i].Add(1)
			}
			turn[i].Done()
			turn[i].Wait()
		}
	})
	for i := range passed {
		if n := passed[i].Load(); n != s.Count {
			t.Errorf("window %d: %d passed", i, n)
		}
	}
}

func TestBucketIsExact(t *testing.T) {
	buckets := Buckets{newTable[Bucket, *Bucket](1, 1<<20)}
	r := PerSecond(10, 49)
	for round := range int64(20) {
		var passed atomic.Int64
		now := (1000 + 60*round) * second
		together(func(int) {
			for range 5 {
				if _, ok := buckets.Take(1, r, now); ok {
					passed.Add(1)
				}
			}
		})
		if n := passed.Load(); n != 50 { // the first, and the burst
			t.Errorf("round %d: %d passed", round, n)
		}
	}
}

// At no time more than the limit are inside, and what leaves makes room, whatever becomes of the empty gauges meanwhile.
func TestGaugeIsExact(t *testing.T) {
	gauges := Gauges{newTable[Gauge, *Gauge](1, 1<<20)}
	var inside, most, entered atomic.Int64
	together(func(g int) {
		for i := range 200 {
			if own, n, _ := gauges.Enter(1, 8, 0); own != nil {
				entered.Add(1)
				if n < 1 || n > 8 {
					t.Errorf("%d inside", n)
				}
				now := inside.Add(1)
				for m := most.Load(); now > m && !most.CompareAndSwap(m, now); m = most.Load() {
				}
				inside.Add(-1)
				own.Leave()
			}
			if other, _, _ := gauges.Enter(uint64(2+g+i%7), 1, 0); other != nil {
				other.Leave()
			}
			gauges.sweep(0)
		}
	})
	if most.Load() > 8 || entered.Load() == 0 {
		t.Errorf("%d at once, %d entered", most.Load(), entered.Load())
	}
	for range 8 {
		if own, _, _ := gauges.Enter(1, 8, 0); own == nil {
			t.Fatal("somebody has not left")
		}
	}
	if own, n, full := gauges.Enter(1, 8, 0); own != nil || n != 8 || full {
		t.Errorf("a ninth: %v, %d, %v", own, n, full)
	}
}

// Beyond the capacity memory does not grow: the key whose window ends first makes room.
func TestFullTableForgetsWhatEndsFirst(t *testing.T) {
	windows := Windows{newTable[Window, *Window](4, 8)}
	long, short := Shape{Count: 1, Window: 100 * second}, Shape{Count: 1, Window: second}
	for i := range uint64(8) {
		windows.Take(i, map[bool]Shape{true: long, false: short}[i < 4], second)
	}
	for i := range uint64(4) { // takes the place of the short window in the same list
		windows.Take(100+i, long, second)
	}
	for i := range uint64(4) {
		if windows.Take(i, long, second).OK {
			t.Errorf("the long window of key %d was forgotten", i)
		}
		if windows.Find(4+i) != nil {
			t.Errorf("key %d is still there", 4+i)
		}
	}
	for i := range uint64(10_000) {
		windows.Take(1000+i, short, second)
	}
	if n := windows.Len(); n > 8+4 {
		t.Errorf("%d keys held", n)
	}
}

// Requests in flight are never forgotten; a key for which there is no room is refused.
func TestFullTableOfGauges(t *testing.T) {
	gauges := Gauges{newTable[Gauge, *Gauge](1, 8)}
	var all []*Gauge
	for i := range uint64(maxGroup) {
		g, _, full := gauges.Enter(i, 1, 0)
		if g == nil || full {
			t.Fatalf("key %d: no room", i)
		}
		all = append(all, g)
	}
	if g, _, full := gauges.Enter(1000, 1, 0); g != nil || !full {
		t.Errorf("one too many: %v, %v", g, full)
	}
	all[3].Leave()
	if g, _, full := gauges.Enter(1000, 1, 0); g == nil || full {
		t.Errorf("after one has left: %v, %v", g, full)
	}
	if g, _, _ := gauges.Enter(5, 1, 0); g != nil {
		t.Error("a request in flight was forgotten")
	}
}

func TestFixedWindow(t *testing.T) {
	windows := NewWindows()
	s := Shape{Count: 2, Window: 10 * second}
	for i, tt := range []struct {
		at   int64
		want Quota
	}{
		{3 * second, Quota{true, 1, 10 * second}}, // the window begins with the first request
		{5 * second, Quota{true, 0, 8 * second}},
		{13*second - 1, Quota{false, 0, 1}},
		{13 * second, Quota{true, 1, 10 * second}},
		{40 * second, Quota{true, 1, 10 * second}},
		{41 * second, Quota{true, 0, 9 * second}},
		{42 * second, Quota{false, 0, 8 * second}},
	} {
		if got := windows.Take(1, s, tt.at); got != tt.want {
			t.Errorf("%d: got %+v, want %+v", i, got, tt.want)
		}
	}
	huge := Shape{Count: Largest, Window: Seconds(Largest)}
	now := NewClock()()
	if q := windows.Take(2, huge, now); !q.OK || q.Remaining != Largest-1 || q.Reset != maxWindow {
		t.Errorf("huge: %+v", q)
	}
	if q := windows.Take(2, huge, now+1); !q.OK || q.Remaining != Largest-2 {
		t.Errorf("huge: %+v", q)
	}
}

// More windows than generations can be told apart.
func TestGenerationsWrap(t *testing.T) {
	for _, sliding := range []bool{false, true} {
		windows := NewWindows()
		s := Shape{Count: 2, Window: second, Sliding: sliding}
		for i := range int64(2*generations + 10) {
			now := (10 + 3*i) * second
			for k, want := range []bool{true, true, false} {
				if q := windows.Take(1, s, now); q.OK != want {
					t.Fatalf("sliding %v, window %d, request %d: %+v", sliding, i, k, q)
				}
			}
		}
	}
}

func TestSlidingWindow(t *testing.T) {
	windows := NewWindows()
	s := Shape{Count: 4, Window: 10 * second, Sliding: true}
	for i, tt := range []struct {
		at   int64
		want Quota
	}{
		{103 * second, Quota{true, 3, 7 * second}}, // windows begin at multiples of 10 s
		{103 * second, Quota{true, 2, 7 * second}},
		{104 * second, Quota{true, 1, 6 * second}},
		{109 * second, Quota{true, 0, 1 * second}},
		{109 * second, Quota{false, 0, 1 * second}},
		{110 * second, Quota{false, 0, 1}},                     // all 4 of before still count
		{112 * second, Quota{true, 0, 8 * second}},             // 3.2 of them
		{112 * second, Quota{false, 0, 500_000_000}},           // 1 + 3.2; room at 112.5, where 3 + 1 are not more than 4
		{112*second + 600_000_000, Quota{true, 0, 7400e6}},     // 1 + 2.96
		{117*second + 500_000_001, Quota{true, 0, 2499999999}}, // 2 + 1
		{135 * second, Quota{true, 3, 5 * second}},             // the window before was empty
	} {
		if got := windows.Take(1, s, tt.at); got != tt.want {
			t.Errorf("%d: got %+v, want %+v", i, got, tt.want)
		}
	}
}

func TestBucket(t *testing.T) {
	buckets := NewBuckets()
	r := PerSecond(4, 2)
	const quarter = 250_000_000
	for i, tt := range []struct {
		at, wait int64
		ok       bool
	}{
		{second, 0, true},
		{second, quarter, true},
		{second, 2 * quarter, true},
		{second, 0, false},
		{second + quarter - 1, 0, false},
		{second + quarter, 2 * quarter, true},
		{second + 2*quarter, 2 * quarter, true},
		{100 * second, 0, true},
		{100*second + quarter/2, quarter / 2, true}, // half a request has run out
		{99 * second, 0, false},                     // a clock that is late takes nothing back
	} {
		if wait, ok := buckets.Take(1, r, tt.at); wait != tt.wait || ok != tt.ok {
			t.Errorf("%d: got %d, %v, want %d, %v", i, wait, ok, tt.wait, tt.ok)
		}
	}
	for _, n := range []float64{1e-300, 1e-9, 3, 1e9, 1e300} {
		if r := PerSecond(n, math.MaxFloat64); r.Interval < 1 {
			t.Errorf("%v per second: interval %d", n, r.Interval)
		}
		if _, ok := buckets.Take(uint64(n), PerSecond(n, math.MaxFloat64), NewClock()()); !ok {
			t.Errorf("%v per second: refused", n)
		}
	}
}
