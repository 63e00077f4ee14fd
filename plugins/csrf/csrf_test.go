package csrf

import (
	"encoding/base64"
	"regexp"
	"strings"
	"testing"
	"time"

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
		{`{"key":"userkey"}`, ""},
		{`{"key":"$secret://vault/1/csrf/key","name":"tk","expires":0,"unknown":1}`, ""},
		{`{}`, `property "key" is required`},
		{`{"key":1}`, `property "key" validation failed: wrong type: expected string, got number`},
		{`{"key":"k","expires":"1"}`, `property "expires" validation failed: wrong type: expected integer, got string`},
		{`{"key":"k","expires":1e300}`, errExpires.Error()},
		{`{"key":"k","name":"a;b"}`, errName.Error()},
		{`{"key":"k","name":""}`, errName.Error()},
	}
	for _, tt := range tests {
		if got := refusal(t, s, tt.conf); got != tt.want {
			t.Errorf("%s\ngot  %s\nwant %s", tt.conf, got, tt.want)
		}
	}
	if k := Kind(); len(k.Encrypted) != 1 || k.Encrypted[0] != "key" {
		t.Errorf("encrypted: %v", k.Encrypted)
	}
}

// visit sends a request at a time and returns the answer without its cookie, and the cookie's line.
func visit(t testing.TB, conf string, at time.Time, request string, lines ...string) (answer, cookie string) {
	t.Helper()
	i := phase.Instance{Name: "csrf", Plugin: (&phasetest.Env{}).Build(t, Kind(), conf)}
	x := phasetest.Exchange(request, lines...)
	x.Start = at
	phasetest.Run(x, &phasetest.Env{}, phasetest.Reply(200, "ok"), i)
	line, _ := x.Response.Header.Get("Set-Cookie")
	cookie = string(line)
	x.Response.Header.Del("Set-Cookie")
	return phasetest.Answer(x), cookie
}

// known is a token that APISIX made with the key "userkey" at the second 2643119624.
const known = "eyJyYW5kb20iOjAuNDI5ODYzMTk3MTYxMzksInNpZ24iOiI0ODRlMDY4NTkxMWQ5NmJhMDc5YzQ1ZGI0OTE2NmZkYjQ0ODhjODVkNWQ0NmE1Y2FhM2UwMmFhZDliNjE5OTQ2Iiwi" +
	"ZXhwaXJlcyI6MjY0MzExOTYyNH0="

const passed = "200\n\nok"

func refused(msg string) string {
	return "401\nContent-Type: text/plain; charset=utf-8\n\n" + `{"error_msg":"` + msg + `"}` + "\n"
}

func both(token string) []string {
	return []string{"apisix-csrf-token: " + token, "Cookie: a=b; apisix-csrf-token=" + token}
}

func TestAnswers(t *testing.T) {
	const conf = `{"key":"userkey"}`
	const signed = "Failed to verify the csrf token signature"
	at := time.Unix(2643119624, 0)
	tests := []struct {
		name, conf, request string
		late                time.Duration
		lines               []string
		want                string
	}{
		{"GET", conf, "GET /a", 0, nil, passed},
		{"HEAD", conf, "HEAD /a", 0, nil, passed},
		{"OPTIONS", conf, "OPTIONS /a", 0, nil, passed},
		{"no header", conf, "POST /a", 0, both(known)[1:], refused("no csrf token in headers")},
		{"empty header", conf, "POST /a", 0, []string{"apisix-csrf-token: "}, refused("no csrf token in headers")},
		{"no cookie", conf, "POST /a", 0, both(known)[:1], refused("no csrf cookie")},
		{"another cookie", conf, "PUT /a", 0, []string{"apisix-csrf-token: x", "Cookie: apisix-csrf-token=y"}, refused("csrf token mismatch")},
		{"not signed", conf, "POST /a", 0, both("eyJhIjoxfQ=="), refused(signed)},
		{"not base64", conf, "POST /a", 0, both("%%%"), refused(signed)},
		{"long", conf, "POST /a", 0, both(strings.Repeat("AAAA", 1000)), refused(signed)},
		{"known", conf, "POST /a", 0, both(known), passed},
		{"known, last second", conf, "DELETE /a", 7200 * time.Second, both(known), passed},
		{"known, too late", conf, "POST /a", 7201 * time.Second, both(known), refused(signed)},
		{"known, for ever", `{"key":"userkey","expires":0}`, "POST /a", 1e6 * time.Second, both(known), passed},
		{"another key", `{"key":"other"}`, "POST /a", 0, both(known), refused(signed)},
		{"another name", `{"key":"userkey","name":"tk"}`, "POST /a", 0, both(known), refused("no csrf token in headers")},
	}
	for _, tt := range tests {
		got, cookie := visit(t, tt.conf, at.Add(tt.late), tt.request, tt.lines...)
		if got != tt.want {
			t.Errorf("%s\ngot  %q\nwant %q", tt.name, got, tt.want)
		}
		if cookie == "" {
			t.Errorf("%s: no cookie", tt.name)
		}
	}
}

