package limitreq

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"headgate/conf/resource"
	"headgate/conf/schema"
	"headgate/proxy/phase"
	"headgate/proxy/phase/limit/redis"
	"headgate/proxy/phase/phasetest"
)

// rig is the plugin with a clock that the test turns; it notes the delays.
type rig struct {
	*buckets
	now   int64
	slept time.Duration
}

func newRig() *rig {
	r := &rig{now: 1000e9}
	r.buckets = newBuckets(redis.MaxWait)
	r.clock = func() int64 { return r.now }
	r.sleep = func(_ *phase.Exchange, d time.Duration) phase.Verdict {
		r.slept += d
		return phase.Continue
	}
	return r
}

func (r *rig) build(t testing.TB, owner, conf string) *plugin {
	t.Helper()
	e := phasetest.Env{OwnerKey: owner}
	return e.Build(t, r.kind(), conf).(*plugin)
}

// visit tells status and delay of a request.
func (r *rig) visit(p *plugin, lines ...string) string {
	x := phasetest.Exchange("GET /", lines...)
	r.slept = 0
	var e phasetest.Env
	phasetest.Run(x, &e, phasetest.Reply(200, ""), phase.Instance{Plugin: p})
	return fmt.Sprint(x.Response.Status, " ", r.slept)
}

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
	for _, tt := range []struct{ conf, want string }{
		{`{"rate":0.5,"burst":0,"key":"remote_addr"}`, ""},
		{`{"rate":1,"burst":1.5,"key":"$a","key_type":"var_combination","policy":"redis","redis_host":"localhost"}`, ""},
		{`{"rate":0,"burst":0,"key":"a"}`, `property "rate" validation failed: expected 0 to be greater than 0`},
		{`{"rate":1,"burst":-1,"key":"a"}`, `property "burst" validation failed: expected -1 to be at least 0`},
		{`{"rate":1,"burst":0}`, `property "key" is required`},
		{`{"rate":1,"burst":0,"key":"a","key_type":"constant"}`, `property "key_type" validation failed: matches none of the enum values`},
		{`{"rate":1,"burst":0,"key":"a","policy":"redis"}`, `then clause did not match`},
		{`{"rate":1,"burst":0,"key":"a","policy":"redis-cluster"}`, `else clause did not match`},
		{`{"rate":1,"burst":0,"key":"a","rejected_msg":""}`, `property "rejected_msg" validation failed: string too short, expected at least 1, got 0`},
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
	type step struct {
		wait  time.Duration
		lines string
		want  string
	}
	const key = `,"key":"remote_addr","rejected_code":429`
	for _, tt := range []struct {
		conf  string
		steps []step
	}{
		{`{"rate":1,"burst":0` + key + `}`, []step{{0, "", "200 0s"}, {0, "", "429 0s"}, {999 * time.Millisecond, "", "429 0s"}, {time.Millisecond, "", "200 0s"}}},
		{`{"rate":4,"burst":4` + key + `}`, []step{{0, "", "200 0s"}, {0, "", "200 250ms"}, {0, "", "200 500ms"}, {500 * time.Millisecond, "", "200 250ms"},
			{0, "", "200 500ms"}, {0, "", "200 750ms"}, {0, "", "200 1s"}, {0, "", "429 0s"}, {time.Minute, "", "200 0s"}}},
		{`{"rate":1,"burst":2,"nodelay":true` + key + `}`, []step{{0, "", "200 0s"}, {0, "", "200 0s"}, {0, "", "200 0s"}, {0, "", "429 0s"}}},
		{`{"rate":2000,"burst":2` + key + `}`, []step{{0, "", "200 0s"}, {0, "", "200 0s"}, {0, "", "200 1ms"}, {0, "", "429 0s"}}}, // half a millisecond is no delay
		{`{"rate":1,"burst":0,"key":"$http_x_a","key_type":"var_combination","rejected_code":429}`,
			[]step{{0, "X-A: 1", "200 0s"}, {0, "X-A: 2", "200 0s"}, {0, "X-A: 1", "429 0s"}, {0, "", "200 0s"}, {0, "", "429 0s"}}},
	} {
		r := newRig()
		p := r.build(t, "routes/1", tt.conf)
		for i, s := range tt.steps {
			r.now += int64(s.wait)
			var lines []string
			if s.lines != "" {
				lines = append(lines, s.lines)
			}
			if got := r.visit(p, lines...); got != s.want {
				t.Errorf("%s\nrequest %d: got %s, want %s", tt.conf, i, got, s.want)
			}
		}
	}
}

