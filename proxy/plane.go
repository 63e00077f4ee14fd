package proxy

import (
	"context"
	"time"

	"headgate/conf/store"
)

// Change is one edit of one document, carried through the config path as a whole: edit, validate, compile, save, publish.
// Either all of it happens or nothing.
type Change struct {
	// Key is the store key, e.g. "routes/1".
	Key string
	// Edit returns the next document given the stored one (nil when there is none); a nil document with a nil error deletes. It runs
	// on the config goroutine with no other edit in between, must be pure and must not keep old. Its error is returned as it is.
	Edit func(old *store.Item) ([]byte, error)
	// TTL deletes the document after that time; 0 keeps it (contract section 1.1, query ttl).
	TTL time.Duration
	// Force skips the check that nothing refers to a document that is deleted (contract section 1.6).
	Force bool
}

// Result is an accepted Change. It is in force for every request that arrives after it was returned.
type Result struct {
	Item     store.Item  // as stored; Key and ModRevision alone for a deletion
	Old      *store.Item // what was there before, nil for a creation
	Revision uint64      // of the store after the change
}

// Internal is the prefix of keys under which the gateway keeps notes of its own in the store. They are JSON objects that are neither
// validated nor compiled.
const Internal = "headgate/"

// Plane is the config path as its clients (Admin API, control API) see it.
type Plane interface {
	// Apply carries out c. A *resource.Error is a refusal with its own status; store.ErrConflict, store.ErrUnavailable and the
	// like come through wrapped.
	Apply(ctx context.Context, c Change) (Result, error)
	// ApplyAll carries out several changes of different keys as one, or none of them: they may refer to each other, and no request sees
	// some of them without the others. A refusal is a *ChangeError, which says of which change.
	ApplyAll(ctx context.Context, list []Change) ([]Result, error)
	// Reader shows what is stored, whether or not it is in force here: a document that came from the store and cannot be used is shown
	// as it is there, with its revisions, so that it can be compared and repaired (contract section 1.3).
	Reader
	// ReadOnly says why documents under key cannot be edited through the API (they come from the TOML file), or "".
	ReadOnly(key string) string
}

// Reader shows documents.
type Reader interface {
	// Get returns the document under key.
	Get(key string) (store.Item, bool)
	// List returns the documents whose keys begin with path and a slash ("routes", "consumers/jack/credentials"), sorted by key, as they
	// are at one moment. The slice is the caller's.
	List(path string) []store.Item
}

// ChangeError is why ApplyAll refused a list: the change of Key.
type ChangeError struct {
	Key string
	Err error
}

func (e *ChangeError) Error() string { return e.Key + ": " + e.Err.Error() }

// Unwrap returns the refusal itself.
func (e *ChangeError) Unwrap() error { return e.Err }
