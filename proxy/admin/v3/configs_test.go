package v3

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"headgate/conf/store"
	"headgate/proxy"
)

const configsPath = "/apisix/admin/configs"

// putConfigs sends a whole configuration.
func (h *harness) putConfigs(status int, want, digest, body string, headers ...string) answer {
	h.t.Helper()
	return h.want(status, want, "PUT", configsPath, body, append(headers, "X-Digest: "+digest)...)
}

func (h *harness) configs() map[string]any {
	h.t.Helper()
	var doc map[string]any
	if err := json.Unmarshal([]byte(h.want(200, "*", "GET", configsPath, "").body), &doc); err != nil {
		h.t.Fatal(err)
	}
	return doc
}

// all is a document with something under every key.
const all = `{
 "secrets":[{"id":"vault/1","uri":"http://127.0.0.1:8200","prefix":"kv/apisix","token":"t"}],
 "protos":[],
 "plugin_metadata":[{"id":"http-logger","log_format":{"host":"$host"}}],
 "upstreams":[{"id":"u1","nodes":{"127.0.0.1:80":1},"modifiedIndex":7}],
 "services":[{"id":"s1","upstream_id":"u1","hosts":["a.example"]}],
 "plugin_configs":[{"id":"p1","plugins":{"cors":{}}}],
 "consumer_groups":[{"id":"g1","plugins":{"cors":{}}}],
 "consumers":[{"id":"jack/credentials/c1","plugins":{"key-auth":{"key":"k1"}}},{"username":"jack","group_id":"g1"}],
 "global_rules":[{"id":"prometheus","plugins":{"prometheus":{}}}],
 "routes":[{"id":"r1","uri":"/a","service_id":"s1","plugin_config_id":"p1","priority":1.50e1},{"uri":"/b","upstream_id":"u1"}],
 "plugins":[{"name":"cors"}],
 "stream_routes":[]}`

func TestConfigs(t *testing.T) {
	h := start(t)
	a := h.want(200, "*", "GET", configsPath, "")
	if a.header.Get("X-Digest") != "" || a.header.Get("X-Last-Modified") != "" {
		t.Errorf("nothing was put yet:\n%s", a.raw)
	}
	for _, key := range configsMembers {
		if v, ok := h.configs()[key+"_conf_version"]; !ok || v != 0.0 {
			t.Errorf("version of %s: %v", key, v)
		}
	}
	a = h.putConfigs(202, "", "d1", all)
	if a.header.Get("X-Digest") != "d1" || a.header.Get("X-Last-Modified") != "1700000000" {
		t.Errorf("headers\n%s", a.raw)
	}
	h.putConfigs(204, "", "d1", all)
	for key, want := range map[string]string{
		"upstreams/u1":                  `{"id":"u1","nodes":{"127.0.0.1:80":1}}`,
		"consumers/jack":                `{"group_id":"g1","username":"jack"}`,
		"consumers/jack/credentials/c1": `{"id":"c1","plugins":{"key-auth":{"key":"k1"}}}`,
		"routes/r1":                     `{"id":"r1","plugin_config_id":"p1","priority":1.50e1,"service_id":"s1","uri":"/a"}`,
		"routes/arr_2":                  `{"id":"arr_2","upstream_id":"u1","uri":"/b"}`,
		"secrets/vault/1":               `{"id":"vault/1","prefix":"kv/apisix","token":"t","uri":"http://127.0.0.1:8200"}`,
	} {
		if got := h.stored(key); got != want {
			t.Errorf("%s\n got  %s\n want %s", key, got, want)
		}
	}
	doc := h.configs()
	want := map[string]any{}
	if err := json.Unmarshal([]byte(strings.ReplaceAll(all, `,"modifiedIndex":7`, "")), &want); err != nil {
		t.Fatal(err)
	}
	want["routes"].([]any)[1].(map[string]any)["id"] = "arr_2"
	reversed := want["consumers"].([]any)
	want["consumers"] = []any{reversed[1], reversed[0]}
	want["routes"] = []any{want["routes"].([]any)[1], want["routes"].([]any)[0]} // by key
	delete(want, "protos")
	delete(want, "stream_routes")
	for _, key := range configsMembers {
		want[key+"_conf_version"] = 1.0
	}
	want["X-Digest"], want["X-Last-Modified"] = "d1", 1700000000.0
	if !reflect.DeepEqual(doc, want) {
		got, _ := json.Marshal(doc)
		t.Errorf("got %s", got)
	}
	a = h.want(200, "", "HEAD", configsPath, "")
	if a.header.Get("X-Digest") != "d1" || a.header.Get("X-Last-Modified") != "1700000000" {
		t.Errorf("HEAD\n%s", a.raw)
	}
}

