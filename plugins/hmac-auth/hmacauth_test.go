package hmacauth

import (
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"hash"
	"strings"
	"testing"
	"time"

	"headgate/conf/schema"
	"headgate/proxy/phase"
	"headgate/proxy/phase/phasetest"
)

const (
	date = "Tue, 10 Mar 2026 08:00:00 GMT"
	ok   = "X-Consumer-Username: jack"
)

func start() time.Time { return time.Date(2026, 3, 10, 8, 0, 0, 0, time.UTC) }

func newEnv(t testing.TB) *phasetest.Env {
	e := &phasetest.Env{}
	e.AddConsumer(t, Kind(), "jack", "id", `{"key_id":"id","secret_key":"hsecret"}`)
	e.Principals["anon"] = &phase.Principal{Consumer: phase.Consumer{Name: "anon"}}
	return e
}

// sign returns the Authorization line of a client that signs text.
func sign(algorithm, secret, headers, text string) string {
	h := map[string]func() hash.Hash{"hmac-sha1": sha1.New, "hmac-sha256": sha256.New, "hmac-sha512": sha512.New}[algorithm]
	mac := hmac.New(h, []byte(secret))
	mac.Write([]byte(text))
	return `Authorization: Signature keyId="id",algorithm="` + algorithm + `",headers="` + headers + `",signature="` +
		base64.StdEncoding.EncodeToString(mac.Sum(nil)) + `"`
}

func refusal(message string) string {
	return "401\nContent-Type: text/plain; charset=utf-8\nWWW-Authenticate: hmac realm=\"hmac\"\n\n{\"message\":\"" + message + "\"}\n"
}

// upstreamSees returns the refusal, or the lines about the consumer and the Authorization line that the upstream would see.
func upstreamSees(t *testing.T, conf, request, body string, lines ...string) string {
	t.Helper()
	e := newEnv(t)
	p := e.Build(t, Kind(), conf)
	x := phasetest.Exchange(request, lines...)
	x.Start, x.Request.Body = start(), []byte(body)
	got := phasetest.Run(x, e, phasetest.Reply(200, "served"), phase.Instance{Name: "hmac-auth", Plugin: p})
	if x.Response.Source == phase.FromPlugin {
		return got
	}
	var left []string
	for _, l := range phasetest.Lines(&x.Request.Header) {
		if strings.HasPrefix(l, "X-C") || strings.HasPrefix(l, "Authorization") {
			left = append(left, l)
		}
	}
	return strings.Join(left, "\n")
}

