package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// at calls the Admin API of a process.
func (c *child) at(client *http.Client, method, path, body string, key string) answer {
	c.t.Helper()
	return send(c.t, client, method, "http://"+c.addr("admin")+"/apisix/admin"+path, body, "X-API-KEY: "+key)
}

// TestKill: whatever was acknowledged is there after a kill -9, and serves.
func TestKill(t *testing.T) {
	u := newUpstream(t, "alive", nil)
	dir := t.TempDir()
	file := childConfig(t, dir, "")
	c := startChild(t, dir, "run", "-c", file)
	client := newClient(t)
	before := c.at(client, "PUT", "/upstreams/u", fmt.Sprintf(`{"nodes":{%q:1}}`, u.addr), adminKey)
	if before.status != http.StatusCreated {
		t.Fatal(before)
	}

	var acknowledged atomic.Int64
	writing := make(chan struct{})
	go func() { // until the process is gone
		defer close(writing)
		for i := 1; ; i++ {
			a, err := trySend(client, "PUT", fmt.Sprintf("http://%s/apisix/admin/routes/r-%d", c.addr("admin"), i),
				fmt.Sprintf(`{"uri":"/r/%d","upstream_id":"u"}`, i), "X-API-KEY: "+adminKey)
			if err != nil {
				return
			}
			if a.status != http.StatusCreated {
				t.Errorf("write %d: %v", i, a)
				return
			}
			acknowledged.Store(int64(i))
		}
	}()
	eventually(t, "some writes", func() bool { return acknowledged.Load() >= 25 })
	c.kill()
	<-writing

	c = startChild(t, dir, "run", "-c", file)
	n := int(acknowledged.Load())
	for i := 1; i <= n; i++ {
		if a := send(t, client, "GET", fmt.Sprintf("http://%s/r/%d", c.addr("gateway"), i), ""); a.status != http.StatusOK || a.body != "alive\n" {
			t.Errorf("route %d of %d: %v", i, n, a)
		}
	}
	// At most the write that was under way is there without an acknowledgement.
	a := c.at(client, "GET", "/routes", "", adminKey)
	if total := strings.Count(a.body, `"key":`); total != n && total != n+1 {
		t.Errorf("%d routes are stored, %d were acknowledged", total, n)
	}
	// Life goes on, with a higher revision.
	if a := c.at(client, "DELETE", "/routes/r-1", "", adminKey); a.status != http.StatusOK {
		t.Error(a)
	}
	if a := send(t, client, "GET", fmt.Sprintf("http://%s/r/1", c.addr("gateway")), ""); a.status != http.StatusNotFound {
		t.Error(a)
	}
}

// TestFirstStart: without a key one is made, kept where only its owner can read it, and used again by the next start.
func TestFirstStart(t *testing.T) {
	dir := t.TempDir()
	file := childConfig(t, dir, "")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	without, _, _ := strings.Cut(string(text), "[[admin.keys]]")
	writeFile(t, file, without)
	client := newClient(t)
	var key string
	for _, start := range []string{"first", "second"} {
		c := startChild(t, dir, "run", "-c", file)
		c.addr("control") // the last one
		log := c.stderr.String()
		if said := strings.Contains(log, "data/admin.key"); said != (start == "first") {
			t.Errorf("the %s start says:\n%s", start, log)
		}
		info, err := os.Stat(filepath.Join(dir, "data/admin.key"))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Fatalf("the key file: %v, %v", info, err)
		}
		content, err := os.ReadFile(filepath.Join(dir, "data/admin.key"))
		if err != nil {
			t.Fatal(err)
		}
		if key != "" && key != strings.TrimSpace(string(content)) {
			t.Error("the second start made another key")
		}
		key = strings.TrimSpace(string(content))
		if len(key) < 32 || strings.Contains(log, key) {
			t.Errorf("the key has %d characters, or is in the log", len(key))
		}
		if a := c.at(client, "GET", "/routes", "", key); a.status != http.StatusOK {
			t.Errorf("with the key: %v", a)
		}
		if a := c.at(client, "GET", "/routes", "", adminKey); a.status != http.StatusUnauthorized {
			t.Errorf("with another key: %v", a)
		}
		c.signal(syscall.SIGTERM)
		if status := c.wait(); status != 0 {
			t.Errorf("status %d", status)
		}
	}
}

