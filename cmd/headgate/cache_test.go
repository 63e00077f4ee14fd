package main

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"headgate/conf"
)

// counted is an upstream that counts its requests.
type counted struct {
	*httptest.Server
	addr string
	hits atomic.Int64
}

func newCounted(t *testing.T, handle http.HandlerFunc) *counted {
	u := &counted{}
	u.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u.hits.Add(1)
		handle(w, r)
	}))
	u.addr = u.Listener.Addr().String()
	t.Cleanup(func() {
		u.CloseClientConnections()
		u.Close()
	})
	return u
}

const inMemory = `{"cache_strategy":"memory","cache_zone":"memory_cache"}`

// Other plugins change what comes from the cache as they change what comes from the upstream, once; and what one client got in the form that it
// asked for, another one gets in its own.
func TestCacheBehindOtherPlugins(t *testing.T) {
	text := strings.Repeat("some text that is worth compressing ", 1000)
	up := newCounted(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		w.Header().Set("X-Up", "1")
		_, _ = io.WriteString(w, text)
	})
	g := startGate(t, onLoopback(t, conf.Default()))
	g.configure("PUT", "/routes/1", `{"uri":"/*","upstream":{"nodes":{"`+up.addr+`":1}},"plugins":{"proxy-cache":`+inMemory+`,
		"gzip":{},"response-rewrite":{"headers":{"add":["X-Added: yes"]}},"cors":{}}}`)
	for i, tt := range []struct{ method, encoding, status string }{
		{"GET", "gzip", "MISS"}, {"GET", "", "HIT"}, {"GET", "gzip", "HIT"}, {"HEAD", "", "HIT"}, {"GET", "", "HIT"},
	} {
		a := g.send(tt.method, "http://"+g.addr+"/a", "", "Accept-Encoding: "+tt.encoding)
		if tt.encoding == "gzip" {
			z, err := gzip.NewReader(strings.NewReader(a.body))
			if err != nil {
				t.Fatalf("%d: %v", i, err)
			}
			plain, err := io.ReadAll(z)
			if err != nil {
				t.Fatalf("%d: %v", i, err)
			}
			a.body = string(plain)
		}
		want := text
		if tt.method == "HEAD" {
			want = ""
		}
		h := a.header
		if a.status != 200 || a.body != want || h.Get("Content-Encoding") != tt.encoding || h.Get("Apisix-Cache-Status") != tt.status ||
			len(h["X-Added"]) != 1 || len(h["X-Up"]) != 1 || len(h["Access-Control-Allow-Origin"]) != 1 || len(h["Apisix-Cache-Status"]) != 1 {
			t.Errorf("%d: %d, %d bytes, %v", i, a.status, len(a.body), h)
		}
		if age := h.Get("Age"); (age != "") != (tt.status == "HIT") {
			t.Errorf("%d: age %q", i, age)
		}
		if tt.encoding == "" && h.Get("Content-Length") != "36000" {
			t.Errorf("%d: length %s", i, h.Get("Content-Length"))
		}
	}
	if n := up.hits.Load(); n != 1 {
		t.Errorf("the upstream was asked %d times", n)
	}
	if n := g.metric(`headgate_cache_requests_total{zone="memory_cache",status="hit"}`); n != 4 {
		t.Errorf("%d hits are counted", n)
	}
	// A zone outlives the configuration of its routes, and is emptied by PURGE.
	g.configure("PATCH", "/routes/1", `{"desc":"edited"}`)
	if s := g.send("GET", "http://"+g.addr+"/a", "").header.Get("Apisix-Cache-Status"); s != "HIT" {
		t.Errorf("after an edit: %s", s)
	}
	for _, want := range []int{200, 404} {
		if a := g.send("PURGE", "http://"+g.addr+"/a", ""); a.status != want {
			t.Errorf("PURGE: %v, want %d", a, want)
		}
	}
	if s := g.send("GET", "http://"+g.addr+"/a", "").header.Get("Apisix-Cache-Status"); s != "MISS" {
		t.Errorf("after PURGE: %s", s)
	}
}

