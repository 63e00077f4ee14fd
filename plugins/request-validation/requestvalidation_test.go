package requestvalidation

import (
	"encoding/json"
	"strings"
	"testing"

	"headgate/conf/schema"
	"headgate/proxy/phase"
	"headgate/proxy/phase/phasetest"
)

func compiled(t testing.TB) *schema.Schema {
	t.Helper()
	s, err := schema.Compile(Kind().Name, Kind().Schema)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// complaint is what an operator is told about conf.
func complaint(t testing.TB, s *schema.Schema, conf string) string {
	t.Helper()
	doc, err := schema.DecodeJSON([]byte(conf))
	if err == nil {
		err = s.Validate(doc)
	}
	if err == nil {
		err = Kind().Validate([]byte(conf))
	}
	if err != nil {
		return err.Error()
	}
	return ""
}

func TestRefusals(t *testing.T) {
	s := compiled(t)
	for _, tt := range []struct{ conf, want string }{
		{`{"body_schema":{}}`, ""},
		{`{"header_schema":{"type":"object"},"rejected_code":599,"rejected_msg":"no"}`, ""},
		{`{}`, `object matches none of the required: ["header_schema"] or ["body_schema"]`},
		{`{"body_schema":{},"rejected_code":199}`, `property "rejected_code" validation failed: expected 199 to be at least 200`},
		{`{"body_schema":{},"rejected_msg":""}`, `property "rejected_msg" validation failed: string too short, expected at least 1, got 0`},
		{`{"body_schema":"x"}`, `property "body_schema" validation failed: wrong type: expected object, got string`},
	} {
		if got := complaint(t, s, tt.conf); got != tt.want {
			t.Errorf("%s\ngot  %s\nwant %s", tt.conf, got, tt.want)
		}
	}
	for _, conf := range []string{
		`{"body_schema":{"type":"nonsense"}}`, `{"header_schema":{"required":1}}`, `{"body_schema":{"pattern":"("}}`,
		`{"body_schema":{"$ref":"http://127.0.0.1/"}}`, `{"body_schema":{"$ref":"#"}}`,
	} {
		if complaint(t, s, conf) == "" {
			t.Errorf("%s passes", conf)
		}
	}
}

const person = `{"type":"object","required":["name"],"properties":{"name":{"type":"string","minLength":2},"n":{"type":"integer"}}}`

const (
	asJSON = "Content-Type: application/json"
	asForm = "Content-Type: application/x-www-form-urlencoded"
)

func TestRequests(t *testing.T) {
	page := "400\nContent-Type: text/html; charset=utf-8\n\n"
	text := "400\nContent-Type: text/plain; charset=utf-8\n\n"
	for _, tt := range []struct {
		name, conf, lines, body string
		want                    string // the answer, or its beginning; "" lets the request pass
		forwarded               string // the body then, "" for the client's
	}{
		{"good", `{"body_schema":` + person + `}`, asJSON, `{"name":"ab"}`, "", ""},
		{"no body", `{"body_schema":` + person + `}`, asJSON, ``, page, ""},
		{"no body, own words", `{"body_schema":` + person + `,"rejected_msg":"nope"}`, asJSON, ``, text + "nope", ""},
		{"own code and words", `{"body_schema":` + person + `,"rejected_code":422,"rejected_msg":"nope"}`, asJSON, `{}`,
			"422\nContent-Type: text/plain; charset=utf-8\n\nnope", ""},
		{"missing", `{"body_schema":` + person + `}`, asJSON, `{}`, text + `property "name" is required`, ""},
		{"too short", `{"body_schema":` + person + `}`, asJSON, `{"name":"a"}`,
			text + `property "name" validation failed: string too short, expected at least 2, got 1`, ""},
		{"wrong type", `{"body_schema":` + person + `}`, asJSON, `{"name":"ab","n":1.5}`,
			text + `property "n" validation failed: wrong type: expected integer, got number`, ""},
		{"no object", `{"body_schema":` + person + `}`, asJSON, `"x"`, text + `wrong type: expected object, got string`, ""},
		{"null", `{"body_schema":` + person + `}`, asJSON, `null`, text + `wrong type: expected object, got userdata`, ""},
		{"no JSON", `{"body_schema":` + person + `}`, asJSON, `name=ab`, text + `Expected value but found invalid token at character 1`, ""},
		{"two documents", `{"body_schema":` + person + `}`, asJSON, `{"name":"ab"} {}`, text + `Expected the end but found T_OBJ_BEGIN at character 15`, ""},
		{"no content type", `{"body_schema":` + person + `}`, "", `{"name":"ab"}`, "", ""},
		{"looks like a secret", `{"body_schema":{"properties":{"a":{"type":"string","maxLength":3}}}}`, asJSON, `{"a":"$env://HOME"}`,
			text + `property "a" validation failed: string too long, expected at most 3, got 11`, ""},

		// What is forwarded is what was judged.
		{"member twice", `{"body_schema":` + person + `}`, asJSON, `{"name":1,"name":"ab"}`, "", `{"name":"ab"}`},
		{"form of numbers", `{"body_schema":` + person + `}`, asJSON, ` { "x" : 1.50e3, "name":"a<b" , "l":[ ], "o":{} }`, "",
			`{"l":[],"name":"a<b","o":{},"x":1.50e3}`},
		{"defaults", `{"body_schema":{"type":"object","required":["d"],"properties":{"d":{"type":"string","default":"dd"},` +
			`"o":{"properties":{"e":{"default":[{}]}}}},"items":{}}}`, asJSON, `{"x":1,"o":{}}`, "", `{"d":"dd","o":{"e":[{}]},"x":1}`},
		{"defaults of items", `{"body_schema":{"items":{"properties":{"a":{"default":1}}}}}`, asJSON, `[{},{"a":2},3]`, "", `[{"a":1},{"a":2},3]`},

		{"form", `{"body_schema":` + person + `}`, asForm, `name=ab`, "", ""},
		{"form with charset", `{"body_schema":` + person + `}`, asForm + "; charset=utf-8", `name=%61+`, "", ""},
		{"form without it", `{"body_schema":` + person + `}`, asForm, `x=ab`, text + `property "name" is required`, ""},
		{"form with it twice", `{"body_schema":` + person + `}`, asForm, `name=ab&&name=cd`,
			text + `property "name" validation failed: wrong type: expected string, got table`, ""},
		{"form, bare name", `{"body_schema":` + person + `}`, asForm, `name`, text + `property "name" validation failed: wrong type: expected string, got boolean`, ""},
		{"form, decoded", `{"body_schema":{"required":["a b"],"properties":{"a b":{"enum":["c&=%"]}}}}`, asForm, `a%20b=c%26%3D%`, "", ""},

		{"header", `{"header_schema":{"required":["x-a"],"properties":{"x-a":{"type":"string","pattern":"^b"}}}}`, "X-A: bc", "", "", ""},
		{"header, other value", `{"header_schema":{"required":["x-a"],"properties":{"x-a":{"type":"string","pattern":"^b"}}}}`, "X-A: cc", "",
			text + `property "x-a" validation failed: failed to match pattern "^b" with "cc"`, ""},
		{"header missing", `{"header_schema":{"required":["x-a"]}}`, "", "", text + `property "x-a" is required`, ""},
		{"header twice", `{"header_schema":{"properties":{"x-a":{"type":"string"}}}}`, "X-A: 1|x-a: 2", "",
			text + `property "x-a" validation failed: wrong type: expected string, got table`, ""},
		{"header, written otherwise", `{"header_schema":{"allOf":[{"required":["X_A"]},{"properties":{"X-A":{"enum":["1"]}}}]}}`, "x-a: 1", "", "", ""},
		{"host and length", `{"header_schema":{"required":["host","content-length"],"properties":{"host":{"enum":["gateway.test"]},` +
			`"content-length":{"enum":["3"]}}}}`, "", "abc", "", ""},
		{"both", `{"header_schema":{"required":["x-a"]},"body_schema":` + person + `}`, asJSON, `{}`, text + `property "x-a" is required`, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var e phasetest.Env
			i := phase.Instance{Plugin: e.Build(t, Kind(), tt.conf)}
			var lines []string
			if tt.lines != "" {
				lines = strings.Split(tt.lines, "|")
			}
			x := phasetest.Exchange("POST /", lines...)
			x.Request.Body = []byte(tt.body)
			got := phasetest.Run(x, &e, nil, i)
			if tt.want == "" && x.Stopped() || tt.want != "" && !strings.HasPrefix(got, tt.want) || tt.want == text && got != text {
				t.Errorf("got  %q\nwant %q", got, tt.want)
			}
			if tt.want == page && !strings.Contains(got, "<title>400 Bad Request</title>") {
				t.Errorf("got %q", got)
			}
			if tt.want == "" && tt.forwarded != "" && string(x.Request.Body) != tt.forwarded {
				t.Errorf("forwarded %s, want %s", x.Request.Body, tt.forwarded)
			}
			if tt.want == "" && tt.forwarded == "" && string(x.Request.Body) != tt.body {
				t.Errorf("forwarded %s, want %s", x.Request.Body, tt.body)
			}
		})
	}
}

