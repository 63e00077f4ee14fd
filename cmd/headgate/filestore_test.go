package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"headgate/conf"
)

// fileGate is a gateway whose documents are one file.
type fileGate struct {
	*gate
	path string
}

func startFileGate(t *testing.T, name, text string) *fileGate {
	t.Helper()
	f := &fileGate{path: filepath.Join(t.TempDir(), name)}
	writeFile(t, f.path, text)
	c := onLoopback(t, conf.Default())
	c.Store.Provider = conf.StoreFile
	c.Store.File.Path = f.path
	c.Store.File.Interval = conf.Duration(50 * time.Millisecond)
	f.gate = startGate(t, c)
	return f
}

// replace puts another version in the place of the file, as deployments do: written beside it and renamed.
func (f *fileGate) replace(text string) {
	f.t.Helper()
	next := f.path + ".next"
	writeFile(f.t, next, text)
	if err := os.Rename(next, f.path); err != nil {
		f.t.Fatal(err)
	}
}

// documentFile renders two routes, a service and a consumer in one of the two forms of the file. All of them say version.
type documentFile struct {
	name   string
	render func(version, upstream string) string
	broken []brokenFile
}

// brokenFile is a version of the file that must not be taken: the first replaced is another text. said has to be told about it.
type brokenFile struct{ replaced, by, said string }

func documentFiles() []documentFile {
	toml := func(version, upstream string) string {
		return fmt.Sprintf(`[[upstreams]]
id = "u"
nodes = { %[2]q = 1 }

[[services]]
id = "s"
upstream_id = "u"
[services.plugins.response-rewrite]
headers = { set = { X-Service = %[1]q } }

[[routes]]
id = "proxied"
uri = "/proxied"
service_id = "s"
[routes.plugins.key-auth]

[[routes]]
id = "said"
uri = "/said"
[routes.plugins.fault-injection]
abort = { http_status = 200, body = %[1]q }

[[routes]]
id = "only-%[1]s"
uri = "/only-%[1]s"
service_id = "s"

[[consumers]]
username = "jack"
[consumers.plugins.key-auth]
key = "key-%[1]s"
`, version, upstream)
	}
	yaml := func(version, upstream string) string {
		return fmt.Sprintf(`upstreams:
  - id: u
    nodes: {%[2]q: 1}
services:
  - id: s
    upstream_id: u
    plugins:
      response-rewrite:
        headers:
          set: {X-Service: %[1]q}
routes:
  - id: proxied
    uri: /proxied
    service_id: s
    plugins:
      key-auth: {}
  - id: said
    uri: /said
    plugins:
      fault-injection:
        abort: {http_status: 200, body: %[1]q}
  - id: only-%[1]s
    uri: /only-%[1]s
    service_id: s
consumers:
  - username: jack
    plugins:
      key-auth: {key: key-%[1]s}
#END
`, version, upstream)
	}
	return []documentFile{
		{"documents.toml", toml, []brokenFile{
			{"[[services]]", "[[services", "documents.toml: not valid TOML: line 6"},
			{`uri = "/said"`, `uri = 7`, "documents.toml:17: routes/said: "},
			{`service_id = "s"`, `service_id = "t"`, "service id [t]"},
			{"[routes.plugins.fault-injection]", "[routes.plugins.no-plugin]", "unknown plugin [no-plugin]"},
			{"[[consumers]]", "[[consumer]]", "documents.toml:28: consumer: unknown kind"},
		}},
		{"apisix.yaml", yaml, []brokenFile{
			{"routes:", "routes: [", "apisix.yaml:25: not valid YAML"},
			{"uri: /said", "uri: 7", "apisix.yaml:17: routes/said: "},
			{"service_id: s", "service_id: t", "service id [t]"},
			{"fault-injection:", "no-plugin:", "unknown plugin [no-plugin]"},
			{"#END\n", "", "#END"},
		}},
	}
}

// TestFileStore: the documents of a file are served, another version of it is in force as a whole, a broken one changes nothing and is
// reported, and the Admin API only reads.
func TestFileStore(t *testing.T) {
	for _, file := range documentFiles() {
		t.Run(file.name, func(t *testing.T) {
			u := newUpstream(t, "alive", nil)
			f := startFileGate(t, file.name, file.render("one", u.addr))
			f.inForce(t, "one", "two")
			f.readOnly(t)
			f.replace(file.render("two", u.addr))
			f.wholly(t, "one", "two")
			f.inForce(t, "two", "one")
			for _, b := range file.broken {
				f.refuses(t, strings.Replace(file.render("broken", u.addr), b.replaced, b.by, 1), b.said)
				f.inForce(t, "two", "broken")
			}
			// Removing the file is no way to remove the routes.
			if err := os.Remove(f.path); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the missing file to be told", func() bool { return f.gauge(reachable) == 0 })
			f.inForce(t, "two", "broken")
			f.replace(file.render("three", u.addr))
			f.wholly(t, "two", "three")
			f.inForce(t, "three", "two")
			eventually(t, "the file to be right again", func() bool { return f.gauge(reachable) == 1 })
		})
	}
}

