package proxy

import (
	"bufio"
	"io"
	"strings"
	"testing"

	"github.com/valyala/fasthttp"

	"headgate/conf"
	"headgate/proxy/fault"
	"headgate/proxy/phase"
	"headgate/proxy/vars"
)

const browser = "POST /v1/chat/completions?trace=1 HTTP/1.1\r\nHost: api.example.com:8080\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n" +
	"Authorization: Bearer 0123456789abcdef0123456789abcdef\r\nContent-Type: application/json\r\nX-Request-ID: 1f1e1d\r\nConnection: keep-alive, x-hop\r\nX-Hop: 1\r\nX-Consumer-Username: me\r\n" +
	"Content-Length: 26\r\n\r\n{\"model\":\"a\",\"messages\":1}"

// rider is a gateway and one request that is served again and again without a network.
type rider struct {
	*gateRig
	ctx  fasthttp.RequestCtx
	conn *edgeConn
}

func newRider(t testing.TB, o ServerOptions, raw string) *rider {
	t.Helper()
	var err error
	if o.Format, err = vars.Compile(conf.Default().AccessLog.Format); err != nil {
		t.Fatal(err)
	}
	r := &rider{gateRig: newGate(t, o), conn: newEdgeConn(&scriptConn{mute: true})}
	answer := []byte(`{"choices":[]}`)
	typ, kind, etag, tag := []byte("Content-Type"), []byte("application/json"), []byte("ETag"), []byte(`"x"`)
	r.fake = func(x *phase.Exchange) *fault.Fault {
		x.Attempts.Addr, x.Attempts.Node, x.Attempts.NodePort = "10.0.0.1:80", "10.0.0.1", 80
		x.Attempts.Note(200)
		x.Response.Status, x.Response.Body, x.Response.Source = 200, answer, phase.FromUpstream
		x.Response.Header.Add(typ, kind)
		x.Response.Header.Add(etag, tag)
		return nil
	}
	r.to("", "fake")
	r.ctx.Init2(r.conn, nil, false)
	in := bufio.NewReader(strings.NewReader(raw))
	r.ctx.Request.Header.DisableNormalizing()
	r.ctx.Response.Header.DisableNormalizing()
	if err := r.ctx.Request.Read(in); err != nil {
		t.Fatal(err)
	}
	return r
}

// serve runs one request to its end.
func (r *rider) serve() {
	r.g.Handle(&r.ctx)
	r.ctx.ResetUserValues() // closes the exchange
}

func (r *rider) check(t testing.TB, status int) {
	t.Helper()
	r.g.Handle(&r.ctx)
	if got := r.ctx.Response.StatusCode(); got != status {
		t.Fatalf("status %d: %s", got, r.ctx.Response.Body())
	}
	r.ctx.ResetUserValues()
	r.ctx.Response.Reset()
}

func noAllocs(t *testing.T, what string, f func()) {
	t.Helper()
	if n := testing.AllocsPerRun(200, f); n != 0 && !raceEnabled {
		t.Errorf("%s allocates %v times", what, n)
	}
}

func TestAllocHandle(t *testing.T) {
	trusted := "X-Real-IP: 203.0.113.9\r\nX-Forwarded-For: 198.51.100.1\r\nX-Forwarded-Proto: https\r\n"
	for _, tt := range []struct {
		name, raw string
		status    int
		options   func(o *ServerOptions)
	}{
		{"proxied", browser, 200, nil},
		{"behind a trusted proxy", strings.Replace(browser, "User-Agent", trusted+"User-Agent", 1), 200, func(o *ServerOptions) { o.Trusted, _ = conf.ParsePrefixes([]string{"192.0.2.0/24"}) }},
		{"path that is not clean", strings.Replace(browser, "/v1/", "/v1/./%61//..%2f", 1), 200, nil},
		{"secrets in the log", strings.Replace(browser, "?trace=1 HTTP/1.1", "?trace=1&apikey=0123&b=2 HTTP/1.1\r\nReferer: http://u:p@a/?sig=1", 1), 200, nil},
		{"refused", strings.Replace(browser, "Host: ", "Host: u@", 1), 400, nil},
		{"refused path", strings.Replace(browser, "/v1/", "/../v1/", 1), 400, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := defaults()
			o.Server = "Headgate"
			if tt.options != nil {
				tt.options(&o)
			}
			r := newRider(t, o, tt.raw)
			r.check(t, tt.status)
			noAllocs(t, "Handle", func() {
				r.serve()
				r.ctx.Response.Reset()
				r.ctx.Response.Header.DisableNormalizing()
			})
		})
	}
}

