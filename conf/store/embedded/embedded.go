// Package embedded keeps documents in one bbolt file. Every Put, Delete and Batch is one transaction that has reached the disk when it
// returns; the file is checked as a whole when it is opened, and every document whenever it is read, so a damaged file is an error
// and never a part of a configuration.
package embedded

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"

	"headgate/conf/store"
	"headgate/conf/store/feed"
)

// ErrDamaged says that the file is not what was written; the text around it names the file and the place. It always comes together
// with store.ErrUnavailable.
var ErrDamaged = errors.New("damaged")

// Store implements store.Store.
type Store struct {
	path    string
	db      *bolt.DB
	unclean bool
	feed    *feed.Feed
	expiry  *feed.Expiry

	// turn is held by whoever looks at or changes the file. It is a channel so that waiting for it ends with a context, and it keeps
	// the feed in revision order: what a List shows has been published.
	turn     chan struct{}
	revision uint64        // last published
	doubt    []store.Event // a write that failed while it was committed: it may be in the file or not
	broken   error         // set once: no further access to the file
}

// Unclean reports whether the last process that had the file open did not close it. Nothing acknowledged is lost by that.
func (s *Store) Unclean() bool { return s.unclean }

// maxAhead bounds for how many documents memory is asked for before they are seen.
const maxAhead = 1 << 20

