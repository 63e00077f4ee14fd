package snapshot

import (
	"slices"
	"testing"

	"headgate/proxy/upstream"
)

// checked returns the keys under which operators find health checks, sorted.
func (r *rig) checked() (keys []string) {
	for _, c := range r.hub.Health() {
		keys = append(keys, c.Key)
	}
	slices.Sort(keys)
	return keys
}

// checkedUp is an upstream document with health checks; its servers are never there.
func checkedUp(more string) string {
	return `{"type":"roundrobin","nodes":{"127.0.0.1:1":1,"127.0.0.1:2":1},"checks":{"active":{"type":"tcp"}}` + more + `}`
}

// TestHealthChecksFollowThePublication: checks belong to the document in force, from its publication to its end, whoever still reads an
// older snapshot.
func TestHealthChecksFollowThePublication(t *testing.T) {
	r := newRig(t)
	r.hub.CheckHealth(upstream.HealthOptions{})
	want := func(keys ...string) {
		t.Helper()
		if got := r.checked(); !slices.Equal(got, keys) {
			t.Errorf("checked are %v, want %v", got, keys)
		}
	}
	st, err := r.c.Stage(r.lookup, edits([]string{"routes/0", `{"uri":"/0","upstream":` + checkedUp("") + `}`}), false)
	if err != nil {
		t.Fatal(err)
	}
	want()
	st.Discard()
	want()
	r.put("routes/1", `{"uri":"/1","upstream":`+checkedUp("")+`}`, "upstreams/u", checkedUp(""), "services/s", `{"upstream":`+checkedUp("")+`}`,
		"routes/2", `{"uri":"/2","upstream_id":"u"}`, "routes/3", `{"uri":"/3","service_id":"s"}`, "upstreams/plain", `{"nodes":{}}`)
	want("routes/1", "services/s", "upstreams/u")

	old := r.live.Pin(0)
	before := r.must("/1").Upstream
	r.put("routes/1", `{"uri":"/1","desc":"edited","upstream":`+checkedUp(`,"retries":0`)+`}`)
	r.put("upstreams/u", checkedUp(`,"retries":0`))
	want("routes/1", "services/s", "upstreams/u")
	if r.must("/1").Upstream == before {
		t.Fatal("the edit has changed nothing")
	}
	r.refuse("ghost", "routes/1", `{"uri":"/1","plugins":{"ghost":{}},"upstream":`+checkedUp("")+`}`)
	want("routes/1", "services/s", "upstreams/u")
	r.put("routes/1", `{"uri":"/1","upstream":{"nodes":{}}}`)
	want("services/s", "upstreams/u")
	r.put("routes/2", "", "routes/3", "", "upstreams/u", "", "services/s", "")
	want()
	old.Unpin(0)
	r.collect()
	want()
}
