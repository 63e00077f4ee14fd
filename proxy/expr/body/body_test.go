package body

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"headgate/proxy/expr"
)

// show writes a value so that kinds are told apart: text as it is, others with their kind before it.
func show(value []byte, kind expr.Kind) string {
	switch kind {
	case expr.None:
		return "-"
	case expr.Text:
		return string(value)
	case expr.List:
		var items []string
		for kind, text := range expr.Items(value) {
			items = append(items, show(text, kind))
		}
		return "[" + strings.Join(items, "|") + "]"
	default:
		return fmt.Sprintf("%c:%s", "-tnbo"[kind], value)
	}
}

func TestJSONArg(t *testing.T) {
	const document = ` {"model":"gpt-4","n":1.50,"on":true,"off":false,"none":null,"e":"","esc":"a\"\u00e9\ud83d\ude00\n","k\u0065y":{"deep":{"er":7}},
		"dup":1,"dup":"last","tags":["x","y",3,null,[1],{"a":1}],"empty":[],"a.b":"dotted","*":"star",
		"messages":[{"role":"system","content":"s"},{"role":"user","content":[{"type":"text","text":"t"}]},"odd"] } `
	for path, want := range map[string]string{
		".model": "gpt-4", ".n": "n:1.50", ".on": "b:true", ".off": "b:false", ".none": "o:null", ".e": "", ".esc": "a\"é😀\n", ".missing": "-",
		".key.deep.er": "n:7", ".key..deep": "[o:]", ".key.": `o:{"deep":{"er":7}}`, ".key.deep.er.x": "-", ".model.x": "-", ".dup": "last",
		".tags": "[x|y|n:3|o:null|o:|o:]", ".tags.0": "-", ".empty": "[]", ".a.b": "-", ".": "-",
		".tags[*]": "[x|y|n:3|o:null|o:|o:]", ".tags[0]": "[x]", ".tags[-1]": "[o:]", ".tags[-9]": "-", ".tags[9]": "-", ".tags[1:3]": "[y|n:3]", ".tags[:1]": "[x]",
		".tags[-2:]": "[o:|o:]", ".tags[:-5]": "[x]", ".tags[:]": "[x|y|n:3|o:null|o:|o:]",
		".messages[*].role": "[system|user]", ".messages[1].content[0].text": "[t]", ".messages..type": "[text]", "..role": "-", "...role": "-",
		".messages.*": "[o:|o:|odd]", ".['a.b']": "[dotted]", `.["model"]`: "[gpt-4]", ".model[*]": "-", ".*.deep.er": "[n:7]", ".['*']": "[star]", ".messages[*].*[0].text": "[t]",
		".tags[": "-", ".tags[]": "-", ".tags[x]": "-", ".tags[1": "-", ".tags['x": "-", ".tags[0,1]": "-", ".tags[?(@.a)]": "-", ".tags[1:x]": "-", ".tags[99999999999]": "-",
		".key[*].er": "[n:7]",
	} {
		if got := show(Arg([]byte("Application/JSON; charset=utf-8"), []byte(document), path, nil)); got != want {
			t.Errorf("%s is %s, want %s", path, got, want)
		}
	}
	if got := show(Arg([]byte("application/json"), []byte(`["x"]`), ".[0]", nil)); got != "[x]" {
		t.Errorf("an element of the document is %s", got)
	}
	for _, contentType := range []string{"", "text/plain", "application/jsonp", "text/json;application/json"} {
		if got := show(Arg([]byte(contentType), []byte(document), ".model", nil)); got != "-" {
			t.Errorf("%q: %s", contentType, got)
		}
	}
}