// endless is a client that sends the same request n times and hangs up.
type endless struct {
	raw  string
	left int
	step int // most bytes at a time; 0 = all
	rest string
}

func (e *endless) Read(p []byte) (int, error) {
	if e.step > 0 {
		p = p[:min(len(p), e.step)]
	}
	if e.rest == "" {
		if e.left == 0 {
			return 0, io.EOF
		}
		e.left--
		e.rest = e.raw
	}
	n := copy(p, e.rest)
	e.rest = e.rest[n:]
	return n, nil
}

// TestAllocConnection includes fasthttp's loop and a streamed answer.
func TestAllocConnection(t *testing.T) {
	const n = 2000
	for _, tt := range []struct {
		streamed bool
		step     int
	}{{false, 0}, {true, 0}, {false, len(browser) - 10}} { // the last: the body comes later than the head
		streamed := tt.streamed
		r := newRider(t, defaults(), browser)
		if streamed {
			chunk, s := []byte("data: x\n\n"), &repeated{}
			r.fake = func(x *phase.Exchange) *fault.Fault {
				*s = repeated{chunk, 5}
				x.Response.Status, x.Response.Stream, x.Response.Size = 200, s, -1
				x.Attempts.Note(200)
				return nil
			}
		}
		run := func() {
			r.serveConn(&scriptConn{in: &endless{raw: browser, left: n, step: tt.step}, mute: true})
		}
		run()
		limit := 0.05
		if streamed {
			limit++ // fasthttp's framing writer, for which the body is written in pieces as large as they come
		}
		if per := testing.AllocsPerRun(3, run) / n; per > limit && !raceEnabled {
			t.Errorf("streamed %t: %.2f allocations per request", streamed, per)
		}
	}
}

type repeated struct {
	piece []byte
	left  int
}

func (r *repeated) Next() ([]byte, error) {
	if r.left == 0 {
		return nil, io.EOF
	}
	r.left--
	return r.piece, nil
}

func (r *repeated) Close() {}

func BenchmarkHandle(b *testing.B) {
	for _, log := range []bool{false, true} {
		b.Run(map[bool]string{false: "bare", true: "log"}[log], func(b *testing.B) {
			r := newRider(b, defaults(), browser)
			if !log {
				r.g.log = nil
			}
			b.ReportAllocs()
			for b.Loop() {
				r.serve()
				r.ctx.Response.Reset()
				r.ctx.Response.Header.DisableNormalizing()
			}
		})
	}
}

func BenchmarkEdge(b *testing.B) {
	r := newRider(b, defaults(), browser)
	x := &exchange{g: r.g, ctx: &r.ctx}
	b.ReportAllocs()
	for b.Loop() {
		if f := r.g.edge.read(&r.ctx, x); f != nil {
			b.Fatal(f)
		}
		r.g.edge.vouch(x)
		x.Reset()
	}
}

// BenchmarkConnection is the whole client side but for the kernel: fasthttp's loop, the gateway, the log line.
func BenchmarkConnection(b *testing.B) {
	r := newRider(b, defaults(), browser)
	b.ReportAllocs()
	r.serveConn(&scriptConn{in: &endless{raw: browser, left: b.N}, mute: true})
}
