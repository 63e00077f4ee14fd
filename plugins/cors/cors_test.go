package cors

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

const originPattern = `"^(\\*|\\*\\*|null|\\w+://[^,]+(,\\w+://[^,]+)*)$"`

func TestRefusals(t *testing.T) {
	s := compiled(t)
	const star = `you can not set '*' for other option when 'allow_credential' is true`
	tests := []struct{ conf, want string }{
		{`{}`, ""},
		{`[]`, ""},
		{`{"allow_origins":"http://a.com,https://b.com:8443","max_age":-1,"unknown":1}`, ""},
		{`{"allow_origins":"null","allow_methods":"GET","allow_headers":"X-A","expose_headers":"X-B","allow_credential":true}`, ""},
		{`{"allow_origins":"**","allow_methods":"**","allow_headers":"**","allow_credential":true,"expose_headers":""}`, ""},
		{`{"allow_origins_by_regex":[".*\\.test$","^(?!http:)"],"allow_origins_by_metadata":["k"]}`, ""},
		{`{"allow_credential":true}`, star},
		{`{"allow_credential":true,"allow_origins":"**","allow_methods":"**","allow_headers":"**","expose_headers":"*"}`, star},
		{`{"allow_credential":true,"allow_origins":"**","allow_methods":"**","allow_headers":"**","timing_allow_origins":"*"}`, star},
		{`{"allow_origins":"a.com"}`, `property "allow_origins" validation failed: failed to match pattern ` + originPattern + ` with "a.com"`},
		{`{"timing_allow_origins":""}`, `property "timing_allow_origins" validation failed: failed to match pattern ` + originPattern + ` with ""`},
		{`{"max_age":"5"}`, `property "max_age" validation failed: wrong type: expected integer, got string`},
		{`{"allow_origins_by_regex":[]}`, `property "allow_origins_by_regex" validation failed: expect array to have at least 1 items`},
		{`{"allow_origins_by_regex":["a","a"]}`,
			`property "allow_origins_by_regex" validation failed: expected unique items but items 1 and 2 are equal`},
		{`{"allow_origins_by_metadata":[""]}`, `property "allow_origins_by_metadata" validation failed: failed to validate item 1: ` +
			`string too short, expected at least 1, got 0`},
		{`{"allow_origins_by_regex":["(["]}`, "error parsing regexp: missing closing ]: `[`"},
		{`{"timing_allow_origins_by_regex":["(["]}`, "error parsing regexp: missing closing ]: `[`"},
		{`{"allow_methods":"GET\r\nX: y"}`, `invalid value character in header`},
	}
	for _, tt := range tests {
		if got := refusal(t, s, tt.conf); got != tt.want {
			t.Errorf("%s\ngot  %s\nwant %s", tt.conf, got, tt.want)
		}
	}
}

