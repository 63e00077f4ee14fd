package meter

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"
)

func TestRouteSeries(t *testing.T) {
	r := New("")
	s := r.Route(RouteLabels{Route: "p1", MatchedURI: "/pm*", MatchedHost: "a.example", Service: "s1"})
	s.Observe(Observation{
		Code: 200, Node: "127.0.0.1", Source: SourceUpstream, Consumer: "jack",
		Request: 60 * time.Second, Upstream: 1500 * time.Microsecond, HasUpstream: true, In: 100, Out: 2000,
	})
	// The golden lines of the contract's group plugin/prometheus.
	shared := `route="p1",service="s1",consumer="jack",node="127.0.0.1",request_type="traditional_http",request_llm_model="",llm_model=""`
	e, _ := scrape(t, r)
	wantSamples(t, e, map[string]string{
		`apisix_http_status{code="200",route="p1",matched_uri="/pm*",matched_host="a.example",service="s1",consumer="jack",node="127.0.0.1",request_type="traditional_http",request_llm_model="",llm_model="",response_source="upstream"}`: "1",
		`apisix_http_latency_count{type="request",` + shared + `}`:             "1",
		`apisix_http_latency_sum{type="request",` + shared + `}`:               "60000",
		`apisix_http_latency_bucket{type="request",` + shared + `,le="30000"}`: "0",
		`apisix_http_latency_bucket{type="request",` + shared + `,le="60000"}`: "1",
		`apisix_http_latency_sum{type="upstream",` + shared + `}`:              "1.5",
		`apisix_http_latency_bucket{type="upstream",` + shared + `,le="1"}`:    "0",
		`apisix_http_latency_bucket{type="upstream",` + shared + `,le="2"}`:    "1",
		`apisix_http_latency_sum{type="apisix",` + shared + `}`:                "59998.5",
		`apisix_http_latency_bucket{type="apisix",` + shared + `,le="+Inf"}`:   "1",
		`apisix_bandwidth{type="ingress",` + shared + `}`:                      "100",
		`apisix_bandwidth{type="egress",` + shared + `}`:                       "2000",
	})
}

func TestRouteSeriesWithoutRouteOrUpstream(t *testing.T) {
	r := New("")
	s := r.Route(RouteLabels{})
	s.Observe(Observation{Code: 404, Request: 3 * time.Millisecond})
	e, text := scrape(t, r)
	shared := `route="",service="",consumer="",node="",request_type="traditional_http",request_llm_model="",llm_model=""`
	wantSamples(t, e, map[string]string{
		`apisix_http_status{code="404",route="",matched_uri="",matched_host="",service="",consumer="",node="",request_type="traditional_http",request_llm_model="",llm_model="",response_source="apisix"}`: "1",
		`apisix_http_latency_sum{type="apisix",` + shared + `}`: "3",
	})
	if strings.Contains(text, `type="upstream"`) {
		t.Error("upstream latency of a request that was never proxied")
	}
	// The same combination reaches an upstream later; clocks that disagree do not make the gateway's share negative.
	s.Observe(Observation{Code: 404, Request: time.Millisecond, Upstream: 2 * time.Millisecond, HasUpstream: true})
	e, _ = scrape(t, r)
	wantSamples(t, e, map[string]string{
		`apisix_http_latency_sum{type="apisix",` + shared + `}`:     "3",
		`apisix_http_latency_count{type="apisix",` + shared + `}`:   "2",
		`apisix_http_latency_count{type="upstream",` + shared + `}`: "1",
	})
}

func TestCombinationsAreKeptApart(t *testing.T) {
	r := New("")
	s := r.Route(RouteLabels{Route: "1"})
	base := Observation{Code: 200, Node: "n", Consumer: "c", RequestType: AIChat, RequestModel: "m", Model: "m2", Source: SourceUpstream}
	variants := []Observation{base}
	for _, change := range []func(o *Observation){
		func(o *Observation) { o.Code = 201 },
		func(o *Observation) { o.Node, o.Consumer = "c", "n" },
		func(o *Observation) { o.RequestType = AIStream },
		func(o *Observation) { o.RequestType = "ai_chas" }, // as long as ai_chat
		func(o *Observation) { o.RequestModel, o.Model = "m2", "m" },
		func(o *Observation) { o.Model = "" },
		func(o *Observation) { o.Source = SourceNginx },
	} {
		o := base
		change(&o)
		variants = append(variants, o)
	}
	for i, o := range variants {
		for range i + 1 {
			s.Observe(o)
		}
	}
	e, _ := scrape(t, r)
	seen := map[string]bool{}
	for series, value := range e.samples {
		if strings.HasPrefix(series, "apisix_http_status{") {
			seen[value] = true
		}
	}
	if len(seen) != len(variants) {
		t.Errorf("%d series with %d different counts: %v", len(variants), len(seen), seen)
	}
}