func TestMalformedJSONHasNoValues(t *testing.T) {
	deep := func(n int) string { return `{"a":1,"b":` + strings.Repeat("[", n) + strings.Repeat("]", n) + `}` }
	for document, want := range map[string]string{
		`{"a":1}`: "n:1", `{"a":1}x`: "-", `{"a":1`: "-", `{"a":1,}`: "-", `{,"a":1}`: "-", `{"a":1 "b":2}`: "-", `{"a":1,"b":01}`: "-", `{"a":1,"b":[1,]}`: "-",
		`{"a":1,"b":"` + "\n" + `"}`: "-", `{"a":1,"b":"\x"}`: "-", `{"a":1,"b":"\u12g4"}`: "-", `{"a":1,"b":tru}`: "-", `{"a":1,"b":-}`: "-", `{"a":1,"b":1.}`: "-",
		`{"a":1,"b":1e}`: "-", `{"a":1,b:1}`: "-", `{"a":1]`: "-", ``: "-", ` `: "-", `1`: "-", deep(maxNesting - 1): "n:1", deep(maxNesting): "-",
	} {
		if got := show(Arg([]byte("application/json"), []byte(document), ".a", nil)); got != want {
			t.Errorf("%.80s: %s, want %s", document, got, want)
		}
	}
}

// A path that goes down everywhere several times must not go through a document without end.
func TestWorkOfPathsIsBounded(t *testing.T) {
	document := []byte(strings.Repeat(`{"a":[`, 400) + `{"b":1}` + strings.Repeat(`]}`, 400))
	if got := show(Arg([]byte("application/json"), document, "..a..a..a..a..b", nil)); got != "-" {
		t.Errorf("got %.80s", got)
	}
	if got := show(Arg([]byte("application/json"), document[5*390:len(document)-2*390], "...b", nil)); got != "-" {
		t.Errorf("got %.80s", got)
	}
}

func TestFormArg(t *testing.T) {
	const form = "k=v&x=1+2&x=%32&flag&e=&a%2Eb=c&=n&bad=%zz"
	for path, want := range map[string]string{
		".k": "v", ".x": "[1 2|2]", ".flag": "b:true", ".e": "", ".a.b": "c", ".none": "-", ".bad": "%zz", ".x[*]": "-", ".": "-",
	} {
		if got := show(Arg([]byte(typeForm), []byte(form), path, nil)); got != want {
			t.Errorf("%s is %s, want %s", path, got, want)
		}
	}
	for name, want := range map[string]string{"x": "1 2", "flag": "true", "e": "", "a.b": "c", "none": "-"} {
		value, ok := FormArg([]byte(typeForm+";charset=utf-8"), []byte(form), name, nil)
		if !ok {
			value = []byte("-")
		}
		if string(value) != want {
			t.Errorf("%s is %s, want %s", name, value, want)
		}
	}
	if _, ok := FormArg([]byte(typeJSON), []byte(form), "k", nil); ok {
		t.Error("a body that is no form has form fields")
	}
}

func TestMultipartArg(t *testing.T) {
	part := func(disposition, content string) string {
		return "--B\r\nContent-Type: text/plain\r\ncontent-disposition: " + disposition + "\r\n\r\n" + content + "\r\n"
	}
	body := "preamble\r\n" + part(`form-data; name="k"`, "v") + part(`form-data; filename="k"; name=file`, "one\r\n--BB\r\n--C") +
		part(`attachment; name="no"`, "x") + part(`form-data; name="twice"`, "1") + part(`form-data; name="twice"`, "2") + part(`form-data; name="e"`, "") + "--B--\r\nepilogue"
	for path, want := range map[string]string{".k": "v", ".file": "one\r\n--BB\r\n--C", ".no": "-", ".twice": "2", ".e": "", ".K": "-"} {
		for _, boundary := range []string{"B", `"B"`} {
			if got := show(Arg([]byte("multipart/form-data; charset=x; boundary="+boundary), []byte(body), path, nil)); got != want {
				t.Errorf("%s is %q, want %q", path, got, want)
			}
		}
	}
	for _, contentType := range []string{"multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; boundary=X", "multipart/form-data; boundary=" + strings.Repeat("B", 71)} {
		if got := show(Arg([]byte(contentType), []byte(body), ".k", nil)); got != "-" {
			t.Errorf("%s: %s", contentType, got)
		}
	}
	if got := show(Arg([]byte("multipart/form-data; boundary=B"), []byte(body[:len(body)-14]), ".k", nil)); got != "-" {
		t.Errorf("without its end: %s", got)
	}
}

