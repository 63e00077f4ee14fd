package resource

import (
	"strings"
	"testing"
)

func TestValidateKinds(t *testing.T) {
	const bad = "invalid configuration: "
	const badPlugins = "invalid plugins configuration: "
	for _, c := range []struct{ segment, id, doc, want string }{
		{"consumers", "", `{"username":"jill"}`, ""},
		{"consumers", "jill", `{"username":"jill","plugins":{"auth":{"key":"k"},"good":{}},"group_id":1,"labels":{"custom_id":"7"}}`, ""},
		{"consumers", "jill", `{"username":"` + strings.Repeat("j", 256) + `"}`, "wrong username"},
		{"consumers", "jill", `{"username":"jack","plugins":{"nope":{}}}`, "wrong username"},
		{"consumers", "jill", `{"username":"jack","plugins":1}`, bad + `property "plugins" validation failed: wrong type: expected object, got number`},
		{"consumers", "", `{"username":"$env://NAME"}`, bad + `property "username" validation failed: expected a name, not a reference`},
		{"consumers", "", `{"username":"jill","id":"$env://NAME"}`, bad + `property "id" validation failed: object matches none of the required`},
		{"consumers", "", `{"username":"jill","plugins":{"auth":{}}}`, badPlugins + "failed to check the configuration of plugin auth err: key is out of place"},
		{"consumers", "", `{"username":"jill","plugins":{"known":{}}}`, badPlugins + "plugin known is known but not implemented"},
		{"consumers", "", `{"username":"jill","plugins":{"inert":{"key":"taken"}}}`, ""},
		{"consumers", "", `{"username":"jill","plugins":{"auth":{"key":"taken"}},"group_id":"none"}`, "duplicate key of plugin auth found with consumer: jack"},
		{"consumers", "", `{"username":"jill","plugins":{"auth":{"key":"lent"}}}`, "duplicate key of plugin auth found with credential: c1 of consumer: jack"},
		{"consumers", "", `{"username":"jack","plugins":{"auth":{"key":"taken"}}}`, ""},
		{"consumers", "", `{"username":"jack","plugins":{"auth":{"key":"lent"}}}`, "duplicate key of plugin auth found with credential: c1 of consumer: jack"},
		{"consumers", "", `{"username":"jill","group_id":"none"}`, "failed to fetch consumer group info by consumer group id [none], response code: 404"},

		{"credentials", "jack/credentials/c1", `{"id":"c1","plugins":{"auth":{"key":"lent"}}}`, ""},
		{"credentials", "jack/credentials/c1", `{"id":"jack/credentials/c1"}`, ""},
		{"credentials", "jack/credentials/c2", `{"plugins":{"auth":{"key":"lent"}}}`, "duplicate key of plugin auth found with credential: c1 of consumer: jack"},
		{"credentials", "jill/credentials/c2", `{"plugins":{"auth":{"key":"taken"}}}`, "duplicate key of plugin auth found with consumer: jack"},
		{"credentials", "jill/credentials/c2", `{"plugins":{"auth":{"key":"k"}}}`, "consumer not found"},
		{"credentials", "jack/credentials/c1", `{"plugins":{"good":{}}}`, "only supports auth type plugins in consumer credential"},
		{"credentials", "jack/credentials/c1", `{"plugins":{"bad":{}}}`, badPlugins + "failed to check the configuration of plugin bad err: no good"},
		{"credentials", "jack/credentials/c1", `{"plugins":{"inert":{}}}`, ""},
		{"credentials", "jack/credentials/c1", `{"plugins":{"auth":{},"good":{}}}`,
			bad + `property "plugins" validation failed: expect object to have at most 1 properties`},
		{"credentials", "jack/credentials/a b", `{}`, bad + `property "id" validation failed: object matches none of the required`},
		{"credentials", "ja ck/credentials/a", `{}`, bad + `property "id" validation failed: object matches none of the required`},
		{"credentials", "jack/credentials/..", `{"id":".."}`, bad + `property "id" validation failed: object matches none of the required`},

		{"consumer_groups", "1", `{"id":"1","plugins":{"good":{}},"name":"n"}`, ""},
		{"consumer_groups", "1", `{"plugins":{}}`, bad + `property "id" is required`},
		{"consumer_groups", "1", `{"id":"1","plugins":{"bad":{}}}`, "failed to check the configuration of plugin bad err: no good"},
		{"consumer_groups", "1", `{"id":"1","plugins":{"auth":{"key":"k"}}}`, "failed to check the configuration of plugin auth err: key is out of place"},
		{"plugin_configs", "1", `{"id":"1","plugins":{"good":{}}}`, ""},
		{"plugin_configs", "1", `{"id":"1","plugins":{"nope":{}}}`, "unknown plugin [nope]"},
		{"global_rules", "7", `{"id":"7","plugins":{"good":{}}}`, ""},
		{"global_rules", "8", `{"id":"8","plugins":{"good":{}}}`, "plugin 'good' already exists in global rule with id '7'"},
		{"global_rules", "8", `{"id":"8","plugins":{"good":{},"known":{}}}`, "plugin known is known but not implemented"},
		{"global_rules", "8", `{"id":"8","plugins":{},"name":"n"}`, bad + "additional properties forbidden, found name"},

		{"plugin_metadata", "good", `{"id":"good","any":1}`, ""},
		{"plugin_metadata", "good", `{"wrong":1}`, bad + "wrong metadata"},
		{"plugin_metadata", "known", `{"any":[1]}`, ""},
		{"plugin_metadata", "inert", `{}`, ""},
		{"plugin_metadata", "http-logger", `{"id":"http-logger","log_format":{"host":"$host"},"max_pending_entries":1}`, ""},
		{"plugin_metadata", "http-logger", `{"max_pending_entries":0}`, bad + `property "max_pending_entries" validation failed: expected 0 to be at least 1`},
		{"plugin_metadata", "nope", `{}`, "invalid plugin name"},
		{"plugin_metadata", "", `{}`, "missing plugin name"},

		{"secrets", "vault/1", `{"uri":"https://[::1]:8200","prefix":"kv","token":"$env://TOKEN","id":"vault/1"}`, ""},
		{"secrets", "aws/1", `{"access_key_id":"a","secret_access_key":"b"}`, ""},
		{"secrets", "aws/1", `{"access_key_id":"a"}`, bad + `property "secret_access_key" is required`},
		{"secrets", "gcp/1", `{"auth_file":"/f"}`, ""},
		{"secrets", "gcp/1", `{}`, bad + "value should match only one schema, but matches none"},
		{"secrets", "gcp/1", `{"auth_file":"/f","auth_config":{"client_email":"a","private_key":"b","project_id":"c"}}`,
			bad + "value should match only one schema, but matches both schemas 1 and 2"},
		{"secrets", "vault/a b", `{"uri":"http://a","prefix":"kv","token":"t"}`, bad + `property "id" validation failed: object matches none of the required`},
		{"secrets", "hermes/1", `{}`, "invalid secret manager: hermes"},
		{"secrets", "", `{}`, "missing secret type"},

		{"ssls", "1", `{"sni":"a.com","cert":"x","key":"y"}`, bad + `property "key" validation failed: string too short, expected at least 64, got 1`},
		{"ssls", "1", `{"sni":"a.com","cert":"x","key":"$env://KEY"}`, bad + `property "cert" validation failed: string too short, expected at least 128, got 1`},
		{"ssls", "1", `{"sni":"a.com","cert":"x"}`, bad + `property "cert" validation failed: string too short, expected at least 128, got 1`},

		{"protos", "1", `{"content":"syntax = \"proto3\";"}`, ""},
		{"protos", "1", `{"content":""}`, bad + `property "content" validation failed: string too short, expected at least 1, got 0`},
		{"protos", "1", `{"content":"{"}`, "invalid content: line 1: unexpected {"},
	} {
		doc := object(t, c.doc)
		before, _ := Encode(doc)
		got := ""
		if err := Validate(kind(t, c.segment), c.id, doc, fakeEnv{}); err != nil {
			got = err.Msg
			want := 400
			if got == "consumer not found" {
				want = 404
			}
			if err.Status != want {
				t.Errorf("%s %s %s: status %d", c.segment, c.id, c.doc, err.Status)
			}
		}
		if got != c.want {
			t.Errorf("%s %s %s:\n got  %s\n want %s", c.segment, c.id, c.doc, got, c.want)
		}
		if after, _ := Encode(doc); string(after) != string(before) {
			t.Errorf("%s %s: the document was changed to %s", c.segment, c.doc, after)
		}
	}
}

