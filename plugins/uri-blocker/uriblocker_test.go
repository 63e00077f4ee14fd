package uriblocker

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
	const rules = `property "block_rules" validation failed: `
	tests := []struct{ conf, want string }{
		{`{"block_rules":["root.exe","^/b/","(?<!x)y"],"unknown":1}`, ""},
		{`{"block_rules":[]}`, ""},
		{`{"block_rules":["a"],"rejected_code":200,"rejected_msg":"no","case_insensitive":true}`, ""},
		{`{}`, `property "block_rules" is required`},
		{`{"block_rules":[".+("]}`, "error parsing regexp: missing closing ): `.+(`"},
		{`{"block_rules":["a","b","a"]}`, rules + `expected unique items but items 1 and 3 are equal`},
		{`{"block_rules":[""]}`, rules + `failed to validate item 1: string too short, expected at least 1, got 0`},
		{`{"block_rules":["` + strings.Repeat("a", 4097) + `"]}`, rules + `failed to validate item 1: string too long, expected at most 4096, got 4097`},
		{`{"block_rules":["a"],"rejected_code":199}`, `property "rejected_code" validation failed: expected 199 to be at least 200`},
		{`{"block_rules":["a"],"rejected_msg":""}`, `property "rejected_msg" validation failed: string too short, expected at least 1, got 0`},
	}
	for _, tt := range tests {
		if got := refusal(t, s, tt.conf); got != tt.want {
			t.Errorf("%s\ngot  %s\nwant %s", tt.conf, got, tt.want)
		}
	}
}

func instance(t testing.TB, conf string) phase.Instance {
	t.Helper()
	return phase.Instance{Name: "uri-blocker", Plugin: (&phasetest.Env{}).Build(t, Kind(), conf)}
}

const (
	passed = "200\n\nok"
	page   = "403\nContent-Type: text/html; charset=utf-8\n\n<html>\r\n<head><title>403 Forbidden</title></head>\r\n" +
		"<body>\r\n<center><h1>403 Forbidden</h1></center>\r\n</body>\r\n</html>\r\n"
)

func TestAnswers(t *testing.T) {
	const conf = `{"block_rules":["root.exe","^/b/","\\.\\./(?=etc)","q=[^&]*;$"]}`
	tests := []struct{ conf, request, want string }{
		{conf, "GET /x?root.exe=1", page},
		{conf, "GET /b/c", page},
		{conf, "GET /a/b/", passed},
		{conf, "GET /ROOT.exe", passed},
		{conf, "GET /?p=../etc", page},
		{conf, "GET /?p=../usr", passed},
		{conf, "GET /?q=;", page},
		{`{"block_rules":["AA"],"case_insensitive":true}`, "GET /aa", page},
		{`{"block_rules":["x","AA"],"case_insensitive":true}`, "GET /aA", page},
		{`{"block_rules":["a"],"rejected_msg":"say \"no\"","rejected_code":404}`, "GET /a",
			"404\nContent-Type: text/plain; charset=utf-8\n\n" + `{"error_msg":"say \"no\""}` + "\n"},
		{`{"block_rules":["a"],"rejected_code":599}`, "GET /a", "599\n\n"},
		{`{"block_rules":[]}`, "GET /a", passed},
	}
	for _, tt := range tests {
		if got := phasetest.Run(phasetest.Exchange(tt.request), &phasetest.Env{}, phasetest.Reply(200, "ok"), instance(t, tt.conf)); got != tt.want {
			t.Errorf("%s, %s\ngot  %q\nwant %q", tt.conf, tt.request, got, tt.want)
		}
	}
}

// A rule that takes too long blocks: a client could otherwise pass by making it so.
func TestSlowRule(t *testing.T) {
	const conf = `{"block_rules":["^/(?!b)(\\w+\\s?)*$"]}`
	x := phasetest.Exchange("GET /" + strings.Repeat("a", 64) + "!")
	if got := phasetest.Run(x, &phasetest.Env{}, phasetest.Reply(200, "ok"), instance(t, conf)); got != page {
		t.Errorf("got %q", got)
	}
	if got := phasetest.Run(phasetest.Exchange("GET /b!"), &phasetest.Env{}, phasetest.Reply(200, "ok"), instance(t, conf)); got != passed {
		t.Errorf("no match: %q", got)
	}
}

// The rules see what the route saw, not how the client wrote it.
func TestCanonicalPath(t *testing.T) {
	x := phasetest.Exchange("GET /%62/./c")
	x.Request.Path = []byte("/b/c")
	if got := phasetest.Run(x, &phasetest.Env{}, phasetest.Reply(200, "ok"), instance(t, `{"block_rules":["^/b/c$"]}`)); got != page {
		t.Errorf("got %q", got)
	}
}

func FuzzConfig(f *testing.F) {
	f.Add(`{"block_rules":["root.exe","(?!a)b"]}`, "/x?root.exe=1")
	f.Add(`{"block_rules":["\\x{fffd}"],"case_insensitive":true,"rejected_msg":"\u2028"}`, "/\xff")
	f.Add(`{"block_rules":{}}`, "/")
	s := compiled(f)
	f.Fuzz(func(t *testing.T, conf, target string) {
		doc, err := schema.DecodeJSON([]byte(conf))
		if err != nil || s.Validate(doc) != nil || Kind().Validate([]byte(conf)) != nil {
			return
		}
		x := phasetest.Exchange("GET " + target)
		got := phasetest.Run(x, &phasetest.Env{}, phasetest.Reply(200, "ok"), instance(t, conf))
		if x.Stopped() == (x.Response.Source == phase.FromUpstream) {
			t.Errorf("%s: %q", conf, got)
		}
	})
}
