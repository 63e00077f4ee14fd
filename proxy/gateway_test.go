package proxy

import (
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"headgate/proxy/fault"
	"headgate/proxy/meter"
	"headgate/proxy/phase"
)

// TestPhases: every phase in its order, once, for a proxied request, for one that a plugin answers, and for one that has no upstream.
func TestPhases(t *testing.T) {
	up := newBackend(t, says(ok200))
	o := defaults()
	r := newGate(t, o).to(up.addr, "probe", "chunker").route("nowhere", `{"uri":"/nowhere","plugins":{"probe":{},"chunker":{}}}`)
	var mu sync.Mutex
	var seen []string
	note := func(what string) {
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, what)
	}
	stopAt := ""
	step := func(name string) func(*phase.Exchange) phase.Verdict {
		return func(x *phase.Exchange) phase.Verdict {
			note(name)
			if name == stopAt {
				x.Answer(418, phase.TypeText, []byte("stopped at "+name))
				return phase.Stop
			}
			return phase.Continue
		}
	}
	r.rewrite, r.access, r.send = step("rewrite"), step("access"), step("send")
	r.response = func(x *phase.Exchange) { note(fmt.Sprintf("response %d", x.Response.Status)) }
	r.chunk = func(_ *phase.Exchange, p []byte, last bool) ([]byte, error) {
		note(fmt.Sprintf("chunk %d %t", len(p), last))
		return p, nil
	}
	r.done = func(x *phase.Exchange) {
		note(fmt.Sprintf("done %d %s %d", x.Response.Status, x.Response.Source, x.Response.Sent))
	}
	tests := []struct {
		path, stopAt string
		status       int
		body, want   string
	}{
		{"/x", "", 200, "ok", "rewrite, access, send, response 200, chunk 2 true, done 200 upstream 2"},
		{"/x", "rewrite", 418, "stopped at rewrite", "rewrite, response 418, chunk 18 true, done 418 apisix 18"},
		{"/x", "access", 418, "stopped at access", "rewrite, access, response 418, chunk 17 true, done 418 apisix 17"},
		{"/x", "send", 418, "stopped at send", "rewrite, access, send, response 418, chunk 15 true, done 418 apisix 15"},
		{"/nowhere", "", 503, "*", "rewrite, access, response 503, chunk 162 true, done 503 nginx 162"},
	}
	for i, tt := range tests {
		seen, stopAt = nil, tt.stopAt
		r.dial(t).say("GET "+tt.path+" HTTP/1.1\r\nHost: a\r\n\r\n").want("GET", tt.status, tt.body)
		r.eventually("the done phase", func() bool { return r.finished() == i+1 })
		mu.Lock()
		if got := strings.Join(seen, ", "); got != tt.want {
			t.Errorf("%s stopped at %q:\n%s, want\n%s", tt.path, tt.stopAt, got, tt.want)
		}
		mu.Unlock()
	}
	if got := len(up.take()); got != 1 {
		t.Errorf("the upstream saw %d requests", got)
	}
	if got := r.count(meter.Requests); got != float64(len(tests)) {
		t.Errorf("%v requests were counted", got)
	}
}

func TestNoRoute(t *testing.T) {
	r := newGate(t, defaults())
	c := r.dial(t)
	for _, method := range []string{"GET", "POST", "OPTIONS"} {
		res := c.say(method+" /x HTTP/1.1\r\nHost: a\r\n\r\n").want(method, 404, "{\"error_msg\":\"404 Route Not Found\"}\n")
		if got := res.Header.Get("Content-Type"); got != "text/plain; charset=utf-8" {
			t.Errorf("Content-Type %q", got)
		}
	}
	if res := c.say("HEAD /x HTTP/1.1\r\nHost: a\r\n\r\n").want("HEAD", 404, ""); res.ContentLength != 36 {
		t.Errorf("a HEAD was told %d bytes", res.ContentLength)
	}
	if got := r.faults("no_route"); got != 4 {
		t.Errorf("no_route was counted %v times", got)
	}
}

