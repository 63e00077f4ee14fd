package admin

import (
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/valyala/fasthttp"
)

// A client that sends much more than is read gets its answer all the same.
func TestEarlyAnswersArrive(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(ServerOptions{
		Handler: func(ctx *fasthttp.RequestCtx) {}, MaxBody: 1 << 10, TooLarge: func(ctx *fasthttp.RequestCtx) { ctx.Error("too much", 400) },
	})
	served := make(chan error, 1)
	go func() { served <- s.Serve(Linger(l)) }()
	defer func() {
		_ = s.Shutdown()
		<-served
	}()
	for range 20 {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		const size = 8 << 20
		if _, err := io.WriteString(c, "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 8388608\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(c, strings.Repeat("x", size)); err != nil {
			t.Fatalf("the connection was cut while the client sent: %v", err)
		}
		answer, err := io.ReadAll(c)
		if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 400 ") || !strings.HasSuffix(string(answer), "too much") {
			t.Fatalf("got %q, %v", answer, err)
		}
		_ = c.Close()
	}
}
