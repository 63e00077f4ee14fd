package basicauth

import (
	"bytes"
	"encoding/base64"
	"strings"
	"testing"

	"headgate/conf/schema"
	"headgate/proxy/phase"
	"headgate/proxy/phase/phasetest"
)

func newEnv(t testing.TB) *phasetest.Env {
	e := &phasetest.Env{}
	e.AddConsumer(t, Kind(), "jack", "user", `{"username":"user","password":"pass: word"}`)
	e.AddConsumer(t, Kind(), "jill", "empty", `{"username":"empty","password":""}`)
	e.Principals["anon"] = &phase.Principal{Consumer: phase.Consumer{Name: "anon"}}
	return e
}

func basic(credentials string) string {
	return "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(credentials))
}

func refusal(realm, message string) string {
	return "401\nContent-Type: text/plain; charset=utf-8\nWWW-Authenticate: Basic realm=\"" + realm + "\"\n\n{\"message\":\"" + message + "\"}\n"
}

func TestRewrite(t *testing.T) {
	const ok = "X-Consumer-Username: jack"
	missing, invalid := refusal("basic", "Missing authorization in request"), refusal("basic", "Invalid authorization in request")
	refused := refusal("basic", "Invalid user authorization")
	right := basic("user:pass: word")
	tests := []struct{ name, conf, line, want string }{
		{"missing", `{}`, "", missing},
		{"realm", `{"realm":"zone"}`, "", refusal("zone", "Missing authorization in request")},
		{"right", `{}`, right, right + "\n" + ok},
		{"scheme in lower case", `{}`, strings.Replace(right, "Basic", "basic", 1), strings.Replace(right, "Basic", "basic", 1) + "\n" + ok},
		{"no padding", `{}`, strings.TrimRight(right, "="), strings.TrimRight(right, "=") + "\n" + ok},
		{"wrong password", `{}`, basic("user:no"), refused},
		{"password cut at a colon", `{}`, basic("user:pass"), refused},
		{"blanks left out", `{}`, basic("user:pass:word"), refused},
		{"unknown user", `{}`, basic("nobody:pass: word"), refused},
		{"unknown user, no password", `{}`, basic("nobody:"), refused},
		{"no user", `{}`, basic(":"), refused},
		{"empty password", `{}`, basic("empty:"), basic("empty:") + "\nX-Consumer-Username: jill"},
		{"no colon", `{}`, basic("abc"), invalid},
		{"other scheme", `{}`, "Authorization: Bearer x", invalid},
		{"no base64", `{}`, "Authorization: Basic ???", invalid},
		{"no credentials", `{}`, "Authorization: Basic", invalid},
		{"empty", `{}`, "Authorization: ", invalid},
		{"longer scheme", `{}`, strings.Replace(right, "Basic", "Basics", 1), invalid},
		{"something behind", `{}`, right + " x", invalid},
		{"line end inside", `{}`, "Authorization: Basic dXNl\ncjp4", invalid},
		{"too long", `{}`, "Authorization: Basic " + strings.Repeat("YTph", maxEncoded/4+1), invalid},

		{"hide", `{"hide_credentials":true}`, right, ok},
		{"hide from the anonymous consumer", `{"hide_credentials":true,"anonymous_consumer":"anon"}`, basic("user:no"), "X-Consumer-Username: anon"},
		{"anonymous", `{"anonymous_consumer":"anon"}`, "", "X-Consumer-Username: anon"},
		{"not anonymous", `{"anonymous_consumer":"anon"}`, right, right + "\n" + ok},
		{"anonymous missing", `{"anonymous_consumer":"nobody"}`, "", refused},
		{"empty array", `[]`, "", missing},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var lines []string
			if tt.line != "" {
				lines = append(lines, tt.line)
			}
			e := newEnv(t)
			p := e.Build(t, Kind(), tt.conf)
			x := phasetest.Exchange("GET /a", lines...)
			got := phasetest.Run(x, e, phasetest.Reply(200, "served"), phase.Instance{Name: "basic-auth", Plugin: p})
			if x.Response.Source == phase.FromUpstream {
				got = strings.Join(phasetest.Lines(&x.Request.Header), "\n")
			}
			if got != tt.want {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
		})
	}
}

