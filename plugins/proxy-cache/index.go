package proxycache

import (
	"slices"
	"sync"
	"sync/atomic"

	"headgate/proxy/phase"
)

const (
	shards = 16
	// maxVariants bounds the answers to one key; the oldest one goes first.
	maxVariants = 64
)

// index finds the answers of a zone and bounds what they take: in memory, and on the disk. What has not been used for the longest time in a
// shard goes first. It is safe for concurrent use; a shard's lock is held for looking and linking only.
type index struct {
	maxMemory, maxDisk   int64 // bytes; maxDisk is 0 for a zone in memory
	memory, disk, number atomic.Int64
	evicted              func(int)
	hand                 atomic.Uint32
	shards               [shards]shard
}

type shard struct {
	mu    sync.Mutex
	nodes map[digest]*node
	ring  entry // of the entries, the latest one behind it
	// purges counts what was purged, each for a part of the keys, so that an answer that came before a purge is not kept after it.
	purges [256]uint64
}

// node is the answers to one key, the latest one last.
type node struct{ entries []*entry }

func (x *index) init() {
	for i := range x.shards {
		s := &x.shards[i]
		s.nodes = map[digest]*node{}
		s.ring.prev, s.ring.next = &s.ring, &s.ring
	}
}

func (x *index) shard(key *digest) *shard { return &x.shards[key[0]%shards] }

// find returns the latest answer for the request, fresh or not, nil when there is none, and a ticket for add.
func (x *index) find(key *digest, v *variant, q *phase.Request) (e *entry, ticket uint64) {
	s := x.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	ticket = s.purges[key[1]]
	n := s.nodes[*key]
	if n == nil {
		return nil, ticket
	}
	for i := len(n.entries) - 1; i >= 0; i-- {
		if c := n.entries[i]; c.fits(v, q) {
			c.unlink()
			s.link(c)
			return c, ticket
		}
	}
	return nil, ticket
}

// add takes e in, unless something was purged since ticket was given, or there is no room for it even in an empty zone. removed is what
// had to go; when ok is false, e itself is not among it.
func (x *index) add(e *entry, ticket uint64) (removed []*entry, ok bool) {
	memory, disk := e.memory(), e.disk()
	if memory > x.maxMemory || disk > x.maxDisk && x.maxDisk > 0 {
		return nil, false
	}
	x.memory.Add(memory)
	x.disk.Add(disk)
	removed = x.evict()
	s := x.shard(&e.key)
	s.mu.Lock()
	if s.purges[e.key[1]] != ticket {
		s.mu.Unlock()
		x.memory.Add(-memory)
		x.disk.Add(-disk)
		return removed, false
	}
	n := s.nodes[e.key]
	if n == nil {
		n = &node{}
		s.nodes[e.key] = n
	}
	n.entries = slices.DeleteFunc(n.entries, func(o *entry) bool {
		if !e.replaces(o) {
			return false
		}
		o.unlink()
		x.gone(o)
		if o.file == 0 || o.stamp != e.stamp { // else scan has seen the same file before it was added
			removed = append(removed, o)
		}
		return true
	})
	if len(n.entries) >= maxVariants {
		oldest := n.entries[0]
		oldest.unlink()
		x.gone(oldest)
		removed = append(removed, oldest)
		n.entries = slices.Delete(n.entries, 0, 1)
	}
	n.entries = append(n.entries, e)
	e.node = n
	s.link(e)
	x.number.Add(1)
	s.mu.Unlock()
	return removed, true
}

// restore is add for what an earlier process has left on the disk: the latest of two answers to the same stays, and nothing comes back that
// was purged since. False says that e's file is of no use.
func (x *index) restore(e *entry) (removed []*entry, ok bool) {
	s := x.shard(&e.key)
	s.mu.Lock()
	if n := s.nodes[e.key]; n != nil {
		for _, o := range n.entries {
			if e.replaces(o) && (o.received > e.received || o.stamp == e.stamp) {
				s.mu.Unlock()
				return nil, o.stamp == e.stamp // the same file
			}
		}
	}
	s.mu.Unlock()
	return x.add(e, 0)
}

// evict makes room until the bounds are kept. The locks of the shards are taken one after the other.
func (x *index) evict() (removed []*entry) {
	for idle := 0; idle < shards && (x.memory.Load() > x.maxMemory || x.maxDisk > 0 && x.disk.Load() > x.maxDisk); {
		s := &x.shards[x.hand.Add(1)%shards]
		s.mu.Lock()
		oldest := s.ring.prev
		if oldest == &s.ring {
			s.mu.Unlock()
			idle++
			continue
		}
		idle = 0
		s.remove(oldest)
		x.gone(oldest)
		s.mu.Unlock()
		removed = append(removed, oldest)
	}
	if x.evicted != nil && len(removed) > 0 {
		x.evicted(len(removed))
	}
	return removed
}

// purge takes out all answers to key.
func (x *index) purge(key *digest) (removed []*entry) {
	s := x.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.purges[key[1]]++
	n := s.nodes[*key]
	if n == nil {
		return nil
	}
	delete(s.nodes, *key)
	for _, e := range n.entries {
		e.unlink()
		x.gone(e)
	}
	return n.entries
}

// drop takes out e, unless it has gone already.
func (x *index) drop(e *entry) bool {
	s := x.shard(&e.key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.node == nil {
		return false
	}
	s.remove(e)
	x.gone(e)
	return true
}

// remove takes e out of its node and the ring. The shard is locked.
func (s *shard) remove(e *entry) {
	n := e.node
	n.entries = slices.DeleteFunc(n.entries, func(o *entry) bool { return o == e })
	if len(n.entries) == 0 {
		delete(s.nodes, e.key)
	}
	e.unlink()
}

// gone notes that e, which has left its shard, takes no room any more.
func (x *index) gone(e *entry) {
	e.node = nil
	x.memory.Add(-e.memory())
	x.disk.Add(-e.disk())
	x.number.Add(-1)
}

func (s *shard) link(e *entry) {
	e.prev, e.next = &s.ring, s.ring.next
	e.next.prev, s.ring.next = e, e
}

func (e *entry) unlink() {
	e.prev.next, e.next.prev = e.next, e.prev
	e.prev, e.next = nil, nil
}
