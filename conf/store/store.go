// Package store keeps the documents that operators send, byte for byte, behind one interface. The data plane never knows which
// provider is underneath: sub-packages implement it (embedded: one bbolt file, etcd: shared with other gateways, mem: tests) or wrap
// one that does (sealed: secret fields encrypted).
package store

import (
	"context"
	"errors"
	"time"
)

// Item is one stored document. Key has the form "routes/1" (no prefix, no leading slash). Value is the JSON text as stored;
// whoever receives an Item must treat Value as read-only.
type Item struct {
	Key   string
	Value []byte
	// CreateRevision and ModRevision grow with every write of the whole store, as etcd's do (contract section 8).
	CreateRevision uint64
	ModRevision    uint64
	// Expires is the moment after which the item is to be deleted; the zero value means never.
	Expires time.Time
}

// Event is one change of the store, in revision order. The events of one Batch have the same revision and follow each other.
type Event struct {
	Item    Item // for a deletion only Key and ModRevision are set
	Deleted bool
	// More says that the next event belongs to the same change: a reader that applies changes whole waits for it. When the channel is
	// closed in between, what was collected is dropped; the list that follows has all of it.
	More bool
}

// Write is one write of a Batch.
type Write struct {
	Key        string
	Value      []byte // nil deletes the key
	IfRevision uint64 // as in Put or Delete
	Expires    time.Time
}

// Condition of a write: the ModRevision that the item must still have.
const (
	// AnyRevision writes unconditionally.
	AnyRevision = ^uint64(0)
	// Absent writes only when the key does not exist.
	Absent = uint64(0)
)

var (
	// ErrConflict says that the condition did not hold; nothing was written.
	ErrConflict = errors.New("value changed before overwritten")
	// ErrNotFound says that the key does not exist.
	ErrNotFound = errors.New("key not found")
	// ErrUnavailable wraps every failure of the medium itself (disk, network); nothing was acknowledged. It means that nothing was
	// written, unless the error is ErrUnknown too.
	ErrUnavailable = errors.New("store unavailable")
	// ErrUnknown comes together with ErrUnavailable when the provider could not find out whether the write took place. If it did,
	// the watch delivers it like anybody else's.
	ErrUnknown = errors.New("outcome unknown")
	// ErrTooLarge says that the provider can never take the write as it is: a value that is too long, or too many writes or bytes
	// for one Batch. Nothing was written; a Batch may be split by whoever can do without its atomicity.
	ErrTooLarge = errors.New("too large for the store")
	// ErrCompacted says that the events after a revision cannot be replayed, because they are too long ago or because the store has
	// never been at that revision. List again and watch from the revision of the list.
	ErrCompacted = errors.New("revision compacted")
)

// Store is implemented by every provider. A nil error from Put, Delete or Batch means that the write is durable. An error that wraps
// none of the errors above is a mistake of the caller (an invalid key) or the end of ctx before anything was begun. All methods are
// safe for concurrent use.
type Store interface {
	// List returns every live item, sorted by key, and the revision that the list shows: one moment of the store, never a mixture.
	List(ctx context.Context) ([]Item, uint64, error)
	// Put writes value under key if the condition holds and returns the item as stored. The caller may reuse value afterwards. A zero
	// expires means never; a provider may round it up to its own granularity, never down.
	Put(ctx context.Context, key string, value []byte, ifRevision uint64, expires time.Time) (Item, error)
	// Delete removes key if the condition holds and returns the revision of the deletion.
	Delete(ctx context.Context, key string, ifRevision uint64) (uint64, error)
	// Batch carries out all writes or none, at one revision, which it returns with one item per write in the order of writes (for a
	// deletion only Key and ModRevision are set). A key may stand in it once. When a condition does not hold the error is that of Put
	// or Delete and names the first such key. An empty batch writes nothing and returns the current revision.
	Batch(ctx context.Context, writes []Write) ([]Item, uint64, error)
	// Watch delivers every event with a revision greater than from until ctx ends; then the channel is closed. It is closed earlier
	// when the store is closed and when events were lost (the receiver fell too far behind, the history is gone): list again then, as
	// after ErrCompacted. A medium that is away for a while does not close it.
	Watch(ctx context.Context, from uint64) (<-chan Event, error)
	// Close releases the medium. No method may be called afterwards.
	Close() error
}

// Reporter is implemented by providers whose medium can be away while they are open.
type Reporter interface {
	// Status does not block.
	Status() Status
}

// Status is the health of a provider.
type Status struct {
	// Reachable says whether the last exchange with the medium succeeded.
	Reachable bool
	// Lag is the time since the last proof that a watch had delivered all there was; since Open while there is no watch.
	Lag time.Duration
	// Revision is the latest that the provider has seen.
	Revision uint64
	// LastError is the latest failure; it stays after recovery.
	LastError string
}
