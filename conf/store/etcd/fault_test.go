package etcd

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	clientv3 "go.etcd.io/etcd/client/v3"

	"headgate/conf/store"
	"headgate/conf/store/etcd/etcdtest"
)

// reader follows a store as the gateway does: events, and a list whenever they were lost.
type reader struct {
	mu    sync.Mutex
	docs  map[string]string
	lists int
	fault string // an event that should not have come
}

// follow starts a reader that ends with the test.
func follow(t *testing.T, s *Store) *reader {
	t.Helper()
	r := &reader{}
	ctx, cancel := context.WithCancel(context.Background())
	events := r.list(ctx, s)
	if events == nil {
		t.Fatal("no list")
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			e, ok := <-events
			switch {
			case ok:
				r.apply(e)
				continue
			case ctx.Err() != nil:
				return
			}
			for events = nil; events == nil && ctx.Err() == nil; time.Sleep(10 * time.Millisecond) {
				events = r.list(ctx, s)
			}
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
	return r
}

func (r *reader) list(ctx context.Context, s *Store) <-chan store.Event {
	items, revision, err := s.List(ctx)
	if err != nil {
		return nil
	}
	events, err := s.Watch(ctx, revision)
	if err != nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.docs = map[string]string{}
	for _, it := range items {
		r.docs[it.Key] = string(it.Value)
	}
	r.lists++
	return events
}

func (r *reader) apply(e store.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, known := r.docs[e.Item.Key]
	switch {
	case e.Deleted && !known:
		r.fault = fmt.Sprintf("%s is deleted twice", e.Item.Key)
	case e.Deleted:
		delete(r.docs, e.Item.Key)
	default:
		r.docs[e.Item.Key] = string(e.Item.Value)
	}
}

func (r *reader) state() (docs map[string]string, lists int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.docs), r.lists
}

// converges waits until the reader shows what the store holds.
func (r *reader) converges(t *testing.T, s *Store) {
	t.Helper()
	items, _ := mustList(t, s)
	want := map[string]string{}
	for _, it := range items {
		want[it.Key] = string(it.Value)
	}
	var got map[string]string
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		if got, _ = r.state(); cmp.Equal(want, got) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the reader does not see what is stored:\n%s", cmp.Diff(want, got))
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fault != "" {
		t.Error(r.fault)
	}
}

// quick returns options under which failures are noticed soon.
func quick(endpoint string) Options {
	return Options{Endpoints: []string{endpoint}, Timeout: 2 * time.Second, Progress: 100 * time.Millisecond, StartupRetry: 10}
}

// TestKilledUnderWrites: what was acknowledged is there, what was refused is not and does not come later, the watch misses nothing
// and needs no new list.
func TestKilledUnderWrites(t *testing.T) {
	server := etcdtest.Start(t, etcdtest.Options{})
	s := mustOpen(t, quick(server.Endpoint()))
	r := follow(t, s)
	const (
		written = iota
		refused
		unknown
	)
	outcomes := map[string]int{}
	var refusals atomic.Int64
	stop := make(chan struct{})
	var writers sync.WaitGroup
	writers.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			keys := []string{fmt.Sprintf("routes/%d", i)}
			if i%3 == 0 {
				keys = append(keys, fmt.Sprintf("upstreams/%d", i))
			}
			var writes []store.Write
			for _, key := range keys {
				writes = append(writes, store.Write{Key: key, Value: []byte(`{"a":1}`), IfRevision: store.Absent})
			}
			items, revision, err := s.Batch(context.Background(), writes)
			outcome := written
			switch {
			case errors.Is(err, store.ErrUnknown):
				outcome = unknown
			case errors.Is(err, store.ErrUnavailable):
				outcome = refused
				refusals.Add(1)
				time.Sleep(5 * time.Millisecond)
			case err != nil:
				t.Errorf("Batch: %v", err)
			case len(items) != len(keys) || items[0].ModRevision != revision:
				t.Errorf("got %v at %d", items, revision)
			}
			for _, key := range keys {
				outcomes[key] = outcome
			}
		}
	})
	for round := range 3 {
		time.Sleep(150 * time.Millisecond)
		server.Stop()
		// Once it stays away until writes are refused; otherwise it is back before the write under way has been given up.
		eventually(t, "noticing that etcd is gone", func() bool { return !s.Status().Reachable && (round > 0 || refusals.Load() > 0) })
		server.Restart()
		eventually(t, "recovery", func() bool { return s.Status().Reachable })
	}
	time.Sleep(150 * time.Millisecond)
	close(stop)
	writers.Wait()

	stored := map[string]bool{}
	items, _ := mustList(t, s)
	for _, it := range items {
		stored[it.Key] = true
	}
	counts := [3]int{}
	for key, outcome := range outcomes {
		counts[outcome]++
		if outcome == written && !stored[key] || outcome == refused && stored[key] {
			t.Errorf("%s: outcome %d, stored %v", key, outcome, stored[key])
		}
	}
	t.Logf("%d writes acknowledged, %d refused, %d unknown", counts[written], counts[refused], counts[unknown])
	if counts[written] < 10 || counts[refused] == 0 {
		t.Errorf("the faults did not meet the writes: %v", counts)
	}
	r.converges(t, s)
	if _, lists := r.state(); lists != 1 {
		t.Errorf("%d lists were needed, want the one at the start", lists)
	}
	if s.Status().LastError == "" {
		t.Error("no error is reported")
	}
}

