package main

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"headgate/conf"
)

// startLogged starts a gateway whose access log tells which nodes a request was sent to.
func startLogged(t testing.TB) *gate {
	t.Helper()
	c := onLoopback(t, conf.Default())
	c.AccessLog.Format = perAttempt
	return startGate(t, c)
}

// nodesOf is the value of an upstream's nodes, each of weight 1.
func nodesOf(addrs ...string) string {
	parts := make([]string, len(addrs))
	for i, a := range addrs {
		parts[i] = fmt.Sprintf("%q:1", a)
	}
	return "{" + strings.Join(parts, ",") + "}"
}

// plainGet is a request for target.
func plainGet(target string) func(int) string {
	return func(int) string { return "GET " + target + " HTTP/1.1\r\nHost: a\r\n\r\n" }
}

// TestFault01Refused: one of three nodes refuses connections. No client notices: before the node is ejected, a request makes at most one
// connect more than it needs, and none after.
func TestFault01Refused(t *testing.T) {
	const n, clients = 1500, 4
	g := startLogged(t)
	a, b, c := newFaultUpstream(t, nil, saying(whole("a"))), newFaultUpstream(t, nil, saying(whole("b"))), newFaultUpstream(t, nil, saying(whole("c")))
	dead := refusingAddr(t)
	run := func(id, nodes, more string) *volley {
		g.configure("PUT", "/routes/"+id, fmt.Sprintf(`{"uri":"/%s","upstream":{"nodes":%s%s}}`, id, nodes, more))
		return drive(t, g.addr, clients, n, plainGet("/"+id), is200)
	}
	g.configure("PUT", "/routes/warm", fmt.Sprintf(`{"uri":"/warm","upstream":{"nodes":%s}}`, nodesOf(a.addr, b.addr, c.addr)))
	drive(t, g.addr, clients, 100, plainGet("/warm"), is200)
	up := run("up", nodesOf(a.addr, b.addr, c.addr), "")
	down := run("down", nodesOf(a.addr, b.addr, dead), "")
	extra := 0
	for _, tried := range g.attempts("/down", n) {
		if extra += len(tried) - 1; len(tried) > 2 {
			t.Errorf("a request was sent to %v", tried)
		}
	}

	// Health checks begin with the upstream, and passive ones look at what requests meet.
	const checks = `,"checks":{"active":{"http_path":"/","healthy":{"interval":1},"unhealthy":{"interval":1,"tcp_failures":1}},
		"passive":{"unhealthy":{"tcp_failures":1}}}`
	g.configure("PUT", "/routes/checked", fmt.Sprintf(`{"uri":"/checked","upstream":{"nodes":%s%s}}`, nodesOf(a.addr, b.addr, dead), checks))
	begun, before, lost := time.Now(), 0, []string(nil)
	eventually(t, "the ejection", func() bool {
		l := drive(t, g.addr, 1, 1, plainGet("/checked"), is200)
		lost = append(lost, l.failed...)
		before++
		return g.metric(fmt.Sprintf(`apisix_upstream_status{name="/apisix/routes/checked",ip="127.0.0.1",port=%q}`, portOf(dead))) == 0
	})
	ejected := time.Since(begun)
	after := drive(t, g.addr, clients, n, plainGet("/checked?after"), is200)
	touched := 0
	for _, tried := range g.attempts("/checked", before) {
		if slices.Contains(tried, dead) {
			touched++
		}
	}
	for _, tried := range g.attempts("/checked?after", n) {
		if slices.Contains(tried, dead) {
			t.Errorf("a request after the ejection was sent to %v", tried)
		}
	}

	if failed := slices.Concat(up.failed, down.failed, lost, after.failed); len(failed) > 0 {
		t.Errorf("clients noticed: %q", failed)
	}
	if touched > 1 {
		t.Errorf("%d requests met the dead node before it was ejected, want 1 at most", touched)
	}
	t.Logf("F1: 1 of 3 nodes refuses: %d of %d requests lost, %.2f more connects per request without checks (at most 1), p99 %v (all up: %v); "+
		"with checks ejected after %v and %d failed connects, then none, p99 %v",
		len(down.failed)+len(lost)+len(after.failed), 2*n+before, float64(extra)/n, down.quantile(0.99), up.quantile(0.99),
		ejected.Round(time.Millisecond), touched, after.quantile(0.99))
}

