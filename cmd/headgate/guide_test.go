package main

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"headgate/conf"
)

// chatBody has what a proxy that decodes and encodes bodies would change.
const chatBody = "{\"model\":\"gpt\",\n  \"messages\":[{\"role\":\"user\",\"content\":\"Gr\u00fc\u00dfe \\u00fc <&> %2F\"}], \"temperature\": 1.0}\n"

// splitRoute is the guides' route in the form that they publish.
func splitRoute(v1, v2 string) string {
	branch := func(name, addr string) string {
		return fmt.Sprintf(`{"weight":50,"upstream":{"type":"roundrobin","scheme":"https","pass_host":"node","nodes":{%q:1}},`+
			`"rewrite":{"uri":"/%s/chat/completions"}}`, addr, name)
	}
	return fmt.Sprintf(`{"id":"aimlapi-split","uri":"/chat/completions","methods":["POST"],"plugins":{"prometheus":{},`+
		`"traffic-split":{"rules":[%s,%s]}}}`, branch("v1", v1), branch("v2", v2))
}

// guide is a gateway and the upstreams v1 and v2, which speak TLS under a test authority.
type guide struct {
	*gate
	upstreams map[string]*upstreamServer
	logged    map[string]int // lines of the access log so far, by upstream
}

func startGuide(t *testing.T) *guide {
	t.Helper()
	ca, file := testAuthority(t)
	cert := ca.leafFor(t, "127.0.0.1")
	g := &guide{logged: map[string]int{}, upstreams: map[string]*upstreamServer{
		"v1": newUpstream(t, "v1", cert), "v2": newUpstream(t, "v2", cert),
	}}
	c := onLoopback(t, conf.Default())
	c.Upstream.CAFile = file
	g.gate = startGate(t, c)
	return g
}

// plainRoutes makes /test/v1 and /test/v2 and sends a request through each.
func (g *guide) plainRoutes() {
	t := g.t
	for name, u := range g.upstreams {
		// The id is in the body, as in the guide.
		g.configure("PUT", "/routes", fmt.Sprintf(`{"id":"plain-%[1]s","uri":"/test/%[1]s","plugins":{"proxy-rewrite":{"uri":"/%[1]s/chat/completions"}},`+
			`"upstream":{"type":"roundrobin","scheme":"https","pass_host":"node","nodes":{%[2]q:1}}}`, name, u.addr))
		a := g.send("POST", "http://"+g.addr+"/test/"+name, chatBody, "Authorization: Bearer sk-test")
		if a.status != http.StatusOK || a.body != name+"\n" {
			t.Errorf("/test/%s: %v", name, a)
		}
		requests := u.take()
		if len(requests) != 1 {
			t.Fatalf("%s was hit %d times", name, len(requests))
		}
		checkChat(t, name, u.addr, requests[0])
		eventually(t, "the access log of "+name, func() bool { return g.logCount(u.addr) == 1 })
		g.logged[name] = 1
	}
}

// ask posts n chat requests one after the other, as the guide's loop does.
func (g *guide) ask(n int) {
	g.t.Helper()
	for i := range n {
		a := g.send("POST", "http://"+g.addr+"/chat/completions", chatBody, "Authorization: Bearer sk-test", "Content-Type: application/json")
		if a.status != http.StatusOK {
			g.t.Fatalf("request %d: %v", i, a)
		}
	}
}

// expect counts in all three ways what a branch has got: hits since the last call, and the metric since the start.
func (g *guide) expect(name string, hits, total int) {
	t, u := g.t, g.upstreams[name]
	t.Helper()
	requests := u.take()
	if len(requests) != hits {
		t.Errorf("%s was hit %d times, want %d", name, len(requests), hits)
	}
	for _, s := range requests {
		checkChat(t, name, u.addr, s)
	}
	want := g.logged[name] + hits
	// A line is written when its client has the answer.
	eventually(t, fmt.Sprintf("%d lines about %s in the access log", want, name), func() bool { return g.logCount(u.addr) >= want })
	if n := g.logCount(u.addr); n != want {
		t.Errorf("the access log counts %d requests to %s, want %d", n-g.logged[name], name, hits)
	}
	g.logged[name] = want
	if n := g.requests("aimlapi-split", name); n != total {
		t.Errorf("the metric counts %d requests to %s, want %d", n, name, total)
	}
}