func TestRewrite(t *testing.T) {
	const plain = "id\nGET /a\ndate: " + date + "\n"
	const hide = `{"hide_credentials":true}`
	refused := refusal("client request can't be validated")
	right := sign("hmac-sha256", "hsecret", "@request-target date", plain)
	dated := "Date: " + date
	swap := func(old, by string) []string { return []string{strings.Replace(right, old, by, 1), dated} }
	tests := []struct {
		name, conf, request string
		lines               []string
		want                string
	}{
		{"right", `{}`, "GET /a", []string{right, dated}, right + "\n" + ok},
		{"hide", hide, "GET /a", []string{right, dated}, ok},
		{"sha1", hide, "GET /a", []string{sign("hmac-sha1", "hsecret", "@request-target date", plain), dated}, ok},
		{"sha512", hide, "GET /a", []string{sign("hmac-sha512", "hsecret", "@request-target date", plain), dated}, ok},
		{"query in target", hide, "GET /a?x=1",
			[]string{sign("hmac-sha256", "hsecret", "@request-target date", "id\nGET /a?x=1\ndate: "+date+"\n"), dated}, ok},
		{"query not signed", hide, "GET /a?x=1", []string{right, dated}, refused},
		{"order of the client", hide, "GET /a",
			[]string{sign("hmac-sha256", "hsecret", "date @request-target", "id\ndate: "+date+"\nGET /a\n"), dated}, ok},
		{"names as the client writes them", hide, "GET /a",
			[]string{sign("hmac-sha256", "hsecret", "Date", "id\nDate: "+date+"\n"), dated}, ok},
		{"host", hide, "GET /a",
			[]string{sign("hmac-sha256", "hsecret", "host date", "id\nhost: gateway.test\ndate: "+date+"\n"), dated}, ok},
		{"line that is not there", hide, "GET /a",
			[]string{sign("hmac-sha256", "hsecret", "x-none date", "id\ndate: "+date+"\n"), dated}, ok},
		{"line that is there twice", hide, "GET /a",
			[]string{sign("hmac-sha256", "hsecret", "x-a date", "id\nx-a: 1\ndate: "+date+"\n"), dated, "X-A: 1", "X-A: 2"}, refused},
		{"line that was not there and was added twice", hide, "GET /a",
			[]string{sign("hmac-sha256", "hsecret", "x-a date", "id\ndate: "+date+"\n"), dated, "X-A: 1", "X-A: 2"}, refused},
		{"blanks and unknown parameters", hide, "GET /a", swap(`keyId="id",`, `  created=5 , keyId="id" ,	x="y",,`), ok},
		{"no padding", hide, "GET /a", []string{strings.TrimSuffix(right, `="`) + `"`, dated}, ok},

		{"missing", `{}`, "GET /a", nil, refusal("client request can't be validated: missing Authorization header")},
		{"other scheme", `{}`, "GET /a", []string{"Authorization: Basic abc"},
			refusal("client request can't be validated: Authorization header does not start with 'Signature'")},
		{"bare scheme", `{}`, "GET /a", []string{"Authorization: Signature", dated}, refused},
		{"longer scheme", `{}`, "GET /a", swap("Signature", "Signatures"), refused},
		{"other secret", `{}`, "GET /a", []string{sign("hmac-sha256", "other", "@request-target date", plain), dated}, refused},
		{"unknown key", `{}`, "GET /a", swap(`"id"`, `"nobody"`), refused},
		{"unknown key, secret of nobody", `{}`, "GET /a", []string{strings.Replace(
			sign("hmac-sha256", "", "date", "nobody\ndate: "+date+"\n"), `"id"`, `"nobody"`, 1), dated}, refused},
		{"other algorithm named", `{}`, "GET /a", swap("sha256", "sha512"), refused},
		{"unknown algorithm", `{}`, "GET /a", swap("sha256", "md5"), refused},
		{"algorithm not allowed", `{"allowed_algorithms":["hmac-sha512"]}`, "GET /a", []string{right, dated}, refused},
		{"no algorithm", `{}`, "GET /a", swap(`algorithm="hmac-sha256",`, ""), refused},
		{"no key", `{}`, "GET /a", swap(`keyId="id",`, ""), refused},
		{"empty key", `{}`, "GET /a", swap(`"id"`, `""`), refused},
		{"two keys", `{}`, "GET /a", swap(`keyId="id",`, `keyId="nobody",keyId="id",`), refused},
		{"key without quotes", `{}`, "GET /a", swap(`keyId="id"`, `keyId=i"d"`), refused},
		{"open quotes", `{}`, "GET /a", []string{strings.TrimSuffix(right, `"`), dated}, refused},
		{"something behind quotes", `{}`, "GET /a", []string{right + "x", dated}, refused},
		{"no base64", `{}`, "GET /a", swap(`signature="`, `signature="!`), refused},
		{"signature too long", `{}`, "GET /a", swap(`signature="`, `signature="`+strings.Repeat("A", 200)), refused},
		{"method changed", `{}`, "POST /a", []string{right, dated}, refused},

		{"no date", `{}`, "GET /a", []string{right}, refused},
		{"two dates", `{}`, "GET /a", []string{right, dated, dated}, refused},
		{"date is not one", `{}`, "GET /a", []string{sign("hmac-sha256", "hsecret", "date", "id\ndate: now\n"), "Date: now"}, refused},
		{"date not signed", `{}`, "GET /a", []string{sign("hmac-sha256", "hsecret", "@request-target", "id\nGET /a\n"), dated}, refused},
		{"date need not be signed", `{"signed_headers":[],"hide_credentials":true}`, "GET /a",
			[]string{sign("hmac-sha256", "hsecret", "@request-target", "id\nGET /a\n"), dated}, ok},
		{"demanded line not there", `{"signed_headers":["x-a"]}`, "GET /a",
			[]string{sign("hmac-sha256", "hsecret", "x-a date", "id\ndate: "+date+"\n"), dated}, refused},
		{"demanded line", `{"signed_headers":["X-A","@request-target"],"hide_credentials":true}`, "GET /a",
			[]string{sign("hmac-sha256", "hsecret", "x-a @request-target", "id\nx-a: 1\nGET /a\n"), dated, "x-a: 1"}, ok},

		{"anonymous", `{"anonymous_consumer":"anon"}`, "GET /a", nil, "X-Consumer-Username: anon"},
		{"anonymous, hidden", `{"anonymous_consumer":"anon","hide_credentials":true}`, "GET /a", []string{right}, "X-Consumer-Username: anon"},
		{"anonymous missing", `{"anonymous_consumer":"nobody"}`, "GET /a", []string{right}, refusal("Invalid user authorization")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := upstreamSees(t, tt.conf, tt.request, "", tt.lines...); got != tt.want {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
		})
	}
}

