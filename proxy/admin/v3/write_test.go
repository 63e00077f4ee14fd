package v3

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"headgate/conf/resource"
	"headgate/conf/store"
	"headgate/proxy"
)

const notFound = `{"message":"Key not found"}` + "\n"

func TestLifeOfADocument(t *testing.T) {
	h := start(t)
	const head = `{"key":"/apisix/routes/1","value":`
	h.want(201, head+`{"create_time":1700000000,"id":"1","update_time":1700000000,"upstream":{"nodes":{"127.0.0.1:1":1}},"uri":"/a"}}`+"\n",
		"PUT", "/apisix/admin/routes/1", routeBody)
	h.advance(5 * time.Second)
	h.want(200, head+`{"create_time":1700000000,"id":"1","update_time":1700000005,"upstream":{"nodes":{"127.0.0.1:1":1}},"uri":"/b"}}`+"\n",
		"PUT", "/apisix/admin/routes/1", `{"uri":"/b","upstream":{"nodes":{"127.0.0.1:1":1}}}`)
	h.advance(5 * time.Second)
	h.want(200, head+`{"create_time":1700000000,"desc":"d","id":"1","update_time":1700000010,*}`+"\n",
		"PATCH", "/apisix/admin/routes/1", `{"desc":"d"}`)
	h.want(200, head+`*"createdIndex":1,"modifiedIndex":3}`+"\n", "GET", "/apisix/admin/routes/1", "")
	h.want(200, `{"deleted":"1","key":"/apisix/routes/1"}`+"\n", "DELETE", "/apisix/admin/routes/1", "")
	h.want(404, notFound, "GET", "/apisix/admin/routes/1", "")
	h.want(404, notFound, "DELETE", "/apisix/admin/routes/1", "")
	h.want(404, notFound, "PATCH", "/apisix/admin/routes/1", `{}`)
	h.want(201, "*", "PUT", "/apisix/admin/routes/1", routeBody)
	if got := h.stored("routes/1"); !strings.Contains(got, `"create_time":1700000010,`) {
		t.Errorf("a document that was deleted has its old time of creation: %s", got)
	}
}

func TestStoredAsSent(t *testing.T) {
	h := start(t)
	h.must("PUT", "/apisix/admin/routes/1", `{"priority":1.50e1,"uri":"/<&>/é\/","upstream":{"nodes":[]},"vars":[],"labels":{}}`)
	const want = `{"create_time":1700000000,"id":"1","labels":{},"priority":1.50e1,"update_time":1700000000,"upstream":{"nodes":[]},` +
		`"uri":"/<&>/é/","vars":[]}`
	if got := h.stored("routes/1"); got != want {
		t.Errorf("\n got  %s\n want %s", got, want)
	}
	h.must("PATCH", "/apisix/admin/routes/1", `{}`)
	if got := h.stored("routes/1"); got != want {
		t.Errorf("after an empty patch\n got  %s\n want %s", got, want)
	}
}

