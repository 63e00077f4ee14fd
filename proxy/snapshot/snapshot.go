// Package snapshot is the configuration in the form that requests read: immutable, published with one store, shared with the
// snapshot before it wherever nothing changed, and retired when its last reader has left.
package snapshot

import (
	"sync"
	"sync/atomic"

	"headgate/proxy/fault"
	"headgate/proxy/phase"
	"headgate/proxy/route"
	"headgate/proxy/upstream"
)

// Snapshot is one published configuration.
type Snapshot struct {
	// Revision is the store's revision that it shows.
	Revision uint64

	table    *route.Table[*Route]
	registry registry
	global   *phase.Chain // of the global rules
	serial   uint64       // order of publication, from 1

	certificates certificates

	_    [48]byte
	pins [pinShards]pinCount // on cache lines of their own: every request reads table
}

// Route is a compiled route; immutable, and shared by every snapshot until something that it was compiled from changes.
type Route struct {
	phase.Route
	part
	// Upstream is where exchanges go when no plugin decides otherwise; nil when Missing says why there is none.
	Upstream *upstream.Upstream
	Branch   string
	Missing  *fault.Fault
	// Incomplete says that a document is missing without which the route must serve nobody.
	Incomplete *fault.Fault
	// Upgrade says that clients may switch to another protocol (contract section 2.7, enable_websocket).
	Upgrade bool
	// Finish says that answers are read to their end although the client has left (on_client_abort).
	Finish bool
	// Count counts the exchanges of the default branch, nil when they are not counted.
	Count phase.Counter
	// Vars is the route's predicate, nil when it has none.
	Vars phase.Predicate

	rule      route.Rule[*Route]
	listed    bool                     // in the table (status 1)
	recorders atomic.Pointer[recorder] // a list, one for each labelling that was asked for
	counters  atomic.Pointer[sync.Map] // of such plugins: *countingByRoute -> *meter.Counter
}

// Find returns the route for q among those that f accepts.
func (s *Snapshot) Find(q *route.Query, f route.Filter[*Route], m *route.Match) (*Route, bool) {
	return s.table.Find(q, f, m)
}

// Routes returns how many routes the router holds.
func (s *Snapshot) Routes() int { return s.table.Len() }

// pinShards spreads the counts of readers over cache lines; a reader uses the same shard for both ends of its stay.
const pinShards = 16

type pinCount struct {
	n atomic.Int64
	_ [56]byte
}

// pinned says whether any reader is left. It is only meaningful once another snapshot has been published.
func (s *Snapshot) pinned() bool {
	for i := range s.pins {
		if s.pins[i].n.Load() != 0 {
			return true
		}
	}
	return false
}

// Live is the one pointer that requests follow.
type Live struct {
	current atomic.Pointer[Snapshot]
}

// Pin returns the present snapshot and keeps it from being retired until Unpin with the same shard.
func (l *Live) Pin(shard uint32) *Snapshot {
	for {
		s := l.current.Load()
		n := &s.pins[shard%pinShards].n
		n.Add(1)
		// Only a pin that is counted before the next publication is seen by the retirement; one that came too late is undone.
		if l.current.Load() == s {
			return s
		}
		n.Add(-1)
	}
}

// Unpin ends a stay.
func (s *Snapshot) Unpin(shard uint32) { s.pins[shard%pinShards].n.Add(-1) }

// Current returns the present snapshot without pinning it: for views of what it counts, not for its routes.
func (l *Live) Current() *Snapshot { return l.current.Load() }

// publish puts s into force for every exchange that begins from now on.
func (l *Live) publish(s *Snapshot) { l.current.Store(s) }
