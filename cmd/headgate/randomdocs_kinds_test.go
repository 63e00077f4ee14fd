package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// object is a document, or a part of one, before it is written. Numbers are json.Number, so that their form is chosen here.
type object = map[string]any

// randomDocuments makes documents. Everything follows from the source of random numbers and from what exists.
type randomDocuments struct {
	*rand.Rand
	exists func(kind string) []string // ids, sorted
	pairs  [][2]string                // certificates with their keys
	unique int
}

func newRandomDocuments(t testing.TB, seed uint64, exists func(kind string) []string) *randomDocuments {
	t.Helper()
	r := &randomDocuments{Rand: rand.New(rand.NewPCG(seed, 1)), exists: exists}
	for range 2 {
		cert, key := certificateFor(t, "random.example.com")
		r.pairs = append(r.pairs, [2]string{cert, key})
	}
	return r
}

// kinds are the segments of the documents that are made, those that others refer to more often.
func (r *randomDocuments) kind() string {
	kinds := [...]string{
		"upstreams", "upstreams", "services", "services", "plugin_configs", "consumer_groups", "routes", "routes", "routes", "routes",
		"consumers", "credentials", "global_rules", "plugin_metadata", "ssls", "secrets", "protos",
	}
	return kinds[r.IntN(len(kinds))]
}

// id returns an id of the kind: one of few, so that documents are replaced and deleted, or rather a new one as long as there are few.
func (r *randomDocuments) id(kind string) string {
	n := r.IntN(12)
	switch kind {
	case "credentials":
		if users := r.exists("consumers"); len(users) > 0 {
			return fmt.Sprintf("%s/credentials/c%d", users[r.IntN(len(users))], n%3)
		}
		return fmt.Sprintf("nobody/credentials/c%d", n%3)
	case "plugin_metadata":
		return "cors"
	case "secrets":
		return fmt.Sprintf("%s/%d", [...]string{"vault", "aws", "gcp"}[n%3], n)
	case "consumers":
		return fmt.Sprintf("user_%d", n)
	}
	return fmt.Sprintf("%s-%d", [...]string{"a", "B.2", "c_3"}[n%3], n)
}

func (r *randomDocuments) one(texts ...string) string { return texts[r.IntN(len(texts))] }

// number writes n in one of the forms that mean it.
func (r *randomDocuments) number(n int) json.Number {
	return json.Number(fmt.Sprintf(r.one("%d", "%d", "%d.0", "%d.00", "%de0"), n))
}

// empty is written as {} or [], which the contract takes for the same.
func (r *randomDocuments) empty() any {
	if r.IntN(2) == 0 {
		return object{}
	}
	return []any{}
}

// text is anything that a person may write.
func (r *randomDocuments) text() string {
	return r.one("plain", "", "two words", "<a href=\"x\">&amp;</a>", "größer 漢字 🚪", "line\nbreak\ttab", "\u2028\u2029",
		`back\slash "quoted" /`, "$host ${x}", "null", "%2F..//", strings.Repeat("l", 200))
}

// common adds members that most kinds have.
func (r *randomDocuments) common(kind string, doc object) object {
	if r.IntN(3) == 0 {
		doc["desc"] = r.text()
	}
	switch r.IntN(4) {
	case 0:
		doc["labels"] = object{"env": r.one("test", "größer", "a&b"), "team/<x>": "y"}
	case 1:
		doc["labels"] = r.empty()
	}
	if kind != "consumers" && kind != "ssls" && r.IntN(3) == 0 {
		doc["name"] = r.one("a name", "größer", "<&>")
	}
	return doc
}

// some returns an existing id, or "".
func (r *randomDocuments) some(kind string) string {
	ids := r.exists(kind)
	if len(ids) == 0 {
		return ""
	}
	return ids[r.IntN(len(ids))]
}

// valid returns a document of kind that has to be accepted under id.
func (r *randomDocuments) valid(kind, id string) object {
	doc := object{}
	switch kind {
	case "upstreams":
		doc = r.upstream()
	case "services":
		doc = r.service()
	case "routes":
		doc = r.route()
	case "plugin_configs", "consumer_groups":
		doc["plugins"] = r.plugins()
	case "global_rules":
		return object{"plugins": r.oneOf(r.harmless())}
	case "plugin_metadata":
		return object{"allow_origins": object{"k": r.one("http://a.example", "https://b.example:8443", "*")}}
	case "secrets":
		return r.secret(id)
	case "protos":
		doc["content"] = fmt.Sprintf("syntax = \"proto3\";\npackage p%d;\nmessage M { string a = 1; }\n", r.IntN(100))
	case "ssls":
		pair := r.pairs[r.IntN(len(r.pairs))]
		doc = object{"cert": pair[0], "key": pair[1]}
		if r.IntN(2) == 0 {
			doc["sni"] = r.one("random.example.com", "*.example.com")
		} else {
			doc["snis"] = []any{"random.example.com", "b.example"}
		}
		if r.IntN(3) == 0 {
			doc["status"] = r.number(r.IntN(2))
		}
	case "consumers":
		doc["username"] = id
		if group := r.some("consumer_groups"); group != "" && r.IntN(3) == 0 {
			doc["group_id"] = group
		}
		doc["plugins"] = r.identity()
		if r.IntN(4) == 0 {
			doc["plugins"] = r.empty()
		}
	case "credentials":
		doc["plugins"] = r.identity()
	}
	doc = r.common(kind, doc)
	if kind != "consumers" && r.IntN(4) == 0 {
		doc["id"] = id[strings.LastIndexByte(id, '/')+1:]
	}
	return doc
}

