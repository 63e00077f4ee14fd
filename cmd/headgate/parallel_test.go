package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"headgate/conf"
	"headgate/plugins"
)

// pluginSamples has a configuration of every plugin that the program has. %d is the number of the route, so that plugins that keep state
// keep some of their own and some in common.
var pluginSamples = map[string]string{
	"api-breaker":           `{"break_response_code":503}`,
	"attach-consumer-label": `{"headers":{"X-Label":"$label"}}`,
	"basic-auth":            `{}`,
	"brotli":                `{}`,
	"client-control":        `{"max_body_size":%d}`,
	"consumer-restriction":  `{"whitelist":["c%d"]}`,
	"cors":                  `{"allow_origins_by_regex":["^https://a%d\\."]}`,
	"csrf":                  `{"key":"key-%d"}`,
	"error-page":            `{}`,
	"fault-injection":       `{"delay":{"duration":0,"vars":[[["arg_n","==","%d"]]]}}`,
	"forward-auth":          `{"uri":"http://127.0.0.1:1/%d"}`,
	"gzip":                  `{"min_length":1%d}`,
	"hmac-auth":             `{}`,
	"ip-restriction":        `{"whitelist":["127.0.0.1"]}`,
	"jwt-auth":              `{}`,
	"key-auth":              `{}`,
	"limit-conn":            `{"conn":1,"burst":0,"default_conn_delay":0.1,"key":"remote_addr"}`,
	"limit-count":           `{"count":1,"time_window":60,"group":"shared"}`,
	"limit-req":             `{"rate":1,"burst":0,"key":"remote_addr"}`,
	"mocking":               `{"response_example":"%d"}`,
	"multi-auth":            `{"auth_plugins":[{"key-auth":{}},{"basic-auth":{}}]}`,
	"prometheus":            `{}`,
	"proxy-cache":           `{"cache_strategy":"memory","cache_zone":"memory_cache","cache_key":["$uri","n%d"]}`,
	"proxy-buffering":       `{"disable_proxy_buffering":true}`,
	"proxy-control":         `{}`,
	"proxy-mirror":          `{"host":"http://127.0.0.1:1"}`,
	"proxy-rewrite":         `{"regex_uri":["^/(.*)%d$","/x/$1"]}`,
	"public-api":            `{"uri":"/none"}`,
	"real-ip":               `{"source":"arg_ip"}`,
	"redirect":              `{"regex_uri":["^/(.*)%d$","/y/$1"]}`,
	"referer-restriction":   `{"whitelist":["a%d.example"]}`,
	"request-id":            `{}`,
	"request-validation":    `{"header_schema":{"type":"object","required":["x-%d"]}}`,
	"response-rewrite":      `{"filters":[{"regex":"a%d","replace":"b"}]}`,
	"traffic-label":         `{"rules":[{"actions":[{"set_headers":{"X-N":"%d"},"weight":1}]}]}`,
	"traffic-split":         `{"rules":[{"weighted_upstreams":[{"upstream_id":"u","weight":1},{"weight":1%d}]}]}`,
	"ua-restriction":        `{"denylist":["bad%d(?=x)"]}`,
	"uri-blocker":           `{"block_rules":["bad%d"]}`,
	"workflow":              `{"rules":[{"case":[["uri","==","/%d"]],"actions":[["limit-count",{"count":1,"time_window":60}]]}]}`,
}

// Many routes are compiled at a time, by several goroutines: every plugin has to bear that. The race detector is the judge.
func TestPluginsAreBuiltInParallel(t *testing.T) {
	const routes = 300 // enough for more than one goroutine
	g := startGate(t, onLoopback(t, conf.Default()))
	for _, round := range []string{"first", "edited"} {
		var list []json.RawMessage
		for i := range routes {
			chain := map[string]json.RawMessage{}
			for _, k := range plugins.List(plugins.Options{}) {
				sample, ok := pluginSamples[k.Name]
				if !ok {
					t.Fatalf("there is no sample of %s", k.Name)
				}
				chain[k.Name] = json.RawMessage(strings.ReplaceAll(sample, "%d", strconv.Itoa(i)))
			}
			route, err := json.Marshal(map[string]any{"id": fmt.Sprint("r", i), "uri": fmt.Sprint("/", i), "desc": round, "upstream_id": "u", "plugins": chain})
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, route)
		}
		body, err := json.Marshal(map[string]any{
			"upstreams": []any{map[string]any{"id": "u", "nodes": map[string]int{"127.0.0.1:1": 1}}}, "routes": list,
		})
		if err != nil {
			t.Fatal(err)
		}
		if a := g.admin(http.MethodPut, "/configs", string(body), "X-Digest: "+round); a.status != http.StatusAccepted {
			t.Fatalf("%s: %.600v", round, a)
		}
	}
}
