package mocking

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"headgate/conf/schema"
	"headgate/proxy/phase"
	"headgate/proxy/phase/phasetest"
)

// refusal returns the text that a write is refused with, "" when it isn't.
func refusal(t testing.TB, s *schema.Schema, conf string) string {
	t.Helper()
	doc, err := schema.DecodeJSON([]byte(conf))
	if err != nil {
		t.Fatalf("%s: %v", conf, err)
	}
	if err = s.Validate(doc); err == nil {
		err = Kind().Validate([]byte(conf))
	}
	if err != nil {
		return err.Error()
	}
	return ""
}

func compiled(t testing.TB) *schema.Schema {
	t.Helper()
	s, err := schema.Compile(Kind().Name, Kind().Schema)
	if err != nil {
		t.Fatal(err)
	}
	return s
}
func TestRefusals(t *testing.T) {
	s := compiled(t)
	tests := []struct{ conf, want string }{
		{`{"response_example":""}`, ""},
		{`{"response_schema":{},"content_type":"text/xml","delay":-1,"response_headers":{"X-A":"$uri","X-N":1},"unknown":1}`, ""},
		{`{"response_example":"x","content_type":"text/html; charset=utf-8"}`, ""},
		{`{}`, `object matches none of the required: ["response_example"] or ["response_schema"]`},
		{`{"response_example":"x","content_type":"image/png"}`, `unsupported content type!`},
		{`{"response_example":"x","content_type":""}`, `unsupported content type!`},
		{`{"response_example":"x","content_type":"text/plain;a;b"}`, `unsupported content type!`},
		{`{"response_example":"x","content_type":"text/plain;\r\nX: y"}`, `unsupported content type!`},
		{`{"response_example":"x","response_status":99}`, `property "response_status" validation failed: expected 99 to be at least 100`},
		{`{"response_example":"x","response_status":101}`, errInterim.Error()},
		{`{"response_example":"x","delay":0.5}`, `property "delay" validation failed: wrong type: expected integer, got number`},
		{`{"response_schema":"x"}`, `property "response_schema" validation failed: wrong type: expected object, got string`},
		{`{"response_example":"x","response_headers":{}}`, `property "response_headers" validation failed: expect object to have at least 1 properties`},
		{`{"response_example":"x","response_headers":{"a b":"c"}}`, `invalid character in header`},
	}
	for _, tt := range tests {
		if got := refusal(t, s, tt.conf); got != tt.want {
			t.Errorf("%s\ngot  %s\nwant %s", tt.conf, got, tt.want)
		}
	}
}

func visit(t testing.TB, conf, request string) string {
	t.Helper()
	i := phase.Instance{Name: "mocking", Plugin: (&phasetest.Env{}).Build(t, Kind(), conf)}
	return phasetest.Run(phasetest.Exchange(request), &phasetest.Env{}, phasetest.Reply(599, "the upstream"), i)
}

func TestAnswers(t *testing.T) {
	const by = "\nx-mock-by: APISIX/3.18.0\n\n"
	const standard = "200\nContent-Type: application/json;charset=utf8" + by
	tests := []struct{ conf, want string }{
		{`{"response_example":"hello"}`, standard + "hello"},
		{`{"response_example":"{\"a\":1}","content_type":"application/json","response_status":201}`, "201\nContent-Type: application/json" + by + `{"a":1}`},
		{`{"response_example":"hello","with_mock_header":false}`, "200\nContent-Type: application/json;charset=utf8\n\nhello"},
		{`{"response_example":"$uri on ${host}, ${none}\\$","content_type":"text/plain"}`,
			"200\nContent-Type: text/plain; charset=utf-8" + by + "/a on gateway.test, $"},
		{`{"response_example":"x","content_type":"text/html;charset=latin1"}`, "200\nContent-Type: text/html;charset=latin1" + by + "x"},
		{`{"response_example":"x","content_type":"application/xml"}`, "200\nContent-Type: application/xml" + by + "x"},
		{`{"response_example":"x","response_schema":{"properties":{"f":{"type":"string"}}}}`, standard + "x"},
		{`{"response_example":"x","with_mock_header":false,"response_headers":{"X-N":1.50,"X-A":"<$arg_a>","Connection":"close"}}`,
			"200\nContent-Type: application/json;charset=utf8\nX-A: <%0D%0AX-B: c>\nX-N: 1.5\n\nx"},
	}
	for _, tt := range tests {
		if got := visit(t, tt.conf, "POST /a?a=%0d%0aX-B:%20c"); got != tt.want {
			t.Errorf("%s\ngot  %q\nwant %q", tt.conf, got, tt.want)
		}
	}
}

