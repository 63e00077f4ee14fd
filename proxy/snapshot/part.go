package snapshot

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sync"

	"headgate/conf/resource"
	"headgate/proxy/phase"
	"headgate/proxy/upstream"
)

// part is what the plugins that were compiled together have become: those of a route, of a consumer, of a consumer group, or of all
// global rules. It is closed when the last exchange of the last snapshot that had it has ended.
type part struct {
	// Chain is what the exchange runs through, nil without plugins.
	Chain *phase.Chain

	slots   phase.SlotRange
	unit    string                        // see builder.unit
	inline  map[string]*upstream.Upstream // by part of the document
	uses    []*shared
	nested  []phase.Closer // instances that plugins have built, see phase.Env.Plugin, and what they use of the hub
	start   []func(done <-chan struct{})
	stop    chan struct{} // nil as long as nothing was started
	running sync.WaitGroup
	born    uint64
	guard   routeGate // of a route
}

// close ends the goroutines that the plugins run, waits for them, and closes the plugins, last to first, and the upstreams of their own.
func (p *part) close() {
	if p.stop != nil {
		close(p.stop)
		p.running.Wait()
	}
	if p.Chain != nil {
		for _, c := range p.Chain.Closers {
			c.Close()
		}
	}
	for _, c := range p.nested {
		c.Close()
	}
	for _, u := range p.inline {
		u.Close()
	}
	p.guard.release()
}

// run starts the health checks of its upstreams and the goroutines that were noted while the plugins were built. It is called after the
// publication.
func (p *part) run() {
	for name, u := range p.inline {
		u.Publish(p.keyOf(name))
	}
	if len(p.start) == 0 {
		return
	}
	p.stop = make(chan struct{})
	for _, f := range p.start {
		p.running.Go(func() { f(p.stop) })
	}
}

// retire ends the health checks of its upstreams: it is not in force any more.
func (p *part) retire() {
	for _, u := range p.inline {
		u.Withdraw()
	}
}

// keyOf is what operators find the upstream that is part name of the document by: "routes/1" for a route's own, else
// "routes/1#traffic-split/...".
func (p *part) keyOf(name string) string {
	if name == ownUpstream {
		return p.unit
	}
	return p.unit + "#" + name
}

// ownUpstream is the part of a route's document that is its upstream.
const ownUpstream = "upstream"

// builder compiles the plugins of one part.
type builder struct {
	st      *Stage
	unit    string // what is compiled anew when something changes that was used here: "routes/1", "consumers/jack", ...
	p       *part
	prev    *part // what p replaces, nil for a new one
	timeout *resource.Timeout
	route   *routeBuilder // nil when it is no route that is compiled
	made    []madeState   // by this build; to be forgotten when it fails
}

type madeState struct{ owner, part string }

// fail closes what was built before the mistake.
func (b *builder) fail() {
	b.p.close()
	b.st.sharing.Lock()
	defer b.st.sharing.Unlock()
	for _, m := range b.made {
		if !b.st.joined[m.owner+" "+m.part] {
			delete(b.st.state[m.owner], m.part)
		}
	}
}

func (b *builder) depends(key string) { b.st.depend(b.unit, key) }

// depend takes note that unit is made of the document key too.
func (st *Stage) depend(unit, key string) {
	st.mu.Lock()
	st.deps[unit] = append(st.deps[unit], key)
	st.mu.Unlock()
}

// warn takes note of what is in force and will not do what its author may expect.
func (st *Stage) warn(format string, args ...any) {
	st.mu.Lock()
	st.Warnings = append(st.Warnings, fmt.Sprintf(format, args...))
	st.mu.Unlock()
}

// shared returns the upstream that the document key holds, with the clocks of the route, nil when there is none.
func (b *builder) shared(key string) *upstream.Upstream {
	s := b.st.shared(key)
	if s == nil {
		b.depends(key)
		return nil
	}
	b.depends(s.key) // which all its users share
	if !slices.Contains(b.p.uses, s) {
		b.p.uses = append(b.p.uses, s)
	}
	return s.WithTimeout(b.timeout)
}

