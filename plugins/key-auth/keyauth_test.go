package keyauth

import (
	"encoding/json"
	"strconv"
	"strings"
	"testing"

	"headgate/conf/schema"
	"headgate/proxy/phase"
	"headgate/proxy/phase/phasetest"
)

// newEnv knows jack by the key "jack-key", his credential by "cred-key", and anon without any.
func newEnv(t testing.TB) *phasetest.Env {
	e := &phasetest.Env{}
	jack := e.AddConsumer(t, Kind(), "jack", "jack-key", `{"key":"jack-key"}`)
	jack.CustomID = "42"
	e.Consumers["cred-key"] = &phase.Credential{Principal: jack.Principal, ID: "c1"}
	e.Consumers[""] = jack
	e.Principals["anon"] = &phase.Principal{Consumer: phase.Consumer{Name: "anon"}}
	return e
}

// seen shows what the upstream would see: the query, the rewritten target if any, and the lines; or the refusal.
func seen(t testing.TB, e *phasetest.Env, conf, request string, lines ...string) string {
	p := e.Build(t, Kind(), conf)
	x := phasetest.Exchange(request, lines...)
	answer := phasetest.Run(x, e, phasetest.Reply(200, "served"), phase.Instance{Name: "key-auth", Plugin: p})
	if x.Response.Source == phase.FromPlugin {
		return answer
	}
	return strings.Join(append([]string{"?" + string(x.Request.Query)}, phasetest.Lines(&x.Request.Header)...), "\n")
}

func refusal(realm, message string) string {
	return "401\nContent-Type: text/plain; charset=utf-8\nWWW-Authenticate: apikey realm=\"" + realm + "\"\n\n{\"message\":\"" + message + "\"}\n"
}

func TestRewrite(t *testing.T) {
	const jack = "\nX-Consumer-Custom-ID: 42\nX-Consumer-Username: jack"
	tests := []struct {
		name, conf, request, line, want string
	}{
		{"missing", `{}`, "GET /a", "", refusal("key", "Missing API key in request")},
		{"invalid", `{}`, "GET /a", "apikey: nope", refusal("key", "Invalid API key in request")},
		{"realm", `{"realm":"mine"}`, "GET /a", "", refusal("mine", "Missing API key in request")},
		{"header", `{}`, "GET /a", "apikey: jack-key", "?" + jack + "\napikey: jack-key"},
		{"header in another case", `{}`, "GET /a", "ApiKey: jack-key", "?\nApiKey: jack-key" + jack},
		{"query", `{}`, "GET /a?apikey=jack-key&b=1", "", "?apikey=jack-key&b=1" + jack},
		{"escaped query", `{}`, "GET /a?api%6bey=jack%2Dkey", "", "?api%6bey=jack%2Dkey" + jack},
		{"header before query", `{}`, "GET /a?apikey=jack-key", "apikey: nope", refusal("key", "Invalid API key in request")},
		{"empty header", `{}`, "GET /a?apikey=jack-key", "apikey: ", refusal("key", "Invalid API key in request")},
		{"empty argument", `{}`, "GET /a?apikey=", "", refusal("key", "Invalid API key in request")},
		{"argument without value", `{}`, "GET /a?apikey", "", refusal("key", "Invalid API key in request")},
		{"longer key", `{}`, "GET /a", "apikey: jack-key2", refusal("key", "Invalid API key in request")},
		{"credential", `{}`, "GET /a", "apikey: cred-key",
			"?\nX-Consumer-Custom-ID: 42\nX-Consumer-Username: jack\nX-Credential-Identifier: c1\napikey: cred-key"},
		{"spoofed lines", `{}`, "GET /a?apikey=jack-key", "X-Credential-Identifier: evil", "?apikey=jack-key" + jack},

		{"other header", `{"header":"X-Key","query":"k"}`, "GET /a", "X-Key: jack-key", "?" + jack + "\nX-Key: jack-key"},
		{"other argument", `{"header":"X-Key","query":"k"}`, "GET /a?k=jack-key", "", "?k=jack-key" + jack},
		{"the usual header does not count", `{"header":"X-Key","query":"k"}`, "GET /a?apikey=jack-key", "apikey: jack-key",
			refusal("key", "Missing API key in request")},
		{"members in another case are unknown", `{"Header":"X-Key"}`, "GET /a", "X-Key: jack-key", refusal("key", "Missing API key in request")},

		{"hide header", `{"hide_credentials":true}`, "GET /a?b=1", "apikey: jack-key", "?b=1" + jack},
		{"hide argument", `{"hide_credentials":true}`, "GET /a?apikey=jack-key&b=1", "", "?b=1" + jack},
		{"hide the only argument", `{"hide_credentials":true}`, "GET /a?apikey=jack-key", "", "?" + jack},
		{"hide every argument", `{"hide_credentials":true}`, "GET /a?a=1&apikey=jack-key&&=2&%61pikey=x&b&apikey", "", "?a=1&&=2&b" + jack},
		{"hide both", `{"hide_credentials":true}`, "GET /a?apikey=secret", "apikey: jack-key", "?" + jack},
		{"nothing to hide", `{"hide_credentials":true,"anonymous_consumer":"anon"}`, "GET /a?b=1&b=2", "", "?b=1&b=2\nX-Consumer-Username: anon"},

		{"anonymous", `{"anonymous_consumer":"anon"}`, "GET /a", "", "?\nX-Consumer-Username: anon"},
		{"anonymous with a wrong key", `{"anonymous_consumer":"anon","hide_credentials":true}`, "GET /a?apikey=nope&b=1", "",
			"?b=1\nX-Consumer-Username: anon"},
		{"not anonymous", `{"anonymous_consumer":"anon"}`, "GET /a", "apikey: jack-key", "?" + jack + "\napikey: jack-key"},
		{"anonymous missing", `{"anonymous_consumer":"nobody"}`, "GET /a", "", refusal("key", "Invalid user authorization")},
		{"empty array", `[]`, "GET /a", "", refusal("key", "Missing API key in request")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var lines []string
			if tt.line != "" {
				lines = append(lines, tt.line)
			}
			if got := seen(t, newEnv(t), tt.conf, tt.request, lines...); got != tt.want {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
		})
	}
}