func TestObservationMemoryIsNotKept(t *testing.T) {
	r := New("")
	s := r.Route(RouteLabels{Route: "1"})
	buf := []byte("10.0.0.1")
	view := unsafe.String(unsafe.SliceData(buf), len(buf)) // as fasthttp users pass them around
	s.Observe(Observation{Code: 200, Node: view})
	copy(buf, "6.6.6.66")
	s.Observe(Observation{Code: 200, Node: "10.0.0.1"})
	s.Observe(Observation{Code: 200, Node: "6.6.6.66"})
	if used := s.table.Load().used.Load(); used != 2 {
		t.Errorf("%d combinations of 2 nodes: a key changed with the request's memory", used)
	}
	e, _ := scrape(t, r)
	const format = `apisix_http_status{code="200",route="1",matched_uri="",matched_host="",service="",consumer="",node="%s",request_type="traditional_http",request_llm_model="",llm_model="",response_source="apisix"}`
	wantSamples(t, e, map[string]string{fmt.Sprintf(format, "10.0.0.1"): "2", fmt.Sprintf(format, "6.6.6.66"): "1"})
}

func TestModelsAreCut(t *testing.T) {
	for in, want := range map[string]string{
		"gpt":                          "gpt",
		strings.Repeat("a", 128):       strings.Repeat("a", 128),
		strings.Repeat("a", 129):       strings.Repeat("a", 128),
		strings.Repeat("a", 127) + "é": strings.Repeat("a", 127),
		strings.Repeat("\x80", 200):    strings.Repeat("\x80", 124),
	} {
		if got := cutModel(in); got != want {
			t.Errorf("cutModel(%q) = %q", in, got)
		}
	}
}

func TestRouteSeriesSurvivesReload(t *testing.T) {
	r := New("")
	l := RouteLabels{Route: "1", MatchedURI: "/*"}
	if first, second := r.Route(l), r.Route(l); first != second {
		t.Error("a reload makes another series")
	}
	l.MatchedURI = "/b"
	other := r.Route(l)
	r.Route(RouteLabels{Route: "1", MatchedURI: "/*"}).Observe(Observation{Code: 200, Out: 1})
	other.Observe(Observation{Code: 200, Out: 1})
	e, _ := scrape(t, r)
	// bandwidth has no label matched_uri: both patterns of the route share it.
	wantSamples(t, e, map[string]string{
		`apisix_bandwidth{type="egress",route="1",service="",consumer="",node="",request_type="traditional_http",request_llm_model="",llm_model=""}`: "2",
	})
}

func TestClientsCannotMakeSeriesWithoutEnd(t *testing.T) {
	r := New("")
	r.maxCombinations = 50
	s := r.Route(RouteLabels{Route: "1"})
	for i := range 60 {
		s.Observe(Observation{Code: 200, Node: "n", RequestModel: fmt.Sprint("m", i)})
	}
	e, _ := scrape(t, r)
	const format = `apisix_http_status{code="200",route="1",matched_uri="",matched_host="",service="",consumer="",node="n",request_type="traditional_http",request_llm_model="%s",llm_model="",response_source="apisix"}`
	wantSamples(t, e, map[string]string{
		fmt.Sprintf(format, "m7"):                            "1",
		fmt.Sprintf(format, Other):                           "10",
		`apisix_metric_overflow_total{metric="http_status"}`: "10",
	})
	// Nodes and consumers fold later, what is left has a bound.
	for i := range 300 {
		s.Observe(Observation{Code: 100000 + i, Node: fmt.Sprint("n", i), RequestType: fmt.Sprint("t", i)})
	}
	if used := s.table.Load().used.Load(); used != 2*50+1 {
		t.Errorf("%d combinations", used)
	}
	o := Observation{Code: 200, Node: "n", RequestModel: "never seen"}
	if n := testing.AllocsPerRun(100, func() { s.Observe(o) }); n != 0 {
		t.Errorf("%v allocations per folded observation", n)
	}
}

