package route

import "slices"

// bucket holds the candidates of one text under one host. The usual bucket has one candidate whose path needs no further comparison; it
// takes two cache lines when T is a pointer.
type bucket[T any] struct {
	one      candidate[T] // the only candidate when more is nil
	more     *more[T]
	hostSize uint16
	textSize uint16
	slot     slot
	short    [shortKey]byte // host and text, if they fit; else more has them
}

// shortKey makes a bucket 128 bytes.
const shortKey = 59

// more is what does not fit into a bucket. It never holds just what would.
type more[T any] struct {
	owner *owner
	host  string
	text  string
	list  list[T]
	// In the URI modes, under "no host": the lists of host patterns that start with a star, by reversed suffix; ports has those with a ':'.
	hosts, ports *node[list[T]]
}

func emptyBucket[T any](k *dictKey) bucket[T] {
	b := bucket[T]{hostSize: uint16(len(k.host)), textSize: uint16(len(k.text)), slot: k.slot}
	if len(k.host)+len(k.text) <= shortKey {
		copy(b.short[copy(b.short[:], k.host):], k.text)
	} else {
		b.more = &more[T]{host: string(k.host), text: string(k.text)}
	}
	return b
}

func (b *bucket[T]) isShort() bool { return int(b.hostSize)+int(b.textSize) <= shortKey }

// key returns host and text.
func (b *bucket[T]) key() (host, text []byte) {
	if b.isShort() {
		return b.short[:b.hostSize], b.short[b.hostSize:][:b.textSize]
	}
	return bytesOf(b.more.host), bytesOf(b.more.text)
}

func (b *bucket[T]) is(k *dictKey) bool {
	if len(k.host) != int(b.hostSize) || len(k.text) != int(b.textSize) || k.slot != b.slot {
		return false
	}
	host, text := b.key()
	return string(text) == string(k.text) && string(host) == string(k.host)
}

// add takes up c. unsorted gets lists that have to be sorted before the table is used.
func (b *bucket[T]) add(own *owner, c *listed[T], unsorted *[]*list[T]) {
	if b.more == nil && b.one.entry == nil && c.pattern == nil {
		b.one = c.candidate
		return
	}
	m := b.writable(own)
	if m.list.add(c) {
		*unsorted = append(*unsorted, &m.list)
	}
}

// drop removes the candidates of e and reports whether any is left.
func (b *bucket[T]) drop(own *owner, e *entry[T]) bool {
	if b.more == nil {
		return b.one.entry != nil && b.one.entry != e
	}
	b.writable(own).list.drop(e)
	return b.settle()
}

// writable makes more one that the edit may change and moves the only candidate there.
func (b *bucket[T]) writable(own *owner) *more[T] {
	switch {
	case b.more == nil:
		b.more = &more[T]{owner: own}
	case b.more.owner != own:
		m := *b.more
		m.owner = own
		m.list.candidates, m.list.unsorted = slices.Clone(m.list.candidates), false
		m.hosts, m.ports = cloneRoot(m.hosts), cloneRoot(m.ports)
		b.more = &m
	}
	if b.one.entry != nil {
		b.more.list.candidates = append(b.more.list.candidates, listed[T]{candidate: b.one})
		b.one = candidate[T]{}
	}
	return b.more
}

// settle moves a candidate back that has become the only one, and reports whether there is any.
func (b *bucket[T]) settle() bool {
	m := b.more
	if m.hosts != nil || m.ports != nil {
		return true
	}
	if len(m.list.candidates) == 1 && m.list.candidates[0].pattern == nil && b.isShort() {
		b.one, b.more = m.list.candidates[0].candidate, nil
		return true
	}
	return len(m.list.candidates) > 0
}

func cloneRoot[V any](n *node[V]) *node[V] {
	if n == nil {
		return nil
	}
	c := *n
	return &c
}

// find returns the first candidate that fits q.
func (b *bucket[T]) find(q *Query, f Filter[T], m *Match) *candidate[T] {
	if b.more == nil {
		if b.one.accepts(nil, q, f, m) {
			return &b.one
		}
		return nil
	}
	if b.more.hosts != nil || b.more.ports != nil {
		return findAmong(b, nil, nil, q, f, m)
	}
	for i := range b.more.list.candidates {
		if c := &b.more.list.candidates[i]; c.accepts(c.pattern, q, f, m) {
			return &c.candidate
		}
	}
	return nil
}

// findAmong returns the first candidate that fits q of up to three buckets of one text: for any host, for q.Host and for q.HostPort.
func findAmong[T any](anyHost, host, port *bucket[T], q *Query, f Filter[T], m *Match) *candidate[T] {
	var after *candidate[T]
	for {
		var best pick[T]
		if anyHost != nil {
			best = anyHost.next(q, after, best)
		}
		if host != nil {
			best = host.next(q, after, best)
		}
		if port != nil {
			best = port.next(q, after, best)
		}
		if best.candidate == nil || best.accepts(best.pattern, q, f, m) {
			return best.candidate
		}
		after = best.candidate
	}
}

// next returns the first candidate behind after (nil: the very first) whose host fits q if it comes before best, else best.
func (b *bucket[T]) next(q *Query, after *candidate[T], best pick[T]) pick[T] {
	if b.more == nil {
		if after == nil || b.one.compare(after) > 0 {
			return best.or(&b.one, nil)
		}
		return best
	}
	best = b.more.list.next(after, best)
	best = nextOfHosts(b.more.hosts, q.Host, after, best)
	return nextOfHosts(b.more.ports, q.HostPort, after, best)
}

func nextOfHosts[T any](n *node[list[T]], host []byte, after *candidate[T], best pick[T]) pick[T] {
	for n != nil && n.startsReversed(host) {
		host = host[:len(host)-int(n.size)]
		if n.prefix != nil {
			best = n.prefix.next(after, best)
		}
		if len(host) == 0 {
			break
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
