package route

import "bytes"

// Find returns the target of the rule that serves q and describes the hit in m, which it resets first. f may be nil.
func (t *Table[T]) Find(q *Query, f Filter[T], m *Match) (T, bool) {
	m.reset()
	if t.mode == HostURI {
		if c := findSite(&t.sites, q.Host, q, f, m); c != nil {
			return c.target, true
		}
	}
	if c := findPath(&t.paths, q.Path, q, f, m); c != nil {
		return c.target, true
	}
	var none T
	return none, false
}

// depth is how many prefixes of one key are remembered before the search goes one call deeper. It bounds nothing.
const depth = 16

// findSite tries the sites whose host pattern fits host, the most specific first.
func findSite[T any](n *node[site[T]], host []byte, q *Query, f Filter[T], m *Match) *candidate[T] {
	var stack [depth]*site[T]
	top := 0
	for n != nil && n.startsReversed(host) {
		if n.prefix != nil && top == depth {
			if c := findSite(n, host, q, f, m); c != nil {
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
			if n.exact != nil {
				if c := findPath(&n.exact.paths, q.Path, q, f, m); c != nil {
					return c
				}
			}
			break
		}
		n = n.kid(host[len(host)-1])
	}
	for top > 0 {
		top--
		if c := findPath(&stack[top].paths, q.Path, q, f, m); c != nil {
			return c
		}
	}
	return nil
}

// findPath tries the exact path, then its prefixes from the longest to the shortest. rest is the part of q.Path below n.
func findPath[T any](n *node[bucket[T]], rest []byte, q *Query, f Filter[T], m *Match) *candidate[T] {
	var stack [depth]*bucket[T]
	top := 0
	for n != nil && bytes.HasPrefix(rest, n.text()) {
		if n.prefix != nil && top == depth {
			if c := findPath(n, rest, q, f, m); c != nil {
				return c
			}
			break
		}
		rest = rest[n.size:]
		if n.prefix != nil {
			stack[top] = n.prefix
			top++
		}
		if len(rest) == 0 {
			if n.exact != nil {
				if c := n.exact.find(q, f, m); c != nil {
					return c
				}
			}
			break
		}
		n = n.kid(rest[0])
	}
	for top > 0 {
		top--
		if c := stack[top].find(q, f, m); c != nil {
			return c
		}
	}
	return nil
}
