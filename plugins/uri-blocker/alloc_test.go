//go:build !race

package uriblocker

import (
	"testing"

	"headgate/proxy/phase"
	"headgate/proxy/phase/phasetest"
)

func TestRewriteAllocatesNothing(t *testing.T) {
	for _, conf := range []string{`{"block_rules":["root.exe","^/b/","union.*select"],"case_insensitive":true}`, `{"block_rules":["[0-9]+$"]}`} {
		p := instance(t, conf).Plugin.(phase.Rewriter)
		x := phasetest.Exchange("GET /v1/chat/completions?model=a")
		if n := testing.AllocsPerRun(200, func() { p.Rewrite(x) }); n != 0 || x.Response.Status != 0 {
			t.Errorf("%s: %v allocations, status %d", conf, n, x.Response.Status)
		}
	}
}
