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
