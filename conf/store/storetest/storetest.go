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

// Run tests the provider whose open returns a new, empty store. Run closes it.
func Run(t *testing.T, open func(t *testing.T) store.Store) {
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
	f("Expiry", testExpiry)
	f("ExpiryTakenBack", testExpiryTakenBack)
	t.Run("CloseEndsWatch", func(t *testing.T) {
		s := open(t)
		events, err := s.Watch(t.Context(), 0)
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
	if items, revision := list(t, s); len(items) != 0 || revision != 0 {
		t.Errorf("got %v at revision %d, want nothing at 0", items, revision)
	}
	if _, err := s.Delete(t.Context(), "a", store.AnyRevision); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("Delete: got %v, want ErrNotFound", err)
	}
}

func testPut(t *testing.T, s store.Store) {
	put(t, s, "routes/2", "b")
	put(t, s, "routes/1", "a")
	put(t, s, "routes/2", "bb")
	put(t, s, "upstreams/1", "gone")
	if revision, err := s.Delete(t.Context(), "upstreams/1", store.AnyRevision); err != nil || revision != 5 {
		t.Errorf("Delete: got revision %d, %v, want 5", revision, err)
	}
	last := put(t, s, "upstreams/1", "back")
	want := []store.Item{
		{Key: "routes/1", Value: []byte("a"), CreateRevision: 2, ModRevision: 2},
		{Key: "routes/2", Value: []byte("bb"), CreateRevision: 1, ModRevision: 3},
		{Key: "upstreams/1", Value: []byte("back"), CreateRevision: 6, ModRevision: 6},
	}
	got, revision := list(t, s)
	if diff := cmp.Diff(want, got); diff != "" || revision != 6 {
		t.Errorf("List at revision %d, want 6:\n%s", revision, diff)
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
	f := func(key string, condition uint64, want error) {
		t.Helper()
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
	put(t, s, "a", "1")
	put(t, s, "b", "2")
	f := func(key string, condition, wantRevision uint64, want error) {
		t.Helper()
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
	if items, revision := list(t, s); len(items) != 0 || revision != 4 {
		t.Errorf("got %v at revision %d, want nothing at 4", items, revision)
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
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, listErr := s.List(ctx)
	_, putErr := s.Put(ctx, "a", nil, store.AnyRevision, time.Time{})
	_, deleteErr := s.Delete(ctx, "a", store.AnyRevision)
	_, watchErr := s.Watch(ctx, 0)
	for _, err := range []error{listErr, putErr, deleteErr, watchErr} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want the context's error", err)
		}
	}
	if _, revision := list(t, s); revision != 0 {
		t.Errorf("something was written: revision %d", revision)
	}
}

// testConcurrentSwap lets writers fight for one key: of all that saw the same revision exactly one may win.
func testConcurrentSwap(t *testing.T, s store.Store) {
	const writers, rounds = 4, 10
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
	if n := won.Load(); int64(len(items[0].Value)) != n || revision != uint64(n)+1 || n < rounds {
		t.Errorf("%d writes won, value has %d marks, revision is %d", n, len(items[0].Value), revision)
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
	if _, err := s.Put(t.Context(), "a", nil, 99, time.Time{}); !errors.Is(err, store.ErrConflict) {
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
	for i := range 5 {
		put(t, s, fmt.Sprintf("k%d", i), "x")
	}
	for from := range uint64(5) {
		ctx, cancel := context.WithCancel(t.Context())
		events, err := s.Watch(ctx, from)
		if err != nil {
			t.Fatal(err)
		}
		for want := from + 1; want <= 5; want++ {
			if e := next(t, events); e.Item.ModRevision != want || e.Item.Key != fmt.Sprintf("k%d", want-1) {
				t.Errorf("from %d: got %s at %d, want revision %d", from, e.Item.Key, e.Item.ModRevision, want)
			}
		}
		cancel()
		ended(t, events)
	}
	if _, err := s.Watch(t.Context(), 6); !errors.Is(err, store.ErrCompacted) {
		t.Errorf("watching from a revision that never was: got %v, want ErrCompacted", err)
	}
}

func testWatchEnds(t *testing.T, s store.Store) {
	ctx, cancel := context.WithCancel(t.Context())
	idle, err := s.Watch(ctx, 0)
	if err != nil {
		t.Fatal(err)
	}
	blocked, err := s.Watch(ctx, 0)
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

func testExpiry(t *testing.T, s store.Store) {
	events, err := s.Watch(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	put(t, s, "stays", "x")
	it, err := s.Put(t.Context(), "goes", []byte("x"), store.Absent, time.Now().Add(50*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	far, err := s.Put(t.Context(), "far", []byte("x"), store.Absent, time.Now().Add(time.Hour).Truncate(time.Second))
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		next(t, events)
	}
	if e := next(t, events); !e.Deleted || e.Item.Key != "goes" || e.Item.ModRevision != 4 || time.Now().Before(it.Expires) {
		t.Errorf("got %+v, want the deletion of goes at revision 4 and not before its time", e)
	}
	items, revision := list(t, s)
	if len(items) != 2 || items[0].Key != "far" || items[1].Key != "stays" || revision != 4 {
		t.Errorf("got %v at %d", items, revision)
	}
	if !items[0].Expires.Equal(far.Expires) || far.Expires.IsZero() || !items[1].Expires.IsZero() {
		t.Errorf("expiry did not come back: %v and %v", items[0].Expires, items[1].Expires)
	}
	if again, err := s.Put(t.Context(), "goes", nil, store.Absent, time.Time{}); err != nil || again.CreateRevision != 5 {
		t.Errorf("an expired key is not absent: %+v, %v", again, err)
	}
	// What is over is over before anything has deleted it.
	if _, err := s.Put(t.Context(), "over", nil, store.Absent, time.Now().Add(-time.Second)); err != nil {
		t.Fatal(err)
	}
	if items, _ := list(t, s); len(items) != 3 {
		t.Errorf("an expired item is listed: %v", items)
	}
	if _, err := s.Delete(t.Context(), "over", store.AnyRevision); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("deleting an expired item: got %v, want ErrNotFound", err)
	}
}

func testExpiryTakenBack(t *testing.T, s store.Store) {
	events, err := s.Watch(t.Context(), 0)
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
