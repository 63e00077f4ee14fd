//go:build !race

package proxycache

import (
	"testing"

	"headgate/proxy/phase"
	"headgate/proxy/phase/phasetest"
)

// An answer from memory, a 304, and a request that is not for the cache allocate nothing.
func TestAllocatesNothing(t *testing.T) {
	r := newRig(t)
	conf := `"cache_control":true,"cache_bypass":["$http_x_bypass"],"hide_cache_headers":true,"cache_key":["$host","$request_uri","$arg_a","$http_accept"]`
	p := r.plugin("memory", conf)
	reply := says("body", "Cache-Control: max-age=100", "ETag: \"x\"", "Vary: Accept, Accept-Encoding", "Content-Type: text/plain")
	r.ask(p, "GET /a?a=1|Accept: text/html|Accept-Encoding: gzip", reply)
	for request, want := range map[string]int{
		"GET /a?a=1|Accept: text/html|Accept-Encoding: gzip":                         200,
		"HEAD /a?a=1|Accept: text/html|Accept-Encoding: gzip":                        200,
		"GET /a?a=1|Accept: text/html|Accept-Encoding: gzip|If-None-Match: \"x\"":    304,
		"GET /a?a=1|Accept: text/html|Accept-Encoding: br|If-None-Match: \"x\"":      0,
		"GET /a?a=1|Accept: text/html|Accept-Encoding: gzip|X-Bypass: 1":             0,
		"DELETE /a?a=1|Accept: text/html":                                            0,
		"GET /a?a=1|Accept: text/html|Accept-Encoding: gzip|Cache-Control: no-store": 0,
	} {
		from := r.exchange(request)
		chain := phase.NewChainOf([]phase.Instance{p}, nil, r.env.Slots)
		x, panicked := &phase.Exchange{}, func(r any) { panic(r) }
		route := &phase.Route{ID: "1"}
		run := func() {
			phasetest.Refill(x, from, &r.env)
			x.Route = route
			x.Enter(nil, chain)
			x.Access()
			x.Respond()
			if x.Response.Status != want {
				t.Fatalf("%s: status %d", request, x.Response.Status)
			}
			x.Finish(panicked)
		}
		run()
		if n := testing.AllocsPerRun(200, run); n != 0 {
			t.Errorf("%s: %v allocations", request, n)
		}
	}
}

// Nor does an answer that is not kept.
func TestWhatIsNotKeptAllocatesNothing(t *testing.T) {
	r := newRig(t)
	p := r.plugin("memory", `"cache_control":true,"no_cache":["$upstream_http_x_no"]`)
	lines := []phase.Field{{Name: []byte("Cache-Control"), Value: []byte("private, max-age=3")}, {Name: []byte("Vary"), Value: []byte("a, b")}}
	from, route := r.exchange("GET /a?a=1"), &phase.Route{ID: "1"}
	chain := phase.NewChainOf([]phase.Instance{p}, nil, r.env.Slots)
	x, panicked := &phase.Exchange{}, func(r any) { panic(r) }
	run := func() {
		phasetest.Refill(x, from, &r.env)
		x.Route = route
		x.Enter(nil, chain)
		x.Access()
		x.Response.Status, x.Response.Source = 200, phase.FromUpstream
		for _, f := range lines {
			x.Response.Header.Add(f.Name, f.Value)
		}
		x.Receive(0)
		x.Respond()
		x.Finish(panicked)
	}
	run()
	if n := testing.AllocsPerRun(200, run); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if n := r.cache.zones["memory"].number.Load(); n != 0 {
		t.Errorf("%d answers are kept", n)
	}
}

func BenchmarkHit(b *testing.B) {
	r := newRig(b)
	p := r.plugin("memory", "")
	r.ask(p, "GET /a?a=1", says("body", "ETag: \"x\"", "Content-Type: text/plain"))
	from, route := r.exchange("GET /a?a=1"), &phase.Route{ID: "1"}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		chain := phase.NewChainOf([]phase.Instance{p}, nil, r.env.Slots)
		x, panicked := &phase.Exchange{}, func(r any) { panic(r) }
		for pb.Next() {
			phasetest.Refill(x, from, &r.env)
			x.Route = route
			x.Enter(nil, chain)
			x.Access()
			x.Respond()
			x.Finish(panicked)
		}
	})
}