// A default is not shared between requests.
func TestDefaultsAreFresh(t *testing.T) {
	var e phasetest.Env
	p := e.Build(t, Kind(), `{"body_schema":{"properties":{"o":{"default":{},"properties":{"x":{"default":1}}}}}}`).(phase.Rewriter)
	for range 2 {
		x := phasetest.Exchange("POST /")
		x.Request.Body = []byte(`{}`)
		if p.Rewrite(x) == phase.Stop || string(x.Request.Body) != `{"o":{"x":1}}` {
			t.Errorf("forwarded %s", x.Request.Body)
		}
	}
}

// The texts are those of the contract's JSON parser.
func TestExplain(t *testing.T) {
	for body, want := range map[string]string{
		`not json`:           "Expected value but found invalid token at character 1",
		` {`:                 "Expected object key string but found T_END at character 3",
		`{"a"}`:              "Expected colon but found T_OBJ_END at character 5",
		`{"a":}`:             "Expected value but found T_OBJ_END at character 6",
		`{"a":1,}`:           "Expected object key string but found T_OBJ_END at character 8",
		`{"a":1 "b":2}`:      "Expected comma or object end but found T_STRING at character 8",
		`{1:2}`:              "Expected object key string but found T_NUMBER at character 2",
		`[1 2]`:              "Expected comma or array end but found T_NUMBER at character 4",
		`[1,]`:               "Expected value but found T_ARR_END at character 4",
		`["a`:                "Expected value but found unexpected end of string at character 4",
		`["\x"]`:             "Expected value but found invalid escape code at character 3",
		`["\u00g0"]`:         "Expected value but found invalid unicode escape code at character 3",
		`[-]`:                "Expected value but found invalid number at character 2",
		`[1.5e+3x]`:          "Expected comma or array end but found invalid token at character 8",
		`[1e]`:               "Expected comma or array end but found invalid token at character 3",
		`[true,false,null]]`: "Expected the end but found T_ARR_END at character 18",
		``:                   "Expected value but found T_END at character 1",
		`[NaN]`:              "Expected value but found invalid token at character 2",
		`[01]`:               "invalid character '1' after array element at byte 3", // the contract's parser takes it
	} {
		if _, err := schema.DecodeJSON([]byte(body)); err == nil {
			t.Errorf("%s is JSON", body)
		} else if got := explain([]byte(body), err); got != want {
			t.Errorf("%s\ngot  %s\nwant %s", body, got, want)
		}
	}
	deep := []byte(strings.Repeat("[", 100000))
	if _, err := schema.DecodeJSON(deep); err == nil || explain(deep, err) != err.Error() {
		t.Error("what is nested too deeply is explained")
	}
}