// The target that an earlier plugin has written, and every later reader of the query, must not have the key either.
func TestHiddenEverywhere(t *testing.T) {
	e := newEnv(t)
	p := e.Build(t, Kind(), `{"hide_credentials":true}`).(phase.Rewriter)
	for target, want := range map[string]string{
		"/n?apikey=jack-key": "/n", "/n?a=1&apikey=jack-key&b=2": "/n?a=1&b=2", "/n?a=1": "/n?a=1", "/n": "/n",
	} {
		x := phasetest.Exchange("GET /a?apikey=jack-key&c=3", "apikey: jack-key", "APIKEY: jack-key")
		x.Registry = e
		x.Request.OutTarget = []byte(target)
		if p.Rewrite(x) != phase.Continue {
			t.Fatal("refused")
		}
		if got := string(x.Request.OutTarget); got != want {
			t.Errorf("%s became %s, want %s", target, got, want)
		}
		all := string(x.Request.Query) + strings.Join(phasetest.Lines(&x.Request.Header), " ")
		if strings.Contains(all, "jack-key") || string(x.Request.Query) != "c=3" {
			t.Errorf("left over: %s", all)
		}
	}
}

func check(t testing.TB, raw []byte, conf string) string {
	t.Helper()
	s, err := schema.Compile("key-auth", raw)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := schema.DecodeJSON([]byte(conf))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Validate(doc); err != nil {
		return err.Error()
	}
	return ""
}