// inline compiles an upstream that is part of the document; part is its identity across edits. The route's clocks win over its own.
func (b *builder) inline(doc *resource.Upstream, part, name string, def upstream.Defaults) (*upstream.Upstream, error) {
	if b.p.inline[part] != nil {
		return nil, fmt.Errorf("two upstreams are called %s", part)
	}
	if doc.Name != "" {
		name = doc.Name
	}
	b.st.clientCertificate(doc, b.unit)
	var prev *upstream.Upstream
	if b.prev != nil {
		prev = b.prev.inline[part]
	}
	u, err := upstream.Compile(b.st.c.opt.Hub, doc, name, def, prev)
	if err != nil {
		return nil, err
	}
	if b.p.inline == nil {
		b.p.inline = map[string]*upstream.Upstream{}
	}
	b.p.inline[part], b.p.unit = u, b.unit
	b.st.warnUseless(b.p.keyOf(part), u)
	return u.WithTimeout(b.timeout), nil
}

// configured is one plugin after merging.
type configured struct {
	name  string
	owner string // key of the document that holds the configuration
	conf  any    // without _meta
	raw   []byte // conf as JSON; nil when it has to be made
	kind  *kind
	meta
}

// configure adds the plugins of the document owner to list, but for those that list has already: what comes first wins.
func (b *builder) configure(list []configured, plugins []resource.Plugin, owner string) ([]configured, error) {
	list = slices.Grow(list, len(plugins))
	for _, p := range plugins {
		if slices.ContainsFunc(list, func(q configured) bool { return q.name == p.Name }) {
			continue
		}
		k := b.st.c.kinds[p.Name]
		if k == nil {
			if slices.Contains(b.st.c.opt.Inert, p.Name) {
				b.st.passOver(p.Name, owner)
				continue
			}
			return nil, errors.New("unknown plugin [" + p.Name + "]")
		}
		c := configured{name: k.Name, owner: owner, kind: k} // not p.Name, which would be another copy for every route
		var err error
		if c.meta, err = metaOf(p.Value, k.Priority); err != nil {
			return nil, pluginError(p.Name, err)
		}
		c.conf, c.raw = withoutMeta(p.Value), p.Conf
		if _, has := p.Value["_meta"]; has {
			c.raw = nil
		}
		if !c.disabled && bytes.Contains(p.Conf, []byte("://")) {
			if c.conf, err = resolved(c.conf, b.st.c.opt.LookupEnv); err != nil {
				return nil, pluginError(p.Name, err)
			}
			c.raw = nil
		}
		list = append(list, c)
	}
	return list, nil
}

func pluginError(name string, err error) error {
	return fmt.Errorf("failed to check the configuration of plugin %s err: %w", name, err)
}

// sortByPriority puts list in the order of execution.
func sortByPriority(list []configured) {
	slices.SortStableFunc(list, func(p, q configured) int { return cmp.Compare(q.priority, p.priority) })
}

// chain builds the plugins of list that are switched on and makes them the part's chain. global says that they are global rules'.
func (b *builder) chain(list []configured, global bool) (failed string, err error) {
	sortByPriority(list)
	var off []uint8
	instances := make([]phase.Instance, 0, len(list))
	for _, p := range list {
		if p.disabled {
			off = append(off, p.kind.number)
			continue
		}
		var i phase.Instance
		if i, err = b.build(p); err != nil {
			failed, err = p.owner, pluginError(p.name, err)
			break
		}
		i.Prefer = global && p.kind.PreferRoute
		instances = append(instances, i)
	}
	if len(instances)+len(off) > 0 { // also after an error: what was built is closed with the chain
		b.p.Chain = b.st.c.layouts.NewChain(instances, off, b.p.slots)
	}
	return failed, err
}

// build makes the instance of p.
func (b *builder) build(p configured) (phase.Instance, error) {
	i := phase.Instance{Name: p.name, Kind: p.kind.number, Priority: p.priority}
	conf, err := p.raw, error(nil)
	if conf == nil {
		if conf, err = resource.Encode(p.conf); err != nil {
			return i, err
		}
	}
	e := &env{builder: b, plugin: p.name, owner: p.owner}
	if p.filter != nil {
		if i.When, err = compilePredicate(p.filter); err != nil {
			return i, err
		}
		i.Slot = e.Slot()
	}
	switch answer := p.errorResponse.(type) {
	case nil:
	case string:
		i.ErrorType, i.ErrorBody = phase.TypeText, []byte(answer)
	default:
		if i.ErrorBody, err = resource.Encode(answer); err != nil {
			return i, err
		}
		i.ErrorType, i.ErrorBody = phase.TypeText, append(i.ErrorBody, '\n')
	}
	i.Plugin, err = p.kind.Build(conf, e)
	return i, err
}
