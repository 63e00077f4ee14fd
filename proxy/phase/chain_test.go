package phase

import (
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"headgate/proxy/expr"
	"headgate/proxy/fault"
	"headgate/proxy/vars"
)

// probe takes part in every phase and writes down where it was.
type probe struct {
	name  string
	log   *[]string
	stop  string // the phase in which it answers
	panic string // the phase in which it panics
	err   error  // of Chunk
}

func (p *probe) at(x *Exchange, phase string) Verdict {
	*p.log = append(*p.log, p.name+"."+phase)
	switch phase {
	case p.panic:
		panic(p.name + " broke")
	case p.stop:
		x.Answer(403, TypeText, []byte(p.name))
		return Stop
	}
	return Continue
}

func (p *probe) Rewrite(x *Exchange) Verdict { return p.at(x, "rewrite") }
func (p *probe) Access(x *Exchange) Verdict  { return p.at(x, "access") }
func (p *probe) Send(x *Exchange) Verdict    { return p.at(x, "send") }
func (p *probe) Response(x *Exchange)        { p.at(x, "response") }
func (p *probe) Done(x *Exchange)            { p.at(x, "done") }
func (p *probe) Close()                      { *p.log = append(*p.log, p.name+".close") }

func (p *probe) Chunk(x *Exchange, b []byte, last bool) ([]byte, error) {
	p.at(x, "chunk")
	return append(slices.Clone(b), p.name...), p.err
}

// chain makes a chain of probes that log to log.
func chain(log *[]string, probes ...*probe) *Chain {
	var list []Instance
	for _, p := range probes {
		p.log = log
		list = append(list, Instance{Name: p.name, Plugin: p})
	}
	return NewChain(list)
}

// run takes x through all phases as the engine does.
func run(x *Exchange) {
	if x.RewriteGlobal() == Continue && x.Rewrite() == Continue && x.AccessGlobal() == Continue && x.Access() == Continue {
		x.Send()
	}
	x.Respond()
	if x.HasChunkers() {
		x.Response.Body, _ = x.Chunk(x.Response.Body, true)
	}
	x.Finish(func(any) {})
}

func TestOrderOfPhases(t *testing.T) {
	var log []string
	x := &Exchange{}
	x.Begin(&Settings{})
	c := chain(&log, &probe{name: "a"}, &probe{name: "b"})
	x.Enter(chain(&log, &probe{name: "g"}, &probe{name: "h"}), c)
	run(x)
	want := "g.rewrite h.rewrite a.rewrite b.rewrite g.access h.access a.access b.access g.send h.send a.send b.send " +
		"b.response a.response h.response g.response b.chunk a.chunk h.chunk g.chunk a.done b.done g.done h.done"
	if got := strings.Join(log, " "); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if string(x.Response.Body) != "bahg" {
		t.Errorf("body %q", x.Response.Body)
	}
	if x.Stopped() {
		t.Error("nobody stopped it")
	}
	log = nil
	for _, closer := range c.Closers {
		closer.Close()
	}
	if got := strings.Join(log, " "); got != "b.close a.close" {
		t.Errorf("closed in the order %s", got)
	}
	if !slices.Equal(c.Names, []string{"a", "b"}) {
		t.Errorf("names %v", c.Names)
	}
}

func TestStopEndsTheRequestPhasesOnly(t *testing.T) {
	for phase, want := range map[string]string{
		"rewrite": "a.rewrite a.response b.response",
		"access":  "a.rewrite b.rewrite a.access a.response b.response",
		"send":    "a.rewrite b.rewrite a.access b.access a.send a.response b.response",
	} {
		var log []string
		x := &Exchange{}
		x.Begin(&Settings{})
		x.Enter(nil, chain(&log, &probe{name: "a", stop: phase}, &probe{name: "b"}))
		run(x)
		// The order of the response phase has a test of its own.
		log = slices.DeleteFunc(log, func(s string) bool { return strings.HasSuffix(s, "chunk") || strings.HasSuffix(s, "done") })
		slices.Sort(log[len(log)-2:])
		if got := strings.Join(log, " "); got != want {
			t.Errorf("stop in %s: %s", phase, got)
		}
		if !x.Stopped() || x.Response.Status != 403 {
			t.Errorf("stop in %s: stopped %v, status %d", phase, x.Stopped(), x.Response.Status)
		}
	}
}

func TestWithoutChains(t *testing.T) {
	x := &Exchange{}
	x.Begin(&Settings{})
	run(x)
	if x.HasChunkers() || x.Stopped() {
		t.Error("there are no plugins")
	}
	if p, err := x.Chunk([]byte("p"), false); string(p) != "p" || err != nil {
		t.Errorf("a piece became %q, %v", p, err)
	}
}