func TestBadBodies(t *testing.T) {
	h := start(t)
	h.must("PUT", "/apisix/admin/routes/1", routeBody)
	before := h.stored("routes/1")
	invalid := func(text string) string { return `{"error_msg":"` + text + `"}` + "\n" }
	tests := []struct {
		method, path, body string
		want               string
		headers            []string
	}{
		{"PUT", "routes/1", `null`, invalid("invalid configuration: wrong type: expected object, got userdata"), nil},
		{"PUT", "routes/1", `"x"`, invalid("invalid configuration: wrong type: expected object, got string"), nil},
		{"PUT", "routes/1", `[1]`, invalid("invalid configuration: wrong type: expected object, got table"), nil},
		{"POST", "routes", `7`, invalid("invalid configuration: wrong type: expected object, got number"), nil},
		{"PATCH", "routes/1", `null`, invalid("invalid configuration"), nil},
		{"PATCH", "routes/1", `[1]`, invalid("invalid configuration: *"), nil},
		{"PUT", "routes/1", `{"uri":"/a"`, `{"error_msg":"invalid request body: *","req_body":"{\"uri\":\"/a\""}` + "\n", nil},
		{"GET", "routes/1", `{`, `{"error_msg":"invalid request body: *","req_body":"{"}` + "\n", nil},
		{"PUT", "routes/1", `{"a":1}{"b":2}`, `{"error_msg":"invalid request body: *","req_body":"*"}` + "\n", nil},
		{"PUT", "routes/1", strings.Repeat("[", 100_000), `{"error_msg":"invalid request body: *","req_body":"*"}` + "\n", nil},
		{"PUT", "routes/1", "a = \n", `{"error_msg":"invalid request body: line 1*","req_body":"a = \n"}` + "\n", []string{"Content-Type: application/toml"}},
		{"PUT", "routes/1", `{"create_time":1,"uri":"/a"}`, invalid("the property is forbidden:  create_time"), nil},
		{"POST", "routes", `{"upstream":{"update_time":1}}`, invalid("the property is forbidden:  upstream.update_time"), nil},
		{"POST", "routes/1", routeBody, invalid("wrong route id, do not need it"), nil},
		{"POST", "routes", `{"id":"x"}`, invalid("wrong route id, do not need it"), nil},
		{"PUT", "routes/2", `{"id":"x"}`, invalid("wrong route id"), nil},
		{"PUT", "routes/%00", routeBody, invalid(`invalid configuration: property \"id\" validation failed: *`), nil},
		{"PUT", "routes", `{"id":{"a":1},"uri":"/a","upstream":{"nodes":{}}}`, invalid(`invalid configuration: property \"id\" *`), nil},
		{"DELETE", "routes/1/upstream", "", invalid("a path behind the id is for PATCH only"), nil},
		{"PUT", "routes/1/upstream", routeBody, invalid("a path behind the id is for PATCH only"), nil},
		{"PATCH", "routes/1/uri/x", `1`, invalid("invalid sub-path: *"), nil},
		{"PATCH", "routes/1/id", `"2"`, invalid("wrong route id"), nil},
		{"PATCH", "routes/1", `{"plugins":{"nope":{}}}`, invalid("unknown plugin [nope]"), nil},
		{"PUT", "routes/1?ttl=", routeBody, invalid("invalid argument ttl: should be a number"), nil},
		{"PUT", "routes/1?ttl=NaN", routeBody, invalid("invalid argument ttl: should be a number"), nil},
		{"PUT", "routes/1?ttl=1e999", routeBody, invalid("invalid argument ttl: should be a number"), nil},
	}
	for _, tt := range tests {
		a := h.want(400, tt.want, tt.method, "/apisix/admin/"+tt.path, tt.body, tt.headers...)
		if early := strings.Contains(tt.want, "req_body") || strings.Contains(tt.want, "ttl"); early == strings.Contains(a.raw, "X-API-VERSION") {
			t.Errorf("%s %s: X-API-VERSION in\n%s", tt.method, tt.path, a.raw)
		}
	}
	if h.stored("routes/1") != before || len(h.plane.docs) != 1 {
		t.Errorf("refused requests changed something: %v", h.plane.docs)
	}
}

func TestBodyCap(t *testing.T) {
	h := start(t)
	const text = `{"error_msg":"invalid request body: request size %d is greater than the maximum size 1572864 allowed"}` + "\n"
	h.want(400, `{"error_msg":"invalid configuration: wrong type: expected object, got string"}`+"\n", "PUT", "/apisix/admin/routes/1",
		repeat(MaxBody))
	for _, size := range []int{MaxBody + 1, readLimit, readLimit + 1, 5 << 20} {
		h.want(400, fmt.Sprintf(text, size), "PUT", "/apisix/admin/routes/1", repeat(size))
	}
	h.want(400, fmt.Sprintf(text, MaxBody+1), "PATCH", "/apisix/admin/routes/1/weights", repeat(MaxBody+1))
	h.key = ""
	h.want(401, missingKey, "PUT", "/apisix/admin/routes/1", repeat(MaxBody+1))
	h.from("192.168.0.1:1")
	h.want(403, page403, "PUT", "/apisix/admin/routes/1", repeat(readLimit+1))
}

