package gzip

import (
	"bytes"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"

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

// The texts are those of the contract's recorded answers.
func TestRefusals(t *testing.T) {
	s := compiled(t)
	for _, tt := range []struct{ conf, want string }{
		{`{}`, ""},
		{`{"types":"*","min_length":1,"comp_level":9,"http_version":1.0,"buffers":{"number":1,"size":1},"vary":true}`, ""},
		{`{"comp_level":10}`, `property "comp_level" validation failed: expected 10 to be at most 9`},
		{`{"comp_level":0}`, `property "comp_level" validation failed: expected 0 to be at least 1`},
		{`{"types":[]}`, `property "types" validation failed: object matches none of the required`},
		{`{"types":"text/html"}`, `property "types" validation failed: object matches none of the required`},
		{`{"http_version":2}`, `property "http_version" validation failed: matches none of the enum values`},
		{`{"min_length":0}`, `property "min_length" validation failed: expected 0 to be at least 1`},
		{`{"buffers":{"size":0}}`, `property "buffers" validation failed: property "size" validation failed: expected 0 to be at least 1`},
		{`{"vary":1}`, `property "vary" validation failed: wrong type: expected boolean, got number`},
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
	for _, tt := range []struct{ conf, accept, want string }{
		{`{"vary":true}`, "gzip, deflate, br", "200\nContent-Encoding: gzip\nContent-Type: text/html\nETag: W/\"1\"\nVary: Accept-Encoding\n\n"},
		{`{}`, "br", "200\nContent-Type: text/html\nETag: \"1\"\n\n" + page},
	} {
		var e phasetest.Env
		i := phase.Instance{Plugin: e.Build(t, Kind(), tt.conf)}
		x := phasetest.Exchange("GET /", "Accept-Encoding: "+tt.accept)
		got := phasetest.Run(x, &e, phasetest.Reply(200, page, "Content-Type: text/html", `ETag: "1"`), i)
		if body, compressed := strings.CutPrefix(got, tt.want); compressed && body != "" {
			z, err := gzip.NewReader(strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			if b, err := io.ReadAll(z); err != nil || string(b) != page {
				t.Errorf("%q, %v", b, err)
			}
		} else if !compressed {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
}

// The level is the encoder's, and encoders of different levels are not mixed up.
func TestLevels(t *testing.T) {
	var text strings.Builder
	for random := rand.New(rand.NewPCG(1, 2)); text.Len() < 20000; {
		text.WriteString([]string{"alpha ", "beta ", "gamma ", "alphabet ", "betamax "}[random.IntN(5)])
	}
	k, sizes := Kind(), map[string]int{}
	for range 2 {
		for _, conf := range []string{`{"comp_level":1}`, `{"comp_level":9}`} {
			var e phasetest.Env
			i := phase.Instance{Plugin: e.Build(t, k, conf)}
			x := phasetest.Exchange("GET /", "Accept-Encoding: gzip")
			phasetest.Run(x, &e, phasetest.Reply(200, text.String(), "Content-Type: text/html"), i)
			n := len(x.Response.Body)
			if before, ok := sizes[conf]; ok && before != n {
				t.Errorf("%s: %d bytes, then %d", conf, before, n)
			}
			sizes[conf] = n
		}
	}
	if sizes[`{"comp_level":9}`] >= sizes[`{"comp_level":1}`] {
		t.Errorf("sizes %v", sizes)
	}
}

func FuzzConfig(f *testing.F) {
	f.Add(`{"types":["text/html"],"comp_level":3,"min_length":2e1}`, "text/html")
	f.Add(`{"types":"*","http_version":1,"vary":false}`, "a")
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
		x := phasetest.Exchange("GET /", "Accept-Encoding: gzip")
		phasetest.Run(x, &e, phasetest.Reply(200, page, "Content-Type: "+media), phase.Instance{Plugin: p})
		if bytes.Equal(x.Response.Body, []byte(page)) {
			return
		}
		z, err := gzip.NewReader(bytes.NewReader(x.Response.Body))
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(z); err != nil || string(b) != page {
			t.Error("the body has changed")
		}
	})
}
