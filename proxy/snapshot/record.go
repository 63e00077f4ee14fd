package snapshot

import (
	"slices"
	"strings"
	"sync"

	"headgate/proxy/meter"
	"headgate/proxy/phase"
	"headgate/proxy/route"
)

// counting implements phase.Counter.
type counting struct{ c *meter.Counter }

func (c counting) Inc(*phase.Exchange) { c.c.Inc() }

type uncounted struct{}

func (uncounted) Inc(*phase.Exchange) {}

// countingByRoute counts for a plugin that serves many routes. What it has for one of them is kept by that route and goes with it.
type countingByRoute struct {
	meter  *meter.Registry
	branch string
}

func (c *countingByRoute) Inc(x *phase.Exchange) {
	if x.Route == nil {
		return
	}
	r, ok := x.Route.Compiled.(*Route)
	if !ok {
		return
	}
	counters := r.counters.Load()
	if counters == nil {
		r.counters.CompareAndSwap(nil, new(sync.Map))
		counters = r.counters.Load()
	}
	got, ok := counters.Load(c)
	if !ok {
		got, _ = counters.LoadOrStore(c, c.meter.Branch(r.ID, c.branch))
	}
	got.(*meter.Counter).Inc()
}

// recorder records into the series of the pattern that the request matched.
type recorder struct {
	uris, hosts []string
	series      []*meter.RouteSeries // for each of uris, one for each of hosts
}

// recorder returns the route's series; those that are labelled with names are others than those with ids.
func (r *Route) recorder(m *meter.Registry, preferName bool) *recorder {
	kept := &r.recorders[0]
	if preferName {
		kept = &r.recorders[1]
	}
	if rec := kept.Load(); rec != nil {
		return rec
	}
	labels := meter.RouteLabels{Route: r.ID, Service: r.ServiceID}
	if preferName && r.Name != "" {
		labels.Route = r.Name
	}
	if preferName && r.ServiceName != "" {
		labels.Service = r.ServiceName
	}
	rec := &recorder{uris: r.rule.URIs, hosts: []string{""}}
	if hosts := r.rule.Hosts; len(hosts) > 0 {
		rec.hosts = make([]string, 0, len(hosts))
		for _, h := range hosts {
			rec.hosts = append(rec.hosts, strings.ToLower(h)) // as the router tells them
		}
	}
	for _, uri := range rec.uris {
		for _, host := range rec.hosts {
			labels.MatchedURI, labels.MatchedHost = uri, host
			rec.series = append(rec.series, m.Route(labels))
		}
	}
	kept.Store(rec)
	return rec
}

func (r *recorder) find(m *route.Match) *meter.RouteSeries {
	uri, host := max(slices.Index(r.uris, m.URI), 0), max(slices.Index(r.hosts, m.Host), 0)
	return r.series[uri*len(r.hosts)+host]
}

// Record implements phase.Recorder.
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

// recorderOfAll records for a plugin that serves many routes, and requests without any.
type recorderOfAll struct {
	meter      *meter.Registry
	preferName bool
	unrouted   *recorder
}

// Record implements phase.Recorder.
func (r recorderOfAll) Record(x *phase.Exchange) {
	if x.Route != nil {
		if compiled, ok := x.Route.Compiled.(*Route); ok {
			compiled.recorder(r.meter, r.preferName).Record(x)
			return
		}
	}
	r.unrouted.Record(x)
}
