package snapshot

import (
	"headgate/conf/resource"
	"headgate/proxy/meter"
	"headgate/proxy/phase"
)

// env implements phase.Env for one plugin of one route.
type env struct {
	*builder
	plugin, owner string
}

func (e *env) Owner() string { return e.owner }

func (e *env) Route() *phase.Route { return &e.r.Route }

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
	key := "upstreams/" + id
	e.depends(key)
	if u := e.st.sharedUpstream(key); u != nil {
		return u, true
	}
	return nil, false
}

func (e *env) Shared(part string, make func(before any) any) any {
	// State belongs to the document that holds the configuration, so that routes of one service share its counters.
	key := e.plugin + "/" + part
	staged := e.st.state[e.owner]
	if staged == nil {
		staged = map[string]any{}
		e.st.state[e.owner] = staged
	}
	if _, done := staged[key]; !done {
		staged[key] = make(e.st.c.state[e.owner][key])
	}
	return staged[key]
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
	hosts := append([]string{""}, e.doc.Hosts...)
	if e.serves != nil {
		hosts = append(hosts, e.serves.Hosts...)
	}
	rec := &recorder{}
	for _, uri := range e.doc.URIs {
		for _, host := range hosts {
			labels.MatchedURI, labels.MatchedHost = uri, host
			rec.series = append(rec.series, matched{uri, host, e.st.c.opt.Meter.Route(labels)})
		}
	}
	return rec
}

// recorder records into the series of the pattern that the request matched.
type recorder struct {
	series []matched
}

type matched struct {
	uri, host string
	*meter.RouteSeries
}

func (r *recorder) Record(x *phase.Exchange) {
	s := r.series[0].RouteSeries
	for i := range r.series {
		if r.series[i].uri == x.Match.URI && r.series[i].host == x.Match.Host {
			s = r.series[i].RouteSeries
			break
		}
	}
	source := meter.SourceAPISIX
	switch x.Response.Source {
	case phase.FromGateway:
		source = meter.SourceNginx
	case phase.FromUpstream:
		source = meter.SourceUpstream
	}
	s.Observe(meter.Observation{
		Code: x.Response.Status, Node: x.Attempts.Node, Consumer: x.Consumer.Name, Source: source,
		Request: x.Elapsed(), Upstream: x.Attempts.Took(), HasUpstream: x.Attempts.Count > 0,
		In: x.Request.Length, Out: x.Response.Sent,
	})
}

var _ phase.Env = (*env)(nil)
