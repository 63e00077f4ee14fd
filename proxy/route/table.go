package route

import (
	"math"
	"slices"
	"strings"
)

// Table is an immutable set of rules. Its methods may be called by any number of goroutines.
type Table[T any] struct {
	mode  Mode
	n     int
	ids   node[entry[T]]
	sites node[site[T]]   // HostURI: by reversed host
	paths node[bucket[T]] // HostURI: the rules without hosts; URI modes: all
}

// site is what one host pattern leads to in HostURI mode.
type site[T any] struct {
	paths node[bucket[T]]
}

// New returns an empty table.
func New[T any](mode Mode) *Table[T] {
	return &Table[T]{mode: mode}
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
	x := edit[T]{t: &next, own: new(owner), ownSites: make(map[*site[T]]struct{})}
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

// place is one URI of a rule, compiled.
type place struct {
	uri     string
	stored  string
	slot    slot
	pattern *pattern
	ext     bool
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
		if h == "" || strings.LastIndexByte(h, '*') > 0 {
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
		if uri == "" {
			return nil, badRule(id, "an URI is empty")
		}
		stored, prefix, p, ext, err := compilePattern(mode, uri)
		if err != nil {
			return nil, badRule(id, "URI %q: %v", uri, err)
		}
		places[i] = place{uri: uri, stored: stored, pattern: p, ext: ext}
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
	ownSites map[*site[T]]struct{}
	entries  arena[entry[T]]
	sites    arena[site[T]]
	buckets  arena[bucket[T]]
	lists    arena[list[T]]
	unsorted []*list[T] // may hold lists that a later change of the same edit dropped
}

// change is what an edit does to each list that a rule has a place in.
type change[T any] func(*list[T], *candidate[T])

func (x *edit[T]) put(e *entry[T], places []place) {
	x.entries.edit(&x.t.ids, e.ID, exactSlot, func(*entry[T]) *entry[T] { return e })
	x.t.n++
	x.each(e, places, func(l *list[T], c *candidate[T]) {
		if l.add(*c) {
			x.unsorted = append(x.unsorted, l)
		}
	})
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
	x.each(e, places, func(l *list[T], _ *candidate[T]) { l.drop(e) })
}

// each calls do with every list that e has a place in, ready to be changed, and with the candidate of e for it.
func (x *edit[T]) each(e *entry[T], places []place, do change[T]) {
	for i := range places {
		p := &places[i]
		c := candidate[T]{target: e.Target, entry: e, pattern: p.pattern, uri: p.uri, methods: e.Methods, uriN: uint16(i), ext: p.ext, remotes: len(e.remotes) > 0}
		if len(e.Hosts) == 0 {
			x.inPaths(&x.t.paths, p, &c, do)
		}
		for j, host := range e.Hosts {
			c.host, c.hostN = host, uint16(j)
			if x.t.mode == HostURI {
				x.inSite(p, &c, do)
			} else {
				x.inPaths(&x.t.paths, p, &c, do)
			}
		}
	}
}

// hostKey returns where the host pattern is stored.
func hostKey(host string) (string, slot) {
	if host[0] == '*' {
		return reverse(host[1:]), prefixSlot
	}
	return reverse(host), exactSlot
}

func (x *edit[T]) inSite(p *place, c *candidate[T], do change[T]) {
	key, slot := hostKey(c.host)
	x.sites.edit(&x.t.sites, key, slot, func(s *site[T]) *site[T] {
		s = x.writableSite(s)
		x.inPaths(&s.paths, p, c, do)
		if s.paths.vacant() {
			return nil
		}
		return s
	})
}

func (x *edit[T]) writableSite(s *site[T]) *site[T] {
	if _, ok := x.ownSites[s]; ok {
		return s
	}
	own := new(site[T])
	if s != nil {
		*own = *s
	}
	x.ownSites[own] = struct{}{}
	return own
}

func (x *edit[T]) inPaths(root *node[bucket[T]], p *place, c *candidate[T], do change[T]) {
	x.buckets.edit(root, p.stored, p.slot, func(b *bucket[T]) *bucket[T] {
		b = b.writable(x.own)
		if c.host == "" || x.t.mode == HostURI {
			do(&b.any, c)
		} else {
			x.inHost(b, c, do)
		}
		if b.note() {
			return nil
		}
		return b
	})
}

func (x *edit[T]) inHost(b *bucket[T], c *candidate[T], do change[T]) {
	root := &b.hosts
	if strings.IndexByte(c.host, ':') >= 0 {
		root = &b.ports
	}
	if *root == nil {
		*root = new(node[list[T]])
	}
	key, slot := hostKey(c.host)
	x.lists.edit(*root, key, slot, func(l *list[T]) *list[T] {
		l = l.writable(x.own)
		do(l, c)
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
