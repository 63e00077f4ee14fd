package jwtauth

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"

	"headgate/conf/schema"
	"headgate/proxy/phase"
	"headgate/proxy/phase/phasetest"
)

func FuzzConfig(f *testing.F) {
	for _, s := range []string{`{}`, `[]`, `{"claims_to_verify":["exp"],"cookie":"c"}`, `{"claims_to_verify":{}}`, `{"key_claim_name":"exp"}`,
		`{"key":"k","secret":"c2VjcmV0","base64_secret":true}`, `{"key":"k","algorithm":"RS256","public_key":"x"}`, `{"key":"k","secret":"$env://S"}`} {
		f.Add([]byte(s))
	}
	route, err := schema.Compile("jwt-auth", Kind().Schema)
	if err != nil {
		f.Fatal(err)
	}
	consumer, err := schema.Compile("jwt-auth", Kind().Consumer.Schema)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, conf []byte) {
		doc, err := schema.DecodeJSON(conf)
		if err != nil {
			return
		}
		if route.Validate(doc) == nil {
			p, err := Kind().Build(conf, &phasetest.Env{})
			if err != nil {
				t.Fatalf("%s satisfies the schema and was not built: %v", conf, err)
			}
			if p.(phase.Rewriter).Rewrite(phasetest.Exchange("GET /")) != phase.Stop {
				t.Fatalf("%s lets everybody in", conf)
			}
		}
		if consumer.Validate(doc) == nil && Kind().Consumer.Validate(conf) == nil {
			if _, err := Kind().Consumer.Build(conf); err != nil && err != errReference {
				t.Fatalf("%s is valid and was not built: %v", conf, err)
			}
		}
	})
}

// What is scanned is what package encoding/json reads, and what it does not read is not scanned.
func FuzzScan(f *testing.F) {
	for _, s := range []string{`{}`, `{"key":"uk","exp":1.5e3}`, `{"k\u0065y":"\ud83d\ude00\/"}`, `{"key":"a","key":"b"}`, `{"a":[{"b":null}],"key":null}`,
		`{"key":"\ud83d"}`, `{"key":01}`, "{\"key\":\"\xff\"}", `{"key":{"x":[1,2,{}]}} `, `{"a":"\b\f\n\r\t\"\\"}`, `[]`, `{"key":"uk"}x`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		fields := []field{{name: "key"}}
		valid := scan(append([]byte(nil), doc...), fields)
		var want map[string]json.RawMessage
		err := json.Unmarshal(doc, &want)
		if !valid {
			return // stricter in names that come twice, UTF-8, surrogates and size
		}
		if err != nil || want == nil {
			t.Fatalf("%q was taken for an object: %v", doc, err)
		}
		got := fields[0].value
		rawValue, ok := want["key"]
		if ok != (got.kind != isAbsent) {
			t.Fatalf("%q: key of kind %d", doc, got.kind)
		}
		var text *string
		switch {
		case got.kind == isString && (json.Unmarshal(rawValue, &text) != nil || *text != string(got.text)),
			got.kind == isNumber && string(got.text) != string(rawValue),
			got.kind == isNull && string(rawValue) != "null":
			t.Fatalf("%q: key is %q of kind %d, want %s", doc, got.text, got.kind, rawValue)
		}
	})
}

// Whatever a token looks like, only what another implementation would let in is let in.
func FuzzToken(f *testing.F) {
	right := hs256(f, `{"key":"uk"}`)
	for _, s := range []string{right, right + "A", "a.b.c", "..", strings.Replace(right, ".", "=.", 1), raw(f, nil, nil, `{"alg":"none"}`, `{"key":"uk"}`)} {
		f.Add(s)
	}
	e := newEnv(f)
	p := e.Build(f, Kind(), `{}`).(phase.Rewriter)
	f.Fuzz(func(t *testing.T, text string) {
		x := phasetest.Exchange("GET /a")
		x.Registry = e
		x.Request.Header.Add([]byte("Authorization"), []byte(text))
		if p.Rewrite(x) == phase.Stop {
			return
		}
		for _, scheme := range []string{"Bearer ", "bearer "} {
			if rest, ok := strings.CutPrefix(text, scheme); ok {
				text = rest
				break
			}
		}
		parser := jwt.NewParser(jwt.WithValidMethods([]string{"HS256"}), jwt.WithoutClaimsValidation())
		if _, err := parser.Parse(text, func(*jwt.Token) (any, error) { return []byte(secret), nil }); err != nil {
			t.Fatalf("%s was let in: %v", text, err)
		}
	})
}
