package v3

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"headgate/conf/resource"
	"headgate/conf/schema"
	"headgate/proxy"
)

const weightsOfS = "/apisix/admin/routes/s/weights"

func weightsAnswer(v1, v2, revision int) string {
	return fmt.Sprintf(`{"key":"/apisix/routes/s","weights":{"v1":{"old":50,"new":%d},"v2":{"old":50,"new":%d}},"revision":%d}`+"\n", v1, v2, revision)
}

func TestWeights(t *testing.T) {
	tests := []struct {
		name, body, contentType string
		v1, v2                  int
	}{
		{"form without a type", "v1=80&v2=20", "", 80, 20},
		{"curl's form", "v1=80&v2=20", "application/x-www-form-urlencoded", 80, 20},
		{"one branch", "v2=0", "text/plain", 50, 0},
		{"encoded form", "%761=8%30&&v2=0020\n", "application/x-www-form-urlencoded", 80, 20},
		{"JSON", `{"v1": 80, "v2": 20}`, "application/json", 80, 20},
		{"JSON that curl calls a form", ` {"v1":8e1,"v2":20.0}`, "application/x-www-form-urlencoded", 80, 20},
		{"TOML", "v1 = 80\nv2 = 20\n", "application/toml", 80, 20},
		{"empty split for one side", "v1=100&v2=0", "", 100, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := start(t)
			h.must("PUT", "/apisix/admin/routes/s", splitBody)
			before := h.stored("routes/s")
			h.advance(time.Second)
			var headers []string
			if tt.contentType != "" {
				headers = append(headers, "Content-Type: "+tt.contentType)
			}
			a := h.want(200, weightsAnswer(tt.v1, tt.v2, 2), "PATCH", weightsOfS, tt.body, headers...)
			if !strings.Contains(a.raw, "X-API-VERSION: v3") {
				t.Errorf("no X-API-VERSION in\n%s", a.raw)
			}
			want := strings.Replace(before, `"update_time":1700000000`, `"update_time":1700000001`, 1)
			head, rest, _ := strings.Cut(want, `"weight":50`)
			middle, tail, _ := strings.Cut(rest, `"weight":50`)
			want = fmt.Sprintf(`%s"weight":%d%s"weight":%d%s`, head, tt.v1, middle, tt.v2, tail)
			if got := h.stored("routes/s"); got != want {
				t.Errorf("\n got  %s\n want %s", got, want)
			}
			if want := `admin audit: key="ops" peer=127.0.0.1 PATCH routes/s: changed ~plugins.traffic-split, revision 1 -> 2`; !strings.HasSuffix(h.logged(), want) {
				t.Errorf("the log ends in\n%s", h.logged())
			}
		})
	}
}

func TestWeightsOfAPISIXForm(t *testing.T) {
	h := start(t)
	h.must("PUT", "/apisix/admin/upstreams/u", `{"nodes":{}}`)
	h.must("PUT", "/apisix/admin/routes/s", `{"uri":"/a","upstream_id":"u","plugins":{"traffic-split":{"rules":[
		{"match":[{"vars":[["http_x","==","1"]]}],"weighted_upstreams":[{"upstream_id":"u","weight":0},{"weight":1}]},
		{"weighted_upstreams":[{"upstream":{"name":"canary","nodes":{}},"weight":5},{}]}, {"match":[]}]}}}`)
	h.want(200, `{"key":"/apisix/routes/s","weights":{"u":{"old":0,"new":7},"default":{"old":1,"new":1},"canary":{"old":5,"new":5},`+
		`"default-2":{"old":1,"new":3},"default-3":{"old":1,"new":2}},"revision":3}`+"\n", "PATCH", weightsOfS, "u=7&default-2=3&default-3=2")
	const want = `"rules":[{"match":[{"vars":[["http_x","==","1"]]}],"weighted_upstreams":[{"upstream_id":"u","weight":7},{"weight":1}]},` +
		`{"weighted_upstreams":[{"upstream":{"name":"canary","nodes":{}},"weight":5},{"weight":3}]},{"match":[],"weighted_upstreams":[{"weight":2}]}]`
	if got := h.stored("routes/s"); !strings.Contains(got, want) {
		t.Errorf("\n got  %s\n want %s", got, want)
	}
	// Each rule splits its own traffic: another one with weights above 0 doesn't help.
	h.want(400, `{"error_msg":"the weights of all branches would be 0, expected at least one above 0"}`+"\n", "PATCH", weightsOfS, "canary=0&default-2=0")
}

