package route

import (
	"cmp"
	"net/netip"
	"slices"
)

// entry is a Rule as the table keeps it.
type entry[T any] struct {
	Rule[T]
	remotes []netip.Prefix // masked
}

// candidate is one way to reach an entry: one of its patterns under one of its hosts. It fills one cache line when T is a pointer.
type candidate[T any] struct {
	target  T
	entry   *entry[T]
	pattern *pattern // nil: nothing left to compare once the stored text was found
	uri     string
	host    string // host pattern, "" for any
	methods Methods
	uriN    uint16 // positions in the rule: the last tie-break
	hostN   uint16
	ext     bool // the pattern ends in an unnamed star segment
	remotes bool // the entry has remote addresses
	alone   bool // nothing else is stored under this text; kept right by bucket.note
}

// compare orders the candidates of one stored text: negative if c is tried ahead of d.
func (c *candidate[T]) compare(d *candidate[T]) int {
	if r := cmp.Compare(d.entry.Priority, c.entry.Priority); r != 0 {
		return r
	}
	if r := cmp.Compare(len(d.uri), len(c.uri)); r != 0 {
		return r
	}
	if r := cmp.Compare(c.entry.Order, d.entry.Order); r != 0 {
		return r
	}
	if r := cmp.Compare(c.entry.ID, d.entry.ID); r != 0 {
		return r
	}
	if r := cmp.Compare(c.uriN, d.uriN); r != 0 {
		return r
	}
	return cmp.Compare(c.hostN, d.hostN)
}

// accepts checks everything but the host, which the place of c in the table vouches for, in the order of contract section 2.3, and
// describes the hit in m.
func (c *candidate[T]) accepts(q *Query, f Filter[T], m *Match) bool {
	if c.methods != 0 && c.methods&q.Method == 0 {
		return false
	}
	if c.remotes && !contains(c.entry.remotes, q.Remote) {
		return false
	}
	if f != nil && !f.Accept(c.target) {
		return false
	}
	if c.pattern != nil {
		if !c.pattern.match(q.Path, m) {
			return false
		}
	} else if c.ext {
		m.Params[0] = Param{Name: extName, Value: q.Path[len(c.uri)-1:]}
		m.NParams = 1
	}
	m.URI, m.Host = c.uri, c.host
	return true
}

