package redirect

import (
	"strings"
	"testing"

	"headgate/conf/schema"
	"headgate/proxy/phase"
	"headgate/proxy/phase/phasetest"
	"headgate/proxy/phase/rewrite"
	"headgate/proxy/phase/wire"
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
	const one = `value should match only one schema, but matches `
	tests := []struct{ conf, want string }{
		{`{"uri":"/a"}`, ""},
		{`{"uri":"/a","ret_code":308,"encode_uri":true,"append_query_string":true,"unknown":1}`, ""},
		{`{"regex_uri":["^/a(?=b)","/${1}$$"]}`, ""},
		{`{"http_to_https":false}`, ""},
		{`{"http_to_https":false,"append_query_string":true}`, ""},
		{`{}`, one + `none`},
		{`{"uri":"/a","regex_uri":["a","b"]}`, one + `both schemas 1 and 2`},
		{`{"uri":"/a","http_to_https":true}`, one + `both schemas 1 and 3`},
		{`{"uri":""}`, `property "uri" validation failed: string too short, expected at least 2, got 0`},
		{`{"uri":"/a","ret_code":199}`, `property "ret_code" validation failed: expected 199 to be at least 200`},
		{`{"uri":"/a","ret_code":1000}`, `property "ret_code" validation failed: expected 1000 to be at most 999`},
		{`{"regex_uri":["a"]}`, `property "regex_uri" validation failed: expect array to have at least 2 items`},
		{`{"regex_uri":["a","b","c"]}`, `property "regex_uri" validation failed: expect array to have at most 2 items`},
		{`{"regex_uri":["(","/a"]}`, `invalid regex_uri ((, /a), err:error parsing regexp: ...`},
		{`{"regex_uri":["a","/$x"]}`, `invalid regex_uri (a, /$x), err:invalid capturing variable in the replacement`},
		{`{"regex_uri":["a","/${1"]}`, `invalid regex_uri (a, /${1), err:invalid capturing variable in the replacement`},
		{`{"http_to_https":true,"append_query_string":true}`,
			"only one of `http_to_https` and `append_query_string` can be configured."},
	}
	for _, tt := range tests {
		got := refusal(t, s, tt.conf)
		if begin, ok := strings.CutSuffix(tt.want, "..."); ok && strings.HasPrefix(got, begin) { // the rest is the engine's
			continue
		}
		if got != tt.want {
			t.Errorf("%s\ngot  %s\nwant %s", tt.conf, got, tt.want)
		}
	}
}

func instance(t testing.TB, conf string) phase.Instance {
	t.Helper()
	return phase.Instance{Name: "redirect", Plugin: (&phasetest.Env{}).Build(t, Kind(), conf)}
}

// page is the answer with a page.
func page(status, title, kind, location string) string {
	return status + "\nContent-Type: " + kind + "\nLocation: " + location + "\n\n<html>\r\n<head><title>" + status + " " + title +
		"</title></head>\r\n<body>\r\n<center><h1>" + status + " " + title + "</h1></center>\r\n</body>\r\n</html>\r\n"
}

func found(location string) string { return page("302", "Found", "text/html", location) }

const passed = "200\n\nok"