// inForce makes sure that everything is of version, and nothing of other.
func (f *fileGate) inForce(t *testing.T, version, other string) {
	t.Helper()
	url := "http://" + f.addr
	if a := f.send("GET", url+"/said", ""); a.status != http.StatusOK || a.body != version {
		t.Errorf("/said: %v, want %s", a, version)
	}
	a := f.send("GET", url+"/proxied", "", "apikey: key-"+version)
	if a.status != http.StatusOK || a.body != "alive\n" || a.header.Get("X-Service") != version {
		t.Errorf("/proxied: %v %v, want %s", a, a.header, version)
	}
	if a := f.send("GET", url+"/proxied", "", "apikey: key-"+other); a.status != http.StatusUnauthorized {
		t.Errorf("with the key of version %s: %v", other, a)
	}
	if a := f.send("GET", url+"/only-"+version, ""); a.status != http.StatusOK {
		t.Errorf("the route of version %s: %v", version, a)
	}
	if a := f.send("GET", url+"/only-"+other, ""); a.status != http.StatusNotFound {
		t.Errorf("the route of version %s: %v", other, a)
	}
}

// wholly follows the change from one version to the next. The answer of one route shows which version there is, and from the first
// answer of the next on everything else is of it too.
func (f *fileGate) wholly(t *testing.T, before, after string) {
	t.Helper()
	eventually(t, "version "+after, func() bool {
		switch a := f.send("GET", "http://"+f.addr+"/said", ""); a.body {
		case after:
			return true
		case before:
		default:
			t.Fatalf("between two versions: %v", a)
		}
		return false
	})
	f.inForce(t, after, before)
}

// refuses replaces the file by a version that must not be taken.
func (f *fileGate) refuses(t *testing.T, text, said string) {
	t.Helper()
	told := strings.Count(f.logged.String(), "nothing was changed")
	f.replace(text)
	eventually(t, "the refusal of a broken file in the log", func() bool { return strings.Count(f.logged.String(), "nothing was changed") > told })
	log := f.logged.String()
	if last := log[strings.LastIndex(log, "nothing was changed"):]; !strings.Contains(last, said) {
		t.Errorf("the refusal is %q, want %q in it", last, said)
	}
	if got := f.gauge(reachable); got != 0 {
		t.Errorf("%s is %v with a broken file", reachable, got)
	}
}

// readOnly: the Admin API shows everything and changes nothing.
func (f *fileGate) readOnly(t *testing.T) {
	t.Helper()
	for _, write := range []struct{ method, path, body string }{
		{"PUT", "/routes/said", `{"uri":"/said"}`}, {"PUT", "/routes/new", `{"uri":"/new","upstream_id":"u"}`},
		{"POST", "/routes", `{"uri":"/new","upstream_id":"u"}`}, {"PATCH", "/routes/said", `{"desc":"x"}`}, {"DELETE", "/routes/said", ""},
		{"PUT", "/consumers", `{"username":"jill"}`}, {"DELETE", "/consumers/jack", ""}, {"PUT", "/configs", `{"routes":[]}`},
	} {
		a := f.admin(write.method, write.path, write.body, "X-Digest: 1")
		if a.status < 400 || a.status > 499 || !strings.Contains(a.body, "cannot be changed through the API") || !strings.Contains(a.body, f.path) {
			t.Errorf("%s %s: %v", write.method, write.path, a)
		}
	}
	if a := f.admin("GET", "/routes", ""); a.status != http.StatusOK || !strings.Contains(a.body, `"total":3`) {
		t.Errorf("GET /routes: %v", a)
	}
	if a := f.admin("GET", "/routes/said", ""); a.status != http.StatusOK || !strings.Contains(a.body, `"uri":"/said"`) {
		t.Errorf("GET /routes/said: %v", a)
	}
}

// A gateway whose file is wrong or missing does not start, and says what is wrong with it.
func TestFileStoreAtStart(t *testing.T) {
	dir := t.TempDir()
	for name, want := range map[string]string{"missing.toml": "no such file", "wrong.toml": "wrong.toml:2: routes/a: "} {
		config := childConfig(t, dir, fmt.Sprintf("[store]\nprovider = \"file\"\n[store.file]\npath = %q\n", name))
		writeFile(t, filepath.Join(dir, "wrong.toml"), "# a comment\n[[routes]]\nid = \"a\"\nuri = 7\n")
		if _, stderr, status := runChild(t, dir, "run", "-c", config); status != 1 || !strings.Contains(stderr, "store.file: ") || !strings.Contains(stderr, want) {
			t.Errorf("%s: status %d, want %q: %s", name, status, want, stderr)
		}
	}
}