func TestRoundTrip(t *testing.T) {
	at := time.Date(2026, 11, 22, 23, 30, 0, 0, time.UTC)
	pattern := regexp.MustCompile(`^tk=([A-Za-z0-9+/=]+);path=/;SameSite=Lax;Expires=(.*)$`)
	content := regexp.MustCompile(`^\{"random":0\.[1-9][0-9]{12}[1-9],"expires":1795390200,"sign":"[0-9a-f]{64}"\}$`)
	const conf = `{"key":"userkey","name":"tk","expires":3600}`
	seen := map[string]bool{}
	for range 50 {
		_, cookie := visit(t, conf, at, "GET /a")
		parts := pattern.FindStringSubmatch(cookie)
		if parts == nil || parts[2] != "Mon, 23-Nov-26 00:30:00 GMT" {
			t.Fatalf("cookie %s", cookie)
		}
		if raw, err := base64.StdEncoding.DecodeString(parts[1]); err != nil || !content.Match(raw) {
			t.Fatalf("token %s", raw)
		}
		seen[parts[1]] = true
		if got, _ := visit(t, conf, at, "POST /a", "TK: "+parts[1], "Cookie: tk="+parts[1]); got != passed {
			t.Fatalf("%s: %q", parts[1], got)
		}
	}
	if len(seen) < 50 {
		t.Errorf("%d different tokens", len(seen))
	}
	if _, cookie := visit(t, conf, at.AddDate(12, 0, 0), "GET /a"); !strings.HasSuffix(cookie, "Expires=Tue, 23-Nov-2038 00:30:00 GMT") {
		t.Errorf("cookie %s", cookie)
	}
}

// Any change of a token, and anything that reads like its parts in another order, must be noticed.
func TestForgeries(t *testing.T) {
	raw, err := base64.StdEncoding.DecodeString(known)
	if err != nil {
		t.Fatal(err)
	}
	at := time.Unix(2643119624, 0)
	for _, change := range [][2]string{
		{"0.42", "0.43"}, {"2643119624", "2643119625"}, {"484e", "484f"}, {`"sign"`, `"Sign"`}, {"{", "{ "}, {"}", ",}"}, {"}", `,"a":1}`},
		{"0.42986319716139", `"0.42986319716139"`}, {"2643119624", "2643119624,random:0"}, {"2643119624", ""}, {"0.42986319716139", ""},
	} {
		forged := base64.StdEncoding.EncodeToString([]byte(strings.Replace(string(raw), change[0], change[1], 1)))
		if got, _ := visit(t, `{"key":"userkey"}`, at, "POST /a", both(forged)...); !strings.HasPrefix(got, "401\n") {
			t.Errorf("%v: %q", change, got)
		}
	}
}

// The key must not stay in memory that other parts of the exchange are built in.
func TestKeyLeavesNoTrace(t *testing.T) {
	const key = "a-canary-that-is-a-secret"
	p := (&phasetest.Env{}).Build(t, Kind(), `{"key":"`+key+`"}`).(*plugin)
	x := phasetest.Exchange("POST /a", both(known)...)
	p.Access(x)
	p.Response(x)
	arena := x.Arena()
	if strings.Contains(string(arena[:cap(arena)]), key) || strings.Contains(phasetest.Answer(x), key) {
		t.Error("the key is in the exchange's buffer")
	}
}

func FuzzToken(f *testing.F) {
	f.Add([]byte(`{"random":0.1,"expires":1,"sign":"0"}`))
	f.Add([]byte(`{"sign":"","expires":1,"random":1e5}`))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		random, expires, sign, ok := readToken(raw)
		if ok && (len(random) == 0 || len(expires) == 0 || len(sign) == 0 || !isNumber(random)) {
			t.Errorf("%q: %q %q %q", raw, random, expires, sign)
		}
		x := phasetest.Exchange("POST /")
		if (signer{[]byte("secret")}).valid(x, []byte(base64.StdEncoding.EncodeToString(raw)), 0) {
			t.Errorf("%q was accepted", raw)
		}
	})
}

func FuzzConfig(f *testing.F) {
	f.Add(`{"key":"k"}`, known)
	f.Add(`{"key":"","name":"x","expires":-1}`, "")
	f.Add(`{"key":"k","expires":3e9}`, "a")
	s := compiled(f)
	f.Fuzz(func(t *testing.T, conf, token string) {
		doc, err := schema.DecodeJSON([]byte(conf))
		if err != nil || s.Validate(doc) != nil || Kind().Validate([]byte(conf)) != nil {
			return
		}
		_, cookie := visit(t, conf, time.Unix(1e9, 0), "POST /", both(token)...)
		if !strings.Contains(cookie, ";path=/;SameSite=Lax;Expires=") || strings.ContainsAny(cookie, "\r\n") {
			t.Errorf("%s: %q", conf, cookie)
		}
	})
}

// rounds makes a request that looks the same every time, in the memory of the one before.
func rounds(t testing.TB) func() *phase.Exchange {
	chain := phase.NewChain([]phase.Instance{{Name: "csrf", Plugin: (&phasetest.Env{}).Build(t, Kind(), `{"key":"userkey"}`)}})
	x := phasetest.Exchange("POST /", both(known)...)
	settings, method, start := x.Settings(), x.Request.Method, time.Unix(2643119624, 0)
	fields := append([]phase.Field(nil), x.Request.Header.Fields()...)
	return func() *phase.Exchange {
		x.Reset()
		x.Begin(settings)
		x.Request.Method, x.Start = method, start
		for _, f := range fields {
			x.Request.Header.Add(f.Name, f.Value)
		}
		x.Enter(nil, chain)
		if x.Access() != phase.Continue {
			panic("refused")
		}
		x.Respond()
		return x
	}
}

func BenchmarkExchange(b *testing.B) {
	round := rounds(b)
	b.ReportAllocs()
	for b.Loop() {
		round()
	}
}