func TestMetadataRefusals(t *testing.T) {
	s, err := schema.Compile("cors metadata", Kind().MetadataSchema)
	if err != nil {
		t.Fatal(err)
	}
	const at = `property "allow_origins" validation failed: `
	tests := []struct{ conf, want string }{
		{`{}`, ""},
		{`{"allow_origins":{"k1":"http://m.com","k2":"*"}}`, ""},
		{`{"allow_origins":1}`, at + `wrong type: expected object, got number`},
		{`{"allow_origins":{"k":"x"}}`, at + `failed to validate additional property k: failed to match pattern ` + originPattern + ` with "x"`},
	}
	for _, tt := range tests {
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

// visit sends a request; reply has the lines of the upstream's answer.
func visit(t testing.TB, conf, metadata, request string, reply []string, lines ...string) string {
	t.Helper()
	env := &phasetest.Env{Meta: metadata}
	i := phase.Instance{Name: "cors", Plugin: env.Build(t, Kind(), conf)}
	return phasetest.Run(phasetest.Exchange(request, lines...), env, phasetest.Reply(200, "ok", reply...), i)
}

// answer is the answer with these lines, the names without their prefix.
func answer(body string, lines ...string) string {
	for i, l := range lines {
		lines[i] = "Access-Control-" + l
		if l == "Vary: Origin" || strings.HasPrefix(l, "Content-Type") || strings.HasPrefix(l, "Timing") {
			lines[i] = l
		}
	}
	return strings.Join(append([]string{"200"}, append(lines, "", body)...), "\n")
}

// An origin that nobody can tell in time is not allowed.
func TestSlowPattern(t *testing.T) {
	const conf = `{"allow_origins_by_regex":["^(?!b)(\\w+\\s?)*$"],"timing_allow_origins_by_regex":["^(?!b)(\\w+\\s?)*$"]}`
	if got := visit(t, conf, "", "GET /a", nil, "Origin: "+strings.Repeat("a", 64)+"!"); got != "200\n\nok" {
		t.Errorf("got %q", got)
	}
}

func TestAnswers(t *testing.T) {
	const list = `{"allow_origins":"http://a.com,https://b.com:8443"}`
	open := func(body string) string {
		return answer(body, "Allow-Headers: *", "Allow-Methods: *", "Allow-Origin: *", "Max-Age: 5")
	}
	own := func(origin string) string {
		return answer("ok", "Allow-Headers: *", "Allow-Methods: *", "Allow-Origin: "+origin, "Max-Age: 5", "Vary: Origin")
	}
	const none = "200\nVary: Origin\n\nok"
	const methods = "Allow-Methods: GET,POST,PUT,DELETE,PATCH,HEAD,OPTIONS,CONNECT,TRACE"
	const double = `{"allow_origins":"**","allow_methods":"**","allow_headers":"**","allow_credential":true}`
	tests := []struct {
		conf, request string
		lines         []string
		want          string
	}{
		{`{}`, "GET /a", nil, open("ok")},
		{`{}`, "GET /a", []string{"Origin: http://a.com"}, open("ok")},
		{`{}`, "OPTIONS /a", nil, "200\n" + strings.TrimPrefix(answer("", "Allow-Headers: *", "Allow-Methods: *", "Allow-Origin: *", "Max-Age: 5",
			"Content-Type: text/plain; charset=utf-8"), "200\n")},
		{list, "GET /a", []string{"Origin: http://a.com"}, own("http://a.com")},
		{list, "GET /a", []string{"origin: https://b.com:8443"}, own("https://b.com:8443")},
		{list, "GET /a", []string{"Origin: https://b.com"}, none},
		{list, "GET /a", []string{"Origin: http://a.com,https://b.com:8443"}, none},
		{list, "GET /a", []string{"Origin: http://a.com", "Origin: http://a.com"}, none},
		{list, "GET /a", nil, none},
		{list, "OPTIONS /a", []string{"Origin: http://c.com"}, "200\nContent-Type: text/plain; charset=utf-8\nVary: Origin\n\n"},
		{`{"allow_origins":"http://a.com"}`, "GET /a", []string{"Origin: http://a.com"}, own("http://a.com")},
		{`{"allow_origins":"http://a.com"}`, "GET /a", []string{"Origin: http://c.com"}, none},
		{`{"allow_origins":"null"}`, "GET /a", []string{"Origin: null"}, own("null")},
		{`{"allow_origins":"**"}`, "GET /a", []string{"Origin: http://c.com"}, own("http://c.com")},
		{`{"allow_origins":"**"}`, "GET /a", nil, own("*")},

		{double, "GET /a", []string{"Origin: http://a.com"}, answer("ok", "Allow-Credentials: true", methods, "Allow-Origin: http://a.com", "Max-Age: 5", "Vary: Origin")},
		{double, "OPTIONS /a", []string{"Origin: http://a.com", "Access-Control-Request-Headers: X-Q, X-W"},
			answer("", "Allow-Credentials: true", "Allow-Headers: X-Q, X-W", methods, "Allow-Origin: http://a.com", "Max-Age: 5",
				"Content-Type: text/plain; charset=utf-8", "Vary: Origin")},
		{`{"allow_methods":"GET","allow_headers":"X-A","expose_headers":"X-B,X-C","max_age":-1}`, "GET /a", nil,
			answer("ok", "Allow-Headers: X-A", "Allow-Methods: GET", "Allow-Origin: *", "Expose-Headers: X-B,X-C", "Max-Age: -1")},

		{`{"allow_origins_by_regex":[".*\\.test\\.com$"]}`, "GET /a", []string{"Origin: http://a.test.com"},
			answer("ok", "Allow-Headers: *", "Allow-Methods: *", "Allow-Origin: http://a.test.com", "Max-Age: 5")},
		{`{"allow_origins_by_regex":[".*\\.test\\.com$"]}`, "GET /a", []string{"Origin: http://a.other.com"}, "200\n\nok"},
		{`{"allow_origins_by_regex":[".*\\.test\\.com$"]}`, "GET /a", nil, "200\n\nok"},
		{`{"allow_origins_by_regex":["^x","b\\.com$"],"allow_origins":"http://a.com"}`, "GET /a", []string{"Origin: http://a.com"}, none},
		{`{"allow_origins_by_regex":["^x","b\\.com$"],"allow_origins":"http://a.com"}`, "GET /a", []string{"Origin: http://b.com"}, own("http://b.com")},

		{`{"timing_allow_origins":"http://t.com"}`, "GET /a", []string{"Origin: http://t.com"},
			answer("ok", "Allow-Headers: *", "Allow-Methods: *", "Allow-Origin: *", "Max-Age: 5", "Timing-Allow-Origin: http://t.com")},
		{`{"timing_allow_origins":"http://t.com"}`, "GET /a", []string{"Origin: http://u.com"}, open("ok")},
		{`{"timing_allow_origins":"*"}`, "GET /a", nil,
			answer("ok", "Allow-Headers: *", "Allow-Methods: *", "Allow-Origin: *", "Max-Age: 5", "Timing-Allow-Origin: *")},
		{`{"timing_allow_origins":"*","timing_allow_origins_by_regex":["^http:"]}`, "GET /a", []string{"Origin: https://t.com"}, open("ok")},
	}
	for _, tt := range tests {
		if got := visit(t, tt.conf, "", tt.request, nil, tt.lines...); sorted(got) != sorted(tt.want) {
			t.Errorf("%s, %s %q\ngot  %q\nwant %q", tt.conf, tt.request, tt.lines, got, tt.want)
		}
	}
}

// sorted puts the header lines of an answer into the order of their names.
func sorted(text string) string {
	head, body, _ := strings.Cut(text, "\n\n")
	status, rest, _ := strings.Cut(head, "\n")
	h := phase.Header{}
	for _, l := range strings.Split(rest, "\n") {
		name, value, _ := strings.Cut(l, ": ")
		h.Add([]byte(name), []byte(value))
	}
	return strings.Join(append([]string{status}, append(phasetest.Lines(&h), "", body)...), "\n")
}

func TestOverridesUpstream(t *testing.T) {
	reply := []string{"Access-Control-Allow-Origin: http://up.com", "Access-Control-Allow-Headers: X-Up", "Vary: Accept"}
	got := visit(t, `{}`, "", "GET /a", reply, "Origin: http://a.com")
	if want := answer("ok", "Allow-Headers: *", "Allow-Methods: *", "Allow-Origin: *", "Max-Age: 5"); got != strings.Replace(want, "Max-Age: 5", "Max-Age: 5\nVary: Accept", 1) {
		t.Errorf("got %q", got)
	}
	got = visit(t, `{"allow_headers":"**"}`, "", "GET /a", reply)
	if want := answer("ok", "Allow-Methods: *", "Allow-Origin: *", "Max-Age: 5"); got != strings.Replace(want, "Max-Age: 5", "Max-Age: 5\nVary: Accept", 1) {
		t.Errorf("got %q", got)
	}
	// What is not allowed is left to the upstream.
	got = visit(t, `{"allow_origins":"http://a.com"}`, "", "GET /a", reply[:1], "Origin: http://b.com")
	if want := "200\nAccess-Control-Allow-Origin: http://up.com\nVary: Origin\n\nok"; got != want {
		t.Errorf("got %q", got)
	}
}

func TestMetadata(t *testing.T) {
	const metadata = `{"allow_origins":{"k1":"http://m.com","k2":"http://n.com,http://o.com","all":"*"}}`
	tests := []struct{ conf, metadata, origin, allowed string }{
		{`{"allow_origins_by_metadata":["k1"]}`, metadata, "http://m.com", "http://m.com"},
		{`{"allow_origins_by_metadata":["k1"]}`, metadata, "http://n.com", ""},
		{`{"allow_origins_by_metadata":["k1","k2"]}`, metadata, "http://o.com", "http://o.com"},
		{`{"allow_origins_by_metadata":["all"]}`, metadata, "http://z.com", "http://z.com"},
		{`{"allow_origins_by_metadata":["none"]}`, metadata, "http://m.com", ""},
		{`{"allow_origins_by_metadata":["k1"]}`, "", "http://m.com", ""},
		{`{"allow_origins_by_metadata":["k1"],"allow_origins":"http://x.com"}`, metadata, "http://x.com", "http://x.com"},
		{`{"allow_origins_by_metadata":["k1"],"allow_origins":"http://x.com"}`, metadata, "http://m.com", "http://m.com"},
		{`{"allow_origins_by_metadata":["k1"],"allow_origins":"http://x.com"}`, metadata, "http://y.com", ""},
	}
	for _, tt := range tests {
		got := visit(t, tt.conf, tt.metadata, "GET /a", nil, "Origin: "+tt.origin)
		if has := strings.Contains(got, "Access-Control-Allow-Origin: "+tt.allowed+"\n"); has != (tt.allowed != "") {
			t.Errorf("%s %s: %q", tt.conf, tt.origin, got)
		}
	}
}

// The decision is about the client's origin, whatever becomes of the request on its way.
func TestOriginIsRemembered(t *testing.T) {
	for _, conf := range []string{`{"allow_origins":"http://a.com"}`, `{"allow_origins_by_regex":["^http://a"]}`} {
		env := &phasetest.Env{}
		i := phase.Instance{Name: "cors", Plugin: env.Build(t, Kind(), conf)}
		got := phasetest.Run(phasetest.Exchange("GET /", "Origin: http://a.com"), env, func(x *phase.Exchange) {
			x.Request.Header.Set([]byte("Origin"), []byte("http://upstream.test"))
			x.Response.Status = 200
		}, i)
		if !strings.Contains(got, "Access-Control-Allow-Origin: http://a.com\n") {
			t.Errorf("%s: %q", conf, got)
		}
	}
}

// An answer that a plugin made before this one's turn gets the lines too.
func TestNotReached(t *testing.T) {
	env := &phasetest.Env{}
	p := env.Build(t, Kind(), `{"allow_origins":"http://a.com"}`).(phase.Responder)
	x := phasetest.Exchange("GET /", "Origin: http://a.com")
	x.Enter(nil, phase.NewChainOf(nil, nil, env.Slots))
	p.Response(x)
	if v, _ := x.Response.Header.Get("Access-Control-Allow-Origin"); string(v) != "http://a.com" {
		t.Errorf("lines %q", phasetest.Lines(&x.Response.Header))
	}
}

func FuzzConfig(f *testing.F) {
	f.Add(`{}`, `{}`, "http://a.com")
	f.Add(`{"allow_origins":"**","allow_headers":"**","allow_methods":"**","allow_credential":true}`, ``, "null")
	f.Add(`{"allow_origins_by_regex":["^(?!http:)"],"timing_allow_origins":"**"}`, ``, "https://b")
	f.Add(`{"allow_origins_by_metadata":["k"]}`, `{"allow_origins":{"k":"http://a.com,http://b.com"}}`, "http://b.com")
	s := compiled(f)
	meta, err := schema.Compile("cors metadata", Kind().MetadataSchema)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, conf, metadata, origin string) {
		doc, err := schema.DecodeJSON([]byte(conf))
		if err != nil || s.Validate(doc) != nil || Kind().Validate([]byte(conf)) != nil {
			return
		}
		if doc, err := schema.DecodeJSON([]byte(metadata)); err != nil || meta.Validate(doc) != nil {
			metadata = ""
		}
		got := visit(t, conf, metadata, "GET /", nil, "Origin: "+origin)
		if _, rest, ok := strings.Cut(got, "Access-Control-Allow-Origin: "); ok && !strings.HasPrefix(rest, "*\n") && !strings.HasPrefix(rest, origin+"\n") {
			t.Errorf("%s: %q", conf, got)
		}
	})
}

// rounds makes a request that looks the same every time, in the memory of the one before.
func rounds(t testing.TB, conf, metadata string) func() *phase.Exchange {
	env := &phasetest.Env{Meta: metadata}
	p := env.Build(t, Kind(), conf) // reserves the slots
	chain := phase.NewChainOf([]phase.Instance{{Name: "cors", Plugin: p}}, nil, env.Slots)
	x := phasetest.Exchange("GET /")
	settings, get := x.Settings(), x.Request.Method
	name, origin := []byte("Origin"), []byte("http://a.test")
	return func() *phase.Exchange {
		x.Reset()
		x.Begin(settings)
		x.Request.Method = get
		x.Request.Header.Add(name, origin)
		x.Enter(nil, chain)
		x.Rewrite()
		x.Respond()
		return x
	}
}

func BenchmarkExchange(b *testing.B) {
	for name, conf := range map[string]string{
		"open": `{}`, "list": `{"allow_origins":"http://a.test,http://b.test"}`, "regex": `{"allow_origins_by_regex":["\\.test$"]}`,
	} {
		b.Run(name, func(b *testing.B) {
			round := rounds(b, conf, "")
			b.ReportAllocs()
			for b.Loop() {
				round()
			}
		})
	}
}
