package balancer

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// gateRig is a set of gates with a clock that the test turns.
type gateRig struct {
	*Gates
	now atomic.Int64
}

func newGateRig() *gateRig {
	r := &gateRig{}
	r.now.Store(int64(1000 * time.Second))
	r.Gates = NewGates(r.now.Load)
	return r
}

func (r *gateRig) pass(d time.Duration) { r.now.Add(int64(d)) }

func (r *gateRig) endpoint(name string) *Gate {
	return r.Acquire(Target{Scope: OfEndpoint, Name: name})
}

func (r *gateRig) branch(name string) *Gate {
	return r.Acquire(Target{Scope: OfBranch, Owner: "routes/1", Name: name})
}

// rules are the defaults of the tests: 5xx fails, all below 500 succeeds.
func rules(change func(r *Rules)) *Rules {
	r := &Rules{Failures: 3, Successes: 2, Longest: 300 * time.Second, Probes: 1, MinRequests: 1}
	for s := 200; s < 600; s++ {
		r.Healthy[s], r.Unhealthy[s] = s < 500, s >= 500
	}
	if change != nil {
		change(r)
	}
	return r
}

// use is a request that comes to g; it says what g said.
func use(g *Gate, r *Rules, o Outcome) Admission {
	a := g.Admit(0)
	if a != Refused {
		g.Record(r, o, a == Probing)
	}
	if a == Probing {
		g.Leave()
	}
	return a
}

// history plays a script of words: a status is a request that is answered so, 200/50ms one that takes so long, +2s lets time pass, and
// "=open" checks the state. A request that is refused must be written as "-".
func history(t *testing.T, r *gateRig, g *Gate, rules *Rules, script string) {
	t.Helper()
	for i, word := range strings.Fields(script) {
		fail := func(format string, args ...any) {
			t.Helper()
			t.Fatalf("%s\nword %d, %s: %s", script, i, word, fmt.Sprintf(format, args...))
		}
		switch {
		case word[0] == '+':
			d, err := time.ParseDuration(word[1:])
			if err != nil {
				fail("%v", err)
			}
			r.pass(d)
		case word[0] == '=':
			if got := g.View().State.String(); got != word[1:] {
				fail("the state is %s", got)
			}
		case word == "-":
			if a := use(g, rules, Outcome{}); a != Refused {
				fail("admitted")
			}
		default:
			var o Outcome
			status, took, _ := strings.Cut(word, "/")
			if _, err := fmt.Sscan(status, &o.Status); err != nil {
				fail("%v", err)
			}
			if took != "" {
				o.Took, _ = time.ParseDuration(took)
			}
			if a := use(g, rules, o); a == Refused {
				fail("refused")
			}
		}
	}
}

func TestGateHistories(t *testing.T) {
	ratio := rules(func(r *Rules) { r.Failures, r.Window, r.MinRequests, r.ErrorRatio = 0, 10*time.Second, 4, 0.5 })
	slow := rules(func(r *Rules) {
		r.Failures, r.Window, r.MinRequests, r.SlowRatio, r.Slow = 0, 10*time.Second, 4, 0.5, 50*time.Millisecond
	})
	ramp := rules(func(r *Rules) { r.Failures, r.Successes, r.Ramp = 1, 1, 10*time.Second })
	for _, tt := range []struct {
		name   string
		rules  *Rules
		script string
	}{
		{"failures break it for 2 s, then a probe passes", rules(nil), "500 500 =closed 503 =open - +1999ms - +1ms =half-open 200 200 =closed 500 500 =closed"},
		{"twice as long each time", rules(nil), "500 500 500 +2s 500 =open +3999ms - +1ms 200 500 +7999ms - +1ms 200 200 =closed 500 500 500 +2s 200"},
		{"not longer than allowed", rules(func(r *Rules) { r.Failures, r.Longest = 1, 3*time.Second }), "500 +2s 500 +2999ms - +1ms 500 +2999ms - +1ms 200"},
		{"successes in a row forget", rules(nil), "500 500 200 200 500 500 =closed 200 500 =open"},
		{"what is neither counts for nothing", rules(nil), "500 100 500 100 100 500 =open"},
		{"a probe that says nothing", rules(nil), "500 500 500 +2s 100 100 =half-open 200 100 200 =closed"},
		{"error ratio", ratio, "200 200 500 500 =open"},
		{"the ratio is reached by the number of requests", ratio, "500 500 500 =closed 200 =open"},
		{"below the ratio", ratio, "200 200 500 200 500 200 500 200 500 =closed"},
		{"the window forgets", ratio, "500 500 500 +11s 200 200 200 200 =closed"},
		{"and does not forget too early", ratio, "500 500 500 +8s 200 =open"},
		{"a new window after recovery", ratio, "500 500 500 500 +2s 200 200 =closed 200 500 200 =closed"},
		{"slow answers", slow, "200/50ms 200/1ms 200/1ms =closed 200/1s =open"},
		{"fast enough", slow, "200/49ms 200/49ms 200/49ms 200/49ms 500/1ms =closed"},
		{"a slow probe fails", slow, "200/1s 200/1s 200/1s 200/1s +2s 200/1s =open +2s - +2s 200 200 =closed"},
		{"recovers gradually", ramp, "500 +2s 200 =recovering +5s =recovering +5s =closed 200 =closed"},
		{"a relapse lasts longer", ramp, "500 +2s 200 +1s 500 =open +3999ms - +1ms 200 =recovering"},
		{"what was sent before it broke says nothing", ramp, "500 +2s 200 +1s 500/30s =recovering 500/900ms =open"},
	} {
		r := newGateRig()
		g := r.endpoint("10.0.0.1:80")
		t.Run(tt.name, func(t *testing.T) { history(t, r, g, tt.rules, tt.script) })
	}
}

