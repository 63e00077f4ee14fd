package main

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"headgate/conf"
)

const expiredKey = "an-expired-key-of-at-least-32-characters"

// refusal is a call of the Admin API that must change nothing.
type refusal struct {
	name         string
	method, path string // path follows /apisix/admin
	fields       []string
	body         string
	status       int
	want         string // the whole body; "..." at its end stands for anything
}

// withKey is what most calls send.
var withKey = []string{"X-API-KEY: " + adminKey}

const (
	missingKey = `{"error_msg":"failed to check token","description":"missing apikey"}` + "\n"
	wrongKey   = `{"error_msg":"failed to check token","description":"wrong apikey"}` + "\n"
	viewerOnly = `{"error_msg":"failed to check token","description":"invalid method for role viewer"}` + "\n"
)

// keyRefusals are about who asks.
func keyRefusals() []refusal {
	const doc = `{"uri":"/x","upstream_id":"1"}`
	wrong := strings.Replace(adminKey, "an-", "am-", 1)
	return []refusal{
		{"no key", "PUT", "/routes/1", nil, doc, 401, missingKey},
		{"wrong key", "PUT", "/routes/1", []string{"X-API-KEY: " + wrong}, doc, 401, wrongKey},
		{"part of a key", "PUT", "/routes/1", []string{"X-API-KEY: " + adminKey[:36]}, doc, 401, wrongKey},
		{"empty key", "PUT", "/routes/1", []string{"X-API-KEY: "}, doc, 401, wrongKey},
		{"wrong key in the query beats the header", "PUT", "/routes/1?api_key=x", withKey, doc, 401, wrongKey},
		{"wrong key in a cookie", "PUT", "/routes/1", []string{"Cookie: x_api_key=" + wrong}, doc, 401, wrongKey},
		{"expired key", "PUT", "/routes/1", []string{"X-API-KEY: " + expiredKey}, doc, 401, wrongKey},
		{"expired key, reading", "GET", "/routes", []string{"X-API-KEY: " + expiredKey}, "", 401, wrongKey},
		{"viewer puts", "PUT", "/routes/1", []string{"X-API-KEY: " + viewerKey}, doc, 401, viewerOnly},
		{"viewer patches weights", "PATCH", "/routes/split/weights", []string{"X-API-KEY: " + viewerKey}, "v1=1", 401, viewerOnly},
		{"viewer deletes", "DELETE", "/routes/split", []string{"X-API-KEY: " + viewerKey}, "", 401, viewerOnly},
		{"no key for a resource that does not exist", "GET", "/nothing", nil, "", 401, missingKey},
	}
}

func errorMsg(text string) string { return `{"error_msg":` + text + "}\n" }