// TestPanics: a plugin that panics costs its own request a 500, or the rest of its answer, and nobody else anything.
func TestPanics(t *testing.T) {
	up := newBackend(t, func(c net.Conn, m message) bool {
		if m.target == "/stream" {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"+strings.Repeat("a", 100_000))
			return true
		}
		return says("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nETag: of-upstream\r\n\r\nok")(c, m)
	})
	for _, where := range []string{"rewrite", "access", "send", "response", "chunk whole", "chunk piece", "chunk later piece", "done", "upstream"} {
		t.Run(where, func(t *testing.T) {
			r := newGate(t, defaults()).to(up.addr, "probe", "chunker").route("calm", `{"uri":"/calm","upstream":{"nodes":{"`+up.addr+`":1}}}`).
				route("fake", `{"uri":"/fake","plugins":{"probe":{},"fake":{}}}`)
			at := func(name string) func(*phase.Exchange) phase.Verdict {
				return func(*phase.Exchange) phase.Verdict {
					if name == where {
						panic("of a plugin")
					}
					return phase.Continue
				}
			}
			r.rewrite, r.access, r.send = at("rewrite"), at("access"), at("send")
			r.response, r.done = func(x *phase.Exchange) { at("response")(x) }, func(x *phase.Exchange) { at("done")(x) }
			pieces := 0
			r.chunk = func(_ *phase.Exchange, p []byte, _ bool) ([]byte, error) {
				pieces++
				if where == "chunk whole" || where == "chunk piece" && pieces == 1 || where == "chunk later piece" && pieces == 3 {
					panic("of a plugin")
				}
				return p, nil
			}
			r.fake = func(*phase.Exchange) *fault.Fault { panic("of an upstream") }
			other := r.dial(t)
			c := r.dial(t)
			switch where {
			case "chunk piece", "chunk later piece":
				res, body, err := c.say("GET /stream HTTP/1.1\r\nHost: a\r\n\r\n").reply("GET")
				if err == nil || res == nil || res.StatusCode != 200 {
					t.Errorf("the answer looks complete, or has no head: %v, %q, %v", res, body, err)
				}
			case "done":
				c.say(get).want("GET", 200, "ok")
			default:
				path := "/x"
				if where == "upstream" {
					path = "/fake"
				}
				res := c.say("GET "+path+" HTTP/1.1\r\nHost: a\r\n\r\n").want("GET", 500, "*")
				if !res.Close || res.Header.Get("ETag") != "" || res.Header.Get("Content-Type") != phase.TypeHTML {
					t.Errorf("answer %+v", res.Header)
				}
				c.closed()
			}
			other.say("GET /calm HTTP/1.1\r\nHost: a\r\n\r\n").want("GET", 200, "ok")
			r.eventually("one done phase", func() bool { return r.finished() == 1 })
			r.eventually("one panic, and the operator reads where", func() bool {
				r.mu.Lock()
				defer r.mu.Unlock()
				return r.count(meter.Panics) == 1 && slices.ContainsFunc(r.said, func(l string) bool { return strings.Contains(l, "of a") && strings.Contains(l, "goroutine") })
			})
		})
	}
}

