package main

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"headgate/conf"
)

// A secret that was configured, and one that a request shows, are nowhere that operators or clients can read without the admin key: not in
// the logs, the audit, the metrics, errors, explanations, answers, or what the control API shows, unless somebody wrote it there.
func TestSecretsShowNowhere(t *testing.T) {
	const canary = "c4n4ry" // each secret is this and its place
	up := newUpstream(t, "up", nil)
	c := onLoopback(t, conf.Default())
	auditFile := filepath.Join(t.TempDir(), "audit.log")
	c.Audit.Path = auditFile
	c.Admin.Keys = append(c.Admin.Keys, conf.AdminKey{Name: "canary", Key: canary + "-admin-key-of-at-least-32-characters", Role: conf.RoleAdmin})
	g := startGate(t, c)

	var seen []struct{ where, text string }
	note := func(where string, text string) { seen = append(seen, struct{ where, text string }{where, text}) }
	whole := func(a answer) string { return fmt.Sprint(a.status, a.header, a.body) }

	// Secrets of consumers and routes, as they are stored.
	g.configure("PUT", "/consumers", `{"username":"jack","plugins":{"key-auth":{"key":"c4n4ry-key"},"basic-auth":{"username":"jack","password":"c4n4ry-password"},
		"jwt-auth":{"key":"jack","secret":"c4n4ry-jwt-secret"},"hmac-auth":{"key_id":"jack","secret_key":"c4n4ry-hmac-secret"}}}`)
	route := func(id, plugins string) {
		t.Helper()
		g.configure("PUT", "/routes/"+id, fmt.Sprintf(`{"uri":"/%s","upstream":{"nodes":{%q:1}},"plugins":{%s}}`, id, up.addr, plugins))
	}
	redis := deadAddr(t)
	route("key", `"key-auth":{"hide_credentials":true},"prometheus":{}`)
	route("basic", `"basic-auth":{}`)
	route("jwt", `"jwt-auth":{}`)
	route("hmac", `"hmac-auth":{}`)
	route("csrf", `"csrf":{"key":"c4n4ry-csrf"}`)
	route("redis", fmt.Sprintf(`"limit-count":{"count":1,"time_window":60,"policy":"redis","redis_host":"127.0.0.1","redis_port":%s,"redis_username":"u",`+
		`"redis_password":"c4n4ry-redis"}`, portOf(redis)))
	route("split", `"traffic-split":{"sticky":{"key":"$http_x_session"},"decision_header":true,"rules":[{"weight":1},{"weight":1}]},"prometheus":{}`)

	// Requests that show secrets: right ones, wrong ones, and some that nobody understands.
	basic := base64.StdEncoding.EncodeToString([]byte("jack:c4n4ry-password"))
	token := "eyJhbGciOiJIUzI1NiJ9." + base64.RawURLEncoding.EncodeToString([]byte(`{"key":"jack","c4n4ry":1}`)) + ".c4n4ry"
	for _, r := range []struct{ path, line string }{
		{"key", "apikey: c4n4ry-key"}, {"key", "apikey: c4n4ry-wrong"}, {"basic", "Authorization: Basic " + basic},
		{"basic", "Authorization: Basic c4n4ry!"}, {"basic", "Authorization: c4n4ry"}, {"jwt", "Authorization: Bearer " + token},
		{"jwt", "Authorization: c4n4ry.c4n4ry.c4n4ry"}, {"jwt", "Cookie: jwt=c4n4ry"},
		{"hmac", `Authorization: Signature keyId="jack",algorithm="hmac-sha256",headers="date",signature="c4n4ry"`}, {"hmac", "Authorization: Signature c4n4ry"},
		{"csrf", "apisix-csrf-token: c4n4ry"}, {"redis", "X-A: 1"}, {"split", "X-Session: c4n4ry-session"}, {"none", "Authorization: Bearer c4n4ry"},
	} {
		note("an answer", whole(g.send("GET", "http://"+g.addr+"/"+r.path, "", r.line, "Cookie: session=c4n4ry")))
	}
	conn := dialWire(t, g.addr)
	fmt.Fprintf(conn.Conn, "GET /key HTTP/1.1\r\nHost: a\r\nAuthorization c4n4ry\r\n\r\n")
	if _, body, err := conn.read(); err == nil {
		note("the answer to a broken request", body)
	}

	// What is refused says which field, and not what was in it.
	for path, body := range map[string]string{
		"/consumers":  `{"username":"jill","plugins":{"basic-auth":{"username":"jill","password":["c4n4ry"]}}}`,
		"/routes/bad": `{"uri":"/bad","plugins":{"csrf":{"key":{"c4n4ry":1}}},"upstream":{"nodes":{"a:1":1}}}`,
	} {
		a := g.admin("PUT", path, body)
		if a.status != http.StatusBadRequest {
			t.Errorf("%s: %v", path, a)
		}
		note("the refusal of "+path, whole(a))
	}
	note("the refusal of an admin key", whole(g.send("GET", "http://"+g.process.addr("admin")+"/apisix/admin/routes", "", "X-API-KEY: c4n4ry-wrong")))
	g.send("DELETE", "http://"+g.process.addr("admin")+"/apisix/admin/routes/key", "", "X-API-KEY: "+canary+"-admin-key-of-at-least-32-characters")

	note("the metrics", g.send("GET", "http://"+g.process.addr("metrics")+"/apisix/prometheus/metrics", "").body)
	for _, path := range []string{"schema", "healthcheck", "left_out", "plugin_metadatas", "upstreams", "services", "routes", "route/csrf", "route/redis"} {
		note("/v1/"+path, g.send("GET", "http://"+g.process.addr("control")+"/v1/"+path, "").body)
	}
	for _, path := range []string{"key", "basic", "redis", "csrf", "split"} {
		a := g.send("POST", "http://"+g.process.addr("control")+"/v1/explain", fmt.Sprintf(`{"path":"/%s","headers":{"apikey":"c4n4ry-key","Cookie":"c4n4ry"}}`, path))
		note("the explanation of /"+path, a.body)
	}
	note("the configuration, printed", fmt.Sprintf("%v %+v %#v", *c, *c, c.Admin))
	audited, err := os.ReadFile(auditFile)
	if err != nil || len(audited) == 0 {
		t.Fatalf("no audit: %v", err)
	}
	note("the audit log", string(audited))
	eventually(t, "every request is logged", func() bool { return bytes.Count(g.readLog(), []byte("\n")) >= 15 })
	note("the access log", string(g.readLog()))
	g.end()
	note("the error log", g.logged.String())
	for _, s := range seen {
		if at := strings.Index(s.text, canary); at >= 0 {
			t.Errorf("%s has a secret in it: ...%s", s.where, s.text[max(0, at-60):min(len(s.text), at+40)])
		}
		if strings.Contains(s.text, basic) {
			t.Errorf("%s has encoded credentials in it", s.where)
		}
	}
}