func (r *randomDocuments) nodes() any {
	switch r.IntN(4) {
	case 0:
		return r.empty()
	case 1:
		return object{"127.0.0.1:1": r.number(r.IntN(100)), "[::1]:2": json.Number("1"), "localhost:3": json.Number("0")}
	case 2:
		return object{"127.0.0.1:1": r.number(1)}
	}
	return []any{object{
		"host": "127.0.0.1", "port": r.number(1 + r.IntN(65535)), "weight": r.number(r.IntN(10)), "priority": r.number(-r.IntN(3)),
		"metadata": r.empty(),
	}}
}

func (r *randomDocuments) upstream() object {
	doc := object{"nodes": r.nodes()}
	switch r.IntN(5) {
	case 0:
		doc["type"] = "roundrobin"
	case 1:
		doc["type"], doc["key"] = "chash", r.one("remote_addr", "arg_user")
	case 2:
		doc["type"], doc["hash_on"], doc["key"] = "chash", "header", "x-user"
	case 3:
		doc["type"] = r.one("least_conn", "ewma")
	}
	if r.IntN(3) == 0 {
		doc["timeout"] = object{"connect": json.Number(r.one("0.5", "1.50", "1e1")), "send": r.number(6), "read": r.number(60)}
	}
	if r.IntN(4) == 0 {
		doc["retries"], doc["retry_timeout"] = r.number(r.IntN(3)), json.Number(r.one("0", "1.5", "2.0"))
	}
	if r.IntN(4) == 0 {
		doc["pass_host"], doc["upstream_host"] = "rewrite", "internal.example"
	}
	if r.IntN(4) == 0 {
		doc["keepalive_pool"] = object{"size": r.number(8), "idle_timeout": json.Number("3.5"), "requests": r.number(100)}
	}
	return doc
}

// target adds what requests are sent to.
func (r *randomDocuments) target(doc object) object {
	if id := r.some("upstreams"); id != "" && r.IntN(2) == 0 {
		doc["upstream_id"] = id
	} else {
		doc["upstream"] = r.upstream()
	}
	return doc
}

func (r *randomDocuments) service() object {
	doc := r.target(object{})
	if r.IntN(2) == 0 {
		doc["plugins"] = r.plugins()
	}
	if r.IntN(3) == 0 {
		doc["hosts"] = []any{"*.random.example", "random.example"}
	}
	if r.IntN(4) == 0 {
		doc["enable_websocket"] = r.IntN(2) == 0
	}
	return doc
}

func (r *randomDocuments) route() object {
	doc := object{}
	if service := r.some("services"); service != "" && r.IntN(3) == 0 {
		doc["service_id"] = service
	} else {
		r.target(doc)
	}
	if r.IntN(2) == 0 {
		doc["uri"] = fmt.Sprintf("/random/%d%s", r.IntN(50), r.one("", "/*", "/größer", "/a%20b", "/a/b/c"))
	} else {
		doc["uris"] = []any{fmt.Sprintf("/random/%d", r.IntN(50)), fmt.Sprintf("/random/x%d/*", r.IntN(50))}
	}
	if r.IntN(3) == 0 {
		doc["priority"] = r.number(r.IntN(20) - 10)
	}
	if r.IntN(3) == 0 {
		doc["methods"] = []any{"GET", r.one("POST", "PURGE")}
	}
	switch r.IntN(4) {
	case 0:
		doc["host"] = r.one("random.example", "*.random.example")
	case 1:
		doc["hosts"] = []any{"a.random.example", "*.b.random.example"}
	}
	switch r.IntN(4) {
	case 0:
		doc["remote_addr"] = r.one("127.0.0.1", "10.0.0.0/8", "::1", "fe80::/32")
	case 1:
		doc["remote_addrs"] = []any{"127.0.0.1", "10.0.0.0/8"}
	}
	switch r.IntN(4) {
	case 0:
		doc["vars"] = []any{[]any{"arg_v", r.one("==", "~=", "~~"), "2"}, []any{"http_x", "in", []any{"a", "b"}}}
	case 1:
		doc["vars"] = r.empty()
	}
	switch r.IntN(3) {
	case 0:
		doc["plugins"] = r.plugins()
	case 1:
		doc["plugins"] = r.empty()
	}
	if id := r.some("plugin_configs"); id != "" && r.IntN(4) == 0 {
		doc["plugin_config_id"] = id
	}
	if r.IntN(4) == 0 {
		doc["status"] = r.number(r.IntN(2))
	}
	if r.IntN(5) == 0 {
		doc["timeout"] = object{"connect": r.number(1), "send": r.number(2), "read": json.Number("3.25")}
	}
	return doc
}