// TestAnswerFraming: the whole text of what the client gets.
func TestAnswerFraming(t *testing.T) {
	tests := []struct{ name, method, upstream, want string }{
		{"length", "GET", "200 OK\r\nContent-Length: 2\r\nA: b\r\n\r\nok", "200 OK|A: b|Content-Length: 2||ok"},
		{"empty", "GET", "200 OK\r\nContent-Length: 0\r\n\r\n", "200 OK|Content-Length: 0||"},
		{"chunks that are there", "GET", "200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", "200 OK|Content-Length: 2||ok"},
		{"HEAD", "HEAD", "200 OK\r\nContent-Length: 12\r\n\r\n", "200 OK|Content-Length: 12||"},
		{"HEAD of nothing", "HEAD", "200 OK\r\nContent-Length: 0\r\n\r\n", "200 OK|Content-Length: 0||"},
		{"HEAD of chunks", "HEAD", "200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "200 OK||"},
		{"204", "GET", "204 No Content\r\nA: b\r\n\r\n", "204 No Content|A: b||"},
		{"304", "GET", "304 Not Modified\r\nContent-Length: 7\r\nETag: e\r\n\r\n", "304 Not Modified|ETag: e||"},
		{"lines in order, names in their case", "GET", "200 OK\r\nb: 1\r\nA: 2\r\nB: 3\r\nset-cookie: x\r\nSet-Cookie: y\r\nContent-Length: 2\r\ncontent-type: text/x\r\n\r\nok",
			"200 OK|Content-Type: text/x|b: 1|A: 2|B: 3|Content-Length: 2|Set-Cookie: x|Set-Cookie: y||ok"},
		{"hop by hop", "GET", "200 OK\r\nConnection: x\r\nX: 1\r\nKeep-Alive: 1\r\nTrailer: t\r\nUpgrade: u\r\nProxy-Authenticate: a\r\nContent-Length: 2\r\n\r\nok", "200 OK|Content-Length: 2||ok"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			up := newBackend(t, says("HTTP/1.1 "+tt.upstream))
			r := newGate(t, defaults()).to(up.addr)
			got := r.once(t, tt.method+" / HTTP/1.1\r\nHost: a\r\n\r\n")
			if got = told(got); got != tt.want {
				t.Errorf("%s, want %s", got, tt.want)
			}
		})
	}
}

// told shortens an answer to what a test compares: without protocol and Date, the lines joined by '|', the order of Content-Length fixed
// behind the others.
func told(reply string) string {
	head, body, _ := strings.Cut(reply, "\r\n\r\n")
	var lines, late []string
	for i, l := range strings.Split(head, "\r\n") {
		switch {
		case i == 0:
			lines = append(lines, strings.TrimPrefix(l, "HTTP/1.1 "))
		case strings.HasPrefix(l, "Date: "):
		case strings.HasPrefix(l, "Content-Length:"), strings.HasPrefix(l, "Set-Cookie:"):
			late = append(late, l)
		default:
			lines = append(lines, l)
		}
	}
	return strings.Join(append(lines, late...), "|") + "||" + body
}

// TestPluginAnswers: what a plugin may set, and what it cannot break.
func TestPluginAnswers(t *testing.T) {
	r := newGate(t, defaults()).to("", "probe")
	tests := []struct {
		name, method string
		answer       func(x *phase.Exchange)
		want         string
	}{
		{"body", "GET", func(x *phase.Exchange) { x.Answer(403, phase.TypeText, []byte("no")) }, "403 Forbidden|Content-Type: text/plain; charset=utf-8|Content-Length: 2||no"},
		{"HEAD", "HEAD", func(x *phase.Exchange) { x.Answer(403, phase.TypeText, []byte("no")) }, "403 Forbidden|Content-Type: text/plain; charset=utf-8|Content-Length: 2||"},
		{"nothing", "GET", func(x *phase.Exchange) { x.Answer(418, "", nil) }, "418 I'm a teapot|Content-Length: 0||"},
		{"204 with a body", "GET", func(x *phase.Exchange) { x.Answer(204, "", []byte("no")) }, "204 No Content||"},
		{"304 with a body", "GET", func(x *phase.Exchange) { x.Answer(304, "", []byte("no")) }, "304 Not Modified||"},
		{"framing of its own", "GET", func(x *phase.Exchange) {
			for _, n := range []string{"Content-Length", "transfer-encoding", "Connection", "Trailer", "date", "Keep-Alive"} {
				x.Response.Header.Add([]byte(n), []byte("7"))
			}
			x.Answer(200, "", []byte("no"))
		}, "200 OK|Content-Length: 2||no"},
		{"a line in a value", "GET", func(x *phase.Exchange) {
			x.Response.Header.Add([]byte("A"), []byte("b\r\nSet-Cookie: c"))
			x.Answer(200, "", []byte("no"))
		}, "200 OK|A: b  Set-Cookie: c|Content-Length: 2||no"},
		{"server", "GET", func(x *phase.Exchange) {
			x.Response.Header.Add([]byte("server"), []byte("s"))
			x.Answer(200, "", nil)
		}, "200 OK|Server: s|Content-Length: 0||"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r.rewrite = func(x *phase.Exchange) phase.Verdict {
				tt.answer(x)
				return phase.Stop
			}
			if got := told(r.once(t, tt.method+" / HTTP/1.1\r\nHost: a\r\n\r\n")); got != tt.want {
				t.Errorf("%s, want %s", got, tt.want)
			}
		})
	}
}

