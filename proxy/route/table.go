package route

import (
	"hash/maphash"
	"math"
	"slices"
	"strings"
)

// Table is an immutable set of rules. Its methods may be called by any number of goroutines.
type Table[T any] struct {
	mode    Mode
	n       int
	ids     node[entry[T]]
	buckets dict[T]    // by host pattern and stored text; in the URI modes patterns with a star are in the buckets of no host
	noHost  hostKey    // the key of those
	sizes   sizes      // of the stored prefixes
	sites   node[site] // HostURI: by reversed suffix
	// How many places (one URI under one host) are in buckets of no host, under a host name, and under one with a ':'.
	free, named, ported int
}

// site is a host pattern that starts with a star, in HostURI mode. Its buckets are found by the pattern as it is written.
type site struct {
	hostKey
	places int
}

// New returns an empty table.
func New[T any](mode Mode) *Table[T] {
	t := &Table[T]{mode: mode}
	t.buckets.seed = maphash.MakeSeed()
	t.noHost.hash = maphash.String(t.buckets.seed, "")
	return t
}

// Len returns the number of rules.
func (t *Table[T]) Len() int { return t.n }

// Mode returns the mode that t was made with.
func (t *Table[T]) Mode() Mode { return t.mode }

// Get returns the rule with that ID. Its slices must not be changed.
func (t *Table[T]) Get(id string) (Rule[T], bool) {
	if e := t.ids.lookup(id); e != nil {
		return e.Rule, true
	}
	return Rule[T]{}, false
}

// All calls yield for every rule, in no particular order, until it returns false. The slices of the rules must not be changed.
func (t *Table[T]) All(yield func(Rule[T]) bool) {
	t.ids.walk(func(e *entry[T]) bool { return yield(e.Rule) })
}

// With returns the table without the rules of the IDs in remove and with those in put added. Unknown IDs in remove are ignored; a
// put replaces the rule of the same ID, also one of the same call. t is not changed. The cost is that of the edited rules, whatever
// the size of t. An error wraps ErrBadRule, names the rule and leaves no table.
func (t *Table[T]) With(remove []string, put []Rule[T]) (*Table[T], error) {
	next := *t
	x := edit[T]{t: &next, own: new(owner)}
	if len(put) > t.n { // each shelf grows once instead of step by step
		x.own.share = len(put) / fan
	}
	for _, id := range remove {
		x.remove(id)
	}
	for i := range put {
		e, places, err := compile(t.mode, &put[i])
		if err != nil {
			return nil, err
		}
		x.remove(e.ID)
		x.put(e, places)
	}
	x.finish()
	return x.t, nil
}

// SetOrder gives the rule id another Order. It must not change how the rules of t are ordered, the rule must have been put by the edit that
// made t, and nobody else may have t yet.
func (t *Table[T]) SetOrder(id string, order uint64) {
	if e := t.ids.lookup(id); e != nil {
		e.Order = order
	}
}

// Check returns the error with which With would refuse the rule in a table of that mode.
func (r *Rule[T]) Check(mode Mode) error {
	_, _, err := compile(mode, r)
	return err
}

// place is one URI of a rule, compiled.
type place struct {
	uri     string
	stored  string
	slot    slot
	pattern *pattern
	traits  traits
}

// compile checks r and makes the table's own copy of it.
func compile[T any](mode Mode, r *Rule[T]) (*entry[T], []place, error) {
	if r.ID == "" {
		return nil, nil, badRule(r.ID, "the ID is empty")
	}
	if len(r.URIs) == 0 || len(r.URIs) > math.MaxUint16 || len(r.Hosts) > math.MaxUint16 {
		return nil, nil, badRule(r.ID, "%d URIs and %d hosts, want 1 to 65535 and 0 to 65535", len(r.URIs), len(r.Hosts))
	}
	e := &entry[T]{Rule: *r}
	e.URIs = slices.Clone(r.URIs)
	e.Hosts = make([]string, 0, len(r.Hosts))
	e.RemoteAddrs = slices.Clone(r.RemoteAddrs)
	for _, h := range r.Hosts {
		if h == "" || len(h) > math.MaxUint16 || strings.LastIndexByte(h, '*') > 0 {
			return nil, nil, badRule(r.ID, "host %q, want a name, *suffix or *", h)
		}
		e.Hosts = append(e.Hosts, strings.ToLower(h))
	}
	for _, p := range r.RemoteAddrs {
		if !p.IsValid() {
			return nil, nil, badRule(r.ID, "invalid address prefix")
		}
		e.remotes = append(e.remotes, p.Masked())
	}
	places, err := compilePlaces(mode, e.ID, e.URIs)
	return e, places, err
}

