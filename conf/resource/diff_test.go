package resource

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"unicode"
)

func TestDiff(t *testing.T) {
	many := make(map[string]any)
	for i := range maxChanges + 3 {
		many[fmt.Sprintf("m%02d", i)] = i
	}
	crowded, err := json.Marshal(many)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct{ name, before, after, want string }{
		{"created", "", `{"id":"1","uri":"/a","plugins":{"cors":{}},"upstream":{"nodes":{},"type":"x"},"create_time":1}`,
			"+plugins.cors +upstream.nodes +upstream.type +uri"},
		{"deleted", `{"id":"1","uri":"/a","update_time":1}`, "", "-uri"},
		{"mixed", `{"upstream":{"nodes":{"a:1":1}},"vars":[],"plugins":{"cors":{"max_age":1}}}`,
			`{"upstream":{"nodes":{"a:1":2}},"plugins":{"cors":{"max_age":1},"csrf":{}}}`, "+plugins.csrf ~upstream.nodes -vars"},
		{"only times", `{"update_time":1,"uri":"/"}`, `{"update_time":2,"uri":"/"}`, ""},
		{"numbers as written", `{"priority":1}`, `{"priority":1.0}`, "~priority"},
		{"order of members", `{"timeout":{"read":1,"send":2}}`, `{"timeout":{"send":2,"read":1}}`, ""},
		{"an object becomes something else", `{"plugins":{"cors":{}}}`, `{"plugins":[]}`, "~plugins"},
		{"empty objects", `{}`, `{"plugins":{}}`, "+plugins"},
		{"addresses are data", `{"nodes":{"10.0.0.1:80":1}}`, `{"nodes":{"10.0.0.2:80":1}}`, "~nodes"},
		{"odd names", `{}`, `{"a b":1,"":2,"x\ny":3,"é":4}`, `+"" +"a b" +"x\ny" +"\u00e9"`},
		{"long names", `{}`, `{"` + strings.Repeat("n", 100) + `":1}`, `+"` + strings.Repeat("n", maxMember) + `"...`},
		{"null is a value", `{"a":null}`, `{"a":1}`, "~a"},
		{"damaged", `{`, `{"uri":"/"}`, "+uri"},
	}
	for _, tt := range tests {
		var before, after []byte
		if tt.before != "" {
			before = []byte(tt.before)
		}
		if tt.after != "" {
			after = []byte(tt.after)
		}
		if got := Diff(before, after); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.name, got, tt.want)
		}
	}
	if got := Diff(nil, crowded); !strings.HasSuffix(got, " and 3 more") || strings.Count(got, "+") != maxChanges {
		t.Errorf("crowded: %s", got)
	}
}

// Whatever the documents are: every word of a line is made of names that are in them, and a text that is only ever a value is nowhere.
func FuzzDiffShowsNoValue(f *testing.F) {
	f.Add(`{"uri":"/a"}`, `{"uri":"/b","plugins":{"key-auth":{"key":"k"}}}`)
	f.Add(`{"upstream":{"tls":{"client_key":"x"}}}`, `{"upstream":{"tls":"y"},"labels":{"a":"b"}}`)
	f.Add(`{"plugins":{"a":["b"]}}`, `{"plugins":["c"],"timeout":[1]}`)
	f.Add(`["a"]`, `"b"`)
	f.Fuzz(func(t *testing.T, before, after string) {
		const canary = "zq7canary"
		marked := func(text string) []byte {
			var doc any
			if json.Unmarshal([]byte(text), &doc) != nil || strings.Contains(text, canary) {
				return nil
			}
			raw, err := json.Marshal(mark(doc, canary))
			if err != nil {
				t.Fatal(err)
			}
			return raw
		}
		line := Diff(marked(before), marked(after))
		if strings.Contains(line, canary) {
			t.Errorf("a value is in the line: %s", line)
		}
		if strings.IndexFunc(line, unicode.IsControl) >= 0 || len(line) > (maxChanges+1)*(2*6*maxMember) {
			t.Errorf("not one short line: %q", line)
		}
	})
}

// mark replaces every string and number that is a value.
func mark(v any, canary string) any {
	switch v := v.(type) {
	case map[string]any:
		for name, item := range v {
			v[name] = mark(item, canary)
		}
	case []any:
		for i, item := range v {
			v[i] = mark(item, canary)
		}
	case string, float64:
		return canary
	}
	return v
}
