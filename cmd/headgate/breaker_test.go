package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"headgate/conf"
)

// moody is an upstream that answers its name, with a status that can be changed.
type moody struct {
	addr     string
	status   atomic.Int64
	requests atomic.Int64
}

func newMoody(t testing.TB, name string) *moody {
	t.Helper()
	m := &moody{}
	m.status.Store(200)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		m.requests.Add(1)
		w.WriteHeader(int(m.status.Load()))
		fmt.Fprint(w, name)
	}))
	t.Cleanup(s.Close)
	m.addr = s.Listener.Addr().String()
	return m
}

// split is a route on /a of two branches, v1 and v2, with more plugins before it.
func split(v1, v2 *moody, plugins string) string {
	return fmt.Sprintf(`{"uri":"/a","plugins":{%s"traffic-split":{"rules":[
		{"name":"v1","weight":50,"upstream":{"nodes":{%q:1}}},{"name":"v2","weight":50,"upstream":{"nodes":{%q:1}}}]}}}`, plugins, v1.addr, v2.addr)
}

func (g *gate) get(path string) answer {
	g.t.Helper()
	return g.send("GET", "http://"+g.addr+path, "")
}

// control calls the control API.
func (g *gate) control(method, path, body string, fields ...string) answer {
	g.t.Helper()
	return g.send(method, "http://"+g.process.addr("control")+path, body, fields...)
}

// tally sends n requests and counts the bodies of the answers.
func (g *gate) tally(path string, n int) map[string]int {
	g.t.Helper()
	got := map[string]int{}
	for range n {
		got[g.get(path).body]++
	}
	return got
}

// TestBreakerUnderLoad: from the moment at which a client has seen the failure that breaks a branch, no request goes there but probes, and
// the other branch answers every one.
func TestBreakerUnderLoad(t *testing.T) {
	v1, v2 := newMoody(t, "v1"), newMoody(t, "v2")
	g := startGate(t, onLoopback(t, conf.Default()))
	g.configure("PUT", "/routes/1", split(v1, v2, `"api-breaker":{"break_response_code":503,"scope":"branch","unhealthy":{"failures":1}},`))

	const clients, after = 16, 200
	var decided atomic.Bool // a client has seen the failure
	var late, lost, failures atomic.Int64
	var running sync.WaitGroup
	for range clients {
		client := newClient(t)
		running.Go(func() {
			for left := after; left > 0; {
				knew := decided.Load()
				a, err := trySend(client, "GET", "http://"+g.addr+"/a", "")
				switch {
				case err != nil:
					lost.Add(1)
				case a.body == "v2" && knew:
					late.Add(1)
				case a.body == "v2" && a.status == 500:
					failures.Add(1)
					decided.Store(true)
				case a.body == "v1" && a.status != 200, a.body != "v1" && a.body != "v2":
					lost.Add(1)
				}
				if knew {
					left--
				}
			}
		})
	}
	eventually(t, "both branches serve", func() bool { return v1.requests.Load() > 100 && v2.requests.Load() > 100 })
	v2.status.Store(500)
	running.Wait()
	if failures.Load() == 0 || lost.Load() != 0 {
		t.Errorf("%d failures were seen, %d requests were lost", failures.Load(), lost.Load())
	}
	// Where it took longer than the breaker stays open, probes came through, one for each time that it was half-open. Before anybody knew,
	// at most what was under way has failed.
	eventually(t, "no more than probes after the failure", func() bool {
		probes := int64(max(g.metric(`headgate_breaker_transitions_total{scope="branch",to="half-open"}`), 0))
		return late.Load() <= probes && failures.Load() <= clients+probes
	})
	eventually(t, "the metric and the log line", func() bool {
		return g.metric(`headgate_breaker_transitions_total{scope="branch",to="open"}`) > 0 &&
			strings.Contains(g.logged.String(), "breaker: branch v2 of routes/1 is open for 2s (was closed): 1 failures, the last one status 500")
	})
}