// TestTransitions: what operators read, in order.
func TestTransitions(t *testing.T) {
	r := newGateRig()
	g := r.branch("v2")
	history(t, r, g, rules(func(r *Rules) { r.Ramp = time.Second }), "500 500 502 +2s 503 +4s 200 200 +1s 200")
	close(r.events)
	var got []string
	for e := range r.Events() {
		got = append(got, e.String())
	}
	want := `branch v2 of routes/1 is open for 2s (was closed): 3 failures, the last one status 502
branch v2 of routes/1 is half-open (was open): its time has passed
branch v2 of routes/1 is open for 4s (was half-open): a probe failed with status 503
branch v2 of routes/1 is half-open (was open): its time has passed
branch v2 of routes/1 is recovering (was half-open): 2 probes succeeded
branch v2 of routes/1 is closed (was recovering): its time has passed`
	if s := strings.Join(got, "\n"); s != want {
		t.Errorf("got\n%s\nwant\n%s", s, want)
	}
	for _, tt := range []struct {
		t    Target
		want string
	}{
		{Target{OfRoute, "routes/1", ""}, "routes/1"}, {Target{OfEndpoint, "", "[::1]:80"}, "endpoint [::1]:80"},
		{Target{OfBranch, "", "v2"}, "branch v2 of every split"}, {Target{OfBranch, "routes/1", "a\nb"}, `branch "a\nb" of routes/1`},
	} {
		if got := tt.t.String(); got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
	for _, tt := range []struct {
		r    Reason
		want string
	}{
		{Reason{Kind: ErrorRatio, Count: 5, Of: 10, Status: 500}, "5 of 10 requests failed, the last one with status 500"},
		{Reason{Kind: SlowRatio, Count: 5, Of: 10}, "5 of 10 requests were slow"},
		{Reason{Kind: ProbeFailed, Slow: true}, "a probe was slow"},
	} {
		if got := tt.r.String(); got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
}

// TestOldNews: what ends after a target has recovered says nothing when it was sent before, however soon its head had come.
func TestOldNews(t *testing.T) {
	r := newGateRig()
	g := r.endpoint("10.0.0.1:80")
	rl := rules(func(r *Rules) {
		r.Failures, r.Successes, r.Ramp, r.Window, r.MinRequests = 1, 1, time.Hour, time.Hour, 1000
	})
	history(t, r, g, rl, "500 +2s 200 =recovering +1s")
	g.Record(rl, Outcome{Status: 500, Took: time.Millisecond, Ago: time.Minute}, false)
	if s := g.View().State; s != Recovering {
		t.Errorf("it is %v", s)
	}
	g.Record(rl, Outcome{Status: 500, Took: time.Millisecond, Ago: 500 * time.Millisecond}, false)
	if s := g.View().State; s != Open {
		t.Errorf("it is %v", s)
	}
}

// TestGateUnderConcurrency: of 64 goroutines, exactly the deciding failure breaks it, once, and exactly as many probes as allowed are
// under way.
func TestGateUnderConcurrency(t *testing.T) {
	const goroutines, each = 64, 100
	for _, tt := range []struct {
		name string
		*Rules
	}{
		{"failures", rules(func(r *Rules) { r.Failures, r.Probes = goroutines*each+1, 5 })},
		{"ratio", rules(func(r *Rules) {
			r.Failures, r.Probes, r.Window, r.ErrorRatio, r.MinRequests = 0, 5, 10*time.Second, 1, goroutines*each+1
		})},
	} {
		r := newGateRig()
		g := r.endpoint("10.0.0.1:80")
		all := func(f func()) {
			var done sync.WaitGroup
			for range goroutines {
				done.Go(f)
			}
			done.Wait()
		}
		all(func() {
			for range each {
				use(g, tt.Rules, Outcome{Status: 500})
			}
		})
		if s := g.View().State; s != Closed {
			t.Fatalf("%s: %v one failure too early", tt.name, s)
		}
		all(func() { g.Record(tt.Rules, Outcome{Status: 500}, false) })
		if s, n := g.View().State, len(r.events); s != Open || n != 1 {
			t.Fatalf("%s: %v after %d transitions", tt.name, s, n)
		}
		r.pass(3 * time.Second)
		var probes, refused atomic.Int64
		all(func() {
			switch g.Admit(0) {
			case Probing:
				probes.Add(1)
			case Refused:
				refused.Add(1)
			}
		})
		if probes.Load() != 5 || refused.Load() != goroutines-5 {
			t.Errorf("%s: %d probes are under way and %d requests were refused", tt.name, probes.Load(), refused.Load())
		}
		for range 5 {
			g.Leave()
		}
		if a := g.Admit(0); a != Probing {
			t.Errorf("%s: no probe after all have ended: %v", tt.name, a)
		}
	}
}

// TestGateComesBack: whatever happens at the same time, no probe is lost and the gate comes back.
func TestGateComesBack(t *testing.T) {
	r := newGateRig()
	g := r.endpoint("10.0.0.1:80")
	rl := rules(func(r *Rules) { r.Failures, r.Successes, r.Probes, r.Ramp = 2, 1, 3, time.Second })
	var done sync.WaitGroup
	for range 16 {
		done.Go(func() {
			for range 500 {
				use(g, rl, Outcome{Status: 200 + 300*rand.IntN(2)})
				r.pass(100 * time.Millisecond)
			}
		})
	}
	done.Wait()
	if n := g.probes.Load(); n != 0 {
		t.Fatalf("%d probes are under way", n)
	}
	r.pass(time.Hour)
	for range 2 {
		use(g, rl, Outcome{Status: 200})
		r.pass(time.Hour)
	}
	use(g, rl, Outcome{Status: 200})
	if v := g.View(); v.State != Closed || v.Share != 1 || !g.Whole() || r.troubled[OfEndpoint].Load() != 0 {
		t.Errorf("%+v, %d troubled", v, r.troubled[OfEndpoint].Load())
	}
}

// TestWithoutRules: a broken target comes back although nobody has rules any more, since the breaker was taken out of the configuration.
func TestWithoutRules(t *testing.T) {
	r := newGateRig()
	g := r.endpoint("10.0.0.1:80")
	history(t, r, g, rules(nil), "500 500 500 +2s =half-open")
	history(t, r, g, nil, "200 200 =closed 500 500 500 500 =closed")
}

func TestWindow(t *testing.T) {
	var w window
	const length = 10 * time.Second
	now := int64(500 * time.Second)
	for range 100_000 { // more than one part can hold
		w.add(now, length, true, false)
		w.add(now, length, false, true)
	}
	if s := w.add(now, length, true, false); s.total < 1<<15 || s.failed*2 < s.total-s.total/50 || s.slow*2 < s.total-s.total/50 {
		t.Errorf("the ratios are lost: %+v", s)
	}
	for step := range 11 {
		s := w.add(now+int64(step)*int64(time.Second), length, false, false)
		if old := step < 10; (s.failed > 0) != old {
			t.Errorf("%d s later: %+v", step, s)
		}
	}
}

func TestGateAllocates(t *testing.T) {
	r := newGateRig()
	g := r.endpoint("10.0.0.1:80")
	rl := rules(func(r *Rules) {
		r.Successes, r.Window, r.ErrorRatio, r.SlowRatio, r.Slow, r.MinRequests = 1, 10*time.Second, 1, 1, time.Second, 1000
	})
	use(g, rl, Outcome{Status: 200})
	status := 200
	if n := testing.AllocsPerRun(1000, func() {
		use(g, rl, Outcome{Status: status})
		status = 700 - status
		r.pass(10 * time.Millisecond)
	}); n != 0 || g.View().State != Closed {
		t.Errorf("%v allocations, %v", n, g.View().State)
	}
	history(t, r, g, rl, "500 500 500 =open")
	if n := testing.AllocsPerRun(100, func() { g.Admit(1); g.Enter() }); n != 0 {
		t.Errorf("%v allocations while it is open", n)
	}
}
