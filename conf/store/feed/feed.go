// Package feed is what providers without a change log of their own share: it hands events to watchers and lets items expire.
package feed

import (
	"context"
	"sort"
	"sync"

	"headgate/conf/store"
)

// Capacity is the number of events that can be replayed. A watcher that is further behind has to list again.
const Capacity = 1024

// Feed keeps the latest events of one store and delivers them to any number of watchers. Memory is bounded whatever the watchers
// do: each has a position in the one ring and no queue of its own.
type Feed struct {
	mu      sync.Mutex
	ring    [Capacity]store.Event
	count   uint64        // events published so far; event n is at n % Capacity, and the positions of watchers count the same way
	lost    uint64        // latest revision that cannot be replayed as a whole
	last    uint64        // revision of the newest event, or the revision that the feed began with
	changed chan struct{} // closed and replaced when count moves
	closed  bool
}

// New returns a feed of a store that is at revision.
func New(revision uint64) *Feed {
	return &Feed{lost: revision, last: revision, changed: make(chan struct{})}
}

// Publish appends the events of one write, which share a revision that is greater than any before, and sets their More. It never
// blocks on a watcher.
func (f *Feed) Publish(events ...store.Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, e := range events {
		e.More = i+1 < len(events)
		slot := &f.ring[f.count%Capacity]
		if f.count >= Capacity {
			f.lost = slot.Item.ModRevision
		}
		*slot = e
		f.last = e.Item.ModRevision
		f.count++
	}
	close(f.changed)
	f.changed = make(chan struct{})
}

// oldest returns the position of the oldest event in the ring; mu is held.
func (f *Feed) oldest() uint64 { return f.count - min(f.count, Capacity) }

// Watch implements store.Store's method of that name.
func (f *Feed) Watch(ctx context.Context, from uint64) (<-chan store.Event, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil, store.ErrUnavailable
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if from < f.lost || from > f.last {
		return nil, store.ErrCompacted
	}
	oldest := f.oldest()
	after := sort.Search(int(f.count-oldest), func(i int) bool {
		return f.ring[(oldest+uint64(i))%Capacity].Item.ModRevision > from
	})
	out := make(chan store.Event)
	go f.deliver(ctx, oldest+uint64(after), out)
	return out, nil
}

// deliver sends every event from position on until ctx ends, the feed is closed or the ring has moved past position.
func (f *Feed) deliver(ctx context.Context, position uint64, out chan<- store.Event) {
	defer close(out)
	for {
		e, changed, ok := f.at(position)
		if !ok {
			return
		}
		if changed != nil {
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
			continue
		}
		select {
		case out <- e:
			position++
		case <-ctx.Done():
			return
		}
	}
}

// at returns the event at position, or the channel to wait on when there is none yet. It is not ok when the event is lost or will
// never come. What was published before the feed was closed is still delivered.
func (f *Feed) at(position uint64) (e store.Event, changed <-chan struct{}, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case position < f.oldest():
		return store.Event{}, nil, false
	case position < f.count:
		return f.ring[position%Capacity], nil, true
	case f.closed:
		return store.Event{}, nil, false
	}
	return store.Event{}, f.changed, true
}

// Close ends every watcher once it has received what was published.
func (f *Feed) Close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.closed {
		f.closed = true
		close(f.changed)
	}
}