// TestFault02BlackHole: one of three nodes answers no SYN. The first request that goes there waits for as long as connecting may take, and
// is served by another node; then the node is ejected.
func TestFault02BlackHole(t *testing.T) {
	const n = 300
	g := startLogged(t)
	a, b := newFaultUpstream(t, nil, saying(whole("a"))), newFaultUpstream(t, nil, saying(whole("b")))
	hole := blackHole(t)
	// Probes wait for longer than the test takes: that the requests find out is what it is about.
	g.configure("PUT", "/routes/hole", fmt.Sprintf(`{"uri":"/hole","upstream":{"nodes":%s,"timeout":{"connect":0.5,"send":30,"read":30},
		"checks":{"active":{"timeout":60,"healthy":{"interval":60},"unhealthy":{"interval":60}},"passive":{"unhealthy":{"timeouts":1}}}}}`,
		nodesOf(a.addr, b.addr, hole)))
	get := drive(t, g.addr, 1, n, plainGet("/hole"), is200)
	met := 0
	for _, tried := range g.attempts("/hole", n) {
		if slices.Contains(tried, hole) {
			met++
		}
	}
	if met != 1 || len(get.failed) > 0 {
		t.Errorf("%d requests met the node, %q", met, get.failed)
	}
	// A request whose body has been held goes elsewhere as well, since nothing of it was sent.
	g.configure("PUT", "/routes/post", fmt.Sprintf(`{"uri":"/post","upstream":{"nodes":[{"host":"127.0.0.1","port":%s,"weight":1,"priority":1},
		{"host":"127.0.0.1","port":%s,"weight":1}],"timeout":{"connect":1,"send":30,"read":30}}}`, portOf(hole), portOf(a.addr)))
	post := drive(t, g.addr, 1, 1, func(int) string {
		return "POST /post HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\ndata"
	}, is200)
	if len(post.failed) > 0 || len(g.attempts("/post", 1)[0]) != 2 {
		t.Errorf("POST: %q, %v", post.failed, g.attempts("/post", 1))
	}
	t.Logf("F2: 1 of 3 nodes drops SYNs: %d of %d requests lost, %d met it and took %v with a connect clock of 500ms, then it was ejected; p99 %v",
		len(get.failed)+len(post.failed), n+1, met, get.quantile(1), get.quantile(0.99))
}

// TestFault03ResetBeforeHead: a fresh connection is reset before the answer. What is safe to repeat is repeated once, elsewhere; what is not
// gets a 502, and no upstream sees it twice.
func TestFault03ResetBeforeHead(t *testing.T) {
	g := startLogged(t)
	const n = 40
	script := func(p *faultPeer) {
		if req := p.next(); req != nil {
			if req.Header.Get("X-Reset") != "" {
				p.reset()
				return
			}
			p.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok") // every connection is a fresh one
		}
	}
	sick := newFaultUpstream(t, nil, func(p *faultPeer) {
		if p.next() != nil {
			p.reset()
		}
	})
	well := newFaultUpstream(t, nil, script)
	g.configure("PUT", "/routes/r", fmt.Sprintf(`{"uri":"/r","upstream":{"nodes":[{"host":"127.0.0.1","port":%s,"weight":1,"priority":1},
		{"host":"127.0.0.1","port":%s,"weight":1}],"retry":{"budget":100}}}`, portOf(sick.addr), portOf(well.addr)))
	results := map[string]map[int]int{}
	for _, method := range []string{"GET", "HEAD", "PUT", "DELETE", "POST", "PATCH"} {
		results[method] = map[int]int{}
		for i := range n {
			a := g.send(method, "http://"+g.addr+"/r", "", fmt.Sprintf("X-Id: %s-%d", method, i))
			results[method][a.status]++
		}
		want := map[string]int{"POST": 502, "PATCH": 502}[method]
		if want == 0 {
			want = 200
		}
		if results[method][want] != n {
			t.Errorf("%s: %v, want %d times %d", method, results[method], n, want)
		}
	}
	repeated, most, again := 0, 0, 0
	second := well.copies()
	for id, first := range sick.copies() {
		times := first + second[id]
		most = max(most, times)
		if times > 1 {
			repeated++
		}
		if (strings.HasPrefix(id, "POST") || strings.HasPrefix(id, "PATCH")) && times > 1 {
			again++
		}
	}
	if most > 2 || again > 0 || repeated != 4*n {
		t.Errorf("%d requests were repeated, %d of them POST or PATCH, one %d times", repeated, again, most-1)
	}
	// An operator may let everything be repeated.
	g.configure("PUT", "/routes/opted", fmt.Sprintf(`{"uri":"/opted","upstream":{"nodes":[{"host":"127.0.0.1","port":%s,"weight":1,"priority":1},
		{"host":"127.0.0.1","port":%s,"weight":1}],"retry":{"budget":100,"non_idempotent":true}}}`, portOf(sick.addr), portOf(well.addr)))
	opted := 0
	for i := range n {
		if a := g.send("POST", "http://"+g.addr+"/opted", "data", fmt.Sprintf("X-Id: opted-%d", i)); a.status == http.StatusOK {
			opted++
		}
	}
	if opted != n {
		t.Errorf("%d of %d POSTs that may be repeated were served", opted, n)
	}
	// Where every node resets, each request is tried at each node once, and that is the end of it.
	g.configure("PUT", "/routes/none", fmt.Sprintf(`{"uri":"/none","upstream":{"nodes":%s,"retry":{"budget":100}}}`, nodesOf(sick.addr, well.addr)))
	before := sick.arrived() + well.arrived()
	if a := g.send("GET", "http://"+g.addr+"/none", "", "X-Reset: 1"); a.status != http.StatusBadGateway {
		t.Error(a)
	}
	if tries := sick.arrived() + well.arrived() - before; tries != 2 {
		t.Errorf("a request that no node answers was sent %d times, want 2", tries)
	}
	t.Logf("F3: reset before the head: %d of %d safe requests served by a second node, %d of %d POST and PATCH got 502, seen twice: %d of them; "+
		"most copies of a request: %d; where the upstream lets POST be repeated %d of %d served",
		repeated, 4*n, results["POST"][502]+results["PATCH"][502], 2*n, again, most, opted, n)
}