// List implements store.Store. It fails as a whole when one document is damaged.
func (s *Store) List(ctx context.Context) ([]store.Item, uint64, error) {
	if err := s.acquire(ctx); err != nil {
		return nil, 0, err
	}
	defer s.release()
	var items []store.Item
	var st state
	err := s.guard(func() error {
		return s.db.View(func(tx *bolt.Tx) (err error) {
			if st, err = readState(tx); err != nil {
				return err
			}
			items = make([]store.Item, 0, min(st.count, maxAhead))
			st, err = readAll(tx, func(it store.Item) {
				it.Value = bytes.Clone(it.Value)
				items = append(items, it)
			})
			return err
		})
	})
	if err != nil {
		return nil, 0, s.failed(err)
	}
	if err := s.settle(st); err != nil {
		return nil, 0, err
	}
	now := time.Now()
	items = slices.DeleteFunc(items, func(it store.Item) bool { return it.Expired(now) })
	return items, st.revision, nil
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

// Batch implements store.Store: one transaction of the file, whatever the number of writes.
func (s *Store) Batch(ctx context.Context, writes []store.Write) ([]store.Item, uint64, error) {
	if err := store.CheckBatch(writes); err != nil {
		return nil, 0, err
	}
	if len(writes) == 0 {
		_, revision, err := s.List(ctx)
		return nil, revision, err
	}
	changes := make([]change, len(writes))
	for i, w := range writes {
		w.Value = bytes.Clone(w.Value)
		changes[i] = change{w.Key, w.Event}
	}
	events, err := s.write(ctx, changes...)
	if err != nil {
		return nil, 0, err
	}
	items := make([]store.Item, len(events))
	for i, e := range events {
		items[i] = e.Item
		s.expiry.Add(e.Item.Key, e.Item.Expires)
	}
	return items, items[0].ModRevision, nil
}

// Watch implements store.Store.
func (s *Store) Watch(ctx context.Context, from uint64) (<-chan store.Event, error) {
	return s.feed.Watch(ctx, from)
}

var errNothingToDo = errors.New("nothing to do")

// expire deletes key if its time has come. A damaged or closed store is not asked again.
func (s *Store) expire(key string) error {
	_, err := s.write(context.Background(), change{key, func(old *store.Item, revision uint64) (store.Event, error) {
		if old != nil {
			return store.Event{}, errNothingToDo // written again with a later end or none
		}
		return store.Event{Item: store.Item{Key: key, ModRevision: revision}, Deleted: true}, nil
	}})
	if errors.Is(err, store.ErrUnavailable) && s.usable() {
		return err
	}
	return nil
}

func (s *Store) usable() bool {
	if s.acquire(context.Background()) != nil {
		return false
	}
	s.release()
	return true
}

// change is what a transaction does to one key. decide sees the live item (nil when there is none) and the revision that the write
// would get, and returns the event or a refusal.
type change struct {
	key    string
	decide func(old *store.Item, revision uint64) (store.Event, error)
}

// refusal is an answer to the caller, told apart from a failure of the file.
type refusal struct{ error }

// write runs one transaction. All changes are made or, after the first refusal, which write returns as it is, none.
func (s *Store) write(ctx context.Context, changes ...change) ([]store.Event, error) {
	if err := s.acquire(ctx); err != nil {
		return nil, err
	}
	defer s.release()
	events := make([]store.Event, len(changes))
	committing := false
	err := s.guard(func() error {
		return s.db.Update(func(tx *bolt.Tx) error {
			st, err := readState(tx)
			if err != nil {
				return err
			}
			if err := s.settle(st); err != nil {
				return refusal{err}
			}
			st.revision++
			docs := tx.Bucket(documentsBucket)
			for i, c := range changes {
				if events[i], err = c.carryOut(docs, &st); err != nil {
					return err
				}
			}
			committing = true
			return tx.Bucket(metaBucket).Put(stateKey, st.encode())
		})
	})
	var refused refusal
	switch {
	case errors.As(err, &refused):
		return nil, refused.error
	case err != nil:
		if committing {
			s.doubt = events
		}
		return nil, s.failed(err)
	}
	s.publish(events)
	return events, nil
}

// carryOut makes the change at st.revision and keeps st's sums.
func (c change) carryOut(docs *bolt.Bucket, st *state) (store.Event, error) {
	old, sum, err := lookup(docs, c.key)
	if err != nil {
		return store.Event{}, err
	}
	live := old
	if old != nil && old.Expired(time.Now()) {
		live = nil
	}
	e, err := c.decide(live, st.revision)
	if err != nil {
		return store.Event{}, refusal{err}
	}
	if e.Deleted && old == nil {
		return store.Event{}, refusal{store.ErrNotFound}
	}
	if old != nil {
		st.count, st.digest = st.count-1, st.digest^sum
	}
	if e.Deleted {
		return e, docs.Delete([]byte(c.key))
	}
	record, sum := encodeRecord(e.Item)
	st.count, st.digest = st.count+1, st.digest^sum
	return e, docs.Put([]byte(c.key), record)
}

func (s *Store) publish(events []store.Event) {
	s.revision, s.doubt = events[0].Item.ModRevision, nil
	s.feed.Publish(events...)
}

// settle compares the revision in the file with the last one published. They differ when a write was reported as failed but is in
// the file after all; then watchers learn of it now.
func (s *Store) settle(st state) error {
	switch {
	case st.revision == s.revision:
		return nil
	case s.doubt != nil && st.revision == s.doubt[0].Item.ModRevision:
		doubt := s.doubt
		s.publish(doubt)
		for _, e := range doubt {
			s.expiry.Add(e.Item.Key, e.Item.Expires)
		}
		return nil
	}
	return s.failed(fmt.Errorf("%w: at revision %d instead of %d", ErrDamaged, st.revision, s.revision))
}

// Close marks the file as closed properly and releases it.
func (s *Store) Close() error {
	s.expiry.Close()
	s.feed.Close()
	if err := s.acquire(context.Background()); err != nil {
		// The file is not to be trusted, so bbolt must not walk it again; the lock is all that has to go.
		return s.closeDB()
	}
	defer s.release()
	err := s.guard(func() error { return setClean(s.db, true) })
	s.broken = fmt.Errorf("%w: closed", store.ErrUnavailable)
	return errors.Join(err, s.closeDB())
}

func (s *Store) closeDB() error {
	return s.guard(func() error { return s.db.Close() })
}

func (s *Store) acquire(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	if s.broken != nil {
		s.release()
		return s.broken
	}
	return nil
}

func (s *Store) release() { <-s.turn }

// guard turns panics and memory faults of bbolt, which trusts the file, into errors.
func (s *Store) guard(f func() error) error { return guard(f) }

func guard(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %v", ErrDamaged, r)
		}
	}()
	return f()
}

// failed wraps an error of the medium and decides whether the file may be used again. A lack of space leaves it as it was. After an
// I/O error the kernel may have dropped what it could not write, so what is read need not be what is on the disk.
func (s *Store) failed(err error) error {
	wrapped := fmt.Errorf("%w: %s: %w", store.ErrUnavailable, s.path, err)
	if errors.Is(err, ErrDamaged) || errors.Is(err, syscall.EIO) {
		s.broken = wrapped
	}
	return wrapped
}

var _ store.Store = (*Store)(nil)
