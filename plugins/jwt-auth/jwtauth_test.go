package jwtauth

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"math/big"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"headgate/conf/schema"
	"headgate/proxy/phase"
	"headgate/proxy/phase/phasetest"
)

const (
	secret = "my-very-long-secret-key-0123456789"
	now    = 1_773_129_600 // 2026-03-10 08:00:00 UTC, when every request of these tests begins
)

// raw makes a token out of its texts, signed by method with key; no method leaves the signature empty.
func raw(t testing.TB, method jwt.SigningMethod, key any, header, payload string) string {
	t.Helper()
	encode := base64.RawURLEncoding.EncodeToString
	text := encode([]byte(header)) + "." + encode([]byte(payload))
	if method == nil {
		return text + "."
	}
	signature, err := method.Sign(text, key)
	if err != nil {
		t.Fatal(err)
	}
	return text + "." + encode(signature)
}

func hs256(t testing.TB, payload string) string {
	return raw(t, jwt.SigningMethodHS256, []byte(secret), `{"typ":"JWT","alg":"HS256"}`, payload)
}

func newEnv(t testing.TB, more ...string) *phasetest.Env {
	e := &phasetest.Env{}
	e.AddConsumer(t, Kind(), "jack", "uk", `{"key":"uk","secret":"`+secret+`"}`)
	e.AddConsumer(t, Kind(), "late", "gk", `{"key":"gk","secret":"`+secret+`","lifetime_grace_period":60}`)
	for _, conf := range more {
		e.AddConsumer(t, Kind(), "more", "mk", conf)
	}
	e.Principals["anon"] = &phase.Principal{Consumer: phase.Consumer{Name: "anon"}}
	return e
}

// seen returns the refusal's message, or the query and the lines that the upstream would see.
func seen(t testing.TB, e *phasetest.Env, conf, request string, lines ...string) string {
	t.Helper()
	p := e.Build(t, Kind(), conf)
	x := phasetest.Exchange(request, lines...)
	x.Start = time.Unix(now, 0)
	got := phasetest.Run(x, e, phasetest.Reply(200, "served"), phase.Instance{Name: "jwt-auth", Plugin: p})
	if x.Response.Source == phase.FromPlugin {
		return got
	}
	return strings.Join(append([]string{"?" + string(x.Request.Query)}, phasetest.Lines(&x.Request.Header)...), "\n")
}

func refusal(message string) string {
	return "401\nContent-Type: text/plain; charset=utf-8\nWWW-Authenticate: Bearer realm=\"jwt\"\n\n{\"message\":\"" + message + "\"}\n"
}

func TestPlaces(t *testing.T) {
	const jack = "X-Consumer-Username: jack"
	token := hs256(t, `{"key":"uk"}`)
	missing, invalid := refusal("Missing JWT token in request"), refusal("JWT token invalid")
	const hide = `{"hide_credentials":true}`
	const other = `{"header":"X-Token","query":"tok","cookie":"tokc","hide_credentials":true}`
	tests := []struct {
		name, conf, request string
		lines               []string
		want                string
	}{
		{"missing", `{}`, "GET /a?a=1", []string{"Cookie: a=1"}, missing},
		{"realm", `{"realm":"r"}`, "GET /a", nil, strings.Replace(missing, `"jwt"`, `"r"`, 1)},
		{"header", `{}`, "GET /a", []string{"Authorization: Bearer " + token}, "?\nAuthorization: Bearer " + token + "\n" + jack},
		{"lower bearer", hide, "GET /a", []string{"Authorization: bearer " + token}, "?\n" + jack},
		{"no scheme", hide, "GET /a", []string{"Authorization: " + token}, "?\n" + jack},
		{"other scheme", hide, "GET /a?jwt=" + token, []string{"Authorization: Basic abc"}, invalid},
		{"bare scheme", hide, "GET /a?jwt=" + token, []string{"Authorization: Bearer"}, invalid},
		{"query", `{}`, "GET /a?jwt=" + token, nil, "?jwt=" + token + "\n" + jack},
		{"cookie", `{}`, "GET /a", []string{"Cookie: jwt=" + token}, "?\nCookie: jwt=" + token + "\n" + jack},
		{"header before query", hide, "GET /a?jwt=" + token, []string{"Authorization: x"}, invalid},
		{"query before cookie", hide, "GET /a?jwt=x", []string{"Cookie: jwt=" + token}, invalid},
		{"other names", other, "GET /a", []string{"X-Token: " + token}, "?\n" + jack},
		{"other argument", other, "GET /a?tok=" + token, nil, "?\n" + jack},
		{"other cookie", other, "GET /a", []string{"Cookie: tokc=" + token}, "?\n" + jack},
		{"the usual names do not count", other, "GET /a?jwt=" + token, []string{"Authorization: " + token, "Cookie: jwt=" + token}, missing},

		{"hide query", hide, "GET /a?a=1&jwt=" + token + "&b=2&%6Awt=x", nil, "?a=1&b=2\n" + jack},
		{"hide cookie", hide, "GET /a", []string{"Cookie: a=1; jwt=x;jwt=" + token + "; ;b", "Cookie: jwt=" + token, "Cookie: c=jwt=3"},
			"?\nCookie: a=1; b; c=jwt=3\n" + jack},
		{"hide all", hide, "GET /a?jwt=x", []string{"Authorization: " + token, "authorization: " + token, "Cookie: jwt=x"}, "?\n" + jack},
		{"two that differ", hide, "GET /a", []string{"Authorization: " + token, "authorization: x"}, refusal("JWT token invalid")},

		{"anonymous", `{"anonymous_consumer":"anon"}`, "GET /a", nil, "?\nX-Consumer-Username: anon"},
		{"anonymous, hidden", `{"anonymous_consumer":"anon","hide_credentials":true}`, "GET /a?jwt=x", nil, "?\nX-Consumer-Username: anon"},
		{"anonymous missing", `{"anonymous_consumer":"nobody"}`, "GET /a", nil, refusal("Invalid user authorization")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := seen(t, newEnv(t), tt.conf, tt.request, tt.lines...); got != tt.want {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
		})
	}
}