// documentRefusals are about what is asked.
func documentRefusals() []refusal {
	put := func(name, path, body, want string) refusal {
		return refusal{name, "PUT", path, withKey, body, 400, errorMsg(want)}
	}
	split := func(rules string) string {
		return `{"uri":"/x","upstream_id":"u1","plugins":{"traffic-split":` + rules + `}}`
	}
	const (
		pluginErr = `"failed to check the configuration of plugin traffic-split err: `
		item      = `property \"rules\" validation failed: failed to validate item `
	)
	toml := append([]string{"Content-Type: application/toml"}, withKey...)
	return []refusal{
		{"malformed JSON", "PUT", "/routes/1", withKey, `{"uri":`, 400, errorMsg(`"invalid request body: unexpected end of the document","req_body":"{\"uri\":"`)},
		{"JSON and more", "PUT", "/routes/1", withKey, `{"uri":"/x"} x`, 400,
			errorMsg(`"invalid request body: unexpected data after the document at byte 13","req_body":"{\"uri\":\"/x\"} x"`)},
		{"malformed TOML", "PUT", "/routes/1", toml, "uri = \n", 400, `{"error_msg":"invalid request body: line 1, key uri: ...`},
		{"JSON called TOML", "PUT", "/routes/1", toml, `{"uri":"/x"}`, 400, `{"error_msg":"invalid request body: line 1: ...`},
		put("no body", "/routes/1", "", `"missing configurations"`),
		put("no id", "/routes", `{"uri":"/x","upstream_id":"u1"}`, `"missing route id"`),
		put("two ids", "/routes/1", `{"id":"2","uri":"/x","upstream_id":"u1"}`, `"wrong route id"`),
		put("bad id", "/routes/a:b", `{"uri":"/x","upstream_id":"u1"}`, `"invalid configuration: property \"id\" validation failed: object matches none of the required"`),
		put("forbidden member", "/routes/1", `{"uri":"/x","upstream_id":"u1","create_time":1}`, `"the property is forbidden:  create_time"`),
		put("unknown member", "/routes/1", `{"uri":"/x","upstream_id":"u1","urj":1}`, `"invalid configuration: additional properties forbidden, found urj"`),
		put("no uri", "/routes/1", `{"upstream_id":"u1"}`, `"invalid configuration: allOf 1 failed: value should match only one schema, but matches none"`),
		put("nothing to do", "/routes/1", `{"uri":"/x"}`, `"invalid configuration: object matches none of the required: [\"plugins\",\"uri\"] or [\"upstream\",\"uri\"] or ..."`),
		put("wrong type", "/routes/1", `{"uri":7,"upstream_id":"u1"}`, `"invalid configuration: property \"uri\" validation failed: wrong type: expected string, got number"`),
		put("wrong value", "/routes/1", `{"uri":"/x","upstream_id":"u1","methods":["FETCH"]}`, `"invalid configuration: property \"methods\" validation failed: failed to validate item 1: matches none of the enum values"`),
		put("wrong status", "/routes/1", `{"uri":"/x","upstream_id":"u1","status":2}`, `"invalid configuration: property \"status\" validation failed: matches none of the enum values"`),
		put("host and hosts", "/routes/1", `{"uri":"/x","upstream_id":"u1","host":"a","hosts":["b"]}`, `"only one of host or hosts is allowed"`),
		put("unknown operator", "/routes/1", `{"uri":"/x","upstream_id":"u1","vars":[["arg_a","=","1"]]}`, `"failed to validate the 'vars' expression: invalid operator '='"`),
		put("unknown plugin", "/routes/1", `{"uri":"/x","upstream_id":"u1","plugins":{"no-such-plugin":{}}}`, `"unknown plugin [no-such-plugin]"`),
		put("plugin that is no object", "/routes/1", `{"uri":"/x","upstream_id":"u1","plugins":{"prometheus":1}}`, `"invalid plugin conf 1 for plugin [prometheus]"`),
		put("missing upstream", "/routes/1", `{"uri":"/x","upstream_id":"nowhere"}`, `"failed to fetch upstream info by upstream id [nowhere], response code: 404"`),
		put("missing service", "/routes/1", `{"uri":"/x","service_id":"nowhere"}`, `"failed to fetch service info by service id [nowhere], response code: 404"`),
		put("weight of -1 at a node", "/upstreams/1", `{"nodes":{"127.0.0.1:80":-1}}`, `"invalid configuration: property \"nodes\" validation failed: object matches none of the required"`),
		put("bad port", "/upstreams/1", `{"nodes":{"127.0.0.1:99999":1}}`, `"invalid port 99999"`),
		put("rewrite without a host", "/upstreams/1", `{"nodes":{"127.0.0.1:80":1},"pass_host":"rewrite"}`, "\"`upstream_host` can't be empty when `pass_host` is `rewrite`\""),
		put("weight of -1", "/routes/1", split(`{"rules":[{"weight":-1,"upstream_id":"u1"}]}`), pluginErr+item+`1: property \"weight\" validation failed: expected -1 to be at least 0"`),
		put("weight that is a text", "/routes/1", split(`{"rules":[{"weight":"50","upstream_id":"u1"}]}`), pluginErr+item+`1: property \"weight\" validation failed: wrong type: expected integer, got string"`),
		put("weights of 0 only", "/routes/1", split(`{"rules":[{"weight":0,"upstream_id":"u1"}]}`), pluginErr+`the weights of rules add up to 0: at least one branch needs a weight above 0"`),
		put("a branch without a valid upstream", "/routes/1", split(`{"rules":[{"weight":1,"upstream":{"nodes":{"127.0.0.1:80":-1}}}]}`),
			pluginErr+item+`1: property \"upstream\" validation failed: property \"nodes\" validation failed: object matches none of the required"`),
		put("a branch with a bad rewrite", "/routes/1", split(`{"rules":[{"weight":1,"rewrite":{"uri":"no-slash"}}]}`),
			pluginErr+item+`1: property \"rewrite\" validation failed: property \"uri\" validation failed: failed to match pattern \"^\\\\/.*\" with \"no-slash\""`),
		put("two forms in one split", "/routes/1", split(`{"rules":[{"weight":1},{"weighted_upstreams":[{"weight":1}]}]}`),
			pluginErr+`rules mixes two forms: item 1 is a branch (weight, upstream, upstream_id, rewrite) and item 2 is a rule (match, weighted_upstreams); `+
				`write branches only, or put them into weighted_upstreams"`),
		{"patch that breaks the document", "PATCH", "/routes/split", withKey, `{"uri":null}`, 400, errorMsg(`"invalid configuration: allOf 1 failed: value should match only one schema, but matches none"`)},
		{"patch of nothing", "PATCH", "/routes/nothing", withKey, `{"desc":"x"}`, 404, `{"message":"Key not found"}` + "\n"},
		// APISIX joins the path like this (apisix-observed 1.5).
		{"patch of a path through a text", "PATCH", "/routes/split/uri/x", withKey, `1`, 400, errorMsg(`"invalid sub-path: /uri1x"`)},
		{"post with an id", "POST", "/routes/1", withKey, `{"uri":"/x","upstream_id":"u1"}`, 400, errorMsg(`"wrong route id, do not need it"`)},
		{"delete in use", "DELETE", "/upstreams/u1", withKey, "", 400, errorMsg(`"can not delete this upstream, route [user] is still using it now"`)},
		{"delete without an id", "DELETE", "/routes", withKey, "", 400, errorMsg(`"missing route id"`)},
		{"delete of nothing", "DELETE", "/routes/nothing", withKey, "", 404, `{"message":"Key not found"}` + "\n"},
		{"unknown resource", "GET", "/nothings", withKey, "", 404, errorMsg(`"Unsupported resource type: nothings"`)},
		{"stream routes", "PUT", "/stream_routes/1", withKey, "{}", 400, errorMsg(`"stream mode is disabled, can not add stream routes"`)},
		{"bad ttl", "PUT", "/routes/1?ttl=soon", withKey, `{"uri":"/x","upstream_id":"u1"}`, 400, errorMsg(`"invalid argument ttl: should be a number"`)},
		{"body over the cap", "PUT", "/routes/1", withKey, strings.Repeat(" ", 1572865), 400,
			errorMsg(`"invalid request body: request size 1572865 is greater than the maximum size 1572864 allowed"`)},
	}
}

