// Package storetest is the conformance suite of store.Store: what the configuration path relies on, whatever keeps the documents.
package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"headgate/conf/store"
)

// patience bounds every wait for something that must happen. It is not a measure of speed.
const patience = 10 * time.Second

// suite is what the tests have to know of the provider.
type suite struct {
	open func(t *testing.T) store.Store
	// late is how long an item may outlive its time.
	late time.Duration
}

// Run tests the provider whose open returns a new, empty store. Run closes it.
func Run(t *testing.T, open func(t *testing.T) store.Store) { suite{open: open}.run(t) }

// RunCoarse is Run for a provider whose items may outlive their time by up to late.
func RunCoarse(t *testing.T, open func(t *testing.T) store.Store, late time.Duration) {
	suite{open, late}.run(t)
}

func (u suite) run(t *testing.T) {
	open := u.open
	f := func(name string, test func(t *testing.T, s store.Store)) {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			defer func() {
				if err := s.Close(); err != nil {
					t.Errorf("Close: %v", err)
				}
			}()
			test(t, s)
		})
	}
	f("Empty", testEmpty)
	f("Put", testPut)
	f("Bytes", testBytes)
	f("PutConditions", testPutConditions)
	f("DeleteConditions", testDeleteConditions)
	f("Keys", testKeys)
	f("Context", testContext)
	f("ConcurrentSwap", testConcurrentSwap)
	f("Watch", testWatch)
	f("WatchReplay", testWatchReplay)
	f("WatchEnds", testWatchEnds)
	f("Expiry", u.testExpiry)
	f("ExpiryTakenBack", u.testExpiryTakenBack)
	f("Batch", testBatch)
	f("BatchRefused", testBatchRefused)
	f("BatchWatch", testBatchWatch)
	f("BatchConcurrent", testBatchConcurrent)
	t.Run("CloseEndsWatch", func(t *testing.T) {
		s := open(t)
		_, base := list(t, s)
		events, err := s.Watch(t.Context(), base)
		if err != nil {
			t.Fatal(err)
		}
		put(t, s, "a", "1")
		next(t, events)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		ended(t, events)
	})
}

func put(t *testing.T, s store.Store, key, value string) store.Item {
	t.Helper()
	it, err := s.Put(t.Context(), key, []byte(value), store.AnyRevision, time.Time{})
	if err != nil {
		t.Fatalf("Put %s: %v", key, err)
	}
	return it
}

func list(t *testing.T, s store.Store) ([]store.Item, uint64) {
	t.Helper()
	items, revision, err := s.List(t.Context())
	if err != nil {
		t.Fatalf("List: %v", err)
	}
	return items, revision
}

func next(t *testing.T, events <-chan store.Event) store.Event {
	t.Helper()
	select {
	case e, ok := <-events:
		if !ok {
			t.Fatal("the watch ended")
		}
		return e
	case <-time.After(patience):
		t.Fatal("no event came")
	}
	panic("unreachable")
}

func ended(t *testing.T, events <-chan store.Event) {
	t.Helper()
	select {
	case e, ok := <-events:
		if ok {
			t.Fatalf("got %+v, want the end of the watch", e)
		}
	case <-time.After(patience):
		t.Fatal("the watch did not end")
	}
}

func testEmpty(t *testing.T, s store.Store) {
	if items, _ := list(t, s); len(items) != 0 {
		t.Errorf("got %v, want nothing", items)
	}
	_, before := list(t, s)
	if _, err := s.Delete(t.Context(), "a", store.AnyRevision); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("Delete: got %v, want ErrNotFound", err)
	}
	if _, after := list(t, s); after != before {
		t.Errorf("what wrote nothing moved the revision from %d to %d", before, after)
	}
}

