//go:build !race

package proxybuffering

import (
	"testing"

	"headgate/proxy/phase"
	"headgate/proxy/phase/phasetest"
)

func TestRewriteAllocatesNothing(t *testing.T) {
	var e phasetest.Env
	p := e.Build(t, Kind(), `{"disable_proxy_buffering":true}`).(phase.Rewriter)
	x := phasetest.Exchange("GET /a")
	if n := testing.AllocsPerRun(200, func() { p.Rewrite(x) }); n != 0 || x.Response.Status != 0 {
		t.Errorf("%v allocations, status %d", n, x.Response.Status)
	}
}
