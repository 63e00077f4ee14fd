package proxy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"headgate/conf/resource"
	"headgate/conf/store"
	"headgate/proxy/route"
)

const to1 = `"upstream":{"nodes":{"10.0.0.1:80":1}}`

func TestExplain(t *testing.T) {
	const served = "upstream default of routes/1, roundrobin, next 10.0.0.1:80\n"
	tests := []struct {
		name    string
		mode    route.Mode
		docs    map[string]string
		request string
		want    string
	}{
		{"one route", 0, map[string]string{"routes/1": `{"uri":"/a/*",` + to1 + `}`}, `{"path":"/a/b?c=d"}`, "route routes/1 by  /a/*\n" + served},
		{"nothing fits", 0, map[string]string{"routes/1": `{"uri":"/a",` + to1 + `}`}, `{"path":"/b"}`, "fault no_route 404\n"},
		{"a host beats priority", 0, map[string]string{
			"routes/1": `{"uri":"/*","host":"a.com",` + to1 + `}`,
			"routes/2": `{"uri":"/x","priority":100,` + to1 + `}`,
		}, `{"path":"/x","host":"a.com"}`,
			"route routes/1 by a.com /*\nbehind routes/2: the host a.com of routes/1 is looked at first, whatever the priorities\n" + served},
		{"the other router asks for the path first", route.URI, map[string]string{
			"routes/1": `{"uri":"/*","host":"a.com",` + to1 + `}`,
			"routes/2": `{"uri":"/x","priority":-1,` + to1 + `}`,
		}, `{"path":"/x","host":"a.com"}`, "route routes/2 by  /x\nbehind routes/1: the exact path of routes/2 is looked at first, whatever the priorities\n" +
			"upstream default of routes/2, roundrobin, next 10.0.0.1:80\n"},
		{"why they do not fit", 0, map[string]string{
			"routes/1": `{"uri":"/x",` + to1 + `}`,
			"routes/2": `{"uri":"/x","priority":5,"methods":["POST","PUT"],` + to1 + `}`,
			"routes/3": `{"uri":"/x","priority":4,"remote_addrs":["192.168.0.0/16","10.9.9.9"],` + to1 + `}`,
			"routes/4": `{"uri":"/x","priority":3,"vars":[["http_x_a","==","1"],["arg_v","~~","^2"]],` + to1 + `}`,
			"routes/5": `{"uri":"/x","priority":2,"status":0,` + to1 + `}`,
			"routes/6": `{"uri":"/x","priority":1,"vars":["OR",["arg_v","==","8"],["arg_v","==","9"]],` + to1 + `}`,
			"routes/7": `{"uri":"/x*","priority":9,` + to1 + `}`,
			"routes/8": `{"uri":"/x","host":"b.com","priority":9,` + to1 + `}`,
			"routes/9": `{"uri":"/x","priority":-1,"methods":["POST"],` + to1 + `}`,
		}, `{"path":"/x?v=1","host":"a.com","client":"10.0.0.1:5","headers":{"X-A":"1"}}`,
			"route routes/1 by  /x\nnot routes/2: method GET is not among [POST, PUT]\n" +
				"not routes/3: remote address 10.0.0.1 is not in [192.168.0.0/16, 10.9.9.9]\n" +
				"not routes/4: vars do not hold: [\"arg_v\",\"~~\",\"^2\"]\n" +
				"not routes/5: status is 0\n" +
				"not routes/6: vars do not hold: [\"OR\",[\"arg_v\",\"==\",\"8\"],[\"arg_v\",\"==\",\"9\"]]\n" +
				"behind routes/7: the exact path of routes/1 is looked at first, whatever the priorities\n" + served},
		{"the host is another", 0, map[string]string{
			"routes/1": `{"uri":"/x","hosts":["a.com","*.b.com"],` + to1 + `}`,
			"routes/2": `{"uri":"/x","hosts":["c.com"],"priority":1,` + to1 + `}`,
			"routes/3": `{"uri":"/y","hosts":["c.com"],` + to1 + `}`,
		}, `{"path":"/x","host":"d.com"}`,
			"fault no_route 404\nnot routes/2: host d.com is not among [c.com]\nnot routes/1: host d.com is not among [a.com, *.b.com]\n"},
		{"priority, length, age", 0, map[string]string{
			"routes/1": `{"uri":"/a/*/x","priority":1,` + to1 + `}`,
			"routes/2": `{"uri":"/a/*",` + to1 + `}`,
			"routes/3": `{"uri":"/a/*/x",` + to1 + `}`,
			"routes/4": `{"uri":"/*","priority":9,` + to1 + `}`,
			"routes/5": `{"uri":"/a/*/x","priority":1,` + to1 + `}`,
		}, `{"path":"/a/b/x"}`, "route routes/1 by  /a/*/x\nbehind routes/5: routes/1 was stored first\n" +
			"behind routes/3: priority 0 is below that of routes/1, 1\nbehind routes/2: priority 0 is below that of routes/1, 1\n" +
			"behind routes/4: the longer prefix /a/*/x of routes/1 is looked at first, whatever the priorities\n" + served},
		{"what the edge refuses", 0, map[string]string{"routes/1": `{"uri":"/*",` + to1 + `}`}, `{"path":"/a%00b"}`, "fault bad_path 400\n"},
		{"hosts and plugins of the service", 0, map[string]string{
			"services/s":       `{"hosts":["s.com"],"upstream_id":"u","plugins":{"stamp":{},"prefer":{}}}`,
			"upstreams/u":      `{"name":"pool","nodes":{"10.0.0.7:8080":1}}`,
			"plugin_configs/p": `{"id":"p","plugins":{"stamp":{"of":"p"},"answer":{"_meta":{"priority":2000}}}}`,
			"routes/1":         `{"uri":"/*","service_id":"s","plugin_config_id":"p","plugins":{"prefer":{"_meta":{"disable":true}},"zipkin":{}}}`,
		}, `{"path":"/","host":"s.com"}`,
			"route routes/1 by s.com /*\n" +
				"route answer 2000 from plugin_configs/p [access]: runs\n" +
				"route stamp 1000 from plugin_configs/p [rewrite access response]: runs\n" +
				"route stamp 1000 from services/s []: overridden by plugin_configs/p\n" +
				"route prefer 800 from routes/1 []: disabled\n" +
				"route prefer 800 from services/s []: overridden by routes/1\n" +
				"route zipkin 0 from routes/1 []: not implemented here; accepted without running\n" +
				"upstream pool of upstreams/u, roundrobin, next 10.0.0.7:8080\n"},
		{"consumer over group over route", 0, map[string]string{
			"consumer_groups/g": `{"id":"g","plugins":{"stamp":{},"prefer":{}}}`,
			"consumers/jack":    `{"username":"jack","group_id":"g","plugins":{"key-auth":{"key":"k"},"stamp":{}}}`,
			"routes/1":          `{"uri":"/*","plugins":{"key-auth":{},"stamp":{}},` + to1 + `}`,
		}, `{"path":"/","consumer":"jack"}`,
			"route routes/1 by  /*\n" +
				"route key-auth 2500 from routes/1 [rewrite]: runs\n" +
				"route stamp 1000 from routes/1 [rewrite]: overridden by consumers/jack\n" +
				"route stamp 1000 from consumer_groups/g []: overridden by consumers/jack\n" +
				"route stamp 1000 from consumers/jack [access response]: runs\n" +
				"route prefer 800 from consumer_groups/g [rewrite access response]: runs\n" + served},
		{"global rules", 0, map[string]string{
			"global_rules/1": `{"id":"1","plugins":{"stamp":{},"prefer":{}}}`,
			"global_rules/2": `{"id":"2","plugins":{"stamp":{},"answer":{"_meta":{"filter":[["arg_a","==","1"]]}}}}`,
			"routes/1":       `{"uri":"/*","plugins":{"prefer":{},"stamp":{"_meta":{"filter":[["arg_a","==","2"]]}}},` + to1 + `}`,
		}, `{"path":"/?a=2"}`,
			"route routes/1 by  /*\n" +
				"global stamp 1000 from global_rules/1 [rewrite access response]: runs\n" +
				"global stamp 1000 from global_rules/2 []: overridden by global_rules/1\n" +
				"global prefer 800 from global_rules/1 []: overridden by routes/1\n" +
				"global answer 1 from global_rules/2 []: filtered out\n" +
				"route stamp 1000 from routes/1 [rewrite access response]: runs\n" +
				"route prefer 800 from routes/1 [rewrite access response]: runs\n" + served},
		{"global rules without a route", 0, map[string]string{"global_rules/1": `{"id":"1","plugins":{"stamp":{}}}`}, `{"path":"/"}`,
			"fault no_route 404\nglobal stamp 1000 from global_rules/1 [rewrite access response]: runs\n"},
		{"missing service", 0, map[string]string{"routes/1": `{"uri":"/*","service_id":"none","plugins":{"stamp":{}}}`}, `{"path":"/"}`,
			"fault missing_service 404\nroute routes/1 by  /*\nroute stamp 1000 from routes/1 []: not reached: missing_service\n"},
		{"missing upstream", 0, map[string]string{"routes/1": `{"uri":"/*","upstream_id":"none"}`}, `{"path":"/"}`,
			"fault missing_upstream 502\nroute routes/1 by  /*\n"},
		{"no node", 0, map[string]string{"routes/1": `{"uri":"/*","upstream":{"nodes":[]}}`}, `{"path":"/"}`,
			"fault no_endpoint 503\nroute routes/1 by  /*\nupstream default of routes/1, roundrobin, next \n"},
		{"split", 0, map[string]string{
			"upstreams/v2": `{"nodes":{"10.0.0.2:80":1}}`,
			"routes/1": `{"uri":"/*","plugins":{"traffic-split":{"rules":[{"match":[{"vars":[["arg_v","==","7"]]},{"vars":[["http_x","==","1"]]}],` +
				`"weighted_upstreams":[{"upstream_id":"v2","weight":3},{"weight":1}]}]}},` + to1 + `}`,
		}, `{"path":"/","headers":{"X":"1"}}`,
			"route routes/1 by  /*\nroute traffic-split 966 from routes/1 [access]: runs\n" +
				"split rule 0 next \"v2\": match[1] of rule 0 holds; v2 3 0.75; default 1 0.25\n" +
				"upstream v2 of upstreams/v2, roundrobin, next 10.0.0.2:80\n"},
		{"no rule of the split matches", 0, map[string]string{
			"routes/1": `{"uri":"/*","plugins":{"traffic-split":{"rules":[{"match":[{"vars":[["arg_v","==","7"]]}]}]}},` + to1 + `}`,
		}, `{"path":"/"}`,
			"route routes/1 by  /*\nroute traffic-split 966 from routes/1 [access]: runs\n" +
				"split rule -1 next \"\": none of the 1 rules matches\n" + served},
		{"split of a service", 0, map[string]string{
			"services/s": `{"plugins":{"traffic-split":{"rules":[{"weight":1,"name":"blue","upstream":{"nodes":{"10.0.0.5:80":1}}}]}},` + to1 + `}`,
			"routes/1":   `{"uri":"/*","service_id":"s","timeout":{"connect":1,"send":1,"read":1}}`,
		}, `{"path":"/"}`,
			"route routes/1 by  /*\nroute traffic-split 966 from services/s [access]: runs\n" +
				"split rule 0 next \"blue\": rule 0 is for every request; blue 1 1\nupstream blue of services/s, roundrobin, next 10.0.0.5:80\n"},
		{"split to nowhere", 0, map[string]string{
			"routes/1": `{"uri":"/*","plugins":{"traffic-split":{"rules":[{"weight":1,"upstream_id":"none"}]}},` + to1 + `}`,
		}, `{"path":"/"}`,
			"route routes/1 by  /*\nroute traffic-split 966 from routes/1 [access]: runs\n" +
				"split rule 0 next \"\": rule 0 names an upstream that does not exist, whether the rule matches or not; none 1 1\n"},
		{"a plugin answers", 0, map[string]string{
			"services/s": `{"plugins":{"mocking":{"response_example":"x","response_status":201}}}`,
			"routes/1":   `{"uri":"/*","service_id":"s","plugins":{"traffic-split":{"rules":[{"weight":1}]}}}`,
		}, `{"path":"/"}`,
			"route routes/1 by  /*\nroute mocking 10900 from services/s [access]: runs\nroute traffic-split 966 from routes/1 [access]: runs\n" +
				"answers: mocking from services/s in access, 201\n"},
		{"a plugin answers a part", 0, map[string]string{
			"routes/1": `{"uri":"/*","plugins":{"fault-injection":{"abort":{"http_status":503,"percentage":20}},"redirect":{"regex_uri":["^/old","/new"]}},` + to1 + `}`,
		}, `{"path":"/x"}`,
			"route routes/1 by  /*\nroute fault-injection 11000 from routes/1 [rewrite]: runs\nroute redirect 900 from routes/1 [rewrite]: runs\n" +
				"may answer: fault-injection from routes/1 in rewrite, 503, 0.2\n" + served},
		{"the rewrite phase answers first", 0, map[string]string{
			"routes/1": `{"uri":"/*","plugins":{"mocking":{"response_example":"x","response_status":201},"redirect":{"uri":"/new"}}}`,
		}, `{"path":"/x"}`,
			"route routes/1 by  /*\nroute mocking 10900 from routes/1 [access]: runs\nroute redirect 900 from routes/1 [rewrite]: runs\n" +
				"answers: redirect from routes/1 in rewrite, 302\n"},
		{"a plugin that is filtered out does not answer", 0, map[string]string{
			"routes/1": `{"uri":"/*","plugins":{"mocking":{"response_example":"x","response_status":201,"_meta":{"filter":[["arg_mock","==","1"]]}}}}`,
		}, `{"path":"/x"}`,
			"fault no_upstream 503\nroute routes/1 by  /*\nroute mocking 10900 from routes/1 []: filtered out\n"},
		{"a global rule answers what no route is for", 0, map[string]string{
			"global_rules/1": `{"id":"1","plugins":{"mocking":{"response_example":"x","response_status":201}}}`,
		}, `{"path":"/x"}`, "global mocking 10900 from global_rules/1 [access]: runs\nanswers: mocking from global_rules/1 in access, 201\n"},
		{"a global rule comes before a route that is not complete", 0, map[string]string{
			"global_rules/1": `{"id":"1","plugins":{"redirect":{"uri":"/new"}}}`,
			"routes/1":       `{"uri":"/*","service_id":"none"}`,
		}, `{"path":"/x"}`,
			"route routes/1 by  /*\nglobal redirect 900 from global_rules/1 [rewrite]: runs\nanswers: redirect from global_rules/1 in rewrite, 302\n"},
		{"upstream of the service, with the route's clocks", 0, map[string]string{
			"services/s": `{` + to1 + `}`, "routes/1": `{"uri":"/*","service_id":"s","timeout":{"connect":1,"send":1,"read":1}}`,
		}, `{"path":"/"}`, "route routes/1 by  /*\nupstream default of services/s, roundrobin, next 10.0.0.1:80\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newExplainRig(t, ServerOptions{}, tt.mode, tt.docs)
			if got := explainedText(r.explain(tt.request)); got != tt.want {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
		})
	}
}