func TestConfigsVersions(t *testing.T) {
	h := start(t)
	h.putConfigs(202, "", "1", `{"routes":[{"id":"1","uri":"/a","upstream":{"nodes":{}}}],"upstreams":[{"id":"u","nodes":{}}]}`)
	revision := func(key string) uint64 { item, _ := h.plane.Get(key); return item.ModRevision }
	before := revision("routes/1")
	// The version of routes is the stored one: what the body says about them is not read.
	h.putConfigs(202, "", "2", `{"routes":[{"nonsense":1}],"routes_conf_version":1,"upstreams":[{"id":"u","nodes":{}}]}`)
	if revision("routes/1") != before || revision("upstreams/u") == 0 {
		t.Error("unchanged documents were written again")
	}
	doc := h.configs()
	if doc["routes_conf_version"] != 1.0 || doc["upstreams_conf_version"] != 2.0 || doc["ssls_conf_version"] != 2.0 {
		t.Errorf("versions %v", doc)
	}
	h.putConfigs(202, "", "3", `{"routes_conf_version":15}`)
	if doc := h.configs(); doc["routes_conf_version"] != 15.0 || doc["routes"] != nil || doc["upstreams"] != nil {
		t.Errorf("absent arrays empty their keys: %v", doc)
	}
	invalid := func(text string) string { return `{"error_msg":"` + text + `"}` + "\n" }
	h.putConfigs(400, invalid("routes_conf_version must be greater than or equal to (15)"), "4", `{"routes_conf_version":14}`)
	h.putConfigs(400, invalid("routes_conf_version must be a number"), "4", `{"routes_conf_version":"16"}`)
	h.putConfigs(400, invalid("routes_conf_version must be a whole number of at most 53 bits"), "4", `{"routes_conf_version":16.5}`)
	h.want(400, invalid("missing digest header"), "PUT", configsPath, `{}`)
	h.putConfigs(400, invalid("invalid request body: empty request body"), "4", "")
	h.putConfigs(400, invalid("invalid request body: *"), "4", "{abcd")
	h.putConfigs(400, invalid("invalid request body: expected an object*"), "4", "[1]")
	h.putConfigs(400, invalid("invalid request body: invalid yaml request body: *"), "4", "a: [", "Content-Type: application/yaml")
	if doc := h.configs(); doc["X-Digest"] != "3" {
		t.Errorf("a refused document left its digest: %v", doc["X-Digest"])
	}
}

// All or nothing: a document with one mistake changes nothing, and names it.
func TestConfigsAreRefusedAsAWhole(t *testing.T) {
	h := start(t)
	h.must("PUT", "/apisix/admin/upstreams/u1", `{"nodes":{}}`)
	before := h.stored("upstreams/u1")
	tests := []struct{ name, body, want string }{
		{"schema", `{"upstreams":[{"id":"u2","nodes":{}}],"routes":[{"id":"1","uri":123}]}`,
			`invalid routes at index 0, err: invalid configuration: property \"uri\" validation failed: wrong type: expected string, got number`},
		{"plugin", `{"services":[{"id":"1","plugins":{"nope":{}}}]}`, `invalid services at index 0, err: unknown plugin [nope]`},
		{"twice", `{"routes":[{"id":"1","uri":"/a","upstream":{"nodes":{}}},{"id":1,"uri":"/b","upstream":{"nodes":{}}}]}`,
			`found duplicate id 1 in routes`},
		{"reference to what goes", `{"routes":[{"id":"1","uri":"/a","upstream_id":"u9"}]}`,
			`routes/1: failed to fetch upstream info by upstream id [u9], response code: 404`},
		{"id", `{"routes":[{"id":"a/b","uri":"/a","upstream":{"nodes":{}}}]}`, `invalid routes at index 0, err: *`},
		{"no object", `{"routes":[1]}`, `invalid routes at index 0, err: *`},
		{"consumer without a name", `{"consumers":[{}]}`, `invalid consumers at index 0, err: *`},
		{"stream routes", `{"stream_routes":[{"id":"1"}]}`, streamsOff},
	}
	for _, tt := range tests {
		h.putConfigs(400, `{"error_msg":"`+tt.want+`"}`+"\n", tt.name, tt.body)
		if h.stored("upstreams/u1") != before || len(h.plane.docs) != 1 {
			t.Fatalf("%s changed something: %v", tt.name, h.plane.docs)
		}
	}
	h.plane.fail = func(c proxy.Change) error { return errors.Join(errMedium, store.ErrUnavailable) }
	h.putConfigs(503, "*", "d", `{}`)
}

// A digest stands for what is in force: after a change through another door it is no longer that.
func TestConfigsDigestAfterAnotherDoor(t *testing.T) {
	h := start(t)
	const body = `{"routes":[{"id":"1","uri":"/a","upstream":{"nodes":{}}}]}`
	h.putConfigs(202, "", "d", body)
	h.must("PUT", "/apisix/admin/services/x", `{}`)
	h.advance(time.Second)
	if a := h.putConfigs(202, "", "d", body); a.header.Get("X-Last-Modified") != "1700000001" {
		t.Errorf("headers\n%s", a.raw)
	}
	if h.stored("services/x") != "" {
		t.Error("the document does not ask for the service")
	}
	h.putConfigs(204, "", "d", body)
	// A new process has nothing but the store.
	h.api.ids = ids{}
	h.putConfigs(204, "", "d", body)
}

