package apibreaker

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"

	"headgate/conf/resource"
	"headgate/conf/schema"
	"headgate/proxy/fault"
	"headgate/proxy/phase"
	"headgate/proxy/phase/phasetest"
)

// rig is the plugin with a clock that the test turns.
type rig struct {
	*state
	now int64
}

func newRig() *rig {
	r := &rig{now: 1000*second + 500_000_000}
	r.state = &state{clock: func() int64 { return r.now }, table: sync.OnceValue(newBreakers)}
	return r
}

func (r *rig) build(t testing.TB, conf string) *plugin {
	t.Helper()
	var e phasetest.Env
	return e.Build(t, r.kind(), conf).(*plugin)
}

// visit sends a request whose upstream answers status; it returns what the client gets.
func visit(p *plugin, request string, status int, lines ...string) string {
	x := phasetest.Exchange(request, lines...)
	var e phasetest.Env
	got := phasetest.Run(x, &e, func(x *phase.Exchange) {
		x.Attempts.Note(status)
		x.Response.Status = status
	}, phase.Instance{Plugin: p})
	return got
}

func code(got string) string { c, _, _ := strings.Cut(got, "\n"); return c }

func compiled(t testing.TB) *schema.Schema {
	t.Helper()
	s, err := schema.Compile(Kind(Options{}).Name, Kind(Options{}).Schema, resource.SchemaRefs()...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func refusal(t testing.TB, s *schema.Schema, conf string) string {
	t.Helper()
	doc, err := schema.DecodeJSON([]byte(conf))
	if err != nil {
		t.Fatalf("%s: %v", conf, err)
	}
	if err = s.Validate(doc); err == nil {
		err = Kind(Options{}).Validate([]byte(conf))
	}
	if err != nil {
		return err.Error()
	}
	return ""
}

// The texts are those of the contract's recorded answers.
func TestRefusals(t *testing.T) {
	s := compiled(t)
	for _, tt := range []struct{ conf, want string }{
		{`{"break_response_code":502}`, ""},
		{`{"break_response_code":200,"break_response_body":"","break_response_headers":[{"key":"X-A","value":"$uri"}],"unhealthy":{},"healthy":[]}`, ""},
		{`{}`, `property "break_response_code" is required`},
		{`{"break_response_code":199}`, `property "break_response_code" validation failed: expected 199 to be at least 200`},
		{`{"break_response_code":600}`, `property "break_response_code" validation failed: expected 600 to be at most 599`},
		{`{"break_response_code":502,"unhealthy":{"http_statuses":[404]}}`,
			`property "unhealthy" validation failed: property "http_statuses" validation failed: failed to validate item 1: expected 404 to be at least 500`},
		{`{"break_response_code":502,"healthy":{"http_statuses":[200,200]}}`,
			`property "healthy" validation failed: property "http_statuses" validation failed: expected unique items but items 1 and 2 are equal`},
		{`{"break_response_code":502,"max_breaker_sec":2}`, `property "max_breaker_sec" validation failed: expected 2 to be at least 3`},
		{`{"break_response_code":502,"unhealthy":{"failures":0}}`,
			`property "unhealthy" validation failed: property "failures" validation failed: expected 0 to be at least 1`},
		{`{"break_response_code":502,"break_response_headers":[{"key":"a b","value":"1"}]}`, `invalid field character in header`},
		{`{"break_response_code":502,"break_response_headers":[{"key":"a","value":"1\r\nb: 2"}]}`, `invalid value character in header`},
	} {
		if got := refusal(t, s, tt.conf); got != tt.want {
			t.Errorf("%s\ngot  %s\nwant %s", tt.conf, got, tt.want)
		}
	}
}

const twice = `{"break_response_code":599,"unhealthy":{"http_statuses":[500,503],"failures":2},"healthy":{"http_statuses":[200],"successes":1}}`

func TestOpensAndCloses(t *testing.T) {
	type step struct {
		wait   int64 // milliseconds
		status int   // of the upstream
		want   string
	}
	for _, tt := range []struct {
		name, conf string
		steps      []step
	}{
		{"opens after 2 failures for 2 whole seconds", twice, []step{{0, 500, "500"}, {0, 503, "503"}, {0, 200, "599"}, {2499, 200, "599"}, {1, 200, "200"},
			{0, 500, "500"}, {0, 200, "200"}}},
		{"the second time for 4", twice, []step{{0, 500, "500"}, {0, 500, "500"}, {2500, 500, "500"}, {0, 500, "500"}, {0, 200, "599"}, {4999, 200, "599"},
			{1, 500, "500"}, {0, 500, "500"}, {8999, 200, "599"}, {1, 200, "200"}}},
		{"success forgets", twice, []step{{0, 500, "500"}, {0, 200, "200"}, {0, 500, "500"}, {0, 200, "200"}}},
		{"other statuses count for nothing", twice, []step{{0, 500, "500"}, {0, 502, "502"}, {0, 404, "404"}, {0, 500, "500"}, {0, 200, "599"}}},
		{"defaults", `{"break_response_code":502}`, []step{{0, 500, "500"}, {0, 503, "503"}, {0, 200, "200"}, {0, 200, "200"}, {0, 500, "500"}, {0, 200, "200"},
			{0, 500, "500"}, {0, 200, "502"}, {2500, 200, "200"}, {0, 200, "200"}, {0, 500, "500"}, {0, 200, "200"}, {0, 200, "200"}, {0, 200, "200"}, {0, 500, "500"},
			{0, 500, "500"}, {0, 200, "200"}}},
		{"not longer than allowed", `{"break_response_code":599,"max_breaker_sec":3,"unhealthy":{"failures":1}}`,
			[]step{{0, 500, "500"}, {2500, 500, "500"}, {2999, 200, "599"}, {1, 500, "500"}, {2999, 200, "599"}, {1, 200, "200"}}},
	} {
		r := newRig()
		p := r.build(t, tt.conf)
		for i, s := range tt.steps {
			r.now += s.wait * 1_000_000
			if got := code(visit(p, "GET /a", s.status)); got != s.want {
				t.Errorf("%s: request %d: got %s, want %s", tt.name, i, got, s.want)
			}
		}
	}
}

func TestWhatItBelongsTo(t *testing.T) {
	r := newRig()
	p, other := r.build(t, twice), r.build(t, strings.Replace(twice, "599", "598", 1))
	visit(p, "GET /a?q=1", 500, "Host: one.test")
	visit(other, "POST /a?q=2", 500, "Host: ONE.test:8080") // another route, and the same host and path
	for _, tt := range []struct {
		p                   *plugin
		request, host, want string
	}{
		{p, "GET /a", "one.test", "599"}, {other, "GET /a?q=3", "one.test", "598"}, {p, "GET /a", "two.test", "200"}, {p, "GET /b", "one.test", "200"},
		{p, "GET /aa", "one.test", "200"},
	} {
		if got := code(visit(tt.p, tt.request, 200, "Host: "+tt.host)); got != tt.want {
			t.Errorf("%s of %s: got %s, want %s", tt.request, tt.host, got, tt.want)
		}
	}
}

func TestAnswers(t *testing.T) {
	const rest = `,"unhealthy":{"failures":1}}`
	for _, tt := range []struct{ conf, want string }{
		{`{"break_response_code":599,"break_response_headers":[{"key":"X-Open","value":"1"}]` + rest, "599\n\n"},
		{`{"break_response_code":502` + rest, "502\nContent-Type: text/html; charset=utf-8\n\n<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n" +
			"<body>\r\n<center><h1>502 Bad Gateway</h1></center>\r\n</body>\r\n</html>\r\n"},
		{`{"break_response_code":503,"break_response_body":"later"` + rest, "503\nContent-Type: text/plain; charset=utf-8\n\nlater"},
		{`{"break_response_code":503,"break_response_body":"{}","break_response_headers":[{"key":"Content-Type","value":"application/json"},{"key":"X-A","value":"$remote_addr $arg_q"}]` + rest,
			"503\nContent-Type: application/json\nX-A: 127.0.0.1   X-B: 1\n\n{}"},
	} {
		p := newRig().build(t, tt.conf)
		visit(p, "GET /", 500)
		if got := visit(p, "GET /?q=%0d%0aX-B:%201", 200); got != tt.want {
			t.Errorf("%s\ngot  %q\nwant %q", tt.conf, got, tt.want)
		}
	}
}

// Only what an upstream came to counts, and of several attempts the last.
func TestWhatCounts(t *testing.T) {
	p := newRig().build(t, `{"break_response_code":599,"unhealthy":{"failures":1}}`)
	run := func(serve func(x *phase.Exchange)) string {
		var e phasetest.Env
		return code(phasetest.Run(phasetest.Exchange("GET /"), &e, serve, phase.Instance{Plugin: p}))
	}
	run(func(x *phase.Exchange) { x.Answer(500, "", nil) }) // nobody was asked
	run(func(x *phase.Exchange) { x.Attempts.Note(500); x.Attempts.Note(200); x.Response.Status = 500 })
	if got := run(func(x *phase.Exchange) { x.Attempts.Note(200); x.Attempts.Note(500); x.Response.Status = 200 }); got != "200" {
		t.Errorf("got %s", got)
	}
	if got := run(func(x *phase.Exchange) { x.Response.Status = 200 }); got != "599" {
		t.Errorf("got %s", got)
	}
}

// Every failure counts once, whoever notes it.
// TestCutAnswers: an answer that breaks off behind its head counts as the status that its fault stands for, whatever the head said; one that the
// client breaks off as what the head said.
func TestCutAnswers(t *testing.T) {
	const conf = `{"break_response_code":599,"unhealthy":{"http_statuses":[502],"failures":2},"healthy":{"http_statuses":[200],"successes":1}}`
	for _, tt := range []struct {
		end  error
		want string
	}{{fault.BodyCut, "599"}, {fault.ReadTimeout, "200"}, {fault.ClientGone, "200"}, {io.EOF, "200"}} {
		p := newRig().build(t, conf)
		for range 2 {
			var e phasetest.Env
			phasetest.Run(phasetest.Exchange("GET /a"), &e, func(x *phase.Exchange) {
				x.Attempts.Note(200)
				phasetest.Pieces(200, []string{"a"}, tt.end, -1)(x)
			}, phase.Instance{Plugin: p})
		}
		if got := code(visit(p, "GET /a", 200)); got != tt.want {
			t.Errorf("after two that end with %v: %s, want %s", tt.end, got, tt.want)
		}
	}
}

func TestExactUnderConcurrency(t *testing.T) {
	r := newRig()
	p := r.build(t, `{"break_response_code":599,"unhealthy":{"failures":6401}}`)
	var done sync.WaitGroup
	for g := range 64 {
		done.Go(func() {
			for i := range 100 {
				visit(p, "GET /a", 500)
				visit(p, fmt.Sprintf("GET /%d/%d", g, i), 500) // the table changes meanwhile
			}
		})
	}
	done.Wait()
	if got := code(visit(p, "GET /a", 500)); got != "500" {
		t.Errorf("open after 6400 failures: %s", got)
	}
	if got := code(visit(p, "GET /a", 500)); got != "599" {
		t.Errorf("not open after 6401 failures: %s", got)
	}
}

// What has long been quiet is dropped when memory is wanted, and what fails now is not.
func TestMemory(t *testing.T) {
	b := &breaker{}
	b.fail(second, 1)
	if b.Retire(second + idle - 1) {
		t.Error("dropped too early")
	}
	if !b.Retire(second+idle) || b.fail(second, 1) || b.openFor(second, 1, 300) > 0 {
		t.Error("not dead")
	}
	b = &breaker{}
	b.fail(second, 2)
	b.succeed(1)
	if !b.Retire(second) {
		t.Error("kept though nothing is known")
	}
}

func FuzzConfig(f *testing.F) {
	f.Add(`{"break_response_code":5e2,"break_response_body":"x","break_response_headers":[{"key":"X-A","value":"$arg_a"}],"max_breaker_sec":9007199254740993,"unhealthy":{"failures":1}}`, "%0a")
	f.Add(`{"break_response_code":200,"healthy":{"http_statuses":[200,204],"successes":99999999999},"unhealthy":{"http_statuses":[599]}}`, "")
	f.Add(`{"break_response_code":503,"scope":"route","half_open_requests":1000,"unhealthy":{"error_ratio":1e-300,"slow_ratio":0.1,"slow_ms":1,"window_sec":1,"min_requests":1}}`, "")
	f.Add(`{"break_response_code":503,"scope":"endpoint","slow_start_sec":0,"max_breaker_sec":1e18,"unhealthy":{"failures":1e15},"healthy":{"successes":1e15}}`, "x")
	s := compiled(f)
	f.Fuzz(func(t *testing.T, conf, arg string) {
		doc, err := schema.DecodeJSON([]byte(conf))
		if err != nil || s.Validate(doc) != nil || Kind(Options{}).Validate([]byte(conf)) != nil {
			return
		}
		r, g := newRig(), newGuardRig()
		var e phasetest.Env
		p := e.Build(t, r.kind(), conf)
		for range 4 {
			x := phasetest.Exchange("GET /?a=" + arg)
			x.Route = &g.route
			got := phasetest.Run(x, &e, func(x *phase.Exchange) {
				x.Attempts.Note(500)
				x.Response.Status = 500
			}, phase.Instance{Plugin: p})
			head, _, _ := strings.Cut(got, "\n\n")
			if strings.ContainsAny(head, "\r\x00") {
				t.Errorf("%q", got)
			}
			r.now += second
			g.now.Add(second)
		}
	})
}
