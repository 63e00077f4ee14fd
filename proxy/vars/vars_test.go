package vars

import (
	"strings"
	"testing"
)

// fields is a request for tests: the values by family and name. lend returns them as borrowed memory instead of appending.
type fields struct {
	values map[string]string
	groups []string
	lend   bool
}

func (f *fields) get(family, name string, dst []byte) ([]byte, bool) {
	v, ok := f.values[family+name]
	switch {
	case !ok:
		return nil, false
	case f.lend:
		return []byte(v), true
	default:
		return append(dst, v...), true
	}
}

func (f *fields) Var(id ID, dst []byte) ([]byte, bool)        { return f.get("", id.String(), dst) }
func (f *fields) Header(n string, dst []byte) ([]byte, bool)  { return f.get("header ", n, dst) }
func (f *fields) Arg(n string, dst []byte) ([]byte, bool)     { return f.get("arg ", n, dst) }
func (f *fields) Cookie(n string, dst []byte) ([]byte, bool)  { return f.get("cookie ", n, dst) }
func (f *fields) Param(n string, dst []byte) ([]byte, bool)   { return f.get("param ", n, dst) }
func (f *fields) PostArg(n string, dst []byte) ([]byte, bool) { return f.get("post ", n, dst) }
func (f *fields) ResponseHeader(n string, dst []byte) ([]byte, bool) {
	return f.get("response ", n, dst)
}

// captured is a fields with groups.
type captured struct{ fields }

func (c *captured) Capture(i int) []byte {
	if i >= len(c.groups) {
		return nil
	}
	return []byte(c.groups[i])
}

var request = map[string]string{
	"uri": "/a", "request_uri": "/a?x=1", "args": "x=1", "host": "h.test", "request_method": "GET", "request_id": "r1",
	"http_host": "h.test:80", "status": "200", "is_args": "", "branch": "canary",
	"header x_api": "1", "header host_x": "hx", "arg K": "v", "arg a.b": "dotted", "cookie sid": "z", "param id": "7",
	"post _k": "form", "post .a.b": "json", "header cookie": "sid=z", "response x_up": "u", "arg empty": "",
}

func TestParse(t *testing.T) {
	for _, c := range []struct{ name, want string }{
		{"uri", "/a"},
		{"args", "x=1"},
		{"query_string", "x=1"},
		{"request_method", "GET"},
		{"method", "GET"},
		{"apisix_request_id", "r1"},
		{"branch", "canary"},
		{"http_host", "h.test:80"},
		{"http_x_api", "1"},
		{"http_X-API", "1"},
		{"http_host_x", "hx"},
		{"arg_K", "v"},
		{"arg_a.b", "dotted"},
		{"arg_empty", ""},
		{"cookie_sid", "z"},
		{"uri_param_id", "7"},
		{"post_arg_k", "form"},
		{"post_arg.a.b", "json"},
		{"cookie", "sid=z"},
		{"document_uri", "/a"},
		{"sent_http_x_up", "u"},
		{"upstream_http_X-Up", "u"},
	} {
		v, ok := Parse(c.name)
		if !ok || v.Name() != c.name {
			t.Errorf("Parse(%q) = %q, %v", c.name, v.Name(), ok)
		}
		for _, lend := range []bool{false, true} {
			got, ok := v.Append([]byte("<"), &fields{values: request, lend: lend})
			if string(got) != "<"+c.want || !ok {
				t.Errorf("%s = %q, %v, want %q (lend %v)", c.name, got, ok, "<"+c.want, lend)
			}
		}
	}
}

// Names of the contract's that have no value here are known all the same.
func TestParseInert(t *testing.T) {
	for _, name := range []string{"connection", "rate_limiting_info", "ssl_client_s_dn", "llm_model", "request_llm_model", "upstream_unresolved_host"} {
		v, ok := Parse(name)
		if got, has := v.Append([]byte("<"), &fields{values: request}); !ok || has || string(got) != "<" || v.Name() != name || v.ID() != 0 {
			t.Errorf("Parse(%q): ok %v, value %q %v", name, ok, got, has)
		}
	}
}

func TestPostArgName(t *testing.T) {
	for name, want := range map[string]string{"post_arg_k": "_k", "post_arg.a[*].b": ".a[*].b", "arg_k": "", "uri": "", "nope": ""} {
		if v, _ := Parse(name); v.PostArg() != want {
			t.Errorf("%s: %q, want %q", name, v.PostArg(), want)
		}
	}
}

func TestParseUnknown(t *testing.T) {
	for _, name := range []string{"", "nope", "URI", "arg_", "http_", "cookie_", "post_arg", "post_arg.", "post_arg_", "post_argx", "ssl_", "llm_", "uri_param_", "uri.html", "1"} {
		v, ok := Parse(name)
		got, has := v.Append([]byte("<"), &fields{values: request})
		if ok || has || string(got) != "<" || v.Name() != name {
			t.Errorf("Parse(%q): ok %v, name %q, value %q %v", name, ok, v.Name(), got, has)
		}
	}
}