// What is forwarded satisfies the schema in its own form, too.
func FuzzBody(f *testing.F) {
	f.Add(`{"name":"ab","n":2}`, false)
	f.Add(`{"name":"$env://A"}`, false)
	f.Add(`name=ab&n=%31`, true)
	var e phasetest.Env
	p := e.Build(f, Kind(), `{"body_schema":`+person+`}`).(*plugin)
	f.Fuzz(func(t *testing.T, body string, form bool) {
		x := phasetest.Exchange("POST /", asJSON)
		if form {
			x.Request.ContentType = []byte("application/x-www-form-urlencoded")
		}
		x.Request.Body = []byte(body)
		if p.Rewrite(x) == phase.Stop {
			if x.Response.Status != 400 {
				t.Errorf("status %d", x.Response.Status)
			}
			return
		}
		if form {
			if string(x.Request.Body) != body {
				t.Error("a form has changed")
			}
			return
		}
		doc, err := schema.DecodeJSON(x.Request.Body)
		if err != nil || p.body.compiled.ValidateData(doc) != nil {
			t.Errorf("%q is forwarded as %q", body, x.Request.Body)
		}
	})
}

func FuzzExplain(f *testing.F) {
	f.Add(`{"a":[1,-0.5e3,"\u00e9"]}`)
	f.Add(`[--1]`)
	f.Fuzz(func(t *testing.T, body string) {
		s := scanner{text: []byte(body)}
		valid := s.value(s.next(), 0) && s.next().kind == tokenEnd
		if json.Valid([]byte(body)) && !valid && strings.Count(body, "[")+strings.Count(body, "{") < maxDepth {
			t.Errorf("%q is JSON: %s", body, s.complaint)
		}
	})
}

func FuzzConfig(f *testing.F) {
	f.Add(`{"body_schema":{"type":"object","properties":{"a":{"default":1}}},"rejected_code":401}`, `{}`)
	f.Add(`{"header_schema":{"required":["X_A"]},"rejected_msg":"x"}`, `a=b`)
	s := compiled(f)
	f.Fuzz(func(t *testing.T, conf, body string) {
		if complaint(t, s, conf) != "" {
			return
		}
		var e phasetest.Env
		i := phase.Instance{Plugin: e.Build(t, Kind(), conf)}
		x := phasetest.Exchange("POST /", asJSON)
		x.Request.Body = []byte(body)
		phasetest.Run(x, &e, nil, i)
		if x.Stopped() && x.Response.Status < 200 {
			t.Errorf("status %d", x.Response.Status)
		}
	})
}
