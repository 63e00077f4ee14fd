// Package lent wraps a store whose medium one process alone can hold, so that the gateway can let go of it while it serves on: the next
// version of the program opens it, and if that comes to nothing, this one takes it back.
package lent

import (
	"context"
	"fmt"
	"sync"
	"time"

	"headgate/conf/store"
)

// Store implements store.Store. While its medium is lent every method fails with store.ErrUnavailable, and watches end.
type Store struct {
	open func() (store.Store, error)

	mu    sync.RWMutex
	inner store.Store // nil while it is lent
}

// Open opens the medium with open, which is called again by every TakeBack.
func Open(open func() (store.Store, error)) (*Store, error) {
	inner, err := open()
	if err != nil {
		return nil, err
	}
	return &Store{open: open, inner: inner}, nil
}

// Lend waits for what is under way and closes the medium. Calling it twice does no harm.
func (s *Store) Lend() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	inner := s.inner
	s.inner = nil
	if inner == nil {
		return nil
	}
	return inner.Close()
}

// TakeBack opens the medium again. Whoever had a watch lists again, and so learns what was written meanwhile.
func (s *Store) TakeBack() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.inner != nil {
		return nil
	}
	inner, err := s.open()
	if err == nil {
		s.inner = inner
	}
	return err
}

// use runs f on the medium, which stays open until f returns.
func (s *Store) use(f func(store.Store) error) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.inner == nil {
		return fmt.Errorf("%w: another process holds it during an upgrade", store.ErrUnavailable)
	}
	return f(s.inner)
}

// List implements store.Store.
func (s *Store) List(ctx context.Context) (items []store.Item, revision uint64, err error) {
	err = s.use(func(in store.Store) (err error) {
		items, revision, err = in.List(ctx)
		return err
	})
	return items, revision, err
}

// Put implements store.Store.
func (s *Store) Put(ctx context.Context, key string, value []byte, ifRevision uint64, expires time.Time) (item store.Item, err error) {
	err = s.use(func(in store.Store) (err error) {
		item, err = in.Put(ctx, key, value, ifRevision, expires)
		return err
	})
	return item, err
}

// Delete implements store.Store.
func (s *Store) Delete(ctx context.Context, key string, ifRevision uint64) (revision uint64, err error) {
	err = s.use(func(in store.Store) (err error) {
		revision, err = in.Delete(ctx, key, ifRevision)
		return err
	})
	return revision, err
}

// Batch implements store.Store.
func (s *Store) Batch(ctx context.Context, writes []store.Write) (items []store.Item, revision uint64, err error) {
	err = s.use(func(in store.Store) (err error) {
		items, revision, err = in.Batch(ctx, writes)
		return err
	})
	return items, revision, err
}

// Watch implements store.Store.
func (s *Store) Watch(ctx context.Context, from uint64) (events <-chan store.Event, err error) {
	err = s.use(func(in store.Store) (err error) {
		events, err = in.Watch(ctx, from)
		return err
	})
	return events, err
}

// Close implements store.Store.
func (s *Store) Close() error { return s.Lend() }

var _ store.Store = (*Store)(nil)
