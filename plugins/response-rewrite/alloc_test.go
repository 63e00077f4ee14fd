//go:build !race

package responserewrite

import (
	"testing"

	"headgate/proxy/phase"
	"headgate/proxy/phase/phasetest"
)

func TestAllocatesNothing(t *testing.T) {
	for _, conf := range []string{
		`{"status_code":201,"body":"new"}`,
		`{"headers":{"add":["X-A: $uri"],"set":{"X-B":"1","X-C":"$status"},"remove":["X-D"]}}`,
		`{"vars":[["status","==",404]],"filters":[{"regex":"a","replace":"b"}]}`,
		`{"filters":[{"regex":"no match","replace":"b"}]}`,
	} {
		var e phasetest.Env
		p := e.Build(t, Kind(), conf)
		chain := phase.NewChainOf([]phase.Instance{{Name: Kind().Name, Plugin: p}}, nil, e.Slots)
		x, body := phasetest.Exchange("GET /a"), []byte("some text")
		panicked := func(r any) { panic(r) }
		settings := x.Settings()
		name, value := []byte("ETag"), []byte("x")
		run := func() {
			x.Reset()
			x.Begin(settings)
			x.Enter(nil, chain)
			x.Response.Status, x.Response.Body = 200, body
			x.Response.Header.Add(name, value)
			x.Respond()
			if x.HasChunkers() {
				if _, err := x.Chunk(body, true); err != nil {
					t.Fatal(err)
				}
			}
			x.Finish(panicked)
		}
		run()
		if n := testing.AllocsPerRun(200, run); n != 0 {
			t.Errorf("%s: %v allocations", conf, n)
		}
	}
}
