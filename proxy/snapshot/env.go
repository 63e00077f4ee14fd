package snapshot

import (
	"slices"
	"strings"

	"headgate/conf/resource"
	"headgate/proxy/meter"
	"headgate/proxy/phase"
	"headgate/proxy/route"
)

// env implements phase.Env for one plugin of one route.
type env struct {
	*builder
	plugin, owner string
}

func (e *env) Owner() string { return e.owner }

func (e *env) Route() *phase.Route { return &e.r.Route }

func (e *env) Metadata() []byte {
	key := "plugin_metadata/" + e.plugin
	e.depends(key)
	return e.st.get(key)
}

func (e *env) Directory() phase.Directory { return directory{} }

func (e *env) Slot() int {
	e.r.Slots++
	return e.r.Slots - 1
}

func (e *env) Upstream(doc []byte, part, name string) (phase.Upstream, error) {
	u, err := resource.DecodeUpstream(doc)
	if err != nil {
		return nil, err
	}
	compiled, err := e.inline(u, e.plugin+"/"+part, name)
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
	if v, done := e.st.state[e.owner][key]; done {
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
	if !e.counts() {
		return uncounted{}
	}
	return e.st.c.opt.Meter.Branch(e.r.ID, branch)
}

type uncounted struct{}

func (uncounted) Inc() {}

func (e *env) CompileExpr(raw any) (phase.Predicate, error) { return phase.CompilePredicate(raw) }

func (e *env) Go(run func(done <-chan struct{})) { e.r.start = append(e.r.start, run) }

func (e *env) Recorder(preferName bool) phase.Recorder {
	labels := meter.RouteLabels{Route: e.r.ID, Service: e.r.ServiceID}
	if preferName && e.r.Name != "" {
		labels.Route = e.r.Name
	}
	if preferName && e.r.ServiceName != "" {
		labels.Service = e.r.ServiceName
	}
	rec := &recorder{uris: e.doc.URIs, hosts: []string{""}}
	if hosts := e.hosts(); len(hosts) > 0 {
		rec.hosts = rec.hosts[:0]
		for _, h := range hosts {
			rec.hosts = append(rec.hosts, strings.ToLower(h)) // as the router tells them
		}
	}
	for _, uri := range rec.uris {
		for _, host := range rec.hosts {
			labels.MatchedURI, labels.MatchedHost = uri, host
			rec.series = append(rec.series, e.st.c.opt.Meter.Route(labels))
		}
	}
	return rec
}

// recorder records into the series of the pattern that the request matched.
type recorder struct {
	uris, hosts []string
	series      []*meter.RouteSeries // for each of uris, one for each of hosts
}

func (r *recorder) find(m *route.Match) *meter.RouteSeries {
	uri, host := max(slices.Index(r.uris, m.URI), 0), max(slices.Index(r.hosts, m.Host), 0)
	return r.series[uri*len(r.hosts)+host]
}

func (r *recorder) Record(x *phase.Exchange) {
	source := meter.SourceAPISIX
	switch x.Response.Source {
	case phase.FromGateway:
		source = meter.SourceNginx
	case phase.FromUpstream:
		source = meter.SourceUpstream
	}
	r.find(&x.Match).Observe(meter.Observation{
		Code: x.Response.Status, Node: x.Attempts.Node, Consumer: x.Consumer.Name, Source: source,
		Request: x.Elapsed(), Upstream: x.Attempts.Took(), HasUpstream: x.Attempts.Count > 0,
		In: x.Request.Length, Out: x.Response.Sent,
	})
}

var _ phase.Env = (*env)(nil)

// directory is empty until consumers are compiled.
type directory struct{}

func (directory) Credential(*phase.Exchange, []byte) *phase.Credential { return nil }
func (directory) Consumer(*phase.Exchange, string) *phase.Principal    { return nil }
