package snapshot

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"unsafe"

	"headgate/proxy/route"
)

// TestNoReaderSeesAClosedRoute has many readers use what they find while one writer replaces all of it thousands of times. Every
// instance must be closed once, and not while anybody that pinned it is there.
func TestNoReaderSeesAClosedRoute(t *testing.T) {
	const routes, readers = 4, 8
	versions := 3000
	if raceEnabled {
		versions = 600
	}
	r := newRig(t)
	doc := func(id, version int) (string, string) {
		return fmt.Sprintf("routes/%d", id), fmt.Sprintf(`{"uri":"/%d","plugins":{"low":{"id":"%d"}}}`, id, version)
	}
	for id := range routes {
		r.put(doc(id, 0))
	}
	var stop atomic.Bool
	var seen, wrong atomic.Int64
	var readersDone sync.WaitGroup
	for n := range readers {
		readersDone.Go(func() {
			var m route.Match
			paths := make([][]byte, routes)
			for id := range paths {
				paths[id] = fmt.Appendf(nil, "/%d", id)
			}
			for i := n; !stop.Load(); i++ {
				s := r.live.Pin(uint32(n))
				for range 1 + i%3 { // stay for a while
					got, ok := s.Find(&route.Query{Host: []byte("h"), Path: paths[i%routes]}, nil, &m)
					if !ok || got.Chain.Closers[0].(*watched).closed.Load() {
						wrong.Add(1)
					}
				}
				s.Unpin(uint32(n))
				seen.Add(1)
			}
		})
	}
	for v := 1; v <= versions; v++ {
		r.put(doc(v%routes, v))
	}
	stop.Store(true)
	readersDone.Wait()
	if pending := r.collect(); pending != 0 || len(r.c.graves.retirees) != 0 {
		t.Errorf("%d snapshots and %d parts are waited for though nobody reads", pending, len(r.c.graves.retirees))
	}
	if wrong.Load() != 0 || seen.Load() == 0 {
		t.Errorf("%d of %d reads met a closed route", wrong.Load(), seen.Load())
	}
	if got, want := len(r.closed), versions; got != want || r.misuse.Load() != 0 {
		t.Errorf("%d closed, want %d; %d twice", got, want, r.misuse.Load())
	}
}

// TestPinAgainstPublish is the race of the two alone, over and over: what is found unpinned after it was replaced stays unused.
func TestPinAgainstPublish(t *testing.T) {
	versions := uint64(100_000)
	if raceEnabled {
		versions = 20_000
	}
	dead := make([]atomic.Bool, versions+1) // by serial
	var live Live
	live.publish(&Snapshot{})
	var stop atomic.Bool
	var wrong atomic.Int64
	var readers sync.WaitGroup
	for n := range uint32(4) {
		readers.Go(func() {
			for !stop.Load() {
				s := live.Pin(n)
				for range 3 {
					if dead[s.serial].Load() {
						wrong.Add(1)
					}
				}
				s.Unpin(n)
			}
		})
	}
	for v := uint64(1); v <= versions; v++ {
		old := live.Current()
		live.publish(&Snapshot{serial: v})
		if !old.pinned() {
			dead[old.serial].Store(true)
		}
	}
	stop.Store(true)
	readers.Wait()
	if wrong.Load() != 0 {
		t.Errorf("%d reads of a snapshot that had been given up", wrong.Load())
	}
}

// A pin that comes too late for the snapshot that it saw first must move on to the next one.
func TestPinIsOfTheSnapshotInForce(t *testing.T) {
	var live Live
	live.publish(&Snapshot{serial: 1})
	s := live.Pin(5)
	old := live.Current()
	live.publish(&Snapshot{serial: 2})
	if s != old || !old.pinned() || live.Pin(5).serial != 2 {
		t.Error("a pin holds the wrong snapshot")
	}
	old.Unpin(5)
	if old.pinned() {
		t.Error("the last reader has left and nobody noticed")
	}
	live.Current().Unpin(5)
	for shard := range uint32(3 * pinShards) { // any number is a shard
		live.Pin(shard)
	}
	for shard := range uint32(3 * pinShards) {
		if !live.Current().pinned() {
			t.Fatal("readers were forgotten")
		}
		live.Current().Unpin(shard)
	}
	if live.Current().pinned() {
		t.Error("readers are left over")
	}
}