func TestClockSkew(t *testing.T) {
	refused := refusal("client request can't be validated")
	for _, tt := range []struct {
		conf, at, want string
	}{
		{`{}`, "Tue, 10 Mar 2026 07:55:00 GMT", ok},
		{`{}`, "Tue, 10 Mar 2026 07:54:59 GMT", refused},
		{`{}`, "Tue, 10 Mar 2026 08:05:00 GMT", ok},
		{`{}`, "Tue, 10 Mar 2026 08:05:01 GMT", refused},
		{`{}`, "Tuesday, 10-Mar-26 08:00:00 GMT", ok},
		{`{}`, "Tue Mar 10 08:00:00 2026", ok},
		{`{}`, "Tue, 10 Mar 2026 08:00:00 UTC", refused},
		{`{}`, "2026-03-10T08:00:00Z", refused},
		{`{}`, "Mon, 01 Jan 0001 00:00:00 GMT", refused},
		{`{"clock_skew":1}`, "Tue, 10 Mar 2026 07:59:59 GMT", ok},
		{`{"clock_skew":1}`, "Tue, 10 Mar 2026 07:59:58 GMT", refused},
		{`{"clock_skew":1e3}`, "Tue, 10 Mar 2026 08:16:40 GMT", ok},
		{`{"clock_skew":1e30}`, "Tue, 10 Mar 1998 08:16:40 GMT", ok},
	} {
		conf := strings.Replace(tt.conf, "{", `{"hide_credentials":true,`, 1)
		conf = strings.Replace(conf, ",}", "}", 1)
		line := sign("hmac-sha256", "hsecret", "date", "id\ndate: "+tt.at+"\n")
		if got := upstreamSees(t, conf, "GET /a", "", line, "Date: "+tt.at); got != tt.want {
			t.Errorf("%s at %s: %s", tt.conf, tt.at, got)
		}
	}
}