// The request is told in the form that is matched, after the edge has had its say.
func TestExplainRequestAsMatched(t *testing.T) {
	o := ServerOptions{MaxHead: 512, MaxLines: 8, MaxBody: 8, Trusted: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, TrimSlash: true}
	r := newExplainRig(t, o, 0, map[string]string{"routes/1": `{"uri":"/*",` + to1 + `}`})
	tests := []struct {
		request, fault string
		want           ExplainedRequest
	}{
		{`{"path":"/a//../%62/?x=%31","host":"A.Com:8080"}`, "", ExplainedRequest{Method: "GET", Host: "a.com", Path: "/b", Query: "x=%31", Client: "127.0.0.1"}},
		{`{"path":"/","body":"1"}`, "", ExplainedRequest{Method: "POST", Host: "localhost", Path: "/", Client: "127.0.0.1"}},
		{`{"path":"/","client":"10.1.1.1","headers":{"X-Real-IP":"8.8.8.8"},"tls":true}`, "",
			ExplainedRequest{Method: "GET", Host: "localhost", Path: "/", Client: "8.8.8.8", TLS: true}},
		{`{"path":"/","client":"[::ffff:11.1.1.1]:99","headers":{"X-Real-IP":"8.8.8.8","host":"b.com"}}`, "",
			ExplainedRequest{Method: "GET", Host: "b.com", Path: "/", Client: "11.1.1.1"}},
		{`{"path":"http://c.com/p?q"}`, "", ExplainedRequest{Method: "GET", Host: "c.com", Path: "/p", Query: "q", Client: "127.0.0.1"}},
		{`{"path":"/","method":"get"}`, "bad_request", ExplainedRequest{Method: "get", Path: "/", Client: "127.0.0.1"}},
		{`{"path":"/","method":"TRACE"}`, "method_not_allowed", ExplainedRequest{Method: "TRACE", Path: "/", Client: "127.0.0.1"}},
		{`{"path":"/","host":"a b"}`, "bad_host", ExplainedRequest{Method: "GET", Path: "/", Client: "127.0.0.1"}},
		{`{"path":"/","headers":{"Host":["a","b"]}}`, "bad_request", ExplainedRequest{Method: "GET", Path: "/", Client: "127.0.0.1"}},
		{`{"path":"/","headers":{"Transfer-Encoding":"gzip"},"body":"1"}`, "bad_request", ExplainedRequest{Method: "POST", Path: "/", Client: "127.0.0.1"}},
		{`{"path":"/","body":"123456789"}`, "body_too_large", ExplainedRequest{Method: "POST", Path: "/", Client: "127.0.0.1"}},
		{`{"path":"/` + strings.Repeat("a", 600) + `"}`, "head_too_large",
			ExplainedRequest{Method: "GET", Path: "/" + strings.Repeat("a", 600), Client: "127.0.0.1"}},
	}
	for _, tt := range tests {
		e := r.explain(tt.request)
		if tt.fault != "" { // what was understood before the refusal is told as it came
			e.Request.Host = ""
		}
		code := ""
		if e.Fault != nil {
			code = e.Fault.Code
		}
		if e.Request != tt.want || code != tt.fault {
			t.Errorf("%s\ngot  %+v, fault %q\nwant %+v, fault %q", tt.request, e.Request, code, tt.want, tt.fault)
		}
	}
}