func compilePlaces(mode Mode, id string, uris []string) ([]place, error) {
	places := make([]place, len(uris))
	for i, uri := range uris {
		if uri == "" || len(uri) > math.MaxUint16 {
			return nil, badRule(id, "an URI of %d bytes, want 1 to 65535", len(uri))
		}
		stored, prefix, p, ext, err := compilePattern(mode, uri)
		if err != nil {
			return nil, badRule(id, "URI %q: %v", uri, err)
		}
		places[i] = place{uri: uri, stored: stored, pattern: p}
		if ext {
			places[i].traits = hasExt
		}
		if prefix {
			places[i].slot = prefixSlot
		}
	}
	return places, nil
}

// edit is a table under construction. What it made itself it changes in place, everything else is copied on its first change.
type edit[T any] struct {
	t        *Table[T]
	own      *owner
	entries  arena[entry[T]]
	sites    arena[site]
	lists    arena[list[T]]
	unsorted []*list[T] // may hold lists that a later change of the same edit dropped
}

func (x *edit[T]) put(e *entry[T], places []place) {
	x.entries.edit(&x.t.ids, e.ID, exactSlot, func(*entry[T]) *entry[T] { return e })
	x.t.n++
	x.each(e, places, 1)
}

func (x *edit[T]) remove(id string) {
	e := x.t.ids.lookup(id)
	if e == nil {
		return
	}
	places, err := compilePlaces(x.t.mode, e.ID, e.URIs)
	if err != nil {
		return // cannot be: the same URIs compiled when e was put
	}
	x.entries.edit(&x.t.ids, id, exactSlot, func(*entry[T]) *entry[T] { return nil })
	x.t.n--
	x.each(e, places, -1)
}

// each adds the candidates of e (by is 1) or takes them out (-1).
func (x *edit[T]) each(e *entry[T], places []place, by int) {
	for i := range places {
		p := &places[i]
		c := listed[T]{candidate: candidate[T]{target: e.Target, entry: e, uri: p.uri, methods: e.Methods, uriN: uint16(i), traits: p.traits}, pattern: p.pattern}
		if len(e.remotes) > 0 {
			c.traits |= hasRemotes
		}
		if len(e.Hosts) == 0 {
			x.inBucket("", p, &c, by)
		}
		for j, host := range e.Hosts {
			c.host, c.hostN = host, uint16(j)
			x.inBucket(host, p, &c, by)
		}
	}
}

// inBucket adds or takes out one candidate.
func (x *edit[T]) inBucket(host string, p *place, c *listed[T], by int) {
	star := strings.HasPrefix(host, "*")
	switch {
	case star && x.t.mode == HostURI:
		x.inSite(host, by)
	case star || host == "":
		x.t.free += by
		host = ""
	default:
		x.t.named += by
		if strings.IndexByte(host, ':') >= 0 {
			x.t.ported += by
		}
	}
	if p.slot == prefixSlot {
		x.t.sizes.change(p.stored, by)
	}
	x.t.buckets.edit(x.own, x.t.buckets.keyOf(p.slot, bytesOf(host), bytesOf(p.stored)), func(b *bucket[T]) bool {
		switch {
		case host != c.host:
			x.inSuffix(b.writable(x.own), c, by)
			return b.settle()
		case by < 0:
			return b.drop(x.own, c.entry)
		default:
			b.add(x.own, c, &x.unsorted)
			return true
		}
	})
}

// inSite counts a place of a pattern with a star in HostURI mode.
func (x *edit[T]) inSite(host string, by int) {
	x.sites.edit(&x.t.sites, reverse(host[1:]), prefixSlot, func(s *site) *site {
		next := &site{hostKey: hostKey{bytesOf(host), maphash.String(x.t.buckets.seed, host)}}
		if s != nil {
			*next = *s
		}
		if next.places += by; next.places == 0 {
			return nil
		}
		return next
	})
}

// inSuffix adds or takes out a candidate of a pattern with a star in the URI modes.
func (x *edit[T]) inSuffix(m *more[T], c *listed[T], by int) {
	root := &m.hosts
	if strings.IndexByte(c.host, ':') >= 0 {
		root = &m.ports
	}
	if *root == nil {
		*root = new(node[list[T]])
	}
	x.lists.edit(*root, reverse(c.host[1:]), prefixSlot, func(l *list[T]) *list[T] {
		l = l.writable(x.own)
		if by < 0 {
			l.drop(c.entry)
		} else if l.add(c) {
			x.unsorted = append(x.unsorted, l)
		}
		if len(l.candidates) == 0 {
			return nil
		}
		return l
	})
	if (*root).vacant() {
		*root = nil
	}
}

// finish sorts what was left unsorted. From here on nothing is changed any more.
func (x *edit[T]) finish() {
	for _, l := range x.unsorted {
		l.sort()
	}
}
