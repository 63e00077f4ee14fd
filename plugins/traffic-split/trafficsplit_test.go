package trafficsplit

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"headgate/conf/resource"
	"headgate/conf/schema"
	"headgate/proxy/phase"
	"headgate/proxy/phase/phasetest"
)

const (
	node  = `{"type":"roundrobin","nodes":{"127.0.0.1:1980":1}}`
	named = `{"type":"roundrobin","nodes":{"127.0.0.1:1980":1},"name":"blue"}`
)

// refusal returns the text that a write is refused with, "" when it isn't.
func refusal(t *testing.T, s *schema.Schema, conf string) string {
	t.Helper()
	doc, err := schema.DecodeJSON([]byte(conf))
	if err != nil {
		t.Fatalf("%s: %v", conf, err)
	}
	if err = s.Validate(doc); err == nil {
		err = Kind().Validate([]byte(conf))
	}
	if err != nil {
		return err.Error()
	}
	return ""
}

// Texts without the word branch are those of the contract's recorded answers.
func TestRefusals(t *testing.T) {
	s, err := schema.Compile("traffic-split", Kind().Schema, resource.SchemaRefs()...)
	if err != nil {
		t.Fatal(err)
	}
	const item, weighted = `property "rules" validation failed: failed to validate item 1: `,
		`property "weighted_upstreams" validation failed: `
	const branchHas, rewriteHas = "a branch has name, rewrite, upstream, upstream_id, weight",
		"a rewrite has headers, host, method, regex_uri, uri, use_real_request_uri_unsafe"
	tests := []struct{ conf, want string }{
		{`{}`, ""},
		{`{"rules":[]}`, ""},
		{`{"rules":{}}`, ""},
		{`{"rules":[{}]}`, ""},
		{`{"rules":[{"foo":1}],"bar":2}`, ""},
		{`{"rules":[{"match":[],"weighted_upstreams":[{"weight":0}]}]}`, ""},
		{`{"rules":[{"match":[{"vars":[]}]}]}`, ""},
		{`{"rules":[{"weighted_upstreams":[{"upstream_id":"1","upstream":` + node + `}]}]}`, ""},
		{`{"rules":[{"weighted_upstreams":[{"upstream_id":"none"},{"upstream_id":7,"weight":1000000000000}]}]}`, ""},
		{`{"rules":[{"weight":1e12,"upstream":` + node + `},{"weight":0,"upstream_id":"x"}]}`, ""},
		{`{"rules":[{"rewrite":{"uri":"/v1"}},{"rewrite":[]}]}`, ""},

		{`{"rules":[{"foo":1,"bar":{"weight":1}}]}`, ""},
		{`{"rules":[{"weighted_upstreams":[{"weight":1,"rewrit":{"uri":"/v1"}}],"foo":1}]}`, ""},
		{`{"rules":[{"name":"r","foo":1,"match":[{"vars":[]}]},{"name":"r","foo":1,"weighted_upstreams":[{"weight":1}]}]}`, ""},
		{`{"rules":[{"name":"a","weight":1,"upstream":` + node + `,"upstream_id":"1","rewrite":{"uri":"/v1","method":"GET","regex_uri":["a","b"],` +
			`"host":"h","headers":{"X-A":"1"},"use_real_request_uri_unsafe":true}}],"bar":2}`, ""},

		{`{"rules":{"a":1}}`, `property "rules" validation failed: wrong type: expected array, got table`},
		{`{"rules":"x"}`, `property "rules" validation failed: wrong type: expected array, got string`},
		{`{"rules":[{"weighted_upstreams":[{"weight":-1}]}]}`, item + weighted +
			`failed to validate item 1: property "weight" validation failed: expected -1 to be at least 0`},
		{`{"rules":[{"weighted_upstreams":[{"weight":"1"}]}]}`, item + weighted +
			`failed to validate item 1: property "weight" validation failed: wrong type: expected integer, got string`},
		{`{"rules":[{"weighted_upstreams":[` + strings.Repeat(`{"weight":1},`, 20) + `{"weight":1}]}]}`, item + weighted +
			`expect array to have at most 20 items`},
		{`{"rules":[{"weighted_upstreams":[]}]}`, item + weighted + `expect array to have at least 1 items`},
		{`{"rules":[{"weighted_upstreams":[{"upstream":{"type":"roundrobin"}}]}]}`, item + weighted +
			`failed to validate item 1: property "upstream" validation failed: value should match only one schema, but matches none`},
		{`{"rules":[{"match":[{"vars":"x"}]}]}`, item + `property "match" validation failed: failed to validate item 1: ` +
			`property "vars" validation failed: wrong type: expected array, got string`},
		{`{"rules":[{"match":[{"vars":[["a","=","b"]]}]}]}`, `failed to validate the 'vars' expression: invalid operator '='`},
		{`{"rules":[{"match":[{}],"weighted_upstreams":[{"weight":1}]}]}`, `failed to validate the 'vars' expression: missing argument rule`},
		{`{"rules":[{"match":[[]]}]}`, `failed to validate the 'vars' expression: missing argument rule`},

		{`{"rules":[{"weight":-1}]}`, item + `property "weight" validation failed: expected -1 to be at least 0`},
		{`{"rules":[{"weight":"1"}]}`, item + `property "weight" validation failed: wrong type: expected integer, got string`},
		{`{"rules":[{"weight":1.5}]}`, item + `property "weight" validation failed: wrong type: expected integer, got number`},
		{`{"rules":[{"weight":1,"upstream":{"type":"roundrobin"}}]}`, item +
			`property "upstream" validation failed: value should match only one schema, but matches none`},
		{`{"rules":[{"weight":1,"rewrite":{"uri":""}}]}`, item +
			`property "rewrite" validation failed: property "uri" validation failed: string too short, expected at least 1, got 0`},

		{`{"rules":[{"weight":0},{"weight":0,"upstream":` + node + `}]}`,
			`the weights of rules add up to 0: at least one branch needs a weight above 0`},
		{`{"rules":[{"weight":10000000000000000000,"name":"big"}]}`,
			`branch "big": the weight is too large: expected at most 9223372036854775807`},
		{`{"rules":[{"weighted_upstreams":[{"weight":1},{"weight":1e300,"name":"big"}]}]}`,
			`branch "big": the weight is too large: expected at most 9223372036854775807`},
		{`{"rules":[{"weight":1,"rewrite":{"uri":"/v1"}},{"weight":1,"rewrite":{"uri":"/v2","regex_uri":["(","x"]}}]}`,
			"branch \"v2\": rewrite: invalid regex_uri((, x): error parsing"},
		{`{"rules":[{"weighted_upstreams":[{"name":"c","rewrite":{"headers":{"a b":"1"}}}]}]}`,
			`branch "c": rewrite: invalid field character in header`},
		{`{"rules":[{"name":"a","upstream":{"nodes":{"h:1":1},"pass_host":"rewrite"}}]}`,
			"branch \"a\": upstream: `upstream_host` can't be empty when `pass_host` is `rewrite`"},

		{`{"rules":[{"weight":1,"rewrit":{"uri":"/v1"}}]}`, `rules: item 1: unknown member "rewrit"; ` + branchHas},
		{`{"rules":[{"weight":1},{"upstream_id":"1","x":1,"b":1}]}`, `rules: item 2: unknown member "b"; ` + branchHas},
		{`{"rules":[{"name":"a","weigth":5}]}`, `rules: item 1: unknown member "weigth"; ` + branchHas},
		{`{"rules":[{"weight":1},{"name":"a","weigth":5}]}`, `rules: item 2: unknown member "weigth"; ` + branchHas},
		{`{"rules":[{"upstream":` + node + `,"Weight":1}]}`, `rules: item 1: unknown member "Weight"; ` + branchHas},
		{`{"rules":[{"weight":1},{"weight":1,"rewrite":{"urx":"/v1"}}]}`, `rules: item 2: rewrite: unknown member "urx"; ` + rewriteHas},
		{`{"rules":[{"name":"a","weight":1,"rewrite":{"uri":"/v1","hots":"x"}}]}`,
			`rules: item 1: rewrite: unknown member "hots"; ` + rewriteHas},

		{`{"rules":[{"name":"a","weight":1},{"weight":1},{"name":"a","weight":2}]}`,
			`two branches are named "a": the names of one configuration must differ`},
		{`{"rules":[{"weighted_upstreams":[{"name":"c"}]},{"weighted_upstreams":[{"name":"c"}]}]}`,
			`two branches are named "c": the names of one configuration must differ`},
		{`{"rules":[{"rewrite":{"uri":"/v1"}},{"name":"v1","weight":1},{"upstream_id":"v1"}]}`, ""},

		{`{"rules":[{"weight":1},{"match":[],"weighted_upstreams":[{"weight":1}]}]}`, `rules mixes two forms: item 1 is a branch`},
		{`{"rules":[{"weight":1},{"name":"rest"}]}`, `rules mixes two forms: item 1 is a branch`},
		{`{"rules":[{},{"weight":1,"match":[{"vars":[]}]}]}`, `rules mixes two forms: item 2 is a branch`},
		{`{"rules":[{"rewrite":{"uri":"/x"},"weighted_upstreams":[{"weight":1}]}]}`, `rules mixes two forms: item 1 is a branch`},
	}
	for _, tt := range tests {
		got := refusal(t, s, tt.conf)
		if got != tt.want && (tt.want == "" || !strings.HasPrefix(got, tt.want) || !strings.Contains(tt.want, "mixes") &&
			!strings.Contains(tt.want, "parsing")) {
			t.Errorf("%s\ngot  %s\nwant %s", tt.conf, got, tt.want)
		}
	}
}

