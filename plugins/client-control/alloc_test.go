//go:build !race

package clientcontrol

import (
	"testing"

	"headgate/proxy/phase"
	"headgate/proxy/phase/phasetest"
)

func TestRewriteAllocatesNothing(t *testing.T) {
	p := (&phasetest.Env{}).Build(t, Kind(), `{"max_body_size":5}`).(phase.Rewriter)
	x := phasetest.Exchange("POST /a")
	x.Request.Body = []byte("12345")
	if n := testing.AllocsPerRun(200, func() { p.Rewrite(x) }); n != 0 || x.Response.Status != 0 {
		t.Errorf("%v allocations, status %d", n, x.Response.Status)
	}
}
