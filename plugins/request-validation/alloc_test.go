//go:build !race

package requestvalidation

import (
	"testing"

	"headgate/proxy/phase"
	"headgate/proxy/phase/phasetest"
)

// A request that passes costs the decoded form of what was judged: it grows with the lines and members and with nothing else.
func TestAllocations(t *testing.T) {
	for _, tt := range []struct {
		conf, body string
		atMost     float64
	}{
		{`{"header_schema":{"required":["x-a"],"properties":{"x-a":{"type":"string","pattern":"^b"}}}}`, ``, 12},
		{`{"body_schema":` + person + `}`, `{"name":"ab","n":1}`, 35},
	} {
		var e phasetest.Env
		p := e.Build(t, Kind(), tt.conf).(phase.Rewriter)
		x := phasetest.Exchange("POST /", "X-A: bc", asJSON)
		body := []byte(tt.body)
		n := testing.AllocsPerRun(100, func() {
			x.Request.Body = body
			if p.Rewrite(x) == phase.Stop {
				panic(phasetest.Answer(x))
			}
		})
		t.Logf("%s: %v allocations", tt.conf, n)
		if n > tt.atMost {
			t.Errorf("%s: %v allocations, want at most %v", tt.conf, n, tt.atMost)
		}
	}
}
