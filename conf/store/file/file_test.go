package file

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"headgate/conf/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait for something that must happen. It is not a measure of speed.
const patience = 20 * time.Second

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// replace puts text into place as careful writers do.
func replace(t *testing.T, path, text string) {
	t.Helper()
	write(t, path+".new", text)
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, path string, o Options) *Store {
	t.Helper()
	if o.Interval == 0 {
		o.Interval = 50 * time.Millisecond
	}
	s, err := Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return s
}

// contents returns what List shows, and the revision.
func contents(t *testing.T, s *Store) (map[string]string, uint64) {
	t.Helper()
	items, revision, err := s.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, it := range items {
		out[it.Key] = string(it.Value)
	}
	return out, revision
}

// eventually waits until the store holds want.
func eventually(t *testing.T, s *Store, want map[string]string) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		got, _ := contents(t, s)
		diff := cmp.Diff(want, got)
		if diff == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the file did not come into force: %s; status %+v", diff, s.Status())
		}
	}
}

// refused waits until the store reports an error that contains want.
func refused(t *testing.T, s *Store, want string) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		st := s.Status()
		if !st.Reachable && strings.Contains(st.LastError, want) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("got status %+v, want an error with %q", st, want)
		}
	}
}

const yamlFile = `routes:
  - id: 1
    uri: /a
    upstream_id: u
upstreams:
  - id: u
    nodes: {"127.0.0.1:1980": 1}
    retry_timeout: 1.50
consumers:
  - username: jack
    plugins: {key-auth: {key: <k>}}
  - id: jack/credentials/c1
    plugins: {key-auth: {key: k2}}
secrets:
  - id: vault/1
    uri: "http://127.0.0.1:8200"
plugin_metadata:
  - id: http-logger
    log_format: {h: $host}
plugins:
  - name: key-auth
#END
`

const tomlFile = `[[routes]]
id = 1
uri = "/a"
upstream_id = "u"

[[upstreams]]
id = "u"
nodes = { "127.0.0.1:1980" = 1 }
retry_timeout = 1.5

[[consumers]]
username = "jack"
plugins.key-auth.key = "<k>"

[[credentials]]
consumer = "jack"
id = "c1"
plugins.key-auth.key = "k2"

[[secrets]]
id = "vault/1"
uri = "http://127.0.0.1:8200"

[[plugin_metadata]]
id = "http-logger"
log_format = { h = "$host" }
`