// Names differ in case where the wire's do.
func TestAbsent(t *testing.T) {
	for _, name := range []string{"arg_k", "cookie_SID", "remote_addr", "sent_http_x_api", "http_x_up"} {
		v, ok := Parse(name)
		got, has := v.Append([]byte("<"), &fields{values: request})
		if !ok || has || string(got) != "<" {
			t.Errorf("%s = %q, %v; parsed %v", name, got, has, ok)
		}
	}
}

func TestIDNames(t *testing.T) {
	seen := map[string]ID{}
	for id := ID(1); id < idCount; id++ {
		name := id.String()
		if other, dup := seen[name]; name == "" || dup {
			t.Errorf("ID %d: name %q, as ID %d", id, name, other)
		}
		seen[name] = id
		if v, ok := Parse(name); !ok || v.id != id || v.kind != kindFixed {
			t.Errorf("Parse(%q) is not ID %d", name, id)
		}
	}
	if ID(0).String() != "" || idCount.String() != "" {
		t.Error("an ID that is none has a name")
	}
}

func TestTemplate(t *testing.T) {
	src := &captured{fields{values: request, groups: []string{"whole", "one", "two", ""}}}
	long := strings.Repeat("x", 300)
	for _, c := range []struct {
		text, want string
		resolved   int
	}{
		{"", "", 0},
		{"xx", "xx", 0},
		{"$uri", "/a", 1},
		{"$uri run", "/a run", 1},
		{"talk with $uri", "talk with /a", 1},
		{"${uri}_${host}", "/a_h.test", 2},
		{"${uri}$host", "/ah.test", 2},
		{"$nope and $uri", " and /a", 1},
		{"/u/$arg_id/$http_x_v", "/u//", 0},
		{"/n$arg_none", "/n", 0},
		{"c$arg_K", "cv", 1},
		{"$http_x_api-$arg_K", "1-v", 2},
		{"/n$uri?u=$arg_u&h=${host}", "/n/a?u=&h=h.test", 2},
		{"$arg_empty", "", 1},
		// braces
		{"${ uri }", "/a", 1},
		{"${http_x-api}", "1", 1},
		{"${nope}", "", 0},
		{"${uri", "${uri", 0},
		{"${}", "${}", 0},
		{"${ }$uri", "${ }/a", 1},
		{"{$uri}", "{/a}", 1},
		// defaults
		{"${http_x_count ?? 1}", "1", 1},
		{"${http_x_api ?? 9}", "1", 1},
		{"${http_x_count??1}", "1", 1},
		{"${arg_empty ?? full}", "", 1},
		{"${nope ?? a b }", "a b", 1},
		{"${nope ??}", "", 1},
		{"${nope ?? a ?? b}", "a", 1},
		{"$nope ?? 1", " ?? 1", 0},
		// escapes and dollars for themselves
		{`and \$uri`, "and $uri", 0},
		{`\${uri}$uri`, "${uri}/a", 1},
		{`\$$uri`, "$/a", 1},
		{`a\b\\c`, `a\b\\c`, 0},
		{"$", "$", 0},
		{"$$", "$$", 0},
		{"$-", "$-", 0},
		{"5$ $uri", "5$ /a", 1},
		{"$$uri", "$/a", 1},
		// where a name ends
		{"$uri.html", "/a.html", 1},
		{"https://$host.example.com$uri/", "https://h.test.example.com/a/", 2},
		{"$arg_a.b", "dotted", 1},
		{"$post_arg.a.b", "json", 1},
		{"${post_arg.a.b}.x", "json.x", 1},
		{"$nope.html", "", 0},
		{"$host-x", "h.test-x", 1},
		{"$uriü", "/aü", 1},
		// groups
		{"/b/$2/$1", "/b/two/one", 2},
		{"$1-x", "one-x", 1},
		{"$1abc$2", "oneabctwo", 2},
		{"${1}0", "one0", 1},
		{"$10|$9|$3|$0", "|||whole", 2},
		{"${9 ?? none}", "none", 1},
		{"$99999999999999999999", "", 0},
		{long + "$uri", long + "/a", 1},
	} {
		tpl, err := Compile(c.text)
		if err != nil {
			t.Fatalf("Compile(%q): %v", c.text, err)
		}
		for _, lend := range []bool{false, true} {
			src.lend = lend
			got, resolved := tpl.Append([]byte("<"), src)
			if string(got) != "<"+c.want || resolved != c.resolved {
				t.Errorf("%q -> %q, %d; want %q, %d (lend %v)", c.text, got, resolved, "<"+c.want, c.resolved, lend)
			}
		}
	}
}

