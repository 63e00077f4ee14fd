package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"headgate/conf"
)

// TestQuarantine: in force for the next request, wherever the target is used, through edits, until it is lifted.
func TestQuarantine(t *testing.T) {
	one, two := newMoody(t, "one"), newMoody(t, "two")
	g := startGate(t, onLoopback(t, conf.Default()))
	both := fmt.Sprintf(`{"nodes":{%q:1,%q:1}}`, one.addr, two.addr)
	g.configure("PUT", "/upstreams/1", both)
	g.configure("PUT", "/routes/1", `{"uri":"/1","upstream_id":"1"}`)
	g.configure("PUT", "/routes/2", `{"uri":"/2","upstream":`+both+`}`)
	g.configure("PUT", "/routes/a", split(one, two, ""))
	g.configure("PUT", "/routes/b", strings.Replace(split(two, one, ""), `"/a"`, `"/b"`, 1))
	impose := func(body string) (id string) {
		t.Helper()
		a := g.control("POST", "/v1/quarantine", body)
		var q struct{ ID string }
		if err := json.Unmarshal([]byte(a.body), &q); err != nil || a.status != 201 {
			t.Fatalf("%s: %v", body, a)
		}
		return q.ID
	}
	lift := func(id string) {
		t.Helper()
		if a := g.control("DELETE", "/v1/quarantine/"+id, ""); a.status != 200 {
			t.Fatalf("%v", a)
		}
	}
	expect := func(what, path string, want map[string]int) {
		t.Helper()
		if got := g.tally(path, 20); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: %s: got %v, want %v", what, path, got, want)
		}
	}

	id := impose(fmt.Sprintf(`{"endpoint":%q,"ttl":3600,"reason":"maintenance"}`, two.addr))
	for _, path := range []string{"/1", "/2"} {
		expect("endpoint", path, map[string]int{"one": 20})
	}
	if a := g.get("/a"); a.status == 200 {
		a = g.get("/a")
		if a.status != 503 || a.header.Get("Retry-After") == "" {
			t.Errorf("a branch whose only node is shut: %v %v", a, a.header)
		}
	}
	g.configure("PATCH", "/upstreams/1", `{"desc":"edited"}`)
	g.configure("PUT", "/routes/3", `{"uri":"/3","upstream":`+both+`}`)
	expect("endpoint after an edit", "/1", map[string]int{"one": 20})
	expect("endpoint of a new route", "/3", map[string]int{"one": 20})
	lift(id)
	expect("lifted", "/1", map[string]int{"one": 10, "two": 10})

	id = impose(`{"branch":"v2","route":"a","ttl":3600,"reason":"bad answers"}`)
	expect("branch of one route", "/a", map[string]int{"one": 20})
	expect("the same name elsewhere", "/b", map[string]int{"one": 10, "two": 10})
	everywhere := impose(`{"branch":"v2","ttl":3600,"reason":"bad answers"}`)
	lift(id)
	expect("branch everywhere", "/a", map[string]int{"one": 20})
	expect("branch everywhere", "/b", map[string]int{"two": 20})
	lift(everywhere)
	expect("lifted", "/b", map[string]int{"one": 10, "two": 10})

	id = impose(`{"route":"1","ttl":3600,"reason":"closed"}`)
	shut := func(what string) {
		t.Helper()
		a := g.get("/1")
		if a.status != 503 || a.header.Get("Retry-After") == "" {
			t.Errorf("%s: %v %v", what, a, a.header)
		}
	}
	shut("route")
	g.configure("PATCH", "/routes/1", `{"desc":"edited"}`)
	shut("route after an edit")
	g.admin("DELETE", "/routes/1", "")
	g.configure("PUT", "/routes/1", `{"uri":"/1","upstream_id":"1"}`)
	shut("route made anew")
	if a := g.control("POST", "/v1/explain", `{"path":"/1"}`); !strings.Contains(a.body, `"code":"quarantined"`) {
		t.Errorf("explain: %v", a)
	}
	if b := g.breakers("route", "routes/1", ""); b.Quarantine == nil || b.Quarantine.ID != id || b.Quarantine.Reason != "closed" {
		t.Errorf("%+v", b)
	}
	if a := g.control("GET", "/v1/quarantine", ""); strings.Count(a.body, `"id"`) != 1 || !strings.Contains(a.body, `"in":"routes/1","reason":"closed"`) {
		t.Errorf("%v", a)
	}
	lift(id)
	expect("lifted", "/1", map[string]int{"one": 10, "two": 10})
	impose(`{"route":"1","ttl":1,"reason":"for a moment"}`)
	eventually(t, "it ends by itself", func() bool { return g.get("/1").status == 200 })
	eventually(t, "the audit says so", func() bool {
		log := g.logged.String()
		return strings.Contains(log, "audit: peer=127.0.0.1 quarantine 4: routes/1 for 1h0m0s: closed") && strings.Contains(log, "audit: quarantine 5 of routes/1 has ended")
	})
}

