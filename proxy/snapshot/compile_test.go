package snapshot

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"headgate/conf/resource"
	"headgate/proxy/fault"
	"headgate/proxy/phase"
	"headgate/proxy/route"
)

func TestWhereARouteSends(t *testing.T) {
	r := newRig(t)
	r.put("upstreams/a", up("1", `,"name":"alpha"`), "upstreams/b", up("2", ""),
		"services/own", `{"upstream":`+up("3", "")+`,"name":"svc"}`, "services/id", `{"upstream_id":"b"}`,
		"services/both", `{"upstream_id":"b","upstream":`+up("3", "")+`}`, "services/none", `{"plugins":{}}`, "services/gone", `{"upstream_id":"zzz"}`)
	for _, tt := range []struct {
		name, doc, branch string
		missing           *fault.Fault
	}{
		{"own", `"upstream":` + up("9", ""), "default", nil},
		{"own with a name", `"upstream":` + up("9", `,"name":"nine"`), "nine", nil},
		{"by id, with a name", `"upstream_id":"a"`, "alpha", nil},
		{"by id", `"upstream_id":"b"`, "b", nil},
		{"own and id", `"upstream_id":"a","upstream":` + up("9", ""), "alpha", nil},
		{"service's own", `"service_id":"own"`, "default", nil},
		{"service's id", `"service_id":"id"`, "b", nil},
		{"service's own and id", `"service_id":"both"`, "b", nil},
		{"own before the service's", `"service_id":"id","upstream":` + up("9", `,"name":"nine"`), "nine", nil},
		{"id before the service's", `"service_id":"own","upstream_id":"a"`, "alpha", nil},
		{"nothing", `"plugins":{}`, "", fault.NoUpstream},
		{"service with nothing", `"service_id":"none"`, "", fault.NoUpstream},
		{"no such upstream", `"upstream_id":"zzz"`, "", fault.MissingUpstream},
		{"no such service", `"service_id":"zzz"`, "", fault.MissingService},
		{"no such service, in spite of an upstream", `"service_id":"zzz","upstream_id":"a"`, "", fault.MissingService},
		{"no such plugin config", `"plugin_config_id":"zzz","upstream_id":"a"`, "", fault.MissingPluginConfig},
		{"service with no such upstream", `"service_id":"gone"`, "", fault.MissingUpstream},
	} {
		r.put("routes/1", `{"uri":"/x",`+tt.doc+`}`)
		got := r.must("/x")
		missing := got.Missing
		if got.Incomplete != nil {
			missing = got.Incomplete
		}
		if missing != tt.missing || got.Branch != tt.branch || (got.Upstream == nil) != (tt.missing != nil) {
			t.Errorf("%s: branch %q, missing %v, upstream %v", tt.name, got.Branch, missing, got.Upstream)
		}
	}
	r.put("routes/1", `{"uri":"/x","name":"n","service_id":"own"}`)
	got := r.must("/x")
	if want := (phase.Route{ID: "1", Name: "n", Key: "routes/1", ServiceID: "own", ServiceKey: "services/own", ServiceName: "svc", Compiled: got}); got.Route != want {
		t.Errorf("route is %+v", got.Route)
	}
}

// Referred documents may come, change and go; the route follows.
func TestReferencesComeAndGo(t *testing.T) {
	r := newRig(t)
	r.put("routes/1", `{"uri":"/x","service_id":"s","plugins":{"low":{"upstream_id":"u"}}}`)
	if got := r.must("/x"); got.Incomplete != fault.MissingService || r.plugin("/x", "low").upOK {
		t.Fatalf("before: %v", got.Incomplete)
	}
	r.put("services/s", `{"upstream_id":"u"}`)
	if got := r.must("/x"); got.Missing != fault.MissingUpstream {
		t.Fatalf("with the service: %v", got.Missing)
	}
	r.put("upstreams/u", up("1", ""))
	first := r.must("/x")
	if first.Missing != nil || first.Upstream == nil || r.plugin("/x", "low").up != phase.Upstream(first.Upstream) {
		t.Fatalf("with both: %v", first.Missing)
	}
	r.put("upstreams/u", up("2", ""))
	if got := r.must("/x"); got == first || got.Upstream == first.Upstream {
		t.Fatal("the route did not follow the upstream")
	}
	r.put("upstreams/u", "")
	if got := r.must("/x"); got.Missing != fault.MissingUpstream || r.plugin("/x", "low").upOK {
		t.Fatalf("without the upstream: %v", got.Missing)
	}
	r.put("services/s", "")
	if got := r.must("/x"); got.Incomplete != fault.MissingService {
		t.Fatalf("without the service: %v", got.Missing)
	}
	r.put("routes/1", "")
	if len(r.c.users)+len(r.c.deps)+len(r.c.routes)+len(r.refs()) != 0 {
		t.Errorf("left behind: users %v, deps %v, pools %v", r.c.users, r.c.deps, r.refs())
	}
}