func TestTokens(t *testing.T) {
	const ok = "?\nX-Consumer-Username: jack"
	const header = `{"alg":"HS256"}`
	invalid, refused := refusal("JWT token invalid"), refusal("failed to verify jwt")
	noKey, unknown := refusal("missing user key in JWT token"), refusal("Invalid user key in JWT token")
	right := hs256(t, `{"key":"uk"}`)
	withHeader := func(header string) string {
		return raw(t, jwt.SigningMethodHS256, []byte(secret), header, `{"key":"uk"}`)
	}
	head, rest, _ := strings.Cut(right, ".")
	tests := []struct{ name, token, want string }{
		{"right", right, ok},
		{"unknown key", hs256(t, `{"key":"nobody"}`), unknown},
		{"key is empty", hs256(t, `{"key":""}`), unknown},
		{"key is a number", hs256(t, `{"key":5}`), unknown},
		{"no key", hs256(t, `{"exp":1}`), noKey},
		{"key is null", hs256(t, `{"key":null}`), noKey},
		{"key in an inner object", hs256(t, `{"a":{"key":"uk"},"b":[{"key":"uk"}]}`), noKey},
		{"escapes", hs256(t, ` { "k\u0065y" : "\u0075k" , "\ud83d\ude00\/\"\\\b\f\n\r\t":"\u00e9", "n":-1.5e+3 } `), ok},
		{"values of all types", hs256(t, `{"a":[],"b":{},"c":[1,[2,{"x":null}],true,false],"d":0,"e":1E9,"key":"uk","f":"ü"}`), ok},

		{"other secret", raw(t, jwt.SigningMethodHS256, []byte("other"), header, `{"key":"uk"}`), refused},
		{"other algorithm", raw(t, jwt.SigningMethodHS512, []byte(secret), `{"alg":"HS512"}`, `{"key":"uk"}`), refused},
		{"none", raw(t, nil, nil, `{"alg":"none"}`, `{"key":"uk"}`), refused},
		{"none, signed", raw(t, jwt.SigningMethodHS256, []byte(secret), `{"alg":"none"}`, `{"key":"uk"}`), refused},
		{"no signature", raw(t, nil, nil, header, `{"key":"uk"}`), refused},
		{"cut signature", right[:len(right)-3], refused},
		{"algorithm in another case", withHeader(`{"alg":"hs256"}`), refused},
		{"payload changed", head + "." + base64.RawURLEncoding.EncodeToString([]byte(`{"key":"gk"}`)) + right[strings.LastIndexByte(right, '.'):], refused},

		{"no algorithm", withHeader(`{}`), invalid},
		{"algorithm is no text", withHeader(`{"alg":null}`), invalid},
		{"critical extension", withHeader(`{"alg":"HS256","crit":["b64"],"b64":false}`), invalid},
		{"algorithm twice", withHeader(`{"alg":"none","alg":"HS256"}`), invalid},
		{"one part", "abc", invalid},
		{"two parts", head + "." + rest[:strings.IndexByte(rest, '.')], invalid},
		{"four parts", right + ".x", invalid},
		{"letters", "a.b.c", invalid},
		{"empty", "", invalid},
		{"padding", head + "=." + rest, invalid},
		{"blank inside", head + " ." + rest, invalid},
		{"line end inside", head + "\n." + rest, invalid},
		{"spare bits", right[:len(right)-1] + "B", invalid},
		{"base64 of the other alphabet", head + "." + rest[:len(rest)-1] + "+", invalid},
		{"key twice", hs256(t, `{"key":"gk","key":"uk"}`), invalid},
		{"other claim twice", hs256(t, `{"key":"uk","a":1,"\u0061":2}`), invalid},
		{"payload is an array", hs256(t, `[]`), invalid},
		{"payload is cut", hs256(t, `{"key":"uk"`), invalid},
		{"data behind the payload", hs256(t, `{"key":"uk"}{}`), invalid},
		{"comma at the end", hs256(t, `{"key":"uk",}`), invalid},
		{"comma at the end of an array", hs256(t, `{"key":"uk","a":[1,]}`), invalid},
		{"bare word", hs256(t, `{"key":uk}`), invalid},
		{"number with a leading zero", hs256(t, `{"key":"uk","a":01}`), invalid},
		{"number without digits", hs256(t, `{"key":"uk","a":-}`), invalid},
		{"number without fraction", hs256(t, `{"key":"uk","a":1.}`), invalid},
		{"control character", hs256(t, "{\"key\":\"u\tk\"}"), invalid},
		{"unknown escape", hs256(t, `{"key":"\x75k"}`), invalid},
		{"half a surrogate", hs256(t, `{"key":"uk","a":"\ud83d"}`), invalid},
		{"surrogates in the wrong order", hs256(t, `{"key":"uk","a":"\ude00\ud83d"}`), invalid},
		{"not UTF-8", hs256(t, "{\"key\":\"uk\",\"a\":\"\xff\"}"), invalid},
		{"nested too deep", hs256(t, `{"key":"uk","a":`+strings.Repeat("[", 40)+strings.Repeat("]", 40)+`}`), invalid},
		{"too many claims", hs256(t, `{"key":"uk"`+manyClaims(maxFields)+`}`), invalid},
		{"many claims", hs256(t, `{"key":"uk"`+manyClaims(maxFields-1)+`}`), ok},
		{"too long", hs256(t, `{"key":"uk","a":"`+strings.Repeat("a", maxToken)+`"}`), invalid},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := seen(t, newEnv(t), `{"hide_credentials":true}`, "GET /a", "Authorization: Bearer "+tt.token); got != tt.want {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
		})
	}
}

