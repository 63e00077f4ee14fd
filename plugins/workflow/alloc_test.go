//go:build !race

package workflow

import (
	"testing"

	"headgate/proxy/phase"
	"headgate/proxy/phase/phasetest"
)

func TestAllocatesNothing(t *testing.T) {
	e := &phasetest.Env{Kinds: []phase.Kind{{Name: limitCount, Build: func([]byte, phase.Env) (any, error) { return open{}, nil }}}}
	p := e.Build(t, Kind(), `{"rules":[{"case":[["arg_a","==","2"]],"actions":[["return",{"code":401}]]},`+
		`{"case":[["arg_a","==","1"]],"actions":[["limit-count",{}]]}]}`)
	chain := phase.NewChainOf([]phase.Instance{{Plugin: p}}, nil, e.Slots)
	x := phasetest.Exchange("GET /")
	settings, query, panicked := x.Settings(), []byte("a=1"), func(r any) { panic(r) }
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

// open lets every request pass.
type open struct{}

func (open) Access(*phase.Exchange) phase.Verdict { return phase.Continue }