// body returns what is made up from a schema.
func body(t testing.TB, contentType, schema string) string {
	t.Helper()
	got := visit(t, `{"response_schema":`+schema+`,"content_type":"`+contentType+`","with_mock_header":false}`, "GET /a?q=v")
	_, body, _ := strings.Cut(got, "\n\n")
	return body
}

func TestSchemaJSON(t *testing.T) {
	tests := []struct{ schema, want string }{
		{`{}`, `\{\}`},
		{`{"type":"object","properties":{}}`, `\{\}`},
		{`{"properties":{"z":{"type":"string","example":"a\"b</"},"a":{"type":"INTEGER","example":7.9}}}`, `\{"a":7,"z":"a\\"b</"\}`},
		{`{"properties":{"n":{"type":"number","example":0.10},"b":{"type":"boolean","example":false}}}`, `\{"b":false,"n":0.1\}`},
		{`{"properties":{"v":{"type":"string","example":"$arg_q-${uri}"}}}`, `\{"v":"v-/a"\}`},
		{`{"properties":{"s":{"type":"string"},"i":{"type":"integer"},"b":{"type":"boolean"}}}`,
			`\{"b":(true|false),"i":[1-9][0-9]{0,4},"s":"[a-z]{1,10}"\}`},
		{`{"properties":{"s":{"type":"string","example":1},"i":{"type":"integer","example":"1"}}}`, `\{"i":[1-9][0-9]{0,4},"s":"[a-z]{1,10}"\}`},
		{`{"properties":{"n":{"type":"number"}}}`, `\{"n":[0-9]+(\.[0-9]+)?(e-[0-9]+)?\}`},
		{`{"properties":{"l":{"type":"array","items":{"type":"string","example":"x"}}}}`, `\{"l":\["x"(,"x"){0,2}\]\}`},
		{`{"properties":{"o":{"type":"object","properties":{"p":{"type":"integer","example":1}}}}}`, `\{"o":\{"p":1\}\}`},
		{`{"properties":{"u":{"type":"null"},"v":{},"w":1,"l":{"type":"array"}}}`, `\{\}`},
	}
	for _, tt := range tests {
		pattern := regexp.MustCompile("^" + tt.want + "$")
		for range 20 {
			got := body(t, "application/json", tt.schema)
			if !pattern.MatchString(got) || !json.Valid([]byte(got)) {
				t.Errorf("%s\ngot  %s\nwant %s", tt.schema, got, tt.want)
			}
		}
	}
}

func TestSchemaXML(t *testing.T) {
	tests := []struct{ schema, want string }{
		{`{"type":"object","properties":{"f":{"type":"string","example":"abc"}}}`, `<data>abc</data>`},
		{`{}`, `<data/>`},
		{`{"properties":{"f":{"type":"string","example":""}}}`, `<data/>`},
		{`{"properties":{"b":{"type":"integer","example":1},"a":{"type":"string","example":"<&>"}}}`,
			"<data>\n  <a>&lt;&amp;&gt;</a>\n  <b>1</b>\n</data>"},
		{`{"properties":{"o":{"type":"object","properties":{"p":{"type":"boolean","example":true},"q":{"type":"object"}}},"z":{"type":"number","example":1.5}}}`,
			"<data>\n  <o>\n    <p>true</p>\n    <q/>\n  </o>\n  <z>1.5</z>\n</data>"},
		{`{"properties":{"a b":{"type":"integer","example":1},"c":{"type":"integer","example":2}}}`, "<data>\n  <_>1</_>\n  <c>2</c>\n</data>"},
	}
	for _, tt := range tests {
		if got := body(t, "text/xml", tt.schema); got != tt.want {
			t.Errorf("%s\ngot  %s\nwant %s", tt.schema, got, tt.want)
		}
	}
	list := regexp.MustCompile("^(<data>x</data>\n){0,2}<data>x</data>$")
	for range 20 {
		if got := body(t, "application/xml", `{"properties":{"l":{"type":"array","items":{"type":"string","example":"x"}}}}`); !list.MatchString(got) {
			t.Errorf("got %s", got)
		}
	}
	if got := body(t, "text/html", `{"properties":{"f":{"type":"string","example":"abc"}}}`); got != "" {
		t.Errorf("HTML cannot be made up: %s", got)
	}
}

