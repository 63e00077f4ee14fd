package schema

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

func mustCompile(t testing.TB, raw string, refs ...Ref) *Schema {
	t.Helper()
	s, err := Compile("test", []byte(raw), refs...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestValidateTexts(t *testing.T) {
	for _, c := range []struct{ schema, doc, want string }{
		// types
		{`{"type":"integer"}`, `"a"`, "wrong type: expected integer, got string"},
		{`{"type":"integer"}`, `1.5`, "wrong type: expected integer, got number"},
		{`{"type":"integer"}`, `1.0`, ""},
		{`{"type":"integer"}`, `1e2`, ""},
		{`{"type":["string","object"]}`, `true`, "wrong type: expected one of string, object, got boolean"},
		{`{"type":"array"}`, `{"a":1}`, "wrong type: expected array, got table"},
		{`{"type":"object"}`, `[1]`, "wrong type: expected object, got table"},
		{`{"properties":{"a":{"type":"string"}}}`, `{"a":null}`, `property "a" validation failed: wrong type: expected string, got userdata`},
		{`{"type":"object"}`, `null`, "wrong type: expected object, got nil"},
		{`{"type":"null"}`, `null`, ""},
		{`false`, `1`, "expect false always"},
		{`true`, `1`, ""},
		// the empty table
		{`{"type":"object"}`, `[]`, ""},
		{`{"type":"array"}`, `{}`, ""},
		{`{"type":"array","minItems":1}`, `{}`, "expect array to have at least 1 items"},
		{`{"type":"object","required":["a"]}`, `[]`, `property "a" is required`},
		{`{"type":"object","minProperties":1}`, `[]`, "expect object to have at least 1 properties"},
		{`{"enum":[{}]}`, `[]`, ""},
		// objects
		{`{"properties":{"a":{"properties":{"b":{"type":"integer"}}}}}`, `{"a":{"b":"x"}}`,
			`property "a" validation failed: property "b" validation failed: wrong type: expected integer, got string`},
		{`{"properties":{"b":{"type":"string"},"a":{"type":"string"}}}`, `{"a":1,"b":1}`,
			`property "a" validation failed: wrong type: expected string, got number`},
		{`{"required":["z","a"]}`, `{}`, `property "z" is required`},
		{`{"dependencies":{"a":["b"]}}`, `{"a":1}`, `property "b" is required when "a" is set`},
		{`{"dependencies":{"a":{"required":["b"]}}}`, `{"a":1}`, `failed to validate dependent schema for "a": property "b" is required`},
		{`{"properties":{"a":{}},"additionalProperties":false}`, `{"a":1,"y":1,"x":1}`, "additional properties forbidden, found x"},
		{`{"additionalProperties":{"type":"string"}}`, `{"x":1}`,
			"failed to validate additional property x: wrong type: expected string, got number"},
		{`{"patternProperties":{".*":{"type":"string"}}}`, `{"x":1}`,
			`failed to validate x (matching ".*"): wrong type: expected string, got number`},
		{`{"propertyNames":{"maxLength":1}}`, `{"xy":1}`,
			`property name "xy" validation failed: string too long, expected at most 1, got 2`},
		{`{"maxProperties":1}`, `{"a":1,"b":1}`, "expect object to have at most 1 properties"},
		// arrays
		{`{"items":{"type":"string"}}`, `["a",1]`, "failed to validate item 2: wrong type: expected string, got number"},
		{`{"items":[{"type":"string"}],"additionalItems":false}`, `["a",1]`, "expect array to have at most 1 items"},
		{`{"items":[{"type":"string"}],"additionalItems":{"type":"string"}}`, `["a",1]`,
			"failed to validate item 2: wrong type: expected string, got number"},
		{`{"maxItems":1}`, `[1,2]`, "expect array to have at most 1 items"},
		{`{"uniqueItems":true}`, `[1,2,1.0]`, "expected unique items but items 1 and 3 are equal"},
		{`{"uniqueItems":true}`, `[{"a":1,"b":[]},{"b":{},"a":1}]`, "expected unique items but items 1 and 2 are equal"},
		{`{"uniqueItems":true}`, `["1",1,true,null]`, ""},
		{`{"contains":{"const":1}}`, `[2]`, "expect array to contain a matching item"},
		// strings
		{`{"minLength":1}`, `""`, "string too short, expected at least 1, got 0"},
		{`{"maxLength":2}`, `"ééé"`, "string too long, expected at most 2, got 3"},
		{`{"maxLength":3}`, `"ééé"`, ""},
		{`{"pattern":"^\\S+$"}`, `"b c"`, `failed to match pattern "^\\S+$" with "b c"`},
		{`{"pattern":"^a(?=b)"}`, `"ac"`, `failed to match pattern "^a(?=b)" with "ac"`},
		{`{"pattern":"^a(?=b)"}`, `"ab"`, ""},
		{`{"pattern":"^(a+)+(?!x)$"}`, `"` + strings.Repeat("a", 64) + `!"`, // a backtracking trap: refused, not waited for
			`failed to match pattern "^(a+)+(?!x)$" with "` + strings.Repeat("a", 64) + `!"`},
		{`{"format":"ipv4"}`, `"1.1.1.300"`, "expect valid ipv4 format but got: 1.1.1.300"},
		{`{"format":"ipv6"}`, `"1.1.1.1"`, "expect valid ipv6 format but got: 1.1.1.1"},
		{`{"format":"ipv6"}`, `"fe80::1%eth0"`, "expect valid ipv6 format but got: fe80::1%eth0"},
		{`{"format":"ipv6"}`, `"::1"`, ""},
		{`{"format":"uri"}`, `" "`, ""},
		// numbers
		{`{"minimum":1}`, `0`, "expected 0 to be at least 1"},
		{`{"minimum":0.00001}`, `0`, "expected 0 to be at least 1e-05"},
		{`{"maximum":254}`, `255`, "expected 255 to be at most 254"},
		{`{"exclusiveMinimum":0}`, `0`, "expected 0 to be greater than 0"},
		{`{"exclusiveMaximum":1}`, `1`, "expected 1 to be smaller than 1"},
		{`{"multipleOf":0.1}`, `0.3`, ""},
		{`{"multipleOf":2}`, `3`, "expected 3 to be a multiple of 2"},
		{`{"minimum":12345678901234567890}`, `1`, "expected 1 to be at least 1.2345678901235e+19"},
		// enum, const
		{`{"enum":["a",1]}`, `"b"`, "matches none of the enum values"},
		{`{"enum":["a",1]}`, `1.0`, ""},
		{`{"const":1}`, `2`, "failed to check const value"},
		// combinations
		{`{"allOf":[{},{"type":"string"}]}`, `1`, "allOf 2 failed: wrong type: expected string, got number"},
		{`{"anyOf":[{"type":"string"},{"type":"boolean"}]}`, `1`, "object matches none of the required"},
		{`{"anyOf":[{"required":["a"]},{"required":["a","b"]}]}`, `{}`, `object matches none of the required: ["a"] or ["a","b"]`},
		{`{"oneOf":[{"required":["a"]},{"required":["b"]}]}`, `{}`, "value should match only one schema, but matches none"},
		{`{"oneOf":[{"required":["a"]},false,{"required":["b"]}]}`, `{"a":1,"b":1}`,
			"value should match only one schema, but matches both schemas 1 and 3"},
		{`{"not":{"type":"string"}}`, `"a"`, "value wasn't supposed to match schema"},
		{`{"if":{"type":"string"},"then":{"minLength":1},"else":{"minimum":1}}`, `""`, "then clause did not match"},
		{`{"if":{"type":"string"},"then":{"minLength":1},"else":{"minimum":1}}`, `0`, "else clause did not match"},
		// references
		{`{"definitions":{"n":{"type":"object","properties":{"next":{"$ref":"#/definitions/n"},"v":{"type":"integer"}}}},"$ref":"#/definitions/n"}`,
			`{"next":{"next":{"v":"x"}}}`,
			`property "next" validation failed: property "next" validation failed: property "v" validation failed: wrong type: expected integer, got string`},
		// names of secrets pass wherever a string may stand
		{`{"type":"string","pattern":"^x"}`, `"$secret://vault/1/a"`, ""},
		{`{"type":"string","enum":["x"]}`, `"$ENV://A"`, ""},
		{`{"type":"string","enum":["x"]}`, `"$SECRET://A"`, "matches none of the enum values"},
		{`{"type":"integer"}`, `"$env://A"`, "wrong type: expected integer, got string"},
		{`{"minLength":20}`, `"$env://A"`, "string too short, expected at least 20, got 8"},
		// the order in which mistakes are told
		{`{"properties":{"a":{"type":"string"}},"required":["b"],"additionalProperties":false,"allOf":[false]}`, `{"a":1,"c":1}`,
			`property "a" validation failed: wrong type: expected string, got number`},
		{`{"required":["b"],"additionalProperties":false,"allOf":[false]}`, `{"c":1}`, `property "b" is required`},
		{`{"additionalProperties":false,"allOf":[false]}`, `{"c":1}`, "additional properties forbidden, found c"},
	} {
		s := mustCompile(t, c.schema)
		doc, err := DecodeJSON([]byte(c.doc))
		if err != nil {
			t.Fatalf("%s: %v", c.doc, err)
		}
		got := ""
		if err := s.Validate(doc); err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%s\n on   %s\n got  %s\n want %s", c.schema, c.doc, got, c.want)
		}
	}
}

func TestValidateGoNumbers(t *testing.T) {
	s := mustCompile(t, `{"type":"integer","maximum":5}`)
	for _, ok := range []any{3, int64(5), 4.0, json.Number("5")} {
		if err := s.Validate(ok); err != nil {
			t.Errorf("%T: %v", ok, err)
		}
	}
	for _, bad := range []any{6, int64(6), 4.5, json.Number("1e400"), struct{}{}} {
		if s.Validate(bad) == nil {
			t.Errorf("%T %v passed", bad, bad)
		}
	}
}

// A client cannot get round a rule with a string that an operator could.
func TestValidateData(t *testing.T) {
	s, err := Compile("test", []byte(`{"properties":{"a":{"type":"string","pattern":"^x"}},"type":"object"}`))
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		`{"a":"x"}`:               "",
		`{"a":"$env://A"}`:        `property "a" validation failed: failed to match pattern "^x" with "$env://A"`,
		`{"a":"$secret://v/1/a"}`: `property "a" validation failed: failed to match pattern "^x" with "$secret://v/1/a"`,
		`null`:                    "wrong type: expected object, got userdata",
	} {
		doc, err := DecodeJSON([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		if err := s.ValidateData(doc); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%s: got %q, want %q", text, got, want)
		}
	}
}

func TestQuote(t *testing.T) {
	for in, want := range map[string]string{
		"a\"b\\c":     `"a\"b\\c"`,
		"a\nb":        "\"a\\\nb\"",
		"\r\t\x00":    `"\13\9\0"`,
		"\x001\x0a2":  "\"\\0001\\\n2\"",
		"\x1f3\x7f4é": `"\0313\1274é"`,
	} {
		if got := quote(in); got != want {
			t.Errorf("quote(%q) = %s, want %s", in, got, want)
		}
	}
}

func TestCompileRefuses(t *testing.T) {
	for name, raw := range map[string]string{
		"not JSON":        `{`,
		"unknown type":    `{"type":"nonsense"}`,
		"bad pattern":     `{"pattern":"(["}`,
		"missing target":  `{"$ref":"#/definitions/x"}`,
		"a file":          `{"$ref":"file:///etc/passwd"}`,
		"the network":     `{"$ref":"http://127.0.0.1/x"}`,
		"another schema":  `{"$ref":"other.json"}`,
		"itself":          `{"$ref":"#"}`,
		"itself in allOf": `{"allOf":[{"$ref":"#"}]}`,
		"itself deeper":   `{"properties":{"a":{"not":{"$ref":"#/properties/a"}}}}`,
		"newer draft":     `{"$schema":"https://json-schema.org/draft/2020-12/schema","type":"object"}`,
	} {
		if _, err := Compile("test", []byte(raw)); err == nil {
			t.Errorf("%s: compiled", name)
		}
	}
}

func TestCompileRefs(t *testing.T) {
	s := mustCompile(t, `{"properties":{"a":{"$ref":"other.json"}}}`, Ref{Name: "other.json", JSON: []byte(`{"type":"string"}`)})
	err := s.Validate(map[string]any{"a": json.Number("1")})
	if err == nil || err.Error() != `property "a" validation failed: wrong type: expected string, got number` {
		t.Error(err)
	}
}

// A schema can be made to double the work at every level; the budget ends it.
func TestValidateIsBounded(t *testing.T) {
	var b strings.Builder
	b.WriteString(`{"definitions":{"d0":{"type":"string"}`)
	for i := 1; i <= 40; i++ {
		ref := `{"$ref":"#/definitions/d` + jsonInt(i-1) + `"}`
		b.WriteString(`,"d` + jsonInt(i) + `":{"anyOf":[` + ref + `,` + ref + `]}`)
	}
	b.WriteString(`},"$ref":"#/definitions/d40"}`)
	err := mustCompile(t, b.String()).validate(json.Number("1"), 10_000)
	if err == nil || !strings.Contains(err.Error(), "too complex") {
		t.Error(err)
	}
}

func jsonInt(i int) string {
	raw, _ := json.Marshal(i)
	return string(raw)
}

func TestDecodeJSON(t *testing.T) {
	deep := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	for _, c := range []struct{ in, want string }{ // want: re-encoded, or "!" and a part of the error
		{`{"a":1.0,"b":12345678901234567890}`, `{"a":1.0,"b":12345678901234567890}`},
		{`{"a":1,"a":{"b":2},"a":{"c":3}}`, `{"a":{"c":3}}`},
		{` [] `, `[]`},
		{`null`, `null`},
		{"\"a\xffb\"", "\"a\ufffdb\""},
		{deep(64), deep(64)},
		{deep(65), "!deeper than 64"},
		{strings.Repeat("[", 1<<20), "!deeper than 64"},
		{`"` + strings.Repeat("[", 100) + `"`, `"` + strings.Repeat("[", 100) + `"`},
		{`"\"` + strings.Repeat("[", 100) + `"`, `"\"` + strings.Repeat("[", 100) + `"`},
		{``, "!empty"},
		{`  `, "!empty"},
		{`hello`, "!at byte 1"},
		{`{'a':1}`, "!invalid character"},
		{`{"a":`, "!unexpected end"},
		{`{} x`, "!after the document"},
		{`{}{}`, "!after the document at byte 3"},
		{`1e999`, "!out of range"},
		{`{"a":[-1e999]}`, "!out of range"},
		{`01`, "!after the document"},
	} {
		doc, err := DecodeJSON([]byte(c.in))
		if part, refused := strings.CutPrefix(c.want, "!"); refused {
			if err == nil || !strings.Contains(err.Error(), part) {
				t.Errorf("%.40s: %v, want %q", c.in, err, part)
			}
			continue
		}
		if err != nil {
			t.Errorf("%.40s: %v", c.in, err)
			continue
		}
		if raw, _ := json.Marshal(doc); string(raw) != c.want {
			t.Errorf("%.40s: got %s want %s", c.in, raw, c.want)
		}
	}
}

func TestWithMeta(t *testing.T) {
	raw, err := WithMeta([]byte(`{"type":"object","properties":{"a":{"type":"string"}},"additionalProperties":false}`))
	if err != nil {
		t.Fatal(err)
	}
	s := mustCompile(t, string(raw))
	for doc, want := range map[string]string{
		`{"a":"x","_meta":{"disable":true,"error_response":{"b":1},"priority":1,"filter":[]}}`: "",
		`{"_meta":{"x":1}}`:          `property "_meta" validation failed: additional properties forbidden, found x`,
		`{"_meta":{"priority":"1"}}`: `property "_meta" validation failed: property "priority" validation failed: wrong type: expected integer, got string`,
		`{"b":1}`:                    "additional properties forbidden, found b",
	} {
		v, err := DecodeJSON([]byte(doc))
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		if err := s.Validate(v); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%s: got %q want %q", doc, got, want)
		}
	}
	for _, bad := range []string{`[]`, `{`} {
		if _, err := WithMeta([]byte(bad)); err == nil {
			t.Errorf("%s accepted", bad)
		}
	}
}