func TestRouteClocksWin(t *testing.T) {
	r := newRig(t)
	const clocks = `"timeout":{"connect":2,"send":3,"read":4}`
	r.put("upstreams/u", up("1", `,"timeout":{"connect":9,"send":9,"read":9}`), "services/s", `{"upstream":`+up("2", "")+`}`,
		"routes/1", `{"uri":"/id","upstream_id":"u",`+clocks+`,"plugins":{"low":{"upstream":`+up("3", "")+`},"mid":{"upstream_id":"u"}}}`,
		"routes/2", `{"uri":"/own","upstream":`+up("4", "")+`,`+clocks+`}`, "routes/3", `{"uri":"/svc","service_id":"s",`+clocks+`}`,
		"routes/4", `{"uri":"/plain","upstream_id":"u"}`)
	for _, u := range []phase.Upstream{
		r.must("/id").Upstream, r.must("/own").Upstream, r.must("/svc").Upstream, r.plugin("/id", "low").up, r.plugin("/id", "mid").up,
	} {
		if clock(u, "connect") != 2*time.Second || clock(u, "send") != 3*time.Second || clock(u, "read") != 4*time.Second {
			t.Errorf("%s: %v %v %v", u.Name(), clock(u, "connect"), clock(u, "send"), clock(u, "read"))
		}
	}
	if got := clock(r.must("/plain").Upstream, "read"); got != 9*time.Second {
		t.Errorf("a route without clocks reads for %v", got)
	}
}

func TestHostsMethodsAddressesStatus(t *testing.T) {
	r := newRig(t)
	r.put("services/s", `{"hosts":["svc.test"],"plugins":{}}`,
		"routes/1", `{"uri":"/a","service_id":"s"}`, "routes/2", `{"uri":"/b","service_id":"s","hosts":["own.test"]}`,
		"routes/3", `{"uri":"/c","methods":["POST"],"plugins":{}}`, "routes/4", `{"uri":"/d","remote_addrs":["10.0.0.0/8","::1"],"plugins":{}}`,
		"routes/5", `{"uri":"/e","status":0,"plugins":{}}`)
	for _, tt := range []struct {
		host, path string
		want       bool
	}{
		{"svc.test", "/a", true}, {"own.test", "/a", false}, {"own.test", "/b", true}, {"svc.test", "/b", false},
		{"h", "/c", false}, {"h", "/d", false}, {"h", "/e", false},
	} {
		if got := r.find(tt.host, tt.path); (got != nil) != tt.want {
			t.Errorf("%s%s: found %v", tt.host, tt.path, got != nil)
		}
	}
	r.put("services/s", `{"hosts":["new.test"],"plugins":{}}`)
	if r.find("new.test", "/a") == nil || r.find("svc.test", "/a") != nil {
		t.Error("the hosts did not follow the service")
	}
	r.put("routes/5", `{"uri":"/e","status":1,"plugins":{}}`)
	if r.find("h", "/e") == nil {
		t.Error("status 1 did not switch the route on")
	}
	r.put("routes/5", `{"uri":"/e","status":0,"plugins":{}}`)
	if r.find("h", "/e") != nil || r.live.Current().Routes() != 4 {
		t.Error("status 0 did not switch the route off")
	}
}

