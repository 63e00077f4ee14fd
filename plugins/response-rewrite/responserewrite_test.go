package responserewrite

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"strings"
	"testing"

	"headgate/conf/resource"
	"headgate/conf/schema"
	"headgate/proxy/fault"
	"headgate/proxy/phase"
	"headgate/proxy/phase/phasetest"
)

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
	s, err := schema.Compile(Kind().Name, Kind().Schema, resource.SchemaRefs()...)
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
		{`{"headers":{"set":{"X-A":"1"},"add":["X-B: $uri","X-C:3","Location: http://a/"],"remove":["X-D"]}}`, ""},
		{`{"headers":{"X-A":1,"X-B":""}}`, ""},
		{`{"filters":[{"regex":"(","replace":"b"}]}`, ""},
		{`{"body":"YQ==","body_base64":true}`, ""},
		{`{"status_code":199}`, `property "status_code" validation failed: expected 199 to be at least 200`},
		{`{"status_code":599}`, `property "status_code" validation failed: expected 599 to be at most 598`},
		{`{"body":"a","filters":[{"regex":"a","replace":"b"}]}`,
			`failed to validate dependent schema for "body": value wasn't supposed to match schema`},
		{`{"body":"%%%","body_base64":true}`, `invalid base64 content`},
		{`{"body_base64":true}`, `invalid base64 content`},
		{`{"vars":[["a","=","b"]]}`, `failed to validate the 'vars' expression: invalid operator '='`},
		{`{"headers":{"add":["abc"]}}`, `property "headers" validation failed: object matches none of the required`},
		{`{"filters":[{"regex":"a","replace":"b","scope":"x"}]}`,
			`property "filters" validation failed: failed to validate item 1: property "scope" validation failed: matches none of the enum values`},
		{`{"filters":[{"regex":"a","replace":"b","options":"z"}]}`, `regex "a" validation failed: unknown option "z"`},
		{`{"headers":{"a b":"1"}}`, `invalid field character in header`},
		{`{"headers":{"a":"x\ny"}}`, `invalid value character in header`},
	} {
		if got := refusal(t, s, tt.conf); got != tt.want {
			t.Errorf("%s\ngot  %s\nwant %s", tt.conf, got, tt.want)
		}
	}
}

// answer is what the client gets through the plugin.
func answer(t testing.TB, conf, request string, serve func(x *phase.Exchange)) string {
	t.Helper()
	var e phasetest.Env
	p := e.Build(t, Kind(), conf)
	x := phasetest.Exchange(request)
	return phasetest.Run(x, &e, serve, phase.Instance{Name: Kind().Name, Plugin: p})
}