// weightRefusals are about the call that shifts weights.
func weightRefusals() []refusal {
	patch := func(name, route, body, want string) refusal {
		return refusal{name, "PATCH", "/routes/" + route + "/weights", withKey, body, 400, errorMsg(want)}
	}
	return []refusal{
		patch("unknown branch", "split", "v1=1&v3=2", `"unknown branch \"v3\", known branches: v1, v2"`),
		patch("negative", "split", "v1=-1", `"weight of branch \"v1\": expected a whole number from 0, got \"-1\""`),
		patch("fraction", "split", `{"v1":0.5}`, `"weight of branch \"v1\": expected a whole number from 0, got 0.5"`),
		patch("text", "split", "v1=many", `"weight of branch \"v1\": expected a whole number from 0, got \"many\""`),
		patch("larger than any integer", "split", "v1=9223372036854775808", `"weight of branch \"v1\": expected a whole number from 0, got \"9223372036854775808\""`),
		patch("all zero", "split", "v1=0&v2=0", `"the weights of all branches would be 0, expected at least one above 0"`),
		patch("nothing", "split", "", `"missing new configuration"`),
		{"a branch twice", "PATCH", "/routes/split/weights", withKey, "v1=1&v1=2", 400,
			errorMsg(`"invalid request body: branch \"v1\" is given twice","req_body":"v1=1&v1=2"`)},
		{"no pairs", "PATCH", "/routes/split/weights", withKey, "80/20", 400,
			errorMsg(`"invalid request body: expected branch=weight pairs such as v1=80&v2=20, got \"80/20\"","req_body":"80/20"`)},
		patch("a route without a split", "user", "v1=1", `"route [user] has no traffic-split plugin whose weights could be set"`),
		{"no route", "PATCH", "/routes/nothing/weights", withKey, "v1=1", 404, `{"message":"Key not found"}` + "\n"},
	}
}

// refused is a gateway with a split, whose configuration must stay what it is.
type refused struct {
	*gate
	v1, v2 *upstreamServer
	before string
}

