//go:build !race

package trafficlabel

import (
	"testing"

	"headgate/proxy/phase"
	"headgate/proxy/phase/phasetest"
)

func TestAllocatesNothing(t *testing.T) {
	var e phasetest.Env
	p := e.Build(t, Kind(), `{"rules":[{"match":[["arg_v","==","2"]],"actions":[{"weight":1}]},`+
		`{"match":[["arg_v","==","1"]],"actions":[{"set_headers":{"X-L":"one-$arg_v"},"weight":2},{"set_headers":{"X-L":"two"}}]}]}`)
	chain := phase.NewChainOf([]phase.Instance{{Plugin: p}}, nil, e.Slots)
	x := phasetest.Exchange("GET /")
	settings, query, panicked := x.Settings(), []byte("v=1"), func(r any) { panic(r) }
	run := func() {
		x.Reset()
		x.Begin(settings)
		x.Request.Query = query
		x.Enter(nil, chain)
		x.Access()
		x.Finish(panicked)
	}
	run()
	if n := testing.AllocsPerRun(200, run); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
