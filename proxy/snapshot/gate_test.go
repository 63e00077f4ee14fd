package snapshot

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"headgate/balancer"
	"headgate/proxy/phase"
)

// TestGatesOfBranches: a gate belongs to the document that holds the split, survives its edits, is shared by the routes that use it, and goes
// with the last of them.
func TestGatesOfBranches(t *testing.T) {
	r := newRig(t)
	route := func(uri, more string) string { return `{"uri":"` + uri + `"` + more + `}` }
	const split = `,"plugins":{"high":{"id":"a","branch":"v1"}}`
	r.put("routes/1", route("/1", split), "services/1", `{"plugins":{"high":{"id":"s","branch":"v1"}}}`,
		"routes/2", route("/2", `,"service_id":"1"`), "routes/3", route("/3", `,"service_id":"1"`), "consumers/jack",
		`{"username":"jack","plugins":{"high":{"id":"c","branch":"v1"}}}`, "global_rules/1", `{"plugins":{"low":{"id":"g","branch":"v1"}}}`)
	want := "map[branch v1 of consumers/jack:1 branch v1 of global_rules/1:1 branch v1 of routes/1:1 branch v1 of services/1:2]"
	if got := fmt.Sprint(r.gateRefs()); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	gate := r.plugin("/1", "high").gate
	if r.plugin("/2", "high").gate != r.plugin("/3", "high").gate || r.plugin("/2", "high").gate == gate {
		t.Error("not shared by the routes of the service")
	}
	r.put("routes/1", route("/1", `,"plugins":{"high":{"id":"b","branch":"v1"}}`))
	if r.plugin("/1", "high").gate != gate {
		t.Error("lost by an edit")
	}
	r.refuse("told to fail", "routes/1", route("/1", `,"plugins":{"high":{"id":"c","branch":"v2"},"mid":{"fail":true}}`))
	r.put("routes/1", route("/1", ""), "routes/2", "", "consumers/jack", "", "global_rules/1", "")
	if got := fmt.Sprint(r.gateRefs()); got != "map[branch v1 of services/1:1]" {
		t.Errorf("after the edits: %s", got)
	}
}

// TestGatesOfRoutes: a route has none until somebody asks, one however many ask, and a new version of it gets the same.
func TestGatesOfRoutes(t *testing.T) {
	r := newRig(t)
	r.put("routes/1", `{"uri":"/1"}`, "routes/2", `{"uri":"/2"}`)
	if len(r.gateRefs()) != 0 || r.must("/1").Guard() != nil {
		t.Error("made before anybody has asked")
	}
	if r.c.GuardRoute("routes/3") || !r.c.GuardRoute("routes/1") {
		t.Error("which routes are in force is not known")
	}
	gate := r.must("/1").Guard()
	var asked sync.WaitGroup
	for range 16 {
		asked.Go(func() {
			x := &phase.Exchange{Route: &r.must("/2").Route}
			if g := x.RouteGate(); g == nil || g != r.must("/2").Guard() {
				t.Error("not the route's gate")
			}
		})
	}
	asked.Wait()
	r.put("routes/1", `{"uri":"/1","desc":"edited"}`)
	if r.must("/1").Guard() != gate {
		t.Error("lost by an edit")
	}
	if got := fmt.Sprint(r.gateRefs()); got != "map[routes/1:1 routes/2:1]" {
		t.Errorf("got %s", got)
	}
	if _, err := r.hub.Gates().Impose(balancer.Target{Scope: balancer.OfRoute, Owner: "routes/1"}, time.Hour, "test"); err != nil {
		t.Fatal(err)
	}
	r.put("routes/1", "", "routes/2", "")
	if len(r.gateRefs()) != 0 {
		t.Errorf("left behind: %v", r.gateRefs())
	}
	r.put("routes/1", `{"uri":"/1"}`)
	if g := r.must("/1").Guard(); g == nil || g.Quarantined() == 0 {
		t.Error("a route that is made anew has slipped out of its quarantine")
	}
}
