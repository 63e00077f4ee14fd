package store

import "errors"

// ErrReadOnly is the answer of providers whose documents come from elsewhere (a file, say) to every write. Nothing was changed.
var ErrReadOnly = errors.New("store is read-only")
