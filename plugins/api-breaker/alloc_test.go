//go:build !race

package apibreaker

import (
	"testing"
	"time"

	"headgate/balancer"
	"headgate/proxy/phase"
	"headgate/proxy/phase/phasetest"
)

func TestAllocatesNothing(t *testing.T) {
	r := newRig()
	p := r.build(t, `{"break_response_code":503,"break_response_body":"later","break_response_headers":[{"key":"X-A","value":"$host"}],"unhealthy":{"failures":2}}`)
	chain := phase.NewChain([]phase.Instance{{Plugin: p}})
	x := phasetest.Exchange("GET /")
	settings, host, path, panicked := x.Settings(), []byte("a.test"), []byte("/a"), func(r any) { panic(r) }
	status, stopped := 200, 0
	run := func() {
		x.Reset()
		x.Begin(settings)
		x.Request.Host, x.Request.Path = host, path
		x.Enter(nil, chain)
		if x.Access() == phase.Continue {
			x.Attempts.Note(status)
		} else {
			stopped++
		}
		x.Finish(panicked)
		status = 700 - status // 200, 500, 200, ...
		r.now += 400_000_000
	}
	for range 4 {
		run()
	}
	if n := testing.AllocsPerRun(200, run); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if stopped == 0 {
		t.Error("the breaker never opened")
	}
}

// TestScopesAllocateNothing: what passes costs no allocation, whatever is counted, nor does what is turned away.
func TestScopesAllocateNothing(t *testing.T) {
	for _, scope := range []string{"route", "branch", "endpoint"} {
		r := newGuardRig()
		p := r.build(t, `{"break_response_code":503,"scope":"`+scope+`","unhealthy":{"failures":3,"error_ratio":0.9,"slow_ms":1000,"slow_ratio":0.5}}`)
		branch := r.gates.Acquire(balancer.Target{Scope: balancer.OfBranch, Owner: "routes/1", Name: "v1"})
		chain := phase.NewChain([]phase.Instance{{Plugin: p}})
		x := phasetest.Exchange("GET /")
		settings, panicked := x.Settings(), func(r any) { panic(r) }
		status, stopped := 200, 0
		run := func() {
			x.Reset()
			x.Begin(settings)
			x.Route = &r.route
			x.Enter(nil, chain)
			if x.Access() == phase.Continue {
				x.Attempts.Head = time.Millisecond
				x.EnterGate(branch, branch.Admit(0))
				x.Attempts.Note(status)
				x.Settle()
			} else {
				stopped++
			}
			x.Finish(panicked)
		}
		run()
		if n := testing.AllocsPerRun(200, run); n != 0 || stopped > 0 {
			t.Errorf("%s: %v allocations, %d turned away", scope, n, stopped)
		}
		status = 500
		for range 3 {
			run()
		}
		if n := testing.AllocsPerRun(200, run); n != 0 || (stopped > 0) != (scope == "route") {
			t.Errorf("%s: %v allocations after it has opened, %d turned away", scope, n, stopped)
		}
		if branch.View().State == balancer.Open != (scope == "branch") {
			t.Errorf("%s: the branch is %v", scope, branch.View().State)
		}
	}
}
