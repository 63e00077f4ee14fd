package rewrite

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	"headgate/proxy/phase"
)

// request is what a test sends; lines are "Name: value".
type request struct {
	raw, path, query string // path is the canonical form of raw; "" says that they are equal
	lines            []string
}

func exchange(r request) *phase.Exchange {
	x := &phase.Exchange{}
	load(x, r)
	return x
}

func load(x *phase.Exchange, r request) {
	x.Begin(&phase.Settings{})
	if r.path == "" {
		r.path = r.raw
	}
	q := &x.Request
	q.Method, q.Authority, q.Host = []byte("GET"), []byte("edge.test:80"), []byte("edge.test")
	q.RawPath, q.Path, q.Query = []byte(r.raw), []byte(r.path), []byte(r.query)
	x.Client.Text = []byte("10.0.0.9")
	for _, l := range r.lines {
		name, value, _ := strings.Cut(l, ": ")
		q.Header.Add([]byte(name), []byte(value))
	}
}

func lines(x *phase.Exchange) string {
	var b strings.Builder
	for _, f := range x.Request.Header.Fields() {
		b.Write(f.Name)
		b.WriteString(": ")
		b.Write(f.Value)
		b.WriteByte('\n')
	}
	return b.String()
}

func compile(t testing.TB, conf string) *Rewriter {
	t.Helper()
	r, err := Compile([]byte(conf))
	if err != nil {
		t.Fatalf("%s: %v", conf, err)
	}
	return r
}