// checkChat judges a request of the guide as the upstream saw it.
func checkChat(t testing.TB, name, addr string, s seen) {
	t.Helper()
	if s.method != "POST" || s.target != "/"+name+"/chat/completions" || s.host != addr {
		t.Errorf("%s saw %s %s for %s", name, s.method, s.target, s.host)
	}
	if s.header.Get("Authorization") != "Bearer sk-test" {
		t.Errorf("%s saw Authorization %q", name, s.header["Authorization"])
	}
	if s.body != chatBody {
		t.Errorf("%s saw the body %q", name, s.body)
	}
}

func TestGuide(t *testing.T) {
	g := startGuide(t)
	g.plainRoutes()
	g.configure("PUT", "/routes", splitRoute(g.upstreams["v1"].addr, g.upstreams["v2"].addr))

	g.ask(100)
	g.expect("v1", 50, 50)
	g.expect("v2", 50, 50)

	// curl -d calls its data a form.
	a := g.admin("PATCH", "/routes/aimlapi-split/weights", "v1=80&v2=20", "Content-Type: application/x-www-form-urlencoded")
	const want = `{"key":"/apisix/routes/aimlapi-split","weights":{"v1":{"old":50,"new":80},"v2":{"old":50,"new":20}},"revision":`
	if a.status != http.StatusOK || !strings.HasPrefix(a.body, want) {
		t.Errorf("weights: %v, want %s...", a, want)
	}
	g.ask(100)
	g.expect("v1", 80, 130)
	g.expect("v2", 20, 70)

	// So do the status by route and the counter of the whole gateway.
	eventually(t, "200 answers in apisix_http_status", func() bool {
		return g.sum(`apisix_http_status{code="200",route="aimlapi-split"`) == 200
	})
	if n := g.metric("headgate_requests_total"); n != 202 {
		t.Errorf("headgate_requests_total is %d", n)
	}
}

// The same in TOML, which the Admin API speaks too.
func TestGuideInTOML(t *testing.T) {
	g := startGate(t, onLoopback(t, conf.Default()))
	v1, v2 := newUpstream(t, "v1", nil), newUpstream(t, "v2", nil)
	branch := func(name string, u *upstreamServer) string {
		return fmt.Sprintf("[[plugins.traffic-split.rules]]\nweight = 50\n[plugins.traffic-split.rules.upstream]\nnodes = { %q = 1 }\n"+
			"[plugins.traffic-split.rules.rewrite]\nuri = \"/%s/chat/completions\"\n", u.addr, name)
	}
	a := g.admin("PUT", "/routes", "id = \"split\"\nuri = \"/chat/completions\"\n"+branch("v1", v1)+branch("v2", v2), "Content-Type: application/toml")
	if a.status != http.StatusCreated {
		t.Fatal(a)
	}
	a = g.admin("PATCH", "/routes/split/weights", "v1 = 3\nv2 = 1\n", "Content-Type: application/toml")
	if a.status != http.StatusOK {
		t.Fatal(a)
	}
	for range 8 {
		if a := g.send("POST", "http://"+g.addr+"/chat/completions", chatBody); a.status != http.StatusOK {
			t.Fatal(a)
		}
	}
	if v1.hits() != 6 || v2.hits() != 2 {
		t.Errorf("%d:%d, want 6:2", v1.hits(), v2.hits())
	}
	a = g.admin("GET", "/routes/split", "", "Accept: application/toml")
	if a.header.Get("Content-Type") != "application/toml" || !strings.Contains(a.body, "\nkey = \"/apisix/routes/split\"\n") || !strings.Contains(a.body, "weight = 3\n") {
		t.Errorf("%v\n%s", a.header, a.body)
	}
}

