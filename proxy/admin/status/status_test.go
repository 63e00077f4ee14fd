package status

import (
	"errors"
	"net"
	"strings"
	"testing"

	"github.com/valyala/fasthttp"
)

func ask(h fasthttp.RequestHandler, method, target string) *fasthttp.RequestCtx {
	var req fasthttp.Request
	req.Header.SetMethod(method)
	req.SetRequestURI(target)
	req.Header.SetHost("probe.internal")
	ctx := new(fasthttp.RequestCtx)
	ctx.Init(&req, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}, nil)
	h(ctx)
	return ctx
}

func TestHandler(t *testing.T) {
	const ok, page = `{"status":"ok"}`, "<title>404 Not Found</title>"
	var notReady error
	h := Handler(Options{Server: "APISIX/3.18.0", Ready: func() error { return notReady }})
	tests := []struct {
		method, target string
		ready          error
		status         int
		body           string
	}{
		{"GET", "/status", nil, 200, ok},
		{"GET", "/status/ready", nil, 200, ok},
		{"HEAD", "/status/ready", nil, 200, ok},
		{"GET", "/status/ready?x=1", errors.New(`no "snapshot" yet`), 503, `{"status":"error","error":"no \"snapshot\" yet"}`},
		{"GET", "/status", errors.New("draining"), 200, ok},
		{"GET", "/", nil, 404, page},
		{"GET", "/status/", nil, 404, page},
		{"POST", "/status", nil, 404, page},
		{"DELETE", "/status/ready", nil, 404, page},
	}
	for _, tt := range tests {
		notReady = tt.ready
		ctx := ask(h, tt.method, tt.target)
		body := string(ctx.Response.Body())
		if ctx.Response.StatusCode() != tt.status || body != tt.body && (tt.body != page || !strings.Contains(body, page)) {
			t.Errorf("%s %s: %d %s, want %d %s", tt.method, tt.target, ctx.Response.StatusCode(), body, tt.status, tt.body)
		}
		if got := string(ctx.Response.Header.Server()); got != "APISIX/3.18.0" {
			t.Errorf("Server %q", got)
		}
	}
	if ctx := ask(Handler(Options{}), "GET", "/status/ready"); ctx.Response.StatusCode() != 200 {
		t.Error("without anybody to ask, the gateway is ready")
	}
}
