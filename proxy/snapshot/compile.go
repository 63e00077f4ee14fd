package snapshot

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"headgate/conf/resource"
	"headgate/conf/schema"
	"headgate/proxy/fault"
	"headgate/proxy/phase"
	"headgate/proxy/route"
	"headgate/proxy/upstream"
)

// defaultBranch names an upstream that has no name of its own.
const defaultBranch = "default"

// compileRoute compiles the route document key together with everything it refers to.
func (st *Stage) compileRoute(key string, raw []byte) (_ *Route, err error) {
	doc, err := resource.DecodeRoute(raw)
	if err != nil {
		return nil, err
	}
	_, id, _ := strings.Cut(key, "/")
	r := &Route{
		Route:  phase.Route{ID: id, Name: doc.Name, Key: key},
		listed: doc.Status == 1, stop: make(chan struct{}),
		inline: map[string]*upstream.Upstream{},
	}
	defer func() {
		if err != nil {
			r.close()
		}
	}()
	b := &builder{st: st, r: r, doc: doc, prev: st.c.routes[key]}
	if err = b.service(); err != nil {
		return nil, err
	}
	if err = b.upstream(); err != nil {
		return nil, err
	}
	if err = b.plugins(); err != nil {
		return nil, err
	}
	if len(doc.Vars) > 0 {
		if r.Vars, err = compilePredicate(doc.Vars); err != nil {
			return nil, fmt.Errorf("failed to validate the 'vars' expression: %w", err)
		}
	}
	return r, b.rule()
}

// builder compiles one route.
type builder struct {
	st      *Stage
	r       *Route
	doc     *resource.Route
	serves  *resource.Service // nil without one
	prev    *Route            // what r replaces, nil for a new route
	counted bool
}

func (b *builder) depends(key string) { b.r.deps = append(b.r.deps, key) }

func (b *builder) service() error {
	if b.doc.ServiceID == "" {
		return nil
	}
	key := "services/" + b.doc.ServiceID
	b.depends(key)
	b.r.ServiceID, b.r.ServiceKey = b.doc.ServiceID, key
	doc := b.st.get(key)
	if doc == nil {
		b.r.Missing = fault.MissingService
		return nil
	}
	s, err := resource.DecodeService(doc)
	if err != nil {
		return fmt.Errorf("service %s: %w", b.doc.ServiceID, err)
	}
	b.serves, b.r.ServiceName = s, s.Name
	return nil
}

// upstream finds where the route sends by default: its upstream_id, its own upstream, then those of its service (contract section 2.7;
// a document with both is served by upstream_id).
func (b *builder) upstream() error {
	doc, r := b.doc, b.r
	switch {
	case r.Missing != nil:
		return nil
	case doc.UpstreamID != "":
		b.shared("upstreams/"+doc.UpstreamID, fault.MissingUpstream)
	case doc.Upstream != nil:
		u, err := b.inline(doc.Upstream, "upstream", defaultBranch)
		if err != nil {
			return fmt.Errorf("upstream: %w", err)
		}
		r.Upstream = u.WithTimeout(doc.Timeout)
	case b.serves != nil && b.serves.UpstreamID != "":
		b.shared("upstreams/"+b.serves.UpstreamID, fault.MissingUpstream)
	case b.serves != nil && b.serves.Upstream != nil:
		b.shared(r.ServiceKey, fault.NoUpstream)
	default:
		r.Missing = fault.NoUpstream
	}
	if r.Upstream != nil {
		r.Branch = r.Upstream.Name()
	}
	return nil
}

func (b *builder) shared(key string, missing *fault.Fault) {
	b.depends(key)
	u := b.st.sharedUpstream(key)
	if u == nil {
		b.r.Missing = missing
		return
	}
	b.r.Upstream = u.WithTimeout(b.doc.Timeout)
}

// inline compiles an upstream that is part of the route; part is its identity across edits.
func (b *builder) inline(doc *resource.Upstream, part, name string) (*upstream.Upstream, error) {
	if b.r.inline[part] != nil {
		return nil, fmt.Errorf("two upstreams are called %s", part)
	}
	if doc.Name != "" {
		name = doc.Name
	}
	var prev *upstream.Upstream
	if b.prev != nil {
		prev = b.prev.inline[part]
	}
	u, err := upstream.Compile(b.st.c.opt.Hub, doc, name, b.st.c.opt.Defaults, prev)
	if err != nil {
		return nil, err
	}
	b.r.inline[part] = u
	return u, nil
}