func TestBody(t *testing.T) {
	const body = "some body"
	refused := refusal("client request can't be validated")
	digestOf := func(body string) string {
		sum := sha256.Sum256([]byte(body))
		return "SHA-256=" + base64.StdEncoding.EncodeToString(sum[:])
	}
	const validate = `{"hide_credentials":true,"validate_request_body":true,"max_req_body_size":9}`
	for _, tt := range []struct {
		name, conf, body, digest, want string
	}{
		{"right", validate, body, digestOf(body), ok},
		{"no body", validate, "", digestOf(""), ok},
		{"other body", validate, "SOME BODY", digestOf(body), refused},
		{"other form", validate, body, strings.TrimRight(digestOf(body), "="), refused},
		{"other digest", validate, body, "MD5=AAAA", refused},
		{"no digest", validate, body, "", refused},
		{"too large", validate, body + "!", digestOf(body + "!"),
			"413\nContent-Type: text/plain; charset=utf-8\n\n{\"message\":\"client request can't be validated\"}\n"},
		{"not validated", `{"hide_credentials":true}`, "SOME BODY", digestOf(body), ok},
	} {
		t.Run(tt.name, func(t *testing.T) {
			line := sign("hmac-sha256", "hsecret", "date content-length", "id\ndate: "+date+"\ncontent-length: 9\n")
			if len(tt.body) != 9 {
				line = sign("hmac-sha256", "hsecret", "date", "id\ndate: "+date+"\n")
			}
			lines := []string{line, "Date: " + date}
			if tt.digest != "" {
				lines = append(lines, "Digest: "+tt.digest)
			}
			if got := upstreamSees(t, tt.conf, "POST /a", tt.body, lines...); got != tt.want {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
		})
	}
	signed := sign("hmac-sha256", "hsecret", "digest", "id\ndigest: "+digestOf(body)+"\n")
	conf := `{"hide_credentials":true,"validate_request_body":true,"signed_headers":["digest"]}`
	if got := upstreamSees(t, conf, "POST /a", "other", signed, "Date: "+date, "Digest: "+digestOf("other")); got != refused {
		t.Errorf("a signed digest was changed: %s", got)
	}
}

func TestSchemas(t *testing.T) {
	route, consumer := Kind().Schema, Kind().Consumer.Schema
	tests := []struct {
		schema     []byte
		conf, want string
	}{
		{route, `{"allowed_algorithms":["hmac-sha1"],"clock_skew":1,"signed_headers":[],"validate_request_body":true,"other":1}`, ""},
		{route, `{"allowed_algorithms":[]}`, `property "allowed_algorithms" validation failed: expect array to have at least 1 items`},
		{route, `{"allowed_algorithms":["md5"]}`,
			`property "allowed_algorithms" validation failed: failed to validate item 1: matches none of the enum values`},
		{route, `{"clock_skew":0}`, `property "clock_skew" validation failed: expected 0 to be at least 1`},
		{route, `{"signed_headers":[""]}`,
			`property "signed_headers" validation failed: failed to validate item 1: string too short, expected at least 1, got 0`},
		{route, `{"anonymous_consumer":""}`, `property "anonymous_consumer" validation failed: string too short, expected at least 1, got 0`},
		{consumer, `{"key_id":"k","secret_key":"s","other":1}`, ""},
		{consumer, `{"key_id":"k"}`, `property "secret_key" is required`},
		{consumer, `{"secret_key":"s"}`, `property "key_id" is required`},
		{consumer, `{"key_id":"","secret_key":"s"}`, `property "key_id" validation failed: string too short, expected at least 1, got 0`},
		{consumer, `{"key_id":"k","secret_key":"` + strings.Repeat("s", 257) + `"}`,
			`property "secret_key" validation failed: string too long, expected at most 256, got 257`},
	}
	for _, tt := range tests {
		s, err := schema.Compile("hmac-auth", tt.schema)
		if err != nil {
			t.Fatal(err)
		}
		doc, err := schema.DecodeJSON([]byte(tt.conf))
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		if err := s.Validate(doc); err != nil {
			got = err.Error()
		}
		if got != tt.want {
			t.Errorf("%s\ngot  %s\nwant %s", tt.conf, got, tt.want)
		}
	}
}

func TestReferenceIsNoSecret(t *testing.T) {
	for _, conf := range []string{`{"key_id":"k","secret_key":"$secret://vault/1/p"}`, `{"key_id":"$env://KEY_ID","secret_key":"s"}`} {
		if _, err := Kind().Consumer.Build([]byte(conf)); err == nil || strings.Contains(err.Error(), "://") {
			t.Errorf("%s: %v", conf, err)
		}
	}
}

func TestAllocations(t *testing.T) {
	e := newEnv(t)
	p := e.Build(t, Kind(), `{"hide_credentials":true,"validate_request_body":true}`).(phase.Rewriter)
	for _, algorithm := range []string{"hmac-sha1", "hmac-sha256", "hmac-sha512"} {
		from := phasetest.Exchange("GET /a?b=1", sign(algorithm, "hsecret", "@request-target date", "id\nGET /a?b=1\ndate: "+date+"\n"),
			"Date: "+date, "Digest: SHA-256=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=")
		x := &phase.Exchange{}
		n := testing.AllocsPerRun(100, func() {
			phasetest.Refill(x, from, e)
			x.Start = start()
			if p.Rewrite(x) != phase.Continue {
				t.Fatal("refused")
			}
		})
		if n != 0 && !raceEnabled {
			t.Errorf("%s: %v allocations", algorithm, n)
		}
	}
}

func FuzzConfig(f *testing.F) {
	for _, s := range []string{`{}`, `[]`, `{"clock_skew":1e400}`, `{"clock_skew":5.0,"signed_headers":{}}`, `{"allowed_algorithms":["hmac-sha1"]}`} {
		f.Add([]byte(s))
	}
	s, err := schema.Compile("hmac-auth", Kind().Schema)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, conf []byte) {
		doc, err := schema.DecodeJSON(conf)
		if err != nil || s.Validate(doc) != nil {
			return
		}
		c, err := read(conf)
		if err != nil || c.ClockSkew < 1 || c.MaxReqBodySize < 1 || c.AllowedAlgorithms == [algorithms]bool{} {
			t.Fatalf("%s was read as %+v, %v", conf, c, err)
		}
		p, err := Kind().Build(conf, &phasetest.Env{})
		if err != nil {
			t.Fatalf("%s satisfies the schema and was not built: %v", conf, err)
		}
		if p.(phase.Rewriter).Rewrite(phasetest.Exchange("GET /")) != phase.Stop {
			t.Fatalf("%s lets everybody in", conf)
		}
		_, _ = Kind().Consumer.Build(conf)
	})
}