// A source without Captures has no groups.
func TestTemplateNoCaptures(t *testing.T) {
	tpl, err := Compile("[$1${2 ?? d}]")
	if err != nil {
		t.Fatal(err)
	}
	if got, resolved := tpl.Append(nil, &fields{}); string(got) != "[d]" || resolved != 1 {
		t.Errorf("got %q, %d", got, resolved)
	}
}

func TestStatic(t *testing.T) {
	for _, c := range []struct {
		text, want string
		static     bool
	}{
		{"", "", true},
		{"abc", "abc", true},
		{`5\$`, "5$", true},
		{"a$-b${", "a$-b${", true},
		{"$uri", "", false},
		{"a$nope", "", false},
		{"$1", "", false},
	} {
		tpl, err := Compile(c.text)
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := tpl.Static(); got != c.want || ok != c.static {
			t.Errorf("%q: Static() = %q, %v", c.text, got, ok)
		}
	}
}

func TestTemplateTooLong(t *testing.T) {
	if _, err := Compile(strings.Repeat("$", MaxTemplate)); err != nil {
		t.Errorf("at the limit: %v", err)
	}
	if _, err := Compile(strings.Repeat("$", MaxTemplate+1)); err != ErrTemplateTooLong {
		t.Errorf("over the limit: %v", err)
	}
}

// wire answers from byte slices, as an exchange does.
type wire struct{ query, cookies, header []byte }

func (w *wire) Var(_ ID, dst []byte) ([]byte, bool)          { return append(dst, "/path"...), true }
func (w *wire) Header(_ string, _ []byte) ([]byte, bool)     { return w.header, true }
func (w *wire) Arg(name string, dst []byte) ([]byte, bool)   { return QueryArg(w.query, name, dst) }
func (w *wire) Cookie(name string, _ []byte) ([]byte, bool)  { return CookieValue(w.cookies, name) }
func (w *wire) Param(_ string, dst []byte) ([]byte, bool)    { return dst, false }
func (w *wire) PostArg(_ string, dst []byte) ([]byte, bool)  { return dst, false }
func (w *wire) Capture(int) []byte                           { return w.header }
func (w *wire) ResponseHeader(string, []byte) ([]byte, bool) { return nil, false }

func newWire() *wire {
	return &wire{query: []byte("a=1&k=a%20b+c"), cookies: []byte("x=1; sid=zz"), header: []byte("value")}
}

func TestAllocs(t *testing.T) {
	src := newWire()
	for _, text := range []string{
		"static", "$uri/${arg_k}-$http_x_v/$cookie_sid", "${nope ?? d}$uri_param_x$post_arg_y", "/n/$1/${2}", `\$$upstream_http_x`,
	} {
		tpl, err := Compile(text)
		if err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 0, 256)
		if n := testing.AllocsPerRun(100, func() { buf, _ = tpl.Append(buf[:0], src) }); n != 0 {
			t.Errorf("%q: %v allocations", text, n)
		}
	}
}

func BenchmarkTemplate(b *testing.B) {
	tpl, err := Compile("/v2$uri/${arg_k}-$http_x_v/$cookie_sid")
	if err != nil {
		b.Fatal(err)
	}
	src, buf := newWire(), make([]byte, 0, 256)
	b.ReportAllocs()
	for b.Loop() {
		buf, _ = tpl.Append(buf[:0], src)
	}
}

func FuzzTemplate(f *testing.F) {
	for _, seed := range []string{"", "plain", "$uri", "${uri ?? x}", `\$uri\`, "${", "$1${2}$", "${a??b??c}", "$uri.html$.x", "\x00$\xff"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		tpl, err := Compile(text)
		if err != nil {
			if len(text) <= MaxTemplate {
				t.Fatalf("Compile(%q): %v", text, err)
			}
			return
		}
		got, resolved := tpl.Append([]byte("<"), &captured{fields{values: request, groups: []string{"w", "o"}}})
		if got[0] != '<' || resolved < 0 {
			t.Fatalf("%q -> %q, %d", text, got, resolved)
		}
		if !strings.ContainsAny(text, `$\`) && string(got[1:]) != text {
			t.Fatalf("%q came out as %q", text, got[1:])
		}
		if static, ok := tpl.Static(); ok && (static != string(got[1:]) || resolved != 0) {
			t.Fatalf("%q: static %q, appended %q, %d resolved", text, static, got[1:], resolved)
		}
	})
}

func TestValueless(t *testing.T) {
	for text, want := range map[string]string{
		"": "", "text": "", "$uri": "", "$uri-$http_x_a": "", `\$foo`: "", "$cookie_": "cookie_", "$uri$foo": "foo", "${bar ?? 1}": "bar",
		"$ssl_cipher": "ssl_cipher", "$2": "2",
	} {
		tpl, err := Compile(text)
		if err != nil {
			t.Fatal(err)
		}
		if name, found := tpl.Valueless(); name != want || found != (want != "") {
			t.Errorf("%q: %q, %v", text, name, found)
		}
	}
}
