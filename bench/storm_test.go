package main

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"headgate/bench/peers"
	"headgate/bench/upstream"
)

// Half of the changes are weights that sum up to 100; the rest never edits or
// deletes what is not there, nor creates what is.
func TestPlanner(t *testing.T) {
	p := newPlanner(7, "127.0.0.1:1")
	exists, kinds := map[string]bool{}, map[string]int{}
	for range 2000 {
		c := p.next()
		kinds[c.kind]++
		if c.contentType == "application/json" && !json.Valid([]byte(c.body)) {
			t.Fatalf("not JSON: %s", c.body)
		}
		switch c.kind {
		case "weights":
			if c.path != splitPath+"/weights" || c.probe != "" {
				t.Fatalf("weights: %+v", c)
			}
		case "create", "edit":
			if exists[c.path] != (c.kind == "edit") || c.probeStatus != 200 {
				t.Fatalf("%s while present is %v: %+v", c.kind, exists[c.path], c)
			}
			exists[c.path] = true
		case "delete":
			if !exists[c.path] || c.probeStatus != 404 {
				t.Fatalf("delete: %+v", c)
			}
			delete(exists, c.path)
		}
	}
	if kinds["weights"] != 1000 || kinds["create"] < 100 || kinds["edit"] < 100 || kinds["delete"] < 100 {
		t.Errorf("mix %v", kinds)
	}
	if s := p.split(); !json.Valid([]byte(s.body)) {
		t.Errorf("not JSON: %s", s.body)
	}
}

// fakeGateway keeps routes by id and answers like one that works, but for its faults.
type fakeGateway struct {
	t        *testing.T
	upstream string
	key      string

	mu            sync.Mutex
	routes        map[string]bool
	served        int
	forgetDelete  bool // acknowledges a delete that it doesn't do
	refuseWeights bool // of one digit, so that enough changes are left for a storm
	loseEvery     int  // answers every n-th request for the loaded route with 503
	inventAnswers bool // never asks the upstream
}

func (f *fakeGateway) admin(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	id := strings.TrimPrefix(r.URL.Path, "/apisix/admin/routes/")
	if r.Header.Get("X-API-KEY") != f.key {
		f.t.Errorf("%s %s with key %q", r.Method, r.URL.Path, r.Header.Get("X-API-KEY"))
	}
	switch {
	case r.Method == http.MethodPatch && f.refuseWeights && len(r.FormValue("v1")) == 1:
		http.Error(w, "no such branch", http.StatusBadRequest)
	case r.Method == http.MethodPatch:
		if id != "split/weights" || r.FormValue("v1") == "" || r.FormValue("v2") == "" {
			f.t.Errorf("PATCH %s with %v", id, r.Form)
		}
	case r.Method == http.MethodPut:
		f.routes[id] = true
		w.WriteHeader(http.StatusCreated)
	case r.Method == http.MethodDelete && !f.forgetDelete:
		delete(f.routes, id)
	}
}

func (f *fakeGateway) proxy(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	f.served++
	id := strings.Replace(strings.Trim(r.URL.Path, "/"), "/", "-", 1)
	if id == "chat-completions" {
		id = "split"
	}
	exists, lose := f.routes[id], id == "split" && f.loseEvery > 0 && f.served%f.loseEvery == 0
	f.mu.Unlock()
	switch {
	case lose:
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	case !exists:
		w.WriteHeader(http.StatusNotFound)
		return
	case f.inventAnswers:
		w.Write(upstream.Body())
		return
	}
	// A reader of known size: the simulator refuses chunked requests.
	res, err := http.Post("http://"+f.upstream+"/v1/x", "application/json", strings.NewReader("{}"))
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	defer res.Body.Close()
	b, _ := io.ReadAll(res.Body)
	w.Write(b)
}

func TestStorm(t *testing.T) {
	tests := map[string]struct {
		fault func(*fakeGateway)
		rate  int
		want  string // in the verdict; "": a success
	}{
		"good":              {func(*fakeGateway) {}, 100, ""},
		"stale delete":      {func(f *fakeGateway) { f.forgetDelete = true }, 100, "after delete of"},
		"refused weights":   {func(f *fakeGateway) { f.refuseWeights = true }, 100, "no such branch"},
		"lost requests":     {func(f *fakeGateway) { f.loseEvery = 10 }, 100, "requests lost"},
		"invented answers":  {func(f *fakeGateway) { f.inventAnswers = true }, 100, "the upstream saw"},
		"too slow for that": {func(*fakeGateway) {}, 10_000, "changes were made in the time"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			go upstream.New().Serve(ln)
			f := &fakeGateway{t: t, upstream: ln.Addr().String(), key: "secret", routes: map[string]bool{}}
			tt.fault(f)
			admin, gateway := httptest.NewServer(http.HandlerFunc(f.admin)), httptest.NewServer(http.HandlerFunc(f.proxy))
			defer admin.Close()
			defer gateway.Close()

			s := stormSettings{Duration: 600 * time.Millisecond, Rate: tt.rate, Conns: 2, Seed: 1}
			r, err := runStorm(t.Context(), s, peers.Params{
				Upstream: f.upstream, Key: f.key, Admin: admin.Listener.Addr().String(), Listen: gateway.Listener.Addr().String(),
			})
			if err == nil {
				err = r.verdict()
			}
			switch {
			case tt.want == "" && err != nil:
				t.Errorf("verdict %v, want none", err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want) || strings.Count(err.Error(), tt.want) != 1):
				t.Errorf("verdict %v, want %q once", err, tt.want)
			}
			var b strings.Builder
			if err := r.print(&b); err != nil || tt.want == "" && !strings.Contains(b.String(), "changes done            60 ") {
				t.Errorf("%v\n%s", err, b.String())
			}
		})
	}
}