func TestExplainRefusesDescriptions(t *testing.T) {
	r := newExplainRig(t, ServerOptions{}, 0, nil)
	tests := []struct {
		request string
		status  int
		want    string
	}{
		{``, 400, "the document is empty"},
		{`[]`, 400, "expected an object"},
		{`{"path":"/"} x`, 400, "unexpected data"},
		{`{}`, 400, "path: expected the path"},
		{`{"path":"/","Host":"a"}`, 400, `unknown member "Host": a description has method, host, path,`},
		{`{"path":"/","vars":[]}`, 400, `unknown member "vars"`},
		{`{"path":1}`, 400, "path: expected a text"},
		{`{"path":"/","tls":"yes"}`, 400, "tls: expected true or false"},
		{`{"path":"/","headers":[]}`, 400, "headers: expected an object of texts"},
		{`{"path":"/","headers":{"a":1}}`, 400, "headers: expected an object of texts"},
		{`{"path":"/","headers":{"a":["b",1]}}`, 400, "headers: expected an object of texts"},
		{`{"path":"/","headers":{"a":"b\r\nc: d"}}`, 400, `no line break or NUL in it: "a"`},
		{`{"path":"/ HTTP/1.1\r\nX: y"}`, 400, "path: a request has no line break"},
		{`{"path":"/","method":"GET /x"}`, 400, "method: a request has no space"},
		{`{"path":"/","host":"a","headers":{"HOST":"b"}}`, 400, "host: is given as a member and as a header"},
		{`{"path":"/","client":"localhost"}`, 400, `client: expected an IP address, with or without a port, got "localhost"`},
		{`{"path":"/","client":"fe80::1%eth0"}`, 400, "client: expected an IP address"},
		{`{"path":"/","consumer":"nobody"}`, 400, `consumer: there is no consumer "nobody"`},
		{`{"path":"/` + strings.Repeat("a", maxExplainRequest) + `"}`, 413, "at most 1048576 are read"},
	}
	for _, tt := range tests {
		e, err := r.Explain([]byte(tt.request))
		var refused *resource.Error
		if !errors.As(err, &refused) || refused.Status != tt.status || !strings.Contains(refused.Msg, tt.want) {
			t.Errorf("%.80s: got %+v, %v, want %d %s", tt.request, e, err, tt.status, tt.want)
		}
	}
}

