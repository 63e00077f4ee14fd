package snapshot

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"headgate/conf/resource"
	"headgate/conf/schema"
	"headgate/proxy/phase"
	"headgate/proxy/route"
	"headgate/proxy/upstream"
)

// Sight is a published snapshot that is held so that it can be explained in peace; Release lets go of it. Nothing that is asked of it changes
// anything. Its methods other than Papers may be called on any goroutine.
type Sight struct {
	*Snapshot
	c      *Compiler
	hidden []*Route // status 0
}

// Look pins the snapshot in force. It belongs to the config goroutine, as Papers does.
func (c *Compiler) Look() *Sight {
	return &Sight{Snapshot: c.live.Pin(0), c: c, hidden: slices.Collect(maps.Values(c.hidden))}
}

// Release lets go of the snapshot.
func (s *Sight) Release() { s.Unpin(0) }

// Plugin returns the name of the kind with that number.
func (s *Sight) Plugin(kind uint8) string { return s.c.opt.Kinds[kind].Name }

// Candidate is a route whose host and path fit a query, whatever else it asks for, with the patterns by which they do.
type Candidate struct {
	Route *Route
	// URI and Host are as in route.Match: Host is "" when the route takes any.
	URI, Host string
}

// Candidates returns the routes whose host and path fit q, those that are switched off too, in the order in which the router looks at them.
func (s *Sight) Candidates(q *route.Query) []Candidate {
	found := visits{}
	for _, r := range s.hidden {
		if s.mayFit(r.rule.URIs, q.Path) {
			found[r] = struct{}{}
		}
	}
	// What the router itself comes across for any method is all that fits, but for what refuses the client's address.
	one := *q
	var m route.Match
	for _, one.Method = range append(methodBits(), 0) {
		s.Find(&one, found, &m)
	}
	s.table.All(func(rule route.Rule[*Route]) bool {
		if !allows(rule.RemoteAddrs, q.Remote) && s.mayFit(rule.URIs, q.Path) {
			found[rule.Target] = struct{}{}
		}
		return true
	})
	var rules []route.Rule[*spot]
	for r := range found {
		rules = append(rules, s.spots(r, q)...)
	}
	return s.inOrder(rules, q)
}

// visits is a route.Filter that takes note of what it is shown, and refuses it so that the search goes on.
type visits map[*Route]struct{}

func (v visits) Accept(r *Route) bool {
	v[r] = struct{}{}
	return false
}

// spot is one of the patterns of a route under one of its hosts, on its own in a table: so the order tells them apart.
type spot struct{ Candidate }

// spots returns what of r fits the host and the path of q, without r's other conditions.
func (s *Sight) spots(r *Route, q *route.Query) (list []route.Rule[*spot]) {
	var m route.Match
	if !s.fits(q, r.rule.URIs, r.rule.Hosts, &m) {
		return nil
	}
	for i, uri := range r.rule.URIs {
		if !s.fits(q, []string{uri}, nil, &m) {
			continue
		}
		add := func(j int, hosts []string) {
			if s.fits(q, []string{uri}, hosts, &m) {
				list = append(list, route.Rule[*spot]{
					ID: fmt.Sprintf("%s\x00%05d\x00%05d", r.Key, i, j), URIs: []string{uri}, Hosts: hosts,
					Priority: r.rule.Priority, Order: r.rule.Order, Target: &spot{Candidate{r, m.URI, m.Host}},
				})
			}
		}
		if len(r.rule.Hosts) == 0 {
			add(0, nil)
		}
		for j := range r.rule.Hosts {
			add(j, r.rule.Hosts[j:j+1])
		}
	}
	return list
}

// mayFit is a quick no to patterns that path does not even begin like; whether it fits the rest is for the router to say.
func (s *Sight) mayFit(uris []string, path []byte) bool {
	for _, uri := range uris {
		if stem := s.stem(uri); len(stem) <= len(path) && string(path[:len(stem)]) == stem {
			return true
		}
	}
	return false
}

// fits says whether a route with these patterns and no other condition would be found.
func (s *Sight) fits(q *route.Query, uris, hosts []string, m *route.Match) bool {
	t, err := route.New[struct{}](s.table.Mode()).With(nil, []route.Rule[struct{}]{{ID: "1", URIs: uris, Hosts: hosts}})
	if err != nil {
		return false
	}
	_, ok := t.Find(q, nil, m)
	return ok
}