// TestBreakerSurvivesEdits: a broken branch stays broken when other documents and other members change, and comes back by itself.
func TestBreakerSurvivesEdits(t *testing.T) {
	v1, v2 := newMoody(t, "v1"), newMoody(t, "v2")
	v2.status.Store(500)
	g := startGate(t, onLoopback(t, conf.Default()))
	const breaker = `"api-breaker":{"break_response_code":503,"scope":"branch","slow_start_sec":0,"max_breaker_sec":%d,"unhealthy":{"failures":1},"healthy":{"successes":1}},`
	route := split(v1, v2, fmt.Sprintf(breaker, 300))
	g.configure("PUT", "/routes/1", route)
	for g.get("/a").status != 500 {
	}
	opened := g.breakers("branch", "routes/1", "v2")
	g.configure("PUT", "/routes/2", `{"uri":"/b","upstream":{"nodes":{"127.0.0.1:1":1}}}`)
	g.configure("PATCH", "/routes/1", `{"desc":"edited"}`)
	g.configure("PATCH", "/routes/1/weights", `{"v1":10,"v2":90}`)
	g.configure("PUT", "/routes/1", split(v1, v2, fmt.Sprintf(breaker, 200)))
	if now := g.breakers("branch", "routes/1", "v2"); now.Since == "" || now.Since != opened.Since || now.State == "closed" {
		t.Errorf("%+v, and after the edits %+v", opened, now)
	}
	v2.status.Store(200)
	eventually(t, "the branch comes back", func() bool { return g.get("/a").body == "v2" })
	eventually(t, "and is closed", func() bool {
		g.get("/a")
		return g.breakers("branch", "routes/1", "v2").State == "closed"
	})
}

// breakerState is an entry of /v1/breakers.
type breakerState struct {
	Scope, In, Name, State, Since, Why string
	Quarantine                         *struct{ ID, Reason string }
}

// breakers returns what /v1/breakers says of a target, the zero value when nothing.
func (g *gate) breakers(scope, in, name string) breakerState {
	g.t.Helper()
	var list []breakerState
	if a := g.control("GET", "/v1/breakers", ""); json.Unmarshal([]byte(a.body), &list) != nil {
		g.t.Fatalf("%v", a)
	}
	for _, b := range list {
		if b.Scope == scope && b.In == in && b.Name == name {
			return b
		}
	}
	return breakerState{}
}

// TestBrokenEndpoint: a broken node gets nothing while another is left, in every upstream that has it; alone it is used nevertheless, and a
// metric says so.
func TestBrokenEndpoint(t *testing.T) {
	one, two := newMoody(t, "one"), newMoody(t, "two")
	two.status.Store(503)
	g := startGate(t, onLoopback(t, conf.Default()))
	const breaker = `"plugins":{"api-breaker":{"break_response_code":500,"scope":"endpoint","max_breaker_sec":300,"unhealthy":{"failures":2}}}`
	g.configure("PUT", "/upstreams/1", fmt.Sprintf(`{"nodes":{%q:1,%q:1}}`, one.addr, two.addr))
	g.configure("PUT", "/routes/1", `{"uri":"/a","upstream_id":"1",`+breaker+`}`)
	g.configure("PUT", "/routes/2", fmt.Sprintf(`{"uri":"/b","upstream":{"nodes":{%q:1,%q:1}}}`, one.addr, two.addr))
	g.configure("PUT", "/routes/3", fmt.Sprintf(`{"uri":"/c","upstream":{"nodes":{%q:1}}}`, two.addr))
	for range 4 {
		g.get("/a")
	}
	if b := g.breakers("endpoint", "", two.addr); b.State == "closed" || b.Why != "2 failures, the last one status 503" {
		t.Fatalf("%+v", b)
	}
	// For as long as it is open, which a slow machine may outlast: then each look at it costs one probe.
	opens := func() int {
		return max(g.metric(`headgate_breaker_transitions_total{scope="endpoint",to="half-open"}`), 0)
	}
	for _, path := range []string{"/a", "/b"} {
		got := g.tally(path, 50)
		eventually(t, "no more than probes on "+path, func() bool { return got["two"] <= opens() })
	}
	if got := g.tally("/c", 10); got["two"] != 10 {
		t.Errorf("the only node of an upstream: %v", got)
	}
	eventually(t, "the requests that went there nevertheless are counted", func() bool {
		n := g.metric(`headgate_breaker_forced_total{scope="endpoint"}`)
		return n > 0 && n+opens() >= 10
	})
	if n := g.metric(fmt.Sprintf(`headgate_breaker_state{scope="endpoint",in="",name=%q}`, two.addr)); n < 2 {
		t.Errorf("the metric says %d", n)
	}
}