func TestPinsDoNotShareCacheLines(t *testing.T) {
	var s Snapshot
	if off := unsafe.Offsetof(s.pins); off%64 != 0 || unsafe.Sizeof(s.pins[0]) != 64 {
		t.Errorf("pins begin at %d and are %d apart", off, unsafe.Sizeof(s.pins[0]))
	}
}

func TestGraveyard(t *testing.T) {
	var closed []string
	bury := func(g *graveyard, name string, born, died uint64) {
		g.add(born, died, func() { closed = append(closed, name) })
	}
	s := []*Snapshot{nil, {serial: 1}, {serial: 2}, {serial: 3}, {serial: 4}}
	var g graveyard
	for _, n := range []int{1, 2, 3} {
		g.bury(s[n])
	}
	s[2].pins[7].n.Add(1)
	bury(&g, "1 only", 1, 2)
	bury(&g, "1 and 2", 1, 3)
	bury(&g, "2 only", 2, 3)
	bury(&g, "2 and 3", 2, 4)
	bury(&g, "3 only", 3, 4)
	run := func() string {
		closed = nil
		for _, f := range g.collect() {
			f()
		}
		return fmt.Sprint(closed)
	}
	if got := run(); got != "[1 only 3 only]" {
		t.Errorf("while 2 is read: %s", got)
	}
	if got := run(); got != "[]" {
		t.Errorf("again: %s", got)
	}
	s[2].pins[7].n.Add(-1)
	if got := run(); got != "[1 and 2 2 only 2 and 3]" {
		t.Errorf("after that: %s", got)
	}
	if len(g.former)+len(g.retirees) != 0 {
		t.Errorf("left: %v, %v", g.former, g.retirees)
	}
}

func TestPinAndFindAllocs(t *testing.T) {
	r := newRig(t)
	r.put("routes/1", `{"uri":"/a/*","plugins":{"low":{}}}`)
	q := route.Query{Host: []byte("h"), Path: []byte("/a/b"), Method: route.GET}
	var m route.Match
	n := testing.AllocsPerRun(200, func() {
		s := r.live.Pin(3)
		if _, ok := s.Find(&q, nil, &m); !ok {
			t.Fatal("not found")
		}
		s.Unpin(3)
	})
	if n != 0 && !raceEnabled {
		t.Errorf("%v allocations", n)
	}
}

// loaded returns a rig with n routes on a few upstreams and services.
func loaded(t testing.TB, n int) *rig {
	r := newRig(t)
	pairs := []string{"upstreams/u", up("1", ""), "services/s", `{"upstream_id":"u","plugins":{"mid":{"state":"s"}}}`}
	for i := range n {
		pairs = append(pairs, fmt.Sprintf("routes/%d", i), bench(i, 0))
	}
	r.put(pairs...)
	return r
}

func bench(i, version int) string {
	return fmt.Sprintf(`{"uri":"/svc%d/v%d/*","service_id":"s","plugins":{"high":{"id":"%d"}}}`, i%1000, i, version)
}

func BenchmarkOneEdit(b *testing.B) {
	for _, n := range []int{100, 10_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			r := loaded(b, n)
			docs := make([][]Edit, 1000)
			for i := range docs {
				docs[i] = []Edit{{Key: fmt.Sprintf("routes/%d", i*7919%n), Value: []byte(bench(i*7919%n, i))}}
			}
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				st, err := r.c.Stage(r.lookup, docs[i%len(docs)], false)
				if err != nil {
					b.Fatal(err)
				}
				st.Commit(uint64(i))
				r.collect()
				i++
			}
		})
	}
}

func BenchmarkLoad100k(b *testing.B) {
	for b.Loop() {
		loaded(b, 100_000)
	}
}

func BenchmarkPin(b *testing.B) {
	var live Live
	live.publish(&Snapshot{serial: 1})
	var next atomic.Uint32
	b.RunParallel(func(pb *testing.PB) {
		shard := next.Add(1)
		for pb.Next() {
			live.Pin(shard).Unpin(shard)
		}
	})
}
