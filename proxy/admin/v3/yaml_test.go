package v3

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"headgate/conf/resource"
	"headgate/conf/schema"
)

func TestFromYAML(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"scalars", "a: 1\nb: 1.50\nc: true\nd: null\ne: x\nf: \"1\"\ng: ~\n", `{"a":1,"b":1.50,"c":true,"d":null,"e":"x","f":"1","g":null}`},
		{"words that older YAML takes for booleans", "a: yes\nb: off\n", `{"a":"yes","b":"off"}`},
		{"numbers that JSON has not", "a: 0x10\nb: 1_000\nc: .5\nd: +3\n", `{"a":16,"b":1000,"c":0.5,"d":3}`},
		{"large numbers", "a: 9007199254740993\n", `{"a":9007199254740993}`},
		{"names", "1: a\ntrue: b\n", `{"1":"a","true":"b"}`},
		{"lists", "- a\n- [b, {c: d}]\n", `["a",["b",{"c":"d"}]]`},
		{"block text", "a: |\n  x\n  y\nb: >\n  x\n  y\n", `{"a":"x\ny\n","b":"x y\n"}`},
		{"alias", "a: &x {k: 1}\nb: *x\n", `{"a":{"k":1},"b":{"k":1}}`},
		{"merge key", "a: &x {k: 1, l: 2}\nb:\n  <<: *x\n  k: 3\n", `{"a":{"k":1,"l":2},"b":{"k":3,"l":2}}`},
		{"JSON", `{"a":[1,{"b":null}]}`, `{"a":[1,{"b":null}]}`},
		{"nothing", "", `null`},
		{"comment", "# x\na: 1 # y\n", `{"a":1}`},
		{"time stays text", "a: 2026-01-01\n", `{"a":"2026-01-01"}`},
	}
	for _, tt := range tests {
		v, err := fromYAML([]byte(tt.text))
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if got, err := resource.Encode(v); err != nil || string(got) != tt.want {
			t.Errorf("%s: got %s %v, want %s", tt.name, got, err, tt.want)
		}
	}
	bomb := "a: &a [x,x,x,x,x,x,x,x,x,x]\n"
	for c := 'b'; c <= 'k'; c++ {
		bomb += string(c) + ": &" + string(c) + " [" + strings.TrimSuffix(strings.Repeat("*"+string(c-1)+",", 10), ",") + "]\n"
	}
	for name, text := range map[string]string{
		"syntax": "a: [", "twice": "a: 1\na: 2\n", "two documents": "a: 1\n---\nb: 2\n", "no such alias": "a: *x\n", "not a number": "a: .nan\n",
		"infinite": "a: .inf\n", "bomb": bomb, "deep": strings.Repeat("[", 100) + strings.Repeat("]", 100), "itself": "a: &a [*a]\n",
		"merge of text": "a:\n  <<: x\n",
	} {
		if v, err := fromYAML([]byte(text)); err == nil {
			t.Errorf("%s was taken for %v", name, v)
		}
	}
}

// Whatever JSON document goes out as YAML comes back as the same values.
func FuzzYAMLRoundTrip(f *testing.F) {
	f.Add(`{"a":1,"b":[true,null,"x"],"c":{"d":1.5}}`)
	f.Add(`{"yes":"no","1":"2","~":"null","":"","#":": -","k":"line\nline","s":" lead","t":"trail ","q":"\"'"}`)
	f.Add(`{"a":"0x10","b":"1e3","c":".5","d":"2026-01-01","e":"<<","f":"*x","g":"&x","h":"!!str","i":"%","j":"@","k":"` + "`" + `"}`)
	f.Add(`{"a":"\t","b":"a: b","c":"a #b","d":"- a","e":"[","f":"{","g":"|","h":">","i":"\u0085\u2028"}`)
	f.Add(`{"n":12345678901234567890,"m":1e30,"l":-0.0}`)
	f.Fuzz(func(t *testing.T, text string) {
		decoded, err := schema.DecodeJSON([]byte(text))
		doc, ok := decoded.(map[string]any)
		if err != nil || !ok || strings.Contains(text, "�") {
			return
		}
		out, err := toYAML(doc)
		if err != nil {
			return
		}
		back, err := fromYAML(out)
		if err != nil {
			t.Fatalf("%v in\n%s", err, out)
		}
		if !reflect.DeepEqual(values(t, doc), values(t, back)) {
			t.Errorf("%s became\n%s", text, out)
		}
	})
}

// values makes numbers comparable.
func values(t *testing.T, v any) any {
	raw, err := resource.Encode(v)
	if err != nil {
		t.Fatal(err)
	}
	var plain any
	if err := json.Unmarshal(raw, &plain); err != nil {
		t.Fatal(err)
	}
	return plain
}

func FuzzFromYAML(f *testing.F) {
	for _, seed := range []string{"a: &x [1]\nb: *x\n", "a:\n  <<: [*x, {k: 1}]\n", "? a\n: b\n", "!!set {a}\n", "- - - x", "a: |+\n\n\n", "%YAML 1.2\n---\na: b"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		v, err := fromYAML(raw)
		if err != nil {
			return
		}
		if _, err := resource.Encode(v); err != nil {
			t.Errorf("%q gives what JSON has not: %v", raw, err)
		}
	})
}
