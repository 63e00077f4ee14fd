package v3

import (
	"strings"
	"testing"

	"headgate/conf/resource"
	"headgate/conf/store"
	"headgate/proxy"
)

func TestConsumersGoWithTheirCredentials(t *testing.T) {
	h := start(t)
	const jack = "/apisix/admin/consumers/jack"
	h.must("PUT", "/apisix/admin/consumers", `{"username":"jack"}`)
	h.must("PUT", "/apisix/admin/consumers", `{"username":"jacky"}`)
	for _, id := range []string{"a", "b"} {
		h.must("PUT", jack+"/credentials/"+id, `{"plugins":{"key-auth":{"key":"jack-`+id+`"}}}`)
	}
	h.must("PUT", "/apisix/admin/consumers/jacky/credentials/a", `{"plugins":{"key-auth":{"key":"jacky"}}}`)
	h.want(200, `{"list":[{"key":"/apisix/consumers/jack",*},{"key":"/apisix/consumers/jacky",*}],"total":2}`+"\n", "GET", "/apisix/admin/consumers", "")
	h.want(200, `{"list":[*credentials/a",*credentials/b",*],"total":2}`+"\n", "GET", jack+"/credentials", "")
	// One of them is deleted by somebody else after they were listed.
	calls := 0
	h.plane.fail = func(c proxy.Change) error {
		if calls++; calls == 1 {
			h.plane.mu.Lock()
			defer h.plane.mu.Unlock()
			delete(h.plane.docs, "consumers/jack/credentials/b")
		}
		return nil
	}
	h.want(200, `{"deleted":"1","key":"/apisix/consumers/jack"}`+"\n", "DELETE", jack, "")
	for key := range h.plane.docs {
		if strings.HasPrefix(key, "consumers/jack/") || key == "consumers/jack" {
			t.Errorf("%s is left", key)
		}
	}
	if h.stored("consumers/jacky/credentials/a") == "" {
		t.Error("the credential of another consumer went too")
	}
	if log := h.logged(); !strings.Contains(log, "DELETE consumers/jack/credentials/a: deleted -plugins.key-auth, revision") {
		t.Errorf("the log does not say which credential went:\n%s", log)
	}
	h.plane.fail = func(proxy.Change) error { return store.ErrConflict }
	h.want(503, `{"error_msg":"value changed before overwritten"}`+"\n", "DELETE", "/apisix/admin/consumers/jacky", "")
}

func TestNamesInPathAndBody(t *testing.T) {
	h := start(t)
	h.must("PUT", "/apisix/admin/consumers", `{"username":"jack"}`)
	before := len(h.plane.docs)
	invalid := func(text string) string { return `{"error_msg":"` + text + `"}` + "\n" }
	const badID = `invalid configuration: property \"id\" validation failed: object matches none of the required`
	tests := []struct {
		method, path, body string
		status             int
		want               string
	}{
		{"PUT", "consumers/jill", `{"username":"jack"}`, 400, invalid("wrong username")},
		{"PUT", "consumers", `{"username":"a/b"}`, 400, invalid(`invalid configuration: property \"username\" *`)},
		{"PUT", "consumers", `{"username":7}`, 400, invalid(`invalid configuration: property \"username\" *`)},
		{"PUT", "consumers", `{"create_time":1}`, 400, invalid("the property is forbidden:  create_time")},
		{"PUT", "consumers/jack/credentials/c%2Fd", `{}`, 400, invalid("a path behind the id is for PATCH only")},
		{"PUT", "consumers/jack/credentials/c 1", `{}`, 400, invalid(badID)},
		{"PATCH", "consumers/jack/credentials/c1", `{}`, 405, invalid("not supported `PATCH` method for credential")},
		{"POST", "consumers/jack/credentials", `{}`, 405, invalid("not supported `POST` method for credential")},
		{"PUT", "consumers/jack/credentials/c1/x", `{}`, 400, invalid("a path behind the id is for PATCH only")},
		{"GET", "credentials/c1", "", 404, invalid("Unsupported resource type: credentials")},
		{"PUT", "plugin_metadata", `{}`, 400, invalid("missing plugin name")},
		{"PUT", "plugin_metadata/nope", `{}`, 400, invalid("invalid plugin name")},
		{"PUT", "secrets", `{}`, 400, invalid("missing secret type")},
		{"PUT", "secrets/vault", `{}`, 400, invalid("missing secret id")},
		{"DELETE", "secrets/vault", "", 400, invalid("missing secret id")},
		{"GET", "secrets/vault", "", 404, notFound},
		{"GET", "secrets", "", 200, emptyList},
		{"PUT", "routes", `{"id":"a/b","uri":"/","upstream":{"nodes":{}}}`, 400, invalid(badID)},
		{"GET", "stream_routes", "", 400, invalid(streamsOff)},
		{"GET", "", "", 404, invalid("Unsupported resource type: ")},
		{"GET", "schema", "", 400, invalid("missing schema name")},
		{"PUT", "upstreams/1", `{"nodes":"x"}`, 400, invalid(`invalid configuration: property \"nodes\" validation failed: *`)},
	}
	for _, tt := range tests {
		h.want(tt.status, tt.want, tt.method, "/apisix/admin/"+strings.ReplaceAll(tt.path, " ", "%20"), tt.body)
	}
	if len(h.plane.docs) != before {
		t.Errorf("refused requests changed something: %v", h.plane.docs)
	}
}