func TestKeys(t *testing.T) {
	for key, want := range map[string]string{ // segment and id; empty: no key
		"routes/1":                          "routes 1",
		"ssls/a.b":                          "ssls a.b",
		"consumers/jack":                    "consumers jack",
		"consumers/jack/credentials/c1":     "credentials jack/credentials/c1",
		"secrets/vault/v1":                  "secrets vault/v1",
		"plugin_metadata/cors":              "plugin_metadata cors",
		"consumers/credentials/credentials": "",
		"consumers/jack/credentials":        "",
		"consumers/jack/credentials/":       "",
		"consumers/jack/credentials/c1/x":   "",
		"consumers//credentials/c1":         "",
		"credentials/c1":                    "",
		"credentials/jack/credentials/c1":   "",
		"secrets/vault":                     "",
		"secrets/vault/v1/x":                "",
		"routes":                            "",
		"routes/":                           "",
		"routes/1/2":                        "",
		"stream_routes/1":                   "",
		"":                                  "",
	} {
		got := ""
		if k, id, ok := ParseKey(key); ok {
			got = k.Segment + " " + id
			if k.Key(id) != key {
				t.Errorf("%s comes back as %s", key, k.Key(id))
			}
		}
		if got != want {
			t.Errorf("%s: got %q want %q", key, got, want)
		}
	}
}