// Equals are ordered by key when they come together, later ones go behind, and an edit keeps the place (contract section 2.2).
func TestOrderOfEquals(t *testing.T) {
	r := newRig(t)
	doc := `{"uri":"/x","plugins":{}}`
	r.put("routes/b", doc, "routes/c", doc)
	r.put("routes/a", doc)
	next := func() string { return r.must("/x").ID }
	if next() != "b" {
		t.Errorf("first is %s", next())
	}
	r.put("routes/b", `{"uri":"/x","plugins":{},"desc":"edited"}`)
	if next() != "b" {
		t.Errorf("after an edit first is %s", next())
	}
	r.put("routes/b", "")
	r.put("routes/b", doc)
	if next() != "c" {
		t.Errorf("after coming back first is %s", next())
	}
	r.put("routes/c", "")
	if next() != "a" {
		t.Errorf("then comes %s", next())
	}
}

func TestMergeOfPlugins(t *testing.T) {
	r := newRig(t)
	r.put("services/s", `{"plugins":{"low":{"id":"s"},"high":{"id":"s"}}}`)
	for _, tt := range []struct{ name, plugins, want string }{
		{"none of its own", `{}`, "high low"},
		{"by priority", `{"mid":{}}`, "high mid low"},
		{"_meta.priority", `{"mid":{"_meta":{"priority":5}}}`, "high low mid"},
		{"_meta.priority as 99.0", `{"mid":{"_meta":{"priority":99.0}}}`, "mid high low"},
		{"extreme priorities", `{"mid":{"_meta":{"priority":9007199254740992}},"low":{"_meta":{"priority":-9007199254740992}}}`, "mid high low"},
		{"disabled", `{"mid":{"_meta":{"disable":true}}}`, "high low"},
		{"disabled, and wrong besides", `{"mid":{"_meta":{"disable":true,"priority":"x"},"fail":true}}`, "high low"},
		{"disabled against the service's", `{"low":{"_meta":{"disable":true}}}`, "high"},
		{"not disabled", `{"mid":{"_meta":{"disable":false}}}`, "high mid low"},
		{"an empty array for an empty object", `{"mid":{"_meta":[]},"low":[]}`, "high mid low"},
		{"a filter that is an empty object", `{"mid":{"_meta":{"filter":{}}}}`, "high mid low"},
	} {
		r.put("routes/1", `{"uri":"/x","service_id":"s","plugins":`+tt.plugins+`}`)
		if got := names(r.must("/x")); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
	r.put("routes/1", `{"uri":"/x","service_id":"s","plugins":{"low":{"id":"r"}}}`)
	if w := r.plugin("/x", "low"); w.conf.ID != "r" || w.owner != "routes/1" {
		t.Errorf("low is %s of %s", w.conf.ID, w.owner)
	}
	if w := r.plugin("/x", "high"); w.conf.ID != "s" || w.owner != "services/s" {
		t.Errorf("high is %s of %s", w.conf.ID, w.owner)
	}
}

func TestMetaStaysOutsideThePlugin(t *testing.T) {
	r := newRig(t)
	r.put("routes/1", `{"uri":"/x","plugins":{"low":{"id":"i","_meta":{"filter":[["arg_a","==","1"]],"error_response":{"e":1}}}}}`)
	if raw := r.plugin("/x", "low").raw; raw != `{"id":"i"}` {
		t.Errorf("the plugin was given %s", raw)
	}
	got := r.must("/x")
	for _, tt := range []struct {
		query string
		asked bool
	}{{"a=1", true}, {"a=2", false}, {"", false}} {
		x := &phase.Exchange{}
		x.Begin(&phase.Settings{})
		x.Request.Query = []byte(tt.query)
		x.Enter(nil, got.Chain)
		if x.Access(); (x.Slot(0).Int == 1) != tt.asked {
			t.Errorf("%q: the filter says %d", tt.query, x.Slot(0).Int)
		}
	}
}

func TestCheckPlugin(t *testing.T) {
	r := newRig(t)
	for _, tt := range []struct {
		name string
		conf map[string]any
		want string
	}{
		{"low", map[string]any{"id": "x", "_meta": map[string]any{"disable": true, "filter": []any{}, "error_response": "e"}}, ""},
		{"low", map[string]any{"_meta": map[string]any{"disable": "yes"}}, `property "_meta" validation failed`},
		{"low", map[string]any{"_meta": map[string]any{"nonsense": true}}, "additional properties forbidden, found nonsense"},
		{"low", map[string]any{"nonsense": true}, "additional properties forbidden, found nonsense"},
		{"low", map[string]any{"id": "invalid", "_meta": map[string]any{}}, "not this id"},
		{"none", map[string]any{}, "unknown plugin [none]"},
	} {
		err := r.c.CheckPlugin(tt.name, tt.conf, resource.InRoute)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v: %v, want %q", tt.conf, err, tt.want)
		}
	}
	if r.c.Plugin("low") != resource.PluginPresent || r.c.Plugin("none") != resource.PluginUnknown {
		t.Error("KnownPlugin is wrong")
	}
}