func manyClaims(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(`,"c` + string(rune('a'+i%26)) + string(rune('a'+i/26)) + `":1`)
	}
	return b.String()
}

func TestTimes(t *testing.T) {
	const exp, nbf = `{"claims_to_verify":["exp"]}`, `{"claims_to_verify":["nbf"]}`
	tests := []struct {
		conf, claims string
		want         bool
	}{
		{`{}`, `"key":"uk"`, true},
		{`{}`, `"key":"uk","exp":1773129601`, true},
		{`{}`, `"key":"uk","exp":1773129600`, false},
		{`{}`, `"key":"uk","exp":1773129600.5`, true},
		{`{}`, `"key":"uk","exp":1.8e9`, true},
		{`{}`, `"key":"uk","exp":0`, false},
		{`{}`, `"key":"uk","exp":-1`, false},
		{`{}`, `"key":"uk","exp":1e999`, false},
		{`{}`, `"key":"uk","exp":"1773129601"`, false},
		{`{}`, `"key":"uk","exp":null`, false},
		{`{}`, `"key":"uk","exp":[1773129601]`, false},
		{`{}`, `"key":"uk","nbf":1773129600`, true},
		{`{}`, `"key":"uk","nbf":1773129601`, false},
		{`{}`, `"key":"uk","nbf":"0"`, false},
		{`{}`, `"key":"gk","exp":1773129541`, true},
		{`{}`, `"key":"gk","exp":1773129540`, false},
		{`{}`, `"key":"gk","nbf":1773129660`, true},
		{`{}`, `"key":"gk","nbf":1773129661`, false},
		{exp, `"key":"uk"`, false},
		{exp, `"key":"uk","exp":1773129601`, true},
		{exp, `"key":"uk","exp":1773129601,"nbf":1773129601`, false},
		{nbf, `"key":"uk","exp":1773129601`, false},
		{nbf, `"key":"uk","nbf":5`, true},
		{`{"claims_to_verify":["nbf","exp"]}`, `"key":"uk","nbf":5`, false},
		{`{"claims_to_verify":[]}`, `"key":"uk"`, true},
		{`{"key_claim_name":"iss","store_in_ctx":true}`, `"iss":"uk","key":"nobody"`, true},
		{`{"key_claim_name":"iss"}`, `"key":"uk"`, false},
	}
	for _, tt := range tests {
		got := seen(t, newEnv(t), tt.conf, "GET /a", "Authorization: "+hs256(t, `{`+tt.claims+`}`))
		if in := strings.HasPrefix(got, "?"); in != tt.want {
			t.Errorf("%s %s: %s", tt.conf, tt.claims, got)
		}
	}
}