// TestPaused: an etcd that stands still is an error in bounded time, and nothing has to be restarted afterwards.
func TestPaused(t *testing.T) {
	server := etcdtest.Start(t, etcdtest.Options{})
	o := quick(server.Endpoint())
	o.Timeout = 600 * time.Millisecond
	s := mustOpen(t, o)
	r := follow(t, s)
	mustPut(t, s, "routes/1", `{"n":1}`)
	server.Pause()
	defer server.Resume()
	start := time.Now()
	_, err := s.Put(t.Context(), "routes/1", []byte(`{"n":2}`), store.AnyRevision, time.Time{})
	if !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("Put: got %v, want ErrUnavailable", err)
	}
	if _, _, err := s.List(t.Context()); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("List: got %v, want ErrUnavailable", err)
	}
	if d := time.Since(start); d > patience {
		t.Errorf("that took %v", d)
	}
	eventually(t, "noticing the silence", func() bool { return !s.Status().Reachable && s.Status().Lag > 5*o.Progress })
	server.Resume()
	eventually(t, "recovery", func() bool {
		_, err := s.Put(t.Context(), "routes/2", []byte(`{"n":3}`), store.AnyRevision, time.Time{})
		return err == nil
	})
	eventually(t, "a current watch", func() bool { return s.Status().Lag < 5*o.Progress })
	r.converges(t, s)
}

// TestPartition: changes of others during a partition arrive afterwards; by events when the history is there, by a list when it was
// compacted.
func TestPartition(t *testing.T) {
	server := etcdtest.Start(t, etcdtest.Options{})
	link := newRelay(t, server.Endpoint())
	s := mustOpen(t, quick(link.Endpoint()))
	r := follow(t, s)
	others := mustOpen(t, Options{Endpoints: []string{server.Endpoint()}})
	for round, compact := range []bool{false, true} {
		mustPut(t, others, "routes/gone", "{}")
		mustPut(t, others, "routes/changed", fmt.Sprintf(`{"before":%d}`, round))
		r.converges(t, others)

		link.Cut()
		eventually(t, "noticing the partition", func() bool { return !s.Status().Reachable })
		// The first write may still go out over the connection that was cut, and its outcome be unknown.
		eventually(t, "a write to be refused with a known outcome", func() bool {
			_, err := s.Put(t.Context(), "routes/x", []byte("{}"), store.Absent, time.Time{})
			if !errors.Is(err, store.ErrUnavailable) {
				t.Fatalf("Put: got %v, want ErrUnavailable", err)
			}
			return !errors.Is(err, store.ErrUnknown)
		})
		mustPut(t, others, "routes/changed", fmt.Sprintf(`{"after":%d}`, round))
		mustPut(t, others, fmt.Sprintf("routes/new%d", round), "{}")
		if _, err := others.Delete(t.Context(), "routes/gone", store.AnyRevision); err != nil {
			t.Fatal(err)
		}
		if compact {
			server.Compact()
			mustPut(t, others, "routes/later", "{}")
		}
		link.Mend()
		r.converges(t, others)
		want := 1
		if compact {
			want = 2
		}
		if _, lists := r.state(); lists != want {
			t.Errorf("compacted %v: %d lists were made, want %d", compact, lists, want)
		}
	}
	if items, _ := mustList(t, others); len(items) != 4 {
		t.Errorf("got %v", items)
	}
}

