package limitconn

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"headgate/conf/resource"
	"headgate/conf/schema"
	"headgate/proxy/fault"
	"headgate/proxy/phase"
	"headgate/proxy/phase/limit/redis"
	"headgate/proxy/phase/phasetest"
)

// rig is the plugin with a note of the delays.
type rig struct {
	*gauges
	mu    sync.Mutex
	slept time.Duration
}

func newRig() *rig {
	r := &rig{}
	r.gauges = newGauges(redis.MaxWait)
	r.clock = func() int64 { return 1 }
	r.sleep = func(_ *phase.Exchange, d time.Duration) phase.Verdict {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.slept += d
		return phase.Continue
	}
	return r
}

// guest is the plugin in a route of its own: exchanges begin and end when the test says so.
type guest struct {
	*rig
	p *plugin
	e phasetest.Env
}

func (r *rig) build(t testing.TB, owner, conf string) *guest {
	t.Helper()
	g := &guest{rig: r, e: phasetest.Env{OwnerKey: owner}}
	g.p = g.e.Build(t, r.kind(), conf).(*plugin)
	return g
}

// enter begins a request and tells "status delay", status 0 when it goes on.
func (g *guest) enter(lines ...string) (*phase.Exchange, string) {
	x := phasetest.Exchange("GET /", lines...)
	x.Enter(nil, phase.NewChainOf([]phase.Instance{{Plugin: g.p}}, nil, g.e.Slots))
	g.slept = 0
	x.Access()
	return x, fmt.Sprint(x.Response.Status, " ", g.slept)
}

func leave(x *phase.Exchange) { x.Finish(func(r any) { panic(r) }) }