// A member that the schema describes must not be refused as unknown, and the other way round.
func TestMembersAreThoseOfTheSchema(t *testing.T) {
	var s struct {
		Properties struct {
			Rules struct {
				Items struct{ Properties map[string]any }
			}
		}
	}
	if err := json.Unmarshal(Kind().Schema, &s); err != nil {
		t.Fatal(err)
	}
	want := append(branchMembers(), "match", "sticky", "weighted_upstreams")
	slices.Sort(want)
	if got := slices.Sorted(maps.Keys(s.Properties.Rules.Items.Properties)); !slices.Equal(got, want) {
		t.Errorf("schema has %v, the check %v", got, want)
	}
}

// What a hundred requests get, in either form.
func TestExactShares(t *testing.T) {
	tests := []struct {
		name, conf string
		want       map[string]int
	}{
		{"guide, 50 to 50", `{"rules":[{"weight":50,"upstream":` + node + `,"rewrite":{"uri":"/v1/chat/completions"}},
			{"weight":50,"upstream":` + node + `,"rewrite":{"uri":"/v2/chat/completions"}}]}`,
			map[string]int{"v1 /v1/chat/completions": 50, "v2 /v2/chat/completions": 50}},
		{"guide, 80 to 20, by id", `{"rules":[{"weight":80,"upstream_id":"one"},{"weight":20,"upstream_id":2}]}`,
			map[string]int{"one": 80, "2": 20}},
		{"guide, one without upstream", `{"rules":[{"weight":1,"upstream":` + named + `},{"weight":3,"rewrite":{"uri":"/v2"}}]}`,
			map[string]int{"blue": 25, "v2@default /v2": 75}},
		{"guide, weight 0", `{"rules":[{"weight":0,"upstream_id":"one"},{"weight":1,"upstream_id":"2"}]}`, map[string]int{"2": 100}},
		{"guide, weights not given", `{"rules":[{"upstream_id":"one"},{"upstream_id":"2"},{"name":"x","rewrite":{}},{"rewrite":{}}]}`,
			map[string]int{"one": 25, "2": 25, "x@default": 25, "branch-4@default": 25}},
		{"guide, 1 to 1e12", `{"rules":[{"weight":1,"upstream_id":"one"},{"weight":1000000000000,"upstream_id":"2"}]}`, map[string]int{"2": 100}},
		{"contract, 3 to 2", `{"rules":[{"weighted_upstreams":[{"weight":3,"upstream":` + node + `},{"weight":2}]}]}`,
			map[string]int{"branch-1": 60, "default": 40}},
		{"contract, only one", `{"rules":[{"weighted_upstreams":[{"upstream":` + named + `}]}]}`, map[string]int{"blue": 100}},
		{"contract, no entries", `{"rules":[{}]}`, map[string]int{"default": 100}},
		{"contract, all weights 0", `{"rules":[{"weighted_upstreams":[{"weight":0,"upstream":` + named + `}]}]}`, map[string]int{"default": 100}},
		{"contract, id beats upstream", `{"rules":[{"weighted_upstreams":[{"upstream_id":"one","upstream":` + node + `}]}]}`,
			map[string]int{"one": 100}},
		{"contract, rewrite", `{"rules":[{"weighted_upstreams":[{"upstream_id":"one","rewrite":{"regex_uri":["^/(.*)","/n/$1"]}},{}]}]}`,
			map[string]int{"one /n/a": 50, "default": 50}},
		{"no rules", `{}`, map[string]int{"default": 100}},
		{"empty rules", `{"rules":[]}`, map[string]int{"default": 100}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := newEnv("one", "2")
			if got := tally(built(t, e, tt.conf), 100); !maps.Equal(got, tt.want) {
				t.Errorf("got  %v\nwant %v", got, tt.want)
			}
		})
	}
}