func TestCompilersThatCannotBe(t *testing.T) {
	r := newRig(t)
	for _, kinds := range [][]phase.Kind{
		{r.kind("a", 1), r.kind("a", 2)}, {{Name: "a", Schema: []byte(`{"type":7}`)}}, {{Name: "a", Schema: []byte(`[]`)}}, {{Name: "a"}},
	} {
		if _, err := NewCompiler(&Live{}, Options{Kinds: kinds, Hub: r.hub, Meter: r.met}); err == nil {
			t.Errorf("%d kinds were taken", len(kinds))
		}
	}
}

func TestRefusedChanges(t *testing.T) {
	r := newRig(t)
	r.put("upstreams/u", up("1", ""), "services/s", `{"upstream_id":"u","plugins":{"mid":{"state":"s"}}}`,
		"routes/1", `{"uri":"/x","service_id":"s","plugins":{"high":{"id":"kept","state":"r"}}}`)
	kept := r.must("/x")
	built, closed := r.built, len(r.closed)
	for _, tt := range []struct{ want, key, doc string }{
		{"told to fail", "routes/2", `{"uri":"/y","upstream":` + up("7", "") + `,"plugins":{"high":{"id":"1","upstream":` + up("8", "") + `},"mid":{"id":"2"},"low":{"fail":true,"state":"x"}}}`},
		{"told to fail", "routes/1", `{"uri":"/y","service_id":"s","plugins":{"high":{"state":"r2"},"low":{"fail":true,"state":"x"}}}`},
		{"told to fail", "services/s", `{"upstream":` + up("9", "") + `,"plugins":{"mid":{"state":"s2"},"low":{"fail":true}}}`},
		{"unknown plugin [none]", "routes/2", `{"uri":"/y","upstream":` + up("7", "") + `,"plugins":{"none":{}}}`},
		{"scheme grpc", "upstreams/u", up("7", `,"scheme":"grpc"`)},
		{"scheme grpc", "routes/2", `{"uri":"/y","plugins":{"low":{"upstream":` + up("7", `,"scheme":"grpc"`) + `}}}`},
		{"'vars' expression", "routes/2", `{"uri":"/y","upstream":` + up("7", "") + `,"vars":[["a","===","b"]]}`},
		{"'vars' expression", "routes/2", `{"uri":"/y","plugins":{"low":{"_meta":{"filter":[["a","===","b"]]}}}}`},
		{"priority", "routes/2", `{"uri":"/y","plugins":{"low":{"_meta":{"priority":1.5}}}}`},
		{"pre_function", "routes/2", `{"uri":"/y","plugins":{"low":{"_meta":{"pre_function":"return"}}}}`},
		{"unknown method", "routes/2", `{"uri":"/y","methods":["BREW"],"plugins":{}}`},
		{"remote_addr", "routes/2", `{"uri":"/y","remote_addr":"10.0.0.0/99","plugins":{}}`},
		{"bad rule", "routes/2", `{"uri":"/y","hosts":["a*b"],"upstream":` + up("7", "") + `}`},
		{"bad rule", "routes/2", `{"plugins":{"low":{}}}`},
		{"not supported", "routes/2", `{"uri":"/y","filter_func":"function() return true end","plugins":{}}`},
		{"expected", "services/s", `{"hosts":7}`},
		{"object", "routes/2", `[1]`},
	} {
		r.refuse(tt.want, tt.key, tt.doc)
	}
	if got := r.must("/x"); got != kept || r.plugin("/x", "high").closed.Load() {
		t.Error("the route in force was touched")
	}
	if r.built-built != len(r.closed)-closed || r.built == built {
		t.Errorf("%d instances were built on the way, %d closed", r.built-built, len(r.closed)-closed)
	}
	// Last plugin first.
	if i := slices.Index(r.closed, "mid:2"); i < 0 || i+1 >= len(r.closed) || r.closed[i+1] != "high:1" {
		t.Errorf("closed in the order %v", r.closed)
	}
	r.put("routes/9", `{"uri":"/z","service_id":"s","plugins":{}}`)
	if s := r.plugin("/z", "mid").state; s != r.plugin("/x", "mid").state {
		t.Error("a refused change left state behind")
	}
}

