//go:build !race

package publicapi

import (
	"testing"

	"headgate/proxy/phase"
	"headgate/proxy/phase/phasetest"
)

func TestAccessAllocatesNothing(t *testing.T) {
	var e phasetest.Env
	p := e.Build(t, Kind(map[string]Handler{"/a": func(*phase.Exchange) {}}), `{}`).(phase.Accessor)
	x := phasetest.Exchange("GET /a")
	if n := testing.AllocsPerRun(200, func() { p.Access(x) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