// TestBrokenRoute: the requests of a broken route are turned away, those of another one with the same host and upstream are not; also
// when a global rule has the breaker.
func TestBrokenRoute(t *testing.T) {
	const breaker = `"plugins":{"api-breaker":{"break_response_code":599,"break_response_body":"later","scope":"route","unhealthy":{"failures":1}}}`
	for name, configure := range map[string]func(g *gate, nodes string){
		"of the route": func(g *gate, nodes string) { g.configure("PUT", "/routes/1", `{"uri":"/a",`+breaker+nodes+`}`) },
		"of a global rule": func(g *gate, nodes string) {
			g.configure("PUT", "/routes/1", `{"uri":"/a"`+nodes+`}`)
			g.configure("PUT", "/global_rules/1", `{`+breaker+`}`)
		},
	} {
		t.Run(name, func(t *testing.T) {
			up := newMoody(t, "up")
			g := startGate(t, onLoopback(t, conf.Default()))
			nodes := fmt.Sprintf(`,"upstream":{"nodes":{%q:1}}`, up.addr)
			configure(g, nodes)
			g.configure("PUT", "/routes/2", `{"uri":"/b"`+nodes+`}`)
			up.status.Store(500)
			g.get("/a")
			g.configure("PATCH", "/routes/1", `{"desc":"edited"}`)
			up.requests.Store(0)
			turned := 0
			for range 20 {
				if a := g.get("/a"); a.status == 599 && a.body == "later" && a.header.Get("Retry-After") != "" {
					turned++
				}
			}
			// On a machine so slow that the breaker was half-open meanwhile, a probe came through each time.
			eventually(t, "all but the probes are turned away", func() bool {
				probes := max(g.metric(`headgate_breaker_transitions_total{scope="route",to="half-open"}`), 0)
				return int(up.requests.Load()) <= probes && turned >= 20-probes
			})
			up.status.Store(200)
			if a := g.get("/b"); a.status != 200 {
				t.Errorf("the other route: %v", a)
			}
			eventually(t, "it comes back", func() bool { return g.get("/a").status == 200 })
		})
	}
}

// BenchmarkBreakerReaction prints how long after the answer that breaks a branch the last request reaches it, under the load of 16 clients:
// these are the requests that were under way.
func BenchmarkBreakerReaction(b *testing.B) {
	var all []time.Duration
	requests := 0
	for b.Loop() {
		last, n := reaction(b)
		all, requests = append(all, last), requests+n
	}
	slices.Sort(all)
	b.ReportMetric(float64(requests)/float64(len(all)), "late-requests")
	b.ReportMetric(float64(all[len(all)/2].Microseconds())/1000, "ms-median")
	b.ReportMetric(float64(all[len(all)-1].Microseconds())/1000, "ms-worst")
}

// reaction breaks a branch under load and returns the time from when the gateway has its first bad answer to the last request that reaches
// the branch before the breaker lets probes pass, 0 when none does, and how many do.
func reaction(b *testing.B) (last time.Duration, requests int) {
	v1 := newMoody(b, "v1")
	var failing atomic.Bool
	var mu sync.Mutex
	var arrived []int64
	bad := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if failing.Load() {
			mu.Lock()
			arrived = append(arrived, time.Now().UnixNano())
			mu.Unlock()
			w.WriteHeader(500)
		}
	}))
	b.Cleanup(bad.Close)
	g := startGate(b, onLoopback(b, conf.Default()))
	defer g.end()
	v2 := &moody{addr: bad.Listener.Addr().String()}
	g.configure("PUT", "/routes/1", split(v1, v2, `"api-breaker":{"break_response_code":503,"scope":"branch","unhealthy":{"failures":1}},`))
	var running sync.WaitGroup
	var done atomic.Bool
	for range 16 {
		client := newClient(b)
		running.Go(func() {
			for !done.Load() {
				if _, err := trySend(client, "GET", "http://"+g.addr+"/a", ""); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	time.Sleep(200 * time.Millisecond)
	failing.Store(true)
	time.Sleep(time.Second) // it stays open for two
	done.Store(true)
	running.Wait()
	for _, v := range g.hub.Gates().Views() {
		if v.Name != "v2" || v.Last == nil {
			continue
		}
		mu.Lock()
		defer mu.Unlock()
		for _, at := range arrived {
			if late := time.Duration(at - v.Last.At); late > 0 {
				last, requests = max(last, late), requests+1
			}
		}
		return last, requests
	}
	b.Fatal("the branch did not break")
	return 0, 0
}
