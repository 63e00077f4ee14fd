package balancer

import (
	"slices"
	"sync/atomic"
)

// cacheLine is two lines of 64 bytes: adjacent lines are fetched in pairs.
const cacheLine = 128

// Sequence walks a Table: one counter, shared by all goroutines.
//
// When weights change, a new Sequence takes over from the old one. What the
// old one owed its branches (expected picks minus picks) is settled by the
// place in the new table where the new one starts, so that frequent changes
// neither starve a branch nor favour one. With the same two branches the total served
// stays within 3/4 of the sum of the expected shares, however often and
// whenever weights change: the leads of a two-branch table are evenly spaced by
// at most 1/2 over a width below 1, so settling leaves at most 1/4 beside the
// table's own 1/2. With more branches one start offset can't settle every
// account at once; the remainder is carried on to the next change (the tests
// hold it below 6 picks, and below 3/4 on average).
type Sequence struct {
	table *Table
	ids   []string
	// surplus is, per branch, how many picks more than its share it had before
	// this sequence started, less what the start offset makes up for.
	surplus  []float64
	departed []account // branches that are not in the table, the latest last

	_ [cacheLine]byte
	n atomic.Uint64
	_ [cacheLine]byte
}

// account is the surplus of a branch by its id.
type account struct {
	id      string
	surplus float64
}

// maxDeparted bounds the accounts kept for branches that have left. The account
// of an older one is shared out among the present branches by weight.
const maxDeparted = 64

// NewSequence returns a sequence over t. ids[i] names branch i, so that a
// branch keeps its account when branches come, go or move; nil ids means that
// branches are the same when their index is.
//
// from is the sequence that the new one replaces, or nil to start at pick 0.
// With the same weights and ids the result is from itself, which goes on. Picks
// that from serves after this call are not accounted for; they stay within the
// bounds of from's own table. NewSequence keeps ids and does not modify it.
func NewSequence(t *Table, ids []string, from *Sequence) *Sequence {
	if from != nil && slices.Equal(t.weights, from.table.weights) && slices.Equal(ids, from.ids) {
		return from
	}
	s := &Sequence{table: t, ids: ids, surplus: make([]float64, len(t.weights))}
	if from == nil {
		return s
	}
	s.inherit(from)
	s.settle()
	return s
}

// Next returns the branch of the next pick, or -1 when every weight is 0.
func (s *Sequence) Next() int { return s.table.At(s.n.Add(1) - 1) }

// NextN is Next that also tells which pick of the table it was: branch is
// Table().At(n).
func (s *Sequence) NextN() (n uint64, branch int) {
	n = s.n.Add(1) - 1
	return n, s.table.At(n)
}

// Table returns the table that the sequence walks.
func (s *Sequence) Table() *Table { return s.table }

// inherit takes over the accounts of from. A departed branch keeps its account
// for a while: without it, branches that come and go in turn (a flapping node)
// could starve others that lose their claim each time.
func (s *Sequence) inherit(from *Sequence) {
	old := from.table.lead(from.n.Load())
	for i := range old {
		old[i] += from.surplus[i]
	}
	var lost float64 // accounts that are closed
	if s.ids == nil || from.ids == nil {
		for _, x := range old[copy(s.surplus, old):] {
			lost += x
		}
	} else {
		s.departed = slices.Clone(from.departed)
		for i, id := range from.ids[:min(len(from.ids), len(old))] {
			s.departed = append(s.departed, account{id, old[i]})
		}
		at := make(map[string]int, len(s.ids))
		for i, id := range s.ids[:min(len(s.ids), len(s.surplus))] {
			at[id] = i
		}
		s.departed = slices.DeleteFunc(s.departed, func(a account) bool {
			i, here := at[a.id]
			if here {
				s.surplus[i] += a.surplus
			}
			return here
		})
		if excess := len(s.departed) - maxDeparted; excess > 0 {
			for _, a := range s.departed[:excess] {
				lost += a.surplus
			}
			s.departed = slices.Delete(s.departed, 0, excess)
		}
	}
	for i := range s.surplus {
		s.surplus[i] += lost * s.table.Share(i)
	}
}

// settle starts the sequence where the table makes up for the surplus best.
// Branches that are not served now can't settle: what they have too much or too
// little is, for the choice, shared out among the others by weight.
func (s *Sequence) settle() {
	var sum float64
	for i, x := range s.surplus {
		if s.table.reduced[i] > 0 {
			sum += x
		}
	}
	target := make([]float64, len(s.surplus))
	for i, x := range s.surplus {
		if share := s.table.Share(i); share > 0 {
			target[i] = x - sum*share
		}
	}
	start := s.table.align(target)
	for i, lead := range s.table.lead(start) {
		s.surplus[i] -= lead
	}
	s.n.Store(start)
}