func TestGraphQL(t *testing.T) {
	for text, want := range map[string]string{
		`query { owner { name } }`:                                                "|query|[owner]",
		`{ repo { name } user }`:                                                  "|query|[repo|user]",
		`mutation Make($a: [In!] = {x: 1}) @d { a: b }`:                           "Make|mutation|[b]",
		`subscription S{a,b(x:{y:"}\""}) @include(if:$v) { c }}`:                  "S|subscription|[a|b]",
		`query Q { ...F ... on T { x } ... @d { y } z @s } fragment F on T { w }`: "Q|query|[F|x|y|z]",
		`fragment F on T { w } query Q { v }`:                                     "F|-|[w]",
		"# { x }\n{ a(s: \"\"\" } \" \\\"\"\" {\"\"\" t: \"\") }":                 "|query|[a]",
		"{ a(é: 1) }": "-|-|-", `{ a(s: "é") }`: "|query|[a]", `{}`: "|query|[]",
		`{ a `: "-|-|-", `{ a } }`: "-|-|-", `{ a( }`: "-|-|-", `type T { a: Int }`: "-|-|-", ``: "-|-|-", `query`: "-|-|-", `{ a } "`: "-|-|-", `{ "a" }`: "-|-|-", `{ . a }`: "-|-|-",
		`{ ` + strings.Repeat("n", maxName) + ` }`:   "|query|[" + strings.Repeat("n", maxName) + "]",
		`{ ` + strings.Repeat("n", maxName+1) + ` }`: "-|-|-",
	} {
		quoted, _ := json.Marshal(map[string]string{"query": text})
		encoded := strings.NewReplacer("%", "%25", "&", "%26", "+", "%2b", " ", "+").Replace(text)
		for name, ask := range map[string]func(Operation) ([]byte, expr.Kind){
			"POST": func(o Operation) ([]byte, expr.Kind) {
				return GraphQL([]byte("POST"), []byte("application/graphql"), nil, []byte(text), o, nil)
			},
			"POST json": func(o Operation) ([]byte, expr.Kind) {
				return GraphQL([]byte("POST"), []byte(typeJSON), nil, quoted, o, nil)
			},
			"GET": func(o Operation) ([]byte, expr.Kind) {
				return GraphQL([]byte("GET"), nil, []byte("a=b&query="+encoded+"&query={x}"), nil, o, nil)
			},
		} {
			got := show(ask(OperationName)) + "|" + show(ask(OperationType)) + "|" + show(ask(OperationFields))
			if got != want {
				t.Errorf("%s %s: %s, want %s", name, text, got, want)
			}
		}
	}
	for name, value := range map[string]string{
		"PUT":       show(GraphQL([]byte("PUT"), nil, nil, []byte("{a}"), OperationFields, nil)),
		"no query":  show(GraphQL([]byte("GET"), nil, []byte("q={a}"), nil, OperationFields, nil)),
		"no member": show(GraphQL([]byte("POST"), []byte(typeJSON), nil, []byte(`{"a":"{a}"}`), OperationFields, nil)),
		"number":    show(GraphQL([]byte("POST"), []byte(typeJSON), nil, []byte(`{"query":1}`), OperationFields, nil)),
		"too long":  show(GraphQL([]byte("POST"), nil, nil, []byte("{a}"+strings.Repeat(" ", MaxGraphQL)), OperationFields, nil)),
	} {
		if value != "-" {
			t.Errorf("%s: %s", name, value)
		}
	}
}

func TestNothingIsAllocated(t *testing.T) {
	document := []byte(`{"a":{"b":"x\ny"},"messages":[{"role":"system"},{"role":"user"}],"query":"query Q { owner {\n name } }"}`)
	form, multipart := []byte("a=1&k=v&k=w"), []byte("--B\r\nContent-Disposition: form-data; name=k\r\n\r\nv\r\n--B--")
	buf := make([]byte, 0, 256)
	for name, ask := range map[string]func() ([]byte, expr.Kind){
		"member":    func() ([]byte, expr.Kind) { return Arg([]byte(typeJSON), document, ".a.b", buf) },
		"list":      func() ([]byte, expr.Kind) { return Arg([]byte(typeJSON), document, ".messages[*].role", buf) },
		"slice":     func() ([]byte, expr.Kind) { return Arg([]byte(typeJSON), document, ".messages[-1:]..role", buf) },
		"form":      func() ([]byte, expr.Kind) { return Arg([]byte(typeForm), form, ".k", buf) },
		"multipart": func() ([]byte, expr.Kind) { return Arg([]byte(typeMultipart+";boundary=B"), multipart, ".k", buf) },
		"graphql": func() ([]byte, expr.Kind) {
			return GraphQL([]byte("POST"), []byte(typeJSON), nil, document, OperationFields, buf)
		},
	} {
		kind := expr.None
		if n := testing.AllocsPerRun(50, func() { _, kind = ask() }); n != 0 && !raceEnabled || kind == expr.None {
			t.Errorf("%s: %v allocations, kind %d", name, n, kind)
		}
	}
}

