//go:build !race

package uarestriction

import (
	"testing"

	"headgate/proxy/phase"
	"headgate/proxy/phase/phasetest"
)

func TestAccessAllocatesNothing(t *testing.T) {
	for _, conf := range []string{`{"denylist":["my-bot1","(Baiduspider)/(\\d+)\\.(\\d+)"]}`, `{"allowlist":["^none","^Mozilla/[45]"]}`} {
		p := instance(t, conf).Plugin.(phase.Accessor)
		x := phasetest.Exchange("GET /a", "User-Agent: Mozilla/5.0 (X11; Linux x86_64)")
		if n := testing.AllocsPerRun(200, func() { p.Access(x) }); n != 0 || x.Response.Status != 0 {
			t.Errorf("%s: %v allocations, status %d", conf, n, x.Response.Status)
		}
	}
}
