package snapshot

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"headgate/conf/resource"
	"headgate/conf/schema"
	"headgate/proxy/fault"
	"headgate/proxy/phase"
	"headgate/proxy/route"
)

// defaultBranch names an upstream that has no name of its own.
const defaultBranch = "default"

// compileRoute compiles the route document key together with everything it refers to. order is its place among equals; check may be nil,
// see Edit.
func (st *Stage) compileRoute(key string, raw []byte, order uint64, check func(key string, doc map[string]any) error) (*Route, error) {
	decoded, err := resource.DecodeObject(raw)
	if err != nil {
		return nil, err
	}
	if check != nil {
		if err := check(key, decoded); err != nil {
			return nil, refusal{err}
		}
	}
	doc, err := resource.RouteFrom(decoded)
	if err != nil {
		return nil, err
	}
	if doc.FilterFunc != "" || doc.Script != "" {
		return nil, errors.New("filter_func and script are not supported") // without them the route would let more through than was meant
	}
	_, id, _ := strings.Cut(key, "/")
	r := &Route{Route: phase.Route{ID: id, Name: doc.Name, Key: key}, listed: doc.Status == 1}
	r.Compiled = r
	r.guarded(st.c.opt.Hub.Gates())
	b := &routeBuilder{builder: builder{st: st, unit: key, p: &r.part, timeout: doc.Timeout}, doc: doc, r: r, order: order}
	b.route = b
	if prev := st.c.routes[key]; prev != nil {
		b.prev = &prev.part
	}
	if err := b.compile(); err != nil {
		b.fail()
		return nil, err
	}
	return r, nil
}

// routeBuilder compiles one route.
type routeBuilder struct {
	builder
	r       *Route
	doc     *resource.Route
	order   uint64
	serves  *resource.Service   // nil without one
	config  *resource.PluginSet // nil without one
	counted bool
}

// compile fills in b.r. What it built before it failed is closed with b.r.
func (b *routeBuilder) compile() error {
	for _, step := range []func() error{b.service, b.pluginConfig, b.rule, b.upstream, b.plugins} {
		if err := step(); err != nil {
			return err
		}
	}
	b.r.Upgrade, b.r.Finish = b.upgrades(), b.doc.FinishAborted
	return nil
}

// upgrades is the route's word on protocol switches, else its service's (contract section 2.7).
func (b *routeBuilder) upgrades() bool {
	on := b.doc.EnableWebsocket
	if on == nil && b.serves != nil {
		on = b.serves.EnableWebsocket
	}
	return on != nil && *on
}

func (b *routeBuilder) pluginConfig() error {
	if b.doc.PluginConfigID == "" {
		return nil
	}
	key := "plugin_configs/" + b.doc.PluginConfigID
	b.depends(key)
	doc := b.st.get(key)
	if doc == nil {
		b.r.Incomplete = fault.MissingPluginConfig
		return nil
	}
	var err error
	if b.config, err = resource.DecodePluginSet(doc); err != nil {
		return fmt.Errorf("plugin config %s: %w", b.doc.PluginConfigID, err)
	}
	return nil
}

func (b *routeBuilder) service() error {
	if b.doc.ServiceID == "" {
		return nil
	}
	key := "services/" + b.doc.ServiceID
	b.depends(key)
	b.r.ServiceID, b.r.ServiceKey = b.doc.ServiceID, key
	doc := b.st.get(key)
	if doc == nil {
		b.r.Incomplete = fault.MissingService
		return nil
	}
	s, err := resource.DecodeService(doc)
	if err != nil {
		return fmt.Errorf("service %s: %w", b.doc.ServiceID, err)
	}
	if s.Script != "" {
		return fmt.Errorf("service %s: script is not supported", b.doc.ServiceID)
	}
	b.serves, b.r.ServiceName = s, s.Name
	return nil
}

// upstream finds where the route sends by default (contract section 2.7). What the route says wins over its service, and in each of the
// two documents upstream_id wins over an upstream of its own.
func (b *routeBuilder) upstream() error {
	doc, r := b.doc, b.r
	switch {
	case r.Incomplete != nil:
		return nil
	case doc.UpstreamID != "":
		r.Missing = b.sends("upstreams/"+doc.UpstreamID, fault.MissingUpstream)
	case doc.Upstream != nil:
		u, err := b.inline(doc.Upstream, ownUpstream, defaultBranch, b.st.c.opt.Defaults)
		if err != nil {
			return fmt.Errorf("upstream: %w", err)
		}
		r.Upstream = u
	case b.serves != nil && b.serves.UpstreamID != "":
		r.Missing = b.sends("upstreams/"+b.serves.UpstreamID, fault.MissingUpstream)
	case b.serves != nil && b.serves.Upstream != nil:
		r.Missing = b.sends(r.ServiceKey, fault.NoUpstream)
	default:
		r.Missing = fault.NoUpstream
	}
	if r.Upstream != nil {
		r.Branch = r.Upstream.Name()
	}
	return nil
}

// sends makes the shared upstream under key the route's own, or returns missing when there is none.
func (b *routeBuilder) sends(key string, missing *fault.Fault) *fault.Fault {
	u := b.shared(key)
	if u == nil {
		return missing
	}
	b.r.Upstream = u
	return nil
}

// hosts returns the patterns that the route is matched by: its own, else those of its service.
func (b *routeBuilder) hosts() []string {
	if len(b.doc.Hosts) == 0 && b.serves != nil {
		return b.serves.Hosts
	}
	return b.doc.Hosts
}

// rule is the route as the router sees it.
func (b *routeBuilder) rule() error {
	methods, err := route.ParseMethods(b.doc.Methods)
	if err != nil {
		return err
	}
	remotes := make([]netip.Prefix, 0, len(b.doc.RemoteAddrs))
	for _, text := range b.doc.RemoteAddrs {
		p, err := parsePrefix(text)
		if err != nil {
			return fmt.Errorf("remote_addr %q: expected an IP address or network", text)
		}
		remotes = append(remotes, p)
	}
	if len(b.doc.Vars) > 0 {
		vars, err := schema.DecodeJSON(b.doc.Vars)
		if err != nil {
			return err
		}
		if b.r.Vars, err = compilePredicate(vars); err != nil {
			return err
		}
	}
	b.r.rule = route.Rule[*Route]{
		ID: b.r.Key, URIs: b.doc.URIs, Hosts: b.hosts(), Methods: methods, Priority: b.doc.Priority,
		RemoteAddrs: remotes, Order: b.order, Target: b.r,
	}
	// A rule that the router refuses must be found out here: in the table of all, it would take the others down with it.
	return b.r.rule.Check(b.st.c.opt.Mode)
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