func testPut(t *testing.T, s store.Store) {
	_, base := list(t, s)
	put(t, s, "routes/2", "b")
	put(t, s, "routes/1", "a")
	put(t, s, "routes/2", "bb")
	put(t, s, "upstreams/1", "gone")
	if revision, err := s.Delete(t.Context(), "upstreams/1", store.AnyRevision); err != nil || revision != base+5 {
		t.Errorf("Delete: got revision %d, %v, want %d", revision, err, base+5)
	}
	last := put(t, s, "upstreams/1", "back")
	want := []store.Item{
		{Key: "routes/1", Value: []byte("a"), CreateRevision: base + 2, ModRevision: base + 2},
		{Key: "routes/2", Value: []byte("bb"), CreateRevision: base + 1, ModRevision: base + 3},
		{Key: "upstreams/1", Value: []byte("back"), CreateRevision: base + 6, ModRevision: base + 6},
	}
	got, revision := list(t, s)
	if diff := cmp.Diff(want, got); diff != "" || revision != base+6 {
		t.Errorf("List at revision %d, want %d:\n%s", revision, base+6, diff)
	}
	if diff := cmp.Diff(want[2], last); diff != "" {
		t.Errorf("Put returned something else than List:\n%s", diff)
	}
}

func testBytes(t *testing.T, s store.Store) {
	values := map[string][]byte{
		"empty": {}, "zeros": make([]byte, 10), "utf-8": []byte("{\"é\": \"\\u0000\"} \n"), "large": bytes.Repeat([]byte{0xff, 0, 'x'}, 500_000),
	}
	for key, value := range values {
		mine := bytes.Clone(value)
		if _, err := s.Put(t.Context(), key, mine, store.Absent, time.Time{}); err != nil {
			t.Fatal(err)
		}
		for i := range mine {
			mine[i] = '!' // the caller's buffer is the caller's
		}
	}
	items, _ := list(t, s)
	if len(items) != len(values) {
		t.Errorf("got %d items, want %d", len(items), len(values))
	}
	for _, it := range items {
		if !bytes.Equal(it.Value, values[it.Key]) {
			t.Errorf("%s: %d bytes came back different (%d)", it.Key, len(values[it.Key]), len(it.Value))
		}
	}
}

func testPutConditions(t *testing.T, s store.Store) {
	_, base := list(t, s)
	f := func(key string, condition uint64, want error) {
		t.Helper()
		if condition != store.Absent && condition != store.AnyRevision {
			condition += base
		}
		_, before := list(t, s)
		_, err := s.Put(t.Context(), key, []byte("x"), condition, time.Time{})
		if !errors.Is(err, want) {
			t.Errorf("Put %s if %d: got %v, want %v", key, condition, err, want)
		}
		if _, after := list(t, s); (after == before) != (want != nil) {
			t.Errorf("Put %s if %d: revision went from %d to %d", key, condition, before, after)
		}
	}
	f("a", 1, store.ErrConflict)
	f("a", store.Absent, nil) // 1
	f("a", store.Absent, store.ErrConflict)
	f("b", store.AnyRevision, nil) // 2
	f("a", 2, store.ErrConflict)
	f("a", 1, nil) // 3
	f("a", 1, store.ErrConflict)
	f("a", 3, nil) // 4
	f("a", store.AnyRevision, nil)
}

func testDeleteConditions(t *testing.T, s store.Store) {
	_, base := list(t, s)
	put(t, s, "a", "1")
	put(t, s, "b", "2")
	f := func(key string, condition, wantRevision uint64, want error) {
		t.Helper()
		if condition != store.AnyRevision {
			condition += base
		}
		if wantRevision != 0 {
			wantRevision += base
		}
		revision, err := s.Delete(t.Context(), key, condition)
		if !errors.Is(err, want) || revision != wantRevision {
			t.Errorf("Delete %s if %d: got revision %d, %v, want %d, %v", key, condition, revision, err, wantRevision, want)
		}
	}
	f("a", 2, 0, store.ErrConflict)
	f("a", 1, 3, nil)
	f("a", 1, 0, store.ErrNotFound)
	f("a", store.AnyRevision, 0, store.ErrNotFound)
	f("b", store.AnyRevision, 4, nil)
	if items, revision := list(t, s); len(items) != 0 || revision != base+4 {
		t.Errorf("got %v at revision %d, want nothing at %d", items, revision, base+4)
	}
}