// A second quarantine of a target takes the place of the first, and says so.
func TestQuarantineReplaced(t *testing.T) {
	g := startGate(t, onLoopback(t, conf.Default()))
	g.configure("PUT", "/routes/a", `{"uri":"/a","upstream":{"nodes":{"127.0.0.1:1":1}}}`)
	type view struct {
		ID, Reason string
		Replaces   *view
	}
	impose := func(body string) (v view) {
		t.Helper()
		if a := g.control("POST", "/v1/quarantine", body); a.status != 201 || json.Unmarshal([]byte(a.body), &v) != nil {
			t.Fatalf("%s: %v", body, a)
		}
		return v
	}
	first := impose(`{"route":"a","ttl":3600,"reason":"first"}`)
	if first.Replaces != nil {
		t.Errorf("%+v", first)
	}
	for _, reason := range []string{"second", "third"} {
		next := impose(`{"route":"a","ttl":60,"reason":"` + reason + `"}`)
		if before := next.Replaces; before == nil || before.ID != first.ID || before.Reason != first.Reason || before.Replaces != nil {
			t.Errorf("%+v replaces %+v", next, before)
		}
		first = next
	}
	if a := g.control("GET", "/v1/quarantine", ""); strings.Count(a.body, `"id"`) != 1 || strings.Contains(a.body, "replaces") {
		t.Errorf("%v", a)
	}
	eventually(t, "the audit says so", func() bool {
		log := g.logged.String()
		return strings.Contains(log, "quarantine 2: routes/a for 1m0s: second; it replaces quarantine 1, until ") && strings.Contains(log, "Z: first\n")
	})
}

