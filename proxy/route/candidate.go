package route

import (
	"cmp"
	"net/netip"
)

// entry is a Rule as the table keeps it.
type entry[T any] struct {
	Rule[T]
	remotes []netip.Prefix // masked
}

// candidate is one way to reach an entry: one of its URIs under one of its hosts.
type candidate[T any] struct {
	target  T
	entry   *entry[T]
	uri     string
	host    string // host pattern, "" for any
	methods Methods
	uriN    uint16 // positions in the rule: the last tie-break
	hostN   uint16
	traits  traits
}

// traits are what a candidate needs no pointer for.
type traits uint8

const (
	hasExt     traits = 1 << iota // the URI ends in an unnamed star segment
	hasRemotes                    // the entry has remote addresses
)

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
// describes the hit in m. p is what is left to compare of the path, nil for nothing.
func (c *candidate[T]) accepts(p *pattern, q *Query, f Filter[T], m *Match) bool {
	if c.methods != 0 && c.methods&q.Method == 0 {
		return false
	}
	if c.traits&hasRemotes != 0 && !contains(c.entry.remotes, q.Remote) {
		return false
	}
	if f != nil && !f.Accept(c.target) {
		return false
	}
	if p != nil {
		if !p.match(q.Path, m) {
			return false
		}
	} else if c.traits&hasExt != 0 {
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