func TestKindValidID(t *testing.T) {
	long := strings.Repeat("a", 65)
	for _, c := range []struct {
		segment, id string
		want        bool
	}{
		{"routes", "1", true}, {"routes", long, false}, {"routes", "..", false}, {"routes", "a/b", false}, {"routes", "", false},
		{"consumers", long, true}, {"consumers", "a.b", false}, {"consumers", "", false}, {"consumers", strings.Repeat("a", 257), false},
		{"credentials", "jack/credentials/c.1", true}, {"credentials", "c1", false}, {"credentials", "jack/credentials/", false},
		{"credentials", "ja.ck/credentials/c1", false}, {"credentials", "jack/credentials/" + long, false},
		{"secrets", "vault/1", true}, {"secrets", "hermes/1", false}, {"secrets", "vault", false}, {"secrets", "vault/", false},
	} {
		if got := kind(t, c.segment).ValidID(c.id); got != c.want {
			t.Errorf("%s %q: %v", c.segment, c.id, got)
		}
	}
}

func TestCheckIDOfKinds(t *testing.T) {
	for _, c := range []struct {
		segment, verb, path, body string // body "-": none
		id, stored, want          string
	}{
		{"consumers", "PUT", "", `{"username":"jack"}`, "jack", `{"username":"jack"}`, ""},
		{"consumers", "PUT", "jack", `{"username":"jill"}`, "jack", `{"username":"jill"}`, ""}, // Validate refuses it
		{"consumers", "PUT", "", `{}`, "", `{}`, ""},
		{"consumers", "PUT", "", `{"username":"a","id":"a"}`, "a", `{"id":"a","username":"a"}`, ""},
		{"consumers", "DELETE", "", "-", "", "", "missing consumer id"},
		{"consumers", "DELETE", "jack", "-", "jack", "", ""},
		{"credentials", "PUT", "jack/credentials/c1", `{}`, "jack/credentials/c1", `{"id":"c1"}`, ""},
		{"credentials", "PUT", "jack/credentials/c1", `{"id":"jack/credentials/c1"}`, "jack/credentials/c1", `{"id":"c1"}`, ""},
		{"credentials", "PUT", "jack/credentials/c1", `{"id":"jill/credentials/c1"}`, "", "", "wrong credential id"},
		{"credentials", "PUT", "jack/credentials", `{"id":"c1"}`, "jack/credentials/c1", `{"id":"c1"}`, ""},
		{"credentials", "PUT", "jack/credentials", `{}`, "", "", "missing credential id"},
		{"credentials", "PUT", "jack/credentials/c1", `{"id":"c2"}`, "", "", "wrong credential id"},
		{"credentials", "DELETE", "jack/credentials", "-", "", "", "missing credential id"},
		{"credentials", "DELETE", "jack/credentials/c1", "-", "jack/credentials/c1", "", ""},
		{"secrets", "PUT", "vault/v1", `{}`, "vault/v1", `{"id":"vault/v1"}`, ""},
		{"secrets", "PUT", "vault/v1", `{"id":"v1"}`, "vault/v1", `{"id":"vault/v1"}`, ""},
		{"secrets", "PUT", "vault/v1", `{"id":"vault/v1"}`, "vault/v1", `{"id":"vault/v1"}`, ""},
		{"secrets", "PUT", "vault/v1", `{"id":"aws/v1"}`, "", "", "wrong secret id"},
		{"secrets", "PUT", "vault", `{"id":1}`, "vault/1", `{"id":"vault/1"}`, ""},
		{"secrets", "PUT", "vault", `{}`, "", "", "missing secret id"},
		{"secrets", "PUT", "", `{}`, "", "", "missing secret type"},
		{"secrets", "PATCH", "vault", "-", "", "", "no secret id"},
		{"secrets", "DELETE", "vault", "-", "", "", "missing secret id"},
		{"secrets", "DELETE", "vault/v1", "-", "vault/v1", "", ""},
		{"plugin_metadata", "PUT", "cors", `{"id":"x"}`, "cors", `{"id":"cors"}`, ""},
		{"plugin_metadata", "PUT", "", `{"id":"cors"}`, "", "", "missing plugin name"},
		{"plugin_metadata", "DELETE", "", "-", "", "", "missing plugin_metadata id"},
		{"global_rules", "PUT", "", `{}`, "", "", "missing global rule id"},
		{"global_rules", "PUT", "1", `{}`, "1", `{"id":"1"}`, ""},
	} {
		var doc map[string]any
		if c.body != "-" {
			doc = object(t, c.body)
		}
		id, err := CheckID(kind(t, c.segment), c.verb, c.path, doc)
		got := ""
		if err != nil {
			got = err.Msg
		}
		if id != c.id || got != c.want {
			t.Errorf("%s %s %q %s: id %q %q, want %q %q", c.segment, c.verb, c.path, c.body, id, got, c.id, c.want)
		}
		if raw, _ := Encode(doc); c.stored != "" && string(raw) != c.stored {
			t.Errorf("%s %s %q %s: stored %s", c.segment, c.verb, c.path, c.body, raw)
		}
	}
}

