package route

import "slices"

// owner marks the values that one edit created. They may be changed in place until the edit is published, everything else is copied
// first.
type owner struct {
	share int // how many buckets a shelf may come to hold, as far as is known; it also keeps the addresses of two owners distinct
}

// listed is a candidate with what its path has to fit beyond the stored text.
type listed[T any] struct {
	candidate[T]
	pattern *pattern // nil: nothing
}

// list holds candidates in the order in which they are tried. An edit may leave a list that it owns unsorted until it is finished.
type list[T any] struct {
	candidates []listed[T]
	owner      *owner
	unsorted   bool
}

func (l *list[T]) writable(own *owner) *list[T] {
	if l == nil {
		return &list[T]{owner: own}
	}
	if l.owner == own {
		return l
	}
	return &list[T]{candidates: slices.Clone(l.candidates), owner: own}
}

// add appends c and reports whether that left l unsorted for the first time.
func (l *list[T]) add(c *listed[T]) bool {
	n := len(l.candidates)
	first := n > 0 && !l.unsorted && l.candidates[n-1].compare(&c.candidate) > 0
	l.unsorted = l.unsorted || first
	l.candidates = append(l.candidates, *c)
	return first
}

// drop removes the candidates of e.
func (l *list[T]) drop(e *entry[T]) {
	l.candidates = slices.DeleteFunc(l.candidates, func(c listed[T]) bool { return c.entry == e })
}

func (l *list[T]) sort() {
	slices.SortFunc(l.candidates, func(a, b listed[T]) int { return a.compare(&b.candidate) })
	l.unsorted = false
}

// next returns the first candidate of l behind after (nil: the very first) if it comes before best, else best.
func (l *list[T]) next(after *candidate[T], best pick[T]) pick[T] {
	i := 0
	if after != nil {
		// Not slices.BinarySearchFunc, which hands candidates over by value.
		for end := len(l.candidates); i < end; {
			if middle := int(uint(i+end) / 2); l.candidates[middle].compare(after) <= 0 {
				i = middle + 1
			} else {
				end = middle
			}
		}
	}
	if i < len(l.candidates) {
		return best.or(&l.candidates[i].candidate, l.candidates[i].pattern)
	}
	return best
}

// pick is a candidate that may be the next to be tried, or none.
type pick[T any] struct {
	*candidate[T]
	pattern *pattern
}

// or returns the one of two candidates that comes first.
func (p pick[T]) or(c *candidate[T], pattern *pattern) pick[T] {
	if p.candidate == nil || c.compare(p.candidate) < 0 {
		return pick[T]{c, pattern}
	}
	return p
}