func TestTOML(t *testing.T) {
	h := start(t)
	sent := "uri = \"/a\"\npriority = 3\n[upstream]\ntype = \"roundrobin\"\n[upstream.nodes]\n\"127.0.0.1:1\" = 1\n"
	h.want(201, `*"priority":3,*"upstream":{"nodes":{"127.0.0.1:1":1},"type":"roundrobin"},"uri":"/a"}}`+"\n",
		"PUT", "/apisix/admin/routes/1", sent, "Content-Type: application/toml; charset=utf-8")
	h.want(200, "*", "PATCH", "/apisix/admin/routes/1", "desc = \"d\"\n", "Content-Type: APPLICATION/TOML")
	h.want(200, "*", "PATCH", "/apisix/admin/routes/1/labels", "env = \"x\"\n", "Content-Type: application/toml")

	toml := func(a answer) map[string]any {
		t.Helper()
		if got := a.header.Get("Content-Type"); got != "application/toml" {
			t.Errorf("Content-Type %q", got)
		}
		doc, err := resource.FromTOML([]byte(a.body))
		if err != nil {
			t.Fatalf("%v in\n%s", err, a.body)
		}
		return doc
	}
	same := func(doc any, want string) {
		t.Helper()
		if got, err := resource.Encode(doc); err != nil || string(got) != want {
			t.Errorf("%v\n got  %s\n want %s", err, got, want)
		}
	}
	const value = `{"create_time":1700000000,"desc":"d","id":"1","labels":{"env":"x"},"priority":3,"update_time":1700000000,` +
		`"upstream":{"nodes":{"127.0.0.1:1":1},"type":"roundrobin"},"uri":"/a"}`
	const accept = "Accept: text/plain, application/toml;q=0.9"
	same(toml(h.do("GET", "/apisix/admin/routes/1", "", accept)), `{"createdIndex":1,"key":"/apisix/routes/1","modifiedIndex":3,"value":`+value+`}`)
	same(toml(h.do("GET", "/apisix/admin/routes", "", accept)),
		`{"list":[{"createdIndex":1,"key":"/apisix/routes/1","modifiedIndex":3,"value":`+value+`}],"total":1}`)
	same(toml(h.do("GET", "/apisix/admin/services", "", accept)), `{"list":[],"total":0}`)
	same(toml(h.do("PATCH", "/apisix/admin/routes/1", "{}", accept)), `{"key":"/apisix/routes/1","value":`+value+`}`)
	same(toml(h.do("DELETE", "/apisix/admin/routes/1", "", accept)), `{"deleted":"1","key":"/apisix/routes/1"}`)
	h.want(404, notFound, "GET", "/apisix/admin/routes/1", "", accept)
}

// TOML has no null. The answer says which document of a list has one, by its key.
func TestTOMLWithoutNull(t *testing.T) {
	h := start(t)
	h.must("PUT", "/apisix/admin/routes/a", routeBody)
	h.must("PUT", "/apisix/admin/routes/b", `{"uri":"/b","upstream":{"nodes":{"127.0.0.1:1":1}},"plugins":{"traffic-split":{"rules":[null]}}}`)
	want := `{"error_msg":"cannot be written as TOML: /apisix/routes/b: key value.plugins.traffic-split.rules.0: TOML can't hold a null inside an array"}` + "\n"
	for _, path := range []string{"/apisix/admin/routes", "/apisix/admin/routes/b"} {
		h.want(406, want, "GET", path, "", "Accept: application/toml")
	}
	h.want(200, "*", "GET", "/apisix/admin/routes/a", "", "Accept: application/toml")
}