func TestRewrites(t *testing.T) {
	hello := func(lines ...string) func(x *phase.Exchange) {
		return phasetest.Reply(200, "hello world\n", append(lines, "Content-Type: text/plain")...)
	}
	const typed = "Content-Type: text/plain\n"
	for _, tt := range []struct {
		name, conf, request string
		serve               func(x *phase.Exchange)
		want                string
	}{
		{"nothing", `{}`, "GET /", hello(), "200\n" + typed + "\nhello world\n"},
		{"status", `{"status_code":418}`, "GET /", hello("ETag: x"), "418\n" + typed + "ETag: x\n\nhello world\n"},
		{"body", `{"body":"new body\n"}`, "GET /", hello("ETag: x", "Last-Modified: y", "Content-Encoding: gzip", "X-A: 1"),
			"200\n" + typed + "X-A: 1\n\nnew body\n"},
		{"empty body", `{"body":""}`, "GET /", hello(), "200\n" + typed + "\n"},
		{"body in base64", `{"body":"aGkK","body_base64":true}`, "GET /", hello(), "200\n" + typed + "\nhi\n"},
		{"set", `{"headers":{"set":{"X-A":"1","X-R":"$remote_addr","X-S":"$status"}}}`, "GET /", hello("X-A: 0"),
			"200\n" + typed + "X-A: 1\nX-R: 127.0.0.1\nX-S: 200\n\nhello world\n"},
		{"set sees the new status", `{"status_code":201,"headers":{"set":{"X-S":"$status"}}}`, "GET /", hello(),
			"201\n" + typed + "X-S: 201\n\nhello world\n"},
		{"add", `{"headers":{"add":["X-A: 2","X-B:3"]}}`, "GET /", hello("X-A: 1"), "200\n" + typed + "X-A: 1\nX-A: 2\nX-B: 3\n\nhello world\n"},
		{"old form", `{"headers":{"X-A":"1","X-N":7,"X-E":""}}`, "GET /", hello("X-E: 0"), "200\n" + typed + "X-A: 1\nX-N: 7\n\nhello world\n"},
		{"add, set, remove in this order", `{"headers":{"add":["X-A: 1","X-B: 1"],"set":{"X-A":"2","X-C":"3"},"remove":["X-B","x-c"]}}`, "GET /",
			hello(), "200\n" + typed + "X-A: 2\n\nhello world\n"},
		{"a variable writes no line of its own", `{"headers":{"set":{"X-A":"$arg_a"}}}`, "GET /?a=1%0d%0aX-B:%202", hello(),
			"200\n" + typed + "X-A: 1  X-B: 2\n\nhello world\n"},
		{"vars hold", `{"vars":[["status","==",200]],"body":"ok"}`, "GET /", hello(), "200\n" + typed + "\nok"},
		{"vars fail", `{"vars":[["status","==",200]],"body":"ok","status_code":201,"headers":{"X-A":"1"}}`, "GET /",
			phasetest.Reply(404, "no"), "404\n\nno"},
		{"vars of the request", `{"vars":[["arg_x","==","1"]],"status_code":201}`, "GET /?x=1", hello(), "201\n" + typed + "\nhello world\n"},
		{"vars of the request, once", `{"filters":[{"regex":"l","replace":"L"}]}`, "GET /", hello("ETag: x"), "200\n" + typed + "\nheLlo world\n"},
		{"global", `{"filters":[{"regex":"l","replace":"L","scope":"global"}]}`, "GET /", hello(), "200\n" + typed + "\nheLLo worLd\n"},
		{"groups and options", `{"filters":[{"regex":"(he)(llo)","replace":"$2$1","scope":"global"},{"regex":"WORLD","replace":"w","options":"i"}]}`,
			"GET /", hello(), "200\n" + typed + "\nllohe w\n"},
		{"dollar before the last newline", `{"filters":[{"regex":"world$","replace":"$$1 ${0}!"}]}`, "GET /", hello(), "200\n" + typed + "\nhello $1 world!\n"},
		{"look-around", `{"filters":[{"regex":"o(?= )","replace":"0","scope":"global"}]}`, "GET /", hello(), "200\n" + typed + "\nhell0 world\n"},
		{"anchored, extended", `{"filters":[{"regex":"w o r","replace":"x","options":"x"},{"regex":"xld","replace":"no","options":"a"}]}`,
			"GET /", hello(), "200\n" + typed + "\nhello xld\n"},
		{"broken pattern", `{"filters":[{"regex":"(","replace":"b"}]}`, "GET /", hello(), "200\n" + typed + "\nhello world\n"},
		{"empty matches", `{"filters":[{"regex":"x*","replace":"-","scope":"global"}]}`, "GET /", phasetest.Reply(200, "ab"), "200\n\n-a-b-"},
		{"gzip", `{"filters":[{"regex":"world","replace":"moon"}]}`, "GET /",
			phasetest.Reply(200, zipped("hello world\n"), "Content-Encoding: gzip", "ETag: x"), "200\n\nhello moon\n"},
		{"an encoding that is not known", `{"filters":[{"regex":"a","replace":"b"}]}`, "GET /",
			phasetest.Reply(200, "aa", "Content-Encoding: br", "ETag: x"), "200\nContent-Encoding: br\nETag: x\n\naa"},
		{"not what its encoding says", `{"filters":[{"regex":"a","replace":"b"}]}`, "GET /",
			phasetest.Reply(200, "aa", "Content-Encoding: gzip"), "broken off: " + fault.BadBody.Error()},
		{"cut gzip", `{"filters":[{"regex":"a","replace":"b"}]}`, "GET /",
			phasetest.Reply(200, zipped("hello world\n")[:20], "Content-Encoding: gzip"), "broken off: " + fault.BadBody.Error()},
		{"beyond the limit", `{"filters":[{"regex":"a","replace":"b"}],"max_resp_body_size":3}`, "GET /",
			phasetest.Reply(200, "aaaa"), "broken off: " + fault.BadBody.Error()},
		{"at the limit", `{"filters":[{"regex":"a","replace":"b"}],"max_resp_body_size":4}`, "GET /", phasetest.Reply(200, "aaaa"), "200\n\nbaaa"},
		{"beyond the limit when unzipped", `{"filters":[{"regex":"a","replace":"b"}],"max_resp_body_size":500}`, "GET /",
			phasetest.Reply(200, zipped(strings.Repeat("a", 501)), "Content-Encoding: gzip"), "broken off: " + fault.BadBody.Error()},
		{"filters under a condition", `{"vars":[["status","==",404]],"filters":[{"regex":"l","replace":"L"}]}`, "GET /", hello("ETag: x"),
			"200\n" + typed + "ETag: x\n\nhello world\n"},
	} {
		if got := answer(t, tt.conf, tt.request, tt.serve); got != tt.want {
			t.Errorf("%s\ngot  %q\nwant %q", tt.name, got, tt.want)
		}
	}
}

func zipped(s string) string {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write([]byte(s)); err != nil {
		panic(err)
	}
	if err := z.Close(); err != nil {
		panic(err)
	}
	return b.String()
}

// pieces is a body that arrives piece by piece.
type pieces struct {
	list   []string
	closed int
}