// encoding/json is the model: what is a document, and what a member's value is.
func FuzzJSON(f *testing.F) {
	for _, seed := range []string{`{"a":{"b":"x\u00e9"}}`, `{"a":1,"a":{"b":-1.5e3}}`, `{"a":{"b":[1,"x",null]}}`, `[1]`, `{"\u0061":{"b":"\ud800"}}`, `{"a":{"b":true}} x`, `{"a" : {} }`,
		`{"a":{"b":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaa\\"}}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if !utf8.Valid(text) {
			return // encoding/json replaces what isn't UTF-8
		}
		var root any
		err := json.Unmarshal(text, &root)
		if valid(text) != (err == nil) {
			if err != nil && strings.Contains(err.Error(), "cannot unmarshal number") {
				return // a number beyond float64
			}
			t.Fatalf("valid: %v, encoding/json: %v", valid(text), err)
		}
		a, _ := root.(map[string]any)
		inner, _ := a["a"].(map[string]any)
		value, found := inner["b"]
		got, kind := Arg([]byte(typeJSON), text, ".a.b", nil)
		if !same(got, kind, value, found) {
			t.Fatalf("%s: %s, want %T %v (%v)", text, show(got, kind), value, value, found)
		}
		Arg([]byte(typeJSON), text, "..b[*]", nil)
	})
}

// same compares a value with what encoding/json made of it.
func same(got []byte, kind expr.Kind, want any, found bool) bool {
	if !found {
		return kind == expr.None
	}
	switch want := want.(type) {
	case string:
		return kind == expr.Text && string(got) == want
	case float64:
		var num float64
		return kind == expr.Number && json.Unmarshal(got, &num) == nil && num == want
	case bool:
		return kind == expr.Bool && string(got) == fmt.Sprint(want)
	case []any:
		i := 0
		for kind, text := range expr.Items(got) {
			if i >= len(want) {
				return false
			}
			switch element := want[i].(type) {
			case []any, map[string]any, nil:
				if kind != expr.Opaque {
					return false
				}
			default:
				if !same(text, kind, element, true) {
					return false
				}
			}
			i++
		}
		return kind == expr.List && i == len(want)
	default:
		return kind == expr.Opaque
	}
}

func FuzzGraphQL(f *testing.F) {
	for _, seed := range []string{`query { owner { name } }`, `{ a(s: """ } """) @d ... on T { b } }`, `mutation M($a: [I!]) { a: b }`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		quoted, _ := json.Marshal(map[string]string{"query": text})
		plain := show(GraphQL([]byte("POST"), nil, nil, []byte(text), OperationFields, nil))
		if inJSON := show(GraphQL([]byte("POST"), []byte(typeJSON), nil, quoted, OperationFields, nil)); utf8.ValidString(text) && inJSON != plain {
			t.Errorf("%q: %s, in JSON %s", text, plain, inJSON)
		}
	})
}

func BenchmarkArg(b *testing.B) {
	document := []byte(`{"model":"gpt-4","messages":[{"role":"system","content":"` + strings.Repeat("lorem ipsum ", 700) + `"},{"role":"user","content":"x\ny"}]}`)
	buf := make([]byte, 0, 256)
	for _, path := range []string{".model", ".messages[*].role"} {
		b.Run(path, func(b *testing.B) {
			b.SetBytes(int64(len(document)))
			b.ReportAllocs()
			for b.Loop() {
				Arg([]byte(typeJSON), document, path, buf)
			}
		})
	}
}