func TestGeneratedIDs(t *testing.T) {
	h := start(t)
	h.must("PUT", "/apisix/admin/routes/1", routeBody)
	h.must("PUT", "/apisix/admin/routes/00000000000000000041", routeBody)
	for _, id := range []string{"00000000000000000042", "00000000000000000043"} {
		h.want(201, `{"key":"/apisix/routes/`+id+`","value":*"id":"`+id+`",*`, "POST", "/apisix/admin/routes", routeBody)
	}
	h.must("PUT", "/apisix/admin/services/00000000000000000044", `{}`)
	h.must("PUT", "/apisix/admin/services/00000000000000000045", `{}`)
	h.want(201, `{"key":"/apisix/services/00000000000000000046",*`, "POST", "/apisix/admin/services", `{}`)
	for key := range h.plane.docs {
		h.must("DELETE", "/apisix/admin/"+key, "")
	}
	h.want(201, `{"key":"/apisix/routes/00000000000000000047",*`, "POST", "/apisix/admin/routes", routeBody)
	// Another gateway on the same store got to the next ids first.
	calls := 0
	h.plane.fail = func(proxy.Change) error { calls++; return fmt.Errorf("put: %w", store.ErrConflict) }
	h.want(503, `{"error_msg":"value changed before overwritten"}`+"\n", "POST", "/apisix/admin/routes", routeBody)
	if calls != attempts {
		t.Errorf("%d attempts, want %d", calls, attempts)
	}
	h.plane.fail = nil
	h.want(201, `{"key":"/apisix/routes/00000000000000000052",*`, "POST", "/apisix/admin/routes", routeBody)
}

func TestGeneratedIDsPassOverTakenOnes(t *testing.T) {
	h := start(t)
	h.want(201, `{"key":"/apisix/routes/00000000000000000001",*`, "POST", "/apisix/admin/routes", routeBody)
	for n := 2; n < 30; n++ {
		h.must("PUT", fmt.Sprintf("/apisix/admin/routes/%020d", n), routeBody)
	}
	h.api.ids = ids{last: 1, seeded: true} // as if the store had not told of these writes
	h.want(201, `{"key":"/apisix/routes/00000000000000000030",*`, "POST", "/apisix/admin/routes", routeBody)
}

func TestWhatApplyReturns(t *testing.T) {
	tests := []struct {
		name   string
		err    error
		status int
		body   string
		calls  map[string]int
	}{
		{"refusal", fmt.Errorf("compile: %w", resource.Invalid("no <such> node")), 400, `{"error_msg":"no <such> node"}`, map[string]int{"PUT": 1, "PATCH": 1}},
		{"own status", &resource.Error{Status: 405, Msg: "m"}, 405, `{"error_msg":"m"}`, map[string]int{"DELETE": 1}},
		{"lost race", fmt.Errorf("x: %w", store.ErrConflict), 503, `{"error_msg":"value changed before overwritten"}`,
			map[string]int{"PUT": races, "DELETE": races, "PATCH": 1}},
		{"medium", fmt.Errorf("%w: %w", store.ErrUnavailable, errMedium), 503, `{"error_msg":"store unavailable: disk full"}`, map[string]int{"PUT": 1}},
		{"too slow", context.DeadlineExceeded, 503, `{"error_msg":"no answer from the configuration path in time, *"}`, map[string]int{"PUT": 1}},
		{"bug", errMedium, 500, `{"error_msg":"internal error, see the log"}`, map[string]int{"PUT": 1}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := start(t)
			h.must("PUT", "/apisix/admin/routes/1", routeBody)
			for method, want := range tt.calls {
				calls := 0
				h.plane.fail = func(proxy.Change) error { calls++; return tt.err }
				h.want(tt.status, tt.body+"\n", method, "/apisix/admin/routes/1", routeBody)
				if calls != want {
					t.Errorf("%s: Apply was called %d times, want %d", method, calls, want)
				}
			}
		})
	}
}

func TestReadOnlyDocuments(t *testing.T) {
	h := start(t)
	h.must("PUT", "/apisix/admin/routes/s", splitBody)
	h.plane.readOnly = map[string]string{"routes/s": "routes/s comes from headgate.toml"}
	h.plane.fail = func(proxy.Change) error { t.Error("a read-only document reached Apply"); return nil }
	for _, r := range [][3]string{
		{"PUT", "routes/s", routeBody}, {"PATCH", "routes/s", `{}`}, {"DELETE", "routes/s?force=true", ""}, {"PATCH", "routes/s/weights", "v1=1"},
	} {
		h.want(405, `{"error_msg":"routes/s comes from headgate.toml"}`+"\n", r[0], "/apisix/admin/"+r[1], r[2])
	}
	h.want(200, "*", "GET", "/apisix/admin/routes/s", "")
}