// The pages of the recorded gateway's failures are for those who asked for them.
func TestPagesInsteadOfRefusals(t *testing.T) {
	h := start(t, func(o *Options) { o.HTMLErrors = true })
	const page = "<html>*<title>500 Internal Server Error</title>*</html>\r\n"
	for _, r := range [][3]string{
		{"PUT", "routes/1", `"x"`}, {"PUT", "routes/1", `null`}, {"POST", "services", `true`}, {"PUT", "secrets/vault", `{}`},
		{"PUT", "upstreams/1", `{"nodes":"x"}`}, {"GET", "", ""}, {"GET", "schema", ""}, {"POST", "schema/validate/plugins", `{}`},
	} {
		a := h.want(500, page, r[0], "/apisix/admin/"+r[1], r[2])
		if !strings.Contains(a.raw, "Access-Control-Allow-Origin: *") || strings.Contains(a.raw, "X-API-VERSION") {
			t.Errorf("head\n%s", a.raw)
		}
	}
	h.want(400, `{"error_msg":"invalid configuration"}`+"\n", "PATCH", "/apisix/admin/routes/1", `1`)
}

func TestSecretsInAnswers(t *testing.T) {
	ssl := func() string {
		body, err := resource.Encode(map[string]any{"sni": "gold.test", "cert": pairs()[0].cert, "key": pairs()[0].key,
			"certs": []any{pairs()[1].cert}, "keys": []any{pairs()[1].key}})
		if err != nil {
			t.Fatal(err)
		}
		return string(body)
	}()
	const consumer = `{"username":"jack","plugins":{"key-auth":{"key":"auth-one"}}}`
	for _, sealing := range []bool{false, true} {
		h := start(t, func(o *Options) {
			if sealing {
				o.Sealer = testSealer(t)
			}
		})
		written := h.want(201, "*", "PUT", "/apisix/admin/ssls/1", ssl).body
		patched := h.want(200, "*", "PATCH", "/apisix/admin/ssls/1", `{"status":1}`).body
		for _, a := range []string{written, patched} {
			if strings.Contains(a, "PRIVATE KEY") || strings.Contains(a, `"key":"`+"") && strings.Contains(a, `"keys"`) != sealing {
				t.Errorf("sealing %v: %s", sealing, a)
			}
		}
		for _, path := range []string{"/apisix/admin/ssls/1", "/apisix/admin/ssls"} {
			a := h.want(200, "*", "GET", path, "").body
			if strings.Contains(a, `"keys"`) || strings.Contains(a, "PRIVATE KEY") || !strings.Contains(a, `"certs"`) {
				t.Errorf("%s shows %s", path, a)
			}
		}
		want := `*"key":"auth-one"*`
		if sealing {
			want = `*"key":"4y+JvURBE6ZwRbbgaryrhg=="*`
		}
		h.want(201, want, "PUT", "/apisix/admin/consumers", consumer)
		h.want(200, `*"key":"auth-one"*`, "GET", "/apisix/admin/consumers/jack", "")
		if !strings.Contains(h.stored("ssls/1"), "PRIVATE KEY") || !strings.Contains(h.stored("consumers/jack"), "auth-one") {
			t.Error("the answer's form went into the store")
		}
		if strings.Contains(h.logged(), "auth-one") || strings.Contains(h.logged(), "BEGIN") {
			t.Errorf("a secret is in the log:\n%s", h.logged())
		}
	}
}

func TestAuditHasItsOwnPlace(t *testing.T) {
	var lines []string
	h := start(t, func(o *Options) { o.Audit = func(line string) { lines = append(lines, line) } })
	h.must("PUT", "/apisix/admin/routes/1", routeBody)
	h.do("PUT", "/apisix/admin/routes/1", `{`)
	h.putConfigs(202, "", "1", `{"services":[{"id":"s"}]}`)
	want := []string{
		`key="ops" peer=127.0.0.1 PUT routes/1: created +upstream.nodes +uri, revision 0 -> 1`,
		`key="ops" peer=127.0.0.1 PUT routes/1: deleted -upstream.nodes -uri, revision 1 -> 2`,
		`key="ops" peer=127.0.0.1 PUT services/s: created in nothing, revision 0 -> 3`,
	}
	if strings.Join(lines, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s", strings.Join(lines, "\n"))
	}
}