// TestFault05MidHead: the upstream ends in the middle of the head of its answer, at every byte. The client gets a 502 of the gateway and nothing
// of that head, and nothing is sent on that connection again.
func TestFault05MidHead(t *testing.T) {
	const answer = "HTTP/1.1 200 OK\r\nX-Part: secret\r\nContent-Length: 2\r\nSet-Cookie: a=b\r\n\r\n"
	ca, file := testAuthority(t)
	conf := onLoopback(t, conf.Default())
	conf.Upstream.CAFile = file
	g := startGate(t, conf)
	cases, bad, reused := 0, 0, 0
	for _, scheme := range []string{"http", "https"} {
		for end, finish := range map[string]func(p *faultPeer){"closed": (*faultPeer).cut, "reset": (*faultPeer).reset} {
			script := func(p *faultPeer) {
				req := p.next()
				if req == nil {
					return
				}
				var at int
				if _, err := fmt.Sscan(req.Header.Get("X-Cut"), &at); err != nil {
					return
				}
				p.send(answer[:at])
				finish(p)
			}
			u := newFaultUpstream(t, serverTLS(t, ca, scheme), script)
			g.configure("PUT", "/routes/cut", fmt.Sprintf(`{"uri":"/cut","upstream":{"scheme":%q,"pass_host":"node","nodes":%s}}`, scheme, nodesOf(u.addr)))
			for at := 1; at < len(answer); at++ {
				if scheme == "https" && at%7 != 0 { // a handshake takes its time
					continue
				}
				cases++
				a, err := trySend(g.client, []string{"GET", "POST"}[at%2], "http://"+g.addr+"/cut", "", fmt.Sprintf("X-Cut: %d", at))
				shown := a.header.Get("X-Part") != "" || a.header.Get("Set-Cookie") != "" || strings.Contains(a.body, "secret")
				if err != nil || a.status != http.StatusBadGateway || shown {
					bad++
					t.Errorf("%s, %s after %d bytes: %v %v, %v", scheme, end, at, a, a.header, err)
				}
			}
			reused += u.arrived() - u.connections()
		}
	}
	if reused != 0 {
		t.Errorf("%d requests came on a connection that had been cut", reused)
	}
	if got := g.faults("head_cut"); got < cases*9/10 { // a RST may overtake what was sent before it
		t.Errorf("%d faults were counted as head_cut, %d heads were cut", got, cases)
	}
	// Another node serves what is safe to repeat.
	cut := newFaultUpstream(t, nil, func(p *faultPeer) {
		if p.next() != nil {
			p.send(answer[:20])
		}
	})
	well := newFaultUpstream(t, nil, saying(whole("ok")))
	g.configure("PUT", "/routes/two", fmt.Sprintf(`{"uri":"/two","upstream":{"nodes":%s}}`, nodesOf(cut.addr, well.addr)))
	for range 4 {
		if a := g.get("/two"); a.status != http.StatusOK || a.body != "ok" || a.header.Get("X-Part") != "" {
			t.Errorf("%v %v", a, a.header)
		}
	}
	t.Logf("F5: %d of %d heads cut at each byte (closed and reset, plain and TLS) answered with 502 and nothing of them, %d connections reused",
		cases-bad, cases, reused)
}
