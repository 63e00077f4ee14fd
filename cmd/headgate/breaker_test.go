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

// TestQuarantine: in force for the next request, wherever the target is used, through edits, until it is lifted.
func TestQuarantine(t *testing.T) {
	one, two := newMoody(t, "one"), newMoody(t, "two")
	g := startGate(t, onLoopback(t, conf.Default()))
	both := fmt.Sprintf(`{"nodes":{%q:1,%q:1}}`, one.addr, two.addr)
	g.configure("PUT", "/upstreams/1", both)
	g.configure("PUT", "/routes/1", `{"uri":"/1","upstream_id":"1"}`)
	g.configure("PUT", "/routes/2", `{"uri":"/2","upstream":`+both+`}`)
	g.configure("PUT", "/routes/a", split(one, two, ""))
	g.configure("PUT", "/routes/b", strings.Replace(split(two, one, ""), `"/a"`, `"/b"`, 1))
	impose := func(body string) (id string) {
		t.Helper()
		a := g.control("POST", "/v1/quarantine", body)
		var q struct{ ID string }
		if err := json.Unmarshal([]byte(a.body), &q); err != nil || a.status != 201 {
			t.Fatalf("%s: %v", body, a)
		}
		return q.ID
	}
	lift := func(id string) {
		t.Helper()
		if a := g.control("DELETE", "/v1/quarantine/"+id, ""); a.status != 200 {
			t.Fatalf("%v", a)
		}
	}
	expect := func(what, path string, want map[string]int) {
		t.Helper()
		if got := g.tally(path, 20); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: %s: got %v, want %v", what, path, got, want)
		}
	}

	id := impose(fmt.Sprintf(`{"endpoint":%q,"ttl":3600,"reason":"maintenance"}`, two.addr))
	for _, path := range []string{"/1", "/2"} {
		expect("endpoint", path, map[string]int{"one": 20})
	}
	if a := g.get("/a"); a.status == 200 {
		a = g.get("/a")
		if a.status != 503 || a.header.Get("Retry-After") == "" {
			t.Errorf("a branch whose only node is shut: %v %v", a, a.header)
		}
	}
	g.configure("PATCH", "/upstreams/1", `{"desc":"edited"}`)
	g.configure("PUT", "/routes/3", `{"uri":"/3","upstream":`+both+`}`)
	expect("endpoint after an edit", "/1", map[string]int{"one": 20})
	expect("endpoint of a new route", "/3", map[string]int{"one": 20})
	lift(id)
	expect("lifted", "/1", map[string]int{"one": 10, "two": 10})

	id = impose(`{"branch":"v2","route":"a","ttl":3600,"reason":"bad answers"}`)
	expect("branch of one route", "/a", map[string]int{"one": 20})
	expect("the same name elsewhere", "/b", map[string]int{"one": 10, "two": 10})
	everywhere := impose(`{"branch":"v2","ttl":3600,"reason":"bad answers"}`)
	lift(id)
	expect("branch everywhere", "/a", map[string]int{"one": 20})
	expect("branch everywhere", "/b", map[string]int{"two": 20})
	lift(everywhere)
	expect("lifted", "/b", map[string]int{"one": 10, "two": 10})

	id = impose(`{"route":"1","ttl":3600,"reason":"closed"}`)
	shut := func(what string) {
		t.Helper()
		a := g.get("/1")
		if a.status != 503 || a.header.Get("Retry-After") == "" {
			t.Errorf("%s: %v %v", what, a, a.header)
		}
	}
	shut("route")
	g.configure("PATCH", "/routes/1", `{"desc":"edited"}`)
	shut("route after an edit")
	g.admin("DELETE", "/routes/1", "")
	g.configure("PUT", "/routes/1", `{"uri":"/1","upstream_id":"1"}`)
	shut("route made anew")
	if a := g.control("POST", "/v1/explain", `{"path":"/1"}`); !strings.Contains(a.body, `"code":"quarantined"`) {
		t.Errorf("explain: %v", a)
	}
	if b := g.breakers("route", "routes/1", ""); b.Quarantine == nil || b.Quarantine.ID != id || b.Quarantine.Reason != "closed" {
		t.Errorf("%+v", b)
	}
	if a := g.control("GET", "/v1/quarantine", ""); strings.Count(a.body, `"id"`) != 1 || !strings.Contains(a.body, `"in":"routes/1","reason":"closed"`) {
		t.Errorf("%v", a)
	}
	lift(id)
	expect("lifted", "/1", map[string]int{"one": 10, "two": 10})
	impose(`{"route":"1","ttl":1,"reason":"for a moment"}`)
	eventually(t, "it ends by itself", func() bool { return g.get("/1").status == 200 })
	eventually(t, "the audit says so", func() bool {
		log := g.logged.String()
		return strings.Contains(log, "audit: peer=127.0.0.1 quarantine 4: routes/1 for 1h0m0s: closed") && strings.Contains(log, "audit: quarantine 5 of routes/1 has ended")
	})
}