func (r *randomDocuments) secret(id string) object {
	switch manager, _, _ := strings.Cut(id, "/"); manager {
	case "vault":
		return object{"uri": "http://127.0.0.1:8200", "prefix": r.text() + "kv", "token": "t"}
	case "aws":
		return object{"access_key_id": "a", "secret_access_key": r.one("s", "$ENV://NOT_SET"), "region": "eu-1"}
	}
	return object{"auth_file": "/nowhere.json", "ssl_verify": r.IntN(2) == 0}
}

// identity is what one consumer or credential alone shows.
func (r *randomDocuments) identity() object {
	r.unique++
	name := fmt.Sprintf("identity-%d", r.unique)
	switch r.IntN(4) {
	case 0:
		return object{"basic-auth": object{"username": name, "password": r.text() + "x"}}
	case 1:
		return object{"jwt-auth": object{"key": name, "secret": strings.Repeat("s", 40), "exp": r.number(600)}}
	case 2:
		return object{"hmac-auth": object{"key_id": name, "secret_key": "s"}}
	}
	return object{"key-auth": object{"key": name}}
}

// harmless are plugins that may run for every request of the gateway.
func (r *randomDocuments) harmless() object {
	return object{
		"request-id":       object{"header_name": r.one("X-One", "X-Two"), "include_in_response": r.IntN(2) == 0},
		"prometheus":       object{"prefer_name": r.IntN(2) == 0},
		"response-rewrite": object{"headers": object{"set": object{"X-Random": r.one("a", "$host", "größer")}}},
		"real-ip":          object{"source": "arg_ip"},
	}
}

// oneOf returns one of the members of all.
func (r *randomDocuments) oneOf(all object) object {
	names := slices.Sorted(maps.Keys(all))
	name := names[r.IntN(len(names))]
	return object{name: all[name]}
}

// plugins returns up to three plugins with configurations that have to be accepted.
func (r *randomDocuments) plugins() any {
	if r.IntN(8) == 0 {
		return r.empty()
	}
	all := r.harmless()
	maps.Copy(all, object{
		"key-auth":            r.empty(),
		"basic-auth":          object{"hide_credentials": true},
		"cors":                object{"allow_origins": "*", "max_age": r.number(5)},
		"limit-count":         object{"count": r.number(2), "time_window": r.number(60), "rejected_code": r.number(429), "key": "remote_addr"},
		"limit-req":           object{"rate": json.Number("1.5"), "burst": r.number(2), "key": "remote_addr"},
		"limit-conn":          object{"conn": r.number(1), "burst": r.number(0), "default_conn_delay": json.Number("0.1"), "key": "remote_addr"},
		"ip-restriction":      object{"whitelist": []any{"127.0.0.0/24", "::1"}},
		"ua-restriction":      object{"denylist": []any{"curl", "(?i)bot"}},
		"uri-blocker":         object{"block_rules": []any{"root.exe", `\.(?:sql|bak)$`}},
		"referer-restriction": object{"whitelist": []any{"*.example.com"}, "bypass_missing": true},
		"redirect":            object{"uri": "/elsewhere$uri", "ret_code": r.number(301)},
		"mocking":             object{"response_example": r.text(), "response_status": r.number(200)},
		"proxy-rewrite":       object{"regex_uri": []any{"^/random/(.*)", "/$1"}, "headers": object{"set": object{"X-A": r.one("a", "$host", "<größer>")}}},
		"fault-injection":     object{"abort": object{"http_status": r.number(503), "body": r.text() + "x", "percentage": r.number(50)}},
		"api-breaker":         object{"break_response_code": r.number(502), "unhealthy": object{"http_statuses": []any{r.number(500)}, "failures": r.number(3)}},
		"client-control":      object{"max_body_size": r.number(1000)},
		"csrf":                object{"key": "k"},
		"consumer-restriction": object{
			"whitelist": []any{"jack"}, "rejected_code": r.number(403),
		},
		"traffic-split": object{"rules": []any{object{"weighted_upstreams": []any{
			object{"upstream": object{"name": "v2", "nodes": object{"127.0.0.1:1": r.number(1)}, "type": "roundrobin"}, "weight": r.number(3)},
			object{"weight": r.number(7)},
		}}}},
	})
	if id := r.some("upstreams"); id != "" && r.IntN(2) == 0 {
		all["traffic-split"] = object{"rules": []any{object{
			"match":              []any{object{"vars": []any{[]any{"arg_v", "==", "2"}}}},
			"weighted_upstreams": []any{object{"upstream_id": id, "weight": r.number(1)}, object{"weight": r.number(1)}},
		}}}
	}
	chosen := object{}
	for range 1 + r.IntN(3) {
		maps.Copy(chosen, r.oneOf(all))
	}
	for _, name := range slices.Sorted(maps.Keys(chosen)) {
		if conf, ok := chosen[name].(object); ok && r.IntN(6) == 0 {
			conf["_meta"] = object{"disable": r.IntN(2) == 0, "priority": r.number(r.IntN(1000)), "filter": []any{[]any{"arg_v", "==", "2"}}}
		}
	}
	return chosen
}
