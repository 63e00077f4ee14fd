//go:build !race

package gzip

import (
	"testing"

	"headgate/proxy/phase"
	"headgate/proxy/phase/phasetest"
)

// Neither an answer that stays as it is nor one that is compressed allocates, once there is an encoder to reuse.
func TestAllocatesNothing(t *testing.T) {
	for _, accept := range []string{"gzip", "br"} {
		var e phasetest.Env
		chain := phase.NewChainOf([]phase.Instance{{Plugin: e.Build(t, Kind(), `{"vary":true}`)}}, nil, e.Slots)
		x := phasetest.Exchange("GET /")
		settings, panicked := x.Settings(), func(r any) { panic(r) }
		method, body := []byte("GET"), []byte(page)
		name, value, accepts, codings := []byte("Content-Type"), []byte("text/html"), []byte("Accept-Encoding"), []byte(accept)
		run := func() {
			x.Reset()
			x.Begin(settings)
			x.Request.Method = method
			x.Request.Header.Add(accepts, codings)
			x.Enter(nil, chain)
			x.Response.Status, x.Response.Body = 200, body
			x.Response.Header.Add(name, value)
			x.Respond()
			if _, err := x.Chunk(body, true); err != nil {
				panic(err)
			}
			x.Finish(panicked)
		}
		run()
		if n := testing.AllocsPerRun(100, run); n != 0 {
			t.Errorf("%s: %v allocations", accept, n)
		}
	}
}

func BenchmarkEncoder(b *testing.B) {
	for _, conf := range []string{`{"comp_level":1}`, `{"comp_level":6}`, `{"comp_level":9}`} {
		b.Run(conf, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				var e phasetest.Env
				x := phasetest.Exchange("GET /", "Accept-Encoding: gzip")
				p := phase.Instance{Plugin: e.Build(b, Kind(), conf)} // with no encoder to reuse: its size is what is shown
				phasetest.Run(x, &e, phasetest.Reply(200, page, "Content-Type: text/html"), p)
			}
		})
	}
}
