//go:build !race

package requestid

import (
	"testing"

	"headgate/proxy/phase"
	"headgate/proxy/phase/phasetest"
)

func TestExchangeAllocatesNothing(t *testing.T) {
	for _, conf := range []string{`{}`, `{"algorithm":"uuidv7"}`, `{"algorithm":"nanoid"}`, `{"algorithm":"range_id"}`, `{"algorithm":"ksuid"}`} {
		env := &phasetest.Env{}
		p := env.Build(t, Kind(), conf) // reserves the slots
		chain := phase.NewChainOf([]phase.Instance{{Name: "request-id", Plugin: p}}, nil, env.Slots)
		x := phasetest.Exchange("GET /")
		settings := x.Settings()
		round := func() {
			x.Reset()
			x.Begin(settings)
			x.Enter(nil, chain)
			x.Rewrite()
			x.Respond()
		}
		round()
		if n := testing.AllocsPerRun(200, round); n != 0 || x.Response.Header.Len() != 1 {
			t.Errorf("%s: %v allocations, %d lines", conf, n, x.Response.Header.Len())
		}
	}
}