// What one consumer got no other one gets, whether they have plugins of their own or not.
func TestCacheKeepsConsumersApart(t *testing.T) {
	up := newCounted(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.Header.Get("X-Consumer-Username"))
	})
	g := startGate(t, onLoopback(t, conf.Default()))
	g.configure("PUT", "/consumers", `{"username":"jack","plugins":{"key-auth":{"key":"jacks"},"limit-count":{"count":100,"time_window":60}}}`)
	g.configure("PUT", "/consumers", `{"username":"jill","plugins":{"key-auth":{"key":"jills"}}}`)
	g.configure("PUT", "/routes/1", `{"uri":"/*","upstream":{"nodes":{"`+up.addr+`":1}},"plugins":{"key-auth":{},"proxy-cache":`+inMemory+`}}`)
	for _, status := range []string{"MISS", "HIT"} {
		for _, name := range []string{"jack", "jill"} {
			a := g.send("GET", "http://"+g.addr+"/me", "", "apikey: "+name+"s")
			if a.body != name || a.header.Get("Apisix-Cache-Status") != status {
				t.Errorf("%s got %v, %s; want %s", name, a, a.header.Get("Apisix-Cache-Status"), status)
			}
		}
	}
	if a := g.send("GET", "http://"+g.addr+"/me", ""); a.status != 401 {
		t.Errorf("nobody got %v", a)
	}
	if n := up.hits.Load(); n != 2 {
		t.Errorf("the upstream was asked %d times", n)
	}
}

// A global rule keeps answers of all routes, and gives none away before the plugins of the route have let the request pass.
func TestCacheInAGlobalRule(t *testing.T) {
	up := newCounted(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "secret") })
	g := startGate(t, onLoopback(t, conf.Default()))
	g.configure("PUT", "/global_rules/1", `{"plugins":{"proxy-cache":`+inMemory+`}}`)
	g.configure("PUT", "/routes/1", `{"uri":"/*","upstream":{"nodes":{"`+up.addr+`":1}},"plugins":{"ua-restriction":{"denylist":["bad"]}}}`)
	for _, tt := range []struct {
		agent, status string
		code          int
	}{{"good", "MISS", 200}, {"good", "HIT", 200}, {"bad", "", 403}, {"good", "HIT", 200}} {
		a := g.send("GET", "http://"+g.addr+"/a", "", "User-Agent: "+tt.agent)
		if a.status != tt.code || a.header.Get("Apisix-Cache-Status") != tt.status || strings.Contains(a.body, "secret") != (tt.code == 200) {
			t.Errorf("%s got %v, %s", tt.agent, a, a.header.Get("Apisix-Cache-Status"))
		}
	}
	if a := g.send("PURGE", "http://"+g.addr+"/a", "", "User-Agent: good"); a.status != 200 {
		t.Errorf("PURGE: %v", a)
	}
	if n := up.hits.Load(); n != 1 {
		t.Errorf("the upstream was asked %d times", n)
	}
}

// A client gets the pieces of an answer that is being kept as they come. What the upstream cuts is cut for the client, too, and not kept.
func TestCacheOfStreams(t *testing.T) {
	release := make(chan bool) // whether to cut
	up := newCounted(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "first,")
		w.(http.Flusher).Flush()
		if <-release {
			panic(http.ErrAbortHandler)
		}
		_, _ = io.WriteString(w, "second")
	})
	g := startGate(t, onLoopback(t, conf.Default()))
	g.configure("PUT", "/routes/1", `{"uri":"/*","upstream":{"nodes":{"`+up.addr+`":1}},"plugins":{"proxy-cache":`+inMemory+`}}`)
	for _, end := range []bool{true, false} {
		res, err := g.client.Get("http://" + g.addr + "/a")
		if err != nil {
			t.Fatal(err)
		}
		piece := make([]byte, len("first,"))
		if _, err := io.ReadFull(res.Body, piece); err != nil || string(piece) != "first," {
			t.Fatalf("%q, %v", piece, err)
		}
		release <- end
		rest, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if s := res.Header.Get("Apisix-Cache-Status"); s != "MISS" || (err != nil) != end || !end && string(rest) != "second" {
			t.Errorf("cut %v: %s %q %v", end, s, rest, err)
		}
	}
	if a := g.send("GET", "http://"+g.addr+"/a", ""); a.body != "first,second" || a.header.Get("Apisix-Cache-Status") != "HIT" {
		t.Errorf("%v %v", a, a.header)
	}
}

