package snapshot

import (
	"errors"
	"slices"

	"headgate/balancer"
	"headgate/conf/resource"
	"headgate/conf/schema"
	"headgate/proxy/meter"
	"headgate/proxy/phase"
)

// env implements phase.Env for one plugin.
type env struct {
	*builder
	plugin, owner string
}

func (e *env) Owner() string { return e.owner }

func (e *env) Route() *phase.Route {
	if e.route == nil {
		return nil
	}
	return &e.route.r.Route
}

func (e *env) Metadata() []byte {
	key := e.st.c.kinds[e.plugin].about
	e.depends(key)
	return e.st.get(key)
}

func (e *env) Directory() phase.Directory { return phase.DirectoryOf(e.st.c.kinds[e.plugin].number) }

func (e *env) Plugin(name string, conf []byte) (any, error) {
	k := e.st.c.kinds[name]
	if k == nil {
		return nil, errors.New(name + " plugin did not found") // sic: contract
	}
	if k.Kind.Consumer == nil && !slices.Contains(e.st.c.kinds[e.plugin].Uses, name) {
		return nil, errors.New(name + " plugin is not supported")
	}
	doc, err := schema.DecodeJSON(conf)
	if err == nil {
		err = e.st.c.CheckPlugin(name, doc, resource.InRoute)
	}
	if err != nil {
		return nil, pluginError(name, err)
	}
	built, err := k.Build(conf, &env{builder: e.builder, plugin: name, owner: e.owner})
	if c, ok := built.(phase.Closer); ok && err == nil {
		e.p.nested = append(e.p.nested, c)
	}
	return built, err
}

func (e *env) Number(name string) (uint8, bool) {
	k := e.st.c.kinds[name]
	if k == nil {
		return 0, false
	}
	return k.number, true
}

func (e *env) Slot() int { return e.p.slots.Reserve() }

func (e *env) Upstream(doc []byte, part, name string) (phase.Upstream, error) {
	u, err := resource.DecodeUpstream(doc)
	if err != nil {
		return nil, err
	}
	def := e.st.c.opt.Defaults
	def.BareNodeHost = e.st.c.opt.BareNodeHost
	compiled, err := e.inline(u, e.plugin+"/"+part, name, def)
	if err != nil {
		return nil, err
	}
	return compiled, nil
}

func (e *env) UpstreamByID(id string) (phase.Upstream, bool) {
	if u := e.shared("upstreams/" + id); u != nil {
		return u, true
	}
	return nil, false
}

// Shared: state belongs to the document that holds the configuration, so that routes of one service share its counters. It is made
// anew only when that document is edited; a route that is compiled for another reason joins what the others use.
func (e *env) Shared(part string, make func(before any) any) any {
	key := e.plugin + "/" + part
	e.st.sharing.Lock()
	defer e.st.sharing.Unlock()
	if v, done := e.st.state[e.owner][key]; done {
		if e.st.joined == nil {
			e.st.joined = map[string]bool{}
		}
		e.st.joined[e.owner+" "+key] = true
		return v
	}
	v, has := e.st.c.state[e.owner][key]
	if _, edited := e.st.edits[e.owner]; edited || !has {
		v = make(v)
	}
	if e.st.state[e.owner] == nil {
		e.st.state[e.owner] = map[string]any{}
	}
	e.st.state[e.owner][key] = v
	e.made = append(e.made, madeState{e.owner, key})
	return v
}

func (e *env) BranchCounter(branch string) phase.Counter {
	m := e.st.c.opt.Meter
	switch {
	case e.route == nil:
		return &countingByRoute{meter: m, branch: branch}
	case !e.route.counts():
		return uncounted{}
	}
	return counting{m.Branch(e.route.r.ID, branch)}
}

func (e *env) BranchGate(branch string) *balancer.Gate {
	g := e.st.c.opt.Hub.Gates().Acquire(balancer.Target{Scope: balancer.OfBranch, Owner: e.owner, Name: branch})
	e.p.nested = append(e.p.nested, branchGate{g})
	return g
}

func (e *env) CompileExpr(raw any) (phase.Predicate, error) { return phase.CompilePredicate(raw) }

func (e *env) Go(run func(done <-chan struct{})) { e.p.start = append(e.p.start, run) }

func (e *env) Recorder(o phase.RecorderOptions) phase.Recorder {
	m := e.st.c.opt.Meter
	how := labelling{preferName: o.PreferName, disabled: meter.Disabled{
		Status: meter.LabelSetOf(o.DisabledLabels["http_status"]), Latency: meter.LabelSetOf(o.DisabledLabels["http_latency"]),
		Bandwidth: meter.LabelSetOf(o.DisabledLabels["bandwidth"]),
	}}
	if e.route != nil {
		return e.route.r.recorder(m, how)
	}
	return recorderOfAll{meter: m, labelling: how, unrouted: &recorder{
		uris: []string{""}, hosts: []string{""}, series: []*meter.RouteSeries{m.Route(meter.RouteLabels{Disabled: how.disabled})},
	}}
}

var _ phase.Env = (*env)(nil)