func TestURI(t *testing.T) {
	tests := []struct{ conf, request, want string }{
		{`{"uri":"/new"}`, "GET /a?x=1", found("/new")},
		{`{"uri":"/n$uri?u=$arg_u&h=${host}"}`, "GET /a?u=1", found("/n/a?u=1&h=gateway.test")},
		{`{"uri":"/n$$uri/\\$uri/$none/${host ?? x}/$"}`, "GET /a", found("/n$/a/$uri//gateway.test/$")},
		{`{"uri":"/x","ret_code":308}`, "GET /a", page("308", "Permanent Redirect", "text/html; charset=utf-8", "/x")},
		{`{"uri":"/x","ret_code":301}`, "POST /a", page("301", "Moved Permanently", "text/html", "/x")},
		{`{"uri":"/x","ret_code":599}`, "POST /a", "599\nLocation: /x\n\n"},

		{`{"uri":"/new","append_query_string":true}`, "GET /a?x=1&y=%20", found("/new?x=1&y=%20")},
		{`{"uri":"/new?a=b","append_query_string":true}`, "GET /a?x=1", found("/new?a=b&x=1")},
		{`{"uri":"/new?a=b","append_query_string":true}`, "GET /a", found("/new?a=b")},
		{`{"uri":"/n$uri","encode_uri":true}`, "GET /a b/中", found("/n/a%20b/%E4%B8%AD")},
		{`{"uri":"/n$uri?q=$arg_q","encode_uri":true,"append_query_string":true}`, "GET /a b?q=1%202", found("/n/a%20b?q=1 2&q=1%202")},
		{`{"uri":"/n$uri"}`, "GET /a b", found("/n/a b")},
		{`{"uri":"https://o.test:8443$uri","encode_uri":true}`, "GET /a", found("https://o.test:8443/a")},

		{`{"uri":"/n?q=$arg_q"}`, "GET /a?q=1%0d%0aSet-Cookie:%20a=b%7f", found("/n?q=1%0D%0ASet-Cookie: a=b%7F")},
		{`{"uri":"/n?q=$arg_q","encode_uri":true}`, "GET /a?q=%0a", found("/n?q=%0A")},
		{`{"uri":"$uri"}`, "GET /\\evil.test", found("/%5Cevil.test")},
	}
	for _, tt := range tests {
		if got := phasetest.Run(phasetest.Exchange(tt.request), &phasetest.Env{}, phasetest.Reply(200, "ok"), instance(t, tt.conf)); got != tt.want {
			t.Errorf("%s, %s\ngot  %q\nwant %q", tt.conf, tt.request, got, tt.want)
		}
	}
}

func TestRegexURI(t *testing.T) {
	tests := []struct{ pattern, replacement, path, want string }{
		{`^/a/(.*)/(.*)`, `/b/$2/$1`, "/a/1/2?q=1", found("/b/2/1")},
		{`^/a/(.*)/(.*)`, `/b/$2/$1`, "/zzz", passed},
		{`^/a/(.*)`, `/b/$1x$$${1}`, "/a/1", found("/b/1x$1")},
		{`a+`, `<$0>`, "/xaay/a", found("/x<aa>y/a")},
		{`^/(a)?b`, `/[$1$2]`, "/b", found("/[]")},
		{`^/a(?=/b)`, `/c`, "/a/b", found("/c/b")},
		{`^/a(?=/b)`, `/c`, "/a/c", passed},
		{`/(.)\1`, `/[$1]`, "/x/yy/z", found("/x/[y]/z")},
		{`(.)\1`, `<$1>`, "/ééé中中", found("/<é>é中中")},
		{`^/(.*)$`, `$1`, "/\\evil.test", found("%5Cevil.test")},
	}
	for _, tt := range tests {
		p, err := rewrite.NewSubstitution(tt.pattern, tt.replacement)
		if err != nil {
			t.Errorf("%s: %v", tt.pattern, err)
			continue
		}
		i := phase.Instance{Name: "redirect", Plugin: &plugin{status: 302, regex: p}}
		if got := phasetest.Run(phasetest.Exchange("GET "+tt.path), &phasetest.Env{}, phasetest.Reply(200, "ok"), i); got != tt.want {
			t.Errorf("%s %s, %s\ngot  %q\nwant %q", tt.pattern, tt.replacement, tt.path, got, tt.want)
		}
	}
	i := instance(t, `{"regex_uri":["^/a b/(.*)","/n n/$1"],"encode_uri":true,"append_query_string":true,"ret_code":307}`)
	want := page("307", "Temporary Redirect", "text/html; charset=utf-8", "/n%20n/c?d=1")
	if got := phasetest.Run(phasetest.Exchange("GET /a b/c?d=1"), &phasetest.Env{}, phasetest.Reply(200, "ok"), i); got != want {
		t.Errorf("got %q", got)
	}
}

// A match that takes too long is an answer, neither a hang nor a way around the redirect.
func TestSlowPattern(t *testing.T) {
	i := instance(t, `{"regex_uri":["^/(?=a)(a+)+$","/"]}`)
	got := phasetest.Run(phasetest.Exchange("GET /"+strings.Repeat("a", 64)+"!"), &phasetest.Env{}, phasetest.Reply(200, "ok"), i)
	if !strings.HasPrefix(got, "500\nContent-Type: text/html; charset=utf-8\n\n") {
		t.Errorf("got %q", got)
	}
}

