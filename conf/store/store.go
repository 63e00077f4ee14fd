// Package store keeps the documents that operators send, byte for byte, behind one interface. The data plane never knows which
// provider is underneath: sub-packages implement it (embedded: bbolt, mem: tests).
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

// Event is one change of the store, in revision order.
type Event struct {
	Item    Item // for a deletion only Key and ModRevision are set
	Deleted bool
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
	// ErrUnavailable wraps every failure of the medium itself (disk, network); nothing was acknowledged.
	ErrUnavailable = errors.New("store unavailable")
	// ErrCompacted says that the events after a revision cannot be replayed, because they are too long ago or because the store has
	// never been at that revision. List again and watch from the revision of the list.
	ErrCompacted = errors.New("revision compacted")
)

// Store is implemented by every provider. A nil error from Put or Delete means that the write is durable.
// All methods are safe for concurrent use.
type Store interface {
	// List returns every live item, sorted by key, and the revision that the list shows.
	List(ctx context.Context) ([]Item, uint64, error)
	// Put writes value under key if the condition holds and returns the item as stored.
	Put(ctx context.Context, key string, value []byte, ifRevision uint64, expires time.Time) (Item, error)
	// Delete removes key if the condition holds and returns the revision of the deletion.
	Delete(ctx context.Context, key string, ifRevision uint64) (uint64, error)
	// Watch delivers every event with a revision greater than from until ctx ends; then the channel is closed. It is closed earlier
	// when the store is closed and when the receiver fell so far behind that events were lost: list again then, as after ErrCompacted.
	Watch(ctx context.Context, from uint64) (<-chan Event, error)
	// Close releases the medium. No method may be called afterwards.
	Close() error
}
