package admin

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/valyala/fasthttp"
	"github.com/valyala/fasthttp/fasthttputil"
)

// talk serves one connection with s, sends text and returns the answer. closed says whether the server closed the connection.
func talk(t *testing.T, s *fasthttp.Server, text string) (resp *http.Response, body string, closed bool) {
	t.Helper()
	pipe := fasthttputil.NewPipeConns()
	client := pipe.Conn1()
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.ServeConn(pipe.Conn2())
	}()
	defer func() { client.Close(); <-done }()
	if err := client.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	go io.WriteString(client, text)
	resp, err := http.ReadResponse(bufio.NewReader(client), nil)
	if err != nil {
		t.Fatalf("%.80q: %v", text, err)
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(b), resp.Close
}

func TestServerErrors(t *testing.T) {
	handler := func(ctx *fasthttp.RequestCtx) {
		if string(ctx.Path()) == "/panic" {
			ctx.Response.Header.Set("X-Half", "done")
			panic("boom")
		}
		ctx.SetBodyString("fine")
	}
	var log []string
	s := NewServer(ServerOptions{Handler: handler, Name: "N", Logf: func(format string, _ ...any) { log = append(log, format) }})
	custom := NewServer(ServerOptions{Handler: handler, MaxBody: 10, TooLarge: func(ctx *fasthttp.RequestCtx) {
		ctx.SetStatusCode(400)
		ctx.SetBodyString("own words")
	}})
	many := strings.Repeat("A: b\r\n", 200)
	tests := []struct {
		name   string
		server *fasthttp.Server
		text   string
		status int
		body   string
		closed bool
	}{
		{"good", s, "GET / HTTP/1.1\r\nHost: a\r\n\r\n", 200, "fine", false},
		{"malformed", s, "GET\r\n\r\n", 400, "<title>400 Bad Request</title>", true},
		{"head too large", s, "GET / HTTP/1.1\r\nHost: a\r\nA: " + strings.Repeat("x", maxHead) + "\r\n\r\n", 431, "<title>431 ", true},
		{"too many lines", s, "GET / HTTP/1.1\r\nHost: a\r\n" + many + "\r\n", 431, "<title>431 ", true},
		{"body too large", s, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5000\r\n\r\n" + strings.Repeat("x", 5000), 413, "<title>413 ", true},
		{"body too large, own answer", custom, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\n" + strings.Repeat("x", 11), 400, "own words", true},
		{"body that just fits", custom, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n" + strings.Repeat("x", 10), 200, "fine", false},
		{"panic", s, "GET /panic HTTP/1.1\r\nHost: a\r\n\r\n", 500, "<title>500 Internal Server Error</title>", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			resp, body, closed := talk(t, tt.server, tt.text)
			if resp.StatusCode != tt.status || !strings.Contains(body, tt.body) || closed != tt.closed {
				t.Errorf("got %d %q closed %v, want %d %q %v", resp.StatusCode, body, closed, tt.status, tt.body, tt.closed)
			}
			want := ""
			if tt.server == s {
				want = "N"
			}
			if got := resp.Header.Get("Server"); got != want {
				t.Errorf("Server is %q, want %q", got, want)
			}
			if resp.Header.Get("X-Half") != "" {
				t.Error("a header of the answer that was never finished")
			}
		})
	}
	if len(log) == 0 || !strings.HasPrefix(log[len(log)-1], "panic") {
		t.Errorf("the panic is not in the log: %q", log)
	}
}

type timeout struct{ error }

func (timeout) Timeout() bool   { return true }
func (timeout) Temporary() bool { return false }

func TestTimeoutHasItsOwnPage(t *testing.T) {
	if got := statusOf(&net.OpError{Err: timeout{errors.New("i/o timeout")}}); got != 408 {
		t.Errorf("status %d, want 408", got)
	}
}

func TestCrossSite(t *testing.T) {
	tests := []struct {
		peer       net.Addr
		host, site string
		want       bool
	}{
		{tcp("127.0.0.1"), "127.0.0.1:9180", "", false},
		{tcp("127.0.0.1"), "localhost", "", false},
		{tcp("127.0.0.1"), "LocalHost.:9180", "", false},
		{tcp("127.0.0.1"), "app.localhost:9180", "", false},
		{tcp("::1"), "[::1]:9180", "", false},
		{tcp("::1"), "[::1]", "", false},
		{tcp("127.0.0.1"), "evil.example:9180", "", true},
		{tcp("::1"), "localhost.evil.example", "", true},
		{tcp("10.0.0.1"), "gateway.internal:9180", "", false},
		{&net.UnixAddr{Name: "@", Net: "unix"}, "anything", "", false},
		{tcp("127.0.0.1"), "localhost", "same-origin", false},
		{tcp("127.0.0.1"), "localhost", "none", false},
		{tcp("127.0.0.1"), "localhost", "same-site", true},
		{tcp("10.0.0.1"), "gateway.internal", "cross-site", true},
	}
	for _, tt := range tests {
		var req fasthttp.Request
		req.Header.SetHost(tt.host)
		if tt.site != "" {
			req.Header.Set("Sec-Fetch-Site", tt.site)
		}
		var ctx fasthttp.RequestCtx
		ctx.Init(&req, tt.peer, nil)
		if got := CrossSite(&ctx); got != tt.want {
			t.Errorf("%s Host %q Sec-Fetch-Site %q: %v, want %v", tt.peer, tt.host, tt.site, got, tt.want)
		}
	}
}

func TestForeignOrigin(t *testing.T) {
	for _, tt := range []struct {
		host, origin string
		want         bool
	}{
		{"127.0.0.1:9090", "", false}, {"127.0.0.1:9090", "http://127.0.0.1:9090", false}, {"localhost:9090", "https://LocalHost:9090", false},
		{"127.0.0.1:9090", "http://127.0.0.1:8080", true}, {"127.0.0.1:9090", "null", true}, {"127.0.0.1:9090", "https://evil.example", true},
		{"127.0.0.1:9090", "file://127.0.0.1:9090", true}, {"127.0.0.1:9090", "127.0.0.1:9090", true}, {"", "http://", false},
	} {
		var req fasthttp.Request
		req.Header.SetHost(tt.host)
		if tt.origin != "" {
			req.Header.Set("Origin", tt.origin)
		}
		var ctx fasthttp.RequestCtx
		ctx.Init(&req, tcp("127.0.0.1"), nil)
		if got := ForeignOrigin(&ctx); got != tt.want {
			t.Errorf("Host %q Origin %q: %v, want %v", tt.host, tt.origin, got, tt.want)
		}
	}
}

func TestPeer(t *testing.T) {
	for _, tt := range []struct {
		addr net.Addr
		want string
	}{
		{tcp("10.1.2.3"), "10.1.2.3"}, {tcp("::ffff:10.1.2.3"), "10.1.2.3"},
		{&net.TCPAddr{IP: net.ParseIP("fe80::1"), Zone: "eth0"}, "fe80::1"}, {&net.UnixAddr{Name: "@"}, "invalid IP"},
	} {
		var ctx fasthttp.RequestCtx
		ctx.Init(&fasthttp.Request{}, tt.addr, nil)
		if got := Peer(&ctx).String(); got != tt.want {
			t.Errorf("%v: %s, want %s", tt.addr, got, tt.want)
		}
	}
}

func tcp(ip string) *net.TCPAddr { return &net.TCPAddr{IP: net.ParseIP(ip), Port: 40000} }