func TestRoutesTogetherCannotMakeSeriesWithoutEnd(t *testing.T) {
	r := NewWith(Options{MaxSeries: 20})
	const routes = 10
	for route := range routes {
		s := r.Route(RouteLabels{Route: fmt.Sprint(route)})
		for i := range 10 {
			s.Observe(Observation{Code: 200, Node: "n", Consumer: "c", RequestModel: fmt.Sprint("m", i)})
		}
	}
	if n := r.combinations.Load(); n > 20+routes {
		t.Errorf("%d combinations of %d routes", n, routes)
	}
	_, text := scrape(t, r)
	if n := strings.Count(text, "\napisix_http_status{"); n != 20+1 {
		t.Errorf("%d series of http_status, want the limit and the one labelled other", n)
	}
}

func TestObserveConcurrently(t *testing.T) {
	r := New("")
	s := r.Route(RouteLabels{Route: "1"})
	const workers, rounds, nodes = 8, 500, 40
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for i := range rounds {
				s.Observe(Observation{Code: 200, Node: fmt.Sprint(i % nodes), Request: time.Millisecond, HasUpstream: i%2 == 0, In: 1})
			}
		})
	}
	wg.Wait()
	e, _ := scrape(t, r)
	total := 0
	for series, value := range e.samples {
		if strings.HasPrefix(series, "apisix_http_status{") {
			var n int
			fmt.Sscan(value, &n)
			total += n
		}
	}
	if total != workers*rounds {
		t.Errorf("%d requests counted, want %d", total, workers*rounds)
	}
}

func TestObserveDoesNotAllocate(t *testing.T) {
	s := New("").Route(RouteLabels{Route: "1", MatchedURI: "/*"})
	o := Observation{
		Code: 200, Node: "10.0.0.1", Consumer: "jack", RequestType: AIChat, RequestModel: "gpt-4", Model: "gpt-4-0613",
		Source: SourceUpstream, Request: 3 * time.Millisecond, Upstream: time.Millisecond, HasUpstream: true, In: 100, Out: 200,
	}
	s.Observe(o)
	if n := testing.AllocsPerRun(200, func() { s.Observe(o) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkObserve(b *testing.B) {
	s := New("").Route(RouteLabels{Route: "1", MatchedURI: "/*"})
	run := func(name string, o Observation) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				s.Observe(o)
			}
		})
	}
	o := Observation{Code: 200, Node: "10.0.0.1", Source: SourceUpstream, Request: 3 * time.Millisecond, Upstream: time.Millisecond, HasUpstream: true, In: 100, Out: 200}
	run("plain", o)
	o.Consumer, o.RequestType, o.RequestModel, o.Model = "jack", AIChat, "gpt-4", "gpt-4-0613"
	run("llm", o)
}

// A label that is disabled is left empty in its metric, and what differs in nothing else is counted together.
func TestDisabledLabels(t *testing.T) {
	r := New("")
	s := r.Route(RouteLabels{Route: "1", Disabled: Disabled{Status: LabelSetOf([]string{"node", "code", "no such label"}), Bandwidth: LabelSetOf([]string{"route"})}})
	s.Observe(Observation{Code: 200, Node: "10.0.0.1", In: 1})
	s.Observe(Observation{Code: 200, Node: "10.0.0.2", In: 2})
	var b strings.Builder
	if err := r.Write(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`apisix_http_status{code="200",route="1",matched_uri="",matched_host="",service="",consumer="",node="",request_type="traditional_http",request_llm_model="",llm_model="",response_source="apisix"} 2`,
		`apisix_bandwidth{type="ingress",route="",service="",consumer="",node="10.0.0.2",`,
		`apisix_http_latency_count{type="request",route="1",service="",consumer="",node="10.0.0.1",`,
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("there is no %s in\n%s", want, b.String())
		}
	}
}