func TestChunkErrorEndsTheBody(t *testing.T) {
	var log []string
	bad := errors.New("bad")
	x := &Exchange{}
	x.Enter(nil, chain(&log, &probe{name: "a"}, &probe{name: "b", err: bad}))
	if p, err := x.Chunk([]byte("p"), false); p != nil || err != bad {
		t.Errorf("%q, %v", p, err)
	}
	if got := strings.Join(log, " "); got != "b.chunk" {
		t.Errorf("asked %s", got)
	}
}

func TestFinishTellsEveryoneOnce(t *testing.T) {
	var log []string
	x := &Exchange{}
	x.Enter(chain(&log, &probe{name: "g"}), chain(&log, &probe{name: "a", panic: "done"}, &probe{name: "b", panic: "done"}, &probe{name: "c"}))
	var thrown []any
	for range 3 {
		x.Finish(func(r any) { thrown = append(thrown, r) })
	}
	if got := strings.Join(log, " "); got != "a.done b.done c.done g.done" {
		t.Errorf("told %s", got)
	}
	if !slices.Equal(thrown, []any{"a broke", "b broke"}) {
		t.Errorf("reported %v", thrown)
	}
	x.Reset()
	log = nil
	x.Enter(nil, chain(&log, &probe{name: "z"}))
	x.Finish(func(any) {})
	if got := strings.Join(log, " "); got != "z.done" {
		t.Errorf("the next exchange: told %s", got)
	}
}

// onlyDone is a plugin of one phase.
type onlyDone struct{}

func (onlyDone) Done(*Exchange) {}

func TestAPluginStandsOnlyInItsPhases(t *testing.T) {
	c := NewChain([]Instance{{Name: "d", Plugin: onlyDone{}}})
	if len(c.Rewriters)+len(c.Accessors)+len(c.Senders)+len(c.Responders)+len(c.Chunkers)+len(c.Closers) != 0 || len(c.Finishers) != 1 {
		t.Errorf("%+v", c)
	}
	if _, guarded := c.Finishers[0].(guardedFinisher); guarded {
		t.Error("a plugin without _meta pays for it")
	}
}

// asked is a condition that counts how often it is asked, and changes its mind each time.
type asked struct {
	n    int
	hold bool
}

func (a *asked) True(*Exchange) bool {
	a.n++
	return a.hold == (a.n%2 == 1)
}

func TestFilterDecidesOnceForAllPhases(t *testing.T) {
	for _, hold := range []bool{true, false} {
		var log []string
		when := &asked{hold: hold}
		x := &Exchange{}
		x.Begin(&Settings{})
		x.Response.Body = []byte("body")
		c := NewChainOf([]Instance{{Name: "a", Plugin: &probe{name: "a", log: &log}, When: when, Slot: 1}}, nil, SlotRange{Count: 2})
		x.Enter(nil, c)
		run(x)
		want := ""
		if hold {
			want = "a.rewrite a.access a.send a.response a.chunk a.done"
		}
		if got := strings.Join(log, " "); got != want {
			t.Errorf("filter %v: %s", hold, got)
		}
		if when.n != 1 {
			t.Errorf("filter %v: asked %d times", hold, when.n)
		}
		if !hold && string(x.Response.Body) != "body" {
			t.Errorf("a plugin that was passed over changed the body to %q", x.Response.Body)
		}
		x.Reset() // the next exchange asks again
		x.Enter(nil, c)
		x.Rewrite()
		if when.n != 2 {
			t.Errorf("filter %v: the next exchange did not ask", hold)
		}
	}
}

func TestErrorResponseReplacesAnswersOfThePlugin(t *testing.T) {
	answers := func(status int, v Verdict) accessFunc {
		return func(x *Exchange) Verdict {
			x.Response.Header.Set([]byte("X-Own"), []byte("1"))
			x.Answer(status, TypeHTML, []byte("own"))
			return v
		}
	}
	for _, tt := range []struct {
		name   string
		plugin accessFunc
		body   []byte
		want   string
	}{
		{"error", answers(429, Stop), []byte("custom"), "429 text/plain; charset=utf-8 custom"},
		{"empty text", answers(429, Stop), []byte{}, "429 text/plain; charset=utf-8 "},
		{"no error", answers(302, Stop), []byte("custom"), "302 text/html; charset=utf-8 own"},
		{"not stopped", answers(500, Continue), []byte("custom"), "500 text/html; charset=utf-8 own"},
		{"none given", answers(429, Stop), nil, "429 text/html; charset=utf-8 own"},
	} {
		x := &Exchange{}
		x.Begin(&Settings{})
		x.Enter(nil, NewChain([]Instance{{Name: "a", Plugin: tt.plugin, ErrorBody: tt.body, ErrorType: TypeText}}))
		x.Access()
		kind, _ := x.Response.Header.Get("Content-Type")
		own, _ := x.Response.Header.Get("X-Own")
		got := strconv.Itoa(x.Response.Status) + " " + string(kind) + " " + string(x.Response.Body)
		if got != tt.want || string(own) != "1" {
			t.Errorf("%s: %s, X-Own %q", tt.name, got, own)
		}
	}
}