// TestReload: SIGHUP puts another file into force, or changes nothing and says why.
func TestReload(t *testing.T) {
	one, two := newUpstream(t, "one", nil), newUpstream(t, "two", nil)
	dir := t.TempDir()
	route := func(uri string, u *upstreamServer) string {
		return fmt.Sprintf("[[routes]]\nid = \"r\"\nuri = %q\n[routes.upstream]\nnodes = { %q = 1 }\n", uri, u.addr)
	}
	file := childConfig(t, dir, route("/a", one))
	c := startChild(t, dir, "run", "-c", file)
	client := newClient(t)
	get := func(path string) string {
		t.Helper()
		a := send(t, client, "GET", "http://"+c.addr("gateway")+path, "")
		return fmt.Sprintf("%d %s", a.status, strings.TrimSpace(a.body))
	}
	serves := func(what, path, want string) {
		t.Helper()
		if got := get(path); got != want {
			t.Errorf("%s: %s answers %s, want %s", what, path, got, want)
		}
	}
	serves("the first file", "/a", "200 one")

	childConfig(t, dir, route("/b", two))
	c.signal(syscall.SIGHUP)
	eventually(t, "the second file", func() bool { return get("/b") == "200 two" })
	serves("the second file", "/a", `404 {"error_msg":"404 Route Not Found"}`)
	c.says("is in force")

	for _, tt := range []struct{ what, more, why string }{
		{"a broken file", route("/c", one) + "[gatewy]\n", "headgate.toml:20: gatewy: unknown key"},
		{"a reference to nothing", route("/c", one) + "[[routes]]\nid = \"s\"\nuri = \"/s\"\nupstream_id = \"u\"\n", "routes[1].upstream_id: failed to fetch upstream info by upstream id [u]"},
		{"other settings", route("/c", one) + "[store]\nprovider = \"mem\"\n[upstream]\nread_timeout = \"1s\"\n", "a restart is needed to change store.provider, upstream.read_timeout"},
	} {
		childConfig(t, dir, tt.more)
		c.signal(syscall.SIGHUP)
		c.says("nothing was changed: ")
		c.says(tt.why)
		serves(tt.what, "/b", "200 two")
		serves(tt.what, "/c", `404 {"error_msg":"404 Route Not Found"}`)
	}

	// Keys rotate without a restart.
	const next = "the-next-key-of-at-least-32-characters"
	text := childConfigText(t, dir, route("/b", two))
	writeFile(t, file, strings.Replace(text, adminKey, next, 1))
	c.signal(syscall.SIGHUP)
	eventually(t, "the next key", func() bool { return c.at(client, "GET", "/routes", "", next).status == http.StatusOK })
	if a := c.at(client, "GET", "/routes", "", adminKey); a.status != http.StatusUnauthorized {
		t.Errorf("the old key: %v", a)
	}
	serves("other keys", "/b", "200 two")
}