func TestReads(t *testing.T) {
	want := map[string]string{
		"routes/1":                      `{"id":1,"upstream_id":"u","uri":"/a"}`,
		"upstreams/u":                   `{"id":"u","nodes":{"127.0.0.1:1980":1},"retry_timeout":1.50}`,
		"consumers/jack":                `{"plugins":{"key-auth":{"key":"<k>"}},"username":"jack"}`,
		"consumers/jack/credentials/c1": `{"id":"c1","plugins":{"key-auth":{"key":"k2"}}}`,
		"secrets/vault/1":               `{"id":"vault/1","uri":"http://127.0.0.1:8200"}`,
		"plugin_metadata/http-logger":   `{"id":"http-logger","log_format":{"h":"$host"}}`,
	}
	for ext, text := range map[string]string{".yaml": yamlFile, ".yml": yamlFile, ".toml": tomlFile} {
		path := filepath.Join(t.TempDir(), "r"+ext)
		write(t, path, text)
		s := open(t, path, Options{})
		got, revision := contents(t, s)
		if ext == ".toml" { // TOML's parser keeps the value of a number, not its spelling
			want["upstreams/u"] = strings.Replace(want["upstreams/u"], "1.50", "1.5", 1)
		} else {
			want["upstreams/u"] = strings.Replace(want["upstreams/u"], "1.5}", "1.50}", 1)
		}
		if diff := cmp.Diff(want, got); diff != "" || revision != 1 {
			t.Errorf("%s at revision %d:\n%s", ext, revision, diff)
		}
		if st := s.Status(); !st.Reachable || st.Revision != 1 || st.LastError != "" {
			t.Errorf("%s: got status %+v", ext, st)
		}
		if notes := s.Notes(); ext != ".toml" && (len(notes) != 1 || !strings.HasPrefix(notes[0], "plugins: ignored")) {
			t.Errorf("%s: got notes %q", ext, notes)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	f := func(name, file, text, want string) {
		t.Helper()
		path := filepath.Join(dir, file)
		if text != "" {
			write(t, path, text)
		}
		s, err := Open(path, Options{})
		if err == nil {
			_ = s.Close()
			t.Errorf("%s: got no error", name)
			return
		}
		if !strings.Contains(err.Error(), strings.ReplaceAll(want, "FILE", path)) {
			t.Errorf("%s: got %q, want %q", name, err, want)
		}
	}
	f("missing", "no.yaml", "", "no such file")
	f("directory", ".", "", "expected a regular file")
	f("unfinished", "a.yaml", "routes: []\n", "FILE: the file is unfinished: expected #END as its last line")
	f("no YAML", "b.yaml", "routes: [\n#END\n", "FILE:")
	f("no list", "c.yaml", "routes:\n  a: 1\n#END\n", "FILE:1: routes: expected a list")
	f("several",
		"d.yaml", "routes:\n  - id: a\n  - id: a\n  - x\nconsumers:\n  - id: j\n#END\n",
		"FILE:3: routes[1]: routes/a is there already, at line 2\nFILE:4: routes[2]: expected a mapping\nFILE:6: consumers[0].username: expected the name of a consumer")
	f("blank TOML", "a.toml", "\n", "FILE: the file is empty")
	f("no TOML", "b.toml", "[[routes]]\nid = \n", "FILE: not valid TOML: line 2")
	f("duplicate key in TOML", "c.toml", "[[routes]]\nid = 1\nid = 2\n", "FILE: not valid TOML: line 3")
	f("wrong TOML", "d.toml", "[[routes]]\nid = 'a'\n[[route]]\n[[routes]]\nid = 'a'\n[upstreams]\n",
		"FILE:3: route: unknown kind of resource; known here: upstreams, ")
	f("duplicate in TOML", "e.toml", "[[routes]]\nid = 'a'\n\n[[routes]]\nid = 'a'\n", `FILE:5: routes[1].id: expected an id of its own, "a" is also that of routes[0]`)
}

func one(uri string) string { return fmt.Sprintf("routes:\n  - {id: r, uri: %s}\n#END\n", uri) }

func oneWant(uri string) map[string]string {
	return map[string]string{"routes/r": fmt.Sprintf(`{"id":"r","uri":"%s"}`, uri)}
}

func TestFollowsTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r.yaml")
	write(t, path, one("/0"))
	s := open(t, path, Options{})
	eventually(t, s, oneWant("/0"))

	write(t, path, one("/1"))
	eventually(t, s, oneWant("/1"))
	replace(t, path, one("/2"))
	eventually(t, s, oneWant("/2"))

	// Cut off in the middle: what was is still served, and the reason is told.
	write(t, path, one("/3")[:20])
	refused(t, s, path+": the file is unfinished")
	eventually(t, s, oneWant("/2"))
	write(t, path, "routes:\n  - {id: r, uri: /3}\n  - {id: r, uri: /4}\n#END\n")
	refused(t, s, path+":3: routes[1]: routes/r is there already")
	eventually(t, s, oneWant("/2"))

	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	refused(t, s, "no such file")
	eventually(t, s, oneWant("/2"))
	replace(t, path, one("/5"))
	eventually(t, s, oneWant("/5"))
	if st := s.Status(); !st.Reachable || st.LastError == "" {
		t.Errorf("after recovery: got status %+v, want reachable with the last error kept", st)
	}
}

// The same file comes back after it was gone: nothing changed, and all is well again.
func TestRecoversWithoutChange(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r.yaml")
	write(t, path, one("/0"))
	s := open(t, path, Options{})
	for range 2 {
		write(t, path, "#END, not yet\n")
		refused(t, s, "unfinished")
		write(t, path, one("/0"))
		for deadline := time.Now().Add(patience); !s.Status().Reachable; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("got status %+v", s.Status())
			}
		}
	}
	if _, revision := contents(t, s); revision != 1 {
		t.Errorf("got revision %d, want 1 as nothing changed", revision)
	}
}

// Kubernetes mounts a ConfigMap as a link to a link to a directory, and swaps the one in the middle.
func TestSymlinkSwap(t *testing.T) {
	dir := t.TempDir()
	version := func(name, text string) {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, name, "r.yaml"), text)
		if err := os.Symlink(name, filepath.Join(dir, "..tmp")); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(dir, "..tmp"), filepath.Join(dir, "..data")); err != nil {
			t.Fatal(err)
		}
	}
	version("..1", one("/1"))
	path := filepath.Join(dir, "r.yaml")
	if err := os.Symlink(filepath.Join("..data", "r.yaml"), path); err != nil {
		t.Fatal(err)
	}
	s := open(t, path, Options{Interval: time.Hour}) // the notification alone must do
	eventually(t, s, oneWant("/1"))
	version("..2", one("/2"))
	eventually(t, s, oneWant("/2"))
	if err := os.RemoveAll(filepath.Join(dir, "..1")); err != nil {
		t.Fatal(err)
	}
	version("..3", one("/3"))
	eventually(t, s, oneWant("/3"))
}

func TestNotifications(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r.yaml")
	write(t, path, one("/0"))
	s := open(t, path, Options{Interval: time.Hour})
	eventually(t, s, oneWant("/0"))
	replace(t, path, one("/1"))
	eventually(t, s, oneWant("/1"))
	write(t, path, one("/2"))
	eventually(t, s, oneWant("/2"))
}

