//go:build !race

package mocking

import (
	"testing"

	"headgate/proxy/phase"
	"headgate/proxy/phase/phasetest"
)

func TestAccessAllocatesNothing(t *testing.T) {
	const schema = `{"properties":{"a":{"type":"string"},"l":{"type":"array","items":{"type":"object","properties":{"n":{"type":"number"}}}}}}`
	for _, conf := range []string{
		`{"response_example":"$uri","response_headers":{"X-A":"$host"}}`, `{"response_schema":` + schema + `}`,
		`{"response_schema":` + schema + `,"content_type":"text/xml"}`,
	} {
		p := (&phasetest.Env{}).Build(t, Kind(), conf).(phase.Accessor)
		x := phasetest.Exchange("GET /a")
		settings, q := x.Settings(), x.Request
		round := func() {
			x.Reset()
			x.Begin(settings)
			x.Request.Path, x.Request.Host = q.Path, q.Host
			p.Access(x)
		}
		for range 50 { // until the memory fits the longest body
			round()
		}
		if n := testing.AllocsPerRun(200, round); n != 0 {
			t.Errorf("%s: %v allocations", conf, n)
		}
	}
}
