package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"headgate/bench/load"
)

func smallWorld() *world {
	return &world{Routes: 200, Hosts: 40, Consumers: 30, Plugins: true, upstream: "127.0.0.1:1", key: strings.Repeat("k", 32)}
}

// A world is valid JSON under keys of its own, no two routes serve the same requests, and a visit comes to every one of them.
func TestWorld(t *testing.T) {
	w := smallWorld()
	keys, places, kinds := map[string]bool{}, map[string]bool{}, map[string]int{}
	w.each(func(key string, doc []byte) {
		var d struct{ ID, Username, URI, Host string }
		if err := json.Unmarshal(doc, &d); err != nil {
			t.Fatalf("%s: %v: %s", key, err, doc)
		}
		kind, id, _ := strings.Cut(key, "/")
		kinds[kind]++
		if keys[key] || d.ID+d.Username != id {
			t.Errorf("%s is there twice or calls itself %s", key, d.ID+d.Username)
		}
		keys[key] = true
		if kind == "routes" && places[d.Host+d.URI] {
			t.Errorf("two routes are at %s%s", d.Host, d.URI)
		}
		places[d.Host+d.URI] = true
	})
	if kinds["routes"] != w.Routes+1 || kinds["consumers"] != w.Consumers || kinds["upstreams"] != scaleUpstreams {
		t.Errorf("there are %v", kinds)
	}
	var whole map[string][]json.RawMessage
	if err := json.Unmarshal(w.configs(), &whole); err != nil || len(whole["routes"]) != w.Routes+1 {
		t.Errorf("as a whole: %v, %d routes", err, len(whole["routes"]))
	}
	visited := map[int]bool{}
	for n := range uint64(w.Routes) {
		visited[pick(n, w.Routes)] = true
	}
	if len(visited) != w.Routes {
		t.Errorf("%d of %d routes are visited", len(visited), w.Routes)
	}
	for i := range w.Routes {
		pattern, asked := w.path(i)
		if prefix, isPrefix := strings.CutSuffix(pattern, "*"); isPrefix && !strings.HasPrefix(asked, prefix) || !isPrefix && asked != pattern {
			t.Errorf("route %d at %s is asked for %s", i, pattern, asked)
		}
	}
}

// What the rig sends is what an HTTP server reads.
func TestWorldRequests(t *testing.T) {
	w := smallWorld()
	for name, raw := range map[string][]byte{"edit": w.edit(nil, 7, 3), "consumer": w.editConsumer(nil, 7, 3), "ask": w.ask(nil, 41), "askAs": w.askAs(nil, 7)} {
		req, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(raw)))
		if err != nil {
			t.Fatalf("%s: %v\n%s", name, err, raw)
		}
		body, err := io.ReadAll(req.Body)
		if err != nil || req.Method == http.MethodPut && !json.Valid(body) {
			t.Errorf("%s: %v: %s", name, err, body)
		}
	}
	if a, b := w.route(nil, 7, 1), w.route(nil, 7, 2); bytes.Equal(a, b) {
		t.Error("two versions are the same")
	}
}

// Edits that are refused, and edits that the next request does not see, are told.
func TestScaleEdits(t *testing.T) {
	for name, broken := range map[string]struct {
		status    int
		staleFrom int64
		want      string
	}{
		"right":   {status: 200, staleFrom: 1 << 40},
		"refused": {status: 400, staleFrom: 1 << 40, want: "status 400"},
		"stale":   {status: 200, staleFrom: 5, want: "the request after edit 5"},
	} {
		t.Run(name, func(t *testing.T) {
			var version atomic.Int64
			admin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				version.Add(1)
				w.WriteHeader(broken.status)
				fmt.Fprint(w, "{}")
			}))
			defer admin.Close()
			gateway := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("X-Edit", fmt.Sprint(min(version.Load(), broken.staleFrom-1)))
				fmt.Fprint(w, "ok")
			}))
			defer gateway.Close()
			r := &scaleRun{step: stepMem, world: *smallWorld(), result: &scaleResult{}, gateway: &process{ended: make(chan struct{})}}
			r.Routes, r.Edits = r.world.Routes, 20
			r.params.Admin, r.params.Listen = admin.Listener.Addr().String(), gateway.Listener.Addr().String()
			err := r.edits(t.Context(), time.Hour)
			told := fmt.Sprint(err, r.result.Problems)
			if broken.want == "" && (err != nil || len(r.result.Problems) > 0) || !strings.Contains(told, broken.want) {
				t.Errorf("told %s, want %q", told, broken.want)
			}
		})
	}
}

func TestParseMemory(t *testing.T) {
	const text = "# TYPE x gauge\ngo_memstats_next_gc_bytes 2.1e+06\ngo_memstats_stack_inuse_bytes 100000\nprocess_resident_memory_bytes 5000000\n" +
		"process_resident_memory_anon_bytes 4000000\ngo_gc_duration_seconds_count 7\nother{a=\"b\"} 1\n"
	want := memory{live: 1e6, resident: 5e6, anonymous: 4e6, cycles: 7}
	if got, err := parseMemory(text); err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	for _, bad := range []string{"", strings.Replace(text, "2.1e+06", "x", 1), strings.Replace(text, "go_gc_duration_seconds_count", "gone", 1)} {
		if got, err := parseMemory(bad); err == nil {
			t.Errorf("%q gives %+v", bad, got)
		}
	}
}

func TestScaleVerdict(t *testing.T) {
	var r scaleResult
	var h load.Histogram
	for i := range 100 {
		h.Record(time.Duration(i) * time.Millisecond)
	}
	r.latencies("mem", "edit", &h, 200*time.Millisecond)
	r.add(figure{Step: "plain", Name: "heap", Value: 4096, Unit: "bytes", Limit: 4096})
	if err := r.verdict(); err != nil {
		t.Errorf("within the limits: %v", err)
	}
	r.latencies("mem", "edit", &h, 50*time.Millisecond)
	r.problem("%s is wrong", "this")
	err := r.verdict()
	if err == nil || !strings.Contains(err.Error(), "edit p99") || !strings.Contains(err.Error(), "this is wrong") {
		t.Errorf("got %v", err)
	}
	var out strings.Builder
	if err := r.print(&out); err != nil || strings.Count(out.String(), "MISSED") != 1 || !strings.Contains(out.String(), "4096 B") {
		t.Errorf("%v\n%s", err, out.String())
	}
}

func TestScaleFlags(t *testing.T) {
	for _, args := range []string{"-steps x", "-routes 0", "-hosts 20 -routes 10", "-duration 0s", "-rate -1", "extra", "-headgate /nonexistent -steps mem"} {
		if err := run(t.Context(), append([]string{"scale"}, strings.Fields(args)...), io.Discard, io.Discard); err == nil {
			t.Errorf("%q is accepted", args)
		}
	}
}