func TestServerHeader(t *testing.T) {
	up := newBackend(t, says("HTTP/1.1 200 OK\r\nServer: theirs\r\nContent-Length: 0\r\n\r\n"))
	for _, tt := range []struct{ own, proxied, refused string }{{"", "theirs", ""}, {"Headgate", "Headgate", "Headgate"}} {
		o := defaults()
		o.Server = tt.own
		r := newGate(t, o).to(up.addr)
		if got := r.dial(t).say(get).want("GET", 200, "").Header["Server"]; !slices.Equal(got, []string{tt.proxied}) {
			t.Errorf("%q: a proxied answer has %q", tt.own, got)
		}
		for _, raw := range []string{"GET", "GET /\x7f HTTP/1.1\r\nHost: a\r\n\r\n", "GET /# HTTP/1.1\r\nHost: a\r\n\r\n"} {
			c := r.dial(t).say(raw)
			_ = c.Conn.(*net.TCPConn).CloseWrite()
			if got := c.want("GET", 400, "*").Header.Get("Server"); got != tt.refused {
				t.Errorf("%q: a refusal has %q", tt.own, got)
			}
		}
	}
}

func TestUpstreamStatusHeader(t *testing.T) {
	answers := map[string]string{"/200": ok200, "/500": "HTTP/1.1 500 E\r\nContent-Length: 0\r\n\r\n", "/404": "HTTP/1.1 404 E\r\nContent-Length: 0\r\n\r\n"}
	up := newBackend(t, func(c net.Conn, m message) bool {
		_, _ = io.WriteString(c, answers[m.target])
		return answers[m.target] != ""
	})
	for _, always := range []bool{false, true} {
		o := defaults()
		o.Settings.AlwaysUpstreamStatus = always
		r := newGate(t, o).to(up.addr)
		for path, want := range map[string]string{"/200": "200", "/404": "404", "/500": "500", "/gone": "502"} {
			res, _, err := r.dial(t).say("GET " + path + " HTTP/1.1\r\nHost: a\r\n\r\n").reply("GET")
			if err != nil {
				t.Fatal(err)
			}
			if !always && want < "500" {
				want = ""
			}
			if got := res.Header.Get("X-APISIX-Upstream-Status"); got != want {
				t.Errorf("always %t, %s: %q, want %q", always, path, got, want)
			}
		}
	}
}

// TestPipelined: answers come in the order of the requests, whole and streamed ones mixed.
func TestPipelined(t *testing.T) {
	up := newBackend(t, func(c net.Conn, m message) bool {
		switch {
		case strings.HasPrefix(m.target, "/chunks"):
			_, _ = fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n", len(m.target), m.target)
			_, _ = io.WriteString(c, "0\r\n\r\n")
		case strings.HasPrefix(m.target, "/long"):
			_, _ = fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", 50_000+len(m.target), m.target)
			_, _ = io.WriteString(c, strings.Repeat("x", 50_000))
		default:
			_, _ = fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(m.target), m.target)
		}
		return true
	})
	r := newGate(t, defaults()).to(up.addr)
	var raw strings.Builder
	var want []string
	for i := range 30 {
		path := fmt.Sprintf("/%s/%d", []string{"short", "long", "chunks"}[i%3], i)
		fmt.Fprintf(&raw, "GET %s HTTP/1.1\r\nHost: a\r\n\r\n", path)
		want = append(want, path)
	}
	c := r.dial(t).say(raw.String() + "GET /# HTTP/1.1\r\nHost: a\r\n\r\n" + get)
	for _, path := range want {
		_, body, err := c.reply("GET")
		if err != nil || !strings.HasPrefix(body, path) || strings.Trim(body[len(path):], "x") != "" {
			t.Fatalf("%s got %.40q, %v", path, body, err)
		}
	}
	c.want("GET", 400, "*")
	c.closed()
	if got := len(up.take()); got != len(want) {
		t.Errorf("the upstream saw %d requests, want %d: nothing behind the refused one", got, len(want))
	}
}

