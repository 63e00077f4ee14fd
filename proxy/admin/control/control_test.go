package control

import (
	"encoding/json"
	"errors"
	"net"
	"strconv"
	"strings"
	"testing"

	"github.com/valyala/fasthttp"

	"headgate/conf/resource"
	"headgate/conf/store"
	"headgate/proxy"
	"headgate/proxy/phase"
	"headgate/proxy/upstream/health"
)

type plane map[string][]store.Item

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
		for _, ctx := range []*fasthttp.RequestCtx{
			request(h, m[0], m[1], "127.0.0.1:9090", "Accept", "text/html,*/*;q=0.8"),
			request(h, m[0], m[1], "127.0.0.1:9090", "Accept", "*/*"),
		} {
			if ctx.Response.StatusCode() != 404 || !strings.Contains(string(ctx.Response.Body()), "<title>404 Not Found</title>") {
				t.Errorf("%s %s: %d %s", m[0], m[1], ctx.Response.StatusCode(), ctx.Response.Body())
			}
		}
		ctx := request(h, m[0], m[1], "127.0.0.1:9090", "Accept", "application/json")
		var got struct {
			Msg       string `json:"error_msg"`
			Endpoints []string
		}
		if err := json.Unmarshal(ctx.Response.Body(), &got); err != nil || ctx.Response.StatusCode() != 404 || got.Msg != "there is no "+m[0]+" "+m[1] || len(got.Endpoints) == 0 {
			t.Errorf("%s %s: %d %s", m[0], m[1], ctx.Response.StatusCode(), ctx.Response.Body())
		}
	}
}

// A path that is unknown below a word that is known is answered with what there is below it.
func TestUnknownPaths(t *testing.T) {
	full := Options{
		Plane: plane{}, Breakers: breakers{}, Explain: func([]byte) (any, error) { return nil, nil },
		Discovery: map[string]func() any{"dns": func() any { return "known" }},
	}
	for _, tt := range []struct {
		method, path, endpoints string
	}{
		{"GET", "/v1/quarantine/1", `["GET /v1/quarantine","POST /v1/quarantine","DELETE /v1/quarantine/{id}"]`},
		{"PUT", "/v1/quarantines", `["GET /v1/quarantine","POST /v1/quarantine","DELETE /v1/quarantine/{id}"]`},
		{"GET", "/v1/breakers/x", `["GET /v1/breakers"]`},
		{"GET", "/v1/explain", `["POST /v1/explain"]`},
		{"GET", "/v1/routes/1", `["GET /v1/routes","GET /v1/route/{id}"]`},
		{"GET", "/v1/discovery/dns", `["GET /v1/discovery/{type}/dump"]`},
		{"GET", "/v1/discovery/consul/dump", `["GET /v1/discovery/{type}/dump"]`},
	} {
		ctx := request(Handler(full), tt.method, tt.path, "127.0.0.1", "Accept", "application/json")
		want := `{"error_msg":"there is no ` + tt.method + " " + tt.path + `","endpoints":` + tt.endpoints + "}\n"
		if got := string(ctx.Response.Body()); got != want || ctx.Response.StatusCode() != 404 || string(ctx.Response.Header.ContentType()) != "application/json" {
			t.Errorf("%s %s: %d %s\nwant %s", tt.method, tt.path, ctx.Response.StatusCode(), got, want)
		}
	}
	if got := string(request(Handler(full), "GET", "/v1/discovery/dns/dump", "127.0.0.1").Response.Body()); got != "\"known\"\n" {
		t.Errorf("a dump: %s", got)
	}
	// What does not exist is not listed.
	for _, word := range []string{"quarantine", "breakers", "explain", "discovery"} {
		if got := string(request(Handler(Options{Plane: plane{}}), "GET", "/", "127.0.0.1", "Accept", "application/json").Response.Body()); strings.Contains(got, word) || !strings.Contains(got, "/v1/routes") {
			t.Errorf("%s is listed: %s", word, got)
		}
	}
}

type breakers struct{}