// An empty want says that the target is left to the engine.
func TestTarget(t *testing.T) {
	tests := []struct {
		name, conf string
		in         request
		want       string
	}{
		{"static", `{"uri":"/v1/chat"}`, request{raw: "/a"}, "/v1/chat"},
		{"static, client query", `{"uri":"/n"}`, request{raw: "/a", query: "x=%20%2F&y=a+b&z"}, "/n?x=%20%2F&y=a+b&z"},
		{"own query", `{"uri":"/n?k=v"}`, request{raw: "/a"}, "/n?k=v"},
		{"own query, client query", `{"uri":"/n?k=v"}`, request{raw: "/a", query: "q=1"}, "/n?k=v&q=1"},
		{"static is escaped", `{"uri":"/n/a b/ü%20"}`, request{raw: "/a"}, "/n/a%20b/%C3%BC%2520"},
		{"own query is made legal", `{"uri":"/n?k=a b#\u0007ü"}`, request{raw: "/a"}, "/n?k=a%20b%23%07%C3%BC"},
		{"variables", `{"uri":"/u/$arg_id/$http_x_v"}`, request{raw: "/a", query: "id=5", lines: []string{"X-V: q"}}, "/u/5/q?id=5"},
		{"absent variables", `{"uri":"/u/$arg_id/$http_x_v"}`, request{raw: "/a"}, "/u//"},
		{"default with question marks", `{"uri":"/u/${arg_id ?? none}?p=${arg_p ?? 1}"}`, request{raw: "/a"}, "/u/none?p=1"},
		{"question mark of a variable, path", `{"uri":"/p$request_uri"}`, request{raw: "/a", query: "x=1"}, "/p/a%253Fx=1?x=1"},
		{"question mark of a variable, query", `{"uri":"/p?u=$request_uri"}`, request{raw: "/a", query: "x=1"}, "/p?u=/a%3Fx=1&x=1"},
		{"second question mark of the text", `{"uri":"/p?a=$arg_x?b"}`, request{raw: "/a", query: "x=%3F"}, "/p?a=%3F?b&x=%3F"},
		{"a variable cannot end the line", `{"uri":"/p/$arg_x?y=$arg_x"}`, request{raw: "/a", query: "x=%0d%0aX:%201"},
			"/p/%0D%0AX:%201?y=%0D%0AX:%201&x=%0d%0aX:%201"},
		{"escaped dollar", `{"uri":"/p/\\$arg_x"}`, request{raw: "/a"}, "/p/$arg_x"},

		{"regex", `{"regex_uri":["^/a/(.*)/(.*)","/b/$2/$1"]}`, request{raw: "/a/1/2", query: "q=1"}, "/b/2/1?q=1"},
		{"regex, no match", `{"regex_uri":["^/a/(.*)/(.*)","/b/$2/$1"]}`, request{raw: "/other"}, ""},
		{"regex, prefix", `{"regex_uri":["^/a/(.*)$","/b/$1"]}`, request{raw: "/a/x/y"}, "/b/x/y"},
		{"regex, prefix without match", `{"regex_uri":["^/a/(.*)","/b/$1"]}`, request{raw: "/ab"}, ""},
		{"regex, prefix stops at newline", `{"regex_uri":["^/a/(.*)","/b/[$1]"]}`, request{raw: "/a/x%0Ay", path: "/a/x\ny"}, "/b/%5Bx%5D%0Ay"},
		{"regex, dollar stops at newline", `{"regex_uri":["^/a/(.*)$","/b"]}`, request{raw: "/a/x%0Ay", path: "/a/x\ny"}, ""},
		{"regex, first pair wins", `{"regex_uri":["^/a/(.*)","/first/$1","^/a","/second"]}`, request{raw: "/a/x"}, "/first/x"},
		{"regex, second pair", `{"regex_uri":["^/a/(.*)","/first/$1","^/b/(.*)","/second/$1"]}`, request{raw: "/b/y"}, "/second/y"},
		{"regex, replaces the match only", `{"regex_uri":["b+","X"]}`, request{raw: "/abba/b"}, "/aXa/b"},
		{"regex, query in the result", `{"regex_uri":["^/a/(.*)","/n?id=$1"]}`, request{raw: "/a/5", query: "q=1"}, "/n?id=5&q=1"},
		{"regex, escaped", `{"regex_uri":["^/a/(.*)","/$1"]}`, request{raw: "/a/x%20y", path: "/a/x y"}, "/x%20y"},
		{"regex, client's escaped question mark", `{"regex_uri":["^/a/(.*)","/n/$1?k"]}`, request{raw: "/a/x%3Fy", path: "/a/x?y", query: "q"},
			"/n/x%3Fy%3Fk?q"},
		{"regex, query is made legal", `{"regex_uri":["^/a/(.*)","/n?id=$1"]}`, request{raw: "/a/x%20y", path: "/a/x y"}, "/n?id=x%20y"},
		{"regex, begins with a slash", `{"regex_uri":["^/a/(.*)","$1"]}`, request{raw: "/a/x"}, "/x"},
		{"regex, nothing left", `{"regex_uri":["^/a$",""]}`, request{raw: "/a"}, "/"},
		{"regex, dollars and braces", `{"regex_uri":["^/(a)(b)?","/$$${1}1$0$2$9"]}`, request{raw: "/a"}, "/$a1/a"},
		{"regex, look-ahead", `{"regex_uri":["^/(?!admin)(.*)$","/pub/$1"]}`, request{raw: "/x"}, "/pub/x"},
		{"regex, look-ahead without match", `{"regex_uri":["^/(?!admin)(.*)$","/pub/$1"]}`, request{raw: "/admin"}, ""},
		{"regex, backtracking on bytes", `{"regex_uri":["^/(?!b)é(.)(?<r>.*)","/$1-$2"]}`,
			request{raw: "/%C3%A9%FF%C3%A9", path: "/\xc3\xa9\xff\xc3\xa9"}, "/%FF-%C3%A9"},

		{"uri beats regex", `{"uri":"/u","regex_uri":["^/a","/r"]}`, request{raw: "/a"}, "/u"},
		{"unsafe", `{"use_real_request_uri_unsafe":true}`, request{raw: "/a/%2F/b%20c", path: "/a/b c", query: "x=1"}, "/a/%2F/b%20c?x=1"},
		{"unsafe uri", `{"use_real_request_uri_unsafe":true,"uri":"/p%20$arg_x"}`, request{raw: "/a", query: "x=%20y"}, "/p%20%20y"},
		{"unsafe regex", `{"use_real_request_uri_unsafe":true,"regex_uri":["^/a/(.*)","/b/$1"]}`,
			request{raw: "/a/%2F", path: "/a/", query: "x=1"}, "/b/%2F?x=1"},
		{"unsafe regex, no match", `{"use_real_request_uri_unsafe":true,"regex_uri":["^/b/(.*)","/b/$1"]}`,
			request{raw: "/a/%2F", path: "/a/", query: "x=1"}, "/a/%2F?x=1"},
		{"nothing", `{}`, request{raw: "/a%2Fb", path: "/a/b"}, ""},
		{"empty array", `[]`, request{raw: "/a"}, ""},
		{"names are exact", `{"URI":"/x","Host":"y"}`, request{raw: "/a"}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			x := exchange(tt.in)
			if v := compile(t, tt.conf).Apply(x); v != phase.Continue {
				t.Fatalf("verdict %v", v)
			}
			if got := string(x.Request.OutTarget); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

func TestLines(t *testing.T) {
	tests := []struct {
		name, conf string
		in         request
		want       string
	}{
		{"old form", `{"headers":{"X-A":"1","X-N":5,"X-F":1.50,"X-Old":""}}`, request{raw: "/a", lines: []string{"x-a: 0", "X-Old: z"}},
			"x-a: 1\nX-F: 1.5\nX-N: 5\n"},
		{"old form called add", `{"headers":{"add":"1"}}`, request{raw: "/a"}, "add: 1\n"},
		{"set with variables", `{"headers":{"set":{"X-A":"$remote_addr","X-B":"c$arg_q"}}}`,
			request{raw: "/a", query: "q=1", lines: []string{"X-A: 0"}}, "X-A: 10.0.0.9\nX-B: c1\n"},
		{"set replaces all", `{"headers":{"set":{"x-a":"n"}}}`, request{raw: "/a", lines: []string{"X-A: 1", "B: 2", "X-A: 3"}}, "X-A: n\nB: 2\n"},
		{"set to nothing removes", `{"headers":{"set":{"X-A":"$arg_none"}}}`, request{raw: "/a", lines: []string{"X-A: 0"}}, ""},
		{"set several", `{"headers":{"set":{"X-A":["1","","$arg_q"]}}}`, request{raw: "/a", query: "q=z", lines: []string{"X-A: 0", "B: 1"}},
			"X-A: 1\nB: 1\nX-A: z\n"},
		{"add", `{"headers":{"add":{"X-A":["1",2]}}}`, request{raw: "/a", lines: []string{"X-A: 0"}}, "X-A: 0\nX-A: 1\nX-A: 2\n"},
		{"add nothing", `{"headers":{"add":{"X-A":"$arg_none"}}}`, request{raw: "/a", lines: []string{"X-A: 0"}}, "X-A: 0\n"},
		{"add, set, remove", `{"headers":{"remove":["C"],"set":{"B":"set"},"add":{"A":"1","B":"add","C":"add"}}}`,
			request{raw: "/a", lines: []string{"C: 0"}}, "A: 1\nB: set\n"},
		{"remove", `{"headers":{"remove":["x-a","User-Agent"]}}`, request{raw: "/a", lines: []string{"X-A: 1", "User-Agent: u", "X-A: 2"}}, ""},
		{"captures", `{"regex_uri":["^/t/(.*)/(.*)","/n/$1"],"headers":{"set":{"X-U":"$2","X-W":"$1-x"}}}`, request{raw: "/t/one/two"},
			"X-U: two\nX-W: one-x\n"},
		{"captures of a prefix", `{"regex_uri":["^/t/(.*)","/n"],"headers":{"set":{"X-U":"$1","X-Z":"$0"}}}`, request{raw: "/t/one"},
			"X-U: one\nX-Z: /t/one\n"},
		{"captures without match", `{"regex_uri":["^/t/(.*)","/n/$1"],"headers":{"set":{"X-U":"$1"}}}`, request{raw: "/a"}, ""},
		{"a variable cannot begin a line", `{"headers":{"set":{"X-A":"$arg_q"}}}`, request{raw: "/a", query: "q=1%0d%0aX-Admin:%20yes"},
			"X-A: 1%0D%0AX-Admin: yes\n"},
		{"what frames and addresses stays", `{"headers":{"set":{"Host":"h","content-length":"0","Transfer-Encoding":"chunked","Connection":"x",
			"Upgrade":"u","TE":"t","Expect":"100-continue","Keep-Alive":"1"},"add":{"Trailer":"x","X-Ok":"1"}}}`, request{raw: "/a"}, "X-Ok: 1\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			x := exchange(tt.in)
			compile(t, tt.conf).Apply(x)
			if got := lines(x); got != tt.want {
				t.Errorf("got\n%swant\n%s", got, tt.want)
			}
		})
	}
}

func TestMethodAndHost(t *testing.T) {
	x := exchange(request{raw: "/a"})
	compile(t, `{"method":"POST","host":"new.test:81"}`).Apply(x)
	if m, h := string(x.Request.OutMethod), string(x.Request.OutHost); m != "POST" || h != "new.test:81" {
		t.Errorf("method %q, host %q", m, h)
	}
	if m := string(x.Request.Method); m != "GET" {
		t.Errorf("the client's method became %q", m)
	}
	x = exchange(request{raw: "/a"})
	compile(t, `{"uri":"/b"}`).Apply(x)
	if q := &x.Request; len(q.OutMethod)+len(q.OutHost) > 0 {
		t.Errorf("method %q, host %q out of nothing", q.OutMethod, q.OutHost)
	}
}

// The rewrite of a branch comes after that of the route and changes only what it speaks of.
func TestApplyTwice(t *testing.T) {
	x := exchange(request{raw: "/a/x", query: "q=1"})
	compile(t, `{"uri":"/first","host":"first.test"}`).Apply(x)
	compile(t, `{"headers":{"X-U":"$upstream_uri"},"host":"second.test"}`).Apply(x)
	if q := &x.Request; string(q.OutTarget) != "/first?q=1" || string(q.OutHost) != "second.test" || lines(x) != "X-U: /first?q=1\n" {
		t.Errorf("target %s, host %s, lines %q", q.OutTarget, q.OutHost, lines(x))
	}
	compile(t, `{"regex_uri":["^/a/(.*)","/third/$1"]}`).Apply(x)
	if got := string(x.Request.OutTarget); got != "/third/x?q=1" {
		t.Errorf("target %s", got)
	}
}

func TestPatternThatTakesTooLong(t *testing.T) {
	x := exchange(request{raw: "/" + strings.Repeat("a", 64) + "!"})
	r := compile(t, `{"regex_uri":["^/(?=a)(a+)+$","/\"x\""]}`)
	if v := r.Apply(x); v != phase.Stop {
		t.Fatalf("verdict %v, target %s", v, x.Request.OutTarget)
	}
	var body struct {
		Msg string `json:"error_msg"`
	}
	if err := json.Unmarshal(x.Response.Body, &body); err != nil || x.Response.Status != 500 ||
		body.Msg != `failed to substitute the uri (^/(?=a)(a+)+$) with /"x": the match took too long` {
		t.Errorf("%d %s (%v)", x.Response.Status, x.Response.Body, err)
	}
	if !bytes.HasSuffix(x.Response.Body, []byte("\n")) {
		t.Error("no newline behind the body")
	}
}

func TestValidate(t *testing.T) {
	tests := []struct{ conf, want string }{
		{`{}`, ""},
		{`{"uri":"/$arg_x"}`, ""},
		{`{"regex_uri":["^/a","/b","^/c"]}`, "The length of regex_uri should be an even number"},
		{`{"regex_uri":["^/(","/b"]}`, "invalid regex_uri(^/(, /b): "},
		{`{"regex_uri":["^/a","/b","[","/c"]}`, "invalid regex_uri([, /c): "},
		{`{"uri":"/u","regex_uri":["[","/c"]}`, "invalid regex_uri([, /c): "},
		{`{"regex_uri":["^/a","/$name"]}`, "invalid regex_uri(^/a, /$name): failed to compile the replacement template"},
		{`{"regex_uri":["^/a","/${1"]}`, "invalid regex_uri(^/a, /${1): failed to compile the replacement template"},
		{`{"regex_uri":["^/a","/$"]}`, "invalid regex_uri(^/a, /$): failed to compile the replacement template"},
		{`{"regex_uri":["` + strings.Repeat("()", 32) + `","/"]}`, "invalid regex_uri(" + strings.Repeat("()", 32) + ", /): more than 31 groups"},
		{`{"headers":{"a b":"1"}}`, "invalid field character in header"},
		{`{"headers":{"set":{"a\n":"1"}}}`, "invalid field character in header"},
		{`{"headers":{"add":{"":"1"}}}`, "invalid field character in header"},
		{`{"headers":{"a":"x\ny"}}`, "invalid value character in header"},
		{`{"headers":{"add":{"a":["1","x\u0000y"]}}}`, "invalid value character in header"},
		{`{"headers":{"Host":"x\ny"}}`, "invalid value character in header"},
		{`{"headers":{"remove":["a b"]}}`, ""},
		// References to secrets pass the schema whatever it asks for.
		{`{"uri":"$env://X"}`, `property "uri" validation failed: a path starts with "/"`},
		{`{"host":"$env://X\r\n"}`, `property "host" validation failed: not a host name`},
		{`{"method":"$env:// X"}`, `property "method" validation failed: not the name of a method`},
	}
	for _, tt := range tests {
		err := Validate([]byte(tt.conf))
		switch {
		case tt.want == "" && err != nil:
			t.Errorf("%s: %v", tt.conf, err)
		case tt.want != "" && (err == nil || !strings.HasPrefix(err.Error(), tt.want)):
			t.Errorf("%s\ngot  %v\nwant %s", tt.conf, err, tt.want)
		}
	}
}

func TestSchemaIsTheCallers(t *testing.T) {
	Schema()[0] = 'x'
	if s := Schema(); !json.Valid(s) {
		t.Errorf("schema: %s", s)
	}
}

func FuzzApply(f *testing.F) {
	f.Add(`{"uri":"/p$request_uri?x=$arg_a"}`, "/a%20b", "a=%0d%0a&b")
	f.Add(`{"regex_uri":["^/a/(.*)","/b?$1","(?=x)(.)","$1$2"]}`, "/a/\n?x y", "q=1")
	f.Add(`{"regex_uri":["(.*)","${0}\\ ","\\d","$$"],"use_real_request_uri_unsafe":true}`, "/1", "")
	f.Add(`{"headers":{"add":{"X-A":"$arg_a$1"},"set":{"X-B":["$uri",1]},"remove":["X-C"]},"host":"a","method":"POST"}`, "/", "a=%00")
	f.Add(`{"uri":"/${arg_a ?? ?}\\${?}?#\u0001"}`, "*", "")
	f.Fuzz(func(t *testing.T, conf, path, query string) {
		if strings.Contains(conf, "(?") {
			return // backtracking patterns may take their time limit; tables cover them
		}
		r, err := Compile([]byte(conf))
		if err != nil {
			return
		}
		// The edge lets no control bytes and spaces through in what a client sends.
		raw := cleaned("/" + path)
		x := exchange(request{raw: raw, path: "/" + path, query: cleaned(query), lines: []string{"X-C: 1"}})
		if r.Apply(x) == phase.Stop {
			return
		}
		if out := x.Request.OutTarget; len(out) > 0 && (out[0] != '/' || string(out) != cleaned(string(out))) {
			t.Errorf("target %q", out)
		}
		for _, l := range x.Request.Header.Fields() {
			if bytes.ContainsAny(l.Value, "\r\n\x00") || bytes.ContainsAny(l.Name, "\r\n\x00: ") || len(l.Name) == 0 {
				t.Errorf("line %q: %q", l.Name, l.Value)
			}
		}
	})
}

func cleaned(s string) string {
	b := []byte(s)
	n := 0
	for _, c := range b {
		if c > ' ' && c != 0x7f && c != '#' {
			b[n] = c
			n++
		}
	}
	return string(b[:n])
}

func TestMembersAreThoseOfTheSchema(t *testing.T) {
	var s struct{ Properties map[string]any }
	if err := json.Unmarshal(Schema(), &s); err != nil {
		t.Fatal(err)
	}
	if got, want := Members(), slices.Sorted(maps.Keys(s.Properties)); !slices.Equal(got, want) {
		t.Errorf("got %v, the schema has %v", got, want)
	}
}
