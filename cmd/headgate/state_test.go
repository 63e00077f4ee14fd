package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"headgate/conf"
)

// What a plugin has counted stays while anything else is edited, and begins anew where the contract says so: with another configuration
// of the plugin, in another document (section 4.2, limit-count).
func TestCountersAcrossEdits(t *testing.T) {
	up := newUpstream(t, "up", nil)
	g := startGate(t, onLoopback(t, conf.Default()))
	const count = `"limit-count":{"count":100,"time_window":86400,"key":"constant","key_type":"constant"}`
	route := func(id, plugins, rest string) {
		t.Helper()
		g.configure("PUT", "/routes/"+id, fmt.Sprintf(`{"uri":"/%s","upstream":{"nodes":{%q:1}},"plugins":{%s}%s}`, id, up.addr, plugins, rest))
	}
	left := 100
	visit := func(what string, fresh bool) {
		t.Helper()
		if left--; fresh {
			left = 99
		}
		a := g.send("GET", "http://"+g.addr+"/a", "")
		if got := a.header.Get("X-RateLimit-Remaining"); a.status != http.StatusOK || got != fmt.Sprint(left) {
			t.Errorf("%s: %d, %s are left, want %d", what, a.status, got, left)
			_, _ = fmt.Sscan(got, &left)
		}
	}
	route("a", count, "")
	visit("the first request", true)
	for _, edit := range []struct {
		what  string
		do    func()
		fresh bool
	}{
		{"another route comes", func() { route("b", count, "") }, false},
		{"another route goes", func() { g.configure("DELETE", "/routes/b", "") }, false},
		{"a field of the route", func() { route("a", count, `,"desc":"edited","labels":{"v":"2"}`) }, false},
		{"the upstream of the route", func() { g.configure("PATCH", "/routes/a", `{"upstream":{"retries":2}}`) }, false},
		{"another plugin of the route", func() { route("a", count+`,"response-rewrite":{"headers":{"set":{"X-A":"1"}}}`, "") }, false},
		{"what _meta says", func() {
			route("a", `"limit-count":{"_meta":{"priority":5},"count":100,"time_window":86400,"key":"constant","key_type":"constant"}`, "")
		}, false},
		{"another form of the same", func() {
			route("a", `"limit-count":{"key_type":"constant","time_window":86400, "count":100,"key":"constant"}`, "")
		}, false},
		{"a consumer", func() { g.configure("PUT", "/consumers", `{"username":"jack"}`) }, false},
		{"a global rule", func() { g.configure("PUT", "/global_rules/1", `{"plugins":{"prometheus":{}}}`) }, false},
		{"the plugin's configuration", func() {
			route("a", `"limit-count":{"count":100,"time_window":86399,"key":"constant","key_type":"constant"}`, "")
		}, true},
	} {
		edit.do()
		visit(edit.what, edit.fresh)
	}
	// The route that comes back under its id has the document's counter; one under another id has its own.
	g.configure("DELETE", "/routes/a", "")
	g.configure("PUT", "/routes/other", fmt.Sprintf(`{"uri":"/a","upstream":{"nodes":{%q:1}},"plugins":{%s}}`, up.addr, count))
	visit("in another document", true)
}

// A breaker belongs to a host and a path (section 4.2, api-breaker): no edit of routes closes it.
func TestBreakerAcrossEdits(t *testing.T) {
	g := startGate(t, onLoopback(t, conf.Default()))
	route := func(rest, nodes string) {
		t.Helper()
		g.configure("PUT", "/routes/a", `{"uri":"/a","upstream":{"nodes":`+nodes+`},"plugins":{"api-breaker":{"break_response_code":599,`+
			`"unhealthy":{"http_statuses":[502],"failures":1},"max_breaker_sec":300}}`+rest+`}`)
	}
	const failures = 8 // at the same time, which keeps it open for 2^8 seconds
	var met atomic.Int64
	all := make(chan struct{})
	bad := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if met.Add(1) == failures {
			close(all)
		}
		<-all
		w.WriteHeader(http.StatusBadGateway)
	}))
	t.Cleanup(bad.Close)
	nodes := fmt.Sprintf(`{%q:1}`, strings.TrimPrefix(bad.URL, "http://"))
	route("", nodes)
	visit := func(what string, want int) {
		t.Helper()
		if a := g.send("GET", "http://"+g.addr+"/a", ""); a.status != want {
			t.Errorf("%s: %d, want %d", what, a.status, want)
		}
	}
	var sent sync.WaitGroup
	for range failures {
		sent.Go(func() {
			if a, err := trySend(g.client, "GET", "http://"+g.addr+"/a", ""); err != nil || a.status != http.StatusBadGateway {
				t.Errorf("%v, %v", a, err)
			}
		})
	}
	sent.Wait()
	// The last byte of an answer may be there before its failure is counted.
	eventually(t, "the breaker is open", func() bool { return g.send("GET", "http://"+g.addr+"/a", "").status == 599 })
	route(`,"desc":"edited"`, nodes)
	visit("a field of the route", 599)
	g.configure("PUT", "/routes/b", fmt.Sprintf(`{"uri":"/b","upstream":{"nodes":{%q:1}}}`, deadAddr(t)))
	visit("another route", 599)
	g.configure("DELETE", "/routes/a", "")
	route("", nodes)
	visit("the route is made anew", 599)
}

// The sequence of a split goes on where it was while anything but its weights is edited.
func TestSequenceAcrossEdits(t *testing.T) {
	up := newUpstream(t, "up", nil)
	g := startGate(t, onLoopback(t, conf.Default()))
	route := func(desc string) {
		g.configure("PUT", "/routes/a", fmt.Sprintf(`{"uri":"/a","desc":%q,"upstream":{"nodes":{%q:1}},"plugins":{"traffic-split":{"decision_header":true,
			"rules":[{"weight":3,"name":"a"},{"weight":1,"name":"b"}]}}}`, desc, up.addr))
	}
	got := map[string]int{}
	for i := range 40 {
		switch i % 3 {
		case 0:
			route(fmt.Sprint(i))
		case 1:
			g.configure("PUT", "/routes/b", fmt.Sprintf(`{"uri":"/b","desc":"%d","upstream":{"nodes":{%q:1}}}`, i, up.addr))
		}
		a := g.send("GET", "http://"+g.addr+"/a", "")
		said := a.header.Get("X-Headgate-Split")
		got[said[len(said)-1:]]++
	}
	if got["a"] != 30 || got["b"] != 10 {
		t.Errorf("got %v", got)
	}
}
