package resource

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"headgate/conf/schema"
)

// fakeEnv has one document of each kind under the id 1 and the consumer jack; ssls/2 is a client certificate. Its plugins: "good", "bad"
// (refuses everything), "auth" (for consumers, found by "key"; its configuration in a route is another one), "known" and "inert". Of
// vars it refuses "=". The key "taken" belongs to jack, "lent" to his credential c1; the global rule 7 has "good".
type fakeEnv struct{ lenient bool }

func (fakeEnv) Exists(key string) bool {
	return strings.HasSuffix(key, "/1") || key == "consumers/jack" || key == "ssls/2"
}

func (fakeEnv) Document(key string) []byte {
	switch key {
	case "ssls/1":
		return []byte(`{"id":"1","sni":"a.example","cert":"c","key":"k"}`)
	case "ssls/2":
		return []byte(`{"id":"2","type":"client","cert":"c","key":"k"}`)
	}
	return nil
}

func (fakeEnv) Plugin(name string) PluginState {
	switch name {
	case "good", "bad", "auth":
		return PluginPresent
	case "known", "http-logger", "serverless-pre-function", "exit-transformer":
		return PluginKnown
	case "inert":
		return PluginInert
	}
	return PluginUnknown
}

func (fakeEnv) IsAuth(name string) bool { return name == "auth" }

func (fakeEnv) CheckPlugin(name string, conf any, use Use) error {
	obj, ok := conf.(map[string]any)
	if !ok || name == "bad" || use == AsMetadata && has(obj, "id") {
		return errors.New("no good")
	}
	if name == "auth" && has(obj, "key") != (use == InConsumer) {
		return errors.New("key is out of place")
	}
	if use == AsMetadata && has(obj, "wrong") {
		return errors.New("wrong metadata")
	}
	return nil
}

func (fakeEnv) CredentialOwner(_ string, conf map[string]any, except string) (attr, owner string) {
	owners := map[any]string{"taken": "consumers/jack", "lent": "consumers/jack/credentials/c1"}
	if owner = owners[conf["key"]]; owner == "" || owner == except {
		return "", ""
	}
	return "key", owner
}

func (fakeEnv) GlobalRuleWith(plugin, except string) string {
	if plugin == "good" && except != "7" {
		return "7"
	}
	return ""
}

func (e fakeEnv) Lenient(name string) bool { return e.lenient && name == "ssl_key_mismatch" }

func (fakeEnv) CheckVars(raw any) error {
	list, ok := raw.([]any)
	if !ok {
		return errors.New("not a list")
	}
	if len(list) > 0 && list[0] == "=" {
		return errors.New("invalid operator '='")
	}
	return nil
}

func object(t testing.TB, text string) map[string]any {
	t.Helper()
	doc, err := schema.DecodeJSON([]byte(text))
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return doc.(map[string]any)
}

func kind(t testing.TB, segment string) Kind {
	t.Helper()
	k, ok := KindOf(segment)
	if !ok {
		t.Fatal(segment)
	}
	return k
}

const (
	nodes    = `"nodes":{"127.0.0.1:80":1}`
	upstream = `"upstream":{` + nodes + `}`
)

