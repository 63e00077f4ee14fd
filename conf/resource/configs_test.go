package resource

import (
	"fmt"
	"strings"
	"testing"
)

func TestValidateConfigs(t *testing.T) {
	for _, c := range []struct {
		doc  string
		want []string // "type id index error"
	}{
		{`{}`, nil},
		{`{"routes":[],"services":{},"foo":1,"routes_conf_version":3}`, nil},
		{`{"routes":[{"id":"1","uri":"/a","upstream_id":"none","modifiedIndex":7,"create_time":1}]}`, nil},
		{`{"routes":[{"id":"r1"},{"id":1,"uri":"/a","plugins":{"nope":{}}}],"upstreams":[{"id":"u1"}],"services":5}`, []string{
			"upstreams u1 0 invalid configuration: value should match only one schema, but matches none",
			"services  0 expected an array",
			"routes r1 0 invalid configuration: allOf 1 failed: value should match only one schema, but matches none",
			"routes 1 1 unknown plugin [nope]",
		}},
		{`{"upstreams":[{"id":1,` + nodes + `},{"id":"1",` + nodes + `},{"id":"1",` + nodes + `},{` + nodes + `},{` + nodes + `}]}`, []string{
			"upstreams 1 1 found duplicate id 1 in upstreams",
			"upstreams 1 2 found duplicate id 1 in upstreams",
		}},
		{`{"consumers":[{"username":"a","plugins":{"auth":{"key":"taken"}},"group_id":"none"},{"id":"a/credentials/c"},
			{"username":"a"},{"id":"a/credentials/c"},{"id":"b/credentials/c","plugins":{"good":{}}},{"plugins":{}}]}`, []string{
			"consumers a 2 found duplicate username a in consumers",
			"consumers a/credentials/c 3 found duplicate credential id a/credentials/c in consumers",
			"consumers b/credentials/c 4 only supports auth type plugins in consumer credential",
			`consumers  5 invalid configuration: property "username" is required`,
		}},
		{`{"global_rules":[{"id":"1","plugins":{"good":{}}},{"id":"2","plugins":{"good":{}}},"x",[1],null]}`, []string{
			"global_rules  2 invalid configuration: wrong type: expected object, got string",
			"global_rules  3 invalid configuration: wrong type: expected object, got table",
			"global_rules  4 invalid configuration: wrong type: expected object, got userdata",
		}},
		{`{"secrets":[{"id":"vault/1","uri":"http://a","prefix":"p","token":"t"},{"id":"vault/1"},{"id":"x/1"},{}]}`, []string{
			`secrets vault/1 1 invalid configuration: property "uri" is required`,
			"secrets x/1 2 invalid secret manager: x",
			"secrets  3 missing secret type",
		}},
		{`{"plugin_metadata":[{"id":"good","wrong":1},{"id":"nope"},{}],"protos":[{"id":"1","content":"}"}]}`, []string{
			"plugin_metadata good 0 invalid configuration: wrong metadata",
			"plugin_metadata nope 1 invalid plugin name",
			"plugin_metadata  2 missing plugin name",
			"protos 1 0 invalid content: line 1: unexpected }",
		}},
		{`{"upstreams":[{"id":"1",` + nodes + `,"tls":{"client_cert_id":"none"}}],"stream_routes":[{"id":"s","server_port":1},{"server_port":"x"}]}`, []string{
			`stream_routes  1 invalid configuration: property "server_port" validation failed: wrong type: expected integer, got string`,
		}},
	} {
		doc := object(t, c.doc)
		var got []string
		for _, e := range ValidateConfigs(doc, fakeEnv{}) {
			got = append(got, fmt.Sprintf("%s %s %d %s", e.ResourceType, e.ResourceID, e.Index, e.Error))
		}
		if strings.Join(got, "\n") != strings.Join(c.want, "\n") {
			t.Errorf("%s:\n got\n%s\n want\n%s", c.doc, strings.Join(got, "\n"), strings.Join(c.want, "\n"))
		}
		if again := object(t, c.doc); fmt.Sprint(again) != fmt.Sprint(doc) {
			t.Errorf("%s: the document was changed", c.doc)
		}
	}
}

