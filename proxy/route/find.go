package route

import (
	"bytes"
	"hash/maphash"
)

// Find returns the target of the rule that serves q and describes the hit in m, which it resets first. f may be nil.
func (t *Table[T]) Find(q *Query, f Filter[T], m *Match) (T, bool) {
	m.reset()
	var c *candidate[T]
	if t.mode == HostURI {
		c = t.findByHost(q, f, m)
	} else {
		c = t.findByPath(q, f, m)
	}
	if c != nil {
		return c.target, true
	}
	var none T
	return none, false
}

// hostKey is a host, or nothing, with its hash: where texts are looked for.
type hostKey struct {
	host []byte
	hash uint64
}

// findByHost looks under the host itself, under the patterns that it fits, the most specific first, and under no host.
func (t *Table[T]) findByHost(q *Query, f Filter[T], m *Match) *candidate[T] {
	path := maphash.Bytes(t.buckets.seed, q.Path)
	if len(q.Host) > 0 && t.named > 0 {
		if c := t.findUnder(hostKey{q.Host, maphash.Bytes(t.buckets.seed, q.Host)}, path, q, f, m); c != nil {
			return c
		}
	}
	if !t.sites.vacant() {
		if c := t.findSite(&t.sites, q.Host, path, q, f, m); c != nil {
			return c
		}
	}
	if t.free == 0 {
		return nil
	}
	return t.findUnder(t.noHost, path, q, f, m)
}

// findUnder tries what is stored under one host for q.Path, whose hash is path, then for its prefixes from the longest to the shortest.
func (t *Table[T]) findUnder(h hostKey, path uint64, q *Query, f Filter[T], m *Match) *candidate[T] {
	if b := t.buckets.find(newKey(exactSlot, h, q.Path, path)); b != nil {
		if c := b.find(q, f, m); c != nil {
			return c
		}
	}
	for size := t.sizes.longest(q.Path); size >= 0; size = t.sizes.upTo(q.Path, size-1) {
		text := q.Path[:size]
		b := t.buckets.find(newKey(prefixSlot, h, text, maphash.Bytes(t.buckets.seed, text)))
		if b == nil {
			continue
		}
		if c := b.find(q, f, m); c != nil {
			return c
		}
	}
	return nil
}

// depth is how many host patterns are remembered before the search goes one call deeper. It bounds nothing.
const depth = 16

// findSite tries the sites whose host pattern fits host, the most specific first. path is the hash of q.Path.
func (t *Table[T]) findSite(n *node[site], host []byte, path uint64, q *Query, f Filter[T], m *Match) *candidate[T] {
	var stack [depth]*site
	top := 0
	for n != nil && n.startsReversed(host) {
		if n.prefix != nil && top == depth {
			if c := t.findSite(n, host, path, q, f, m); c != nil {
				return c
			}
			break
		}
		host = host[:len(host)-int(n.size)]
		if n.prefix != nil {
			stack[top] = n.prefix
			top++
		}
		if len(host) == 0 {
			break
		}
		n = n.kid(host[len(host)-1])
	}
	for top > 0 {
		top--
		if c := t.findUnder(stack[top].hostKey, path, q, f, m); c != nil {
			return c
		}
	}
	return nil
}

// findByPath looks for the path, then for its prefixes; the host is one more condition.
func (t *Table[T]) findByPath(q *Query, f Filter[T], m *Match) *candidate[T] {
	// A host pattern with a ':' is compared with the port, any other without, so that at most one of the two finds a name.
	var host, port hostKey
	if t.named > 0 && bytes.IndexByte(q.Host, ':') < 0 {
		host = hostKey{q.Host, maphash.Bytes(t.buckets.seed, q.Host)}
	}
	if t.ported > 0 && bytes.IndexByte(q.HostPort, ':') >= 0 {
		port = hostKey{q.HostPort, maphash.Bytes(t.buckets.seed, q.HostPort)}
	}
	if c := t.findText(exactSlot, q.Path, host, port, q, f, m); c != nil {
		return c
	}
	for size := t.sizes.longest(q.Path); size >= 0; size = t.sizes.upTo(q.Path, size-1) {
		if c := t.findText(prefixSlot, q.Path[:size], host, port, q, f, m); c != nil {
			return c
		}
	}
	return nil
}

// findText tries the candidates of one text, under no host and under those given.
func (t *Table[T]) findText(s slot, text []byte, host, port hostKey, q *Query, f Filter[T], m *Match) *candidate[T] {
	hash := maphash.Bytes(t.buckets.seed, text)
	var anyHost, named, ported *bucket[T]
	if t.free > 0 {
		anyHost = t.buckets.find(newKey(s, t.noHost, text, hash))
	}
	if len(host.host) > 0 {
		named = t.buckets.find(newKey(s, host, text, hash))
	}
	if len(port.host) > 0 {
		ported = t.buckets.find(newKey(s, port, text, hash))
	}
	switch {
	case anyHost == nil && named == nil && ported == nil:
		return nil
	case named == nil && ported == nil:
		return anyHost.find(q, f, m)
	case anyHost == nil && ported == nil:
		return named.find(q, f, m)
	default:
		return findAmong(anyHost, named, ported, q, f, m)
	}
}
