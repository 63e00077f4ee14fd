package uarestriction

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
		{`{"allowlist":["^ok"],"bypass_missing":true,"message":"no","unknown":1}`, ""},
		{`{"denylist":["my-bot1","(Baiduspider)/(\\d+)\\.(\\d+)","(?<!not )evil","(?P<a>b)(?=c)"]}`, ""},
		{`{}`, `value should match only one schema, but matches none`},
		{`{"allowlist":["a"],"denylist":["b"]}`, `value should match only one schema, but matches both schemas 1 and 2`},
		{`{"denylist":[]}`, `property "denylist" validation failed: expect array to have at least 1 items`},
		{`{"denylist":["a",""]}`, `property "denylist" validation failed: failed to validate item 2: string too short, expected at least 1, got 0`},
		{`{"denylist":["(["]}`, "error parsing regexp: missing closing ]: `[`"},
		{`{"allowlist":["ok","a**+"]}`, "error parsing regexp: invalid nested repetition operator: `**`"},
		{`{"allowlist":["a"],"bypass_missing":"yes"}`, `property "bypass_missing" validation failed: wrong type: expected boolean, got string`},
		{`{"allowlist":["a"],"message":"` + strings.Repeat("é", 1025) + `"}`,
			`property "message" validation failed: string too long, expected at most 1024, got 1025`},
	}
	for _, tt := range tests {
		if got := refusal(t, s, tt.conf); got != tt.want {
			t.Errorf("%s\ngot  %s\nwant %s", tt.conf, got, tt.want)
		}
	}
}

func instance(t testing.TB, conf string) phase.Instance {
	t.Helper()
	return phase.Instance{Name: "ua-restriction", Plugin: (&phasetest.Env{}).Build(t, Kind(), conf)}
}

const (
	passed  = "200\n\nok"
	refused = "403\nContent-Type: text/plain; charset=utf-8\n\n" + `{"message":"Not allowed"}` + "\n"
)

func TestAnswers(t *testing.T) {
	const (
		deny  = `{"denylist":["my-bot1","(Baiduspider)/(\\d+)\\.(\\d+)"]}`
		allow = `{"allowlist":["^ok"],"message":"no \"entry\"","bypass_missing":true}`
	)
	no := strings.Replace(refused, "Not allowed", `no \"entry\"`, 1)
	tests := []struct {
		conf  string
		lines []string
		want  string
	}{
		{deny, []string{"User-Agent: my-bot1"}, refused},
		{deny, []string{"User-Agent: x my-bot1 y"}, refused},
		{deny, []string{"user-agent: Baiduspider/3.0"}, refused},
		{deny, []string{"User-Agent: Baiduspider"}, passed},
		{deny, []string{"User-Agent: MY-BOT1"}, passed},
		{deny, []string{"User-Agent: "}, passed},
		{deny, nil, refused},
		{deny, []string{"User-Agent: ok", "User-Agent: fine"}, refused},
		{allow, []string{"User-Agent: ok/1"}, passed},
		{allow, []string{"User-Agent: bad"}, no},
		{allow, []string{"User-Agent: "}, no},
		{allow, []string{"User-Agent: ok", "User-Agent: bad"}, no},
		{allow, nil, passed},
		{`{"allowlist":["^ok"]}`, nil, refused},
		{`{"denylist":["(?<!not )evil"]}`, []string{"User-Agent: evil"}, refused},
		{`{"denylist":["(?<!not )evil"]}`, []string{"User-Agent: not evil"}, passed},
	}
	for _, tt := range tests {
		x := phasetest.Exchange("GET /a", tt.lines...)
		if got := phasetest.Run(x, &phasetest.Env{}, phasetest.Reply(200, "ok"), instance(t, tt.conf)); got != tt.want {
			t.Errorf("%s with %q\ngot  %q\nwant %q", tt.conf, tt.lines, got, tt.want)
		}
	}
}

// Neither list lets a client pass with whom a pattern takes too long.
func TestSlowPattern(t *testing.T) {
	evil := "User-Agent: " + strings.Repeat("a", 64) + "!"
	for conf, want := range map[string]string{
		`{"denylist":["^(?!b)(\\w+\\s?)*$"]}`:       refused,
		`{"denylist":["^(?!b)(\\w+\\s?)*$","!$"]}`:  refused,
		`{"allowlist":["^(?!b)(\\w+\\s?)*$"]}`:      refused,
		`{"allowlist":["^(?!b)(\\w+\\s?)*$","!$"]}`: passed,
	} {
		x := phasetest.Exchange("GET /a", evil)
		if got := phasetest.Run(x, &phasetest.Env{}, phasetest.Reply(200, "ok"), instance(t, conf)); got != want {
			t.Errorf("%s\ngot  %q\nwant %q", conf, got, want)
		}
	}
}

func FuzzConfig(f *testing.F) {
	f.Add(`{"denylist":["my-bot1","(?!a)b"]}`, "my-bot1")
	f.Add(`{"allowlist":["^ok$"],"message":"\u2028","bypass_missing":true}`, "ok\n")
	f.Add(`{"allowlist":["\\xff","(?P<n>.)\\k<n>"]}`, "aa")
	f.Add(`[]`, "")
	s := compiled(f)
	f.Fuzz(func(t *testing.T, conf, agent string) {
		doc, err := schema.DecodeJSON([]byte(conf))
		if err != nil || s.Validate(doc) != nil || Kind().Validate([]byte(conf)) != nil {
			return
		}
		x := phasetest.Exchange("GET /a", "User-Agent: "+agent)
		got := phasetest.Run(x, &phasetest.Env{}, phasetest.Reply(200, "ok"), instance(t, conf))
		if got != passed && !strings.HasPrefix(got, "403\n") {
			t.Errorf("%s: %q", conf, got)
		}
	})
}
