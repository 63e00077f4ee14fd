package storetest

import (
	"bytes"
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

func testBatch(t *testing.T, s store.Store) {
	_, base := list(t, s)
	put(t, s, "changed", "old")
	put(t, s, "gone", "old")
	put(t, s, "untouched", "x")
	value := []byte("new")
	items, revision, err := s.Batch(t.Context(), []store.Write{
		{Key: "created", Value: value, IfRevision: store.Absent},
		{Key: "gone", IfRevision: base + 2},
		{Key: "changed", Value: []byte{}, IfRevision: base + 1},
		{Key: "any", Value: []byte("any"), IfRevision: store.AnyRevision},
	})
	if err != nil {
		t.Fatal(err)
	}
	copy(value, "!!!") // the caller's buffer is the caller's
	now := base + 4
	want := []store.Item{
		{Key: "created", Value: []byte("new"), CreateRevision: now, ModRevision: now},
		{Key: "gone", ModRevision: now},
		{Key: "changed", Value: []byte{}, CreateRevision: base + 1, ModRevision: now},
		{Key: "any", Value: []byte("any"), CreateRevision: now, ModRevision: now},
	}
	if diff := cmp.Diff(want, items); diff != "" || revision != now {
		t.Errorf("at revision %d, want %d:\n%s", revision, now, diff)
	}
	want = []store.Item{want[3], want[2], want[0], {Key: "untouched", Value: []byte("x"), CreateRevision: base + 3, ModRevision: base + 3}}
	got, revision := list(t, s)
	for i := range got {
		got[i].Value = append([]byte{}, got[i].Value...) // empty and nil are the same in a list
	}
	if diff := cmp.Diff(want, got); diff != "" || revision != now {
		t.Errorf("List at revision %d, want %d:\n%s", revision, now, diff)
	}
	items, revision, err = s.Batch(t.Context(), nil)
	if len(items) != 0 || revision != now || err != nil {
		t.Errorf("an empty batch: got %v at %d, %v", items, revision, err)
	}
}

func testBatchRefused(t *testing.T, s store.Store) {
	_, base := list(t, s)
	put(t, s, "a", "1")
	put(t, s, "b", "2")
	fine := store.Write{Key: "fine", Value: []byte("x"), IfRevision: store.AnyRevision}
	f := func(name string, want error, names string, writes ...store.Write) {
		t.Helper()
		before, revision := list(t, s)
		items, at, err := s.Batch(t.Context(), append([]store.Write{fine}, writes...))
		if err == nil || want != nil && !errors.Is(err, want) || !strings.Contains(err.Error(), names) || items != nil || at != 0 {
			t.Errorf("%s: got %v at %d, %v, want %v that names %s", name, items, at, err, want, names)
		}
		after, now := list(t, s)
		if diff := cmp.Diff(before, after); diff != "" || now != revision {
			t.Errorf("%s: a part was written (revision %d after %d):\n%s", name, now, revision, diff)
		}
	}
	x := []byte("x")
	f("put over another version", store.ErrConflict, "a", store.Write{Key: "a", Value: x, IfRevision: base + 2})
	f("create what exists", store.ErrConflict, "b", store.Write{Key: "b", Value: x, IfRevision: store.Absent})
	f("change what does not exist", store.ErrConflict, "c", store.Write{Key: "c", Value: x, IfRevision: base + 1})
	f("delete another version", store.ErrConflict, "b", store.Write{Key: "b", IfRevision: base + 1})
	f("delete nothing", store.ErrNotFound, "c", store.Write{Key: "c", IfRevision: store.AnyRevision})
	f("the first in order is named", store.ErrNotFound, "d",
		store.Write{Key: "d", IfRevision: base + 1}, store.Write{Key: "a", Value: x, IfRevision: base + 2})
	f("one key twice", nil, "a", store.Write{Key: "a", Value: x, IfRevision: store.AnyRevision}, store.Write{Key: "a", IfRevision: store.AnyRevision})
	f("an invalid key", nil, "/a", store.Write{Key: "/a", Value: x, IfRevision: store.AnyRevision})
}

// testBatchWatch: the events of a batch come in order, at one revision, all but the last with More; also when they are replayed.
func testBatchWatch(t *testing.T, s store.Store) {
	_, base := list(t, s)
	live, err := s.Watch(t.Context(), base)
	if err != nil {
		t.Fatal(err)
	}
	first := put(t, s, "a", "1")
	items, revision, err := s.Batch(t.Context(), []store.Write{
		{Key: "b", Value: []byte("2"), IfRevision: store.Absent},
		{Key: "a", IfRevision: store.AnyRevision},
		{Key: "c", Value: []byte("3"), IfRevision: store.AnyRevision},
	})
	if err != nil {
		t.Fatal(err)
	}
	last := put(t, s, "d", "4")
	replay, err := s.Watch(t.Context(), first.ModRevision)
	if err != nil {
		t.Fatal(err)
	}
	next(t, live)
	want := []store.Event{{Item: items[0], More: true}, {Item: items[1], Deleted: true, More: true}, {Item: items[2]}, {Item: last}}
	for i := range want {
		for name, events := range map[string]<-chan store.Event{"live": live, "replay": replay} {
			if diff := cmp.Diff(want[i], next(t, events)); diff != "" {
				t.Errorf("%s, event %d:\n%s", name, i, diff)
			}
		}
	}
	after, err := s.Watch(t.Context(), revision)
	if err != nil {
		t.Fatal(err)
	}
	if e := next(t, after); e.Item.Key != "d" {
		t.Errorf("from the batch's revision: got %+v, want what follows it", e)
	}
}

// testBatchConcurrent lets writers swap the values of two keys: nobody ever sees one without the other.
func testBatchConcurrent(t *testing.T, s store.Store) {
	const writers, rounds = 3, 8
	_, base := list(t, s)
	if _, _, err := s.Batch(t.Context(), []store.Write{
		{Key: "left", Value: []byte("0"), IfRevision: store.Absent}, {Key: "right", Value: []byte("0"), IfRevision: store.Absent},
	}); err != nil {
		t.Fatal(err)
	}
	var won atomic.Int64
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for round := range rounds {
				items, _, err := s.List(t.Context())
				if err != nil || len(items) != 2 || !bytes.Equal(items[0].Value, items[1].Value) {
					t.Errorf("half a batch is listed: %v, %v", items, err)
					return
				}
				value := []byte(fmt.Sprintf("%d-%d", w, round))
				_, _, err = s.Batch(t.Context(), []store.Write{
					{Key: "left", Value: value, IfRevision: items[0].ModRevision}, {Key: "right", Value: value, IfRevision: items[1].ModRevision, Expires: time.Time{}},
				})
				switch {
				case err == nil:
					won.Add(1)
				case !errors.Is(err, store.ErrConflict):
					t.Errorf("Batch: %v", err)
				}
			}
		})
	}
	wg.Wait()
	if _, revision := list(t, s); revision != base+1+uint64(won.Load()) || won.Load() < rounds {
		t.Errorf("%d batches won, revision is %d after %d", won.Load(), revision, base)
	}
}
