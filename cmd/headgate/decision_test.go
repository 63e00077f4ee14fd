package main

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"headgate/conf"
	"headgate/proxy"
)

// What a running gateway has decided, explain decides again: from the line of the answer or of the log, and from the request where it
// has a key. It does so across edits of anything else.
func TestDecisionsAreRepeated(t *testing.T) {
	up := newUpstream(t, "up", nil)
	g := startGate(t, onLoopback(t, conf.Default()))
	route := func(key string) string {
		return fmt.Sprintf(`{"uri":"/chat","plugins":{"key-auth":{},"traffic-split":{"decision_header":true,"sticky":{"key":%q},"rules":[
			{"weight":5,"name":"a","upstream":{"nodes":{%[2]q:1}}},{"weight":3,"name":"b","upstream":{"nodes":{%[2]q:1}}},
			{"weight":2,"name":"c","upstream":{"nodes":{%[2]q:1}}}]}}}`, key, up.addr)
	}
	g.configure("PUT", "/consumers", `{"username":"jack","plugins":{"key-auth":{"key":"k-jack"}}}`)
	g.configure("PUT", "/routes/chat", route("$consumer_name$arg_s"))
	g.configure("PUT", "/routes/other", fmt.Sprintf(`{"uri":"/other","upstream":{"nodes":{%q:1}}}`, up.addr))
	revision := g.applier.Revision()
	explainer := proxy.NewExplainer(g.server, g.applier)
	explain := func(more string) *proxy.Explanation {
		t.Helper()
		e, err := explainer.Explain([]byte(`{"path":"/chat","consumer":"jack"` + more + `}`))
		if err != nil || e.Split == nil {
			t.Fatalf("%s: %v, %+v", more, err, e)
		}
		return e
	}
	for i := range 60 {
		query := ""
		if i%2 == 0 {
			query = fmt.Sprintf("?s=%d", i)
		}
		a := g.send("GET", "http://"+g.addr+"/chat"+query, "", "apikey: k-jack", "X-Headgate-Split: 1:0:0:a")
		said := strings.Split(a.header.Get("X-Headgate-Split"), ":")
		if a.status != http.StatusOK || len(said) != 4 || said[0] != fmt.Sprint(revision) || said[1] != "0" {
			t.Fatalf("%s: %d, %v", query, a.status, a.header)
		}
		if e := explain(fmt.Sprintf(`,"bucket":%q`, said[2])); e.Split.Next != said[3] || e.Split.Bucket != said[2] || e.Revision != revision {
			t.Fatalf("%s is explained as %+v", said, e.Split)
		}
		e, err := explainer.Explain(fmt.Appendf(nil, `{"path":"/chat%s","consumer":"jack"}`, query))
		if err != nil || e.Split.Next != said[3] || e.Split.Bucket != said[2] {
			t.Fatalf("%s is explained as %+v, %v", query, e.Split, err)
		}
		line := "split=" + strings.Join(said, ":")
		eventually(t, "the log has "+line, func() bool { return g.logCount(line) > 0 })
	}
	// Places of the sequence: a whole period is served exactly, and again the same after an edit elsewhere.
	g.configure("PUT", "/routes/chat", route("$arg_s"))
	for round := range 2 {
		count := map[string]int{}
		for place := range 10 {
			e := explain(fmt.Sprintf(`,"bucket":%d`, place))
			count[e.Split.Next]++
			a := g.send("GET", "http://"+g.addr+"/chat", "", "apikey: k-jack")
			if said := strings.Split(a.header.Get("X-Headgate-Split"), ":"); explain(`,"bucket":"`+said[2]+`"`).Split.Next != said[3] {
				t.Fatalf("%s is not explained", said)
			}
		}
		if count["a"] != 5 || count["b"] != 3 || count["c"] != 2 {
			t.Errorf("round %d: the places lead to %v", round, count)
		}
		g.configure("PATCH", "/routes/other", fmt.Sprintf(`{"desc":"%d"}`, round))
	}
	if _, err := explainer.Explain([]byte(`{"path":"/chat","bucket":"nine"}`)); err == nil || !strings.HasPrefix(err.Error(), "bucket: expected a place") {
		t.Errorf("a bucket that is none: %v", err)
	}
}