func startRefused(t *testing.T, change func(c *conf.Config)) *refused {
	t.Helper()
	c := onLoopback(t, conf.Default())
	c.Admin.Keys = append(c.Admin.Keys, conf.AdminKey{Name: "old", Key: expiredKey, Role: conf.RoleAdmin, Expires: time.Now().Add(-time.Minute)})
	if change != nil {
		change(c)
	}
	r := &refused{v1: newUpstream(t, "v1", nil), v2: newUpstream(t, "v2", nil)}
	r.gate = startGate(t, c)
	r.configure("PUT", "/upstreams/u1", fmt.Sprintf(`{"nodes":{%q:1}}`, r.v1.addr))
	r.configure("PUT", "/routes/user", `{"uri":"/user","upstream_id":"u1"}`)
	branch := func(u *upstreamServer, name string) string {
		return fmt.Sprintf(`{"weight":50,"upstream":{"nodes":{%q:1}},"rewrite":{"uri":"/%s"}}`, u.addr, name)
	}
	r.configure("PUT", "/routes/split", fmt.Sprintf(`{"uri":"/split","plugins":{"traffic-split":{"rules":[%s,%s]}}}`, branch(r.v1, "v1"), branch(r.v2, "v2")))
	r.before = r.documents()
	return r
}

// documents is everything that is stored, with revisions.
func (r *refused) documents() string {
	r.t.Helper()
	all := ""
	for _, kind := range []string{"routes", "services", "upstreams"} {
		all += r.admin("GET", "/"+kind, "").body
	}
	return all
}

// untouched sees to it that the documents are those from before, and that traffic is split as before.
func (r *refused) untouched(what string) {
	t := r.t
	t.Helper()
	if after := r.documents(); after != r.before {
		t.Errorf("%s changed the documents\nfrom %sto   %s", what, r.before, after)
		r.before = after
	}
	r.v1.take()
	r.v2.take()
	for range 2 {
		if a := r.send("GET", "http://"+r.addr+"/split", ""); a.status != http.StatusOK {
			t.Errorf("after %s: %v", what, a)
		}
	}
	if a, b := len(r.v1.take()), len(r.v2.take()); a != 1 || b != 1 {
		t.Errorf("after %s the split is %d:%d", what, a, b)
	}
}

func TestRefusals(t *testing.T) {
	r := startRefused(t, nil)
	url := "http://" + r.process.addr("admin") + "/apisix/admin"
	for _, group := range [][]refusal{keyRefusals(), documentRefusals(), weightRefusals()} {
		for _, tt := range group {
			a := r.send(tt.method, url+tt.path, tt.body, tt.fields...)
			begin, open := strings.CutSuffix(tt.want, "...")
			if !open {
				begin, _, open = strings.Cut(tt.want, "...")
			}
			if a.status != tt.status || a.body != tt.want && !(open && strings.HasPrefix(a.body, begin)) {
				t.Errorf("%s: %s %s\ngot  %d %swant %d %s", tt.name, tt.method, tt.path, a.status, a.body, tt.status, tt.want)
			}
			if kind := a.header.Get("Content-Type"); kind != "application/json" {
				t.Errorf("%s: Content-Type %q", tt.name, kind)
			}
			r.untouched(tt.name)
		}
	}
	if strings.Contains(r.logged.String(), adminKey) || strings.Contains(r.logged.String(), expiredKey) {
		t.Error("a key stands in the log")
	}
	// A key that was refused 23 times does not keep the right one out.
	if a := r.admin("GET", "/routes/split", ""); a.status != http.StatusOK {
		t.Error(a)
	}
}

// A body far over the cap is not read to its end: its sender gets the answer or, when it is still writing, a reset.
func TestBodyFarOverCap(t *testing.T) {
	r := startRefused(t, nil)
	url := "http://" + r.process.addr("admin") + "/apisix/admin/routes/1"
	a, err := trySend(r.client, "PUT", url, strings.Repeat(" ", 4<<20), withKey...)
	want := errorMsg(`"invalid request body: request size 4194304 is greater than the maximum size 1572864 allowed"`)
	if err == nil && (a.status != http.StatusBadRequest || a.body != want) {
		t.Error(a)
	}
	r.untouched("a body far over the cap")
}

