package clientcontrol

import (
	"strings"
	"testing"

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
	const size = `property "max_body_size" validation failed: `
	tests := []struct{ conf, want string }{
		{`{}`, ""},
		{`{"max_body_size":0,"unknown":1}`, ""},
		{`{"max_body_size":1e6}`, ""},
		{`{"max_body_size":-1}`, size + `expected -1 to be at least 0`},
		{`{"max_body_size":1.5}`, size + `wrong type: expected integer, got number`},
		{`{"max_body_size":"1"}`, size + `wrong type: expected integer, got string`},
		{`{"max_body_size":1e30}`, size + `the number is too large`},
	}
	for _, tt := range tests {
		if got := refusal(t, s, tt.conf); got != tt.want {
			t.Errorf("%s\ngot  %s\nwant %s", tt.conf, got, tt.want)
		}
	}
}

const (
	passed   = "200\n\nok"
	tooLarge = "413\nContent-Type: text/html; charset=utf-8\n\n<html>\r\n<head><title>413 Request Entity Too Large</title></head>\r\n" +
		"<body>\r\n<center><h1>413 Request Entity Too Large</h1></center>\r\n</body>\r\n</html>\r\n"
)

func visit(t testing.TB, conf, body string) string {
	t.Helper()
	x := phasetest.Exchange("POST /a")
	x.Request.Body = []byte(body)
	i := phase.Instance{Name: "client-control", Plugin: (&phasetest.Env{}).Build(t, Kind(), conf)}
	return phasetest.Run(x, &phasetest.Env{}, phasetest.Reply(200, "ok"), i)
}

func TestAnswers(t *testing.T) {
	tests := []struct{ conf, body, want string }{
		{`{"max_body_size":5}`, "123456", tooLarge},
		{`{"max_body_size":5}`, "12345", passed},
		{`{"max_body_size":5}`, "", passed},
		{`{"max_body_size":5.0e0}`, "123456", tooLarge},
		{`{"max_body_size":0}`, "123456", passed},
		{`{}`, strings.Repeat("a", 1<<20), passed},
	}
	for _, tt := range tests {
		if got := visit(t, tt.conf, tt.body); got != tt.want {
			t.Errorf("%s, %d bytes: %q", tt.conf, len(tt.body), got)
		}
	}
}

func FuzzConfig(f *testing.F) {
	f.Add(`{"max_body_size":5}`, "123456")
	f.Add(`{"max_body_size":9223372036854775807}`, "")
	f.Add(`[]`, "x")
	s := compiled(f)
	f.Fuzz(func(t *testing.T, conf, body string) {
		doc, err := schema.DecodeJSON([]byte(conf))
		if err != nil || s.Validate(doc) != nil || Kind().Validate([]byte(conf)) != nil {
			return
		}
		if got := visit(t, conf, body); got != passed && got != tooLarge {
			t.Errorf("%s: %q", conf, got)
		}
	})
}