func TestConfigsMoveIdentities(t *testing.T) {
	h := start(t)
	h.putConfigs(202, "", "1", `{"consumers":[{"username":"a","plugins":{"key-auth":{"key":"k"}}}],"global_rules":[{"id":"1","plugins":{"cors":{}}}]}`)
	h.putConfigs(202, "", "2", `{"consumers":[{"username":"b","plugins":{"key-auth":{"key":"k"}}}],"global_rules":[{"id":"2","plugins":{"cors":{}}}]}`)
	if h.stored("consumers/a") != "" || h.stored("consumers/b") == "" || h.stored("global_rules/2") == "" {
		t.Errorf("stored: %v", h.plane.docs)
	}
	// Documents that others wrote go as well; what is in the configuration file stays, and is not shown.
	h.plane.readOnly = map[string]string{"consumers/b": "consumers/b comes from headgate.toml"}
	h.putConfigs(202, "", "3", `{}`)
	if h.stored("consumers/b") == "" || h.configs()["consumers"] != nil {
		t.Error("a consumer of the file")
	}
	h.putConfigs(400, `{"error_msg":"consumers/b comes from headgate.toml"}`+"\n", "4", `{"consumers":[{"username":"b"}]}`)
}

func TestConfigsLostRace(t *testing.T) {
	h := start(t)
	h.putConfigs(202, "", "1", `{"routes":[{"id":"1","uri":"/a","upstream":{"nodes":{}}}]}`)
	calls := 0
	h.plane.fail = func(c proxy.Change) error {
		if calls++; calls == 1 {
			return store.ErrConflict
		}
		return nil
	}
	h.putConfigs(202, "", "2", `{}`)
	h.plane.fail = func(proxy.Change) error { return store.ErrConflict }
	h.putConfigs(503, `{"error_msg":"value changed before overwritten"}`+"\n", "3", `{}`)
}

func TestConfigsInYAML(t *testing.T) {
	h := start(t)
	const text = "routes:\n  - id: r1\n    uri: /a\n    desc: |\n      two\n      lines\n    name: \"yes\"\n    labels: {v: \"1.0\"}\n    upstream: &u\n" +
		"      nodes:\n        \"127.0.0.1:80\": 1\n  - id: r2\n    uri: /b\n    upstream: *u\n"
	h.putConfigs(202, "", "y", text, "Content-Type: application/yaml; charset=utf-8")
	const want = `{"desc":"two\nlines\n","id":"r1","labels":{"v":"1.0"},"name":"yes","upstream":{"nodes":{"127.0.0.1:80":1}},"uri":"/a"}`
	if got := h.stored("routes/r1"); got != want {
		t.Errorf("got %s", got)
	}
	a := h.want(200, "*", "GET", configsPath, "", "Accept: application/yaml")
	if a.header.Get("Content-Type") != "application/yaml" || a.header.Get("X-Digest") != "y" || strings.HasPrefix(a.body, "---") ||
		!strings.Contains(a.body, "id: r1") {
		t.Errorf("%s\n%s", a.raw, a.body)
	}
	before := h.stored("routes/r1")
	item, _ := h.plane.Get("routes/r1")
	h.putConfigs(202, "", "y2", strings.ReplaceAll(a.body, "_conf_version: 1", "_conf_version: 2"), "Content-Type: application/yaml")
	if again, _ := h.plane.Get("routes/r1"); h.stored("routes/r1") != before || again.ModRevision != item.ModRevision {
		t.Error("what GET shows does not mean what was put")
	}
}

func TestConfigsBodyCap(t *testing.T) {
	h := start(t, func(o *Options) { o.ConfigsMaxBody = readLimit + 1024 })
	h.putConfigs(202, "", "1", `{"x":"`+strings.Repeat("x", readLimit+10)+`"}`)
	h.putConfigs(400, `{"error_msg":"invalid request body: request size * is greater than the maximum size 2098176 allowed"}`+"\n", "2", repeat(readLimit+1025))
	for _, key := range []string{viewerKey, expiredKey, strings.Repeat("w", 40)} { // nobody else makes the server hold that much
		h.key = key
		h.putConfigs(400, `{"error_msg":"invalid request body: request size 2097162 is greater than the maximum size 1572864 allowed"}`+"\n",
			"2", repeat(readLimit+10))
	}
	h.key = adminKey
	h.want(400, `{"error_msg":"invalid request body: *"}`+"\n", "POST", configsPath+"/validate", repeat(MaxBody+1))
}

func TestConfigsPaths(t *testing.T) {
	h := start(t)
	for _, r := range [][2]string{{"POST", configsPath}, {"DELETE", configsPath}, {"GET", configsPath + "/validate"}, {"PUT", configsPath + "/x"}} {
		h.want(404, `{"error_msg":"not found"}`+"\n", r[0], r[1], "")
	}
	h.key = ""
	h.want(401, "*", "HEAD", configsPath, "")
}