func (breakers) List() []proxy.BreakerView                            { return nil }
func (breakers) Quarantines() []proxy.QuarantineView                  { return nil }
func (breakers) Impose([]byte, string) (*proxy.QuarantineView, error) { return nil, nil }
func (breakers) Lift(id, by string) (*proxy.QuarantineView, error)    { return nil, nil }

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
	h := Handler(Options{
		Plane: plane{"routes": {{Key: "routes/1", Value: []byte(`{}`)}}}, Explain: func([]byte) (any, error) { return "explained", nil },
	})
	if ctx := request(h, "POST", "/v1/explain", "localhost:9090", "Origin", "http://localhost:9090"); ctx.Response.StatusCode() != 200 {
		t.Errorf("of the listener's own origin: status %d", ctx.Response.StatusCode())
	}
	for _, ctx := range []*fasthttp.RequestCtx{
		request(h, "GET", "/v1/routes", "rebound.example:9090"),
		request(h, "GET", "/v1/route/1", "localhost:9090", "Sec-Fetch-Site", "cross-site"),
		request(h, "POST", "/v1/gc", "localhost:9090", "Origin", "http://evil.example"),
		request(h, "POST", "/v1/gc", "localhost:9090", "Origin", "null"),
		request(h, "POST", "/v1/explain", "localhost:9090", "Origin", "https://localhost:9091", "Content-Type", "text/plain"),
		request(h, "PUT", "/v1/plugins/reload", "localhost:9090", "Origin", "http://evil.example"),
	} {
		if ctx.Response.StatusCode() != 403 || !strings.Contains(string(ctx.Response.Body()), `"error_msg":"requests from web pages of other origins are refused`) {
			t.Errorf("status %d %s", ctx.Response.StatusCode(), ctx.Response.Body())
		}
	}
}

func TestPluginFactsAndMetadata(t *testing.T) {
	p := plane{"plugin_metadata": {
		{Key: "plugin_metadata/http-logger", Value: []byte(`{"id":"http-logger","log_format":{"host":"$host"}}`)},
		{Key: "plugin_metadata/own", Value: []byte(`{"id":"own"}`)},
	}}
	h := Handler(Options{Plane: p, Plugins: plugins{}})
	tests := []struct {
		method, target string
		status         int
		contentType    string
		body           string
	}{
		{"GET", "/v1/plugin_metadatas", 200, "application/json",
			`[{"id":"http-logger","log_format":{"host":"$host"},"max_pending_entries":8192},{"id":"own","size":3}]` + "\n"},
		{"GET", "/v1/plugin_metadata/own", 200, "application/json", `{"id":"own","size":3}` + "\n"},
		{"GET", "/v1/plugin_metadata/none", 404, "application/json", `{"error_msg":"plugin metadata[none] not found"}` + "\n"},
		{"POST", "/v1/gc", 200, "text/plain; charset=utf-8", ""},
		{"PUT", "/v1/plugins/reload", 200, "text/plain; charset=utf-8", "done"},
	}
	for _, tt := range tests {
		ctx := request(h, tt.method, tt.target, "127.0.0.1:9090")
		if ctx.Response.StatusCode() != tt.status || string(ctx.Response.Body()) != tt.body ||
			string(ctx.Response.Header.ContentType()) != tt.contentType {
			t.Errorf("%s: %d %s %s", tt.target, ctx.Response.StatusCode(), ctx.Response.Header.ContentType(), ctx.Response.Body())
		}
	}
	if ctx := request(Handler(Options{Plane: plane{}}), "GET", "/v1/plugin_metadatas", "127.0.0.1"); string(ctx.Response.Body()) != "{}\n" {
		t.Errorf("no metadata: %s", ctx.Response.Body())
	}
	var got struct {
		Main    map[string]map[string]any
		Plugins map[string]struct {
			Priority       int
			Type           string
			Schema         map[string]any
			ConsumerSchema map[string]any `json:"consumer_schema"`
			MetadataSchema map[string]any `json:"metadata_schema"`
		}
		StreamPlugins map[string]any `json:"stream_plugins"`
	}
	if err := json.Unmarshal(request(h, "GET", "/v1/schema", "127.0.0.1").Response.Body(), &got); err != nil {
		t.Fatal(err)
	}
	own := got.Plugins["own"]
	if own.Priority != 7 || own.Type != "auth" || own.Schema["properties"] == nil || own.ConsumerSchema == nil || own.MetadataSchema == nil ||
		got.Main["route"]["type"] != "object" || got.Main["consumer_group"] == nil || got.StreamPlugins == nil {
		t.Errorf("%+v", got)
	}
}

type plugins struct{}

func (plugins) Names() []string { return []string{"own"} }

func (plugins) Kind(name string) (phase.Kind, bool) {
	return phase.Kind{
		Name: "own", Priority: 7, Schema: []byte(`{"type":"object"}`), Consumer: &phase.ConsumerKind{Schema: []byte(`{"type":"object"}`)},
		MetadataSchema: []byte(`{"type":"object","properties":{"size":{"type":"integer","default":3},"id":{"default":"x"}}}`),
	}, name == "own"
}

