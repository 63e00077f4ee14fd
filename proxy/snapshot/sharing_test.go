package snapshot

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"headgate/proxy/phase"
)

// compiled returns the routes in force by id.
func (r *rig) compiled() map[string]*Route { return maps.Clone(r.c.routes) }

// changed returns the keys of routes that are other ones than in before.
func (r *rig) changed(before map[string]*Route) string {
	var keys []string
	for key, old := range before {
		if r.c.routes[key] != old {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return strings.Join(keys, " ")
}

func TestAnEditCompilesWhatDependsOnItAndNothingElse(t *testing.T) {
	r := newRig(t)
	r.put("upstreams/a", up("1", ""), "upstreams/b", up("2", ""), "services/s", `{"upstream_id":"a"}`, "services/o", `{"upstream":`+up("3", "")+`}`,
		"routes/1", `{"uri":"/1","upstream_id":"a"}`, "routes/2", `{"uri":"/2","upstream_id":"b"}`, "routes/3", `{"uri":"/3","service_id":"s"}`,
		"routes/4", `{"uri":"/4","service_id":"o"}`, "routes/5", `{"uri":"/5","upstream":`+up("4", "")+`,"plugins":{"low":{"upstream_id":"a"}}}`,
		"routes/6", `{"uri":"/6","upstream":`+up("5", "")+`}`)
	for _, tt := range []struct{ key, doc, want string }{
		{"routes/2", `{"uri":"/2","upstream_id":"b","desc":"x"}`, "routes/2"},
		{"upstreams/a", up("1", `,"desc":"x"`), "routes/1 routes/3 routes/5"},
		{"upstreams/b", up("2", `,"desc":"x"`), "routes/2"},
		{"services/s", `{"upstream_id":"b"}`, "routes/3"},
		{"upstreams/a", up("1", `,"desc":"y"`), "routes/1 routes/5"},
		{"services/o", `{"upstream":` + up("3", "") + `,"plugins":{"mid":{}}}`, "routes/4"},
		{"routes/5", `{"uri":"/5","upstream_id":"b"}`, "routes/5"},
		{"upstreams/a", up("1", ""), "routes/1"},
		{"upstreams/new", up("1", ""), ""},
		{"routes/6", "", "routes/6"},
	} {
		before := r.compiled()
		r.put(tt.key, tt.doc)
		if got := r.changed(before); got != tt.want {
			t.Errorf("%s: compiled %q, want %q", tt.key, got, tt.want)
		}
		for key, compiled := range r.c.routes {
			if got := r.must("/" + strings.TrimPrefix(key, "routes/")); got != compiled {
				t.Errorf("%s: %s in the table is not the one in force", tt.key, key)
			}
		}
	}
}

// One pool serves an endpoint before, while and after the upstream around it is compiled anew.
func TestPoolsSurviveEdits(t *testing.T) {
	r := newRig(t)
	r.put("routes/1", `{"uri":"/1","upstream":`+up("1", "")+`}`)
	held := r.live.Pin(3) // the former snapshot has a reader
	r.put("routes/1", `{"uri":"/1","upstream":`+up("1", `,"retries":3`)+`}`)
	for key, refs := range r.refs() {
		if refs != 2 {
			t.Errorf("%s is used %d times while both are in use", key, refs)
		}
	}
	held.Unpin(3)
	r.collect()
	if refs := r.refs(); len(refs) != 1 {
		t.Errorf("pools: %v", refs)
	}
	for key, refs := range r.refs() {
		if refs != 1 {
			t.Errorf("%s is used %d times in the end", key, refs)
		}
	}
}

func TestAReaderKeepsItsOwnSnapshotAlone(t *testing.T) {
	r := newRig(t)
	doc := func(n int) string { return fmt.Sprintf(`{"uri":"/x","plugins":{"low":{"id":"%d"}}}`, n) }
	r.put("routes/1", doc(0), "routes/2", `{"uri":"/y","plugins":{"low":{"id":"other"}}}`)
	held := r.live.Pin(1)
	for n := 1; n <= 20; n++ {
		r.put("routes/1", doc(n))
	}
	// 0 is held, 20 is in force, what came between has gone.
	if want := 19; len(r.closed) != want || slices.Contains(r.closed, "low:0") || slices.Contains(r.closed, "low:20") {
		t.Errorf("closed %v", r.closed)
	}
	if len(r.c.graves.former) != 1 || len(r.c.graves.retirees) != 1 {
		t.Errorf("%d snapshots and %d parts are waited for", len(r.c.graves.former), len(r.c.graves.retirees))
	}
	held.Unpin(1)
	if pending := r.collect(); pending != 0 || len(r.closed) != 20 || r.closed[19] != "low:0" {
		t.Errorf("in the end %d pending, closed %v", pending, r.closed)
	}
}

func TestLenientStage(t *testing.T) {
	r := newRig(t)
	// One of each sort is wrong; all others come into force.
	left := r.offer("routes/1", `{"uri":"/1","upstream_id":"a"}`, "routes/bad", `{"uri":"/bad","plugins":{"none":{}}}`, "routes/rule", `{"uri":"/r","hosts":["a*b"],"plugins":{}}`,
		"routes/empty", `{"plugins":{}}`, "routes/json", `{`, "upstreams/a", up("1", ""), "upstreams/bad", up("1", `,"scheme":"grpc"`), "services/bad", `{"hosts":1}`,
		"routes/2", `{"uri":"/2","service_id":"bad"}`)
	if want := []string{"services/bad", "upstreams/bad", "routes/bad", "routes/empty", "routes/json", "routes/rule"}; !slices.Equal(left, want) {
		t.Errorf("left out %v, want %v", left, want)
	}
	if r.must("/1").Upstream == nil || r.must("/2").Incomplete == nil || r.live.Current().Routes() != 2 {
		t.Error("what is right is not in force")
	}
	// The version before stays.
	before := r.must("/1")
	if left := r.offer("routes/1", `{"uri":"/1","plugins":{"low":{"fail":true,"upstream":`+up("8", "")+`}}}`); len(left) != 1 || r.must("/1") != before {
		t.Errorf("left out %v", left)
	}
	refs := r.refs()
	if left := r.offer("upstreams/a", up("2", `,"scheme":"grpc"`)); len(left) != 1 || !maps.Equal(r.refs(), refs) {
		t.Errorf("left out %v; pools %v, were %v", left, r.refs(), refs)
	}
	// A route that is not as its document says is still removed with it.
	r.offer("routes/1", "")
	if r.find("h", "/1") != nil {
		t.Error("the route is still there")
	}
}

// A route that does not go with the next version of what it uses keeps the version it was compiled with, open.
func TestALeftOutRouteKeepsWhatItUses(t *testing.T) {
	r := newRig(t)
	service := func(port, plugin string) string {
		return `{"upstream":` + up(port, "") + `,"plugins":{"mid":{` + plugin + `}}}`
	}
	r.put("services/s", service("1", `"id":"v1"`), "routes/1", `{"uri":"/1","service_id":"s"}`, "routes/2", `{"uri":"/2","service_id":"s","plugins":{"mid":{"id":"own"}}}`)
	before := r.must("/1")
	if left := r.offer("services/s", service("2", `"fail":true`)); !slices.Equal(left, []string{"routes/1"}) {
		t.Fatalf("left out %v", left)
	}
	if r.must("/1") != before || len(r.refs()) != 2 {
		t.Fatalf("the upstream of a route in force was closed: %v", r.refs())
	}
	r.put("services/s", service("3", `"id":"v3"`))
	if r.must("/1") == before || len(r.refs()) != 1 {
		t.Errorf("pools %v", r.refs())
	}
	if r.plugin("/1", "mid").conf.ID != "v3" {
		t.Error("the route did not catch up")
	}
}

func TestLeftOutRoutesAreTriedAgainAndRefuseNothing(t *testing.T) {
	r := newRig(t)
	r.put("services/s", `{"plugins":{"mid":{"fail":true}}}`, "upstreams/u", up("1", ""))
	r.offer("routes/1", `{"uri":"/1","service_id":"s","upstream_id":"u"}`)
	if r.find("h", "/1") != nil {
		t.Fatal("it should not compile")
	}
	r.put("upstreams/u", up("2", "")) // strict; the route would still not compile
	if r.find("h", "/1") != nil {
		t.Fatal("it should still not compile")
	}
	st, err := r.c.Stage(r.lookup, edits([]string{"services/s", `{"plugins":{"mid":{}}}`}), false)
	if err != nil || !slices.Equal(st.Recovered, []string{"routes/1"}) {
		t.Fatalf("%v, %v", err, st)
	}
	r.commit(st, []string{"services/s", `{"plugins":{"mid":{}}}`})
	if r.must("/1").Upstream == nil {
		t.Error("the route has no upstream")
	}
	// Now it is in force, an edit that breaks it is refused.
	r.refuse("told to fail", "services/s", `{"plugins":{"mid":{"fail":true}}}`)
	// Sent again as it is, a document that does not compile is refused.
	r.offer("routes/2", `{"uri":"/2","plugins":{"mid":{"fail":true}}}`)
	r.refuse("told to fail", "routes/2", `{"uri":"/2","plugins":{"mid":{"fail":true}}}`)
	r.put("routes/2", "")
	if len(r.c.left) != 0 {
		t.Errorf("remembers %v", r.c.left)
	}
}

// The version in force of a route whose latest one is broken follows what it depends on, in strict and in lenient changes.
func TestTheVersionInForceFollows(t *testing.T) {
	r := newRig(t)
	r.put("upstreams/u", up("1", ""), "routes/1", `{"uri":"/1","upstream_id":"u","plugins":{"mid":{"id":"v1"}}}`)
	good := r.docs["routes/1"]
	broken := `{"uri":"/1","plugins":{"mid":{"fail":true}}}`
	r.offer("routes/1", broken)
	r.docs["routes/1"] = good // what is in force
	before := r.must("/1")
	r.put("upstreams/u", up("2", ""))
	if got := r.must("/1"); got == before || got.Upstream != r.c.upstreams["upstreams/u"].Upstream || r.plugin("/1", "mid").conf.ID != "v1" || len(r.refs()) != 1 {
		t.Errorf("the route in force is the old one: %v", got == before)
	}
	r.offer("upstreams/u", up("3", ""), "routes/1", broken)
	r.docs["routes/1"] = good
	if got := r.must("/1"); got.Upstream != r.c.upstreams["upstreams/u"].Upstream || len(r.refs()) != 1 {
		t.Error("the route in force did not follow a lenient change")
	}
	same := r.must("/1")
	r.offer("routes/1", broken)
	r.docs["routes/1"] = good
	if r.must("/1") != same {
		t.Error("a broken edit rebuilt the route in force")
	}
	r.c.Forget("routes/1")
	r.put("upstreams/u", up("4", ""))
	if r.plugin("/1", "mid").conf.ID != "v1" || len(r.c.left) != 0 {
		t.Error("what was forgotten came back")
	}
}

func TestStateByIdentity(t *testing.T) {
	r := newRig(t)
	state := func(path, plugin string) *counter { return r.plugin(path, plugin).state.(*counter) }
	r.put("services/s", `{"plugins":{"mid":{"state":"s1"}}}`,
		"routes/1", `{"uri":"/1","service_id":"s","plugins":{"low":{"state":"r1"}}}`, "routes/2", `{"uri":"/2","service_id":"s"}`)
	first, shared := state("/1", "low"), state("/1", "mid")
	if first.before != nil || shared != state("/2", "mid") {
		t.Fatal("the routes of one service do not share its state")
	}
	// Another field of the route: its own plugin's state passes through make, that of the service stays what it is.
	r.put("routes/1", `{"uri":"/1","desc":"x","service_id":"s","plugins":{"low":{"state":"r2"}}}`)
	if s := state("/1", "low"); s.before != first || state("/1", "mid") != shared {
		t.Errorf("low came from %v; mid is shared: %v", s.before, state("/1", "mid") == shared)
	}
	second := state("/1", "low")
	// An edit of the service: once for all its routes, and the route's own is not asked for anew.
	r.put("services/s", `{"plugins":{"mid":{"state":"s2"}}}`)
	if s := state("/1", "mid"); s != state("/2", "mid") || s.before != shared || state("/1", "low") != second {
		t.Errorf("mid came from %v, low stayed: %v", s.before, state("/1", "low") == second)
	}
	// Refused and left out changes leave it alone.
	r.refuse("told to fail", "routes/1", `{"uri":"/1","plugins":{"mid":{"state":"x"},"low":{"state":"r3","fail":true}}}`)
	r.offer("routes/1", `{"uri":"/1","plugins":{"mid":{"state":"x"},"low":{"state":"r3","fail":true}}}`)
	r.put("routes/1", `{"uri":"/1","plugins":{"low":{"state":"r4"}}}`)
	if s := state("/1", "low"); s.before != second {
		t.Errorf("low came from %v", s.before)
	}
	// It goes with the plugin, and with the document.
	r.put("routes/1", `{"uri":"/1","plugins":{}}`)
	r.put("routes/1", `{"uri":"/1","plugins":{"low":{"state":"r5"}}}`)
	if s := state("/1", "low"); s.before != nil {
		t.Errorf("low came from %v, which was gone", s.before)
	}
	r.put("routes/1", "", "routes/2", "")
	r.put("services/s", "")
	r.put("services/s", `{"plugins":{"mid":{"state":"s3"}}}`, "routes/2", `{"uri":"/2","service_id":"s"}`)
	if s := state("/2", "mid"); s.before != nil {
		t.Errorf("mid came from %v, which was gone", s.before)
	}
	r.put("routes/2", "", "services/s", "")
	if len(r.c.state) != 0 {
		t.Errorf("left behind: %v", r.c.state)
	}
}

func TestGoroutinesRunFromPublicationToRetirement(t *testing.T) {
	r := newRig(t)
	r.put("routes/1", `{"uri":"/1","plugins":{"low":{"id":"1","go":true},"mid":{"id":"2","go":true}}}`)
	r.refuse("told to fail", "routes/2", `{"uri":"/2","plugins":{"mid":{"id":"refused","go":true},"low":{"fail":true}}}`) // starts nothing: goleak
	held := r.live.Pin(0)
	r.put("routes/1", "")
	if len(r.closed) != 1 { // the mid of routes/2
		t.Errorf("closed %v while in use", r.closed)
	}
	held.Unpin(0)
	r.collect() // the rig takes note of a plugin that is closed before its goroutine has ended
	if len(r.closed) != 3 {
		t.Errorf("closed %v", r.closed)
	}
}

func TestTwoUpstreamsOfOneName(t *testing.T) {
	r := newRig(t)
	r.c.kinds["low"].Build = func(_ []byte, env phase.Env) (any, error) {
		for range 2 {
			if _, err := env.Upstream([]byte(up("1", "")), "same", "n"); err != nil {
				return nil, err
			}
		}
		return struct{}{}, nil
	}
	r.refuse("two upstreams are called low/same", "routes/1", `{"uri":"/1","plugins":{"low":{}}}`)
}