// The sequence of a split belongs to its route, whatever the path.
func TestSplitOverPaths(t *testing.T) {
	c := onLoopback(t, conf.Default())
	g := startGate(t, c)
	a, b, off := newUpstream(t, "a", nil), newUpstream(t, "b", nil), newUpstream(t, "off", nil)
	g.configure("PUT", "/routes/paths", fmt.Sprintf(`{"uri":"/p/*","plugins":{"traffic-split":{"rules":[{"weighted_upstreams":[`+
		`{"weight":3,"upstream":{"nodes":{%q:1}}},{"weight":0,"upstream":{"nodes":{%q:1}}},{"weight":1}]}]}},"upstream":{"nodes":{%q:1}}}`,
		a.addr, off.addr, b.addr))
	for i := range 40 {
		if r := g.send("GET", fmt.Sprintf("http://%s/p/%d?x=%d", g.addr, i, i), ""); r.status != http.StatusOK {
			t.Fatalf("request %d: %v", i, r)
		}
		// Exact at every moment, not in the end only.
		if got, want := a.hits(), 3*(i+1); 4*got < want-4 || 4*got > want+4 {
			t.Fatalf("after %d requests, a share of 3/4 has got %d", i+1, got)
		}
	}
	if a.hits() != 30 || b.hits() != 10 || off.hits() != 0 {
		t.Errorf("hits: a %d, the route's own %d, weight 0 %d; want 30, 10, 0", a.hits(), b.hits(), off.hits())
	}
	for i, s := range b.take() {
		if !strings.HasPrefix(s.target, "/p/") || !strings.Contains(s.target, "?x=") {
			t.Errorf("request %d arrived as %s", i, s.target)
		}
	}
}

// A branch whose weight becomes 0 gets nothing from the moment that the change is acknowledged, even when it is dead.
func TestWeightZero(t *testing.T) {
	g := startGate(t, onLoopback(t, conf.Default()))
	alive, dead := newUpstream(t, "alive", nil), deadAddr(t)
	g.configure("PUT", "/routes/canary", fmt.Sprintf(`{"uri":"/c","plugins":{"traffic-split":{"rules":[`+
		`{"name":"stable","weight":9,"upstream":{"nodes":{%q:1}}},{"name":"canary","weight":1,"upstream":{"nodes":{%q:1}}}]}}}`, alive.addr, dead))
	failures := 0
	for range 20 {
		switch a := g.send("GET", "http://"+g.addr+"/c", ""); a.status {
		case http.StatusOK:
		case http.StatusBadGateway:
			failures++
		default:
			t.Fatal(a)
		}
	}
	if failures != 2 {
		t.Errorf("the dead branch was picked %d times in 20, want 2", failures)
	}
	g.configure("PATCH", "/routes/canary/weights", "canary=0")
	for range 100 {
		if a := g.send("GET", "http://"+g.addr+"/c", ""); a.status != http.StatusOK {
			t.Fatal(a)
		}
	}
	if n := g.requests("canary", "canary"); n != 2 {
		t.Errorf("the branch of weight 0 was counted %d times, want 2", n)
	}
}

// Certificates of upstreams are verified unless somebody says otherwise.
func TestUpstreamCertificate(t *testing.T) {
	ca, file := testAuthority(t)
	stranger, _ := testAuthority(t)
	c := onLoopback(t, conf.Default())
	c.Upstream.CAFile = file
	g := startGate(t, c)
	known := newUpstream(t, "known", ca.leafFor(t, "127.0.0.1"))
	named := newUpstream(t, "named", ca.leafFor(t, "api.example.com"))
	foreign := newUpstream(t, "foreign", stranger.leafFor(t, "127.0.0.1"))
	for _, tt := range []struct {
		what, upstream string
		u              *upstreamServer
		status         int
	}{
		{"known", `"pass_host":"node"`, known, 200},
		{"foreign authority", `"pass_host":"node"`, foreign, 502},
		{"foreign authority, verification off", `"pass_host":"node","tls":{"verify":false}`, foreign, 200},
		{"certificate for another name", `"pass_host":"node"`, named, 502},
		{"name of upstream_host", `"pass_host":"rewrite","upstream_host":"api.example.com"`, named, 200},
	} {
		g.configure("PUT", "/routes/tls", fmt.Sprintf(`{"uri":"/t","upstream":{"scheme":"https","nodes":{%q:1},%s}}`, tt.u.addr, tt.upstream))
		if a := g.send("GET", "http://"+g.addr+"/t", ""); a.status != tt.status {
			t.Errorf("%s: %v, want %d", tt.what, a, tt.status)
		}
		if hits := len(tt.u.take()); hits != 1 && tt.status == 200 || hits != 0 && tt.status != 200 {
			t.Errorf("%s: %d requests arrived", tt.what, hits)
		}
	}
}