func TestValidate(t *testing.T) {
	const bad = "invalid configuration: "
	for _, c := range []struct{ segment, doc, want string }{
		{"routes", `{"uri":"/a",` + upstream + `}`, ""},
		{"routes", `{"uri":"/a","plugins":[]}`, ""},
		{"routes", `{"uri":"/a","upstream_id":1,"service_id":"1","plugin_config_id":"1"}`, ""},
		{"routes", `{}`, bad + "allOf 1 failed: value should match only one schema, but matches none"},
		{"routes", `{"uri":"/a","uris":["/b"],` + upstream + `}`, bad + "allOf 1 failed: value should match only one schema, but matches both schemas 1 and 2"},
		{"routes", `{"host":"a","hosts":["b"],"nonsense":1}`, "only one of host or hosts is allowed"},
		{"routes", `{"remote_addr":"1","remote_addrs":[]}`, "only one of remote_addr or remote_addrs is allowed"},
		{"routes", `{"uri":"/a"}`, bad + `object matches none of the required: ["plugins","uri"] or ["upstream","uri"] or ["upstream_id","uri"]` +
			` or ["service_id","uri"] or ["plugins","uris"] or ["upstream","uris"] or ["upstream_id","uris"] or ["service_id","uris"]` +
			` or ["script","uri"] or ["script","uris"]`},
		{"routes", `{"uri":"/a","name":null,` + upstream + `}`, bad + `property "name" validation failed: wrong type: expected string, got userdata`},
		{"routes", `{"uri":"/a","id":"a b",` + upstream + `}`, bad + `property "id" validation failed: object matches none of the required`},
		{"routes", `{"uri":"/a","id":"$env://HOME",` + upstream + `}`, bad + `property "id" validation failed: object matches none of the required`},
		{"routes", `{"uri":"/a","remote_addr":"$env://HOME",` + upstream + `}`, bad + `property "remote_addr" validation failed: object matches none of the required`},
		{"routes", `{"uri":"/a","remote_addrs":["::/0","1:::/8"],` + upstream + `}`,
			bad + `property "remote_addrs" validation failed: failed to validate item 2: object matches none of the required`},
		{"routes", `{"uri":"/a","remote_addrs":["10.0.0.0/8","2001:db8::/32","::ffff:1.2.3.4"],` + upstream + `}`, ""},
		{"routes", `{"uri":"/a","priority":1e300,` + upstream + `}`, bad + "priority: expected an integer of at most 53 bits"},
		{"routes", `{"uri":"/a","timeout":{"connect":1,"send":1,"read":1e12},` + upstream + `}`,
			bad + "timeout.read: expected a number of seconds between 0 and 1e9"},
		// references come before plugins, in this order
		{"routes", `{"uri":"/a","upstream_id":"u","service_id":"s","plugin_config_id":"p","plugins":{"nope":{}}}`,
			"failed to fetch upstream info by upstream id [u], response code: 404"},
		{"routes", `{"uri":"/a","service_id":"s","plugin_config_id":"p"}`, "failed to fetch service info by service id [s], response code: 404"},
		{"routes", `{"uri":"/a","service_id":1,"plugin_config_id":5.0}`,
			"failed to fetch plugin config info by plugin config id [5], response code: 404"},
		// the inline upstream comes before references
		{"routes", `{"uri":"/a","upstream":{"type":"chash",` + nodes + `},"upstream_id":"u"}`, "missing key"},
		// plugins
		{"routes", `{"uri":"/a","plugins":{"nope":{}},"vars":["="]}`, "unknown plugin [nope]"},
		{"routes", `{"uri":"/a","plugins":{"nope":1}}`, "invalid plugin conf 1 for plugin [nope]"},
		{"routes", `{"uri":"/a","plugins":{"good":null}}`, "invalid plugin conf null for plugin [good]"},
		{"routes", `{"uri":"/a","plugins":{"good":[]}}`, ""},
		{"routes", `{"uri":"/a","plugins":{"good":[1]}}`, "failed to check the configuration of plugin good err: no good"},
		{"routes", `{"uri":"/a","plugins":{"bad":{}}}`, "failed to check the configuration of plugin bad err: no good"},
		{"routes", `{"uri":"/a","plugins":{"bad":{"_meta":{"disable":true}}}}`, ""},
		{"routes", `{"uri":"/a","plugins":{"bad":{"_meta":{"disable":"true"}}}}`, "failed to check the configuration of plugin bad err: no good"},
		{"routes", `{"uri":"/a","plugins":{"good":{"_meta":{"filter":["="]}}}}`, "failed to validate the 'vars' expression: invalid operator '='"},
		{"routes", `{"uri":"/a","plugins":{"good":{"_meta":{"filter":{}}}}}`, ""},
		{"routes", `{"uri":"/a","plugins":{"known":{}}}`, "plugin known is known but not implemented"},
		{"routes", `{"uri":"/a","plugins":{"known":{"_meta":{"disable":true}}}}`, "plugin known is known but not implemented"},
		{"routes", `{"uri":"/a","plugins":{"serverless-pre-function":{"functions":["return 1"]}}}`,
			"plugin serverless-pre-function is known but not implemented: Lua does not run here"},
		{"routes", `{"uri":"/a","plugins":{"exit-transformer":{"functions":["return (function(code, body, header) return 405 end)(...)"]}}}`,
			"plugin exit-transformer is known but not implemented: Lua does not run here"},
		{"routes", `{"uri":"/a","plugins":{"inert":{"any":["thing"],"_meta":{"filter":["="]}}}}`, ""},
		{"routes", `{"uri":"/a","plugins":{"inert":[1]}}`, "invalid plugin conf for plugin [inert]: expected an object"},
		{"routes", `{"uri":"/a","plugins":{"auth":{"key":"x"}}}`, "failed to check the configuration of plugin auth err: key is out of place"},
		{"routes", `{"uri":"/a","script_id":"1","plugins":{}}`, "'script_id' is not supported: Lua does not run here; use 'plugins' instead"},
		{"services", `{"plugins":{"zzz":{},"bad":{}}}`, "failed to check the configuration of plugin bad err: no good"},
		// vars, Lua
		{"routes", `{"uri":"/a","vars":["="],` + upstream + `}`, "failed to validate the 'vars' expression: invalid operator '='"},
		{"routes", `{"uri":"/a","vars":{},` + upstream + `}`, ""},
		{"routes", `{"uri":"/a","filter_func":"function() return true end",` + upstream + `}`,
			"'filter_func' is not supported: Lua does not run here; match requests with 'vars' instead"},
		{"routes", `{"uri":"/a","script":"return {} -- nothing"}`, "'script' is not supported: Lua does not run here; use 'plugins' instead"},
		{"services", `{"script":"return {} -- nothing"}`, "'script' is not supported: Lua does not run here; use 'plugins' instead"},
		{"routes", `{"uri":"/a","script":"return {} -- nothing","plugins":{}}`, bad + "value wasn't supposed to match schema"},
		{"routes", `{"uri":"/a","plugins":{"good":{"_meta":{"pre_function":"return"}}}}`, "failed to check the configuration of plugin good err:" +
			" '_meta.pre_function' is not supported: Lua does not run here; use '_meta.filter' or another plugin instead"},
		// services
		{"services", `{}`, ""},
		{"services", `{"uri":"/a"}`, bad + "additional properties forbidden, found uri"},
		{"services", `{"upstream_id":"x"}`, "failed to fetch upstream info by upstream id [x], response code: 404"},
		{"services", `{"upstream":{"nodes":"x"}}`, bad + `property "upstream" validation failed: property "nodes" validation failed: object matches none of the required`},
		// upstreams
		{"upstreams", `{` + nodes + `}`, ""},
		{"upstreams", `{"nodes":{}}`, ""},
		{"upstreams", `{"nodes":[]}`, ""},
		{"upstreams", `{}`, bad + "value should match only one schema, but matches none"},
		{"upstreams", `{"nodes":"x"}`, bad + `property "nodes" validation failed: object matches none of the required`},
		{"upstreams", `{"nodes":{"a:70000":1}}`, "invalid port 70000"},
		{"upstreams", `{"nodes":{"a:0":1}}`, "invalid port 0"},
		{"upstreams", `{"nodes":{"a:99999999999999999999":1}}`, "invalid port 1e+20"},
		{"upstreams", `{"nodes":{"::1":1}}`, bad + "IPv6 address must be enclosed with '[' and ']'"},
		{"upstreams", `{"nodes":[{"host":"::1","port":80,"weight":1}]}`, bad + "IPv6 address must be enclosed with '[' and ']'"},
		{"upstreams", `{"nodes":[{"host":"a:80","weight":1}]}`, bad + `nodes: invalid node address "a:80"`},
		{"upstreams", `{"nodes":{"a\r\nX-Evil: 1:80":1}}`, bad + `nodes: invalid node address "a\r\nX-Evil: 1"`},
		{"upstreams", `{"nodes":{"":1}}`, bad + "nodes: a node without a host"},
		{"upstreams", `{"nodes":[{"host":"$env://H","weight":1}]}`, bad + `nodes: invalid node address "$env://H"`},
		{"upstreams", `{"nodes":{"a:80":1e300}}`, bad + `nodes: the weight of "a:80" must be an integer of 0 to 2^53`},
		{"upstreams", `{"service_name":"a","discovery_type":"dns"}`, ""},
		{"upstreams", `{` + nodes + `,"discovery_type":"dns"}`, ""},
		{"upstreams", `{` + nodes + `,"pass_host":"rewrite"}`, "`upstream_host` can't be empty when `pass_host` is `rewrite`"},
		{"upstreams", `{` + nodes + `,"pass_host":"rewrite","upstream_host":"a"}`, ""},
		{"upstreams", `{` + nodes + `,"type":"chash"}`, "missing key"},
		{"upstreams", `{` + nodes + `,"type":"chash","key":"arg_a"}`, ""},
		{"upstreams", `{` + nodes + `,"type":"chash","hash_on":"header","key":"a b"}`, bad + `failed to match pattern "^[a-zA-Z0-9-_]+$" with "a b"`},
		{"upstreams", `{` + nodes + `,"type":"chash","hash_on":"consumer"}`, ""},
		{"upstreams", `{` + nodes + `,"type":"chash","hash_on":"vars_combinations","key":"$host"}`, ""},
		{"upstreams", `{` + nodes + `,"tls":{"client_cert_id":"x"}}`, "failed to fetch ssl info by ssl id [x], response code: 404"},
		{"upstreams", `{` + nodes + `,"tls":{"client_cert_id":1}}`, "failed to fetch ssl info by ssl id [1], wrong ssl type"},
		{"upstreams", `{` + nodes + `,"tls":{"client_cert_id":2}}`, ""},
		{"upstreams", `{` + nodes + `,"tls":{"client_cert":"` + strings.Repeat("c", 128) + `","client_key":"` + strings.Repeat("k", 64) + `"}}`,
			"failed to parse cert: PEM_read_bio_X509_AUX() failed"},
		{"upstreams", `{` + nodes + `,"tls":{"client_cert":"$secret://a","client_key":"$env://K"}}`, ""},
		{"upstreams", `{` + nodes + `,"checks":{"active":{"healthy":{"interval":1}},"passive":{}}}`, ""},
		{"upstreams", `{` + nodes + `,"checks":{"active":{"http_statuses":[1]},"zzz":1}}`, bad + `property "checks" validation failed: additional properties forbidden, found zzz`},
	} {
		doc := object(t, c.doc)
		before, _ := Encode(doc)
		got := ""
		if err := Validate(kind(t, c.segment), "", doc, fakeEnv{}); err != nil {
			got = err.Msg
			if err.Status != 400 {
				t.Errorf("%s: status %d", c.doc, err.Status)
			}
		}
		if got != c.want {
			t.Errorf("%s %s\n got  %s\n want %s", c.segment, c.doc, got, c.want)
		}
		if after, _ := Encode(doc); string(after) != string(before) {
			t.Errorf("%s: Validate changed the document to %s", c.doc, after)
		}
	}
}