func compiled(t testing.TB) *schema.Schema {
	t.Helper()
	s, err := schema.Compile(Kind(nil).Name, Kind(nil).Schema, resource.SchemaRefs()...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// The texts are those of the contract's recorded answers.
func TestRefusals(t *testing.T) {
	s := compiled(t)
	const noMatch = "value should match only one schema, but matches none"
	for _, tt := range []struct{ conf, want string }{
		{`{"conn":1,"burst":0,"default_conn_delay":0.1,"key":"a"}`, ""},
		{`{"conn":"$arg_a","burst":"${arg_b ?? 1}","default_conn_delay":1,"key":"$a","key_type":"var_combination"}`, ""},
		{`{"default_conn_delay":0.1,"rules":[{"conn":1,"burst":0,"key":"$a"}]}`, ""},
		{`{"burst":0,"default_conn_delay":0.1,"key":"a"}`, noMatch},
		{`{"conn":0,"burst":0,"default_conn_delay":0.1,"key":"a"}`, `property "conn" validation failed: ` + noMatch},
		{`{"conn":1,"burst":-1,"default_conn_delay":0.1,"key":"a"}`, `property "burst" validation failed: ` + noMatch},
		{`{"conn":1,"burst":0,"default_conn_delay":0,"key":"a"}`, `property "default_conn_delay" validation failed: expected 0 to be greater than 0`},
		{`{"conn":1,"burst":0,"key":"a"}`, `property "default_conn_delay" is required`},
		{`{"conn":1,"burst":0,"default_conn_delay":1,"key":"a","policy":"redis"}`, `then clause did not match`},
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

func TestLimits(t *testing.T) {
	r := newRig()
	g := r.build(t, "routes/1", `{"conn":2,"burst":3,"default_conn_delay":0.1,"only_use_default_delay":true,"key":"http_x_u","rejected_code":429}`)
	var inside []*phase.Exchange
	for i, want := range []string{"0 0s", "0 0s", "0 100ms", "0 100ms", "0 200ms", "429 0s", "429 0s"} {
		x, got := g.enter("X-U: 1")
		if got != want {
			t.Errorf("request %d: got %s, want %s", i, got, want)
		}
		inside = append(inside, x)
	}
	if _, got := g.enter("X-U: 2"); got != "0 0s" {
		t.Errorf("another key: %s", got)
	}
	for _, x := range inside { // the refused ones too: they were not counted
		leave(x)
		leave(x)
	}
	for i, want := range []string{"0 0s", "0 0s", "0 100ms"} {
		if _, got := g.enter("X-U: 1"); got != want {
			t.Errorf("request %d after all had left: got %s, want %s", i, got, want)
		}
	}
}

// A client that leaves while it is made to wait gives its place back, and says nothing of how long requests take.
func TestLeavesWhileItWaits(t *testing.T) {
	r := newRig()
	g := r.build(t, "routes/1", `{"conn":1,"burst":1,"default_conn_delay":0.1,"key":"http_x_u"}`)
	_, got := g.enter("X-U: 1")
	if got != "0 0s" {
		t.Fatal(got)
	}
	delay := r.sleep
	for range 3 {
		r.sleep = func(x *phase.Exchange, _ time.Duration) phase.Verdict { return x.Abandon(phase.InPlugin) }
		x, got := g.enter("X-U: 1")
		if got != "499 0s" || x.Fault != fault.ClientGone {
			t.Errorf("%s, %v", got, x.Fault)
		}
		leave(x)
	}
	r.sleep = delay
	if _, got := g.enter("X-U: 1"); got != "0 100ms" {
		t.Errorf("the next one: %s", got)
	}
}

func TestAnswers(t *testing.T) {
	for _, tt := range []struct{ msg, want, body string }{
		{``, "503\nContent-Type: text/html; charset=utf-8\n\n", "<title>503 Service Temporarily Unavailable</title>"},
		{`,"rejected_code":429,"rejected_msg":"busy"`, "429\nContent-Type: text/plain; charset=utf-8\n\n", "{\"error_msg\":\"busy\"}\n"},
	} {
		g := newRig().build(t, "routes/1", `{"conn":1,"burst":0,"default_conn_delay":0.1,"key":"remote_addr"`+tt.msg+`}`)
		g.enter()
		x, _ := g.enter()
		if got := phasetest.Answer(x); !x.Stopped() || !strings.HasPrefix(got, tt.want) || !strings.Contains(got, tt.body) {
			t.Errorf("got %q, want %q and %q", got, tt.want, tt.body)
		}
	}
}

func TestRulesAndTemplates(t *testing.T) {
	type step struct{ lines, want string }
	for _, tt := range []struct {
		conf  string
		steps []step
	}{
		{`{"conn":"${http_x_n ?? 1}","burst":"0","default_conn_delay":1,"key":"remote_addr"}`,
			[]step{{"X-N: 2", "0 0s"}, {"", "503 0s"}, {"X-N: 2", "0 0s"}, {"X-N: 0", "500 0s"}, {"X-N: x", "500 0s"}}},
		{`{"conn":"$http_x_n","burst":0,"default_conn_delay":1,"key":"remote_addr","allow_degradation":true}`,
			[]step{{"", "0 0s"}, {"X-N: 1", "0 0s"}, {"X-N: 1", "503 0s"}}},
		{`{"default_conn_delay":1,"rules":[{"conn":1,"burst":0,"key":"$http_x_a"},{"conn":2,"burst":0,"key":"$http_x_b"}]}`,
			[]step{{"", "500 0s"}, {"X-A: 1", "0 0s"}, {"X-A: 1", "503 0s"}, {"X-A: 2|X-B: 1", "0 0s"}, {"X-B: 1", "0 0s"}, {"X-B: 1", "503 0s"}}},
		{`{"default_conn_delay":1,"rules":[]}`, []step{{"", "500 0s"}}},
	} {
		g := newRig().build(t, "routes/1", tt.conf)
		for i, s := range tt.steps {
			var lines []string
			if s.lines != "" {
				lines = strings.Split(s.lines, "|")
			}
			x, got := g.enter(lines...)
			if got != s.want {
				t.Errorf("%s\nrequest %d: got %s, want %s", tt.conf, i, got, s.want)
			}
			if x.Stopped() {
				leave(x)
			}
		}
	}
}

// The unit follows how long requests take: each one is half of the new mean.
func TestUnitAdapts(t *testing.T) {
	g := newRig().build(t, "routes/1", `{"conn":1,"burst":5,"default_conn_delay":0.2,"key":"remote_addr"}`)
	first, _ := g.enter()
	x, got := g.enter()
	if got != "0 200ms" {
		t.Errorf("got %s", got)
	}
	x.Attempts.Note(200)
	x.Attempts.Begun, x.Attempts.End = 100*time.Millisecond, 500*time.Millisecond
	leave(x)
	if _, got = g.enter(); got != "0 300ms" { // the mean of 0.2 and 0.4
		t.Errorf("got %s", got)
	}
	first.Start = time.Now().Add(-time.Hour) // without an attempt the time of the request counts
	leave(first)
	if u := g.p.unit.times(1); u < 30*time.Minute || u > 31*time.Minute {
		t.Errorf("the unit is %v", u)
	}
	if u := g.p.unit.times(1 << 40); u != time.Hour {
		t.Errorf("the longest delay is %v", u)
	}
}

// An edit of something else leaves those in flight counted.
func TestWhoSharesGauges(t *testing.T) {
	r := newRig()
	const conf = `{"conn":1,"burst":0,"default_conn_delay":0.1,"key":"remote_addr"}`
	a, b := r.build(t, "routes/1", conf), r.build(t, "routes/1", conf)
	x, _ := a.enter()
	if _, got := b.enter(); got != "503 0s" {
		t.Errorf("another instance of it: %s", got)
	}
	if _, got := r.build(t, "routes/2", conf).enter(); got != "0 0s" {
		t.Errorf("another document: %s", got)
	}
	leave(x)
	if _, got := b.enter(); got != "0 0s" {
		t.Errorf("after it has left: %s", got)
	}
}

func TestExactUnderConcurrency(t *testing.T) {
	g := newRig().build(t, "routes/1", `{"conn":5,"burst":0,"default_conn_delay":0.1,"key":"remote_addr"}`)
	chain := phase.NewChainOf([]phase.Instance{{Plugin: g.p}}, nil, g.e.Slots)
	var inside, most, passed atomic.Int64
	var done sync.WaitGroup
	for range 64 {
		done.Go(func() {
			for range 50 {
				x := phasetest.Exchange("GET /")
				x.Enter(nil, chain)
				if x.Access() == phase.Continue {
					passed.Add(1)
					now := inside.Add(1)
					for m := most.Load(); now > m && !most.CompareAndSwap(m, now); m = most.Load() {
					}
					inside.Add(-1)
				}
				leave(x)
			}
		})
	}
	done.Wait()
	if most.Load() > 5 || passed.Load() == 0 {
		t.Errorf("%d at once, %d passed", most.Load(), passed.Load())
	}
	for i, want := range []string{"0 0s", "0 0s", "0 0s", "0 0s", "0 0s", "503 0s"} {
		if _, got := g.enter(); got != want {
			t.Errorf("request %d afterwards: got %s, want %s", i, got, want)
		}
	}
}

func FuzzConfig(f *testing.F) {
	f.Add(`{"conn":"$arg_a","burst":1e1,"default_conn_delay":0.001,"key":"$uri","key_type":"var_combination"}`, "a=2")
	f.Add(`{"default_conn_delay":1e300,"rules":[{"conn":1,"burst":"9","key":"$arg_a"}],"rejected_msg":"x","allow_degradation":true}`, "a")
	s := compiled(f)
	f.Fuzz(func(t *testing.T, conf, query string) {
		doc, err := schema.DecodeJSON([]byte(conf))
		if err != nil || s.Validate(doc) != nil {
			return
		}
		r := newRig()
		e := phasetest.Env{}
		built, err := r.kind().Build([]byte(conf), &e)
		if err != nil {
			return
		}
		defer built.(*plugin).Close()
		if built.(*plugin).server != nil {
			return // what is counted elsewhere has tests of its own
		}
		chain := phase.NewChainOf([]phase.Instance{{Plugin: built}}, nil, e.Slots)
		for range 2 {
			var all []*phase.Exchange
			for range 3 {
				x := phasetest.Exchange("GET /?" + query)
				x.Enter(nil, chain)
				x.Access()
				all = append(all, x)
			}
			for _, x := range all {
				leave(x)
			}
		}
		x := phasetest.Exchange("GET /?" + query)
		x.Enter(nil, chain)
		if x.Access() == phase.Stop && x.Response.Status == 503 {
			t.Error("somebody has not left")
		}
		if r.slept < 0 {
			t.Errorf("a delay of %v", r.slept)
		}
	})
}