// Ten thousand explanations take no slot of a split, count nothing, pin nothing and leave the balancers where they are.
func TestExplainChangesNothing(t *testing.T) {
	r := newExplainRig(t, ServerOptions{}, 0, map[string]string{
		"upstreams/v2": `{"nodes":{"10.0.0.2:80":2,"10.0.0.3:80":1}}`,
		"routes/1": `{"uri":"/*","plugins":{"answer":{},"traffic-split":{"rules":[{"weight":8,"upstream_id":"v2"},{"weight":2,"name":"old"}]}},` +
			to1 + `}`,
	})
	metrics := func() string {
		var b bytes.Buffer
		if err := r.meter.Write(&b); err != nil {
			t.Fatal(err)
		}
		var kept []string
		for line := range strings.Lines(b.String()) {
			if strings.Contains(line, "headgate") || strings.Contains(line, "apisix") {
				kept = append(kept, line)
			}
		}
		return strings.Join(kept, "")
	}
	before := metrics()
	want := map[string]int{"routes/1 v2": 80, "routes/1 old": 20}
	got := map[string]int{}
	const question = `{"path":"/a"}`
	next := ""
	for i := range 100 {
		for range 100 {
			if next = r.explain(question).Split.Next; next == "" {
				t.Fatal("no branch")
			}
		}
		if i == 0 {
			if after := metrics(); after != before {
				t.Errorf("metrics were\n%s\nand are\n%s", before, after)
			}
		}
		answer := r.handle("GET /a")
		if answer != "routes/1 "+next {
			t.Fatalf("request %d was answered %q, explained as %s", i, answer, next)
		}
		got[answer]++
	}
	if !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if node := r.explain(question).Upstream.Next; node != "10.0.0.2:80" {
		t.Errorf("the first node of the sequence is not next: %s", node)
	}
	if _, err := r.a.Apply(context.Background(), Change{Key: "upstreams/new", Edit: func(*store.Item) ([]byte, error) {
		return []byte(`{"id":"new","nodes":{"10.0.0.9:80":1}}`), nil
	}}); err != nil {
		t.Fatal(err)
	}
	if err := r.a.submit(context.Background(), func() {
		if pending := r.a.compiler.Collect(func(f func()) { f() }); pending != 0 {
			t.Errorf("%d snapshots are still held", pending)
		}
	}); err != nil {
		t.Error(err)
	}
}