// The file is a link into another directory, which nobody watches.
func TestPolling(t *testing.T) {
	path, target := filepath.Join(t.TempDir(), "r.yaml"), filepath.Join(t.TempDir(), "target")
	write(t, target, one("/0"))
	if err := os.Symlink(target, path); err != nil {
		t.Fatal(err)
	}
	s := open(t, path, Options{Interval: 10 * time.Millisecond})
	eventually(t, s, oneWant("/0"))
	for i := range 3 {
		uri := fmt.Sprintf("/x%d", i) // the same length as before
		write(t, target, one(uri))
		eventually(t, s, oneWant(uri))
	}
}

func next(t *testing.T, events <-chan store.Event) store.Event {
	t.Helper()
	select {
	case e, ok := <-events:
		if !ok {
			t.Fatal("the watch ended")
		}
		return e
	case <-time.After(patience):
		t.Fatal("no event came")
	}
	panic("unreachable")
}

func TestWatch(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r.yaml")
	write(t, path, "routes: [{id: a}, {id: b}, {id: c}]\nupstreams: [{id: x}]\n#END\n")
	s := open(t, path, Options{})
	events, err := s.Watch(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	replace(t, path, "routes: [{id: a}, {id: b, desc: new}, {id: d}]\nupstreams: [{id: y}]\n#END\n")
	want := []string{"upstreams/y rev 2/2 more", "routes/b rev 1/2 more", "routes/d rev 2/2 more", "routes/c deleted at 2 more", "upstreams/x deleted at 2"}
	for _, w := range want {
		e := next(t, events)
		got := fmt.Sprintf("%s rev %d/%d", e.Item.Key, e.Item.CreateRevision, e.Item.ModRevision)
		if e.Deleted {
			got = fmt.Sprintf("%s deleted at %d", e.Item.Key, e.Item.ModRevision)
		}
		if e.More {
			got += " more"
		}
		if got != w {
			t.Errorf("got %s, want %s", got, w)
		}
	}
	// A comment is no change, so the next event is that of the next real one.
	replace(t, path, "# comment\nroutes: [{id: a}, {id: b, desc: new}, {id: d}]\nupstreams: [{id: y}]\n#END\n")
	replace(t, path, "routes: [{id: a}, {id: b, desc: new}]\nupstreams: [{id: y}]\n#END\n")
	if e := next(t, events); e.Item.Key != "routes/d" || !e.Deleted || e.Item.ModRevision != 3 || e.More {
		t.Errorf("got %+v", e)
	}
}

func TestReadOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r.yaml")
	write(t, path, one("/0"))
	s := open(t, path, Options{})
	_, put := s.Put(t.Context(), "routes/x", []byte("{}"), store.AnyRevision, time.Time{})
	_, del := s.Delete(t.Context(), "routes/r", store.AnyRevision)
	_, _, batch := s.Batch(t.Context(), []store.Write{{Key: "routes/r", IfRevision: store.AnyRevision}})
	for name, err := range map[string]error{"Put": put, "Delete": del, "Batch": batch} {
		if !errors.Is(err, store.ErrReadOnly) {
			t.Errorf("%s: got %v, want ErrReadOnly", name, err)
		}
	}
	if got, revision := contents(t, s); cmp.Diff(oneWant("/0"), got) != "" || revision != 1 {
		t.Errorf("got %v at revision %d", got, revision)
	}
}

func TestCheck(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r.yaml")
	check := func(docs map[string][]byte) map[string]error {
		wrong := map[string]error{}
		for key, value := range docs {
			if strings.Contains(string(value), "bad") {
				wrong[key] = errors.New("it is bad")
			}
		}
		return wrong
	}
	write(t, path, "routes:\n  - {id: a}\n  - {id: b, uri: bad}\n#END\n")
	if s, err := Open(path, Options{Check: check}); err == nil || err.Error() != path+":3: routes/b: it is bad" {
		if s != nil {
			_ = s.Close()
		}
		t.Fatalf("got %v", err)
	}
	write(t, path, one("/0"))
	s := open(t, path, Options{Check: check})
	write(t, path, "routes:\n  - {id: r, uri: /1}\n  - {id: b, uri: bad}\n#END\n")
	refused(t, s, path+":3: routes/b: it is bad")
	eventually(t, s, oneWant("/0"))
}

func TestClose(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r.yaml")
	write(t, path, one("/0"))
	s, err := Open(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	events, err := s.Watch(context.Background(), 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case e, ok := <-events:
		if ok {
			t.Errorf("got %+v, want the end of the watch", e)
		}
	case <-time.After(patience):
		t.Error("the watch did not end")
	}
	if _, _, err := s.List(t.Context()); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("List: got %v", err)
	}
}
