package metricsd

import (
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/valyala/fasthttp"
)

func get(h fasthttp.RequestHandler, method, target string) *fasthttp.RequestCtx {
	var req fasthttp.Request
	req.Header.SetMethod(method)
	req.SetRequestURI(target)
	ctx := new(fasthttp.RequestCtx)
	ctx.Init(&req, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}, nil)
	h(ctx)
	return ctx
}

func TestHandler(t *testing.T) {
	const exposition = "# HELP a b\n# TYPE a counter\na 1\n"
	h := Handler(Options{Path: "/apisix/prometheus/metrics", Write: func(w io.Writer) error {
		_, err := io.WriteString(w, exposition)
		return err
	}})
	tests := []struct {
		method, target string
		status         int
	}{
		{"GET", "/apisix/prometheus/metrics", 200}, {"GET", "/metrics?name[]=a", 200},
		{"GET", "/", 404}, {"GET", "/metrics/", 404}, {"GET", "/apisix/prometheus", 404}, {"GET", "/debug/pprof/", 404},
		{"POST", "/metrics", 404}, {"HEAD", "/metrics", 404}, {"DELETE", "/apisix/prometheus/metrics", 404}, {"OPTIONS", "/metrics", 404},
	}
	for _, tt := range tests {
		ctx := get(h, tt.method, tt.target)
		body, contentType := string(ctx.Response.Body()), string(ctx.Response.Header.ContentType())
		if ctx.Response.StatusCode() != tt.status {
			t.Errorf("%s %s: status %d, want %d", tt.method, tt.target, ctx.Response.StatusCode(), tt.status)
		}
		if tt.status == 200 && (body != exposition || contentType != "text/plain; charset=utf-8") {
			t.Errorf("%s %s: %s %q", tt.method, tt.target, contentType, body)
		}
		if tt.status == 404 && (!strings.Contains(body, "<title>404 Not Found</title>") || contentType != "text/html; charset=utf-8") {
			t.Errorf("%s %s: %s %q", tt.method, tt.target, contentType, body)
		}
	}
}

func TestFailureIsNoHalfExposition(t *testing.T) {
	logged := ""
	h := Handler(Options{Write: func(w io.Writer) error {
		if _, err := io.WriteString(w, "a 1\n"); err != nil {
			return err
		}
		return errors.New("collector broke")
	}, Logf: func(_ string, args ...any) { logged = args[0].(error).Error() }})
	ctx := get(h, "GET", "/metrics")
	if ctx.Response.StatusCode() != 500 || strings.Contains(string(ctx.Response.Body()), "a 1") || logged != "collector broke" {
		t.Errorf("%d %q, logged %q", ctx.Response.StatusCode(), ctx.Response.Body(), logged)
	}
}

func TestNewServer(t *testing.T) {
	if s := NewServer(Options{Write: func(io.Writer) error { return nil }}); s.Name != "" || !s.NoDefaultServerHeader {
		t.Error("the metrics listener tells what serves it")
	}
}