func TestWeightsRefused(t *testing.T) {
	h := start(t)
	h.must("PUT", "/apisix/admin/routes/s", splitBody)
	h.must("PUT", "/apisix/admin/routes/plain", routeBody)
	before := h.stored("routes/s")
	errorMsg := func(text string) string { return `{"error_msg":"` + text + `"}` + "\n" }
	malformed := `{"error_msg":"invalid request body: *","req_body":"*"}` + "\n"
	expected := func(branch, got string) string {
		return errorMsg(`weight of branch \"` + branch + `\": expected a whole number from 0, got ` + got)
	}
	tests := []struct {
		target, body, contentType string
		status                    int
		want                      string
	}{
		{"s", "v3=1", "", 400, errorMsg(`unknown branch \"v3\", known branches: v1, v2`)},
		{"s", `{"v2":1,"nope":1,"also":1}`, "", 400, errorMsg(`unknown branch \"also\", known branches: v1, v2`)},
		{"s", strings.Repeat("x", 100) + "=1", "", 400, errorMsg(`unknown branch \"` + strings.Repeat("x", 64) + `\"..., known branches: v1, v2`)},
		{"s", "v1=-1", "", 400, expected("v1", `\"-1\"`)},
		{"s", "v1=%2B1", "", 400, expected("v1", `\"+1\"`)},
		{"s", "v1=1.5", "", 400, expected("v1", `\"1.5\"`)},
		{"s", "v1=", "", 400, expected("v1", `\"\"`)},
		{"s", "v1=99999999999999999999", "", 400, expected("v1", `\"99999999999999999999\"`)},
		{"s", "v1=0x10", "", 400, expected("v1", `\"0x10\"`)},
		{"s", `{"v1":-3}`, "", 400, expected("v1", `-3`)},
		{"s", `{"v1":0.5}`, "", 400, expected("v1", `0.5`)},
		{"s", `{"v1":"80"}`, "", 400, expected("v1", `\"80\"`)},
		{"s", `{"v1":null}`, "", 400, expected("v1", `null`)},
		{"s", `{"v1":{"a":[1]}}`, "", 400, expected("v1", `{\"a\":[1]}`)},
		{"s", "v1 = \"80\"\n", "application/toml", 400, expected("v1", `\"80\"`)},
		{"s", "v1=0&v2=0", "", 400, errorMsg("the weights of all branches would be 0, expected at least one above 0")},
		{"s", "", "", 400, errorMsg("missing new configuration")},
		{"s", "{}", "", 400, errorMsg("missing new configuration")},
		{"s", "&", "", 400, errorMsg("missing new configuration")},
		{"s", "v1", "", 400, malformed},
		{"s", "v1=%zz", "", 400, malformed},
		{"s", "v1=1&v1=2", "", 400, malformed},
		{"s", `{"v1":`, "", 400, malformed},
		{"s", `[["v1",1]]`, "application/json", 400, malformed},
		{"s", `v1=80`, "application/json", 400, malformed},
		{"s", `v1=80&v2=20`, "application/toml", 400, malformed},
		{"plain", "v1=1", "", 400, errorMsg("route [plain] has no traffic-split plugin whose weights could be set")},
		{"none", "v1=1", "", 404, notFound},
		{"s", "v1=1", "", 200, "*"},
	}
	for _, tt := range tests {
		var headers []string
		if tt.contentType != "" {
			headers = append(headers, "Content-Type: "+tt.contentType)
		}
		if tt.status != 200 && h.stored("routes/s") != before {
			t.Fatal("a refused request changed the route")
		}
		h.want(tt.status, tt.want, "PATCH", "/apisix/admin/routes/"+tt.target+"/weights", tt.body, headers...)
	}
	h.key = viewerKey
	h.want(401, onlyReads, "PATCH", weightsOfS, "v1=1")
}

// A huge weight is for the plugin's own rules to judge.
func TestWeightsAreValidatedByThePlane(t *testing.T) {
	h := start(t)
	h.must("PUT", "/apisix/admin/routes/s", splitBody)
	h.plane.fail = func(proxy.Change) error { return resource.Invalid("too much for the plugin") }
	h.want(400, `{"error_msg":"too much for the plugin"}`+"\n", "PATCH", weightsOfS, "v1=1000000000000")
}