// The route that is explained is the route that serves.
func TestExplainAgreesWithTheGateway(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	one := func(list ...string) string { return list[random.IntN(len(list))] }
	docs := map[string]string{"services/s": `{"hosts":["h"]}`}
	for i := range 300 {
		docs[fmt.Sprintf("routes/%03d", i)] = `{"uri":"/` + one("a", "b", "a/b") + one("", "*", "/*", "/*/z") + `","plugins":{"answer":{}},"priority":` + one("0", "1", "2") +
			one("", "", `,"host":"h"`, `,"host":"*"`, `,"host":"no"`, `,"service_id":"s"`) + one("", `,"methods":["PUT"]`, `,"status":0`) +
			one("", `,"remote_addr":"127.0.0.0/8"`, `,"remote_addr":"10.0.0.0/8"`) + one("", `,"vars":[["arg_v","==","1"]]`, `,"vars":[["http_x","has","y"]]`) + `}`
	}
	for _, mode := range []route.Mode{route.HostURI, route.URI} {
		r := newExplainRig(t, ServerOptions{}, mode, docs)
		served := map[string]bool{}
		for range 150 {
			method, path := one("GET", "PUT", "FOO"), "/"+one("a", "b", "a/b", "a//b", "a/%62/c", "b/c/z", "a/b/z", "c")+one("", "?v=1", "?v=2")
			e := r.explain(`{"host":"h","method":"` + method + `","path":"` + path + `"}`)
			want := ""
			if e.Route != nil {
				want = e.Route.Key
			}
			got, _, _ := strings.Cut(r.handle(method+" "+path), " ")
			if !strings.HasPrefix(got, "routes/") {
				got = ""
			}
			if got != want {
				t.Fatalf("%s %s is served by %q, explained as %q", method, path, got, want)
			}
			for _, p := range e.PassedOver {
				if p.Key == want || p.Why == "" || strings.Contains(p.Why, "when it was asked") {
					t.Errorf("%s %s: %+v", method, path, p)
				}
			}
			served[got] = true
		}
		if len(served) < 4 {
			t.Errorf("%v: only %v", mode, served)
		}
	}
}

