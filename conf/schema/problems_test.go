package schema

import (
	"fmt"
	"strings"
	"testing"
)

func TestProblems(t *testing.T) {
	const text = `{"type":"object","additionalProperties":false,"required":["id"],
		"properties":{"id":{"type":"string","minLength":2},"n":{"type":"integer","minimum":1},
			"list":{"type":"array","items":{"type":"object","required":["host"],"properties":{"port":{"type":"integer"}}}},
			"nodes":{"anyOf":[{"type":"object","additionalProperties":{"type":"integer","minimum":0}},{"type":"array","items":{"type":"string"}}]},
			"mode":{"enum":["a","b"]},"either":{"oneOf":[{"type":"string","pattern":"^x"},{"type":"string","pattern":"^y"}]}},
		"patternProperties":{"^x-":{"type":"string"}},
		"dependencies":{"n":["mode"]},
		"anyOf":[{"required":["nodes"]},{"required":["list"]}]}`
	s, err := Compile("test", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ doc, want string }{
		{`{"id":"ab","nodes":{}}`, ``},
		{`{"id":"a","n":0,"mode":"c","nodes":{"a":-1,"b":"x","c":1}}`, `[id] string too short, expected at least 2, got 1
[mode] matches none of the enum values
[n] expected 0 to be at least 1
[nodes a] expected -1 to be at least 0
[nodes b] wrong type: expected integer, got string`},
		{`{"nodes":["a",1],"idd":1,"x-a":1,"x-b":"y"}`, `[idd] additional properties forbidden (id list [either id list mode n nodes])
[nodes 1] wrong type: expected string, got number
[x-a] wrong type: expected string, got number
[] property "id" is required`},
		{`{"id":"ab","list":[{"port":"x"},5,{"host":1}]}`, `[list 0 port] wrong type: expected integer, got string
[list 0] property "host" is required
[list 1] wrong type: expected object, got number`},
		{`{"id":1,"n":1,"either":"z","nodes":5}`, `[either] value should match only one schema, but matches none
[id] wrong type: expected string, got number
[nodes] object matches none of the required
[] property "mode" is required when "n" is set`},
		{`{"id":"a"}`, `[id] string too short, expected at least 2, got 1
[] object matches none of the required: ["nodes"] or ["list"]`},
		{`5`, `[] wrong type: expected object, got number`},
	} {
		doc, err := DecodeJSON([]byte(tt.doc))
		if err != nil {
			t.Fatal(err)
		}
		var lines []string
		for _, p := range s.Problems(doc) {
			line := fmt.Sprintf("%v %s", p.Path, p.Msg)
			if p.Unknown {
				line += fmt.Sprintf(" (id list %v)", p.Known)
			}
			lines = append(lines, line)
		}
		if got := strings.Join(lines, "\n"); got != tt.want {
			t.Errorf("%s\ngot\n%s\nwant\n%s", tt.doc, got, tt.want)
		}
	}
}

// There are problems exactly when a document is refused.
func FuzzProblems(f *testing.F) {
	for _, doc := range []string{`{}`, `{"a":{"b":[1,"x"]},"c":null}`, `[]`, `{"a":[]}`, `{"a":{"b":[]},"d":1}`} {
		f.Add(doc)
	}
	s, err := Compile("test", []byte(`{"type":"object","properties":{"a":{"anyOf":[{"type":"object","properties":{"b":{"type":"array","items":{"type":"integer"}}},
		"additionalProperties":false},{"type":"string"}]},"c":{"not":{"type":"null"}}},"patternProperties":{"^d":{"type":"string"}},"maxProperties":3,
		"if":{"required":["e"]},"then":{"required":["a"]},"propertyNames":{"maxLength":3}}`))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text string) {
		doc, err := DecodeJSON([]byte(text))
		if err != nil {
			return
		}
		problems := s.Problems(doc)
		if err := s.Validate(doc); (err == nil) != (len(problems) == 0) {
			t.Fatalf("%s: %v, and the problems are %v", text, err, problems)
		}
		for _, p := range problems {
			if p.Msg == "" {
				t.Fatalf("%s: %v has no text", text, p.Path)
			}
		}
	})
}