func childConfigText(t testing.TB, dir, more string) string {
	t.Helper()
	text, err := os.ReadFile(childConfig(t, dir, more))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestDrain: SIGTERM lets what runs finish, gives idle clients a last answer, takes nobody new, and ends with status 0.
func TestDrain(t *testing.T) {
	slow, quick := newScripted(t), newUpstream(t, "quick", nil)
	dir := t.TempDir()
	c := startChild(t, dir, "run", "-c", childConfig(t, dir, fmt.Sprintf(
		"[[routes]]\nid = \"slow\"\nuri = \"/slow\"\n[routes.upstream]\nnodes = { %q = 1 }\n"+
			"[[routes]]\nid = \"quick\"\nuri = \"/quick\"\n[routes.upstream]\nnodes = { %q = 1 }\n", slow.addr, quick.addr)))
	gateway := c.addr("gateway")
	const ask = "GET /%s HTTP/1.1\r\nHost: a\r\n\r\n"
	idle := dialWire(t, gateway)
	if res, body, err := idle.exchange(fmt.Sprintf(ask, "quick")); err != nil || res.Close || body != "quick\n" {
		t.Fatalf("%+v %q %v", res, body, err)
	}
	busy := dialWire(t, gateway)
	if _, err := io.WriteString(busy, fmt.Sprintf(ask, "slow")); err != nil {
		t.Fatal(err)
	}
	served := slow.next(t)
	served.send(t, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"+chunk("half "))

	c.signal(syscall.SIGTERM)
	c.says("draining")
	eventually(t, "the listener to close", func() bool {
		conn, err := net.DialTimeout("tcp", gateway, time.Second)
		if err == nil {
			conn.Close()
		}
		return err != nil
	})
	if res, body, err := idle.exchange(fmt.Sprintf(ask, "quick")); err != nil || !res.Close || body != "quick\n" {
		t.Errorf("the idle connection's last answer: %+v %q %v", res, body, err)
	}
	select {
	case <-c.ended:
		t.Fatal("the process ended with a request under way")
	default:
	}
	served.send(t, chunk("done")+"0\r\n\r\n")
	if res, body, err := busy.read(); err != nil || res.StatusCode != http.StatusOK || body != "half done" {
		t.Errorf("the running request: %+v %q %v", res, body, err)
	}
	if status := c.wait(); status != 0 {
		t.Errorf("status %d", status)
	}
	log, err := os.ReadFile(filepath.Join(dir, "access.log"))
	if err != nil || strings.Count(string(log), "\n") != 3 {
		t.Errorf("the access log: %v\n%s", err, log)
	}
}

// A signal that comes while the process starts is obeyed, too: none of them kills it, and SIGTERM ends what the start waits for.
func TestSignalWhileStarting(t *testing.T) {
	nobody, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and never answers
	if err != nil {
		t.Fatal(err)
	}
	defer nobody.Close()
	dir := t.TempDir()
	c := startChild(t, dir, "run", "-c", childConfig(t, dir, fmt.Sprintf(
		"[store]\nprovider = \"etcd\"\n[store.etcd]\nendpoints = [\"http://%s\"]\nstartup_retry = 1000\n", nobody.Addr())))
	if conn, err := nobody.Accept(); err == nil { // by now it listens to signals
		defer conn.Close()
	}
	c.signal(syscall.SIGHUP)
	c.signal(syscall.SIGUSR1)
	c.signal(syscall.SIGTERM)
	c.says("ends as soon as the start does")
	if status := c.wait(); status != 1 || !strings.Contains(c.stderr.String(), "store.etcd") {
		t.Errorf("status %d", status)
	}
}

// TestDrainTimeout: what never ends is cut when drain_timeout is over. The log tells; the status does not, because the process did as it was
// asked to. Only an operator who asks twice is told that not all was done.
func TestDrainTimeout(t *testing.T) {
	slow := newScripted(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "headgate.toml")
	text := childConfigText(t, dir, fmt.Sprintf("[[routes]]\nid = \"slow\"\nuri = \"/slow\"\n[routes.upstream]\nnodes = { %q = 1 }\n", slow.addr))
	writeFile(t, file, strings.Replace(text, `drain_timeout = "5s"`, `drain_timeout = "200ms"`, 1))
	for _, second := range []bool{false, true} {
		c := startChild(t, dir, "run", "-c", file)
		busy := dialWire(t, c.addr("gateway"))
		if _, err := io.WriteString(busy, "GET /slow HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		slow.next(t)
		c.signal(syscall.SIGTERM)
		if second { // an impatient operator
			c.says("draining")
			c.signal(syscall.SIGTERM)
		}
		want := 0
		if second {
			want = 1
		}
		if status := c.wait(); status != want {
			t.Errorf("status %d, want %d", status, want)
		}
		if said := strings.Contains(c.stderr.String(), "1 requests were cut off by drain_timeout"); !said && !second {
			t.Errorf("the log does not say so:\n%s", c.stderr.String())
		}
	}
}

// TestReopenLog: SIGUSR1 opens the access log anew, as log rotation asks for.
func TestReopenLog(t *testing.T) {
	dir := t.TempDir()
	c := startChild(t, dir, "run", "-c", childConfig(t, dir, ""))
	client, log := newClient(t), filepath.Join(dir, "access.log")
	url := "http://" + c.addr("gateway")
	if a := send(t, client, "GET", url+"/before", ""); a.status != http.StatusNotFound {
		t.Fatal(a)
	}
	logged := func(path, text string) func() bool {
		return func() bool {
			content, _ := os.ReadFile(path)
			return strings.Contains(string(content), text)
		}
	}
	eventually(t, "the first line", logged(log, "/before"))
	if err := os.Rename(log, log+".1"); err != nil {
		t.Fatal(err)
	}
	c.signal(syscall.SIGUSR1)
	eventually(t, "the new file", func() bool { _, err := os.Stat(log); return err == nil })
	if a := send(t, client, "GET", url+"/after", ""); a.status != http.StatusNotFound {
		t.Fatal(a)
	}
	eventually(t, "the second line", logged(log, "/after"))
}