type accessFunc func(x *Exchange) Verdict

func (f accessFunc) Access(x *Exchange) Verdict { return f(x) }

func TestPredicateReadsTheExchange(t *testing.T) {
	compile := func(text ...any) Predicate {
		p, err := CompilePredicate(text)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	x := sample()
	if !compile([]any{"arg_k", "==", "v"}, []any{"http_x_tag", "==", "1, 2, 3"}).True(x) {
		t.Error("a condition that holds does not")
	}
	if compile([]any{"consumer_name", "==", "jill"}).True(x) {
		t.Error("a condition that does not hold does")
	}
	if _, err := CompilePredicate([]any{[]any{"arg_k", "===", "v"}}); err == nil {
		t.Error("an unknown operator was taken")
	}
}

// every implements each phase without a byte of garbage of its own.
type every struct{ name, value []byte }

func (e *every) Rewrite(x *Exchange) Verdict {
	x.Request.Header.Set(e.name, x.Keep(e.value))
	x.Slot(0).Int++
	return Continue
}
func (e *every) Access(x *Exchange) Verdict {
	v, _ := x.Var(vars.TimeLocal, x.Arena())
	x.Commit(v)
	return Continue
}
func (e *every) Send(*Exchange) Verdict { return Continue }
func (e *every) Response(x *Exchange) {
	x.AnswerPage(502)
	x.Response.Header.Set(e.name, e.value)
	x.Response.Header.Del("X-None")
}
func (e *every) Chunk(_ *Exchange, p []byte, _ bool) ([]byte, error) { return p, nil }
func (e *every) Done(x *Exchange)                                    { x.Slot(0).Int-- }

func TestExchangeAllocs(t *testing.T) {
	filter, err := CompilePredicate([]any{[]any{"http_x_tag", "~~", "^a, b$"}, []any{"remote_addr", "==", "192.0.2.1"}})
	if err != nil {
		t.Fatal(err)
	}
	p := &every{[]byte("X-Tag"), []byte("a, b")}
	c := NewChainOf([]Instance{
		{Name: "a", Plugin: p},
		{Name: "b", Plugin: p, When: filter, Slot: 1, ErrorBody: []byte("e"), ErrorType: TypeText},
	}, nil, SlotRange{Count: 2})
	g := NewChain([]Instance{{Name: "g", Plugin: p}})
	settings := &Settings{}
	client := []byte("192.0.2.1")
	panicked := func(any) {}
	x := &Exchange{Scratch: expr.Scratch{}}
	cycle := func() {
		x.Start = time.Now()
		x.Begin(settings)
		x.Client.Text = client
		x.Request.Header.Add(p.name, p.value)
		x.Enter(g, c)
		if x.RewriteGlobal() == Stop || x.Rewrite() == Stop || x.AccessGlobal() == Stop || x.Access() == Stop || x.Send() == Stop {
			t.Fatal("stopped")
		}
		x.Fail(fault.ConnectFailed)
		x.Respond()
		if _, err := x.Chunk(x.Response.Body, true); err != nil || x.Slot(1).Int != holds {
			t.Fatal("the guarded plugin was passed over")
		}
		x.Finish(panicked)
		x.Reset()
	}
	cycle()
	if n := testing.AllocsPerRun(200, cycle); n != 0 && !raceEnabled {
		t.Errorf("an exchange allocates %v times", n)
	}
}

func BenchmarkCycle(b *testing.B) {
	p := &every{[]byte("X-Tag"), []byte("a, b")}
	c := NewChainOf([]Instance{{Name: "a", Plugin: p}}, nil, SlotRange{Count: 1})
	settings, x, panicked := &Settings{}, &Exchange{}, func(any) {}
	b.ReportAllocs()
	for b.Loop() {
		x.Begin(settings)
		x.Enter(nil, c)
		x.Rewrite()
		x.Access()
		x.Send()
		x.Respond()
		x.Finish(panicked)
		x.Reset()
	}
}