func testKeys(t *testing.T, s store.Store) {
	for _, key := range []string{"", "/routes/1", "a\x00b", strings.Repeat("k", store.MaxKeyLength+1)} {
		if _, err := s.Put(t.Context(), key, nil, store.AnyRevision, time.Time{}); err == nil {
			t.Errorf("Put %.20q: want an error", key)
		}
	}
	for _, key := range []string{"plugins", "services/a/graphql_cost_decorations/b", "routes/é", strings.Repeat("k", store.MaxKeyLength)} {
		put(t, s, key, "x")
	}
	if items, _ := list(t, s); len(items) != 4 {
		t.Errorf("got %d items, want 4", len(items))
	}
}

func testContext(t *testing.T, s store.Store) {
	_, before := list(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, listErr := s.List(ctx)
	_, putErr := s.Put(ctx, "a", nil, store.AnyRevision, time.Time{})
	_, deleteErr := s.Delete(ctx, "a", store.AnyRevision)
	_, _, batchErr := s.Batch(ctx, []store.Write{{Key: "a", Value: []byte("x"), IfRevision: store.AnyRevision}})
	_, watchErr := s.Watch(ctx, before)
	for _, err := range []error{listErr, putErr, deleteErr, batchErr, watchErr} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want the context's error", err)
		}
	}
	if _, after := list(t, s); after != before {
		t.Errorf("something was written: revision %d after %d", after, before)
	}
}

// testConcurrentSwap lets writers fight for one key: of all that saw the same revision exactly one may win.
func testConcurrentSwap(t *testing.T, s store.Store) {
	const writers, rounds = 4, 10
	_, base := list(t, s)
	put(t, s, "counter", "")
	var won atomic.Int64
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for range rounds {
				items, _, err := s.List(t.Context())
				if err != nil {
					t.Errorf("List: %v", err)
					return
				}
				_, err = s.Put(t.Context(), "counter", append(bytes.Clone(items[0].Value), '+'), items[0].ModRevision, time.Time{})
				switch {
				case err == nil:
					won.Add(1)
				case !errors.Is(err, store.ErrConflict):
					t.Errorf("Put: %v", err)
				}
			}
		})
	}
	wg.Wait()
	items, revision := list(t, s)
	if n := won.Load(); int64(len(items[0].Value)) != n || revision != base+uint64(n)+1 || n < rounds {
		t.Errorf("%d writes won, value has %d marks, revision is %d after %d", n, len(items[0].Value), revision, base)
	}
}

func testWatch(t *testing.T, s store.Store) {
	put(t, s, "before", "x")
	_, revision := list(t, s)
	one, err := s.Watch(t.Context(), revision)
	if err != nil {
		t.Fatal(err)
	}
	two, err := s.Watch(t.Context(), revision)
	if err != nil {
		t.Fatal(err)
	}
	a := put(t, s, "a", "1")
	aa := put(t, s, "a", "2")
	deleted, err := s.Delete(t.Context(), "before", store.AnyRevision)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Put(t.Context(), "a", nil, revision, time.Time{}); !errors.Is(err, store.ErrConflict) {
		t.Fatal(err) // a refused write is no event
	}
	b := put(t, s, "b", "3")
	want := []store.Event{{Item: a}, {Item: aa}, {Item: store.Item{Key: "before", ModRevision: deleted}, Deleted: true}, {Item: b}}
	for i := range want {
		for name, events := range map[string]<-chan store.Event{"first": one, "second": two} {
			if diff := cmp.Diff(want[i], next(t, events)); diff != "" {
				t.Errorf("%s watcher, event %d:\n%s", name, i, diff)
			}
		}
	}
}