func TestSecretInBase64(t *testing.T) {
	for _, text := range []string{base64.StdEncoding.EncodeToString([]byte(secret)), base64.RawStdEncoding.EncodeToString([]byte(secret))} {
		e := newEnv(t, `{"key":"mk","secret":"`+text+`","base64_secret":true}`)
		token := hs256(t, `{"key":"mk"}`)
		if got := seen(t, e, `{"hide_credentials":true}`, "GET /a", "Authorization: "+token); got != "?\nX-Consumer-Username: more" {
			t.Errorf("%s: %s", text, got)
		}
	}
}

// refused returns the text that a write is refused with, "" when it isn't.
func refused(t testing.TB, k []byte, validate func([]byte) error, conf string) string {
	t.Helper()
	s, err := schema.Compile("jwt-auth", k)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := schema.DecodeJSON([]byte(conf))
	if err != nil {
		t.Fatal(err)
	}
	if err = s.Validate(doc); err == nil && validate != nil {
		err = validate([]byte(conf))
	}
	if err != nil {
		return err.Error()
	}
	return ""
}

func TestRefusals(t *testing.T) {
	route, consumer := Kind().Schema, Kind().Consumer
	for conf, want := range map[string]string{
		`{}`: "",
		`{"header":"h","query":"q","cookie":"c","key_claim_name":"k","store_in_ctx":true,"claims_to_verify":["exp"],"other":1}`: "",
		`{"realm":"a\"b"}`:                    `property "realm" validation failed: failed to match pattern "^[ -!#-[\\]-~]+$" with "a\"b"`,
		`{"anonymous_consumer":""}`:           `property "anonymous_consumer" validation failed: string too short, expected at least 1, got 0`,
		`{"claims_to_verify":["iat"]}`:        `property "claims_to_verify" validation failed: failed to validate item 1: matches none of the enum values`,
		`{"claims_to_verify":["exp","exp"]}`:  `property "claims_to_verify" validation failed: expected unique items but items 1 and 2 are equal`,
		`{"store_in_ctx":"x"}`:                `property "store_in_ctx" validation failed: wrong type: expected boolean, got string`,
		`{"hide_credentials":1,"header":"x"}`: `property "hide_credentials" validation failed: wrong type: expected boolean, got number`,
	} {
		if got := refused(t, route, Kind().Validate, conf); got != want {
			t.Errorf("%s\ngot  %s\nwant %s", conf, got, want)
		}
	}
	small := &rsa.PublicKey{N: new(big.Int).Add(new(big.Int).Lsh(big.NewInt(1), 1023), big.NewInt(1)), E: 65537}
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	const dependent = `failed to validate dependent schema for "algorithm": value should match only one schema, but matches none`
	for conf, want := range map[string]string{
		`{"key":"k","secret":"s","other":1}`:                                  "",
		`{"key":"k","secret":"$secret://vault/1/s","base64_secret":true}`:     "",
		`{"key":"k","algorithm":"RS256","public_key":"$env://PUBLIC_KEY"}`:    "",
		`{"key":"$env://KEY","secret":"s","exp":5,"lifetime_grace_period":5}`: "",
		`{"secret":"s"}`:                                           `property "key" is required`,
		`{"key":"","secret":"s"}`:                                  `property "key" validation failed: string too short, expected at least 1, got 0`,
		`{"key":"k"}`:                                              `property "secret" is required when using HS based algorithms`,
		`{"key":"k","secret":""}`:                                  `property "secret" is required when using HS based algorithms`,
		`{"key":"k","algorithm":"HS384"}`:                          `property "secret" is required when using HS based algorithms`,
		`{"key":"k","secret":"s","algorithm":"X"}`:                 `property "algorithm" validation failed: matches none of the enum values`,
		`{"key":"k","secret":"s","algorithm":"none"}`:              `property "algorithm" validation failed: matches none of the enum values`,
		`{"key":"k","secret":"not base64!!","base64_secret":true}`: `base64_secret required but the secret is not in base64 format`,
		`{"key":"k","secret":"=","base64_secret":true}`:            `base64_secret required but the secret is not in base64 format`,
		`{"key":"k","secret":"s","lifetime_grace_period":-1}`:      `property "lifetime_grace_period" validation failed: expected -1 to be at least 0`,
		`{"key":"k","secret":"s","exp":0}`:                         `property "exp" validation failed: expected 0 to be at least 1`,
		`{"key":"k","algorithm":"RS256","secret":"s"}`:             dependent,
		`{"key":"k","algorithm":"EdDSA","public_key":""}`:          `property "public_key" is required`,
		`{"key":"k","algorithm":"RS256","public_key":"x"}`:         `public_key: invalid key: Key must be a PEM encoded PKCS1 or PKCS8 key`,
		consumerOf(t, "RS256", pemOf(t, small)):                    `public_key: an RSA key of 1024 bits is too small, expected at least 2048`,
		consumerOf(t, "ES384", pemOf(t, p256.Public())):            `public_key: ES384 wants a curve of 384 bits, this has 256`,
		consumerOf(t, "RS256", pemOf(t, p256.Public())):            `public_key: key is not a valid RSA public key`,
		consumerOf(t, "EdDSA", pemOf(t, p256.Public())):            `public_key: key is not a valid Ed25519 public key`,
		consumerOf(t, "ES256", pemOf(t, small)):                    `public_key: key is not a valid ECDSA public key`,
	} {
		if got := refused(t, consumer.Schema, consumer.Validate, conf); got != want {
			t.Errorf("%s\ngot  %s\nwant %s", conf, got, want)
		}
	}
	for _, conf := range []string{`{"key":"k","secret":"$secret://vault/1/s"}`, `{"key":"$env://KEY","secret":"s"}`,
		`{"key":"k","algorithm":"RS256","public_key":"$env://PUBLIC_KEY"}`} {
		if _, err := consumer.Build([]byte(conf)); err == nil || strings.Contains(err.Error(), "://") {
			t.Errorf("%s: %v", conf, err)
		}
	}
}

