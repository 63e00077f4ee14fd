package store

import (
	"fmt"
	"strings"
	"time"
)

// MaxKeyLength bounds keys, in bytes.
const MaxKeyLength = 1024

// Expired reports whether the item is to be treated as deleted at now.
func (it Item) Expired(now time.Time) bool { return !it.Expires.IsZero() && !now.Before(it.Expires) }

// CheckKey refuses keys that not every provider can hold. Providers call it first in Put.
func CheckKey(key string) error {
	if key == "" || len(key) > MaxKeyLength || key[0] == '/' || strings.IndexByte(key, 0) >= 0 {
		return fmt.Errorf("invalid key %.64q", key)
	}
	return nil
}

// CheckBatch refuses batches that not every provider can take. Providers call it first in Batch.
func CheckBatch(writes []Write) error {
	seen := make(map[string]bool, len(writes))
	for _, w := range writes {
		if err := CheckKey(w.Key); err != nil {
			return err
		}
		if seen[w.Key] {
			return fmt.Errorf("key %.64q stands twice in one batch", w.Key)
		}
		seen[w.Key] = true
	}
	return nil
}

// Event returns what w makes of old, the live item under its key or nil, at revision; or the refusal, which names the key. The event's
// Value is that of w.
func (w Write) Event(old *Item, revision uint64) (Event, error) {
	check := CheckPut
	if w.Value == nil {
		check = CheckDelete
	}
	if err := check(old, w.IfRevision); err != nil {
		return Event{}, fmt.Errorf("%s: %w", w.Key, err)
	}
	if w.Value == nil {
		return Event{Item: Item{Key: w.Key, ModRevision: revision}, Deleted: true}, nil
	}
	next := Item{Key: w.Key, Value: w.Value, CreateRevision: revision, ModRevision: revision, Expires: w.Expires}
	if old != nil {
		next.CreateRevision = old.CreateRevision
	}
	return Event{Item: next}, nil
}

// NewPut returns the write that Put makes. It refers to value.
func NewPut(key string, value []byte, ifRevision uint64, expires time.Time) Write {
	if value == nil {
		value = []byte{}
	}
	return Write{Key: key, Value: value, IfRevision: ifRevision, Expires: expires}
}

// CheckPut decides about the condition of a Put; old is the live item under the key or nil.
func CheckPut(old *Item, ifRevision uint64) error {
	if ifRevision == AnyRevision || old == nil && ifRevision == Absent || old != nil && old.ModRevision == ifRevision {
		return nil
	}
	return ErrConflict
}

// CheckDelete decides about the condition of a Delete; old is the live item under the key or nil.
func CheckDelete(old *Item, ifRevision uint64) error {
	if old == nil {
		return ErrNotFound
	}
	if ifRevision != AnyRevision && old.ModRevision != ifRevision {
		return ErrConflict
	}
	return nil
}
