package apibreaker

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"headgate/balancer"
	"headgate/proxy/phase"
	"headgate/proxy/phase/phasetest"
)

// guardRig is a route with a gate and a clock that the test turns.
type guardRig struct {
	gates *balancer.Gates
	gate  *balancer.Gate
	now   atomic.Int64
	route phase.Route
}

// guarded is what a compiled route is to the plugin.
type guarded struct{ gate *balancer.Gate }

func (g guarded) Gate() *balancer.Gate { return g.gate }

func newGuardRig() *guardRig {
	r := &guardRig{}
	r.now.Store(1000 * second)
	r.gates = balancer.NewGates(r.now.Load)
	r.gate = r.gates.Acquire(balancer.Target{Scope: balancer.OfRoute, Owner: "routes/1"})
	r.route = phase.Route{ID: "1", Key: "routes/1", Compiled: guarded{r.gate}}
	return r
}

func (r *guardRig) build(t testing.TB, conf string) *guard {
	t.Helper()
	if s := refusal(t, compiled(t), conf); s != "" {
		t.Fatal(s)
	}
	var e phasetest.Env
	return e.Build(t, Kind(Options{}), conf).(*guard)
}

// visit sends a request of the route; its upstream answers status after took.
func (r *guardRig) visit(p phase.Accessor, status int, took time.Duration) string {
	x := phasetest.Exchange("GET /")
	x.Route = &r.route
	var e phasetest.Env
	return phasetest.Run(x, &e, func(x *phase.Exchange) {
		x.Attempts.Begun, x.Attempts.Head = time.Millisecond, time.Millisecond+took
		x.Attempts.Note(status)
		x.Response.Status = status
	}, phase.Instance{Plugin: p})
}

func TestScopeRefusals(t *testing.T) {
	s := compiled(t)
	const head = `{"break_response_code":503,"scope":"route"`
	for _, tt := range []struct{ conf, want string }{
		{head + `}`, ""},
		{head + `,"half_open_requests":5,"slow_start_sec":0,"unhealthy":{"error_ratio":0.5,"slow_ratio":1,"slow_ms":200,"window_sec":5,"min_requests":100}}`, ""},
		{`{"scope":"route"}`, `property "break_response_code" is required`},
		{`{"break_response_code":503,"scope":"node"}`, `property "scope" validation failed: matches none of the enum values`},
		{`{"break_response_code":503,"scope":1}`, `property "scope" validation failed: wrong type: expected string, got number`},
		{`{"break_response_code":503,"half_open_requests":1}`, `property "scope" is required when "half_open_requests" is set`},
		{`{"break_response_code":503,"slow_start_sec":1}`, `property "scope" is required when "slow_start_sec" is set`},
		{`{"break_response_code":503,"unhealthy":{"error_ratio":0.5}}`, `property "scope" is required when "unhealthy.error_ratio" is set`},
		{`{"break_response_code":503,"unhealthy":{"min_requests":5}}`, `property "scope" is required when "unhealthy.min_requests" is set`},
		{head + `,"half_open_requests":0}`, `property "half_open_requests" validation failed: expected 0 to be at least 1`},
		{head + `,"slow_start_sec":3601}`, `property "slow_start_sec" validation failed: expected 3601 to be at most 3600`},
		{head + `,"unhealthy":{"error_ratio":0}}`,
			`property "unhealthy" validation failed: property "error_ratio" validation failed: expected 0 to be greater than 0`},
		{head + `,"unhealthy":{"error_ratio":1.5}}`,
			`property "unhealthy" validation failed: property "error_ratio" validation failed: expected 1.5 to be at most 1`},
		{head + `,"unhealthy":{"slow_ratio":0.5}}`, `property "unhealthy" validation failed: property "slow_ms" is required when "slow_ratio" is set`},
		{head + `,"unhealthy":{"slow_ms":5}}`, `property "unhealthy" validation failed: property "slow_ratio" is required when "slow_ms" is set`},
		{head + `,"unhealthy":{"window_sec":0}}`,
			`property "unhealthy" validation failed: property "window_sec" validation failed: expected 0 to be at least 1`},
	} {
		if got := refusal(t, s, tt.conf); got != tt.want {
			t.Errorf("%s\ngot  %s\nwant %s", tt.conf, got, tt.want)
		}
	}
}

