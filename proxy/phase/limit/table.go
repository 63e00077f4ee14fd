// Package limit is what the limits have in common: the keys that requests are counted by, the counters, and the table that finds a
// key's counter without locks and in bounded memory (contract sections 4.2 limit-count and 4.4 limit-req, limit-conn).
package limit

import (
	"hash/maphash"
	"math"
	"sync/atomic"
	"time"
)

// Cell is the counter of one key, as a Table keeps it.
type Cell[C any] interface {
	*C
	// Ends is the time from which the cell says nothing more than a new one would; math.MaxInt64 when that cannot be told.
	Ends() int64
	// Retire makes the cell dead if it Ends at or before by, and says whether it is dead now. A dead cell counts nothing any more:
	// whoever comes upon it has to look the key up again. That is what makes dropping a cell safe while others still hold it.
	Retire(by int64) bool
}

const (
	// Capacity is the number of keys that a table counts exactly at the same time.
	Capacity = 1 << 20
	// groups is the number of lists that the keys are spread over. A table may hold up to that many keys above its capacity.
	groups = 1 << 16
	// maxGroup bounds one list. Keys are spread by a secret seed, so that nobody can fill a list on purpose.
	maxGroup = 64
)

// Table finds the cells of up to Capacity keys. A key is known by a 64-bit hash under a secret seed of the table.
//
// Finding is one load and a scan of a short array. Adding a key replaces the array, with a compare-and-swap, by one that has the key and
// lacks what has ended; each addition also clears one other array, so that memory follows the keys that are in use. When the table is
// full the key in the same array whose cell ends first is forgotten: it begins anew, which errs on the side of passing. Where no cell can
// be forgotten (requests in flight) the new key is refused.
type Table[C any, P Cell[C]] struct {
	seed     maphash.Seed
	capacity int64
	count    atomic.Int64
	cursor   atomic.Uint64
	lists    []atomic.Pointer[[]entry[C]]
}

// entry is immutable, its cell is not.
type entry[C any] struct {
	key  uint64
	cell *C
}

// NewTable returns an empty table.
func NewTable[C any, P Cell[C]]() *Table[C, P] { return newTable[C, P](groups, Capacity) }

// newTable: lists is a power of two.
func newTable[C any, P Cell[C]](lists int, capacity int64) *Table[C, P] {
	return &Table[C, P]{seed: maphash.MakeSeed(), capacity: capacity, lists: make([]atomic.Pointer[[]entry[C]], lists)}
}

// Key returns the hash by which the table knows the key b.
func (t *Table[C, P]) Key(b []byte) uint64 { return maphash.Bytes(t.seed, b) }

// Len returns the number of keys that the table holds memory for.
func (t *Table[C, P]) Len() int { return int(t.count.Load()) }

// Find returns the cell of key, nil when there is none. It may be dead.
func (t *Table[C, P]) Find(key uint64) *C {
	list := t.list(key).Load()
	if list == nil {
		return nil
	}
	for i := range *list {
		if (*list)[i].key == key {
			return (*list)[i].cell
		}
	}
	return nil
}

// Insert gives key the cell fresh unless it has one that is alive. It returns the cell that the key has now, nil when the table has no
// room, and whether that is fresh.
func (t *Table[C, P]) Insert(key uint64, fresh *C, now int64) (cell *C, inserted bool) {
	at := t.list(key)
	for {
		old := at.Load()
		var next []entry[C]
		before := 0
		if old != nil {
			before = len(*old)
			next = make([]entry[C], 0, before+1)
			for _, e := range *old {
				if P(e.cell).Retire(now) {
					continue
				}
				if e.key == key {
					return e.cell, false
				}
				next = append(next, e)
			}
		}
		if full := len(next) >= maxGroup; full || t.count.Load() >= t.capacity && len(next) > 0 {
			if !forget[C, P](&next) && full {
				return nil, false
			}
		}
		next = append(next, entry[C]{key, fresh})
		if at.CompareAndSwap(old, &next) {
			t.count.Add(int64(len(next) - before))
			t.sweep(now)
			return fresh, true
		}
	}
}

// add is Insert for cells that can always be forgotten: false says that the key has a cell by now.
func (t *Table[C, P]) add(key uint64, fresh *C, now int64) bool {
	_, inserted := t.Insert(key, fresh, now)
	return inserted
}

// forget takes the entry that ends first out of list, if it can be retired.
func forget[C any, P Cell[C]](list *[]entry[C]) bool {
	first, ends := 0, int64(math.MaxInt64)
	for i, e := range *list {
		if at := P(e.cell).Ends(); at < ends {
			first, ends = i, at
		}
	}
	if !P((*list)[first].cell).Retire(math.MaxInt64) {
		return false
	}
	last := len(*list) - 1
	(*list)[first] = (*list)[last]
	*list = (*list)[:last]
	return true
}

// sweep drops what has ended from the list whose turn it is.
func (t *Table[C, P]) sweep(now int64) {
	at := &t.lists[t.cursor.Add(1)&uint64(len(t.lists)-1)]
	old := at.Load()
	if old == nil {
		return
	}
	kept := 0
	for _, e := range *old {
		if P(e.cell).Ends() > now {
			kept++
		}
	}
	if kept == len(*old) {
		return
	}
	next := make([]entry[C], 0, kept)
	for _, e := range *old {
		if !P(e.cell).Retire(now) {
			next = append(next, e)
		}
	}
	replacement := &next
	if len(next) == 0 {
		replacement = nil
	}
	if at.CompareAndSwap(old, replacement) { // else somebody has just done the same
		t.count.Add(int64(len(next) - len(*old)))
	}
}

func (t *Table[C, P]) list(key uint64) *atomic.Pointer[[]entry[C]] {
	return &t.lists[key&uint64(len(t.lists)-1)]
}

// Clock tells the time in nanoseconds since 1970. It never goes back and does not follow steps of the wall clock.
type Clock func() int64

// NewClock returns the process's clock.
func NewClock() Clock {
	start := time.Now()
	wall := start.UnixNano()
	return func() int64 { return wall + int64(time.Since(start)) }
}
