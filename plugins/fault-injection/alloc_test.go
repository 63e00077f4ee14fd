//go:build !race

package faultinjection

import (
	"testing"

	"headgate/proxy/phase"
	"headgate/proxy/phase/phasetest"
)

func TestRewriteAllocatesNothing(t *testing.T) {
	for _, conf := range []string{
		`{"abort":{"http_status":418,"vars":[[["arg_a","==","1"]],[["http_x_c","==","1"]]]}}`,
		`{"delay":{"duration":0,"percentage":50},"abort":{"http_status":418,"percentage":0}}`,
		`{"abort":{"http_status":503,"body":"$uri","headers":{"X-A":"$host"}}}`,
	} {
		p := instance(t, conf).Plugin.(phase.Rewriter)
		x := phasetest.Exchange("GET /a?b=1")
		settings, q := x.Settings(), x.Request
		round := func() {
			x.Reset()
			x.Begin(settings)
			x.Request.Method, x.Request.Path, x.Request.Query, x.Request.Host = q.Method, q.Path, q.Query, q.Host
			p.Rewrite(x)
		}
		round()
		if n := testing.AllocsPerRun(200, round); n != 0 {
			t.Errorf("%s: %v allocations", conf, n)
		}
	}
}