func TestFillDefaults(t *testing.T) {
	const rule = `{"properties":{"a":{"default":1},"b":{"properties":{"c":{"default":[]}}},
		"d":{"default":{},"properties":{"e":{"default":"x"}}},"f":{"items":{"properties":{"g":{"default":true}}}}}}`
	for doc, want := range map[string]string{
		`{}`:                          `{"a":1,"d":{"e":"x"}}`,
		`{"a":null,"z":1}`:            `{"a":null,"d":{"e":"x"},"z":1}`,
		`{"b":{},"d":{"e":2}}`:        `{"a":1,"b":{"c":[]},"d":{"e":2}}`,
		`{"b":"text","f":[{},{},5]}`:  `{"a":1,"b":"text","d":{"e":"x"},"f":[{"g":true},{"g":true},5]}`,
		`{"d":[],"f":{"g":false}}`:    `{"a":1,"d":[],"f":{"g":false}}`,
		`{"f":[{"g":false,"a":"b"}]}`: `{"a":1,"d":{"e":"x"},"f":[{"a":"b","g":false}]}`,
	} {
		given := object(t, doc)
		before, _ := Encode(given)
		got, _ := Encode(FillDefaults([]byte(rule), given))
		if string(got) != want {
			t.Errorf("%s: %s", doc, got)
		}
		if after, _ := Encode(given); string(after) != string(before) {
			t.Errorf("%s was changed to %s", doc, after)
		}
	}
	if got := FillDefaults([]byte(`not JSON`), map[string]any{"a": true}); len(got) != 1 {
		t.Errorf("%v", got)
	}
}

func TestMetadataSchema(t *testing.T) {
	raw, ok := MetadataSchema("http-logger")
	if !ok {
		t.Fatal("no schema")
	}
	got, _ := Encode(FillDefaults(raw, object(t, `{"id":"http-logger","log_format":{"host":"$host"}}`)))
	if string(got) != `{"id":"http-logger","log_format":{"host":"$host"},"max_pending_entries":8192}` {
		t.Errorf("%s", got)
	}
	raw[0] = 'x'
	if again, _ := MetadataSchema("http-logger"); again[0] != '{' {
		t.Error("the caller's bytes are the catalogue's")
	}
	if _, ok := MetadataSchema("cors"); ok {
		t.Error("cors is no logger")
	}
	for _, name := range append(batchLoggers[:], "file-logger") {
		if _, ok := KnownPlugin(name); !ok {
			t.Errorf("%s is not known", name)
		}
	}
}

func TestKnownPlugins(t *testing.T) {
	all := KnownPlugins()
	if len(all) != 119 {
		t.Errorf("%d plugins", len(all))
	}
	for i, k := range all {
		if i > 0 && all[i-1].Priority <= k.Priority {
			t.Errorf("%s is out of order", k.Name)
		}
		if priority, ok := KnownPlugin(k.Name); !ok || priority != k.Priority {
			t.Errorf("%s: %d %v", k.Name, priority, ok)
		}
	}
	all[0].Name = "changed"
	if KnownPlugins()[0].Name != "real-ip" {
		t.Error("the caller's list is everybody's")
	}
	if _, ok := KnownPlugin("ai"); ok {
		t.Error("the internal plugin can be named")
	}
	for name, want := range map[string]bool{"prometheus": true, "brotli": false, "gm": false, "traffic-split": true} {
		for _, k := range KnownPlugins() {
			if k.Name == name && k.Default != want {
				t.Errorf("%s: default %v", name, k.Default)
			}
		}
	}
}

func TestSchemaFor(t *testing.T) {
	for _, name := range append(SchemaNames(), "credential", "id_schema", "host_def", "upstream_hash_vars_combinations_schema") {
		raw, ok := SchemaFor(name)
		if !ok || strings.Contains(string(raw), "$ref") {
			t.Errorf("%s: %v", name, ok)
		}
		if name != "id_schema" && object(t, string(raw))["type"] == nil {
			t.Errorf("%s: %s", name, raw)
		}
	}
	for _, name := range []string{"validate", "routes", "", "common", "secret"} {
		if _, ok := SchemaFor(name); ok {
			t.Errorf("%q has a schema", name)
		}
	}
	if raw, _ := SchemaFor("stream_route"); !strings.Contains(string(raw), "server_port") {
		t.Error("stream_route")
	}
}