func TestHTTPToHTTPS(t *testing.T) {
	moved := func(location string) string { return page("301", "Moved Permanently", "text/html", location) }
	permanent := page("308", "Permanent Redirect", "text/html; charset=utf-8", "https://gateway.test/a")
	tests := []struct {
		request string
		lines   []string
		tls     bool
		want    string
	}{
		{"GET /a?x=1", nil, false, moved("https://gateway.test/a?x=1")},
		{"HEAD /a", nil, false, moved("https://gateway.test/a")},
		{"POST /a", nil, false, permanent},
		{"DELETE /a", nil, false, permanent},
		{"GET /a", []string{"Host: H.test:8080"}, false, moved("https://h.test/a")},
		{"GET /a", nil, true, passed},
		{"GET /a", []string{"X-Forwarded-Proto: https"}, false, passed},
		{"GET /a", []string{"X-Forwarded-Proto: http"}, true, moved("https://gateway.test/a")},
		{"GET /a\r\nx", nil, false, moved("https://gateway.test/a%0D%0Ax")},
	}
	i := instance(t, `{"http_to_https":true,"ret_code":307}`)
	for _, tt := range tests {
		x := phasetest.Exchange(tt.request, tt.lines...)
		x.Request.TLS = tt.tls
		if got := phasetest.Run(x, &phasetest.Env{}, phasetest.Reply(200, "ok"), i); got != tt.want {
			t.Errorf("%s %q\ngot  %q\nwant %q", tt.request, tt.lines, got, tt.want)
		}
	}
	for port, want := range map[uint16]string{9443: "https://gateway.test:9443/a?x=1", 443: "https://gateway.test/a?x=1"} {
		x := phasetest.Exchange("GET /a?x=1")
		x.Begin(&phase.Settings{HTTPSPort: port})
		if got := phasetest.Run(x, &phasetest.Env{}, phasetest.Reply(200, "ok"), i); got != moved(want) {
			t.Errorf("port %d: %q", port, got)
		}
	}
	off := instance(t, `{"http_to_https":false}`)
	if got := phasetest.Run(phasetest.Exchange("GET /a"), &phasetest.Env{}, phasetest.Reply(200, "ok"), off); got != passed {
		t.Errorf("switched off: %q", got)
	}
}

func FuzzConfig(f *testing.F) {
	f.Add(`{"uri":"/n$uri?q=$arg_q","encode_uri":true,"append_query_string":true}`, "/a b", "q=%0d%0a")
	f.Add(`{"regex_uri":["^/(.*)","//$1$$"]}`, "/a\n", "")
	f.Add(`{"regex_uri":["(.)\\1","${1}0"],"ret_code":999}`, "/aa", "x")
	f.Add(`{"http_to_https":true}`, "/", "?")
	s := compiled(f)
	f.Fuzz(func(t *testing.T, conf, path, query string) {
		doc, err := schema.DecodeJSON([]byte(conf))
		if err != nil || s.Validate(doc) != nil || Kind().Validate([]byte(conf)) != nil || !wire.ValidValue([]byte(query)) {
			return
		}
		x := phasetest.Exchange("GET /")
		x.Request.Path, x.Request.Query = []byte(path), []byte(query)
		got := phasetest.Run(x, &phasetest.Env{}, phasetest.Reply(200, "ok"), instance(t, conf))
		if location, ok := x.Response.Header.Get("Location"); ok && !harmless(location) {
			t.Errorf("%s, %q: %q", conf, path, got)
		}
	})
}

func BenchmarkRewrite(b *testing.B) {
	for name, conf := range map[string]string{
		"passes": `{"regex_uri":["^/none/(.*)/(.*)","/b/$2/$1"]}`, "template": `{"uri":"/n$uri"}`, "https": `{"http_to_https":true}`,
	} {
		b.Run(name, func(b *testing.B) {
			round := rounds(b, conf)
			b.ReportAllocs()
			for b.Loop() {
				round()
			}
		})
	}
}

// rounds makes a request that looks the same every time, in the memory of the one before.
func rounds(t testing.TB, conf string) func() {
	p := instance(t, conf).Plugin.(phase.Rewriter)
	x := phasetest.Exchange("GET /a/b?c=d")
	settings, q := x.Settings(), x.Request
	return func() {
		x.Reset()
		x.Begin(settings)
		x.Request.Method, x.Request.Path, x.Request.Query, x.Request.Host = q.Method, q.Path, q.Query, q.Host
		p.Rewrite(x)
	}
}