// TestAnswerLost: a write whose answer does not come is looked for, and reported as what it is.
func TestAnswerLost(t *testing.T) {
	server := etcdtest.Start(t, etcdtest.Options{})
	link := newRelay(t, server.Endpoint())
	o := quick(link.Endpoint())
	o.Timeout = 5 * time.Second
	s := mustOpen(t, o)
	others := mustOpen(t, Options{Endpoints: []string{server.Endpoint()}})
	client := server.Client()
	there := func(key string) bool {
		r, err := client.Get(t.Context(), "/apisix/"+key)
		return err == nil && len(r.Kvs) == 1
	}
	f := func(name string, withhold func(), when func() bool, writes []store.Write, want error) ([]store.Item, uint64) {
		t.Helper()
		withhold()
		go func() {
			for !when() {
				time.Sleep(5 * time.Millisecond)
			}
			link.Cut()
			link.Mend()
		}()
		items, revision, err := s.Batch(t.Context(), writes)
		if !errors.Is(err, want) || errors.Is(err, store.ErrUnknown) {
			t.Errorf("%s: got %v, want %v", name, err, want)
		}
		eventually(t, "recovery", func() bool { _, _, err := s.List(t.Context()); return err == nil })
		return items, revision
	}
	put := func(key, value string, condition uint64) store.Write {
		return store.Write{Key: key, Value: []byte(value), IfRevision: condition}
	}
	old := mustPut(t, s, "routes/old", `{"n":1}`)
	gone := mustPut(t, s, "routes/gone", `{"n":1}`)

	items, revision := f("written", link.WithholdAnswers, func() bool { return there("routes/new") }, []store.Write{
		put("routes/new", `{"n":1}`, store.Absent), put("routes/old", `{"n":2}`, old.ModRevision), {Key: "routes/gone", IfRevision: gone.ModRevision},
	}, nil)
	listed, _ := mustList(t, others)
	want := []store.Item{items[0], items[1]}
	if diff := cmp.Diff(want, listed); diff != "" || revision != items[0].ModRevision || items[2].ModRevision != revision || items[1].CreateRevision != old.CreateRevision {
		t.Errorf("the result is not what is stored (revision %d):\n%s", revision, diff)
	}

	_, revision = f("deleted", link.WithholdAnswers, func() bool { return !there("routes/new") }, []store.Write{{Key: "routes/new", IfRevision: revision}}, nil)
	if revision <= items[0].ModRevision {
		t.Errorf("deleted at %d, created at %d", revision, items[0].ModRevision)
	}

	// A transaction is longer than what a connection says on its own.
	const transactionSize = 100
	sent := link.Withheld()
	f("not written", link.WithholdRequests, func() bool { return link.Withheld() > sent+transactionSize }, []store.Write{
		put("routes/never", "{}", store.Absent), put("routes/old", `{"n":2}`, store.AnyRevision),
	}, store.ErrUnavailable)
	if there("routes/never") {
		t.Error("what was reported as not written is there")
	}
	sent = link.Withheld()
	f("not deleted", link.WithholdRequests, func() bool { return link.Withheld() > sent+transactionSize }, []store.Write{{Key: "routes/old", IfRevision: store.AnyRevision}}, store.ErrUnavailable)
	if !there("routes/old") {
		t.Error("what was reported as not deleted is gone")
	}
	if items, _ := mustList(t, s); len(items) != 1 {
		t.Errorf("fences are listed: %v", items)
	}
}

// A transaction behind its fence has no effect, whenever it arrives.
func TestFence(t *testing.T) {
	server := etcdtest.Start(t, etcdtest.Options{})
	s := mustOpen(t, Options{Endpoints: []string{server.Endpoint()}})
	late := &transaction{
		store: s, writes: []store.Write{{Key: "routes/1", Value: []byte("{}"), IfRevision: store.AnyRevision}},
		instead: map[int]int64{}, fence: s.keys.full(ownDir + "x"), before: s.seen(),
	}
	r, err := late.raiseFence(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, _, ok := late.outcome(r); ok {
		t.Error("nothing was sent and counts as written")
	}
	if _, _, err := late.run(t.Context()); err == nil {
		t.Error("the transaction went through its fence")
	}
	if items, _ := mustList(t, s); len(items) != 0 {
		t.Errorf("it wrote %v", items)
	}
	ttl, err := server.Client().Get(t.Context(), late.fence)
	if err != nil || len(ttl.Kvs) != 1 || ttl.Kvs[0].Lease == 0 {
		t.Errorf("the fence stays for ever: %v, %v", ttl, err)
	}
}

// TestPutBack: an etcd that came back at an older revision ends the watch, and the list that follows is what it holds now.
func TestPutBack(t *testing.T) {
	server := etcdtest.Start(t, etcdtest.Options{})
	s := mustOpen(t, quick(server.Endpoint()))
	r := follow(t, s)
	for i := range 20 {
		mustPut(t, s, fmt.Sprintf("routes/%d", i), "{}")
	}
	r.converges(t, s)
	server.Reset()
	if _, err := server.Client().Put(t.Context(), "/apisix/routes/only", "{}", clientv3.WithPrevKV()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "recovery", func() bool { _, _, err := s.List(t.Context()); return err == nil })
	r.converges(t, s)
	if docs, lists := r.state(); len(docs) != 1 || lists < 2 {
		t.Errorf("got %v after %d lists", docs, lists)
	}
	// The status tells the revision of what is there now.
	eventually(t, "the new revision", func() bool { return s.Status().Revision < 10 })
}