func TestValidateID(t *testing.T) {
	doc := object(t, `{"uri":"/a",`+upstream+`}`)
	if err := Validate(kind(t, "routes"), "a/b", doc, fakeEnv{}); err == nil {
		t.Error("an id with a slash passed")
	}
	for _, id := range []string{"a.b-c_D1", "...", ".a", "..a"} {
		if err := Validate(kind(t, "routes"), id, doc, fakeEnv{}); err != nil {
			t.Errorf("%s: %v", id, err)
		}
	}
	// No URL reaches them: they are path segments with a meaning of their own (RFC 3986 section 5.2.4).
	const want = `invalid configuration: property "id" validation failed: object matches none of the required`
	for _, id := range []string{".", ".."} {
		if err := Validate(kind(t, "routes"), id, doc, fakeEnv{}); err == nil || err.Status != 400 || err.Msg != want {
			t.Errorf("path id %q: %v", id, err)
		}
		if err := Validate(kind(t, "routes"), "", object(t, `{"id":"`+id+`","uri":"/a",`+upstream+`}`), fakeEnv{}); err == nil || err.Msg != want {
			t.Errorf("body id %q: %v", id, err)
		}
	}
}

func TestValidateUpstream(t *testing.T) {
	if err := ValidateUpstream(object(t, `{`+nodes+`,"tls":{"client_cert_id":"unknown"}}`)); err != nil {
		t.Error(err)
	}
	for doc, want := range map[string]string{
		`{"type":"roundrobin"}`: "invalid configuration: value should match only one schema, but matches none",
		`{"nodes":{"a:0":1}}`:   "invalid port 0",
	} {
		if err := ValidateUpstream(object(t, doc)); err == nil || err.Msg != want {
			t.Errorf("%s: %v", doc, err)
		}
	}
}

