package proxy

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"headgate/conf/store"
)

// hangingStore answers writes when the test says so.
type hangingStore struct {
	*spyStore
	begun chan string // the key of a write that has come
	tell  chan error  // what becomes of it
}

func newHangingStore(t *testing.T) *hangingStore {
	return &hangingStore{&spyStore{Store: openMem(t)}, make(chan string), make(chan error)}
}

func (s *hangingStore) Batch(ctx context.Context, writes []store.Write) ([]store.Item, uint64, error) {
	if len(writes) > 0 && s.begun != nil {
		s.begun <- writes[0].Key
		if err := <-s.tell; err != nil {
			return nil, 0, err
		}
	}
	return s.Store.Batch(ctx, writes)
}

// edit writes through r on a goroutine of its own, as two documents, which makes it a Batch.
func (r *applierRig) edit(key, doc string) chan error {
	done := make(chan error, 1)
	go func() {
		_, err := r.ApplyAll(context.Background(), changes(key, doc, "headgate/note", `{}`))
		done <- err
	}()
	return done
}

// While an edit waits for the store, what others have stored, the file and whoever looks go on.
func TestAnEditThatWaitsHoldsUpEditsAlone(t *testing.T) {
	s := newHangingStore(t)
	r := startRig(t, s, map[string][]byte{"routes/file": []byte(tagged("/file", "old"))})
	r.must("routes/1", tagged("/1", "old")) // by Put
	done := r.edit("routes/mine", tagged("/mine", "a"))
	<-s.begun
	foreign(t, s.Store, "routes/theirs", tagged("/theirs", "b"))
	eventually(t, "the event of another gateway is followed", func() bool { return r.serves("/theirs") == "b" })
	if err := r.Reload(context.Background(), map[string][]byte{"routes/file": []byte(tagged("/file", "new"))}); err != nil || r.serves("/file") != "new" {
		t.Errorf("the reload: %v, in force %q", err, r.serves("/file"))
	}
	r.sync()
	if _, ok := r.Get("routes/theirs"); !ok || len(r.List("routes")) != 3 {
		t.Errorf("shown: %v", r.List("routes"))
	}
	if _, err := r.ApplyAll(canceled(), changes("routes/late", tagged("/late", "a"))); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("an edit whose caller has gone: %v", err)
	}
	s.tell <- nil
	if err := <-done; err != nil || r.serves("/mine") != "a" || r.serves("/theirs") != "b" || r.serves("/file") != "new" {
		t.Errorf("%v, in force %q, %q, %q", err, r.serves("/mine"), r.serves("/theirs"), r.serves("/file"))
	}
	if item, ok := r.Get("routes/mine"); !ok || r.Revision() != item.ModRevision {
		t.Errorf("at %d, the edit at %d", r.Revision(), item.ModRevision)
	}
	// A deletion, which the watch shows before the store answers for it.
	done = r.edit("routes/mine", "")
	<-s.begun
	foreign(t, s.Store, "routes/theirs", tagged("/theirs", "c"))
	eventually(t, "the event of another gateway is followed", func() bool { return r.serves("/theirs") == "c" })
	s.tell <- nil
	if err := <-done; err != nil || r.serves("/mine") != "" {
		t.Errorf("%v, in force %q", err, r.serves("/mine"))
	}
	last := foreign(t, s.Store, "routes/theirs", "")
	eventually(t, "everything has arrived", func() bool { return r.Revision() == last.ModRevision })
	r.sync()
	if _, ok := r.Get("routes/mine"); ok || len(r.deleted) != 0 {
		t.Errorf("after the events: shown %v, deletions %v", ok, r.deleted)
	}
}

func canceled() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

// Edits that have waited for one that fails because the store is away do not wait for it once more; those that come later do.
func TestEditsThatHaveWaitedFailTogether(t *testing.T) {
	s := newHangingStore(t)
	r := startRig(t, s, nil)
	first := r.edit("routes/0", tagged("/0", "a"))
	<-s.begun
	var waiting []chan error
	for i := range 20 {
		waiting = append(waiting, r.edit(fmt.Sprintf("routes/%d", i+1), tagged(fmt.Sprintf("/%d", i+1), "a")))
	}
	eventually(t, "all have queued up", func() bool {
		n := 0
		if err := r.submit(context.Background(), func() { n = len(r.queue) }); err != nil {
			t.Fatal(err)
		}
		return n == len(waiting)
	})
	s.tell <- fmt.Errorf("%w: no answer", store.ErrUnavailable)
	if err := <-first; !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("the edit: %v", err)
	}
	for i, w := range waiting {
		if err := <-w; !errors.Is(err, store.ErrUnavailable) || errors.Is(err, store.ErrUnknown) {
			t.Errorf("edit %d: %v", i+1, err)
		}
	}
	if got := r.shown(); got != "" {
		t.Errorf("in force: %s", got)
	}
	late := r.edit("routes/1", tagged("/1", "b"))
	if key := <-s.begun; key != "routes/1" {
		t.Errorf("the store was asked for %s", key)
	}
	// One that waits is done when the one before it has succeeded.
	next := r.edit("routes/2", tagged("/2", "b"))
	s.tell <- nil
	<-s.begun
	s.tell <- nil
	if err := errors.Join(<-late, <-next); err != nil || r.serves("/1") != "b" || r.serves("/2") != "b" {
		t.Errorf("%v, in force %q and %q", err, r.serves("/1"), r.serves("/2"))
	}
}

// What was valid when it was stored may not be once the store has answered. It is stored then, and left out.
func TestAnEditOvertakenWhileItWaits(t *testing.T) {
	s := newHangingStore(t)
	r := startRig(t, s, nil)
	foreign(t, s.Store, "upstreams/u", oneNode)
	eventually(t, "u is there", func() bool { _, ok := r.Get("upstreams/u"); return ok })
	done := r.edit("routes/1", tagged("/1", "needs u"))
	<-s.begun
	foreign(t, s.Store, "upstreams/u", "")
	eventually(t, "u is gone", func() bool { _, ok := r.Get("upstreams/u"); return !ok })
	s.tell <- nil
	if err := <-done; err != nil || r.serves("/1") != "" || r.LeftOut()["routes/1"] == nil {
		t.Errorf("%v, in force %q, left out %v", err, r.serves("/1"), r.LeftOut())
	}
	foreign(t, s.Store, "upstreams/u", oneNode)
	eventually(t, "it comes into force with what it needs", func() bool { return r.serves("/1") == "needs u" })
}

// Who has queued up behind an edit when the config path ends is told so.
func TestCloseWhileAnEditWaits(t *testing.T) {
	s := newHangingStore(t)
	r := startRig(t, s, nil)
	first := r.edit("routes/0", tagged("/0", "a"))
	<-s.begun
	second := r.edit("routes/1", tagged("/1", "a"))
	eventually(t, "it has queued up", func() bool {
		n := 0
		if err := r.submit(context.Background(), func() { n = len(r.queue) }); err != nil {
			t.Fatal(err)
		}
		return n == 1
	})
	r.stop()
	s.tell <- nil
	if err := <-first; err != nil {
		t.Errorf("the edit that had begun: %v", err)
	}
	if err := <-second; !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("the edit behind it: %v", err)
	}
}