func TestHealthcheck(t *testing.T) {
	p := plane{
		"routes":    {{Key: "routes/1", Value: []byte(`{}`)}, {Key: "routes/2", Value: []byte(`{}`)}},
		"upstreams": {{Key: "upstreams/u", Value: []byte(`{}`)}},
	}
	checks := []Checked{
		{Key: "upstreams/u", Type: "tcp"},
		{Key: "routes/1", Type: "http", Nodes: []health.NodeHealth{
			{IP: "127.0.0.1", Port: 80, Hostname: "<b>", Status: "mostly_healthy", Counter: health.Counters{Success: 1, HTTP: 2, TCP: 3, Timeout: 4}}}},
	}
	h := Handler(Options{Plane: p, Health: func() []Checked { return checks }})
	const one = `{"name":"/apisix/routes/1","type":"http","nodes":[{"ip":"127.0.0.1","port":80,"hostname":"<b>","status":"mostly_healthy",` +
		`"counter":{"success":1,"http_failure":2,"tcp_failure":3,"timeout_failure":4}}]}`
	const two = `{"name":"/apisix/upstreams/u","type":"tcp","nodes":[]}`
	for target, want := range map[string]string{
		"/v1/healthcheck":                 "200 [" + one + "," + two + "]\n",
		"/v1/healthcheck/routes/1":        "200 " + one + "\n",
		"/v1/healthcheck/upstreams/u":     "200 " + two + "\n",
		"/v1/healthcheck/routes/2":        `404 {"error_msg":"no checker for routes[2]"}` + "\n",
		"/v1/healthcheck/routes/3":        `404 {"error_msg":"routes[3] not found"}` + "\n",
		"/v1/healthcheck/stream_routes/3": `404 {"error_msg":"stream_routes[3] not found"}` + "\n",
		"/v1/healthcheck/routes":          `404 {"error_msg":"missing src id for src type routes"}` + "\n",
		"/v1/healthcheck/consumers/1":     `400 {"error_msg":"invalid src type consumers"}` + "\n",
	} {
		ctx := request(h, "GET", target, "127.0.0.1")
		if got := strconv.Itoa(ctx.Response.StatusCode()) + " " + string(ctx.Response.Body()); got != want {
			t.Errorf("%s: got %s, want %s", target, got, want)
		}
	}
	page := request(h, "GET", "/v1/healthcheck", "127.0.0.1", "Accept", "text/html,*/*")
	if body := string(page.Response.Body()); !strings.Contains(body, "&lt;b&gt;") || strings.Contains(body, "<b>") ||
		!strings.HasPrefix(string(page.Response.Header.ContentType()), "text/html") {
		t.Errorf("page %s", body)
	}
	if ctx := request(Handler(Options{Plane: p}), "GET", "/v1/healthcheck", "127.0.0.1"); string(ctx.Response.Body()) != "{}\n" {
		t.Errorf("no checkers: %s", ctx.Response.Body())
	}
}

func TestExplain(t *testing.T) {
	h := Handler(Options{Plane: plane{}, Explain: func(request []byte) (any, error) {
		switch string(request) {
		case "bad":
			return nil, errors.New(`expected "uri"`)
		case "gone":
			return nil, resource.KeyNotFound()
		}
		return map[string]string{"saw": string(request)}, nil
	}})
	ask := func(h fasthttp.RequestHandler, method, body, site string) string {
		var req fasthttp.Request
		req.Header.SetMethod(method)
		req.SetRequestURI("/v1/explain")
		req.Header.SetHost("127.0.0.1")
		req.Header.Set("Sec-Fetch-Site", site)
		req.SetBodyString(body)
		ctx := new(fasthttp.RequestCtx)
		ctx.Init(&req, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}, nil)
		h(ctx)
		return strconv.Itoa(ctx.Response.StatusCode()) + " " + string(ctx.Response.Body())
	}
	for body, want := range map[string]string{
		"<x>": `200 {"saw":"<x>"}` + "\n", "bad": `400 {"error_msg":"expected \"uri\""}` + "\n", "gone": `404 {"error_msg":"Key not found"}` + "\n",
	} {
		if got := ask(h, "POST", body, "none"); got != want {
			t.Errorf("%s: %s", body, got)
		}
	}
	for name, got := range map[string]string{
		"404": ask(h, "GET", "", "none"), "403": ask(h, "POST", "x", "cross-site"), "404 ": ask(Handler(Options{Plane: plane{}}), "POST", "x", "none"),
	} {
		if !strings.HasPrefix(got, strings.TrimSpace(name)) {
			t.Errorf("want %s, got %s", name, got)
		}
	}
}