// TestRouteScope: what a client sees of a breaker of the route.
func TestRouteScope(t *testing.T) {
	type step struct {
		wait   time.Duration
		status int
		took   time.Duration
		want   string // the status
	}
	const ms = time.Millisecond
	for _, tt := range []struct {
		name, conf string
		steps      []step
	}{
		{"every 5xx is a failure", `"unhealthy":{"failures":2},"healthy":{"successes":1}`, []step{{0, 502, 0, "502"}, {0, 504, 0, "504"}, {0, 200, 0, "503"},
			{1999 * ms, 200, 0, "503"}, {ms, 404, 0, "404"}, {0, 502, 0, "502"}, {0, 200, 0, "200"}}},
		{"3 failures are the default", ``, []step{{0, 500, 0, "500"}, {0, 500, 0, "500"}, {0, 500, 0, "500"}, {0, 200, 0, "503"}}},
		{"only those that are named", `"unhealthy":{"http_statuses":[500],"failures":1}`, []step{{0, 503, 0, "503"}, {0, 502, 0, "502"}, {0, 500, 0, "500"}, {0, 200, 0, "503"}}},
		{"a ratio, and no number of failures besides", `"unhealthy":{"error_ratio":0.5,"min_requests":6}`, []step{{0, 500, 0, "500"}, {0, 500, 0, "500"}, {0, 500, 0, "500"},
			{0, 500, 0, "500"}, {0, 200, 0, "200"}, {0, 200, 0, "200"}, {0, 200, 0, "503"}}},
		{"unless it is written down", `"unhealthy":{"error_ratio":0.5,"failures":2}`, []step{{0, 500, 0, "500"}, {0, 500, 0, "500"}, {0, 200, 0, "503"}}},
		{"slow answers", `"unhealthy":{"slow_ms":100,"slow_ratio":0.6,"min_requests":3,"window_sec":5}`, []step{{0, 200, 99 * ms, "200"}, {0, 200, 100 * ms, "200"},
			{0, 200, 100 * ms, "200"}, {0, 200, 0, "503"}}},
		{"not longer than allowed", `"max_breaker_sec":3,"unhealthy":{"failures":1}`, []step{{0, 500, 0, "500"}, {2000 * ms, 500, 0, "500"}, {2999 * ms, 200, 0, "503"},
			{ms, 200, 0, "200"}}},
	} {
		r := newGuardRig()
		conf := `{"break_response_code":503,"scope":"route"`
		if tt.conf != "" {
			conf += "," + tt.conf
		}
		p := r.build(t, conf+"}")
		for i, s := range tt.steps {
			r.now.Add(int64(s.wait))
			if got := code(r.visit(p, s.status, s.took)); got != s.want {
				t.Errorf("%s: request %d: got %s, want %s", tt.name, i, got, s.want)
			}
		}
	}
}

func TestScopeAnswers(t *testing.T) {
	const rest = `,"scope":"route","unhealthy":{"failures":1}}`
	for _, tt := range []struct{ conf, want string }{
		{`{"break_response_code":599,"break_response_headers":[{"key":"X-Open","value":"1"}]` + rest, "599\nRetry-After: 2\n\n"},
		{`{"break_response_code":503,"break_response_body":"{}","break_response_headers":[{"key":"Content-Type","value":"application/json"}]` + rest,
			"503\nContent-Type: application/json\nRetry-After: 2\n\n{}"},
		{`{"break_response_code":503,"break_response_body":"","break_response_headers":[{"key":"retry-after","value":"99"}]` + rest,
			"503\nContent-Type: text/plain; charset=utf-8\nretry-after: 99\n\n"},
	} {
		r := newGuardRig()
		p := r.build(t, tt.conf)
		r.visit(p, 500, 0)
		if got := r.visit(p, 200, 0); got != tt.want {
			t.Errorf("%s\ngot  %q\nwant %q", tt.conf, got, tt.want)
		}
		r.now.Add(1_500 * int64(time.Millisecond))
		if got := r.visit(p, 200, 0); !strings.Contains(strings.ToLower(got), "retry-after: 1\n") && !strings.Contains(got, "99") {
			t.Errorf("%s\nhalf a second before the end: %q", tt.conf, got)
		}
	}
}