// rule is the route as the router sees it.
func (b *builder) rule() error {
	methods, err := route.ParseMethods(b.doc.Methods)
	if err != nil {
		return err
	}
	hosts := b.doc.Hosts
	if len(hosts) == 0 && b.serves != nil {
		hosts = b.serves.Hosts
	}
	remotes := make([]netip.Prefix, 0, len(b.doc.RemoteAddrs))
	for _, text := range b.doc.RemoteAddrs {
		p, err := parsePrefix(text)
		if err != nil {
			return fmt.Errorf("remote_addr %q: expected an IP address or network", text)
		}
		remotes = append(remotes, p)
	}
	key := b.r.Key
	order, known := b.st.c.order[key]
	if !known {
		b.st.c.nextOrder++ // a stage that is discarded leaves a gap, which orders nothing differently
		order = b.st.c.nextOrder
	}
	b.st.order[key] = order
	b.r.rule = route.Rule[*Route]{
		ID: key, URIs: b.doc.URIs, Hosts: hosts, Methods: methods, Priority: b.doc.Priority,
		RemoteAddrs: remotes, Order: order, Target: b.r,
	}
	return nil
}

func parsePrefix(s string) (netip.Prefix, error) {
	if !strings.Contains(s, "/") {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return netip.Prefix{}, err
		}
		return netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	return p.Masked(), err
}

// configured is one plugin of a route after merging, with the document that holds its configuration.
type configured struct {
	resource.Plugin
	owner    string
	kind     *kind
	meta     meta
	priority int
}

// meta is what _meta may say in any plugin's configuration (contract section 1.7).
type meta struct {
	Disable       bool            `json:"disable"`
	Priority      *int            `json:"priority"`
	Filter        json.RawMessage `json:"filter"`
	ErrorResponse json.RawMessage `json:"error_response"`
}

// plugins merges the plugins of route and service, puts them in order and builds them.
func (b *builder) plugins() error {
	list, err := b.merged()
	if err != nil {
		return err
	}
	slices.SortStableFunc(list, func(p, q configured) int { return q.priority - p.priority })
	var instances []phase.Instance
	for _, p := range list {
		i, err := b.build(p)
		if err != nil {
			return fmt.Errorf("failed to check the configuration of plugin %s err: %w", p.Name, err)
		}
		instances = append(instances, i)
	}
	if len(instances) > 0 {
		b.r.Chain = phase.NewChain(instances)
	}
	if b.r.Upstream != nil && b.counts() {
		b.r.Count = b.st.c.opt.Meter.Branch(b.r.ID, b.r.Branch)
	}
	return nil
}

// counts says whether the route's requests are counted by branch.
func (b *builder) counts() bool { return b.st.c.opt.CountAll || b.counted }

// merged returns the plugins in force: the route's win over those of its service, each as a whole (contract section 2.7).
func (b *builder) merged() ([]configured, error) {
	var list []configured
	add := func(plugins []resource.Plugin, owner string) error {
		for _, p := range plugins {
			if slices.ContainsFunc(list, func(q configured) bool { return q.Name == p.Name }) {
				continue
			}
			k := b.st.c.kinds[p.Name]
			if k == nil {
				return errors.New("unknown plugin [" + p.Name + "]")
			}
			c := configured{Plugin: p, owner: owner, kind: k, priority: k.Priority}
			var holder struct {
				Meta meta `json:"_meta"`
			}
			if err := json.Unmarshal(p.Conf, &holder); err != nil {
				return fmt.Errorf("plugin %s: _meta: %w", p.Name, err)
			}
			c.meta = holder.Meta
			if c.meta.Priority != nil {
				c.priority = *c.meta.Priority
			}
			list = append(list, c)
		}
		return nil
	}
	if err := add(b.doc.Plugins, b.r.Key); err != nil {
		return nil, err
	}
	if b.serves != nil {
		if err := add(b.serves.Plugins, b.r.ServiceKey); err != nil {
			return nil, err
		}
	}
	list = slices.DeleteFunc(list, func(c configured) bool { return c.meta.Disable })
	for _, c := range list {
		b.counted = b.counted || c.Name == recorderPlugin
	}
	return list, nil
}

// recorderPlugin is the plugin that asks for a route's metrics.
const recorderPlugin = "prometheus"

func (b *builder) build(p configured) (phase.Instance, error) {
	i := phase.Instance{Name: p.Name}
	conf, err := stripMeta(p.Conf)
	if err != nil {
		return i, err
	}
	if len(p.meta.Filter) > 0 {
		if i.When, err = compilePredicate(p.meta.Filter); err != nil {
			return i, fmt.Errorf("failed to validate the 'vars' expression: %w", err)
		}
	}
	if body := p.meta.ErrorResponse; len(body) > 0 {
		i.ErrorType = phase.TypeText
		var text string
		if json.Unmarshal(body, &text) == nil {
			i.ErrorBody = []byte(text)
		} else {
			i.ErrorBody = append(slices.Clone(body), '\n')
		}
	}
	i.Plugin, err = p.kind.Build(conf, &env{builder: b, plugin: p.Name, owner: p.owner})
	return i, err
}

func stripMeta(conf json.RawMessage) ([]byte, error) {
	doc, err := schema.DecodeJSON(conf)
	if err != nil {
		return nil, err
	}
	return resource.Encode(withoutMeta(doc))
}

func compilePredicate(raw json.RawMessage) (phase.Predicate, error) {
	v, err := schema.DecodeJSON(raw)
	if err != nil {
		return nil, err
	}
	return phase.CompilePredicate(v)
}