func FuzzDecodeJSON(f *testing.F) {
	for _, s := range []string{`{"a":[1,{"b":null}],"a":1e3}`, `[[[]]]`, `"\u2028\\"`, `{} {}`, `1e999`, "\"\xff\""} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		doc, err := DecodeJSON(raw)
		var std any
		stdErr := json.Unmarshal(raw, &std)
		if err != nil {
			return // stricter than the standard library is fine
		}
		if stdErr != nil {
			t.Fatalf("%q accepted, but %v", raw, stdErr)
		}
		again, err := json.Marshal(doc)
		if err != nil {
			t.Fatal(err)
		}
		doc2, err := DecodeJSON(again)
		if err != nil {
			t.Fatalf("%q not accepted again as %q: %v", raw, again, err)
		}
		if canonical(doc) != canonical(doc2) {
			t.Fatalf("%q changed into %q", raw, again)
		}
	})
}

// FuzzAgreement compares verdicts with the library's own validator wherever the contract asks for nothing special.
func FuzzAgreement(f *testing.F) {
	schemas := []string{
		`{"type":"object","properties":{"a":{"type":"integer","minimum":1},"b":{"type":["string","array"],"minLength":2}},"required":["a"],"additionalProperties":false}`,
		`{"anyOf":[{"type":"array","items":{"type":"number","exclusiveMaximum":5},"uniqueItems":true,"maxItems":3},{"type":"object","minProperties":2,"patternProperties":{"^x":{"type":"boolean"}}}]}`,
		`{"oneOf":[{"required":["a"]},{"required":["b"]}],"not":{"required":["c"]},"dependencies":{"a":["d"],"b":{"required":["e"]}}}`,
		`{"if":{"type":"string"},"then":{"pattern":"^a+$"},"else":{"enum":[1,[2],{"a":null}]}}`,
		`{"items":[{"const":"a"},{"type":"null"}],"additionalItems":{"type":"string"},"contains":{"type":"string"},"propertyNames":{"maxLength":2}}`,
	}
	ours := make([]*Schema, len(schemas))
	theirs := make([]*jsonschema.Schema, len(schemas))
	for i, raw := range schemas {
		ours[i] = mustCompile(f, raw)
		doc, err := DecodeJSON([]byte(raw))
		if err != nil {
			f.Fatal(err)
		}
		c := jsonschema.NewCompiler()
		c.DefaultDraft(jsonschema.Draft7)
		if err := c.AddResource("test:///s", doc); err != nil {
			f.Fatal(err)
		}
		if theirs[i], err = c.Compile("test:///s"); err != nil {
			f.Fatal(err)
		}
	}
	for i := range schemas {
		for _, doc := range []string{`{"a":1,"b":"xx"}`, `{"a":1,"d":2}`, `[1,2,2]`, `[1,2]`, `"aaa"`, `{"xa":true,"b":1}`, `["a",null,"b"]`, `{"b":1,"e":2,"c":3}`, `1.5`, `[2]`} {
			f.Add(uint8(i), []byte(doc))
		}
	}
	f.Fuzz(func(t *testing.T, which uint8, raw []byte) {
		i := int(which) % len(schemas)
		doc, err := DecodeJSON(raw)
		if err != nil || doc == nil || hasEmpty(doc) || bytes.ContainsAny(raw, "$eE") || len(raw) > 1<<12 {
			return // exponents: the library computes with them exactly, the contract with doubles
		}
		for _, digits := range bytes.FieldsFunc(raw, func(c rune) bool { return c != '.' && (c < '0' || c > '9') }) {
			if len(digits) > 15 {
				return
			}
		}
		if got, want := ours[i].Validate(doc), theirs[i].Validate(doc); (got == nil) != (want == nil) {
			t.Fatalf("%s\non %s\nours   %v\ntheirs %v", schemas[i], raw, got, want)
		}
	})
}

func hasEmpty(v any) bool {
	switch v := v.(type) {
	case map[string]any:
		for _, item := range v {
			if hasEmpty(item) {
				return true
			}
		}
		return len(v) == 0
	case []any:
		for _, item := range v {
			if hasEmpty(item) {
				return true
			}
		}
		return len(v) == 0
	}
	return false
}