func TestSeriesOfTheMatchedPattern(t *testing.T) {
	r := newRig(t)
	r.put("services/s", `{"hosts":["S.test"],"name":"svc","plugins":{}}`,
		"routes/1", `{"uris":["/a","/b/*"],"hosts":["Own.test","*.own.test"],"name":"n","service_id":"s","plugins":{"prometheus":{}}}`,
		"routes/2", `{"uri":"/c","service_id":"s","plugins":{"prometheus":{}}}`)
	record := func(host, path string) {
		s := r.live.Pin(0)
		defer s.Unpin(0)
		x := &phase.Exchange{}
		x.Begin(&phase.Settings{})
		got, ok := s.Find(&route.Query{Host: []byte(host), Path: []byte(path)}, nil, &x.Match)
		if !ok {
			t.Fatalf("no route for %s%s", host, path)
		}
		x.Response.Status = 200
		x.Enter(nil, got.Chain)
		x.Finish(func(any) { t.Error("panic") })
	}
	record("own.test", "/a")
	record("x.own.test", "/b/1")
	record("s.test", "/c")
	var b bytes.Buffer
	r.met.Write(&b)
	for _, want := range []string{
		`route="n",matched_uri="/a",matched_host="own.test",service="svc"`, `route="n",matched_uri="/b/*",matched_host="*.own.test",service="svc"`,
		`route="2",matched_uri="/c",matched_host="s.test",service="svc"`,
	} {
		if n := strings.Count(b.String(), "apisix_http_status{code=\"200\","+want); n != 1 {
			t.Errorf("%d series with %s", n, want)
		}
	}
}

// A plugin that the operator accepts without having it is passed over with a warning, wherever it stands.
func TestInertPlugins(t *testing.T) {
	r := newRig(t)
	r.c.opt.Inert = []string{"grpc-web", "low"}
	st, err := r.c.Stage(r.lookup, edits([]string{
		"routes/1", `{"uri":"/x","service_id":"s","plugins":{"grpc-web":{},"low":{"id":"runs"}}}`, "services/s", `{"plugins":{"grpc-web":{}}}`,
		"consumers/a", `{"username":"a","plugins":{"grpc-web":{"any":1}}}`, "routes/2", `{"uri":"/y","service_id":"s"}`,
	}), false)
	if err != nil {
		t.Fatal(err)
	}
	if want := "plugin grpc-web is configured in consumers/a, routes/1, services/s and does not run here (compat.accept_inert)"; len(st.Warnings) != 1 || st.Warnings[0] != want {
		t.Errorf("warnings %q", st.Warnings)
	}
	r.commit(st, nil)
	if got := names(r.must("/x")); got != "low" {
		t.Errorf("in force: %s", got)
	}
	if r.c.Plugin("grpc-web") != resource.PluginInert || r.c.Plugin("grpc-transcode") != resource.PluginKnown {
		t.Error("the states are wrong")
	}
	if got := r.c.Names(); !slices.Equal(got, []string{"auth", "grpc-web", "prometheus", "high", "mid", "low"}) {
		t.Errorf("names %v", got)
	}
}
