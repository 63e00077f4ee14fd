package apisix

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"headgate/conf"
)

func env(pairs ...string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == name {
				return pairs[i+1], true
			}
		}
		return "", false
	}
}

func TestDecodeYAML(t *testing.T) {
	f := func(name, text, want string) {
		t.Helper()
		tree, err := DecodeYAML("x.yaml", []byte(text), env("PORT", "80", "ON", "true", "NAME", "n1", "TRICK", "a: [b"))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			return
		}
		got, err := json.Marshal(tree.Root)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, string(got)); diff != "" {
			t.Errorf("%s:\n%s", name, diff)
		}
	}
	f("empty", "", `{}`)
	f("comment alone", "# nothing\n", `{}`)
	f("null", "~\n", `{}`)
	f("byte order mark", "\ufeffa: 1\n", `{"a":1}`)
	f("document markers", "---\na: 1\n...\n", `{"a":1}`)
	f("carriage returns", "a: 1\r\nb:\r\n  - x\r\n", `{"a":1,"b":["x"]}`)
	f("numbers", "a: 1\nb: 1.5\nc: 1e3\nd: -0.25\ne: 0x1F\nf: 0o17\ng: 007\nh: .5\ni: +3\nj: 12345678901234567890\nk: 1.\nl: 1.50\n",
		`{"a":1,"b":1.5,"c":1e3,"d":-0.25,"e":31,"f":15,"g":7,"h":0.5,"i":3,"j":12345678901234567890,"k":1.0,"l":1.50}`)
	f("what is no number", "a: '1'\nb: 1_000\nc: 127.0.0.1\nd: 1.2.3\ne: 12:30:45\nf: 2026-01-02\ng: 0b11\nh: 1e\n",
		`{"a":"1","b":"1_000","c":"127.0.0.1","d":"1.2.3","e":"12:30:45","f":"2026-01-02","g":"0b11","h":"1e"}`)
	f("words", "a: true\nb: False\nc: yes\nd: off\ne: ~\nf: null\ng:\nh: \"true\"\ni: \"\"\n",
		`{"a":true,"b":false,"c":"yes","d":"off","e":null,"f":null,"g":null,"h":"true","i":""}`)
	f("keys", "80: a\ntrue: b\n\"127.0.0.1:80\": c\n127.0.0.1:81: d\n", `{"127.0.0.1:80":"c","127.0.0.1:81":"d","80":"a","true":"b"}`)
	f("nesting", "a:\n- b: 1\n  c: {d: [1, {e: f}], \"g\": []}\n-\n  - x\n  - {}\n", `{"a":[{"b":1,"c":{"d":[1,{"e":"f"}],"g":[]}},["x",{}]]}`)
	f("blocks", "a: |\n  one\n  two\nb: >-\n  one\n  two\nc: |+\n  x\n\nd: 1\n", `{"a":"one\ntwo\n","b":"one two","c":"x\n\n","d":1}`)
	f("plain text on two lines", "a: one\n  two\n", `{"a":"one two"}`)
	f("escapes", `a: "\u00e9\n\t\"'"`+"\nb: 'it''s'\n", `{"a":"é\n\t\"'","b":"it's"}`)
	f("anchors", "x: &a {n: 1}\ny: *a\nz: [*a, *a]\n", `{"x":{"n":1},"y":{"n":1},"z":[{"n":1},{"n":1}]}`)
	f("anchored scalar", "a: &p 80\nb: *p\n", `{"a":80,"b":80}`)
	f("anchor set again", "a: &p 1\nb: *p\nc: &p 2\nd: *p\n", `{"a":1,"b":1,"c":2,"d":2}`)
	f("alias as key", "a: &k name\nb:\n  *k : 1\n", `{"a":"name","b":{"name":1}}`)
	f("a long list in a line", "a: ["+strings.Repeat("1,", 999)+"1]\n", `{"a":[`+strings.Repeat("1,", 999)+`1]}`)
	f("merge", "base: &b {type: roundrobin, retries: 1}\nx:\n  <<: *b\n  retries: 2\n", `{"base":{"retries":1,"type":"roundrobin"},"x":{"retries":2,"type":"roundrobin"}}`)
	f("merge after own", "base: &b {r: 1}\nx:\n  r: 2\n  <<: *b\n", `{"base":{"r":1},"x":{"r":2}}`)
	f("merge list", "a: &a {k: 1, l: 1}\nb: &b {k: 2, m: 2}\nx:\n  <<: [*a, *b]\n", `{"a":{"k":1,"l":1},"b":{"k":2,"m":2},"x":{"k":1,"l":1,"m":2}}`)
	f("tags", "a: !!str 1\nb: !!int 2\nc: !!map {d: !!bool true}\n", `{"a":"1","b":2,"c":{"d":true}}`)
	f("a dotted key beside a nested one", "a.b: 1\na: {b: 2}\n", `{"a":{"b":2},"a.b":1}`)
	f("environment", "a: ${{PORT}}\nb: \"${{ NAME }}-x\"\nc: ${{NO:= some text }}\nd: ${{ON}}\ne: ${{PORT}}1\nf: ${{NO:=}}\ng: ${NAME}\n",
		`{"a":80,"b":"n1-x","c":"some text","d":true,"e":801,"f":"","g":"${NAME}"}`)
	f("environment cannot add structure", "a: ${{TRICK}}\n", `{"a":"a: [b"}`)
}

