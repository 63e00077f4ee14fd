package control

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"strings"
	"testing"

	"github.com/valyala/fasthttp"

	"headgate/conf/store"
	"headgate/proxy"
)

type plane map[string][]store.Item

func (p plane) Apply(context.Context, proxy.Change) (proxy.Result, error) {
	return proxy.Result{}, errors.New("the control API must not write")
}

func (p plane) Get(key string) (store.Item, bool) {
	kind, _, _ := strings.Cut(key, "/")
	for _, item := range p[kind] {
		if item.Key == key {
			return item, true
		}
	}
	return store.Item{}, false
}

func (p plane) List(kind string) []store.Item { return p[kind] }
func (p plane) ReadOnly(string) string        { return "" }

func request(h fasthttp.RequestHandler, method, target, host string, headers ...string) *fasthttp.RequestCtx {
	var req fasthttp.Request
	req.Header.SetMethod(method)
	req.SetRequestURI(target)
	req.Header.SetHost(host)
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	ctx := new(fasthttp.RequestCtx)
	ctx.Init(&req, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}, nil)
	h(ctx)
	return ctx
}

func TestViews(t *testing.T) {
	p := plane{"routes": {
		{Key: "routes/1", Value: []byte(`{"id":"1","uri":"/<a>"}`), CreateRevision: 3, ModRevision: 9},
		{Key: "routes/b", Value: []byte(`{"id":"b"}`), CreateRevision: 4, ModRevision: 4},
	}}
	h := Handler(Options{Plane: p, Server: "APISIX/3.18.0", LeftOut: func() map[string]error {
		return map[string]error{"routes/z": errors.New(`no "upstream"`), "routes/c": errors.New("bad")}
	}})
	const (
		one = `{"key":"/apisix/routes/1","value":{"id":"1","uri":"/<a>"},"createdIndex":3,"modifiedIndex":9,"orig_modifiedIndex":9}`
		two = `{"key":"/apisix/routes/b","value":{"id":"b"},"createdIndex":4,"modifiedIndex":4,"orig_modifiedIndex":4}`
	)
	tests := []struct {
		method, target string
		status         int
		body           string
	}{
		{"GET", "/v1/routes", 200, "[" + one + "," + two + "]\n"},
		{"GET", "/v1/services", 200, "{}\n"},
		{"GET", "/v1/upstreams", 200, "{}\n"},
		{"GET", "/v1/route/1", 200, one + "\n"},
		{"GET", "/v1/route/404", 404, `{"error_msg":"route[404] not found"}` + "\n"},
		{"GET", "/v1/service/%22", 404, `{"error_msg":"service[\"] not found"}` + "\n"},
		{"GET", "/v1/upstream/1", 404, `{"error_msg":"upstream[1] not found"}` + "\n"},
		{"GET", "/v1/left_out", 200, `[{"key":"routes/c","error":"bad"},{"key":"routes/z","error":"no \"upstream\""}]` + "\n"},
		{"GET", "/status", 200, `{"status":"ok"}`},
		{"GET", "/status/ready", 200, `{"status":"ok"}`},
	}
	for _, tt := range tests {
		ctx := request(h, tt.method, tt.target, "127.0.0.1:9090")
		if got := ctx.Response.StatusCode(); got != tt.status || string(ctx.Response.Body()) != tt.body {
			t.Errorf("%s: %d %s, want %d %s", tt.target, got, ctx.Response.Body(), tt.status, tt.body)
		}
		if got := string(ctx.Response.Header.ContentType()); got != "application/json" {
			t.Errorf("%s: Content-Type %q", tt.target, got)
		}
		if got := string(ctx.Response.Header.Server()); got != "APISIX/3.18.0" {
			t.Errorf("%s: Server %q", tt.target, got)
		}
	}
	missing := [][2]string{
		{"GET", "/"}, {"GET", "/nope"}, {"GET", "/v1/nope"}, {"GET", "/v1/"}, {"GET", "/v1/route"}, {"GET", "/v1/route/"}, {"GET", "/v1/routes/1"},
		{"GET", "/routes"}, {"GET", "/v1/gc"}, {"POST", "/v1/routes"}, {"PUT", "/v1/route/1"}, {"DELETE", "/v1/route/1"}, {"HEAD", "/status"},
	}
	for _, m := range missing {
		ctx := request(h, m[0], m[1], "127.0.0.1:9090")
		if ctx.Response.StatusCode() != 404 || !strings.Contains(string(ctx.Response.Body()), "<title>404 Not Found</title>") {
			t.Errorf("%s %s: %d %s", m[0], m[1], ctx.Response.StatusCode(), ctx.Response.Body())
		}
	}
}

func TestNotReady(t *testing.T) {
	h := Handler(Options{Plane: plane{}, Ready: func() error { return errors.New(`no "snapshot" yet`) }})
	ctx := request(h, "GET", "/status/ready", "probe.internal")
	var got struct{ Status, Error string }
	if err := json.Unmarshal(ctx.Response.Body(), &got); err != nil {
		t.Fatal(err)
	}
	if ctx.Response.StatusCode() != 503 || got.Status != "error" || got.Error != `no "snapshot" yet` {
		t.Errorf("%d %+v", ctx.Response.StatusCode(), got)
	}
	if ctx := request(h, "GET", "/status", "probe.internal"); ctx.Response.StatusCode() != 200 {
		t.Error("a process that is not ready is alive all the same")
	}
}

// Views may hold keys of consumers: a page that an operator visits must not read them.
func TestWebPagesAreRefused(t *testing.T) {
	h := Handler(Options{Plane: plane{"routes": {{Key: "routes/1", Value: []byte(`{}`)}}}})
	for _, ctx := range []*fasthttp.RequestCtx{
		request(h, "GET", "/v1/routes", "rebound.example:9090"),
		request(h, "GET", "/v1/route/1", "localhost:9090", "Sec-Fetch-Site", "cross-site"),
	} {
		if ctx.Response.StatusCode() != 403 {
			t.Errorf("status %d %s", ctx.Response.StatusCode(), ctx.Response.Body())
		}
	}
}