func TestInUseKinds(t *testing.T) {
	for _, c := range []struct {
		segment string
		docs    fakeDocs
		want    string
	}{
		{"plugin_configs", fakeDocs{"routes": {`r {"plugin_config_id":1}`}}, "can not delete this plugin config, route [r] is still using it now"},
		{"plugin_configs", fakeDocs{"routes": {`r {"plugin_config_id":"2"}`}}, ""},
		{"consumer_groups", fakeDocs{"consumers": {`jack {"group_id":"1"}`}}, "can not delete this consumer group, consumer [jack] is still using it now"},
		{"consumer_groups", fakeDocs{"consumers": {`jack/credentials/c1 {"group_id":"1"}`}}, ""},
		{"protos", fakeDocs{"routes": {`r {"plugins":{"grpc-transcode":{"proto_id":1}}}`}}, "can not delete this proto, route [r] is still using it now"},
		{"protos", fakeDocs{"services": {`s {"plugins":{"grpc-transcode":{"proto_id":"1"}}}`}}, "can not delete this proto, service [s] is still using it now"},
		{"protos", fakeDocs{"routes": {`r {"plugins":{"grpc-transcode":{"proto_id":"2"},"other":{"proto_id":"1"}}}`}}, ""},
		{"ssls", fakeDocs{"upstreams": {`u {"tls":{"client_cert_id":1}}`}}, "can not delete this ssl, upstream [u] is still using it now"},
		{"ssls", fakeDocs{"services": {`s {"upstream":{"tls":{"client_cert_id":"1"}}}`}}, "can not delete this ssl, service [s] is still using it now"},
		{"ssls", fakeDocs{"upstreams": {`u {"tls":{"client_cert_id":"2"}}`}}, ""},
		{"global_rules", fakeDocs{"routes": {`r {"plugin_config_id":"1","service_id":"1","upstream_id":"1"}`}}, ""},
		{"upstreams", fakeDocs{"plugin_configs": {`p {"plugins":{"traffic-split":{"rules":[{"weighted_upstreams":[{"upstream_id":1}]}]}}}`}},
			"can not delete this upstream, plugin in plugin_config [p] is still using it now"},
		{"upstreams", fakeDocs{"consumers": {`jack {"plugins":{"traffic-split":{"rules":[{"weighted_upstreams":[{"upstream_id":1}]}]}}}`}},
			"can not delete this upstream, plugin in consumer [jack] is still using it now"},
	} {
		got := ""
		if err := CheckUnused(kind(t, c.segment), "1", c.docs); err != nil {
			got = err.Msg
		}
		if got != c.want {
			t.Errorf("%s %v:\n got  %s\n want %s", c.segment, c.docs, got, c.want)
		}
	}
}
