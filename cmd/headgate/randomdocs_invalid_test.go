package main

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
)

// required are the members without which a document of a kind is not complete.
var required = map[string][]string{
	"upstreams": {"nodes"}, "plugin_configs": {"plugins"}, "consumer_groups": {"plugins"}, "global_rules": {"plugins"}, "consumers": {"username"},
	"ssls": {"cert", "key"}, "protos": {"content"}, "vault": {"uri", "prefix", "token"}, "aws": {"access_key_id", "secret_access_key"}, "gcp": {"auth_file"},
}

// open are kinds whose documents may have members that nobody knows.
var open = map[string]bool{"secrets": true, "plugin_metadata": true}

// references are members that name another document.
var references = map[string][]string{
	"services": {"upstream_id"}, "routes": {"upstream_id", "service_id", "plugin_config_id"}, "consumers": {"group_id"},
}

// wrongPlugins are what no document of the kind may have for its plugins; nil when it has none.
func wrongPlugins(kind string) []object {
	switch kind {
	case "credentials":
		return []object{{"cors": object{}}, {"key-auth": object{}}, {"key-auth": object{"key": json.Number("7")}}}
	case "routes", "services", "plugin_configs", "consumer_groups", "global_rules", "consumers":
	default:
		return nil
	}
	return []object{
		{"no-such-plugin": object{}},
		{"serverless-pre-function": object{"functions": []any{"return function() end"}}},
		{"limit-count": object{"count": json.Number("2")}},
		{"limit-count": object{"count": json.Number("0"), "time_window": json.Number("60")}},
		{"limit-count": object{"count": json.Number("2"), "time_window": json.Number("60"), "rejected_code": json.Number("99")}},
		{"limit-req": object{"rate": "1", "burst": json.Number("1"), "key": "remote_addr"}},
		{"ip-restriction": object{"whitelist": []any{"300.1.1.1"}}},
		{"ip-restriction": object{}},
		{"redirect": object{"uri": "/a", "http_to_https": true}},
		{"fault-injection": object{"abort": object{"http_status": json.Number("100")}}},
		{"proxy-rewrite": object{"regex_uri": []any{"^/(", "/x"}}},
		{"ua-restriction": object{"denylist": []any{}, "allowlist": []any{"a"}}},
		{"traffic-split": object{"rules": []any{object{"weighted_upstreams": []any{object{"weight": json.Number("-1")}}}}}},
		{"traffic-split": object{"rules": []any{object{"match": []any{object{"vars": []any{[]any{"a", "=", "b"}}}}}}}},
		{"cors": object{"max_age": "5"}},
		{"key-auth": "on"},
		{"key-auth": object{"_meta": object{"no_such": true}}},
		{"key-auth": object{"_meta": object{"filter": []any{[]any{"a", "=", "b"}}}}},
	}
}

// invalid makes a request that has to be refused: a valid one with one mistake in it.
func (s *randomSession) invalid(kind, id string) {
	r := s.docs
	key := keyOf(kind, id)
	doc := r.valid(kind, id)
	path, owner := "/"+key, kind
	if kind == "secrets" {
		owner = id[:strings.IndexByte(id, '/')]
	}
	put := func(why string) { s.refused(why, "PUT", path, encoded(s.t, doc), key) }
	members := required[owner]
	referring := references[kind]
	switch n := r.IntN(11); {
	case n == 0 && len(members) > 0:
		delete(doc, members[r.IntN(len(members))])
		put("a required member is missing")
	case n == 1 || n == 2:
		names := slices.Sorted(maps.Keys(doc))
		name := names[r.IntN(len(names))]
		if doc[name] = wrongType(doc[name]); name == "id" {
			doc[name] = object{}
		}
		put("a member has another type")
	case n == 3 && !open[kind]:
		doc["no_such_member"] = json.Number("1")
		put("an unknown member")
	case n == 4 && len(referring) > 0:
		doc[referring[r.IntN(len(referring))]] = r.one("missing", "no-such", "fixed")
		put("a reference to nothing")
	case (n == 5 || n == 6) && wrongPlugins(kind) != nil:
		wrong := wrongPlugins(kind)
		doc["plugins"] = wrong[r.IntN(len(wrong))]
		put("a wrong plugin")
	case n == 7 && kind != "plugin_metadata":
		doc[r.one("create_time", "update_time")] = json.Number("1700000000")
		put("a time of creation")
	case n == 8:
		body := encoded(s.t, doc)
		cut := 1 + r.IntN(len(body)-2) // of the text and a newline: never the whole object
		s.refused("a body that is cut off", "PUT", path, body[:cut], key)
	case n == 9:
		s.wrongID(kind, id, doc)
	case n == 10 && (kind == "consumers" || kind == "credentials") && s.identityOfAnother(key) != nil:
		doc["plugins"] = s.identityOfAnother(key)
		put("an identity of another consumer")
	default:
		s.refused("no object", "PUT", path, r.one("", "null", "7", `"text"`, "true"), key)
	}
}

// wrongType returns a value that is not of the type of v.
func wrongType(v any) any {
	switch v.(type) {
	case string, bool:
		return object{"x": json.Number("1")}
	case json.Number:
		return "x"
	}
	return json.Number("7")
}

// wrongID sends a document under a path that is none, or that its id contradicts.
func (s *randomSession) wrongID(kind, id string, doc object) {
	r, key := s.docs, keyOf(kind, id)
	switch kind {
	case "consumers":
		doc["username"] = r.one("with blank", "größer", "", "a/b", strings.Repeat("l", 257))
		s.refused("a wrong id", "PUT", "/consumers", encoded(s.t, doc), key)
	case "plugin_metadata":
		s.refused("a wrong id", "PUT", "/plugin_metadata/no-such-plugin", encoded(s.t, doc), "plugin_metadata/no-such-plugin")
	case "secrets":
		s.refused("a wrong id", "PUT", "/secrets/keeper/1", encoded(s.t, doc), key)
	case "credentials":
		doc["id"] = "another"
		s.refused("a wrong id", "PUT", "/"+key, encoded(s.t, doc), key)
	default:
		if r.IntN(2) == 0 {
			doc["id"] = "another"
			s.refused("a wrong id", "PUT", "/"+key, encoded(s.t, doc), key)
			return
		}
		delete(doc, "id")
		s.refused("a wrong id", "PUT", "/"+kind+"/"+r.one("a%20b", strings.Repeat("l", 65), "gr%C3%B6%C3%9Fer", "a:b"), encoded(s.t, doc), key)
	}
}

// identityOfAnother returns the plugins of another consumer or credential.
func (s *randomSession) identityOfAnother(key string) any {
	for _, other := range slices.Sorted(maps.Keys(s.model)) {
		if plugins, _ := s.model[other]["plugins"].(object); strings.HasPrefix(other, "consumers/") && other != key && len(plugins) == 1 {
			return plugins
		}
	}
	return nil
}
