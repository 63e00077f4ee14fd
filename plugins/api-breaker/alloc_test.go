//go:build !race

package apibreaker

import (
	"testing"

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