// inOrder returns the routes of rules, all of which fit q, as the router comes to them.
func (s *Sight) inOrder(rules []route.Rule[*spot], q *route.Query) []Candidate {
	t, err := route.New[*spot](s.table.Mode()).With(nil, rules)
	if err != nil {
		return nil // cannot be: the patterns are in the table of all, or were tried when their route was compiled
	}
	visited := ordered{seen: map[*Route]bool{}}
	var m route.Match
	t.Find(q, &visited, &m)
	return visited.list
}

// ordered notes every route the first time that one of its spots is visited.
type ordered struct {
	seen map[*Route]bool
	list []Candidate
}

func (o *ordered) Accept(s *spot) bool {
	if !o.seen[s.Route] {
		o.seen[s.Route] = true
		o.list = append(o.list, s.Candidate)
	}
	return false
}

// Elsewhere returns routes whose path fits q under other hosts, at most limit of them, the strongest first, and how many more there are.
func (s *Sight) Elsewhere(q *route.Query, limit int) (list []Candidate, more int) {
	var m route.Match
	s.table.All(func(rule route.Rule[*Route]) bool {
		if len(rule.Hosts) > 0 && s.mayFit(rule.URIs, q.Path) && s.fits(q, rule.URIs, nil, &m) {
			uri := m.URI
			if !s.fits(q, rule.URIs, rule.Hosts, &m) {
				list = append(list, Candidate{rule.Target, uri, rule.Hosts[0]})
			}
		}
		return true
	})
	slices.SortFunc(list, func(a, b Candidate) int {
		return cmp.Or(cmp.Compare(b.Route.rule.Priority, a.Route.rule.Priority), cmp.Compare(len(b.URI), len(a.URI)),
			cmp.Compare(a.Route.rule.Order, b.Route.rule.Order), strings.Compare(a.Route.Key, b.Route.Key))
	})
	if more = len(list) - limit; more > 0 {
		return list[:limit], more
	}
	return list, 0
}

// Priority is the route's priority.
func (r *Route) Priority() int { return r.rule.Priority }

// OtherHosts says that the host of q is not what c's route is for.
func (c *Candidate) OtherHosts(q *route.Query) string {
	return fmt.Sprintf("host %s is not among %s", q.Host, listed(c.Route.rule.Hosts))
}

// Refusal says why the router passes over c for x, which asks q; "" when it does not. The conditions are asked in the order of contract
// section 2.3.
func (c *Candidate) Refusal(q *route.Query, x *phase.Exchange, p *Papers) string {
	r := c.Route
	switch {
	case !r.listed:
		return "status is 0"
	case r.rule.Methods != 0 && r.rule.Methods&q.Method == 0:
		return fmt.Sprintf("method %s is not among %s", x.Request.Method, listed(methodNames(r.rule.Methods)))
	case !allows(r.rule.RemoteAddrs, q.Remote):
		var texts []string
		for _, p := range r.rule.RemoteAddrs {
			texts = append(texts, strings.TrimSuffix(p.String(), single(p)))
		}
		return fmt.Sprintf("remote address %s is not in %s", q.Remote, listed(texts))
	case r.Vars != nil && !r.Vars.True(x):
		return "vars do not hold: " + failing(x, p.Get(r.Key))
	}
	return ""
}

// single is how the length of a prefix that is one address is written.
func single(p netip.Prefix) string { return fmt.Sprintf("/%d", p.Addr().BitLen()) }

func allows(prefixes []netip.Prefix, a netip.Addr) bool {
	return len(prefixes) == 0 || slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(a) })
}

// maxListed bounds how many of a route's hosts, methods or addresses a reason names.
const maxListed = 10

func listed(items []string) string {
	if n := len(items) - maxListed; n > 0 {
		return fmt.Sprintf("[%s and %d more]", strings.Join(items[:maxListed], ", "), n)
	}
	return "[" + strings.Join(items, ", ") + "]"
}

func methodBits() []route.Methods {
	return []route.Methods{route.GET, route.POST, route.PUT, route.DELETE, route.PATCH, route.HEAD, route.OPTIONS, route.CONNECT, route.TRACE, route.PURGE}
}

func methodNames(set route.Methods) (names []string) {
	for _, name := range [...]string{"GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "CONNECT", "TRACE", "PURGE"} {
		if set&route.MethodBit(name) != 0 {
			names = append(names, name)
		}
	}
	return names
}

// maxExpression bounds the text of an expression in a reason, in bytes.
const maxExpression = 400