// Arrays in arrays multiply; the size of an answer must not.
func TestSizeIsBounded(t *testing.T) {
	nested := `{"type":"string","example":"` + strings.Repeat("x", 50) + `"}`
	for range 20 {
		nested = `{"type":"array","items":` + nested + `}`
	}
	for _, contentType := range []string{"application/json", "text/xml"} {
		if n := len(body(t, contentType, `{"properties":{"l":`+nested+`}}`)); n > 2*maxMade {
			t.Errorf("%s: %d bytes", contentType, n)
		}
	}
}

// The clock is that of the bubble: it stands still but for the sleep.
func TestDelay(t *testing.T) {
	for conf, want := range map[string]time.Duration{
		`{"response_example":"x","delay":3}`:    3 * time.Second,
		`{"response_example":"x","delay":1e15}`: time.Hour,
		`{"response_example":"x","delay":-1}`:   0,
	} {
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			if got := visit(t, conf, "GET /"); !strings.HasSuffix(got, "\nx") || time.Since(start) != want {
				t.Errorf("%s: %q after %v", conf, got, time.Since(start))
			}
		})
	}
}

func FuzzConfig(f *testing.F) {
	f.Add(`{"response_example":"$uri","response_headers":{"X-A":"$arg_a"}}`, "a=%0a")
	f.Add(`{"response_schema":{"properties":{"a":{"type":"array","items":{"type":"object","properties":{"<":{"type":"string"}}}}}}}`, "")
	f.Add(`{"response_schema":{"properties":{"a":{"type":"number","example":1e300}}},"content_type":"text/xml"}`, "")
	s := compiled(f)
	f.Fuzz(func(t *testing.T, conf, query string) {
		doc, err := schema.DecodeJSON([]byte(conf))
		if err != nil || s.Validate(doc) != nil || Kind().Validate([]byte(conf)) != nil {
			return
		}
		c, err := read([]byte(conf))
		if err != nil || c.Delay > 0 {
			return
		}
		p := (&phasetest.Env{}).Build(t, Kind(), conf).(*plugin)
		x := phasetest.Exchange("GET /?" + query)
		p.Access(x)
		for _, l := range x.Response.Header.Fields() {
			if strings.ContainsAny(string(l.Name)+string(l.Value), "\r\n\x00") {
				t.Errorf("%s: %q", conf, phasetest.Answer(x))
			}
		}
		if strings.Contains(conf, "$") || p.made == nil { // what the operator and the client write may be anything
			return
		}
		made := x.Response.Body
		if p.format == formatJSON && !json.Valid(made) {
			t.Errorf("%s: %q", conf, made)
		}
	})
}

// What is made up must be readable.
func TestXMLIsWellFormed(t *testing.T) {
	const schema = `{"properties":{"a&b":{"type":"string","example":"]]>&"},"1":{"type":"integer"},"l":{"type":"array","items":{"type":"object",` +
		`"properties":{"x":{"type":"number"},"-":{"type":"boolean"}}}}}}`
	for range 20 {
		got := body(t, "text/xml", schema)
		d := xml.NewDecoder(strings.NewReader(got))
		for {
			if _, err := d.Token(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("%v:\n%s", err, got)
			}
		}
	}
}
