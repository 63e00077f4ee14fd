// Package mem keeps documents in memory: for tests and for gateways whose resources all stand in the TOML file. It behaves as the
// embedded provider does, except that nothing survives Close.
package mem

import (
	"bytes"
	"context"
	"fmt"
	"sort"
	"sync"
	"time"

	"headgate/conf/store"
	"headgate/conf/store/feed"
)

// Store implements store.Store.
type Store struct {
	mu       sync.Mutex // also keeps the feed in revision order
	items    map[string]store.Item
	revision uint64
	closed   bool
	feed     *feed.Feed
	expiry   *feed.Expiry
}

// Open returns an empty store at revision 0.
func Open() *Store {
	s := &Store{items: map[string]store.Item{}, feed: feed.New(0)}
	s.expiry = feed.NewExpiry(s.expire)
	return s
}

// List implements store.Store.
func (s *Store) List(ctx context.Context) ([]store.Item, uint64, error) {
	if err := s.lock(ctx); err != nil {
		return nil, 0, err
	}
	defer s.mu.Unlock()
	now := time.Now()
	out := make([]store.Item, 0, len(s.items))
	for _, it := range s.items {
		if !it.Expired(now) {
			out = append(out, it)
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Key < out[j].Key })
	return out, s.revision, nil
}

// Put implements store.Store.
func (s *Store) Put(ctx context.Context, key string, value []byte, ifRevision uint64, expires time.Time) (store.Item, error) {
	items, _, err := s.Batch(ctx, []store.Write{store.NewPut(key, value, ifRevision, expires)})
	if err != nil {
		return store.Item{}, err
	}
	return items[0], nil
}

// Delete implements store.Store.
func (s *Store) Delete(ctx context.Context, key string, ifRevision uint64) (uint64, error) {
	_, revision, err := s.Batch(ctx, []store.Write{{Key: key, IfRevision: ifRevision}})
	return revision, err
}

// Batch implements store.Store.
func (s *Store) Batch(ctx context.Context, writes []store.Write) ([]store.Item, uint64, error) {
	if err := store.CheckBatch(writes); err != nil {
		return nil, 0, err
	}
	if err := s.lock(ctx); err != nil {
		return nil, 0, err
	}
	defer s.mu.Unlock()
	events := make([]store.Event, len(writes))
	for i, w := range writes {
		var err error
		if events[i], err = w.Event(s.live(w.Key), s.revision+1); err != nil {
			return nil, 0, err
		}
		events[i].Item.Value = bytes.Clone(w.Value)
	}
	if len(events) == 0 {
		return nil, s.revision, nil
	}
	s.revision++
	items := make([]store.Item, len(events))
	for i, e := range events {
		items[i] = e.Item
		if e.Deleted {
			delete(s.items, e.Item.Key)
		} else {
			s.items[e.Item.Key] = e.Item
		}
		s.expiry.Add(e.Item.Key, e.Item.Expires)
	}
	s.feed.Publish(events...)
	return items, s.revision, nil
}

// Watch implements store.Store.
func (s *Store) Watch(ctx context.Context, from uint64) (<-chan store.Event, error) {
	return s.feed.Watch(ctx, from)
}

// Close implements store.Store.
func (s *Store) Close() error {
	if err := s.lock(context.Background()); err != nil {
		return err
	}
	s.closed = true
	s.mu.Unlock()
	s.expiry.Close()
	s.feed.Close()
	return nil
}

// lock takes the mutex of an open store.
func (s *Store) lock(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return fmt.Errorf("%w: closed", store.ErrUnavailable)
	}
	return nil
}

// live returns the item under key unless it expired; mu is held.
func (s *Store) live(key string) *store.Item {
	it, ok := s.items[key]
	if !ok || it.Expired(time.Now()) {
		return nil
	}
	return &it
}

// expire deletes key if its time has come.
func (s *Store) expire(key string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if it, ok := s.items[key]; ok && it.Expired(time.Now()) && !s.closed {
		delete(s.items, key)
		s.revision++
		s.feed.Publish(store.Event{Item: store.Item{Key: key, ModRevision: s.revision}, Deleted: true})
	}
	return nil
}

var _ store.Store = (*Store)(nil)
