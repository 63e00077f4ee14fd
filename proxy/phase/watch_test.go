package phase

import (
	"sync/atomic"
	"testing"
	"time"

	"headgate/balancer"
	"headgate/proxy/fault"
)

// watched is an exchange that a probe of each kind of gate has been admitted for.
func watched(t *testing.T) (*Exchange, [balancer.Scopes]*balancer.Gate, *balancer.Rules) {
	t.Helper()
	var now atomic.Int64
	now.Store(int64(1000 * time.Second))
	set := balancer.NewGates(now.Load)
	rules := &balancer.Rules{Failures: 1, Successes: 1, Probes: 1, Longest: time.Minute}
	for s := 200; s < 600; s++ {
		rules.Healthy[s], rules.Unhealthy[s] = s < 500, s >= 500
	}
	x := &Exchange{Start: time.Now()}
	x.Begin(&Settings{})
	var gates [balancer.Scopes]*balancer.Gate
	for s := range gates {
		g := set.Acquire(balancer.Target{Scope: balancer.Scope(s), Owner: "routes/1", Name: "a"})
		g.Record(rules, balancer.Outcome{Status: 500}, false)
		gates[s] = g
	}
	now.Add(int64(2 * time.Second))
	for _, g := range gates {
		x.EnterGate(g, g.Admit(0))
	}
	return x, gates, rules
}

// TestSettle: the gates of the route and of the branch hear what the attempts came to, and what was no fault of theirs says nothing. In any
// case a probe ends once.
func TestSettle(t *testing.T) {
	for _, tt := range []struct {
		name     string
		attempts []int
		fault    *fault.Fault
		want     balancer.State
	}{
		{"a success", []int{200}, nil, balancer.Closed},
		{"the last attempt counts", []int{502, 200}, nil, balancer.Closed},
		{"a failure", []int{200, 503}, nil, balancer.Open},
		{"no attempt", nil, nil, balancer.HalfOpen},
		{"the client's fault", []int{503}, fault.ClientGone, balancer.HalfOpen},
		{"an attempt that the client has ended", []int{0}, nil, balancer.HalfOpen},
	} {
		x, gates, _ := watched(t)
		for _, s := range tt.attempts {
			x.Attempts.Note(s)
		}
		x.Fault = tt.fault
		x.Settle()
		x.Settle() // nothing is left to be told
		x.Finish(func(r any) { t.Error(r) })
		for s, g := range gates {
			want := tt.want
			if balancer.Scope(s) == balancer.OfEndpoint { // whoever sends settles it
				want = balancer.HalfOpen
			}
			if v := g.View(); v.State != want || v.Probes != 0 {
				t.Errorf("%s: the %v is %v, %d probes are under way", tt.name, g.Scope, v.State, v.Probes)
			}
		}
	}
}

// hanging is a body that is still to come.
type hanging struct{ Stream }

func (hanging) Close() {}

// TestSettleBody: an answer is as good as its body turns out to be, but a failure is one at once, and a probe does not wait for it.
func TestSettleBody(t *testing.T) {
	const closed, open, recovering = balancer.Closed, balancer.Open, balancer.Recovering
	for _, tt := range []struct {
		name   string
		status int
		fault  *fault.Fault
		probe  bool
		atHead balancer.State
		atEnd  balancer.State
		counts bool // with the head; else with the end
	}{
		{"whole", 200, nil, false, closed, closed, false},
		{"cut", 200, fault.BodyCut, false, closed, open, false},
		{"late", 200, fault.ReadTimeout, false, closed, open, false},
		{"the client's doing", 200, fault.ClientGone, false, closed, closed, false},
		{"a failure", 500, nil, false, open, open, true},
		{"a failure that is cut, too", 500, fault.BodyCut, false, open, open, true},
		{"a probe", 200, nil, true, recovering, recovering, true},
		{"a probe that is cut", 200, fault.BodyCut, true, recovering, open, true},
		{"a tunnel", 101, nil, false, closed, closed, true},
	} {
		var now atomic.Int64
		now.Store(int64(1000 * time.Second))
		set := balancer.NewGates(now.Load)
		rules := &balancer.Rules{Failures: 1, Successes: 1, Probes: 1, Longest: time.Minute, Ramp: time.Hour, Window: time.Hour, MinRequests: 1000}
		for s := 100; s < 600; s++ {
			rules.Healthy[s], rules.Unhealthy[s] = s < 500, s >= 500
		}
		for scope := range balancer.Scopes {
			g := set.Acquire(balancer.Target{Scope: scope, Owner: "routes/1", Name: tt.name})
			if tt.probe {
				g.Record(rules, balancer.Outcome{Status: 500}, false)
				now.Add(int64(2 * time.Second))
			}
			x := &Exchange{Start: time.Now()}
			x.Begin(&Settings{})
			x.Judge(scope, rules)
			x.EnterGate(g, g.Admit(0))
			x.Attempts.Note(tt.status)
			x.Response.Status, x.Response.Stream = tt.status, hanging{}
			settle := func() {
				if x.Settle(); scope == balancer.OfEndpoint {
					x.SettleEndpoint(g, balancer.Outcome{Status: tt.status})
				}
			}
			settle()
			v := g.View()
			if v.State != tt.atHead || v.Probes != 0 || v.Judged != (tt.counts || tt.probe) {
				t.Errorf("%s: with the head the %v is %v: %+v", tt.name, scope, v.State, v)
			}
			x.Fault = tt.fault
			x.SettleBody()
			x.Finish(func(r any) { t.Error(r) })
			if v = g.View(); v.State != tt.atEnd || !v.Judged {
				t.Errorf("%s: in the end the %v is %v: %+v", tt.name, scope, v.State, v)
			}
			if v.State == open && tt.status < 500 && v.Last.Why.Status != tt.fault.Status {
				t.Errorf("%s: the %v: %v", tt.name, scope, v.Last.Why)
			}
		}
	}
}

// TestEndpointProbes: with every attempt the probe of the one before ends.
func TestEndpointProbes(t *testing.T) {
	x, gates, rules := watched(t)
	g := gates[balancer.OfEndpoint]
	if g.Admit(0) != balancer.Refused {
		t.Fatal("two probes at a time")
	}
	x.LeaveEndpoint()
	a := g.Admit(0)
	if a != balancer.Probing {
		t.Fatalf("%v after the probe has ended", a)
	}
	x.EnterGate(g, a)
	x.Judge(balancer.OfEndpoint, rules)
	x.SettleEndpoint(g, balancer.Outcome{Status: 200})
	if v := g.View(); v.State != balancer.Closed || v.Probes != 0 {
		t.Errorf("%+v", v)
	}
}

func TestAnswerLater(t *testing.T) {
	for _, tt := range []struct {
		wait time.Duration
		want string
	}{{0, "1"}, {time.Millisecond, "1"}, {time.Second, "1"}, {time.Second + 1, "2"}, {time.Hour, "3600"}} {
		x := &Exchange{}
		x.Begin(&Settings{})
		x.AnswerLater(fault.Quarantined, tt.wait)
		v, _ := x.Response.Header.Get("Retry-After")
		if string(v) != tt.want || x.Response.Status != 503 || x.Fault != fault.Quarantined || x.Response.Source != FromGateway {
			t.Errorf("%v: Retry-After %s, status %d, %v", tt.wait, v, x.Response.Status, x.Fault)
		}
	}
	if g := (&Exchange{}).RouteGate(); g != nil {
		t.Error("a gate without a route")
	}
}
