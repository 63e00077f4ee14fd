//go:build !race

package errorpage

import (
	"testing"

	"headgate/proxy/phase"
	"headgate/proxy/phase/phasetest"
)

func TestResponseAllocatesNothing(t *testing.T) {
	e := phasetest.Env{Meta: `{"enable":true,"error_404":{}}`}
	p := e.Build(t, Kind(), `{}`).(phase.Responder)
	x := phasetest.Exchange("GET /")
	for _, status := range []int{200, 404} {
		run := func() {
			x.Response.Status, x.Response.Source = status, phase.FromPlugin
			p.Response(x)
		}
		run()
		if n := testing.AllocsPerRun(200, run); n != 0 {
			t.Errorf("%d: %v allocations", status, n)
		}
	}
}