// The texts are those of the contract's recorded answers.
func TestSchemas(t *testing.T) {
	route, consumer := Kind().Schema, Kind().Consumer.Schema
	tests := []struct {
		schema     []byte
		conf, want string
	}{
		{route, `{"hide_credentials":true,"realm":"a b!","anonymous_consumer":"x","other":1}`, ""},
		{route, `{"realm":"a\"b"}`, `property "realm" validation failed: failed to match pattern "^[ -!#-[\\]-~]+$" with "a\"b"`},
		{route, `{"anonymous_consumer":""}`, `property "anonymous_consumer" validation failed: string too short, expected at least 1, got 0`},
		{consumer, `{"username":"u","password":"p","other":1}`, ""},
		{consumer, `{"username":"u"}`, `property "password" is required`},
		{consumer, `{"password":"p"}`, `property "username" is required`},
		{consumer, `{"username":1,"password":"p"}`, `property "username" validation failed: wrong type: expected string, got number`},
	}
	for _, tt := range tests {
		s, err := schema.Compile("basic-auth", tt.schema)
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
	for _, conf := range []string{`{"username":"u","password":"$secret://vault/1/p"}`, `{"username":"$env://USER_NAME","password":"p"}`} {
		if _, err := Kind().Consumer.Build([]byte(conf)); err == nil || strings.Contains(err.Error(), "://") {
			t.Errorf("%s: %v", conf, err)
		}
	}
}

func TestAllocations(t *testing.T) {
	e := newEnv(t)
	p := e.Build(t, Kind(), `{"hide_credentials":true,"anonymous_consumer":"anon"}`).(phase.Rewriter)
	for _, line := range []string{basic("user:pass: word"), basic("user:no"), "Accept: */*"} {
		from := phasetest.Exchange("GET /a", line)
		x := &phase.Exchange{}
		n := testing.AllocsPerRun(100, func() {
			phasetest.Refill(x, from, e)
			if p.Rewrite(x) != phase.Continue {
				t.Fatal("refused")
			}
		})
		if n != 0 && !raceEnabled {
			t.Errorf("%s: %v allocations", line, n)
		}
	}
}

func FuzzConfig(f *testing.F) {
	for _, s := range []string{`{}`, `[]`, `{"realm":"r"}`, `{"hide_credentials":true}`, `{"username":"u","password":"$env://P"}`} {
		f.Add([]byte(s))
	}
	s, err := schema.Compile("basic-auth", Kind().Schema)
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

// What is read is what another implementation of the encoding reads, and is left alone in front of it.
func FuzzCredentials(f *testing.F) {
	for _, s := range []string{"Basic dXNlcjpwYXNz", "basic  Og==", "Basic Og", "Basic =", "Basic \r\nOg==", "Bearer x", ""} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		got, ok := appendCredentials([]byte("kept"), value)
		text, kept := bytes.CutPrefix(got, []byte("kept"))
		if !kept || !ok && len(text) > 0 {
			t.Fatalf("%q became %q", value, got)
		}
		if !ok {
			return
		}
		encoded := strings.TrimLeft(string(value[len("Basic"):]), " ")
		want, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(encoded, "="))
		if err != nil || string(want) != string(text) {
			t.Fatalf("%q is %q here and %q, %v there", value, text, want, err)
		}
	})
}

// BenchmarkGuess is what a guesser could measure: the time of a refusal must tell neither whether the name exists nor how much of the
// password is right.
func BenchmarkGuess(b *testing.B) {
	e := newEnv(b)
	p := e.Build(b, Kind(), `{}`).(phase.Rewriter)
	for name, credentials := range map[string]string{
		"first byte": "user:xass: word", "last byte": "user:pass: worx", "nobody": "usex:pass: word",
	} {
		from, x := phasetest.Exchange("GET /", basic(credentials)), &phase.Exchange{}
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				phasetest.Refill(x, from, e)
				if p.Rewrite(x) == phase.Continue {
					b.Fatal("the guess is right")
				}
			}
		})
	}
}