func TestWeightsKeepTheExpiry(t *testing.T) {
	h := start(t)
	h.must("PUT", "/apisix/admin/routes/s?ttl=60", splitBody)
	h.advance(20 * time.Second)
	h.must("PATCH", weightsOfS, "v1=1")
	h.advance(39 * time.Second)
	h.want(200, "*", "GET", "/apisix/admin/routes/s", "")
	h.advance(time.Second)
	h.want(404, notFound, "GET", "/apisix/admin/routes/s", "")
}

func TestWeightsInTOML(t *testing.T) {
	h := start(t)
	h.must("PUT", "/apisix/admin/routes/s", splitBody)
	a := h.do("PATCH", weightsOfS, "v1=80&v2=20", "Accept: application/toml")
	doc, err := resource.FromTOML([]byte(a.body))
	if err != nil || a.status != 200 {
		t.Fatalf("%d %v\n%s", a.status, err, a.body)
	}
	got, err := resource.Encode(doc)
	const want = `{"key":"/apisix/routes/s","revision":2,"weights":{"v1":{"new":80,"old":50},"v2":{"new":20,"old":50}}}`
	if err != nil || string(got) != want {
		t.Errorf("%v\n got  %s\n want %s", err, got, want)
	}
}

// Routes have no field "weights"; other kinds take the path for a part of the document.
func TestWeightsOnlyOfRoutes(t *testing.T) {
	h := start(t)
	h.must("PUT", "/apisix/admin/services/1", `{}`)
	h.want(400, `{"error_msg":"invalid configuration: additional properties forbidden, found weights"}`+"\n",
		"PATCH", "/apisix/admin/services/1/weights", `{"v1":1}`)
	h.want(404, notFound, "GET", weightsOfS, "")
}

// The parser of forms agrees with net/url on what it accepts, and writing its result down gives the same form again.
func FuzzParseForm(f *testing.F) {
	for _, seed := range []string{"v1=80&v2=20", "", "&&", "=", "a=b=c", "%761=%38", "a+b=1", "v1", "v1=1&v1=2", "\x00=\xff", "a=%", ";=1"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		weights, err := parseForm(text)
		if err != nil {
			if len(err.Error()) > 6*maxQuoted+100 {
				t.Errorf("the error repeats too much of the body: %d bytes", len(err.Error()))
			}
			return
		}
		values, urlErr := url.ParseQuery(text)
		if urlErr != nil && !strings.Contains(text, ";") {
			t.Fatalf("%q is accepted, net/url says %v", text, urlErr)
		}
		var pairs []string
		for _, w := range weights {
			value := string(w.value.(formText))
			if urlErr == nil && (len(values[w.branch]) != 1 || values[w.branch][0] != value) {
				t.Fatalf("%q: %q=%q, net/url has %q", text, w.branch, value, values[w.branch])
			}
			if n, ok := wholeNumber(w.value); ok && n >= 0 && strings.Trim(value, "0123456789") != "" {
				t.Fatalf("%q passes for the weight %d", value, n)
			}
			pairs = append(pairs, url.QueryEscape(w.branch)+"="+url.QueryEscape(value))
		}
		again, err := parseForm(strings.Join(pairs, "&"))
		if err != nil || !slices.Equal(again, weights) {
			t.Fatalf("%q: %v came back as %v, %v", text, weights, again, err)
		}
	})
}

// Whatever the weights are, assign refuses them or leaves a document that reads back with them.
func FuzzAssign(f *testing.F) {
	f.Add(`{"v1":80,"v2":20}`)
	f.Add(`{"v1":1e3}`)
	f.Add(`{"v1":-0}`)
	f.Add(`{"v2":9223372036854775807}`)
	f.Add(`{"v1":[],"v2":null,"":1}`)
	f.Fuzz(func(t *testing.T, text string) {
		decoded, err := schema.DecodeJSON([]byte(text))
		asked, ok := decoded.(map[string]any)
		if err != nil || !ok || len(asked) == 0 {
			return
		}
		route, err := schema.DecodeJSON([]byte(splitBody))
		if err != nil {
			t.Fatal(err)
		}
		conf, _ := splitOf(route.(map[string]any))
		if refused := assign(conf, listWeights(asked)); refused != nil {
			if refused.Status != 400 || refused.Msg == "" {
				t.Fatalf("refused with %+v", refused)
			}
			return
		}
		encoded, err := resource.Encode(route)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := resource.DecodeRoute(encoded); err != nil {
			t.Fatalf("%s left %s: %v", text, encoded, err)
		}
	})
}
