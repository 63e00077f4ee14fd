package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"headgate/conf"
	"headgate/plugins"
)

// refusing are configurations with which plugins answer the second of two equal requests, at the latest; with the phase in which the
// contract has them do so (sections 4.2 and 4.4).
var refusing = map[string]struct{ phase, conf string }{
	"client-control":       {"rewrite", `{"max_body_size":1}`},
	"fault-injection":      {"rewrite", `{"abort":{"http_status":503}}`},
	"uri-blocker":          {"rewrite", `{"block_rules":["order"]}`},
	"request-validation":   {"rewrite", `{"header_schema":{"type":"object","required":["x-none"]}}`},
	"hmac-auth":            {"rewrite", `{}`},
	"basic-auth":           {"rewrite", `{}`},
	"jwt-auth":             {"rewrite", `{}`},
	"multi-auth":           {"rewrite", `{"auth_plugins":[{"jwt-auth":{}},{"basic-auth":{}}]}`},
	"mocking":              {"access", `{"response_status":503,"response_example":"x"}`},
	"ip-restriction":       {"access", `{"blacklist":["127.0.0.1"]}`},
	"ua-restriction":       {"access", `{"denylist":["."]}`},
	"referer-restriction":  {"access", `{"whitelist":["a.example"]}`},
	"csrf":                 {"access", `{"key":"k"}`},
	"consumer-restriction": {"access", `{"blacklist":["jack"]}`},
	"forward-auth":         {"rewrite", `{"uri":"http://DEAD/","timeout":1000}`},
	"workflow":             {"access", `{"rules":[{"actions":[["return",{"code":403}]]}]}`},
	"limit-count":          {"access", `{"count":1,"time_window":3600,"key":"uri"}`},
	"limit-req":            {"access", `{"rate":0.0001,"burst":0,"key":"uri"}`},
	"public-api":           {"access", `{"uri":"/none"}`},
}

// refusal is a refusing plugin in a document.
type orderedRefusal struct {
	in, name string
	priority int
}

func (r orderedRefusal) String() string { return r.in + " " + r.name }

// contractOrder is the sequence of section 2.7: the global rules first in each phase, the consumer's own plugins at the end of the rewrite
// phase, and in the access phase among those of the route.
func contractOrder(all []orderedRefusal) []orderedRefusal {
	stage := func(r orderedRefusal) int {
		rewrite := refusing[r.name].phase == "rewrite"
		switch {
		case rewrite:
			return slices.Index([]string{"global", "route", "consumer"}, r.in)
		case r.in == "global":
			return 3
		}
		return 4
	}
	return slices.SortedStableFunc(slices.Values(all), func(a, b orderedRefusal) int {
		return cmp.Or(cmp.Compare(stage(a), stage(b)), cmp.Compare(b.priority, a.priority))
	})
}

// Everything that can refuse a request is switched on, in a global rule and in the route or its consumer. Who answers goes, and the next
// one has to be the one that the contract's order and the list of plugins say, down to the upstream.
func TestOrderOfExecution(t *testing.T) {
	for _, upsideDown := range []bool{false, true} { // by the list's priorities, by those that _meta says
		t.Run(fmt.Sprintf("upside down %v", upsideDown), func(t *testing.T) {
			var all []orderedRefusal
			docs := map[string]map[string]json.RawMessage{"global": {}, "route": {}, "consumer": {}}
			add := func(in, name string, priority int) {
				meta := fmt.Sprintf(`{"error_response":"%s %s"}`, in, name)
				if upsideDown {
					priority = 100_000 - priority
					meta = fmt.Sprintf(`{"priority":%d,"error_response":"%s %s"}`, priority, in, name)
				}
				conf := strings.ReplaceAll(refusing[name].conf, "DEAD", deadAddr(t))
				docs[in][name] = json.RawMessage(strings.Replace(strings.Replace(conf, "{", `{"_meta":`+meta+`,`, 1), ",}", "}", 1))
				all = append(all, orderedRefusal{in, name, priority})
			}
			for n, k := range plugins.List(plugins.Options{}) {
				if _, ok := refusing[k.Name]; !ok {
					continue
				}
				add("global", k.Name, k.Priority)
				if n%2 == 0 && k.Consumer == nil && k.Name != "multi-auth" { // those say who a consumer is
					add("consumer", k.Name, k.Priority)
				} else {
					add("route", k.Name, k.Priority)
				}
			}
			if len(all) != 2*len(refusing) {
				t.Fatalf("%d refusals of %d plugins", len(all), len(refusing))
			}
			peel(t, docs, contractOrder(all))
		})
	}
}

// peel takes away who answers, one after the other.
func peel(t *testing.T, docs map[string]map[string]json.RawMessage, want []orderedRefusal) {
	up := newUpstream(t, "up", nil)
	c := onLoopback(t, conf.Default())
	c.AccessLog.Path = conf.AccessLogOff
	g := startGate(t, c)
	apply := func(in string) {
		t.Helper()
		chain := map[string]json.RawMessage{}
		for name, conf := range docs[in] {
			chain[name] = conf
		}
		if in != "global" {
			chain["key-auth"] = json.RawMessage(map[string]string{"route": `{}`, "consumer": `{"key":"k-jack"}`}[in])
		}
		text, err := json.Marshal(chain)
		if err != nil {
			t.Fatal(err)
		}
		switch in {
		case "global":
			g.configure("PUT", "/global_rules/1", `{"plugins":`+string(text)+`}`)
		case "route":
			g.configure("PUT", "/routes/1", `{"uri":"/order","upstream":{"nodes":{"`+up.addr+`":1}},"plugins":`+string(text)+`}`)
		case "consumer":
			g.configure("PUT", "/consumers", `{"username":"jack","plugins":`+string(text)+`}`)
		}
	}
	for _, in := range []string{"consumer", "route", "global"} {
		apply(in)
	}
	request := func() answer {
		return g.send("POST", "http://"+g.addr+"/order", "body", "apikey: k-jack", "User-Agent: order")
	}
	for _, next := range want {
		request() // limits let the first one pass
		if a := request(); a.status < 400 || a.body != next.String() {
			t.Fatalf("%s answers, %s should have", a, next)
		}
		delete(docs[next.in], next.name)
		apply(next.in)
	}
	if a := request(); a.status != http.StatusOK || a.body != "up\n" {
		t.Errorf("nobody refuses, and the answer is %s", a)
	}
}