func contains(prefixes []netip.Prefix, a netip.Addr) bool {
	for _, p := range prefixes {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// owner marks the values that one edit created. They may be changed in place until the edit is published, everything else is copied
// first. The byte keeps the addresses of two owners distinct.
type owner struct{ _ byte }

// list holds candidates in the order in which they are tried. An edit may leave a list that it owns unsorted until it is finished.
type list[T any] struct {
	one        [1]candidate[T] // the storage of a list of one, so that it lies beside its header
	candidates []candidate[T]
	owner      *owner
	unsorted   bool
}

// assign makes l, which must be new, a copy of from that own may change. from may be nil.
func (l *list[T]) assign(own *owner, from *list[T]) {
	l.owner = own
	if from == nil {
		return
	}
	if len(from.candidates) == 1 {
		l.one[0] = from.candidates[0]
		l.candidates = l.one[:]
		return
	}
	l.candidates = slices.Clone(from.candidates)
}

func (l *list[T]) writable(own *owner) *list[T] {
	if l != nil && l.owner == own {
		return l
	}
	c := new(list[T])
	c.assign(own, l)
	return c
}

// add appends c and reports whether that left l unsorted for the first time.
func (l *list[T]) add(c candidate[T]) bool {
	n := len(l.candidates)
	if n == 0 {
		l.one[0] = c
		l.candidates = l.one[:]
		return false
	}
	first := !l.unsorted && l.candidates[n-1].compare(&c) > 0
	l.unsorted = l.unsorted || first
	l.candidates = append(l.candidates, c)
	l.one[0] = candidate[T]{}
	return first
}

// drop removes the candidates of e.
func (l *list[T]) drop(e *entry[T]) {
	l.candidates = slices.DeleteFunc(l.candidates, func(c candidate[T]) bool { return c.entry == e })
}

func (l *list[T]) sort() {
	slices.SortFunc(l.candidates, func(a, b candidate[T]) int { return a.compare(&b) })
	l.unsorted = false
}

// bucket holds the candidates of one stored text. HostURI uses only any; in the URI modes the candidates of rules with hosts are kept
// by host, so that a text shared by many tenants (`/*`) needs no scan.
type bucket[T any] struct {
	any   list[T]        // its owner owns the bucket
	hosts *node[list[T]] // by reversed host
	ports *node[list[T]] // by reversed host, for hosts with a ':'
}

func (b *bucket[T]) writable(own *owner) *bucket[T] {
	if b != nil && b.any.owner == own {
		return b
	}
	c := new(bucket[T])
	if b == nil {
		c.any.assign(own, nil)
		return c
	}
	c.any.assign(own, &b.any)
	c.hosts, c.ports = cloneRoot(b.hosts), cloneRoot(b.ports)
	return c
}

func cloneRoot[V any](n *node[V]) *node[V] {
	if n == nil {
		return nil
	}
	c := *n
	return &c
}

// note tells a single candidate that it is alone, which spares find the cache line behind it, and reports whether b is empty.
func (b *bucket[T]) note() (empty bool) {
	n := len(b.any.candidates)
	none := b.hosts == nil && b.ports == nil
	b.any.one[0].alone = n == 1 && none && &b.any.candidates[0] == &b.any.one[0]
	return n == 0 && none
}

// find returns the first candidate of b that fits q.
func (b *bucket[T]) find(q *Query, f Filter[T], m *Match) *candidate[T] {
	if c := &b.any.one[0]; c.alone {
		if c.accepts(q, f, m) {
			return c
		}
		return nil
	}
	if b.hosts == nil && b.ports == nil {
		for i := range b.any.candidates {
			if c := &b.any.candidates[i]; c.accepts(q, f, m) {
				return c
			}
		}
		return nil
	}
	for c := b.next(q, nil); c != nil; c = b.next(q, c) {
		if c.accepts(q, f, m) {
			return c
		}
	}
	return nil
}

// next returns the first candidate behind after (nil: the very first) among those whose host fits q.
func (b *bucket[T]) next(q *Query, after *candidate[T]) *candidate[T] {
	best := b.any.next(after, nil)
	best = nextOfHosts(b.hosts, q.Host, after, best)
	return nextOfHosts(b.ports, q.HostPort, after, best)
}

// next returns the first candidate of l behind after if it comes before best, else best.
func (l *list[T]) next(after, best *candidate[T]) *candidate[T] {
	if l == nil {
		return best
	}
	i := 0
	if after != nil {
		var found bool
		i, found = slices.BinarySearchFunc(l.candidates, after, func(c candidate[T], after *candidate[T]) int { return c.compare(after) })
		if found {
			i++
		}
	}
	if i < len(l.candidates) && (best == nil || l.candidates[i].compare(best) < 0) {
		return &l.candidates[i]
	}
	return best
}

func nextOfHosts[T any](n *node[list[T]], host []byte, after, best *candidate[T]) *candidate[T] {
	for n != nil && n.startsReversed(host) {
		host = host[:len(host)-int(n.size)]
		best = n.prefix.next(after, best)
		if len(host) == 0 {
			return n.exact.next(after, best)
		}
		n = n.kid(host[len(host)-1])
	}
	return best
}

// startsReversed reports whether host, read backwards, starts with the label of n.
func (n *node[V]) startsReversed(host []byte) bool {
	last := len(host) - 1
	if last+1 < int(n.size) {
		return false
	}
	for i := range int(n.size) {
		if host[last-i] != n.label[i] {
			return false
		}
	}
	return true
}

// reverse returns s backwards, the form in which hosts are stored.
func reverse(s string) string {
	b := []byte(s)
	slices.Reverse(b)
	return string(b)
}
