package trafficsplit

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"headgate/balancer"
	"headgate/proxy/fault"
	"headgate/proxy/phase"
	"headgate/proxy/phase/phasetest"
)

const threeBranches = `{"rules":[{"weighted_upstreams":[{"name":"a","upstream_id":"1","weight":60},{"name":"b","upstream_id":"2","weight":30},{"weight":10}]}]}`

func (e *fakeEnv) target(branch string) balancer.Target {
	return balancer.Target{Scope: balancer.OfBranch, Owner: "routes/1", Name: branch}
}

// TestShutBranch: the others share what a branch leaves that an operator has shut, the route's own upstream among them, in every instance of
// the configuration; without any left the answer is 503.
func TestShutBranch(t *testing.T) {
	e := newEnv("1", "2")
	before := built(t, e, threeBranches)
	q, err := e.gates.Impose(e.target("a"), time.Minute, "test")
	if err != nil {
		t.Fatal(err)
	}
	after := built(t, e, threeBranches) // a later version of the route
	for _, p := range []*plugin{before, after} {
		got := tally(p, 1000)
		if got["a@1"] != 0 || got["b@2"] != 750 || got["default"] != 250 {
			t.Errorf("got %v", got)
		}
	}
	e.gates.Lift(q.ID)
	if got := tally(after, 100); got["a@1"] != 60 {
		t.Errorf("lifted: %v", got)
	}
	for _, name := range []string{"a", "b", "default"} {
		if _, err := e.gates.Impose(e.target(name), time.Minute, "test"); err != nil {
			t.Fatal(err)
		}
	}
	x := &phase.Exchange{}
	prepare(x, "/a")
	if v := after.Access(x); v != phase.Stop || x.Response.Status != 503 || x.Fault != fault.Quarantined {
		t.Errorf("all are shut: %v, %d", v, x.Response.Status)
	}
	if wait, ok := x.Response.Header.Get("Retry-After"); !ok || len(wait) == 0 {
		t.Error("it does not say when to come back")
	}
}

// TestExplainShutBranches: what is shut is shown, and not chosen.
func TestExplainShutBranches(t *testing.T) {
	e := newEnv("1", "2")
	p := built(t, e, threeBranches)
	explain := func() *phase.Choice {
		x := &phase.Exchange{}
		prepare(x, "/a")
		return p.Explain(x)
	}
	if c := explain(); c.Next != "a" || c.Branches[0].State != "" {
		t.Errorf("%+v", c)
	}
	for i, name := range []string{"a", "b"} {
		if _, err := e.gates.Impose(e.target(name), time.Minute, "test"); err != nil {
			t.Fatal(err)
		}
		c := explain()
		if want := []string{"b", "default"}[i]; c.Next != want || c.Branches[i].State != "quarantined" {
			t.Errorf("without %s: %+v", name, c)
		}
	}
	if _, err := e.gates.Impose(e.target("default"), time.Minute, "test"); err != nil {
		t.Fatal(err)
	}
	if c := explain(); c.Next != "" || c.Status != 503 || !strings.HasSuffix(c.Why, "all its branches are in quarantine") {
		t.Errorf("all are shut: %+v", c)
	}
}

// TestStickyAndShut: the clients of a branch that is shut go to the others, each always to the same one, nobody else moves, and they come back.
func TestStickyAndShut(t *testing.T) {
	e := &phasetest.Env{}
	p := e.Build(t, Kind(), bySession)
	const keys = 500
	where := func() (got [keys]string) {
		for k := range keys {
			line := fmt.Sprintf("X-Session-Id: s%d", k)
			x := phasetest.Exchange("GET /", line)
			x.Upstream, x.Branch = own, own.Name()
			c := p.(decider).Explain(x)
			if got[k] = serve(phasetest.Exchange("GET /", line), e, p); c.Next != got[k] {
				t.Fatalf("s%d went to %s, and %+v was foreseen", k, got[k], c)
			}
		}
		return got
	}
	before := where()
	q, err := e.Gates.Impose(balancer.Target{Scope: balancer.OfBranch, Owner: "routes/1", Name: "a"}, time.Minute, "test")
	if err != nil {
		t.Fatal(err)
	}
	during := where()
	moved := map[string]int{}
	for k := range keys {
		switch {
		case before[k] == "a":
			moved[during[k]]++
		case during[k] != before[k]:
			t.Errorf("s%d moved from %s to %s", k, before[k], during[k])
		}
	}
	if moved["a"] != 0 || moved["b"] == 0 || moved["c"] == 0 || moved["d"] != 0 {
		t.Errorf("moved to %v", moved)
	}
	if where() != during {
		t.Error("not always to the same")
	}
	e.Gates.Lift(q.ID)
	if where() != before {
		t.Error("not back")
	}
}