func TestQuarantineRefusals(t *testing.T) {
	one, two := newMoody(t, "one"), newMoody(t, "two")
	g := startGate(t, onLoopback(t, conf.Default()))
	g.configure("PUT", "/routes/a", split(one, two, ""))
	g.configure("PUT", "/routes/b", `{"uri":"/b","upstream":{"nodes":{"127.0.0.1:1":1}}}`)
	const rest = `,"ttl":60,"reason":"test"}`
	for _, tt := range []struct {
		body string
		want string
	}{
		{`{"route":"c"` + rest, `404 {"error_msg":"route: there is no route \"c\" in force"}`},
		{`{"endpoint":"127.0.0.1:2"` + rest, `404 {"error_msg":"endpoint: no upstream in force has \"127.0.0.1:2\""}`},
		{`{"branch":"v3"` + rest, `404 {"error_msg":"branch: no split in force has a branch \"v3\""}`},
		{`{"route":"b","branch":"v1"` + rest, `404 {"error_msg":"branch: route \"b\" has no split with a branch \"v1\""}`},
		{`{"route":"a"`, `400 `},
		{`[]`, `400 {"error_msg":"expected an object like {\"endpoint\":\"10.0.0.1:80\",\"ttl\":600,\"reason\":\"maintenance\"}"}`},
		{`{"ttl":60,"reason":"test"}`, `400 {"error_msg":"expected one of route, branch and endpoint"}`},
		{`{"route":"a","endpoint":"127.0.0.1:1"` + rest, `400 {"error_msg":"endpoint: stands alone; it is shut in every route and branch"}`},
		{`{"route":1` + rest, `400 {"error_msg":"route: expected a text"}`},
		{`{"node":"a"` + rest, `400 {"error_msg":"unknown member \"node\": a quarantine has route, branch, endpoint, ttl and reason"}`},
		{`{"route":"a","reason":"test"}`, `400 {"error_msg":"ttl: is required"}`},
		{`{"route":"a","reason":"test","ttl":0}`, `400 {"error_msg":"ttl: expected whole seconds, 1 to 86400"}`},
		{`{"route":"a","reason":"test","ttl":86401}`, `400 {"error_msg":"ttl: expected whole seconds, 1 to 86400"}`},
		{`{"route":"a","reason":"test","ttl":"60"}`, `400 {"error_msg":"ttl: expected whole seconds, 1 to 86400"}`},
		{`{"route":"a","ttl":60}`, `400 {"error_msg":"reason: is required"}`},
		{`{"route":"a","ttl":60,"reason":"two\nlines"}`, `400 {"error_msg":"reason: expected one line of at most 256 bytes"}`},
		{`{"route":"a","ttl":60,"reason":"` + strings.Repeat("a", 257) + `"}`, `400 {"error_msg":"reason: expected one line of at most 256 bytes"}`},
	} {
		if got := g.control("POST", "/v1/quarantine", tt.body).String(); !strings.HasPrefix(got, tt.want) {
			t.Errorf("%s\ngot  %s\nwant %s", tt.body, got, tt.want)
		}
	}
	good := `{"route":"a"` + rest
	for _, field := range []string{"Origin: https://evil.example", "Origin: null", "Sec-Fetch-Site: cross-site", "Host: rebound.example"} {
		if a := g.control("POST", "/v1/quarantine", good, field); a.status != 403 {
			t.Errorf("%s: %v", field, a)
		}
		if a := g.control("DELETE", "/v1/quarantine/1", "", field); a.status != 403 {
			t.Errorf("%s: %v", field, a)
		}
	}
	if a := g.control("DELETE", "/v1/quarantine/1", ""); a.status != 404 {
		t.Errorf("%v", a)
	}
	if a := g.control("POST", "/v1/quarantine", good, "Origin: http://"+g.process.addr("control")); a.status != 201 {
		t.Errorf("its own origin: %v", a)
	}
	for _, m := range [][2]string{{"PUT", "/v1/quarantine"}, {"POST", "/v1/breakers"}, {"DELETE", "/v1/quarantine"}, {"GET", "/v1/quarantine/1"}, {"GET", "/v1/breakers/1"}} {
		if a := g.control(m[0], m[1], ""); a.status != 404 {
			t.Errorf("%s %s: %v", m[0], m[1], a)
		}
	}
}

// BenchmarkBreakerReaction prints how long after the answer that breaks a branch the last request reaches it, under the load of 16 clients:
// these are the requests that were under way.
func BenchmarkBreakerReaction(b *testing.B) {
	var all []time.Duration
	for b.Loop() {
		all = append(all, reaction(b))
	}
	slices.Sort(all)
	b.ReportMetric(float64(all[len(all)/2].Microseconds())/1000, "ms-median")
	b.ReportMetric(float64(all[len(all)-1].Microseconds())/1000, "ms-worst")
}

// reaction breaks a branch under load and returns the time from when the gateway has its first bad answer to the last request that reaches
// it before the breaker lets probes pass; 0 when that came before.
func reaction(b *testing.B) time.Duration {
	v1 := newMoody(b, "v1")
	var failing atomic.Bool
	var last atomic.Int64
	bad := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if failing.Load() {
			last.Store(time.Now().UnixNano())
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
		if v.Name == "v2" && v.Last != nil {
			return max(time.Duration(last.Load()-v.Last.At), 0)
		}
	}
	b.Fatal("the branch did not break")
	return 0
}