// Explanations and edits may meet: each explanation shows one configuration.
func TestExplainDuringEdits(t *testing.T) {
	doc := func(n int) string {
		return fmt.Sprintf(`{"name":"r%d","uri":"/*","plugins":{"stamp":{"_meta":{"priority":%d}}},"upstream":{"name":"u%d","nodes":{"10.0.0.1:80":1}}}`, n, n, n)
	}
	r := newExplainRig(t, ServerOptions{}, 0, map[string]string{"routes/1": doc(1)})
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for n := 2; ; n++ {
			select {
			case <-stop:
				return
			default:
				if _, err := r.a.Apply(context.Background(), Change{Key: "routes/1", Edit: func(*store.Item) ([]byte, error) { return []byte(doc(n)), nil }}); err != nil {
					t.Error(err)
					return
				}
			}
		}
	}()
	explained := 0
	for range 300 {
		e, err := r.Explain([]byte(`{"path":"/"}`))
		var busy *resource.Error
		if errors.As(err, &busy) && busy.Status == 503 {
			continue
		} else if err != nil {
			t.Fatal(err)
		}
		explained++
		n := strings.TrimPrefix(e.Route.Name, "r")
		if e.Upstream.Name != "u"+n || fmt.Sprint(e.Plugins[0].Priority) != n {
			t.Fatalf("a mixture: %+v %+v %+v", e.Route, e.Upstream, e.Plugins)
		}
	}
	close(stop)
	<-done
	if explained == 0 {
		t.Error("no explanation came through")
	}
}