func testWatchReplay(t *testing.T, s store.Store) {
	_, base := list(t, s)
	for i := range 5 {
		put(t, s, fmt.Sprintf("k%d", i), "x")
	}
	for from := range uint64(5) {
		ctx, cancel := context.WithCancel(t.Context())
		events, err := s.Watch(ctx, base+from)
		if err != nil {
			t.Fatal(err)
		}
		for want := from + 1; want <= 5; want++ {
			if e := next(t, events); e.Item.ModRevision != base+want || e.Item.Key != fmt.Sprintf("k%d", want-1) {
				t.Errorf("from %d: got %s at %d, want revision %d", from, e.Item.Key, e.Item.ModRevision-base, want)
			}
		}
		cancel()
		ended(t, events)
	}
	if _, err := s.Watch(t.Context(), base+6); !errors.Is(err, store.ErrCompacted) {
		t.Errorf("watching from a revision that never was: got %v, want ErrCompacted", err)
	}
}

func testWatchEnds(t *testing.T, s store.Store) {
	_, base := list(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	idle, err := s.Watch(ctx, base)
	if err != nil {
		t.Fatal(err)
	}
	blocked, err := s.Watch(ctx, base)
	if err != nil {
		t.Fatal(err)
	}
	put(t, s, "a", "x") // nobody takes it
	next(t, idle)
	cancel()
	ended(t, idle)
	select {
	case <-blocked: // the event or the end, whichever came first
	case <-time.After(patience):
		t.Fatal("the watch did not end")
	}
	put(t, s, "a", "y") // writers do not care
}

func (u suite) testExpiry(t *testing.T, s store.Store) {
	_, base := list(t, s)
	events, err := s.Watch(t.Context(), base)
	if err != nil {
		t.Fatal(err)
	}
	put(t, s, "stays", "x")
	soon := time.Now().Add(50 * time.Millisecond)
	if _, err := s.Put(t.Context(), "goes", []byte("x"), store.Absent, soon); err != nil {
		t.Fatal(err)
	}
	hour := time.Now().Add(time.Hour).Truncate(time.Second)
	far, err := s.Put(t.Context(), "far", []byte("x"), store.Absent, hour)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		next(t, events)
	}
	if e := next(t, events); !e.Deleted || e.Item.Key != "goes" || e.Item.ModRevision != base+4 || time.Now().Before(soon) {
		t.Errorf("got %+v, want the deletion of goes at revision %d and not before its time", e, base+4)
	}
	items, revision := list(t, s)
	if len(items) != 2 || items[0].Key != "far" || items[1].Key != "stays" || revision != base+4 {
		t.Errorf("got %v at %d", items, revision)
	}
	for _, at := range []time.Time{items[0].Expires, far.Expires} {
		if at.Before(hour.Add(-u.late)) || at.After(hour.Add(u.late)) {
			t.Errorf("expiry at %v came back as %v", hour, at)
		}
	}
	if !items[1].Expires.IsZero() {
		t.Errorf("what stays ends at %v", items[1].Expires)
	}
	if again, err := s.Put(t.Context(), "goes", nil, store.Absent, time.Time{}); err != nil || again.CreateRevision != base+5 {
		t.Errorf("an expired key is not absent: %+v, %v", again, err)
	}
	if _, err := s.Put(t.Context(), "over", nil, store.Absent, time.Now().Add(-time.Second)); err != nil {
		t.Fatal(err)
	}
	if u.late > 0 {
		return
	}
	// What is over is over before anything has deleted it.
	if items, _ := list(t, s); len(items) != 3 {
		t.Errorf("an expired item is listed: %v", items)
	}
	if _, err := s.Delete(t.Context(), "over", store.AnyRevision); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("deleting an expired item: got %v, want ErrNotFound", err)
	}
}

func (u suite) testExpiryTakenBack(t *testing.T, s store.Store) {
	_, base := list(t, s)
	events, err := s.Watch(t.Context(), base)
	if err != nil {
		t.Fatal(err)
	}
	soon := time.Now().Add(150 * time.Millisecond)
	first, err := s.Put(t.Context(), "kept", nil, store.Absent, soon)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Put(t.Context(), "kept", nil, first.ModRevision, time.Time{}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Put(t.Context(), "marker", nil, store.Absent, soon.Add(50*time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		next(t, events)
	}
	if e := next(t, events); !e.Deleted || e.Item.Key != "marker" {
		t.Errorf("got %+v, want nothing but the deletion of marker", e)
	}
}
