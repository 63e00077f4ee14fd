package split

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"headgate/conf/resource"
	"headgate/conf/schema"
)

func decode(t testing.TB, text string) map[string]any {
	t.Helper()
	doc, err := schema.DecodeJSON([]byte(text))
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return doc.(map[string]any)
}

// describe writes branches as "split:name=weight", Implied with a star.
func describe(branches []Branch) string {
	parts := make([]string, len(branches))
	for i, b := range branches {
		star := ""
		if b.Implied {
			star = "*"
		}
		parts[i] = fmt.Sprintf("%d:%s=%d%s", b.Split, b.Name, b.Weight, star)
	}
	return strings.Join(parts, " ")
}

func TestBranches(t *testing.T) {
	tests := []struct{ name, conf, want string }{
		{"guide", `{"rules":[{"weight":50,"upstream":{},"rewrite":{"uri":"/v1/chat/completions"}},
			{"weight":50,"upstream":{},"rewrite":{"uri":"/v2/chat/completions"}}]}`, "0:v1=50 0:v2=50"},
		{"apisix", `{"rules":[{"weighted_upstreams":[{"upstream":{"name":"canary"},"weight":2},{"weight":8}]}]}`,
			"0:canary=2 0:default=8"},
		{"name wins over all", `{"rules":[{"name":"a","upstream":{"name":"b"},"upstream_id":"c","rewrite":{"uri":"/d"}}]}`, "0:a=1"},
		{"upstream name over id", `{"rules":[{"upstream":{"name":"b"},"upstream_id":"c","rewrite":{"uri":"/d"}}]}`, "0:b=1"},
		{"id over rewrite", `{"rules":[{"upstream_id":"c","rewrite":{"uri":"/d"}}]}`, "0:c=1"},
		{"number id", `{"rules":[{"upstream_id":12}]}`, "0:12=1"},
		{"segment ends at the query", `{"rules":[{"rewrite":{"uri":"/v3?x=/y"}}]}`, "0:v3=1"},
		{"segment with a variable", `{"rules":[{"rewrite":{"uri":"/$arg_v/x"}}]}`, "0:branch-1=1"},
		{"root rewrite", `{"rules":[{"rewrite":{"uri":"/"}}]}`, "0:branch-1=1"},
		{"numbered over all splits", `{"rules":[{"upstream":{}},{"weighted_upstreams":[{"upstream":{}},{}]},{"upstream":{}}]}`,
			"0:branch-1=1 1:branch-2=1 1:default=1 0:branch-4=1"},
		{"rewrite only is no default", `{"rules":[{"weighted_upstreams":[{"rewrite":{}}]}]}`, "0:branch-1=1"},
		{"implied default", `{"rules":[{"match":[]},{}]}`, "0:default=1* 1:default-2=1*"},
		{"no entries", `{"rules":[{"weighted_upstreams":[]}]}`, ""},
		{"duplicates", `{"rules":[{"name":"a"},{"name":"a","weight":1},{"upstream_id":"a"},{"name":"b","weight":1}]}`,
			"0:default=1* 1:a=1 1:a-2=1 1:b=1"},
		{"made-up names avoid written ones", `{"rules":[{"name":"a","weight":1},{"name":"a","weight":2},{"name":"a-2","weight":3},
			{"name":"branch-5","weight":4},{"upstream":{}}]}`, "0:a=1 0:a-3=2 0:a-2=3 0:branch-5=4 0:branch-5-2=1"},
		{"explicit name wins over earlier rewrites", `{"rules":[{"rewrite":{"uri":"/v1/x"}},{"rewrite":{"uri":"/v1/y"}},{"name":"v1","weight":1}]}`,
			"0:v1-2=1 0:v1-3=1 0:v1=1"},
		{"explicit name wins over an earlier upstream", `{"rules":[{"upstream":{"name":"a"}},{"upstream_id":"a"},{"name":"a","weight":1},
			{"name":"a-2","weight":1}]}`, "0:a-3=1 0:a-4=1 0:a=1 0:a-2=1"},
		{"explicit name wins in another rule", `{"rules":[{"weighted_upstreams":[{}]},{"weighted_upstreams":[{"name":"default","weight":2}]}]}`,
			"0:default-2=1 1:default=2"},
		{"explicit name wins over numbers", `{"rules":[{"upstream":{}},{"name":"branch-1","weight":1}]}`, "0:branch-1-2=1 0:branch-1=1"},
		{"two rules", `{"rules":[{"match":[{}],"weighted_upstreams":[{"upstream_id":"x","weight":0}]},
			{"weighted_upstreams":[{"upstream_id":"x","weight":3.0}]}]}`, "0:x=0 1:x-2=3"},
		{"bad weights", `{"rules":[{"weight":-1},{"weight":1.5},{"weight":"7"},{"weight":null}]}`,
			"0:branch-1=0 0:branch-2=0 0:branch-3=0 0:branch-4=0"},
		{"wrong types", `{"rules":[1,"x",null,[],{"weighted_upstreams":[1,{"upstream":5,"name":7}]}]}`, "0:default=1"},
		{"rules of the wrong type", `{"rules":{"a":1}}`, ""},
		{"none", `{}`, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := describe(Branches(decode(t, tt.conf))); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

func TestPathLeadsToTheEntry(t *testing.T) {
	conf := decode(t, `{"rules":[{"match":[]},{"weighted_upstreams":[{},{"weight":4}]},{"weight":7}]}`)
	branches := Branches(conf)
	want := [][]any{
		{"rules", 0, "weighted_upstreams", 0}, {"rules", 1, "weighted_upstreams", 0},
		{"rules", 1, "weighted_upstreams", 1}, {"rules", 2},
	}
	for i, b := range branches {
		if !reflect.DeepEqual(b.Path, want[i]) {
			t.Errorf("branch %d: path %v, want %v", i, b.Path, want[i])
		}
	}
}

func TestSetWeight(t *testing.T) {
	tests := []struct {
		conf  string
		index int
		want  string
	}{
		{`{"rules":[{"weight":50,"rewrite":{"uri":"/v1"}},{"weight":50}]}`, 1,
			`{"rules":[{"rewrite":{"uri":"/v1"},"weight":50},{"weight":9}]}`},
		{`{"rules":[{"weighted_upstreams":[{"upstream_id":"a"},{"weight":1.0}]}]}`, 0,
			`{"rules":[{"weighted_upstreams":[{"upstream_id":"a","weight":9},{"weight":1.0}]}]}`},
		{`{"rules":[{"match":[{"vars":[["a","==","b"]]}]}]}`, 0,
			`{"rules":[{"match":[{"vars":[["a","==","b"]]}],"weighted_upstreams":[{"weight":9}]}]}`},
	}
	for _, tt := range tests {
		conf := decode(t, tt.conf)
		SetWeight(conf, Branches(conf)[tt.index], 9)
		got, err := resource.Encode(conf)
		if err != nil || string(got) != tt.want {
			t.Errorf("got  %s (%v)\nwant %s", got, err, tt.want)
		}
		if w := Branches(conf)[tt.index].Weight; w != 9 {
			t.Errorf("weight reads %d after it was set to 9", w)
		}
	}
}

func TestRepeated(t *testing.T) {
	for _, tt := range []struct{ name, conf, want string }{
		{"branches", `{"rules":[{"name":"a","weight":1},{"name":"b","weight":1},{"name":"a","weight":2}]}`, "a"},
		{"weighted", `{"rules":[{"weighted_upstreams":[{"name":"c"},{"name":"c"}]}]}`, "c"},
		{"over rules", `{"rules":[{"weighted_upstreams":[{"name":"c"}]},{"weighted_upstreams":[{"name":"c"}]}]}`, "c"},
		{"the first that shows", `{"rules":[{"name":"a","weight":1},{"name":"b","weight":1},{"name":"b","weight":1},{"name":"a","weight":1}]}`, "b"},
		{"equal to a derived one", `{"rules":[{"name":"v1","weight":1},{"rewrite":{"uri":"/v1"}},{"upstream":{"name":"v1"}},{"upstream_id":"v1"}]}`, ""},
		{"derived ones", `{"rules":[{"upstream_id":"v1"},{"upstream_id":"v1"}]}`, ""},
		{"names of rules", `{"rules":[{"name":"r","match":[]},{"name":"r","match":[]}]}`, ""},
		{"unnamed", `{"rules":[{"name":"","weight":1},{"name":"","weight":1},{"weight":1}]}`, ""},
		{"none", `{}`, ""},
	} {
		if got := Repeated(decode(t, tt.conf)); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestInteger(t *testing.T) {
	for _, tt := range []struct {
		in   any
		want int64
		ok   bool
	}{
		{json.Number("80"), 80, true}, {json.Number("80.0"), 80, true}, {json.Number("8e1"), 80, true}, {json.Number("-1"), -1, true},
		{json.Number("1e12"), 1e12, true}, {json.Number("0.5"), 0, false}, {json.Number("1e19"), 0, false}, {json.Number("x"), 0, false},
		{int64(5), 5, true}, {5, 5, true}, {5.0, 5, true}, {5.5, 0, false}, {"5", 0, false}, {nil, 0, false}, {true, 0, false},
	} {
		if n, ok := Integer(tt.in); n != tt.want || ok != tt.ok {
			t.Errorf("Integer(%v) = %d, %v; want %d, %v", tt.in, n, ok, tt.want, tt.ok)
		}
	}
}

// Names stay unique whatever is written, and the first of equal names keeps it.
func TestNamesAreUnique(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	words := []string{"", "a", "a-2", "a-3", "branch-1", "branch-2", "branch-2-2", "default", "v1"}
	for range 500 {
		var rules []any
		for range 1 + rng.IntN(12) {
			rules = append(rules, map[string]any{"weight": json.Number("1"), "name": words[rng.IntN(len(words))]})
		}
		seen := map[string]bool{}
		for i, b := range Branches(map[string]any{"rules": rules}) {
			if b.Name == "" || seen[b.Name] {
				t.Fatalf("rules %v: branch %d is called %q", rules, i, b.Name)
			}
			seen[b.Name] = true
		}
		for _, r := range rules {
			if name := r.(map[string]any)["name"].(string); name != "" && !seen[name] {
				t.Fatalf("rules %v: nobody is called %q", rules, name)
			}
		}
	}
}

// A configuration of nothing but equal names must not cost the square of their number.
func TestManyEqualNames(t *testing.T) {
	entries := make([]any, 200_000)
	for i := range entries {
		entries[i] = map[string]any{}
	}
	branches := Branches(map[string]any{"rules": []any{map[string]any{"weighted_upstreams": entries}}})
	if last, want := branches[len(branches)-1].Name, "default-"+strconv.Itoa(len(entries)); last != want {
		t.Errorf("last branch is called %q, want %q", last, want)
	}
}