func TestMatch(t *testing.T) {
	first := `{"match":[{"vars":[["arg_v","==","2"]]},{"vars":[["http_x_c","==","1"]]}],"weighted_upstreams":[{"upstream_id":"two"}]}`
	tests := []struct {
		name, conf, target, line, want string
	}{
		{"first item", first, "/a?v=2", "", "two"},
		{"second item", first, "/a?v=0", "X-C: 1", "two"},
		{"no item", first, "/a", "", "default"},
		{"first rule wins", first + `,{"weighted_upstreams":[{"upstream_id":"three"}]}`, "/a?v=2", "", "two"},
		{"next rule", first + `,{"weighted_upstreams":[{"upstream_id":"three"}]}`, "/a", "", "three"},
		{"empty match", `{"match":[],"weighted_upstreams":[{"upstream_id":"two"}]}`, "/a", "", "two"},
		{"empty vars", `{"match":[{"vars":[]}],"weighted_upstreams":[{"upstream_id":"two"}]}`, "/a", "", "two"},
		{"or", `{"match":[{"vars":["OR",["arg_v","==","2"],["arg_w","==","2"]]}],"weighted_upstreams":[{"upstream_id":"two"}]}`,
			"/a?w=2", "", "two"},
		{"or, neither", `{"match":[{"vars":["OR",["arg_v","==","2"],["arg_w","==","2"]]}],"weighted_upstreams":[{"upstream_id":"two"}]}`,
			"/a?w=3", "", "default"},
		{"a rule of zeros still decides", `{"weighted_upstreams":[{"upstream_id":"two","weight":0}]},{"weighted_upstreams":[{"upstream_id":"three"}]}`,
			"/a", "", "default"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := built(t, newEnv("two", "three"), `{"rules":[`+tt.conf+`]}`)
			var lines []string
			if tt.line != "" {
				lines = append(lines, tt.line)
			}
			if got := visit(p, tt.target, lines...); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

func TestMissingUpstream(t *testing.T) {
	const none = "500 failed to fetch upstream info by upstream id: none"
	onlyV2 := `"match":[{"vars":[["arg_v","==","2"]]}]`
	tests := []struct{ name, conf, target, want string }{
		{"weight 0", `{"weighted_upstreams":[{"upstream_id":"none","weight":0},{"weight":1}]}`, "/a", none},
		{"unmatched rule", `{` + onlyV2 + `,"weighted_upstreams":[{"upstream_id":"none"}]}`, "/a", none},
		{"matched rule", `{` + onlyV2 + `,"weighted_upstreams":[{"upstream_id":"none"}]}`, "/a?v=2", none},
		{"rule that is not visited", `{` + onlyV2 + `,"weighted_upstreams":[{"upstream_id":"one"}]},{"weighted_upstreams":[{"upstream_id":"none"}]}`,
			"/a?v=2", "one"},
		{"first of several", `{"weighted_upstreams":[{"upstream_id":"one"},{"upstream_id":"none"},{"upstream_id":"neither"}]}`, "/a", none},
		{"guide", `{"weight":1,"upstream_id":"one"},{"weight":1,"upstream_id":"none"}`, "/a", none},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := visit(built(t, newEnv("one"), `{"rules":[`+tt.conf+`]}`), tt.target); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
	x := &phase.Exchange{}
	prepare(x, "/a")
	built(t, newEnv(), `{"rules":[{"upstream_id":"none"}]}`).Access(x)
	if kind, _ := x.Response.Header.Get("Content-Type"); string(kind) != phase.TypeText {
		t.Errorf("content type %s", kind)
	}
}

// Every rule by which a branch gets its name, with the identity of its upstream.
func TestNames(t *testing.T) {
	e := newEnv("up-7")
	p := built(t, e, `{"rules":[
		{"name":"mine","upstream":`+named+`,"rewrite":{"uri":"/v9"}},
		{"upstream":`+named+`,"rewrite":{"uri":"/v9"}},
		{"upstream_id":"up-7","rewrite":{"uri":"/v9"}},
		{"upstream":`+node+`,"rewrite":{"uri":"/v1/chat/completions"}},
		{"upstream":`+node+`,"rewrite":{"uri":"/v1/chat/completions"}},
		{"upstream":`+node+`,"rewrite":{"uri":"/$arg_v/chat"}},
		{"weight":1}]}`)
	want := map[string]int{"mine@blue /v9": 1, "blue /v9": 1, "up-7 /v9": 1, "v1 /v1/chat/completions": 1,
		"v1-2 /v1/chat/completions": 1, "branch-6 //chat": 1, "branch-7@default": 1}
	if got := tally(p, 7); !maps.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	var parts []string
	for _, u := range e.inline {
		parts = append(parts, u.part)
	}
	if got := strings.Join(parts, " "); got != "branch/mine branch/blue branch/v1 branch/v1-2 branch/branch-6" {
		t.Errorf("parts %s", got)
	}
	e = newEnv()
	p = built(t, e, `{"rules":[{"match":[{"vars":[["arg_v","==","2"]]}],"weighted_upstreams":[{"upstream":`+node+`},{}]},{}]}`)
	if a, b, c := visit(p, "/?v=2"), visit(p, "/?v=2"), visit(p, "/"); a != "branch-1" || b != "default" || c != "default-2@default" {
		t.Errorf("branches %s, %s, %s", a, b, c)
	}
}

// Every request is counted once: here, or by the engine under the name that it has set for the route's own upstream.
func TestCounters(t *testing.T) {
	e := newEnv("one")
	p := built(t, e, `{"rules":[{"weighted_upstreams":[{"weight":5,"upstream_id":"one"},{"weight":3},{"weight":2,"name":"canary"}]}]}`)
	tally(p, 100)
	got := map[string]int{}
	for name, c := range e.counters {
		got[name] = c.n
	}
	if want := map[string]int{"one": 50, "default": 0, "canary": 20}; !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// An edit that leaves the weights alone must not start the sequence again, and new weights begin without favouring anyone.
func TestSequenceSurvivesEdits(t *testing.T) {
	e := newEnv("a", "b")
	conf := func(a, b int, uri string) string {
		return fmt.Sprintf(`{"rules":[{"weight":%d,"upstream_id":"a","rewrite":{"uri":%q}},{"weight":%d,"upstream_id":"b","rewrite":{"uri":%q}}]}`,
			a, uri, b, uri)
	}
	got := map[string]int{}
	for i := range 100 {
		p := built(t, e, conf(3, 1, fmt.Sprintf("/%d", i))) // one request between two edits
		branch, _, _ := strings.Cut(visit(p, "/a"), " ")
		got[branch]++
	}
	if want := map[string]int{"a": 75, "b": 25}; !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	got = map[string]int{}
	for i := range 400 {
		weights := [...]int{1, 9}
		p := built(t, e, conf(weights[i%2], weights[1-i%2], "/"))
		branch, _, _ := strings.Cut(visit(p, "/a"), " ")
		got[branch]++
	}
	if n := got["a"]; n < 198 || n > 202 {
		t.Errorf("weights that change after every request, on average equal, gave %v", got)
	}
}

// Rules have sequences of their own: the traffic of one does not shift the shares of another.
func TestRulesDoNotShareASequence(t *testing.T) {
	p := built(t, newEnv("a", "b"), `{"rules":[
		{"match":[{"vars":[["arg_v","==","2"]]}],"weighted_upstreams":[{"upstream_id":"a","name":"x"},{"upstream_id":"b","name":"y"}]},
		{"weighted_upstreams":[{"upstream_id":"a"},{"upstream_id":"b"}]}]}`)
	got := map[string]int{}
	for range 50 {
		got[visit(p, "/?v=2")]++
		got[visit(p, "/")]++
	}
	if want := map[string]int{"x@a": 25, "y@b": 25, "a": 25, "b": 25}; !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestBuildRefuses(t *testing.T) {
	for _, conf := range []string{
		`{"rules":[{"match":[{"vars":[["a","=","b"]]}]}]}`,
		`{"rules":[{"weight":1,"rewrite":{"regex_uri":["(","x"]}}]}`,
		`{"rules":[{"weight":1},{}]}`,
		`{"rules":[{"upstream":{"nodes":{}}}]}`,
		`{`,
	} {
		if p, err := Kind().Build([]byte(conf), newEnv()); err == nil {
			t.Errorf("%s: built %+v", conf, p)
		}
	}
}

func TestRewriteThatFailsStops(t *testing.T) {
	p := built(t, newEnv(), `{"rules":[{"weight":1,"rewrite":{"regex_uri":["^/(?=a)(a+)+$","/"]}}]}`)
	if got := visit(p, "/"+strings.Repeat("a", 64)+"!"); !strings.HasPrefix(got, `500 {"error_msg":"failed to substitute the uri`) {
		t.Error(got)
	}
}

// access makes a request that looks the same every time, in the memory of the one before.
func access(p *plugin) func() {
	x := &phase.Exchange{}
	path, query := []byte("/chat/completions"), []byte("v=2")
	var up phase.Upstream = own
	return func() {
		x.Reset()
		x.Request.Path, x.Request.RawPath, x.Request.Query = path, path, query
		x.Upstream, x.Branch = up, "default"
		if p.Access(x) == phase.Stop {
			panic("stopped")
		}
	}
}

const (
	guideConf = `{"rules":[{"weight":50,"upstream":` + node + `,"rewrite":{"uri":"/v1/chat/completions"}},
		{"weight":50,"upstream":` + node + `,"rewrite":{"uri":"/v2/chat/completions"}}]}`
	matchConf = `{"rules":[{"match":[{"vars":[["arg_v","==","1"]]}]},{"match":[{"vars":[["arg_v","==","2"],["uri","~~","^/chat"]]}],
		"weighted_upstreams":[{"weight":1,"upstream":` + node + `},{"weight":10000}]}]}`
)

func TestAccessAllocatesNothing(t *testing.T) {
	for _, conf := range []string{guideConf, matchConf, `{}`} {
		if n := testing.AllocsPerRun(500, access(built(t, newEnv(), conf))); n != 0 {
			t.Errorf("%v allocations: %s", n, conf)
		}
	}
}

func BenchmarkAccess(b *testing.B) {
	for name, conf := range map[string]string{"guide": guideConf, "match": matchConf, "none": `{}`} {
		b.Run(name, func(b *testing.B) {
			round := access(built(b, newEnv(), conf))
			b.ReportAllocs()
			for b.Loop() {
				round()
			}
		})
	}
}

// What passes can be built, and every request is answered or goes to one of the branches, or stays.
func FuzzConfig(f *testing.F) {
	f.Add(guideConf, "/a?v=2")
	f.Add(matchConf, "/chat?v=2")
	f.Add(`{"sticky":{"key":"$arg_v","cookie":{"name":"c"}},"decision_header":true,"rules":[{"weight":3},{"weight":0,"upstream_id":5,"name":"é\n"}]}`, "/?v=1")
	f.Add(`{"rules":[{"sticky":{"cookie":{"name":"x","ttl":5}},"weighted_upstreams":[{"weight":9e18},{"weight":9e18}]},{}]}`, "/")
	s, err := schema.Compile("traffic-split", Kind().Schema, resource.SchemaRefs()...)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, conf, target string) {
		if !strings.HasPrefix(target, "/") {
			return
		}
		doc, err := schema.DecodeJSON([]byte(conf))
		if err != nil || s.Validate(doc) != nil || Kind().Validate([]byte(conf)) != nil {
			return
		}
		e := &phasetest.Env{}
		built, err := Kind().Build([]byte(conf), e)
		if err != nil {
			t.Fatalf("%s: %v", conf, err)
		}
		for range 3 {
			x := phasetest.Exchange("GET " + target)
			explained := phasetest.Exchange("GET " + target)
			explained.Upstream, explained.Branch = own, own.Name()
			c := built.(decider).Explain(explained)
			serve(x, e, built)
			switch d := x.Decision; {
			case d.Bucket.Kind == phase.NoBucket && x.Branch != own.Name():
				t.Errorf("%s: went to %s without a decision", conf, x.Branch)
			case !c.Open && c.Status == 0 && (explained.Decision != d || explained.Branch != x.Branch):
				t.Errorf("%s: %+v is explained as %+v", conf, d, c)
			}
			if line, _ := x.Response.Header.Get("X-Headgate-Split"); strings.ContainsAny(string(line), "\r\n\x00 ") {
				t.Errorf("%s: the answer says %q", conf, line)
			}
		}
	})
}