// The upstream inside a plugin's configuration is judged by the plugin's own schema.
func TestSchemaRefs(t *testing.T) {
	s, err := schema.Compile("traffic-split", []byte(`{"properties":{"rules":{"items":{"properties":{"weighted_upstreams":{"items":`+
		`{"properties":{"upstream":{"$ref":"upstream.json"}}}}}}}}}`), SchemaRefs()...)
	if err != nil {
		t.Fatal(err)
	}
	err = s.Validate(object(t, `{"rules":[{"weighted_upstreams":[{"upstream":{"type":"roundrobin"}}]}]}`))
	const want = `property "rules" validation failed: failed to validate item 1: property "weighted_upstreams" validation failed: ` +
		`failed to validate item 1: property "upstream" validation failed: value should match only one schema, but matches none`
	if err == nil || err.Error() != want {
		t.Errorf("got %v", err)
	}
}

func TestSchemaJSON(t *testing.T) {
	for _, k := range Kinds() {
		raw := k.SchemaJSON()
		if k.Segment == "plugin_metadata" || k.Segment == "secrets" {
			if raw != nil {
				t.Errorf("%s: no single schema could be right, got %s", k.Word, raw)
			}
			continue
		}
		if strings.Contains(string(raw), "$ref") {
			t.Errorf("%s: a reference is left", k.Word)
		}
		var doc struct{ Properties map[string]json.RawMessage }
		if err := json.Unmarshal(raw, &doc); err != nil || len(doc.Properties["id"]) == 0 {
			t.Errorf("%s: %v", k.Word, err)
		}
	}
	if err := CheckSchema(kind(t, "routes"), nil); err == nil || err.Error() != "wrong type: expected object, got nil" {
		t.Error(err)
	}
}