// One key serves many requests at a time.
func TestConcurrentUse(t *testing.T) {
	e := newEnv(t)
	p := e.Build(t, Kind(), `{}`).(phase.Rewriter)
	right, wrong := hs256(t, `{"key":"uk"}`), hs256(t, `{"key":"uk","a":1}`)+"x"
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 200 {
				token, want := right, phase.Continue
				if i%2 == 1 {
					token, want = wrong, phase.Stop
				}
				x := phasetest.Exchange("GET /a", "Authorization: "+token)
				x.Registry = e
				if got := p.Rewrite(x); got != want {
					t.Errorf("verdict %v", got)
					return
				}
			}
		})
	}
	wg.Wait()
}

func BenchmarkRewrite(b *testing.B) {
	e := newEnv(b)
	p := e.Build(b, Kind(), `{}`).(phase.Rewriter)
	from := phasetest.Exchange("GET /a", "Authorization: Bearer "+hs256(b, `{"key":"uk","exp":1773129601,"iss":"bench","sub":"1234567890"}`))
	x := &phase.Exchange{}
	b.ReportAllocs()
	for b.Loop() {
		x.Reset()
		x.Registry, x.Start = e, time.Unix(now, 0)
		for _, f := range from.Request.Header.Fields() {
			x.Request.Header.Add(f.Name, f.Value)
		}
		if p.Rewrite(x) != phase.Continue {
			b.Fatal("refused")
		}
	}
}
