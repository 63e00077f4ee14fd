package meter

import (
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// seen is an observation with everything that makes series.
var seen = Observation{Code: 200, Node: "10.0.0.1", Request: 3 * time.Millisecond, Upstream: time.Millisecond, HasUpstream: true, In: 1, Out: 2}

// round observes through two patterns of a route and through a branch of it, and forgets them.
func round(r *Registry, id string) {
	r.Branch(id, "v1").Inc()
	for _, uri := range []string{"/a", "/b"} {
		r.Route(RouteLabels{Route: id, MatchedURI: uri}).Observe(seen)
	}
	r.ForgetRoutes([]string{id}, []string{id})
}

func TestForgottenRoutesLeaveNothing(t *testing.T) {
	r := New("")
	r.Route(RouteLabels{Route: "stays"}).Observe(seen)
	r.Branch("stays", "v1").Inc()
	_, before := scrape(t, r)
	combinations := r.combinations.Load()
	for i := range 1000 {
		round(r, "r"+strconv.Itoa(i))
		if i%250 == 0 { // expositions sort what there is
			scrape(t, r)
		}
	}
	if _, after := scrape(t, r); after != before {
		t.Errorf("the exposition was\n%s\nand is\n%s", before, after)
	}
	if n := r.combinations.Load(); n != combinations {
		t.Errorf("%d combinations, want %d", n, combinations)
	}
	if len(r.routes) != 1 || len(r.branches) != 1 {
		t.Errorf("%d routes and %d branches are known", len(r.routes), len(r.branches))
	}
	r.ForgetRoutes([]string{"stays", "never was"}, []string{"stays", "never was"})
	for name, f := range r.families {
		if strings.HasSuffix(name, MetricOverflow) {
			continue
		}
		if len(f.series)+len(f.list)+len(f.sorted) != 0 || cap(f.list) > 1 {
			t.Errorf("%s: %d series, %d listed (room for %d), %d sorted", name, len(f.series), len(f.list), cap(f.list), len(f.sorted))
		}
	}
	if n := r.combinations.Load(); n != 0 {
		t.Errorf("%d combinations are left", n)
	}
}

func TestForgettingMakesRoomUnderTheLimit(t *testing.T) {
	r := NewWith(Options{MaxSeries: 8})
	for i := range 100 {
		round(r, strconv.Itoa(i))
	}
	if _, text := scrape(t, r); strings.Contains(text, Other+`"`) || r.crowded.Value() != 0 {
		t.Errorf("routes that are gone took room:\n%s", text)
	}
}

func TestAForgottenRouteStartsAgain(t *testing.T) {
	r := New("")
	labels := RouteLabels{Route: "1", MatchedURI: "/a"}
	const status = `apisix_http_status{code="200",route="1",matched_uri="/a",matched_host="",service="",consumer="",node="10.0.0.1",request_type="traditional_http",request_llm_model="",llm_model="",response_source="apisix"}`
	const requests = `apisix_http_requests_total{route="1",upstream="v1"}`
	old, oldBranch := r.Route(labels), r.Branch("1", "v1")
	for range 3 {
		old.Observe(seen)
		oldBranch.Inc()
	}
	r.ForgetRoutes([]string{"1"}, []string{"1"})

	// Exchanges under way go on with what they have, also into combinations that are new.
	_, before := scrape(t, r)
	old.Observe(seen)
	oldBranch.Inc()
	other := seen
	other.Code = 500
	old.Observe(other)
	late := seen
	late.Code, late.HasUpstream = 404, false
	old.Observe(late)
	late.HasUpstream = true
	old.Observe(late)
	if _, after := scrape(t, r); after != before || strings.Contains(after, `route="1"`) {
		t.Errorf("a forgotten route is shown:\n%s", after)
	}
	if n := r.combinations.Load(); n != 0 {
		t.Errorf("%d combinations of forgotten routes are counted", n)
	}

	again := r.Route(labels)
	r.Branch("1", "v1")
	e, _ := scrape(t, r)
	wantSamples(t, e, map[string]string{requests: "0"})
	again.Observe(seen)
	old.Observe(seen)
	oldBranch.Inc()
	e, text := scrape(t, r) // scrape refuses a series that is there twice
	wantSamples(t, e, map[string]string{status: "1", requests: "0"})
	if strings.Contains(text, `code="500"`) {
		t.Error("the combinations of the route that was forgotten came back")
	}
	if n := r.combinations.Load(); n != 1 {
		t.Errorf("%d combinations, want 1", n)
	}
}

func TestBranchesAndRouteLabelsAreForgottenApart(t *testing.T) {
	r := New("")
	r.Branch("1", "v1").Inc()
	r.Route(RouteLabels{Route: "1"}).Observe(seen)
	r.ForgetRoutes([]string{"1"}, nil)
	if _, text := scrape(t, r); strings.Contains(text, HTTPRequests+"{") || !strings.Contains(text, HTTPStatus+"{") {
		t.Errorf("want the branch gone and the rest there:\n%s", text)
	}
	r.Branch("1", "v1").Inc()
	r.ForgetRoutes(nil, []string{"1"})
	if _, text := scrape(t, r); !strings.Contains(text, HTTPRequests+"{") || strings.Contains(text, HTTPStatus+"{") || strings.Contains(text, HTTPLatency+"_") {
		t.Errorf("want the branch there and the rest gone:\n%s", text)
	}
}

func TestTheSeriesOfTheOthersIsNotForgotten(t *testing.T) {
	r := NewWith(Options{MaxSeries: 1})
	r.Branch(Other, Other).Inc() // a route may be called so
	r.Branch("2", "v1").Inc()    // no room: counted by the same series
	r.ForgetRoutes([]string{Other, "2"}, nil)
	e, _ := scrape(t, r)
	wantSamples(t, e, map[string]string{`apisix_http_requests_total{route="other",upstream="other"}`: "2"})
}

func TestObserveWhileForgotten(t *testing.T) {
	r := New("")
	labels := RouteLabels{Route: "1"}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for w := range 3 {
		wg.Go(func() {
			o := seen
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				s := r.Route(labels)
				for j := range 20 {
					o.Code = 200 + (w+i+j)%30
					o.HasUpstream = j%2 == 0
					s.Observe(o)
				}
				r.Branch("1", "v"+strconv.Itoa(i%3)).Inc()
			}
		})
	}
	for i := range 200 {
		r.ForgetRoutes([]string{"1"}, []string{"1"})
		if i%20 == 0 {
			scrape(t, r)
		}
	}
	close(stop)
	wg.Wait()
	r.ForgetRoutes([]string{"1"}, []string{"1"})
	if _, text := scrape(t, r); strings.Contains(text, `route="1"`) {
		t.Errorf("series are left:\n%s", text)
	}
	if n := r.combinations.Load(); n != 0 {
		t.Errorf("%d combinations are left", n)
	}
}

func TestForgottenWhileSorted(t *testing.T) {
	r := New("")
	r.Branch("1", "v1").Inc()
	list, stale := r.copyFamilies()
	r.ForgetRoutes([]string{"1"}, nil)
	r.keepSorted(list, stale)
	r.Branch("2", "v1").Inc()
	if _, text := scrape(t, r); strings.Contains(text, `route="1"`) || !strings.Contains(text, `route="2"`) {
		t.Errorf("want the second route alone:\n%s", text)
	}
}