func TestAnswers(t *testing.T) {
	for _, tt := range []struct{ conf, want, body string }{
		{`{"rate":1,"burst":0,"key":"remote_addr"}`, "503\nContent-Type: text/html; charset=utf-8\n\n", "<title>503 Service Temporarily Unavailable</title>"},
		{`{"rate":1,"burst":0,"key":"remote_addr","rejected_code":429,"rejected_msg":"no"}`,
			"429\nContent-Type: text/plain; charset=utf-8\n\n", "{\"error_msg\":\"no\"}\n"},
	} {
		r := newRig()
		p := r.build(t, "routes/1", tt.conf)
		r.visit(p)
		x := phasetest.Exchange("GET /")
		if v := p.Access(x); v != phase.Stop {
			t.Errorf("verdict %v", v)
		}
		if got := phasetest.Answer(x); !strings.HasPrefix(got, tt.want) || !strings.Contains(got, tt.body) {
			t.Errorf("got %q, want %q and %q", got, tt.want, tt.body)
		}
	}
}

func TestWhoSharesBuckets(t *testing.T) {
	r := newRig()
	const conf = `{"rate":1,"burst":0,"key":"remote_addr"}`
	for i, tt := range []struct{ owner, conf, want string }{
		{"routes/1", conf, "200 0s"}, {"routes/1", conf, "503 0s"}, {"routes/2", conf, "200 0s"},
		{"routes/1", strings.Replace(conf, "0", "0.5", 1), "200 0s"},
	} {
		if got := r.visit(r.build(t, tt.owner, tt.conf)); got != tt.want {
			t.Errorf("%d: got %s, want %s", i, got, tt.want)
		}
	}
}

func TestExactUnderConcurrency(t *testing.T) {
	r := newRig()
	p := r.build(t, "routes/1", `{"rate":0.001,"burst":999,"nodelay":true,"key":"remote_addr"}`)
	var passed atomic.Int64
	var done sync.WaitGroup
	for range 64 {
		done.Go(func() {
			x := phasetest.Exchange("GET /")
			for range 50 {
				if p.Access(x) == phase.Continue {
					passed.Add(1)
				}
			}
		})
	}
	done.Wait()
	if n := passed.Load(); n != 1000 {
		t.Errorf("%d passed", n)
	}
}

func FuzzConfig(f *testing.F) {
	f.Add(`{"rate":0.3,"burst":1e3,"key":"$uri$arg_a","key_type":"var_combination","nodelay":true}`, "a=1")
	f.Add(`{"rate":1e-300,"burst":0,"key":"arg_b","rejected_msg":"\"no\""}`, "b")
	s := compiled(f)
	f.Fuzz(func(t *testing.T, conf, query string) {
		doc, err := schema.DecodeJSON([]byte(conf))
		if err != nil || s.Validate(doc) != nil {
			return
		}
		r := newRig()
		var e phasetest.Env
		built, err := r.kind().Build([]byte(conf), &e)
		if err != nil {
			return
		}
		defer built.(*plugin).Close()
		if built.(*plugin).server != nil {
			return // what is counted elsewhere has tests of its own
		}
		x := phasetest.Exchange("GET /?" + query)
		for i := range 3 {
			v := built.(*plugin).Access(x)
			if i == 0 && v == phase.Stop {
				t.Error("the first request was refused")
			}
			if r.slept < 0 {
				t.Errorf("a delay of %v", r.slept)
			}
		}
	})
}
