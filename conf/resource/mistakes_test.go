package resource

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"headgate/conf/schema"
)

// surveyed is the tests' world, which can tell more of the configurations of its plugins.
type surveyed struct{ *world }

func (s surveyed) Names() []string { return []string{"key-auth", "limit-count"} }

func (s surveyed) PluginProblems(name string, conf any, _ Use) []schema.Problem {
	members, _ := conf.(map[string]any)
	var list []schema.Problem
	for _, bad := range sortedKeys(members) {
		list = append(list, schema.Problem{Path: []any{bad}, Msg: name + " has no " + bad})
	}
	return list
}

func TestMistakes(t *testing.T) {
	env := surveyed{&world{docs: map[string][]byte{"upstreams/there": []byte("{}")}}}
	for _, tt := range []struct{ kind, doc, want string }{
		{"routes", `{"id":"1","uri":"/a","upstream_id":"there"}`, ""},
		{"routes", `{"id":"1","uri":"/a","upstream_id":"gone","plugin_config_id":"none","priority":"x","remote_addr":"300.0.0.0/8","script":"return true"}`,
			`[priority] wrong type: expected integer, got string
[remote_addr] object matches none of the required
[plugin_config_id] failed to fetch plugin config info by plugin config id [none], response code: 404
[script] 'script' is not supported: Lua does not run here; use 'plugins' instead
[upstream_id] failed to fetch upstream info by upstream id [gone], response code: 404`},
		{"routes", `{"id":"1","uri":"/a","plugins":{"key-auht":{},"openid-connect":5,"limit-count":{}}}`,
			`[plugins key-auht] unknown plugin [key-auht] known
[plugins openid-connect] invalid plugin conf 5 for plugin [openid-connect]`},
		{"routes", `{"id":"1","uri":"/a","upstream_id":"there","host":"a","hosts":["b"]}`, "[] only one of host or hosts is allowed"},
		{"consumers", `{"username":"jack","group_id":"none","plugins":{"nope":{}}}`,
			`[group_id] failed to fetch consumer group info by consumer group id [none], response code: 404
[plugins nope] unknown plugin [nope] known`},
		{"consumers", `{"username":"jack","user":"x"}`, "[user] additional properties forbidden unknown"},
		{"secrets", `{"uri":5}`, `[] missing secret type`},
	} {
		k, _ := KindOf(tt.kind)
		doc, err := DecodeObject([]byte(tt.doc))
		if err != nil {
			t.Fatal(err)
		}
		var lines []string
		for _, m := range Mistakes(k, "", doc, env) {
			line := fmt.Sprintf("%v %s", m.Path, m.Msg)
			switch {
			case m.Unknown:
				line += " unknown"
			case slices.Contains(m.Known, "key-auth"):
				line += " known"
			}
			lines = append(lines, line)
		}
		if got := strings.Join(lines, "\n"); !strings.Contains(got, tt.want) || (got == "") != (tt.want == "") {
			t.Errorf("%s\ngot\n%s\nwant\n%s", tt.doc, got, tt.want)
		}
	}
}

// What the schema of a plugin says takes the place of the one text that clients get.
func TestMistakesOfPlugins(t *testing.T) {
	env := surveyed{&world{expected: "failed to check the configuration of plugin limit-count err: the first"}}
	k, _ := KindOf("services")
	doc, err := DecodeObject([]byte(`{"plugins":{"limit-count":{"a":1,"b":2}}}`))
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprint(Mistakes(k, "1", doc, env))
	if !strings.Contains(got, "[plugins limit-count a] limit-count has no a") || !strings.Contains(got, "[plugins limit-count b] limit-count has no b") {
		t.Errorf("%s", got)
	}
	if refusal := Validate(k, "1", doc, env); refusal == nil || refusal.Msg != "failed to check the configuration of plugin limit-count err: the first" {
		t.Errorf("clients get %v", refusal)
	}
}
