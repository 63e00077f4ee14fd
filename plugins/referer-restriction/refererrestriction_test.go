package refererrestriction

import (
	"strings"
	"testing"

	"headgate/conf/schema"
	"headgate/proxy/phase"
	"headgate/proxy/phase/phasetest"
)

// refusal returns the text that a write is refused with, "" when it isn't.
func refusal(t testing.TB, s *schema.Schema, conf string) string {
	t.Helper()
	doc, err := schema.DecodeJSON([]byte(conf))
	if err != nil {
		t.Fatalf("%s: %v", conf, err)
	}
	if err = s.Validate(doc); err == nil {
		err = Kind().Validate([]byte(conf))
	}
	if err != nil {
		return err.Error()
	}
	return ""
}

func compiled(t testing.TB) *schema.Schema {
	t.Helper()
	s, err := schema.Compile(Kind().Name, Kind().Schema)
	if err != nil {
		t.Fatal(err)
	}
	return s
}
func TestRefusals(t *testing.T) {
	s := compiled(t)
	tests := []struct{ conf, want string }{
		{`{"whitelist":["xx.com","*.xx.com"],"bypass_missing":true,"message":"no","unknown":1}`, ""},
		{`{"blacklist":["*","[::1]"]}`, ""},
		{`{}`, `value should match only one schema, but matches none`},
		{`{"whitelist":["a"],"blacklist":["b"]}`, `value should match only one schema, but matches both schemas 1 and 2`},
		{`{"whitelist":[]}`, `property "whitelist" validation failed: expect array to have at least 1 items`},
		{`{"whitelist":["a/b"]}`, `property "whitelist" validation failed: failed to validate item 1: ` +
			`failed to match pattern "^\\*$|^\\*?[0-9a-zA-Z-._\\[\\]:]+$" with "a/b"`},
		{`{"whitelist":["a"],"message":""}`, `property "message" validation failed: string too short, expected at least 1, got 0`},
	}
	for _, tt := range tests {
		if got := refusal(t, s, tt.conf); got != tt.want {
			t.Errorf("%s\ngot  %s\nwant %s", tt.conf, got, tt.want)
		}
	}
}

func instance(t testing.TB, conf string) phase.Instance {
	t.Helper()
	return phase.Instance{Name: "referer-restriction", Plugin: (&phasetest.Env{}).Build(t, Kind(), conf)}
}

const (
	passed  = "200\n\nok"
	refused = "403\nContent-Type: text/plain; charset=utf-8\n\n" + `{"message":"Your referer host is not allowed"}` + "\n"
)

func TestAnswers(t *testing.T) {
	const (
		black = `{"blacklist":["xx.com"],"bypass_missing":true,"message":"n\"o"}`
		white = `{"whitelist":["yy.com","*.XX.com","[::1]"]}`
	)
	no := strings.Replace(refused, "Your referer host is not allowed", `n\"o`, 1)
	tests := []struct{ conf, referer, want string }{
		{black, "http://xx.com/x", no},
		{black, "https://XX.com:8443", no},
		{black, "http://u@xx.com?a", no},
		{black, "http://zz.com", passed},
		{black, "http://a.xx.com", passed},
		{black, "", passed},
		{black, "xx.com", passed},
		{white, "http://yy.com", passed},
		{white, "http://a.b.xx.com/x?y", passed},
		{white, "//yy.com/", passed},
		{white, "HTTPS://YY.com", passed},
		{white, "http://[::1]:80/", passed},
		{white, "http://xx.com", refused},
		{white, "http://evil.com/yy.com", refused},
		{white, "http://evil.com#.xx.com", refused},
		{white, "http://evil.com\\.xx.com", refused},
		{white, "http://yy.com@evil.com", refused},
		{white, "http://evil.com:.xx.com", refused},
		{white, "ftp://yy.com", refused},
		{white, "http://yy.com, http://evil.com", refused},
		{white, "http://" + strings.Repeat("a", 300) + ".xx.com", refused},
		{white, "", refused},
		{`{"whitelist":["*"]}`, "http://a", passed},
		{`{"whitelist":["*"]}`, "http://", refused},
	}
	for _, tt := range tests {
		var lines []string
		if tt.referer != "" {
			lines = append(lines, "Referer: "+tt.referer)
		}
		x := phasetest.Exchange("GET /a", lines...)
		if got := phasetest.Run(x, &phasetest.Env{}, phasetest.Reply(200, "ok"), instance(t, tt.conf)); got != tt.want {
			t.Errorf("%s from %s\ngot  %q\nwant %q", tt.conf, tt.referer, got, tt.want)
		}
	}
	x := phasetest.Exchange("GET /a", "Referer: http://zz.com", "Referer: http://xx.com")
	if got := phasetest.Run(x, &phasetest.Env{}, phasetest.Reply(200, "ok"), instance(t, black)); got != no {
		t.Errorf("two lines: %q", got)
	}
}

func FuzzConfig(f *testing.F) {
	f.Add(`{"whitelist":["yy.com","*.xx.com"]}`, "http://a.xx.com:80/b")
	f.Add(`{"blacklist":["*"],"bypass_missing":true}`, "//[::1]")
	f.Add(`{"blacklist":[1]}`, "https://\xff@")
	s := compiled(f)
	f.Fuzz(func(t *testing.T, conf, referer string) {
		host := string(appendHost(nil, []byte(referer)))
		if len(host) > maxHost || strings.ContainsAny(host, "/?#\\@ ,ABCDEFGHIJKLMNOPQRSTUVWXYZ") {
			t.Errorf("%q has the host %q", referer, host)
		}
		doc, err := schema.DecodeJSON([]byte(conf))
		if err != nil || s.Validate(doc) != nil || Kind().Validate([]byte(conf)) != nil {
			return
		}
		x := phasetest.Exchange("GET /a", "Referer: "+referer)
		got := phasetest.Run(x, &phasetest.Env{}, phasetest.Reply(200, "ok"), instance(t, conf))
		if got != passed && !strings.HasPrefix(got, "403\n") {
			t.Errorf("%s: %q", conf, got)
		}
	})
}