func TestKinds(t *testing.T) {
	kinds := Kinds()
	for i, k := range kinds {
		if i > 0 && kinds[i-1].Segment >= k.Segment {
			t.Errorf("%s is out of order", k.Segment)
		}
		if got, ok := KindOf(k.Segment); !ok || got != k {
			t.Errorf("%s not found", k.Segment)
		}
	}
	if _, ok := KindOf("route"); ok {
		t.Error("the word is not the segment")
	}
}

func TestCheckBody(t *testing.T) {
	for _, c := range []struct {
		verb, body, want string
	}{
		{"PUT", "", "missing configurations"},
		{"POST", "", "missing configurations"},
		{"PATCH", "", "missing new configuration"},
		{"PATCH", `"x"`, "invalid configuration"},
		{"PATCH", `5`, "invalid configuration"},
		{"PATCH", `null`, "invalid configuration"},
		{"PATCH", `[1]`, "invalid configuration: wrong type: expected object, got table"},
		{"PUT", `"x"`, "invalid configuration: wrong type: expected object, got string"},
		{"PUT", `1`, "invalid configuration: wrong type: expected object, got number"},
		{"PUT", `null`, "invalid configuration: wrong type: expected object, got userdata"},
		{"PUT", `true`, "invalid configuration: wrong type: expected object, got boolean"},
		{"PUT", `{}`, ""},
		{"PATCH", `[]`, ""},
	} {
		var doc any
		if c.body != "" {
			var err error
			if doc, err = schema.DecodeJSON([]byte(c.body)); err != nil {
				t.Fatal(err)
			}
		}
		obj, err := CheckBody(c.verb, doc, c.body != "")
		got := ""
		if err != nil {
			got = err.Msg
		} else if obj == nil {
			t.Errorf("%s %s: no object", c.verb, c.body)
		}
		if got != c.want {
			t.Errorf("%s %s: got %q want %q", c.verb, c.body, got, c.want)
		}
	}
}

func TestCheckID(t *testing.T) {
	for _, c := range []struct {
		verb, path, body string // body "-": none
		id, stored, want string
	}{
		{"PUT", "1", `{}`, "1", `{"id":"1"}`, ""},
		{"PUT", "7", `{"id":7}`, "7", `{"id":"7"}`, ""},
		{"PUT", "7", `{"id":7.0}`, "7", `{"id":"7"}`, ""},
		{"PUT", "", `{"id":7}`, "7", `{"id":7}`, ""},
		{"PUT", "", `{"id":"b1"}`, "b1", `{"id":"b1"}`, ""},
		{"PUT", "1", `{"id":"2"}`, "", "", "wrong route id"},
		{"PUT", "", `{}`, "", "", "missing route id"},
		{"POST", "1", `{}`, "", "", "wrong route id, do not need it"},
		{"POST", "", `{"id":"1"}`, "", "", "wrong route id, do not need it"},
		{"POST", "", `{}`, "", `{}`, ""},
		{"PATCH", "", `{}`, "", "", "missing route id"},
		{"PATCH", "1", `{"id":"2"}`, "", "", "wrong route id"},
		{"PATCH", "1", `{"id":1}`, "1", `{"id":"1"}`, ""},
		{"DELETE", "", "-", "", "", "missing route id"},
		{"DELETE", "1", "-", "1", "", ""},
	} {
		var doc map[string]any
		if c.body != "-" {
			doc = object(t, c.body)
		}
		id, err := CheckID(kind(t, "routes"), c.verb, c.path, doc)
		got := ""
		if err != nil {
			got = err.Msg
		}
		if id != c.id || got != c.want {
			t.Errorf("%s %q %s: id %q %q, want %q %q", c.verb, c.path, c.body, id, got, c.id, c.want)
		}
		if raw, _ := Encode(doc); c.stored != "" && string(raw) != c.stored {
			t.Errorf("%s %q %s: stored %s", c.verb, c.path, c.body, raw)
		}
	}
}