// Whatever stands in the line, only what the secret has signed is let in.
func FuzzSignature(f *testing.F) {
	right := strings.TrimPrefix(sign("hmac-sha256", "hsecret", "date", "id\ndate: "+date+"\n"), "Authorization: Signature")
	for _, s := range []string{right, ` keyId="`, ` keyId="id",algorithm=hmac-sha1,signature=""`, `,,`, "\t=", ` headers="date  date",keyId="id`} {
		f.Add([]byte(s))
	}
	e := &phasetest.Env{}
	e.AddConsumer(f, Kind(), "jack", "id", `{"key_id":"id","secret_key":"hsecret"}`)
	p := e.Build(f, Kind(), `{}`).(*plugin)
	f.Fuzz(func(t *testing.T, text []byte) {
		var s signature
		if !s.parse(text) {
			return
		}
		for _, field := range [][]byte{s.keyID, s.algorithm, s.mac} {
			if len(field) == 0 || strings.Contains(string(field), `"`) || !strings.Contains(string(text), `="`+string(field)+`"`) {
				t.Fatalf("%q has the field %q", text, field)
			}
		}
		x := phasetest.Exchange("GET /", "Date: "+date)
		x.Start, x.Registry = start(), e
		c := p.verify(x, &s)
		text2, _ := s.appendText(nil, x)
		mac := hmac.New(sha256.New, []byte("hsecret"))
		mac.Write(text2)
		want := base64.StdEncoding.EncodeToString(mac.Sum(nil))
		if c != nil && string(s.algorithm) == "hmac-sha256" && !strings.HasPrefix(want, string(s.mac[:42])) {
			t.Fatalf("%q was let in", text)
		}
	})
}