// What looks odd and is right.
func TestAccepted(t *testing.T) {
	r := startRefused(t, nil)
	for _, tt := range []struct{ name, method, path, body string }{
		{"a weight of 1e12", "PUT", "/routes/odd", `{"uri":"/x","plugins":{"traffic-split":{"rules":[{"weight":1000000000000,"upstream_id":"u1"},{"weight":1}]}},"upstream_id":"u1"}`},
		{"a weight of 1e12, as a float", "PUT", "/routes/odd", `{"uri":"/x","plugins":{"traffic-split":{"rules":[{"weight":1e12,"upstream_id":"u1"},{"weight":1}]}},"upstream_id":"u1"}`},
		{"a weights call of 1e12", "PATCH", "/routes/split/weights", "v1=1000000000000"},
		{"no rules", "PUT", "/routes/odd", `{"uri":"/x","plugins":{"traffic-split":{"rules":[]}},"upstream_id":"u1"}`},
		{"no rules at all", "PUT", "/routes/odd", `{"uri":"/x","plugins":{"traffic-split":{}},"upstream_id":"u1"}`},
		{"a whole number with a fraction of 0", "PUT", "/routes/odd", `{"uri":"/x","priority":1.0,"upstream_id":"u1"}`},
	} {
		r.configure(tt.method, tt.path, tt.body)
		if a := r.send("GET", "http://"+r.addr+"/split", ""); a.status != http.StatusOK || a.body != "v1\n" && tt.method == "PATCH" {
			t.Errorf("%s: the split answers %v", tt.name, a)
		}
		if tt.method == "PATCH" {
			continue
		}
		if a := r.send("GET", "http://"+r.addr+"/x", ""); a.status != http.StatusOK || a.body != "v1\n" {
			t.Errorf("%s: the route answers %v", tt.name, a)
		}
	}
}

// Only the networks of admin.allow may talk to the Admin API, whatever key they have.
func TestForeignAddress(t *testing.T) {
	c := onLoopback(t, conf.Default())
	c.Admin.Allow = []string{"10.0.0.0/8"}
	g := startGate(t, c)
	const page = "<html>\r\n<head><title>403 Forbidden</title></head>\r\n<body>\r\n<center><h1>403 Forbidden</h1></center>\r\n</body>\r\n</html>\r\n"
	for _, tt := range []struct{ method, path, body string }{
		{"GET", "/routes", ""},
		{"PUT", "/routes/1", `{"uri":"/x","upstream":{"nodes":{"127.0.0.1:80":1}}}`},
		{"OPTIONS", "/routes", ""},
	} {
		a := g.admin(tt.method, tt.path, tt.body, "X-Forwarded-For: 10.1.2.3", "X-Real-IP: 10.1.2.3")
		if a.status != http.StatusForbidden || a.body != page || !strings.HasPrefix(a.header.Get("Content-Type"), "text/html") || a.header.Get("X-API-VERSION") != "" {
			t.Errorf("%s: %v %v", tt.method, a, a.header)
		}
	}
	if a := g.send("GET", "http://"+g.addr+"/x", ""); a.status != http.StatusNotFound {
		t.Errorf("the data plane: %v", a)
	}
}

// Resources of the file can be read over the API and not changed.
func TestInlineResources(t *testing.T) {
	u := newUpstream(t, "inline", nil)
	c, err := conf.Parse("inline.toml", fmt.Appendf(nil, "[[routes]]\nid = \"file\"\nuri = \"/file\"\n[routes.upstream]\nnodes = { %q = 1 }\n", u.addr), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	g := startGate(t, onLoopback(t, c))
	const readOnly = `{"error_msg":"routes/file is defined in the configuration file and cannot be changed through the API"}` + "\n"
	for _, tt := range []struct{ method, path, body string }{
		{"PUT", "/routes/file", `{"uri":"/other","upstream_id":"1"}`},
		{"PATCH", "/routes/file", `{"uri":"/other"}`},
		{"DELETE", "/routes/file", ""},
		{"PATCH", "/routes/file/weights", "v1=1"},
	} {
		if a := g.admin(tt.method, tt.path, tt.body); a.status != http.StatusMethodNotAllowed || a.body != readOnly {
			t.Errorf("%s %s: %v", tt.method, tt.path, a)
		}
	}
	if a := g.admin("GET", "/routes/file", ""); a.status != http.StatusOK || !strings.Contains(a.body, `"uri":"/file"`) {
		t.Error(a)
	}
	if a := g.send("GET", "http://"+g.addr+"/file", ""); a.body != "inline\n" {
		t.Error(a)
	}
}
