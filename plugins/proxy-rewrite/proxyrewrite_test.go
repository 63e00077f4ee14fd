package proxyrewrite

import (
	"bytes"
	"strings"
	"testing"

	"headgate/conf/resource"
	"headgate/conf/schema"
	"headgate/proxy/phase"
	"headgate/proxy/phase/phasetest"
)

func compiled(t testing.TB) *schema.Schema {
	t.Helper()
	k := Kind()
	s, err := schema.Compile(k.Name, k.Schema, resource.SchemaRefs()...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// The texts are those of the contract's recorded answers.
func TestRefusals(t *testing.T) {
	s := compiled(t)
	tests := []struct{ conf, want string }{
		{`{}`, ""},
		{`{"uri":"/u","regex_uri":["^/a","/r"]}`, ""},
		{`{"headers":{"X-A":"1","X-N":5,"X-Old":""}}`, ""},
		{`{"headers":{"set":{"X-A":["1",2]},"add":{"X-B":"$host"},"remove":["X-C"]}}`, ""},
		{`{"uri":""}`, `property "uri" validation failed: string too short, expected at least 1, got 0`},
		{`{"uri":"a"}`, `property "uri" validation failed: failed to match pattern "^\\/.*" with "a"`},
		{`{"method":"get"}`, `property "method" validation failed: matches none of the enum values`},
		{`{"regex_uri":["^/a"]}`, `property "regex_uri" validation failed: expect array to have at least 2 items`},
		{`{"regex_uri":["^/a","/b","^/c"]}`, `The length of regex_uri should be an even number`},
		{`{"host":"a b"}`, `property "host" validation failed: failed to match pattern "^[0-9a-zA-Z-.]+(:\\d{1,5})?$" with "a b"`},
		{`{"headers":{"a b":"1"}}`, `invalid field character in header`},
		{`{"headers":{"a":"x\ny"}}`, `invalid value character in header`},
		{`{"headers":{}}`, `property "headers" validation failed: value should match only one schema, but matches none`},
		{`{"headers":{"set":{}}}`, `property "headers" validation failed: value should match only one schema, but matches none`},
		{`{"use_real_request_uri_unsafe":1}`, `property "use_real_request_uri_unsafe" validation failed: wrong type: expected boolean, got number`},
	}
	for _, tt := range tests {
		doc, err := schema.DecodeJSON([]byte(tt.conf))
		if err != nil {
			t.Fatal(err)
		}
		if err = s.Validate(doc); err == nil {
			err = Kind().Validate([]byte(tt.conf))
		}
		got := ""
		if err != nil {
			got = err.Error()
		}
		if got != tt.want {
			t.Errorf("%s\ngot  %s\nwant %s", tt.conf, got, tt.want)
		}
	}
}

func TestBuild(t *testing.T) {
	p, err := Kind().Build([]byte(`{"uri":"/n","headers":{"X-A":"$uri"}}`), nil)
	if err != nil {
		t.Fatal(err)
	}
	x := &phase.Exchange{}
	x.Request.Path, x.Request.Query = []byte("/a"), []byte("q=1")
	if v := p.(phase.Rewriter).Rewrite(x); v != phase.Continue {
		t.Errorf("verdict %v", v)
	}
	a, _ := x.Request.Header.Get("X-A")
	if got := string(x.Request.OutTarget); got != "/n?q=1" || string(a) != "/a" {
		t.Errorf("target %s, X-A %s", got, a)
	}
	if _, err := Kind().Build([]byte(`{"regex_uri":["(","/n"]}`), nil); err == nil {
		t.Error("a broken pattern was built")
	}
}

// What passes can be built, and never lets a request end a line of what goes out.
func FuzzConfig(f *testing.F) {
	f.Add(`{"uri":"/v1$uri?x=$arg_x","headers":{"set":{"X-A":"$http_x_own"}}}`, "/a?x=%0d%0ab", "own")
	f.Add(`{"regex_uri":["^/(.*)$","/x/$1","b","c"],"method":"POST"}`, "/a/b%00", "")
	f.Add(`{"host":"a.example:80","headers":{"X-Old":"$arg_y"},"use_real_request_uri_unsafe":true}`, "/?y=1", "a")
	s := compiled(f)
	f.Fuzz(func(t *testing.T, conf, target, own string) {
		if strings.ContainsAny(target+own, "\r\n\x00 ") || !strings.HasPrefix(target, "/") {
			return
		}
		doc, err := schema.DecodeJSON([]byte(conf))
		if err != nil || s.Validate(doc) != nil || Kind().Validate([]byte(conf)) != nil {
			return
		}
		e := &phasetest.Env{}
		p := e.Build(t, Kind(), conf).(phase.Rewriter)
		x := phasetest.Exchange("GET "+target, "X-Own: "+own)
		p.Rewrite(x)
		out := [][]byte{x.Request.OutTarget, x.Request.OutHost, x.Request.OutMethod}
		for _, l := range x.Request.Header.Fields() {
			out = append(out, l.Name, l.Value)
		}
		for _, b := range out {
			if bytes.ContainsAny(b, "\r\n") {
				t.Errorf("%s, %s: %q", conf, target, b)
			}
		}
	})
}
