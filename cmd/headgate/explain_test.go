package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"headgate/conf"
	"headgate/conf/store"
	"headgate/conf/store/embedded"
	"headgate/proxy"
	"headgate/proxy/admin/control"
)

const explainConf = `
[store]
provider = "embedded"
path = "STORE"

[[routes]]
id = "chat"
name = "the chat"
uri = "/chat/*"
host = "ai.example"
methods = ["POST"]
service_id = "s"
[routes.plugins.traffic-split]
rules = [
  {weight = 3, upstream_id = "v2"},
  {weight = 1, name = "old"},
]

[[routes]]
id = "guest"
uri = "/chat/*"
host = "ai.example"
priority = 7
vars = [["http_x_guest", "==", "1"]]
upstream_id = "v1"

[[services]]
id = "s"
upstream_id = "v1"
[services.plugins.limit-count]
count = 5
time_window = 60

[[upstreams]]
id = "v1"
nodes = {"10.0.0.1:80" = 1}

[[upstreams]]
id = "v2"
nodes = [{host = "10.0.0.2", port = 80, weight = 1}, {host = "10.0.0.3", port = 80, weight = 1}]
`

// explainDir is a directory with a configuration and a store that holds one more route.
func explainDir(t *testing.T) (file, storePath string) {
	t.Helper()
	dir := t.TempDir()
	file, storePath = filepath.Join(dir, "headgate.toml"), filepath.Join(dir, "store.db")
	writeFile(t, file, strings.ReplaceAll(explainConf, "STORE", storePath))
	s, err := embedded.Open(storePath, embedded.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	doc := `{"uri":"/chat/stored","host":"ai.example","status":0,"upstream_id":"v1"}`
	if _, err := s.Put(context.Background(), "routes/stored", []byte(doc), store.AnyRevision, time.Time{}); err != nil {
		t.Fatal(err)
	}
	return file, storePath
}

func runExplain(args ...string) (stdout, stderr string, status int) {
	var out, errs bytes.Buffer
	status = explainCommand(args, &out, &errs)
	return out.String(), errs.String(), status
}

func TestExplainFile(t *testing.T) {
	file, storePath := explainDir(t)
	before, err := os.ReadFile(storePath)
	if err != nil {
		t.Fatal(err)
	}
	got, stderr, status := runExplain("-c", file, "-H", "X-A: b", "-d", "{}", "-client", "10.1.1.1", "http://AI.example:8080/chat//stored?a=b#c")
	want := `request      POST /chat/stored on ai.example, query a=b, from 10.1.1.1; revision 1
route        routes/chat "the chat" by /chat/* on ai.example, priority 0
             with services/s
passed over  routes/stored, /chat/stored on ai.example: status is 0
             routes/guest, /chat/* on ai.example: vars do not hold: ["http_x_guest","==","1"]
plugins      route limit-count    1002  services/s   runs  access
             route traffic-split  966   routes/chat  runs  access
split        traffic-split sends it to v2 next: rule 0 is for every request, bucket 0
             v2: weight 3, 75 %, to v2
             old: weight 1, 25 %, to the route's own upstream
upstream     v2 from upstreams/v2, roundrobin; next is 10.0.0.2:80
             10.0.0.2:80: weight 1, priority 0
             10.0.0.3:80: weight 1, priority 0
`
	if got != want || stderr != "" || status != 0 {
		t.Errorf("status %d, %s\ngot\n%s\nwant\n%s", status, stderr, got, want)
	}
	got, _, status = runExplain("-c", file, "-json", "-X", "GET", "/nothing\x1b[2J")
	e := &proxy.Explanation{}
	if err := json.Unmarshal([]byte(got), e); err != nil || status != 0 || e.Fault == nil || e.Fault.Code != "bad_request" {
		t.Errorf("status %d, %v, %s", status, err, got)
	}
	got, _, status = runExplain("-c", file, "/chat/%1b[2J")
	if status != 0 || strings.ContainsRune(got, 0x1b) || !strings.Contains(got, "answered with 4") {
		t.Errorf("status %d, %q", status, got)
	}
	after, err := os.ReadFile(storePath)
	if err != nil || !bytes.Equal(before, after) {
		t.Errorf("the store was changed: %v", err)
	}
	if files, err := os.ReadDir(filepath.Dir(file)); err != nil || len(files) != 2 {
		t.Errorf("files were made: %v, %v", files, err)
	}
}

// A route without an upstream is right where a plugin answers; who has what two consumers claim is decided as the gateway would.
func TestExplainFileWithAnAnswer(t *testing.T) {
	file, storePath := explainDir(t)
	s, err := embedded.Open(storePath, embedded.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, doc := range [][2]string{
		{"routes/mock", `{"uri":"/mock","plugins":{"key-auth":{},"mocking":{"response_example":"x","response_status":201},"fault-injection":{"abort":{"http_status":503,"percentage":5}}}}`},
		{"consumers/zoe", `{"username":"zoe","plugins":{"key-auth":{"key":"k"}}}`}, {"consumers/adam", `{"username":"adam","plugins":{"key-auth":{"key":"k"}}}`},
	} {
		if _, err := s.Put(context.Background(), doc[0], []byte(doc[1]), store.AnyRevision, time.Time{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	got, stderr, status := runExplain("-c", file, "-consumer", "zoe", "/mock")
	want := `request     GET /mock on localhost, from 127.0.0.1, as zoe; revision 4
route       routes/mock by /mock on any host, priority 0
plugins     route fault-injection  11000  routes/mock  runs  rewrite
            route mocking          10900  routes/mock  runs  access
            route key-auth         2500   routes/mock  runs  rewrite
may answer  fault-injection from routes/mock, with 503: abort is for 5 % of such requests
answer      mocking from routes/mock, with 201: it answers every request
`
	if got != want || status != 0 || !strings.Contains(stderr, "consumers/adam from the store is left out") {
		t.Errorf("status %d, %s\ngot\n%s\nwant\n%s", status, stderr, got, want)
	}
}

func TestExplainFileRefuses(t *testing.T) {
	file, storePath := explainDir(t)
	bad := filepath.Join(t.TempDir(), "bad.toml")
	writeFile(t, bad, "[store]\nprovider = \"mem\"\n[[routes]]\nid = \"a\"\nuri = \"/a\"\nupstream_id = \"nowhere\"\n")
	tests := []struct {
		name   string
		args   []string
		status int
		want   string
	}{
		{"no target", []string{"-c", file}, 2, "expected one URL or path"},
		{"two targets", []string{"-c", file, "/a", "/b"}, 2, "expected one URL or path"},
		{"no path", []string{"-c", file, "example.com"}, 2, "expected a URL (http://host/path) or a path"},
		{"no header line", []string{"-c", file, "-H", "X", "/"}, 2, "expected Name: value"},
		{"unknown option", []string{"-x", "/"}, 2, "flag provided but not defined: -x"},
		{"two things to ask", []string{"-c", file, "-control", "127.0.0.1:1", "/"}, 2, "expected one of them"},
		{"no file", []string{"-c", file + ".none", "/"}, 1, "no such file"},
		{"wrong resources", []string{"-c", bad, "/"}, 1, "upstream id [nowhere]"},
		{"wrong request", []string{"-c", file, "-consumer", "nobody", "/"}, 1, `there is no consumer "nobody"`},
		{"nobody listens", []string{"-control", deadAddr(t), "/"}, 1, "-c explains a configuration file"},
	}
	for _, tt := range tests {
		if stdout, stderr, status := runExplain(tt.args...); status != tt.status || !strings.Contains(stderr, tt.want) || stdout != "" {
			t.Errorf("%s: status %d, %s%s", tt.name, status, stdout, stderr)
		}
	}
	open, err := embedded.Open(storePath, embedded.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	if _, stderr, status := runExplain("-c", file, "/"); status != 1 || !strings.Contains(stderr, "a running gateway has it open: ask that gateway, with -control") {
		t.Errorf("with the store open: status %d, %s", status, stderr)
	}
	if stdout, _, status := runExplain("-h"); status != 0 || stdout != explainUsage {
		t.Errorf("help: status %d, %s", status, stdout)
	}
}

// A store file that is not there yet is empty, and is not made.
func TestExplainWithoutAStoreFile(t *testing.T) {
	file, storePath := explainDir(t)
	if err := os.Remove(storePath); err != nil {
		t.Fatal(err)
	}
	got, stderr, status := runExplain("-c", file, "/")
	if status != 0 || !strings.Contains(got, "no_route") {
		t.Errorf("status %d, %s%s", status, got, stderr)
	}
	if _, err := os.Stat(storePath); err == nil {
		t.Error("a store was made")
	}
}

// A running gateway explains what its Admin API has put into force, the same as it serves.
func TestExplainRunning(t *testing.T) {
	g := startGate(t, onLoopback(t, conf.Default()))
	g.configure("PUT", "/routes/1", `{"uri":"/a/*","name":"first","upstream":{"nodes":{"10.0.0.1:80":1}}}`)
	explainer := proxy.NewExplainer(g.server, g.applier)
	s := control.NewServer(control.Options{Plane: g.applier, Explain: func(request []byte) (any, error) { return explainer.Explain(request) }})
	l, err := proxy.Listen(context.Background(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		if err := s.Shutdown(); err != nil {
			t.Error(err)
		}
		<-served
	})
	addr := l.Addr().String()
	got, stderr, status := runExplain("-control", addr, "https://h/a/b")
	for _, want := range []string{`routes/1 "first" by /a/* on any host`, "next is 10.0.0.1:80"} {
		if status != 0 || !strings.Contains(got, want) {
			t.Errorf("status %d, %s%s\nhas not %s", status, got, stderr, want)
		}
	}
	if _, stderr, status := runExplain("-control", addr, "-client", "me", "/"); status != 1 || !strings.HasPrefix(stderr, "client: expected an IP address") {
		t.Errorf("status %d, %s", status, stderr)
	}
	if _, stderr, status := runExplain("-control", g.addr, "/"); status != 1 || !strings.Contains(stderr, "404") {
		t.Errorf("another listener: status %d, %s", status, stderr)
	}
}

// What an operator has shut decides before a split does, and the text says why nobody serves.
func TestExplainQuarantined(t *testing.T) {
	g := startGate(t, onLoopback(t, conf.Default()))
	g.configure("PUT", "/routes/1", `{"uri":"/a","upstream":{"nodes":{"127.0.0.1:9":1}},"plugins":{"traffic-split":{
		"sticky":{"cookie":{"name":"hg"}},
		"rules":[{"weighted_upstreams":[{"name":"v1","weight":1,"upstream":{"nodes":{"127.0.0.1:9":1}}},{"name":"v2","weight":1}]}]}}}`)
	impose := func(target string) (lift func()) {
		t.Helper()
		var q struct{ ID string }
		a := g.control("POST", "/v1/quarantine", `{`+target+`,"ttl":600,"reason":"closed"}`)
		if err := json.Unmarshal([]byte(a.body), &q); err != nil || a.status != 201 {
			t.Fatalf("%s: %v", target, a)
		}
		return func() { g.control("DELETE", "/v1/quarantine/"+q.ID, "") }
	}
	says := func(what string, want, not string) {
		t.Helper()
		got, stderr, status := runExplain("-control", g.process.addr("control"), "/a")
		if status != 0 || !strings.Contains(got, want) || not != "" && strings.Contains(got, not) {
			t.Errorf("%s: status %d, %s%s\nexpected %q and not %q", what, status, got, stderr, want, not)
		}
	}
	const leftOpen = "traffic-split leaves it open: "
	says("nothing is shut", leftOpen, "fault")
	lift := impose(`"route":"1"`)
	says("the route", "quarantined (gateway): answered with 503", leftOpen)
	lift()
	impose(`"route":"1","branch":"v1"`)
	says("one branch", leftOpen, "fault")
	impose(`"route":"1","branch":"v2"`)
	says("both branches", "traffic-split answers 503: rule 0 is for every request; the client is not known yet", leftOpen)
	if got, _, _ := runExplain("-control", g.process.addr("control"), "-H", "Cookie: hg=0123456789abcdef", "/a"); !strings.Contains(got, "answers 503: rule 0 ") {
		t.Error(got)
	}
}

func TestAim(t *testing.T) {
	tests := []struct{ target, host, path string }{
		{"/a//b?c", "", "/a//b?c"},
		{"*", "", "*"},
		{"http://h", "h", "/"},
		{"HTTP://h:80?q", "h:80", "/?q"},
		{"https://[::1]:8/%2e/../x?y#z", "[::1]:8", "/%2e/../x?y"},
	}
	for _, tt := range tests {
		r := &proxy.ExplainRequest{}
		if err := aim(r, tt.target); err != nil || r.Host != tt.host || r.Path != tt.path || r.TLS != strings.HasPrefix(tt.target, "https") {
			t.Errorf("%s: %+v, %v", tt.target, r, err)
		}
	}
	r := &proxy.ExplainRequest{Headers: map[string][]string{"host": {"b"}}}
	if err := aim(r, "http://a/"); err != nil || r.Host != "" {
		t.Errorf("the header Host does not win: %+v, %v", r, err)
	}
}