// failing returns the first condition of the route document raw that does not hold, or the whole expression where it is no list of them.
func failing(x *phase.Exchange, raw []byte) string {
	const unknown = "the route has been edited meanwhile"
	doc, err := resource.DecodeRoute(raw)
	if err != nil {
		return unknown
	}
	vars, err := schema.DecodeJSON(doc.Vars)
	if err != nil {
		return unknown
	}
	shown := vars
	if list, ok := vars.([]any); ok && len(list) > 0 {
		if _, nested := list[0].([]any); nested {
			for _, condition := range list {
				if p, err := phase.CompilePredicate([]any{condition}); err == nil && !p.True(x) {
					shown = condition
					break
				}
			}
		}
	}
	text, err := resource.Encode(shown)
	if err != nil {
		return unknown
	}
	if len(text) > maxExpression {
		return strings.ToValidUTF8(string(text[:maxExpression]), "") + "..."
	}
	return string(text)
}

// Behind says why the router looks at c later than at won. Both fit.
func (s *Sight) Behind(won, c *Candidate) string {
	exact := func(uri string) bool { return s.stem(uri) == uri }
	switch w, r := won.Route, c.Route; {
	case s.table.Mode() == route.HostURI && won.Host != c.Host:
		return "the host " + won.Host + " of " + w.Key + " is looked at first, whatever the priorities"
	case exact(won.URI) != exact(c.URI):
		return "the exact path of " + w.Key + " is looked at first, whatever the priorities"
	case len(s.stem(won.URI)) != len(s.stem(c.URI)):
		return "the longer prefix " + won.URI + " of " + w.Key + " is looked at first, whatever the priorities"
	case w.rule.Priority != r.rule.Priority:
		return fmt.Sprintf("priority %d is below that of %s, %d", r.rule.Priority, w.Key, w.rule.Priority)
	case len(won.URI) != len(c.URI):
		return "the pattern " + won.URI + " of " + w.Key + " is longer"
	case w.rule.Order == r.rule.Order:
		return "it is stored as long as " + w.Key + ", whose key comes first"
	default:
		return w.Key + " was stored first"
	}
}

// stem is the text before the first wildcard or parameter of a pattern, by which the router sorts.
func (s *Sight) stem(uri string) string {
	special := "*"
	if s.table.Mode() == route.URIWithParameter {
		special = "*:"
	}
	if i := strings.IndexAny(uri, special); i >= 0 {
		return uri[:i]
	}
	return uri
}

// Papers are the documents from which what serves an exchange was compiled.
type Papers struct {
	docs      map[string][]byte
	upstreams map[string]*upstream.Upstream
	rules     []string // keys of the global rules, sorted
	oldest    []string // the same in the order in which they were stored
}

// Get returns the document key, nil when it is not among the papers.
func (p *Papers) Get(key string) []byte { return p.docs[key] }

// Holder returns the key of the document that holds u, "" when u is part of a route's or a plugin's own configuration.
func (p *Papers) Holder(u *upstream.Upstream) string {
	for key, stored := range p.upstreams {
		if stored.Same(u) {
			return key
		}
	}
	return ""
}

// Papers collects the documents of r and who, either of which may be nil, of the global rules, and of others. ok is false when what s
// shows of them is not in force any more: look again, then.
func (s *Sight) Papers(docs Lookup, r *Route, who *phase.Principal, others []*Route) (p *Papers, ok bool) {
	c := s.c
	p = &Papers{docs: map[string][]byte{}, upstreams: map[string]*upstream.Upstream{}, rules: c.keysBelow(globalUnit, nil)}
	p.oldest = slices.SortedFunc(slices.Values(p.rules), (&Stage{c: c}).inOrderOf)
	add := func(keys ...string) {
		for _, key := range keys {
			p.docs[key] = docs(key)
			if u := c.upstreams[key]; u != nil {
				p.upstreams[key] = u.Upstream
			}
		}
	}
	for _, o := range others {
		if c.routes[o.Key] == o {
			add(o.Key)
		}
	}
	if r != nil {
		if c.routes[r.Key] != r {
			return nil, false
		}
		add(r.Key)
		add(c.deps[r.Key]...)
	}
	if c.globals != nil && c.globals.Chain != s.global {
		return nil, false
	}
	add(p.rules...)
	add(c.deps[globalUnit]...)
	if who == nil {
		return p, true
	}
	key := "consumers/" + who.Name
	if now := c.consumers[key]; now == nil || now.principal != who {
		return nil, false
	}
	add(key)
	add(c.deps[key]...)
	if who.Group == "" {
		return p, true
	}
	key = "consumer_groups/" + who.Group
	if g, has := s.registry.groups.getString(who.Group); has && g != c.groups[key] {
		return nil, false
	}
	add(key)
	add(c.deps[key]...)
	return p, true
}
