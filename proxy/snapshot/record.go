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

// labelling is how series are labelled.
type labelling struct {
	preferName bool
	disabled   meter.Disabled
}

// recorder records into the series of the pattern that the request matched.
type recorder struct {
	labelling
	uris, hosts []string
	series      []*meter.RouteSeries // for each of uris, one for each of hosts
	next        *recorder            // of the same route with another labelling
}

// recorder returns the route's series with a labelling. It is called while requests run, for plugins that serve many routes.
func (r *Route) recorder(m *meter.Registry, how labelling) *recorder {
	for {
		first := r.recorders.Load()
		for rec := first; rec != nil; rec = rec.next {
			if rec.labelling == how {
				return rec
			}
		}
		rec := r.newRecorder(m, how)
		rec.next = first
		if r.recorders.CompareAndSwap(first, rec) {
			return rec
		}
	}
}

func (r *Route) newRecorder(m *meter.Registry, how labelling) *recorder {
	labels := meter.RouteLabels{Route: r.ID, Service: r.ServiceID, Disabled: how.disabled}
	if how.preferName && r.Name != "" {
		labels.Route = r.Name
	}
	if how.preferName && r.ServiceName != "" {
		labels.Service = r.ServiceName
	}
	rec := &recorder{labelling: how, uris: r.rule.URIs, hosts: []string{""}}
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
	meter *meter.Registry
	labelling
	unrouted *recorder
}

// Record implements phase.Recorder.
func (r recorderOfAll) Record(x *phase.Exchange) {
	if x.Route != nil {
		if compiled, ok := x.Route.Compiled.(*Route); ok {
			compiled.recorder(r.meter, r.labelling).Record(x)
			return
		}
	}
	r.unrouted.Record(x)
}