func TestDecodeYAMLRefuses(t *testing.T) {
	f := func(name, text, want string) {
		t.Helper()
		tree, err := DecodeYAML("x.yaml", []byte(text), env())
		if err == nil || tree != nil {
			t.Errorf("%s: got %v, %v, want an error alone", name, tree, err)
			return
		}
		if !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: got %q, want %q and no value", name, err, want)
		}
	}
	f("list", "- a\n", "x.yaml:1: expected a mapping")
	f("text", "hello\n", "x.yaml:1: expected a mapping")
	f("two documents", "a: 1\n---\nb: 2\n", "expected one document")
	f("duplicate key", "a:\n  b: 1\n  c: 2\n  b: 3\n", `x.yaml:4: key "b" stands twice in one mapping`)
	f("duplicate key in brackets", "a: {b: 1, 'b': 2}\n", `x.yaml:1: key "b" stands twice`)
	f("open bracket", "a: [1, 2\nb: 3\n", "x.yaml:")
	f("open quote", "a: 'x\nb: 3\n", "x.yaml:")
	f("tab", "a:\n\tb: 1\n", "x.yaml:2: not valid YAML")
	f("indentation", "a:\n    b: 1\n  c: 2\n", "x.yaml:3: not valid YAML")
	f("a secret that looks like a block", "password: |secret\n", "x.yaml:1: not valid YAML: invalid header option")
	f("unknown alias", "a: *nobody\n", "x.yaml:1: alias *nobody has no anchor before it")
	f("alias of itself", "a: &x [1, *x]\n", "x.yaml:1: alias *x stands inside its own anchor")
	f("merge of a scalar", "a: &x 1\nb:\n  <<: *x\n", "expected a mapping or a list of mappings after <<")
	f("infinity", "a: .inf\n", "x.yaml:1: expected a number that JSON has")
	f("huge number", "a: 1e999\n", "x.yaml:1: expected a number that a double can hold")
	f("foreign tag", "a: !!python/object x\n", "is not supported")
	f("own tag", "a: !x y\n", "is not supported")
	f("wrong tag", "a: !!int x\n", "x.yaml:1: expected a value that fits the tag !!int")
	f("structure as key", "? [a]\n: b\n", "x.yaml:2:")
	f("zero byte", "a: 1\nb: \x00\n", "x.yaml:2: not valid YAML: a zero byte")
	f("no UTF-8", "a: \xff\n", "the text is not UTF-8")
	f("environment", "a:\n  b: ${{NOPE}}\n", "x.yaml:2: environment variable NOPE is not set")
	f("too deep, brackets", "a: "+strings.Repeat("[", 20_000), "nested deeper than 64 levels")
	f("too deep, dashes", "a:\n"+strings.Repeat("- ", 20_000), "nested deeper than 64 levels")
	f("too deep, indented", "a:\n"+indented(100), "nested deeper than 64 levels")
	f("too large", strings.Repeat("# comment\n", 7<<20), "expected at most 64MiB of text")
}

func indented(levels int) string {
	var b strings.Builder
	for i := 1; i <= levels; i++ {
		b.WriteString(strings.Repeat(" ", i) + "k:\n")
	}
	return b.String()
}

// Texts that are small and cost much, if nothing is counted.
func TestDecodeYAMLBombs(t *testing.T) {
	var laughs, merges strings.Builder
	laughs.WriteString("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n")
	merges.WriteString("a0: &a0 {k: [x, x, x, x, x, x, x, x, x, x]}\n")
	for i := 1; i < 12; i++ {
		prev, next := string(rune('a'+i-1)), string(rune('a'+i))
		if i == 1 {
			prev = "a0"
		}
		laughs.WriteString(next + ": &" + next + " [" + strings.Repeat("*"+prev+", ", 9) + "*" + prev + "]\n")
		merges.WriteString(next + ": &" + next + " {<<: [" + strings.Repeat("*"+prev+", ", 9) + "*" + prev + "], k" + next + ": 1}\n")
	}
	for name, text := range map[string]string{
		"lists":         laughs.String(),
		"merges":        merges.String(),
		"text":          "a: &a \"" + strings.Repeat("x", 1<<20) + "\"\nb: [" + strings.Repeat("*a, ", 100) + "*a]\n",
		"tags":          "a: " + strings.Repeat("!!a ", 20_000),
		"tag lines":     "a: " + strings.Repeat("!!a\n ", 20_000),
		"anchors":       "a: " + strings.Repeat("&a ", 20_000),
		"anchor lines":  "a: " + strings.Repeat("&a\n ", 20_000),
		"aliases":       "a: &a 1\nb: " + strings.Repeat("*a ", 20_000),
		"alias lines":   "a: &a 1\n" + strings.Repeat("*a\n", 20_000),
		"strings":       strings.Repeat(`"" `, 20_000),
		"string lines":  strings.Repeat("\"\"\n", 20_000),
		"in brackets":   "a: [" + strings.Repeat(`"" `, 20_000) + "]",
		"merge keys":    strings.Repeat("<<: ", 20_000),
		"colons":        "a: {" + strings.Repeat(": ", 20_000) + "}",
		"brackets":      "a: " + strings.Repeat("[]", 20_000),
		"questions":     strings.Repeat("? ", 20_000),
		"question rows": strings.Repeat("?\n", 20_000),
	} {
		if _, err := decode("x.yaml", []byte(text), nil, 4*conf.MiB); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
}