// The answer goes out as JSON with these members.
func TestExplanationAsJSON(t *testing.T) {
	r := newExplainRig(t, ServerOptions{}, 0, map[string]string{"routes/1": `{"uri":"/*","name":"n",` + to1 + `}`})
	got, err := json.Marshal(r.explain(`{"path":"/a?b=c"}`))
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"revision":1,"request":{"method":"GET","host":"localhost","path":"/a","query":"b=c","client":"127.0.0.1"},` +
		`"route":{"key":"routes/1","id":"1","name":"n","uri":"/*","host":"","priority":0},"passed_over":[],"plugins":[],` +
		`"upstream":{"name":"default","from":"routes/1","type":"roundrobin","nodes":[{"addr":"10.0.0.1:80","weight":1,"priority":0,"healthy":true}],` +
		`"next":"10.0.0.1:80"}}`
	if string(got) != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	got, err = json.Marshal(newExplainRig(t, ServerOptions{}, 0, nil).explain(`{"path":"/"}`))
	if want := `"fault":{"code":"no_route","status":404,"side":"gateway"},"route":null,"passed_over":[],"plugins":[],"upstream":null}`; err != nil || !strings.HasSuffix(string(got), want) {
		t.Errorf("got\n%s, %v\nwant at the end\n%s", got, err, want)
	}
}

func FuzzExplain(f *testing.F) {
	r := newExplainRig(f, ServerOptions{}, 0, map[string]string{
		"routes/1":       `{"uri":"/a/*","host":"*.com","vars":[["arg_v","==","1"]],` + to1 + `}`,
		"routes/2":       `{"uri":"/*","plugins":{"traffic-split":{"rules":[{"match":[{"vars":[["post_arg.x","==","1"]]}],"weighted_upstreams":[{"weight":1}]}]}},` + to1 + `}`,
		"consumers/jack": `{"username":"jack","plugins":{"key-auth":{"key":"k"},"stamp":{}}}`,
	})
	for _, seed := range []string{
		`{"path":"/"}`, `{"path":"/a/b?v=1","host":"x.com","method":"PUT","client":"[::1]:4","consumer":"jack"}`,
		`{"path":"/","headers":{"Content-Type":"application/json","A":["b","c"]},"body":"{\"x\":\"1\"}","tls":true}`,
		`{"path":"*","method":"OPTIONS"}`, `{"path":"/","headers":{"Expect":"100-continue","Content-Length":"5"},"body":"12345"}`,
		`{"path":"/","headers":{"Transfer-Encoding":"chunked"},"body":"1\r\na\r\n0\r\n\r\n"}`, `{"path":"","x":1}`, `[]`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		e, err := r.Explain(raw)
		var refused *resource.Error
		switch {
		case err != nil && !errors.As(err, &refused):
			t.Errorf("%s: %v", raw, err)
		case err == nil && e.Fault == nil && (e.Route == nil || e.Upstream == nil || e.Upstream.Next == ""):
			t.Errorf("%s: neither served nor a fault: %+v", raw, e)
		case err == nil && e.Fault != nil && e.Fault.Side == "gateway" && e.Fault.Code != "no_route":
			t.Errorf("%s: %+v", raw, e.Fault)
		}
	})
}
