package upstream

import (
	"strings"
	"testing"

	"headgate/conf/resource"
	"headgate/proxy/fault"
	"headgate/proxy/phase"
)

// TestRequestBytes: exactly what the upstream reads.
func TestRequestBytes(t *testing.T) {
	r := newRig(t)
	s := serve(t, answers(ok2))
	f := func(name string, edit func(d *resource.Upstream), x *phase.Exchange, want string) {
		t.Helper()
		before := len(s.seen())
		if got := do(r.upstream(edit, s), x); got.code() != "" {
			t.Fatalf("%s: %s", name, got.code())
		}
		want = strings.ReplaceAll(want, "\n", "\r\n")
		want = strings.ReplaceAll(want, "PORT", portText(s.port))
		if got := s.seen()[before]; got != want {
			t.Errorf("%s:\ngot  %q\nwant %q", name, got, want)
		}
	}
	with := func(x *phase.Exchange, lines ...string) *phase.Exchange {
		for _, l := range lines {
			name, value, _ := strings.Cut(l, ": ")
			x.Request.Header.Add([]byte(name), []byte(value))
		}
		return x
	}
	passHost := func(mode, host string) func(d *resource.Upstream) {
		return func(d *resource.Upstream) { d.PassHost, d.UpstreamHost = mode, host }
	}
	f("plain", nil, request("GET", "/a?b=c", ""), "GET /a?b=c HTTP/1.1\nHost: client.example\n\n")
	f("lines keep order and spelling", nil, with(request("GET", "/", ""), "x-B: 1", "X-a: ", "x-b: 2"),
		"GET / HTTP/1.1\nHost: client.example\nx-B: 1\nX-a: \nx-b: 2\n\n")
	f("body", nil, request("POST", "/", "data"), "POST / HTTP/1.1\nHost: client.example\nContent-Length: 4\n\ndata")
	f("body of a GET", nil, request("GET", "/", "data"), "GET / HTTP/1.1\nHost: client.example\nContent-Length: 4\n\ndata")
	for _, m := range []string{"POST", "PUT", "PATCH"} {
		f("no body", nil, request(m, "/", ""), m+" / HTTP/1.1\nHost: client.example\nContent-Length: 0\n\n")
	}
	f("no body, no need", nil, request("DELETE", "/", ""), "DELETE / HTTP/1.1\nHost: client.example\n\n")
	f("pass_host node", passHost("node", ""), request("GET", "/", ""), "GET / HTTP/1.1\nHost: 127.0.0.1:PORT\n\n")
	f("pass_host rewrite", passHost("rewrite", "other.example:8080"), request("GET", "/", ""), "GET / HTTP/1.1\nHost: other.example:8080\n\n")

	x := request("GET", "/", "data")
	x.Request.OutMethod, x.Request.OutTarget, x.Request.OutHost = []byte("POST"), []byte("/other?x=%20"), []byte("set.example")
	f("set by plugins", passHost("node", ""), x, "POST /other?x=%20 HTTP/1.1\nHost: set.example\nContent-Length: 4\n\ndata")
	f("no plugin frames the request", nil,
		with(request("POST", "/", "data"), "Content-Length: 9", "transfer-encoding: chunked", "Host: evil", "Connection: close", "X-A: 1"),
		"POST / HTTP/1.1\nHost: client.example\nX-A: 1\nContent-Length: 4\n\ndata")
}

// TestNodeHost: the port is left out when it is the scheme's own.
func TestNodeHost(t *testing.T) {
	r := newRig(t)
	for _, c := range []struct {
		scheme, host string
		port         int
		want, addr   string
	}{
		{"http", "a.test", 80, "a.test", "a.test:80"},
		{"http", "a.test", 0, "a.test", "a.test:80"},
		{"http", "a.test", 443, "a.test:443", "a.test:443"},
		{"https", "a.test", 0, "a.test", "a.test:443"},
		{"https", "a.test", 80, "a.test:80", "a.test:80"},
		{"http", "::1", 80, "[::1]", "[::1]:80"},
		{"http", "::1", 8080, "[::1]:8080", "[::1]:8080"},
	} {
		u := r.upstream(func(d *resource.Upstream) {
			d.Scheme = c.scheme
			d.Nodes = []resource.Node{{Host: c.host, Port: c.port, Weight: 1}}
		})
		if n := u.nodes[0]; string(n.host) != c.want || n.addr != c.addr {
			t.Errorf("%+v: host %s, addr %s", c, n.host, n.addr)
		}
	}
	for want, host := range map[string]string{"h.test": "h.test", "g.test": "g.test:8443", "::1": "[::1]:443", "::2": "[::2]"} {
		if got := serverName(&resource.Upstream{PassHost: "rewrite", UpstreamHost: host}, "node"); got != want {
			t.Errorf("server name of %s: %s", host, got)
		}
	}
}

// TestSplitRequestsAreRefused: what a plugin made of a client's values must not become a second request.
func TestSplitRequestsAreRefused(t *testing.T) {
	r := newRig(t)
	s := serve(t, answers(ok2))
	u := r.upstream(nil, s)
	const second = "\r\n\r\nGET /admin HTTP/1.1\r\nHost: x\r\n\r\n"
	for name, set := range map[string]func(q *phase.Request){
		"value":            func(q *phase.Request) { q.Header.Add([]byte("X"), []byte("a"+second)) },
		"value, LF":        func(q *phase.Request) { q.Header.Add([]byte("X"), []byte("a\nY: b")) },
		"value, CR":        func(q *phase.Request) { q.Header.Add([]byte("X"), []byte("a\rY: b")) },
		"name":             func(q *phase.Request) { q.Header.Add([]byte("X: a\r\nY"), []byte("b")) },
		"target":           func(q *phase.Request) { q.OutTarget = []byte("/ HTTP/1.1\r\nHost: x" + second) },
		"target, space":    func(q *phase.Request) { q.OutTarget = []byte("/a b") },
		"target, tab":      func(q *phase.Request) { q.OutTarget = []byte("/a\tb") },
		"target, empty":    func(q *phase.Request) { q.OutTarget = nil },
		"host":             func(q *phase.Request) { q.OutHost = []byte("a" + second) },
		"host, space":      func(q *phase.Request) { q.OutHost = []byte("a b") },
		"method":           func(q *phase.Request) { q.OutMethod = []byte("GET / HTTP/1.1\r\nX: ") },
		"length in a name": func(q *phase.Request) { q.Header.Add([]byte("Content-Length: 0\r\nX"), []byte("b")) },
	} {
		x := request("GET", "/", "")
		set(&x.Request)
		if f := u.Forward(x); f == nil || f.Side != fault.Client || f.Status != 400 {
			t.Errorf("%s: %v", name, f)
		}
	}
	if n := s.connections(); n != 0 {
		t.Errorf("%d connections were made for them", n)
	}
}
