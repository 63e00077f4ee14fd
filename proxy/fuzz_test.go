package proxy

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"

	"headgate/proxy/fault"
	"headgate/proxy/phase"
	"headgate/proxy/phase/wire"
	"headgate/proxy/route"
)

// FuzzConnection sends anything over a connection, to a strict gateway and to one that lets in all that it may. Whatever goes on to the
// upstream must be one request for everybody who reads it, and nothing may go on after a refusal.
func FuzzConnection(f *testing.F) {
	for _, s := range []string{
		get, get + get, browser, "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "GET http://a/b HTTP/1.0\r\n\r\n" + get,
		"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\nabc\r\n0\r\nT: v\r\n\r\n" + get,
		"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + get,
		"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\nA: b\r\n c\r\nContent-Length : 3\r\n\r\nabc",
		"GET / HTTP/1.1\nHost: a\n\n", "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\na", "GET /%2f%00 HTTP/1.1\r\nHost: [::1]:80\r\nConnection: x, host\r\nX: 1\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: b\r\nX-Real-IP: ::1%x\r\nX_Consumer_Username: c\r\n\r\n",
	} {
		f.Add([]byte(s), false)
		f.Add([]byte(s), true)
	}
	for _, c := range strictCases {
		f.Add([]byte(c.raw), true)
	}
	o := defaults()
	o.MaxBody, o.Trusted = 4096, []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}
	gates := map[bool]*gateRig{false: newGate(f, o).to("", "probe", "fake")}
	o.Lenient, _ = loosened(-1)
	gates[true] = newGate(f, o).to("", "probe", "fake")
	f.Fuzz(func(t *testing.T, raw []byte, lenient bool) {
		forwarded, r := 0, gates[lenient]
		r.fake = func(x *phase.Exchange) *fault.Fault {
			forwarded++
			checkForwarded(t, x, r.g.edge.lenient)
			x.Response.Status, x.Response.Body = 299, x.Request.Body
			return nil
		}
		before := r.finished()
		conn := &scriptConn{in: bytes.NewReader(raw)}
		r.serveConn(conn)
		if n := r.finished() - before; n < forwarded { // more: those whose body has not come
			t.Errorf("%d exchanges were forwarded, %d ended", forwarded, n)
		}
		heads := strings.Count(conn.out.String(), "HTTP/1.1 299 ")
		if heads < forwarded {
			t.Errorf("%d forwarded, %d answered: %q", forwarded, heads, conn.out.String())
		}
		if r.open.Load() != 0 || r.busy.Load() != 0 {
			t.Errorf("%d connections, %d busy", r.open.Load(), r.busy.Load())
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, l := range r.said {
			if strings.Contains(l, "panic") {
				t.Fatal(l)
			}
		}
	})
}

// checkForwarded says what is wrong with a request that is about to be written to an upstream.
func checkForwarded(t *testing.T, x *phase.Exchange, lenient Lenient) {
	q := &x.Request
	if (&edge{lenient: lenient}).method(q.Method) != nil {
		t.Errorf("method %q", q.Method)
	}
	if len(q.OutTarget) == 0 || q.OutTarget[0] != '/' && string(q.OutTarget) != "*" {
		t.Errorf("target %q", q.OutTarget)
	}
	for _, c := range q.OutTarget {
		if c <= ' ' || c == 0x7f || c == '#' {
			t.Errorf("target %q", q.OutTarget)
		}
	}
	if _, _, err := route.AppendHost(nil, q.Authority); err != nil && (!q.HTTP10 || len(q.Authority) > 0) {
		t.Errorf("host %q", q.Authority)
	}
	own := map[string]int{}
	for _, f := range q.Header.Fields() {
		if !wire.ValidName(f.Name) || !wire.ValidValue(f.Value) {
			t.Errorf("line %q: %q", f.Name, f.Value)
		}
		switch name := strings.ReplaceAll(strings.ToLower(string(f.Name)), "_", "-"); {
		case name == "x-real-ip" || strings.HasPrefix(name, "x-forwarded-"):
			own[name]++
		case strings.HasPrefix(name, "x-consumer-"):
			t.Errorf("line %q", f.Name)
		}
		if bytes.IndexByte(f.Name, '_') >= 0 && (!lenient.Underscores || twin(f.Name)) {
			t.Errorf("line %q", f.Name)
		}
		switch requestLine(f.Name) {
		case lineOther, lineContentType, lineForwarded:
		default:
			t.Errorf("line %q", f.Name)
		}
	}
	for _, name := range []string{"x-real-ip", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-port"} {
		if own[name] != 1 {
			t.Errorf("%d lines %s", own[name], name)
		}
	}
	if _, err := netip.ParseAddr(string(x.Client.Text)); err != nil {
		t.Errorf("client %q", x.Client.Text)
	}
}