// What is on disk is there after a restart, and long bodies come from there piece by piece.
func TestCacheOnDisk(t *testing.T) {
	long := bytes.Repeat([]byte("0123456789abcdef"), 20_000)
	up := newCounted(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=3600")
		if r.URL.Path == "/long" {
			_, _ = w.Write(long)
			return
		}
		_, _ = io.WriteString(w, "short")
	})
	c := onLoopback(t, conf.Default())
	bodies := map[string]string{"/long": string(long), "/short": "short"}
	var hits int64
	for _, process := range []string{"first", "second"} {
		g := startGate(t, c)
		g.configure("PUT", "/routes/1", `{"uri":"/*","upstream":{"nodes":{"`+up.addr+`":1}},"plugins":{"proxy-cache":{}}}`)
		for path, want := range bodies {
			eventually(t, path+" to come from the cache of the "+process+" process", func() bool {
				a := g.send("GET", "http://"+g.addr+path, "")
				if a.body != want {
					t.Fatalf("%s: %d bytes", path, len(a.body))
				}
				return a.header.Get("Apisix-Cache-Status") == "HIT"
			})
		}
		if process == "first" {
			hits = up.hits.Load()
		}
		g.end()
	}
	if hits < 2 {
		t.Errorf("the upstream was asked %d times", hits)
	}
}

// The zones of the file are those that configurations may name: for the Admin API, for check and for a reload.
func TestCacheZonesOfTheFile(t *testing.T) {
	dir := t.TempDir()
	file := dir + "/headgate.toml"
	zone := "[[proxy_cache.zones]]\nname = 'mine'\nmemory_size = '1MiB'\n"
	route := "[[routes]]\nid = 'r'\nuri = '/*'\nupstream = { nodes = { '127.0.0.1:1' = 1 } }\n[routes.plugins.proxy-cache]\ncache_strategy = 'memory'\ncache_zone = 'mine'\n"
	writeFile(t, file, zone+route)
	if out, stderr, status := runChild(t, dir, "check", "-c", file); status != 0 {
		t.Errorf("check: %s%s", out, stderr)
	}
	writeFile(t, file, route)
	if out, stderr, status := runChild(t, dir, "check", "-c", file); status == 0 || !strings.Contains(out+stderr, "cache_zone mine not found") {
		t.Errorf("check without the zone: %s%s", out, stderr)
	}
	c := onLoopback(t, conf.Default())
	c.ProxyCache.Zones = []conf.CacheZone{{Name: "mine", MemorySize: conf.MiB}}
	g := startGate(t, c)
	const plugins = `{"uri":"/*","upstream":{"nodes":{"127.0.0.1:1":1}},"plugins":{"proxy-cache":`
	if a := g.admin("PUT", "/routes/1", plugins+`{"cache_strategy":"memory","cache_zone":"mine"}}}`); a.status != 201 {
		t.Error(a)
	}
	a := g.admin("PUT", "/routes/1", plugins+`{}}}`)
	if want := "failed to check the configuration of plugin proxy-cache err: cache_zone disk_cache_one not found"; a.status != 400 || !strings.Contains(a.body, want) {
		t.Error(a)
	}
	next := *c
	next.ProxyCache.Zones = nil
	if err := g.reload(&next); err == nil || err.Error() != "a restart is needed to change proxy_cache.zones" {
		t.Errorf("reload: %v", err)
	}
}