func TestCheckTimes(t *testing.T) {
	for doc, want := range map[string]string{
		`{"create_time":1}`:              "the property is forbidden:  create_time",
		`{"update_time":1}`:              "the property is forbidden:  update_time",
		`{"upstream":{"create_time":1}}`: "the property is forbidden:  upstream.create_time",
		`{"plugins":{"update_time":1}}`:  "the property is forbidden:  plugins.update_time",
		`{"upstream":[],"plugins":{}}`:   "",
	} {
		got := ""
		if err := CheckTimes(object(t, doc)); err != nil {
			got = err.Msg
		}
		if got != want {
			t.Errorf("%s: %q", doc, got)
		}
	}
}

type fakeDocs map[string][]string // "routes": {`1 {...}`}

func (d fakeDocs) Range(kind string, f func(string, []byte) bool) {
	for _, line := range d[kind] {
		id, doc, _ := strings.Cut(line, " ")
		if !f(kind+"/"+id, []byte(doc)) {
			return
		}
	}
}

func TestCheckUnused(t *testing.T) {
	const split = `{"plugins":{"traffic-split":{"rules":[{},{"weighted_upstreams":[{"weight":1},{"upstream_id":1}]}]}}}`
	for _, c := range []struct {
		segment string
		docs    fakeDocs
		want    string
	}{
		{"upstreams", fakeDocs{"routes": {`a {"upstream_id":"2"}`, `b {"upstream_id":1}`, `c {"upstream_id":1}`}},
			"can not delete this upstream, route [b] is still using it now"},
		{"upstreams", fakeDocs{"services": {`s {"upstream_id":"1"}`}, "routes": {"r " + split}},
			"can not delete this upstream, service [s] is still using it now"},
		{"upstreams", fakeDocs{"routes": {"r " + split}}, "can not delete this upstream, plugin in route [r] is still using it now"},
		{"upstreams", fakeDocs{"services": {"s " + split}}, "can not delete this upstream, plugin in service [s] is still using it now"},
		{"upstreams", fakeDocs{"consumer_groups": {"g " + split}}, "can not delete this upstream, plugin in consumer_group [g] is still using it now"},
		{"upstreams", fakeDocs{"global_rules": {"1 " + split}}, "can not delete this upstream, plugin in global_rules [1] is still using it now"},
		{"upstreams", fakeDocs{"routes": {`r {"up\u0073tream_id":"1"}`}}, "can not delete this upstream, route [r] is still using it now"},
		{"upstreams", fakeDocs{"routes": {`r {"upstream_id":"11"}`, `s {"upstream_id`, `t {"name":"upstream_id"}`}}, ""},
		{"upstreams", fakeDocs{"routes": {`r {"plugins":{"traffic-split":{"rules":[{"weight":1,"upstream_id":"1"}]}}}`}},
			"can not delete this upstream, plugin in route [r] is still using it now"},
		{"services", fakeDocs{"routes": {`r {"service_id":"1"}`}}, "can not delete this service directly, route [r] is still using it now"},
		{"services", fakeDocs{"routes": {`r {"upstream_id":"1"}`}}, ""},
		{"routes", fakeDocs{"routes": {`r {"service_id":"1"}`}}, ""},
	} {
		got := ""
		if err := CheckUnused(kind(t, c.segment), "1", c.docs); err != nil {
			got = err.Msg
		}
		if got != c.want {
			t.Errorf("%s %v: got %q want %q", c.segment, c.docs, got, c.want)
		}
	}
}