// The texts are those of the contract's recorded answers.
func TestSchemas(t *testing.T) {
	route, consumer := Kind().Schema, Kind().Consumer.Schema
	tests := []struct {
		schema     []byte
		conf, want string
	}{
		{route, `{}`, ""},
		{route, `{"header":"a","query":"b","hide_credentials":true,"realm":"a b!","anonymous_consumer":"x","other":1}`, ""},
		{route, `{"realm":"a\"b"}`, `property "realm" validation failed: failed to match pattern "^[ -!#-[\\]-~]+$" with "a\"b"`},
		{route, `{"realm":"a\\b"}`, `property "realm" validation failed: failed to match pattern "^[ -!#-[\\]-~]+$" with "a\\b"`},
		{route, `{"realm":""}`, `property "realm" validation failed: string too short, expected at least 1, got 0`},
		{route, `{"realm":"` + strings.Repeat("x", 129) + `"}`, `property "realm" validation failed: string too long, expected at most 128, got 129`},
		{route, `{"anonymous_consumer":""}`, `property "anonymous_consumer" validation failed: string too short, expected at least 1, got 0`},
		{route, `{"hide_credentials":"x"}`, `property "hide_credentials" validation failed: wrong type: expected boolean, got string`},
		{route, `{"header":1}`, `property "header" validation failed: wrong type: expected string, got number`},
		{consumer, `{"key":"auth-one","other":1}`, ""},
		{consumer, `{}`, `property "key" is required`},
		{consumer, `{"key":1}`, `property "key" validation failed: wrong type: expected string, got number`},
	}
	for _, tt := range tests {
		if got := check(t, tt.schema, tt.conf); got != tt.want {
			t.Errorf("%s\ngot  %s\nwant %s", tt.conf, got, tt.want)
		}
	}
}

func TestReferenceIsNoKey(t *testing.T) {
	for _, key := range []string{"$secret://vault/1/jack/key", "$env://KEY"} {
		if _, err := Kind().Consumer.Build([]byte(`{"key":"` + key + `"}`)); err == nil || strings.Contains(err.Error(), key) {
			t.Errorf("%s: %v", key, err)
		}
	}
}

func TestAllocations(t *testing.T) {
	e := newEnv(t)
	p := e.Build(t, Kind(), `{"hide_credentials":true,"anonymous_consumer":"anon"}`).(phase.Rewriter)
	for _, from := range []*phase.Exchange{
		phasetest.Exchange("GET /a", "apikey: jack-key", "Accept: */*"),
		phasetest.Exchange("GET /a?a=1&apikey=cred-key&b=2"),
		phasetest.Exchange("GET /a"),
	} {
		x := &phase.Exchange{}
		n := testing.AllocsPerRun(100, func() {
			phasetest.Refill(x, from, e)
			if p.Rewrite(x) != phase.Continue {
				t.Fatal("refused")
			}
		})
		if n != 0 && !raceEnabled {
			t.Errorf("%v allocations", n)
		}
	}
}

func FuzzConfig(f *testing.F) {
	for _, s := range []string{`{}`, `[]`, `{"header":"X","realm":"r"}`, `{"hide_credentials":true,"anonymous_consumer":"a"}`, `{"key":"$env://K"}`} {
		f.Add([]byte(s))
	}
	s, err := schema.Compile("key-auth", Kind().Schema)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, conf []byte) {
		doc, err := schema.DecodeJSON(conf)
		if err != nil || s.Validate(doc) != nil {
			return
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

// What a request costs must not depend on the number of consumers.
func BenchmarkRewrite(b *testing.B) {
	for _, n := range []int{1, 100_000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			e := &phasetest.Env{}
			for i := range n {
				key := "key-" + strconv.Itoa(i)
				conf, _ := json.Marshal(map[string]string{"key": key})
				e.AddConsumer(b, Kind(), "consumer-"+strconv.Itoa(i), key, string(conf))
			}
			p := e.Build(b, Kind(), `{}`).(phase.Rewriter)
			from := phasetest.Exchange("GET /a", "Accept: */*", "User-Agent: bench", "apikey: key-"+strconv.Itoa(n/2))
			x := &phase.Exchange{}
			b.ReportAllocs()
			for b.Loop() {
				phasetest.Refill(x, from, e)
				if p.Rewrite(x) != phase.Continue {
					b.Fatal("refused")
				}
			}
		})
	}
}
