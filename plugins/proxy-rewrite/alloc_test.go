//go:build !race

package proxyrewrite

import (
	"testing"

	"headgate/proxy/phase"
	"headgate/proxy/phase/phasetest"
)

func TestRewriteAllocatesNothing(t *testing.T) {
	for _, conf := range []string{
		`{"uri":"/v1$uri","method":"POST","host":"up.example","headers":{"set":{"X-Client":"$remote_addr"},"add":{"X-Tag":"edge"},"remove":["User-Agent"]}}`,
		`{"regex_uri":["^/chat/(.*)","/v2/$1"]}`,
	} {
		e := &phasetest.Env{}
		p := e.Build(t, Kind(), conf).(phase.Rewriter)
		from, x := phasetest.Exchange("GET /chat/completions?a=b", "User-Agent: test", "X-Own: 1"), &phase.Exchange{}
		round := func() {
			phasetest.Refill(x, from, e)
			if p.Rewrite(x) == phase.Stop || len(x.Request.OutTarget) == 0 {
				t.Fatalf("%s: nothing was rewritten", conf)
			}
		}
		round()
		if n := testing.AllocsPerRun(200, round); n != 0 {
			t.Errorf("%s: %v allocations", conf, n)
		}
	}
}
