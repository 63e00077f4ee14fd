// Package feed is what providers without a change log of their own share: it hands events to watchers and lets items expire.
package feed

import (
	"context"
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
	first   uint64        // revision of the oldest event in the ring
	last    uint64        // revision of the newest event, or the revision that the feed began with
	changed chan struct{} // closed and replaced when last moves
	closed  bool
}

// New returns a feed of a store that is at revision.
func New(revision uint64) *Feed {
	return &Feed{first: revision + 1, last: revision, changed: make(chan struct{})}
}

// Publish appends e, whose ModRevision must follow that of the previous event without a gap. It never blocks on a watcher.
func (f *Feed) Publish(e store.Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last = e.Item.ModRevision
	f.ring[f.last%Capacity] = e
	if f.last-f.first >= Capacity {
		f.first = f.last - Capacity + 1
	}
	close(f.changed)
	f.changed = make(chan struct{})
}

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
	if from+1 < f.first || from > f.last {
		return nil, store.ErrCompacted
	}
	out := make(chan store.Event)
	go f.deliver(ctx, from, out)
	return out, nil
}

// deliver sends every event after position until ctx ends, the feed is closed or the ring has moved past position.
func (f *Feed) deliver(ctx context.Context, position uint64, out chan<- store.Event) {
	defer close(out)
	for {
		e, changed, ok := f.after(position)
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
			position = e.Item.ModRevision
		case <-ctx.Done():
			return
		}
	}
}

// after returns the event that follows position, or the channel to wait on when there is none yet. It is not ok when the event is
// lost or will never come. What was published before the feed was closed is still delivered.
func (f *Feed) after(position uint64) (e store.Event, changed <-chan struct{}, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case position+1 < f.first:
		return store.Event{}, nil, false
	case position < f.last:
		return f.ring[(position+1)%Capacity], nil, true
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