func TestQuarantineRefusals(t *testing.T) {
	one, two := newMoody(t, "one"), newMoody(t, "two")
	g := startGate(t, onLoopback(t, conf.Default()))
	g.configure("PUT", "/routes/a", split(one, two, ""))
	g.configure("PUT", "/routes/b", `{"uri":"/b","upstream":{"nodes":{"127.0.0.1:1":1}}}`)
	const rest = `,"ttl":60,"reason":"test"}`
	for _, tt := range []struct {
		body string
		want string
	}{
		{`{"route":"c"` + rest, `404 {"error_msg":"route: there is no route \"c\" in force"}`},
		{`{"endpoint":"127.0.0.1:2"` + rest, `404 {"error_msg":"endpoint: no upstream in force has \"127.0.0.1:2\""}`},
		{`{"branch":"v3"` + rest, `404 {"error_msg":"branch: no split in force has a branch \"v3\""}`},
		{`{"route":"b","branch":"v1"` + rest, `404 {"error_msg":"branch: route \"b\" has no split with a branch \"v1\""}`},
		{`{"route":"a"`, `400 `},
		{`[]`, `400 {"error_msg":"expected an object like {\"endpoint\":\"10.0.0.1:80\",\"ttl\":600,\"reason\":\"maintenance\"}"}`},
		{`{"ttl":60,"reason":"test"}`, `400 {"error_msg":"expected one of route, branch and endpoint"}`},
		{`{"route":"a","endpoint":"127.0.0.1:1"` + rest, `400 {"error_msg":"endpoint: stands alone; it is shut in every route and branch"}`},
		{`{"route":1` + rest, `400 {"error_msg":"route: expected a text"}`},
		{`{"node":"a"` + rest, `400 {"error_msg":"unknown member \"node\": a quarantine has route, branch, endpoint, ttl and reason; expected one of route, branch and endpoint"}`},
		{`{"route":"a","reason":"test"}`, `400 {"error_msg":"ttl: is required"}`},
		{`{"route":"a","reason":"test","ttl":0}`, `400 {"error_msg":"ttl: expected whole seconds, 1 to 86400"}`},
		{`{"route":"a","reason":"test","ttl":86401}`, `400 {"error_msg":"ttl: expected whole seconds, 1 to 86400"}`},
		{`{"route":"a","reason":"test","ttl":"60"}`, `400 {"error_msg":"ttl: expected whole seconds, 1 to 86400"}`},
		{`{"route":1,"ttl":0,"x":1}`, `400 {"error_msg":"route: expected a text; ttl: expected whole seconds, 1 to 86400; ` +
			`unknown member \"x\": a quarantine has route, branch, endpoint, ttl and reason; reason: is required"}`},
		{`{}`, `400 {"error_msg":"ttl: is required; reason: is required; expected one of route, branch and endpoint"}`},
		{`{"route":"a","ttl":60}`, `400 {"error_msg":"reason: is required"}`},
		{`{"route":"a","ttl":60,"reason":"two\nlines"}`, `400 {"error_msg":"reason: expected one line of at most 256 bytes"}`},
		{`{"route":"a","ttl":60,"reason":"` + strings.Repeat("a", 257) + `"}`, `400 {"error_msg":"reason: expected one line of at most 256 bytes"}`},
	} {
		if got := g.control("POST", "/v1/quarantine", tt.body).String(); !strings.HasPrefix(got, tt.want) {
			t.Errorf("%s\ngot  %s\nwant %s", tt.body, got, tt.want)
		}
	}
	good := `{"route":"a"` + rest
	for _, field := range []string{"Origin: https://evil.example", "Origin: null", "Sec-Fetch-Site: cross-site", "Host: rebound.example"} {
		if a := g.control("POST", "/v1/quarantine", good, field); a.status != 403 {
			t.Errorf("%s: %v", field, a)
		}
		if a := g.control("DELETE", "/v1/quarantine/1", "", field); a.status != 403 {
			t.Errorf("%s: %v", field, a)
		}
	}
	if a := g.control("DELETE", "/v1/quarantine/1", ""); a.status != 404 {
		t.Errorf("%v", a)
	}
	if a := g.control("POST", "/v1/quarantine", good, "Origin: http://"+g.process.addr("control")); a.status != 201 {
		t.Errorf("its own origin: %v", a)
	}
	for _, m := range [][2]string{{"PUT", "/v1/quarantine"}, {"POST", "/v1/breakers"}, {"DELETE", "/v1/quarantine"}, {"GET", "/v1/quarantine/1"}, {"GET", "/v1/breakers/1"}} {
		if a := g.control(m[0], m[1], ""); a.status != 404 {
			t.Errorf("%s %s: %v", m[0], m[1], a)
		}
	}
}

// TestQuarantineUnderLoad: once the call has returned no request goes to the branch any more, and none is lost; nor when it is lifted.
func TestQuarantineUnderLoad(t *testing.T) {
	v1, v2 := newMoody(t, "v1"), newMoody(t, "v2")
	g := startGate(t, onLoopback(t, conf.Default()))
	g.configure("PUT", "/routes/1", split(v1, v2, ""))
	var done atomic.Bool
	var epoch atomic.Int64 // odd while the branch is known to be shut
	var late, lost, after atomic.Int64
	var running sync.WaitGroup
	for range 16 {
		client := newClient(t)
		running.Go(func() {
			for !done.Load() {
				began := epoch.Load()
				a, err := trySend(client, "GET", "http://"+g.addr+"/a", "")
				switch {
				case err != nil || a.status != 200:
					lost.Add(1)
				case a.body == "v2" && began%2 == 1 && epoch.Load() == began:
					late.Add(1)
				}
				if began%2 == 1 {
					after.Add(1)
				}
			}
		})
	}
	for range 3 {
		eventually(t, "both branches serve", func() bool { return v1.requests.Swap(0) > 0 && v2.requests.Load() > 20 })
		a := g.control("POST", "/v1/quarantine", `{"route":"1","branch":"v2","ttl":3600,"reason":"test"}`)
		var q struct{ ID string }
		if err := json.Unmarshal([]byte(a.body), &q); err != nil || a.status != 201 {
			t.Fatalf("%v", a)
		}
		epoch.Add(1)
		after.Store(0)
		eventually(t, "requests come after it", func() bool { return after.Load() > 100 })
		epoch.Add(1)
		v2.requests.Store(0)
		if a := g.control("DELETE", "/v1/quarantine/"+q.ID, ""); a.status != 200 {
			t.Fatalf("%v", a)
		}
	}
	done.Store(true)
	running.Wait()
	if late.Load() != 0 || lost.Load() != 0 {
		t.Errorf("%d requests went to the branch after it was shut, %d were lost", late.Load(), lost.Load())
	}
}
