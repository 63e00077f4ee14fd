//go:build !race

package forwardauth

import (
	"net/http/httptest"
	"testing"

	"headgate/proxy/phase"
	"headgate/proxy/phase/phasetest"
)

// A sub-request is an exchange of its own: what it costs here, the service in the same process included, must not grow unnoticed.
func TestAllocations(t *testing.T) {
	s := newService(t, (*httptest.Server).Start)
	var e phasetest.Env
	p := e.Build(t, Kind(), `{"uri":"`+s.URL+`/other","request_headers":["Authorization"]}`)
	defer p.(phase.Closer).Close()
	x := phasetest.Exchange("GET /a?x=1", "Authorization: x")
	n := testing.AllocsPerRun(50, func() {
		if p.(phase.Rewriter).Rewrite(x) == phase.Stop {
			panic("refused")
		}
	})
	t.Logf("%v allocations", n)
	if n > 200 {
		t.Errorf("%v allocations", n)
	}
}