func TestChangeCarriesArguments(t *testing.T) {
	h := start(t)
	var got proxy.Change
	h.plane.fail = func(c proxy.Change) error { got = c; return nil }
	tests := []struct {
		method, target, body string
		ttl                  time.Duration
		force                bool
	}{
		{"PUT", "routes/1?ttl=90", routeBody, 90 * time.Second, false},
		{"PATCH", "routes/1?ttl=1.5", `{}`, 1500 * time.Millisecond, false},
		{"PUT", "routes/1?ttl=0", routeBody, 0, false},
		{"PUT", "routes/1?ttl=-5", routeBody, 0, false},
		{"PUT", "routes/1?ttl=1e300", routeBody, maxTTL, false},
		{"POST", "routes?ttl=7", routeBody, 7 * time.Second, false},
		{"DELETE", "routes/1?force=1", "", 0, false},
		{"PUT", "routes/1", routeBody, 0, false},
		{"DELETE", "routes/1?force=true", "", 0, true},
	}
	for _, tt := range tests {
		h.must(tt.method, "/apisix/admin/"+tt.target, tt.body)
		if got.TTL != tt.ttl || got.Force != tt.force {
			t.Errorf("%s %s: ttl %v force %v, want %v %v", tt.method, tt.target, got.TTL, got.Force, tt.ttl, tt.force)
		}
		if tt.method == "DELETE" {
			h.must("PUT", "/apisix/admin/routes/1", routeBody)
		}
	}
}

// An edit may run again after a lost race: it must give the same for the same document and leave that as it is.
func TestEditsArePure(t *testing.T) {
	h := start(t)
	h.must("PUT", "/apisix/admin/routes/s", splitBody)
	item, _ := h.plane.Get("routes/s")
	before := string(item.Value)
	var got proxy.Change
	h.plane.fail = func(c proxy.Change) error { got = c; return nil }
	for _, r := range [][3]string{
		{"PUT", "routes/s", splitBody}, {"PATCH", "routes/s", `{"labels":{"a":"b"},"priority":null}`}, {"PATCH", "routes/s", `[]`},
		{"PATCH", "routes/s/labels/x", `"y"`}, {"PATCH", "routes/s/upstream", `{"nodes":{}}`}, {"PATCH", "routes/s/weights", "v1=1"},
	} {
		h.must(r[0], "/apisix/admin/"+r[1], r[2])
		first, err := got.Edit(&item)
		if err != nil {
			t.Fatal(err)
		}
		kept := string(first)
		second, err := got.Edit(&item)
		if err != nil || string(second) != kept || string(first) != kept {
			t.Errorf("%s %s: %v\n first  %s\n second %s", r[0], r[1], err, kept, second)
		}
		if string(item.Value) != before {
			t.Fatalf("%s %s wrote into the stored document", r[0], r[1])
		}
	}
}

func TestAudit(t *testing.T) {
	h := start(t)
	h.from("10.1.2.3:999")
	h.do("PUT", "/apisix/admin/routes/1", `{"uri":"/canary-SECRET123","upstream":{"nodes":{}}}`)
	h.do("PUT", "/apisix/admin/routes/1", `{"uri":"/canary-SECRET123","upstream":{"nodes":{}},"bogus":"SECRET123"}`)
	h.do("PATCH", "/apisix/admin/routes/1/desc?api_key="+adminKey, `"SECRET123"`)
	h.do("DELETE", "/apisix/admin/routes/1", "")
	h.do("DELETE", "/apisix/admin/routes/a%0Ab", "")
	h.do("GET", "/apisix/admin/routes", "")
	want := []string{
		`admin audit: key="ops" peer=10.1.2.3 PUT routes/1: created +upstream.nodes +uri, revision 0 -> 1`,
		`admin audit: key="ops" peer=10.1.2.3 PUT "routes/1": refused with status 400`,
		`admin audit: key="ops" peer=10.1.2.3 PATCH routes/1: changed +desc, revision 1 -> 2`,
		`admin audit: key="ops" peer=10.1.2.3 DELETE routes/1: deleted -desc -upstream.nodes -uri, revision 2 -> 3`,
		`admin audit: key="ops" peer=10.1.2.3 DELETE "routes/a\nb": refused with status 404`,
	}
	if got := h.logged(); got != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", got, strings.Join(want, "\n"))
	}
}
