//go:build !race

package iprestriction

import (
	"testing"

	"headgate/proxy/phase"
	"headgate/proxy/phase/phasetest"
)

func TestAccessAllocatesNothing(t *testing.T) {
	for _, conf := range []string{`{"blacklist":["10.0.0.0/8"]}`, long(10000)} {
		p := instance(t, conf).Plugin.(phase.Accessor)
		x := phasetest.Exchange("GET /a")
		if n := testing.AllocsPerRun(200, func() { p.Access(x) }); n != 0 || x.Response.Status != 0 {
			t.Errorf("%v allocations, status %d", n, x.Response.Status)
		}
	}
}