// TestChunkPlugins: what they return is what is sent, with framing of its own.
func TestChunkPlugins(t *testing.T) {
	up := newBackend(t, func(c net.Conn, m message) bool {
		switch m.target {
		case "/whole":
			_, _ = io.WriteString(c, ok200)
		case "/long":
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n"+strings.Repeat("a", 60_000))
		case "/none":
			_, _ = io.WriteString(c, "HTTP/1.1 204 No Content\r\n\r\n")
		}
		return true
	})
	r := newGate(t, defaults()).to(up.addr, "chunker")
	double := func(_ *phase.Exchange, p []byte, last bool) ([]byte, error) {
		out := append(append([]byte(nil), p...), p...)
		if last {
			out = append(out, '!')
		}
		return out, nil
	}
	c := r.dial(t)
	r.chunk = double
	res := c.say("GET /whole HTTP/1.1\r\nHost: a\r\n\r\n").want("GET", 200, "okok!")
	if res.ContentLength != 5 {
		t.Errorf("length %d", res.ContentLength)
	}
	c.say("GET /long HTTP/1.1\r\nHost: a\r\n\r\n").want("GET", 200, strings.Repeat("a", 120_000)+"!")
	c.say("GET /none HTTP/1.1\r\nHost: a\r\n\r\n").want("GET", 204, "")
	if res := c.say("HEAD /whole HTTP/1.1\r\nHost: a\r\n\r\n").want("HEAD", 200, ""); res.ContentLength > 0 {
		t.Errorf("a HEAD was told %d bytes", res.ContentLength)
	}
	swallow := func(*phase.Exchange, []byte, bool) ([]byte, error) { return nil, nil }
	r.chunk = swallow
	c.say("GET /long HTTP/1.1\r\nHost: a\r\n\r\n").want("GET", 200, "")

	r.chunk = func(*phase.Exchange, []byte, bool) ([]byte, error) { return nil, errors.New("no") }
	c.say("GET /whole HTTP/1.1\r\nHost: a\r\n\r\n").want("GET", 502, "*")
	c.closed()
	c = r.dial(t).say("GET /long HTTP/1.1\r\nHost: a\r\n\r\n")
	if _, body, err := c.reply("GET"); err == nil {
		t.Errorf("the answer looks complete: %q", body)
	}
	if got := r.faults("bad_body"); got != 2 {
		t.Errorf("bad_body was counted %v times", got)
	}
}

// TestExchangesAreClean: nothing of one request is found in another that uses the same memory.
func TestExchangesAreClean(t *testing.T) {
	r := newGate(t, defaults()).to("", "probe", "fake")
	var dirty []string
	r.rewrite = func(x *phase.Exchange) phase.Verdict {
		if x.Response.Header.Len() > 0 || x.Response.Status != 0 || x.Fault != nil || x.Consumer.Name != "" || x.Client.Trusted || len(x.Request.OutHost) > 0 {
			dirty = append(dirty, fmt.Sprintf("%+v %+v", x.Response, x.Consumer))
		}
		x.Consumer.Name, x.Request.OutHost, x.Client.Trusted = "c", []byte("h"), true
		x.Response.Header.Add([]byte("A"), []byte("b"))
		return phase.Continue
	}
	r.fake = func(x *phase.Exchange) *fault.Fault {
		if strings.Contains(string(x.Request.RawPath), "fail") {
			return fault.ConnectFailed
		}
		x.Response.Status, x.Response.Body = 200, x.Request.Body
		return nil
	}
	c := r.dial(t)
	for i := range 50 {
		body := strings.Repeat("b", i)
		c.say(fmt.Sprintf("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s", i, body)).want("POST", 200, body)
		c.say("GET /fail HTTP/1.1\r\nHost: a\r\n\r\n").want("GET", 502, "*")
		c.say("GET /# HTTP/1.1\r\nHost: a\r\n\r\n").want("GET", 400, "*")
		c = r.dial(t)
	}
	if len(dirty) > 0 {
		t.Errorf("%d requests found something: %s", len(dirty), dirty[0])
	}
}
