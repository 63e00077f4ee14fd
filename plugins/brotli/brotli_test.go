package brotli

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"github.com/andybalholm/brotli"

	"headgate/conf/schema"
	"headgate/proxy/phase"
	"headgate/proxy/phase/phasetest"
)

var page = "<html><body>" + strings.Repeat("hello ", 50) + "</body></html>"

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
	for _, tt := range []struct{ conf, want string }{
		{`{}`, ""},
		{`{"types":"*","min_length":1,"mode":2,"comp_level":0,"lgwin":0,"lgblock":24,"http_version":1.0,"vary":true}`, ""},
		{`{"comp_level":12}`, `property "comp_level" validation failed: expected 12 to be at most 11`},
		{`{"mode":3}`, `property "mode" validation failed: expected 3 to be at most 2`},
		{`{"lgwin":9}`, `property "lgwin" validation failed: matches none of the enum values`},
		{`{"lgblock":15}`, `property "lgblock" validation failed: matches none of the enum values`},
		{`{"types":[]}`, `property "types" validation failed: object matches none of the required`},
		{`{"http_version":2}`, `property "http_version" validation failed: matches none of the enum values`},
	} {
		doc, err := schema.DecodeJSON([]byte(tt.conf))
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		if err := s.Validate(doc); err != nil {
			got = err.Error()
		}
		if got != tt.want {
			t.Errorf("%s\ngot  %s\nwant %s", tt.conf, got, tt.want)
		}
	}
}

func TestAnswers(t *testing.T) {
	for _, tt := range []struct {
		conf, accept string
		status       int
		compressed   bool
	}{
		{`{}`, "br", 200, true},
		{`{"comp_level":0,"lgwin":0}`, "br", 200, true},
		{`{"comp_level":11,"lgwin":24}`, "br", 200, true},
		{`{"comp_level":3,"lgwin":10,"mode":1}`, "*", 500, true},
		{`{}`, "br", 206, false},
		{`{}`, "gzip", 200, false},
		{`{}`, "br;q=0", 200, false},
	} {
		var e phasetest.Env
		i := phase.Instance{Plugin: e.Build(t, Kind(), tt.conf)}
		x := phasetest.Exchange("GET /", "Accept-Encoding: "+tt.accept)
		phasetest.Run(x, &e, phasetest.Reply(tt.status, page, "Content-Type: text/html"), i)
		encoding, compressed := x.Response.Header.Get("Content-Encoding")
		if compressed != tt.compressed || compressed && string(encoding) != "br" {
			t.Errorf("%+v: Content-Encoding %q", tt, encoding)
		}
		if got := plain(t, x); got != page {
			t.Errorf("%+v: body %q", tt, got)
		}
	}
}

// plain is the body as the client understands it.
func plain(t testing.TB, x *phase.Exchange) string {
	t.Helper()
	var from io.Reader = bytes.NewReader(x.Response.Body)
	if _, compressed := x.Response.Header.Get("Content-Encoding"); compressed {
		from = brotli.NewReader(from)
	}
	b, err := io.ReadAll(from)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func FuzzConfig(f *testing.F) {
	f.Add(`{"types":["text/html"],"comp_level":3,"lgwin":11}`, "text/html")
	f.Add(`{"types":"*","http_version":1,"vary":false,"comp_level":1e1}`, "a")
	s := compiled(f)
	f.Fuzz(func(t *testing.T, conf, media string) {
		doc, err := schema.DecodeJSON([]byte(conf))
		if err != nil || s.Validate(doc) != nil {
			return
		}
		var e phasetest.Env
		p, err := Kind().Build([]byte(conf), &e)
		if err != nil {
			t.Fatal(err) // the schema says it all
		}
		x := phasetest.Exchange("GET /", "Accept-Encoding: br")
		phasetest.Run(x, &e, phasetest.Reply(200, page, "Content-Type: "+media), phase.Instance{Plugin: p})
		if plain(t, x) != page {
			t.Error("the body has changed")
		}
	})
}