// TestRetryAfterOfTheContractsForm: it is there in the safe mode alone.
func TestRetryAfterOfTheContractsForm(t *testing.T) {
	for _, with := range []bool{false, true} {
		r := newRig()
		r.options.RetryAfter = with
		p := r.build(t, twice)
		visit(p, "GET /a", 500)
		visit(p, "GET /a", 500)
		want := "599\n\n"
		if with {
			want = "599\nRetry-After: 3\n\n" // 2.5 s
		}
		if got := visit(p, "GET /a", 200); got != want {
			t.Errorf("%t: got %q, want %q", with, got, want)
		}
	}
}

// TestHalfOpen: of 64 requests at a time no more than allowed try the route out, and the failure of one closes it to all.
func TestHalfOpen(t *testing.T) {
	r := newGuardRig()
	p := r.build(t, `{"break_response_code":503,"scope":"route","half_open_requests":4,"unhealthy":{"failures":1}}`)
	r.visit(p, 500, 0)
	r.now.Add(2 * second)
	var served, refused atomic.Int64
	var all, arrived sync.WaitGroup
	arrived.Add(64)
	for range 64 {
		all.Go(func() {
			x := phasetest.Exchange("GET /")
			x.Route = &r.route
			var e phasetest.Env
			got := phasetest.Run(x, &e, func(x *phase.Exchange) {
				served.Add(1)
				arrived.Done()
				arrived.Wait() // no probe ends before all have come
				x.Attempts.Note(500)
				x.Response.Status = 500
			}, phase.Instance{Plugin: p})
			if code(got) == "503" {
				refused.Add(1)
				arrived.Done()
			}
		})
	}
	all.Wait()
	if served.Load() != 4 || refused.Load() != 60 {
		t.Errorf("%d requests tried it out, %d were refused", served.Load(), refused.Load())
	}
	if v := r.gate.View(); v.State != balancer.Open || v.Probes != 0 || v.Last.For != 4*time.Second {
		t.Errorf("%+v, %v", v, v.Last)
	}
}

// TestProbeThatIsLost: a request that never reaches an upstream gives its place as a probe back.
func TestProbeThatIsLost(t *testing.T) {
	r := newGuardRig()
	p := r.build(t, `{"break_response_code":503,"scope":"route","unhealthy":{"failures":1}}`)
	r.visit(p, 500, 0)
	r.now.Add(2 * second)
	for range 3 {
		x := phasetest.Exchange("GET /")
		x.Route = &r.route
		var e phasetest.Env
		if got := phasetest.Run(x, &e, func(x *phase.Exchange) { x.Answer(418, "", nil) }, phase.Instance{Plugin: p}); code(got) != "418" {
			t.Fatalf("got %q", got)
		}
	}
	if v := r.gate.View(); v.State != balancer.HalfOpen || v.Probes != 0 {
		t.Errorf("%+v", v)
	}
}

// TestOtherScopes: the plugin itself turns nobody away for a branch or an endpoint; the rules go with the exchange.
func TestOtherScopes(t *testing.T) {
	for _, of := range []balancer.Scope{balancer.OfBranch, balancer.OfEndpoint} {
		r := newGuardRig()
		p := r.build(t, fmt.Sprintf(`{"break_response_code":503,"scope":"%v","unhealthy":{"failures":1}}`, of))
		for range 3 {
			if got := code(r.visit(p, 500, 0)); got != "500" {
				t.Errorf("%v: got %s", of, got)
			}
		}
		x := phasetest.Exchange("GET /")
		if v := p.Access(x); v != phase.Continue || x.Rules(of) != &p.rules || p.rules.Ramp != 10*time.Second || r.gate.View().Judged {
			t.Errorf("%v: %v %+v", of, v, x.Rules(of))
		}
	}
	// Without a route, as in a global rule on a 404, there is nothing to break.
	p := newGuardRig().build(t, `{"break_response_code":503,"scope":"route"}`)
	if v := p.Access(phasetest.Exchange("GET /")); v != phase.Continue {
		t.Errorf("without a route: %v", v)
	}
}