func (p *pieces) Next() ([]byte, error) {
	if len(p.list) == 0 {
		return nil, io.EOF
	}
	piece := []byte(p.list[0])
	p.list = p.list[1:]
	return piece, nil
}

func (p *pieces) Close() { p.closed++ }

func TestReplacedBodyIsNotRead(t *testing.T) {
	body := &pieces{list: []string{"old"}}
	got := answer(t, `{"body":"new"}`, "GET /", func(x *phase.Exchange) {
		x.Response.Status, x.Response.Stream, x.Response.Size = 200, body, 3
	})
	if got != "200\n\nnew" || body.closed != 1 || len(body.list) != 1 {
		t.Errorf("got %q, closed %d times, %d pieces left", got, body.closed, len(body.list))
	}
}

// A body whose length is announced and beyond the limit is refused before anything of the answer has left.
func TestAnnouncedLengthBeyondTheLimit(t *testing.T) {
	body := &pieces{list: []string{"long"}}
	got := answer(t, `{"filters":[{"regex":"a","replace":"b"}],"max_resp_body_size":3}`, "GET /", func(x *phase.Exchange) {
		x.Response.Status, x.Response.Stream, x.Response.Size = 200, body, 4
		x.Response.Header.Add([]byte("ETag"), []byte("x"))
	})
	if !strings.HasPrefix(got, "502\nContent-Type: text/html; charset=utf-8\n\n") || body.closed != 1 {
		t.Errorf("got %q, closed %d times", got, body.closed)
	}
}

// A match may lie across pieces; nothing leaves before the last.
func TestStreamIsHeldBack(t *testing.T) {
	var e phasetest.Env
	p := e.Build(t, Kind(), `{"filters":[{"regex":"o wor","replace":"-"}]}`).(*filtering)
	for round := range 3 {
		x := phasetest.Exchange("GET /")
		x.Enter(nil, phase.NewChainOf([]phase.Instance{{Plugin: p}}, nil, e.Slots))
		x.Response.Status = 200
		x.Respond()
		for _, piece := range []string{"hell", "o w", ""} {
			if out, err := x.Chunk([]byte(piece), false); len(out) > 0 || err != nil {
				t.Fatalf("round %d: %q, %v", round, out, err)
			}
		}
		if out, err := x.Chunk([]byte("orld"), true); string(out) != "hell-ld" || err != nil {
			t.Errorf("round %d: %q, %v", round, out, err)
		}
		x.Finish(func(r any) { panic(r) })
	}
	x := phasetest.Exchange("GET /")
	x.Enter(nil, phase.NewChainOf([]phase.Instance{{Plugin: p}}, nil, e.Slots))
	x.Respond()
	p.limit = 5
	if _, err := x.Chunk([]byte("12345"), false); err != nil {
		t.Fatal(err)
	}
	if _, err := x.Chunk([]byte("6"), true); !errors.Is(err, fault.BadBody) {
		t.Errorf("beyond the limit: %v", err)
	}
}

// Only what needs the body has a chunk phase, which would cost every answer its known length.
func TestChunkPhaseIsOnlyForFilters(t *testing.T) {
	var e phasetest.Env
	for conf, want := range map[string]bool{
		`{"body":"a"}`: false, `{"status_code":200,"headers":{"a":"b"}}`: false, `{"filters":[{"regex":"a","replace":"b"}]}`: true,
	} {
		if _, got := e.Build(t, Kind(), conf).(phase.Chunker); got != want {
			t.Errorf("%s: chunker %v", conf, got)
		}
	}
}

func FuzzConfig(f *testing.F) {
	f.Add(`{"status_code":2e2,"body":"YQ","body_base64":true,"headers":{"add":["X-A: $arg_a","b:c"],"remove":["d"]}}`, "a")
	f.Add(`{"filters":[{"regex":"(a)|b$","replace":"${1}$2$$","scope":"global","options":"im"}],"max_resp_body_size":8}`, "abab\n")
	f.Add(`{"headers":{"X-A":1.50,"X-B":"$uri"},"vars":["OR",["status","==",1]]}`, "")
	s := compiled(f)
	f.Fuzz(func(t *testing.T, conf, body string) {
		doc, err := schema.DecodeJSON([]byte(conf))
		if err != nil || s.Validate(doc) != nil || Kind().Validate([]byte(conf)) != nil || strings.Contains(conf, "(?") {
			return
		}
		x := phasetest.Exchange("GET /?a=%0a%00b")
		var e phasetest.Env
		p := e.Build(t, Kind(), conf)
		phasetest.Run(x, &e, phasetest.Reply(200, body), phase.Instance{Plugin: p})
		for _, l := range x.Response.Header.Fields() {
			if bytes.ContainsAny(l.Value, "\r\n\x00") || bytes.ContainsAny(l.Name, "\r\n\x00: ") || len(l.Name) == 0 {
				t.Errorf("line %q: %q", l.Name, l.Value)
			}
		}
	})
}
