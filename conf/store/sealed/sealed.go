// Package sealed keeps the secrets of documents encrypted in another store: they are sealed on their way in and opened on their way
// out, so that whoever uses the store sees clear text. Documents without secrets, and what is no JSON object, pass byte for byte.
package sealed

import (
	"bytes"
	"context"
	"time"

	"headgate/conf/seal"
	"headgate/conf/store"
)

// Store implements store.Store.
type Store struct {
	inner  store.Store
	sealer *seal.Sealer
}

// reporting is a Store around one that reports its health.
type reporting struct {
	*Store
	store.Reporter
}

// New returns inner with sealed secrets; it implements store.Reporter if inner does. Closing it closes inner.
func New(inner store.Store, sealer *seal.Sealer) store.Store {
	s := &Store{inner, sealer}
	if r, ok := inner.(store.Reporter); ok {
		return reporting{s, r}
	}
	return s
}

// List implements store.Store.
func (s *Store) List(ctx context.Context) ([]store.Item, uint64, error) {
	items, revision, err := s.inner.List(ctx)
	for i := range items {
		s.open(&items[i])
	}
	return items, revision, err
}

// Put implements store.Store. The item that it returns holds value as it was given. A private key that is neither PEM nor sealed
// under the keyring is refused with seal.ErrForeign.
func (s *Store) Put(ctx context.Context, key string, value []byte, ifRevision uint64, expires time.Time) (store.Item, error) {
	sealed, err := s.sealer.SealDocument(key, value)
	if err != nil {
		return store.Item{}, err
	}
	it, err := s.inner.Put(ctx, key, sealed, ifRevision, expires)
	if err != nil {
		return store.Item{}, err
	}
	s.restore(&it, value)
	return it, nil
}

// Delete implements store.Store.
func (s *Store) Delete(ctx context.Context, key string, ifRevision uint64) (uint64, error) {
	return s.inner.Delete(ctx, key, ifRevision)
}

// Batch implements store.Store, as Put does for each document.
func (s *Store) Batch(ctx context.Context, writes []store.Write) ([]store.Item, uint64, error) {
	sealed := make([]store.Write, len(writes))
	for i, w := range writes {
		sealed[i] = w
		if w.Value == nil {
			continue
		}
		var err error
		if sealed[i].Value, err = s.sealer.SealDocument(w.Key, w.Value); err != nil {
			return nil, 0, err
		}
	}
	items, revision, err := s.inner.Batch(ctx, sealed)
	for i := range items {
		s.restore(&items[i], writes[i].Value)
	}
	return items, revision, err
}

// Watch implements store.Store.
func (s *Store) Watch(ctx context.Context, from uint64) (<-chan store.Event, error) {
	events, err := s.inner.Watch(ctx, from)
	if err != nil {
		return nil, err
	}
	out := make(chan store.Event)
	go func() {
		defer close(out)
		for e := range events {
			s.open(&e.Item)
			select {
			case out <- e:
			case <-ctx.Done():
				for range events { // its sender waits for ctx too
				}
				return
			}
		}
	}()
	return out, nil
}

// Close implements store.Store.
func (s *Store) Close() error { return s.inner.Close() }

// open replaces the value, which belongs to the inner store, by its clear text.
func (s *Store) open(it *store.Item) {
	if it.Value != nil {
		it.Value = s.sealer.OpenDocument(it.Key, it.Value)
	}
}

// restore gives a written item the value that the caller sent, unless both are the same already.
func (s *Store) restore(it *store.Item, value []byte) {
	if it.Value != nil && !bytes.Equal(it.Value, value) {
		it.Value = bytes.Clone(value)
	}
}

var _ store.Store = (*Store)(nil)
