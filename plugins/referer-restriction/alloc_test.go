//go:build !race

package refererrestriction

import (
	"testing"

	"headgate/proxy/phase"
	"headgate/proxy/phase/phasetest"
)

func TestAccessAllocatesNothing(t *testing.T) {
	p := instance(t, `{"whitelist":["yy.com","*.xx.com"]}`).Plugin.(phase.Accessor)
	for _, referer := range []string{"http://YY.com/a", "https://a.xx.com:8443"} {
		x := phasetest.Exchange("GET /a", "Referer: "+referer)
		if n := testing.AllocsPerRun(200, func() { p.Access(x) }); n != 0 || x.Response.Status != 0 {
			t.Errorf("%s: %v allocations, status %d", referer, n, x.Response.Status)
		}
	}
}
