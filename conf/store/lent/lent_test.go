package lent

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"headgate/conf/store"
	"headgate/conf/store/embedded"
	"headgate/conf/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func opener(t *testing.T) func() (store.Store, error) {
	path := filepath.Join(t.TempDir(), "s.db")
	return func() (store.Store, error) {
		s, err := embedded.Open(path, embedded.Options{LockWait: time.Millisecond})
		if err != nil {
			return nil, err
		}
		return s, nil
	}
}

func TestConformance(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store {
		s, err := Open(opener(t))
		if err != nil {
			t.Fatal(err)
		}
		return s
	})
}

// What another process writes while it has the medium is there when it is taken back; until then nothing works, and nothing hangs.
func TestLend(t *testing.T) {
	open := opener(t)
	s, err := Open(open)
	if err != nil {
		t.Fatal(err)
	}
	events, err := s.Watch(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Lend(), s.Lend()); err != nil {
		t.Fatal(err)
	}
	if _, more := <-events; more {
		t.Error("a watch goes on")
	}
	_, _, listed := s.List(t.Context())
	_, put := s.Put(t.Context(), "a", []byte("1"), store.AnyRevision, time.Time{})
	_, deleted := s.Delete(t.Context(), "a", store.AnyRevision)
	_, _, batch := s.Batch(t.Context(), nil)
	_, watched := s.Watch(t.Context(), 0)
	for _, err := range []error{listed, put, deleted, batch, watched} {
		if !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("while it is lent: %v", err)
		}
	}
	other, err := open()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.TakeBack(); err == nil {
		t.Error("two have it")
	}
	if _, err := other.Put(t.Context(), "a", []byte("theirs"), store.AnyRevision, time.Time{}); err != nil {
		t.Fatal(err)
	}
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.TakeBack(), s.TakeBack()); err != nil {
		t.Fatal(err)
	}
	if items, revision, err := s.List(t.Context()); err != nil || revision != 1 || len(items) != 1 || string(items[0].Value) != "theirs" {
		t.Errorf("%v at %d, %v", items, revision, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
