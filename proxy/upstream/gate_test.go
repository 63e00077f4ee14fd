package upstream

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"headgate/balancer"
	"headgate/conf/resource"
	"headgate/proxy/fault"
	"headgate/proxy/meter"
	"headgate/proxy/phase"
)

const busy = "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"

// breakable gives r's hub gates whose clock the test turns, and returns rules by which two failures break an endpoint.
func (r *rig) breakable() (now *atomic.Int64, rules *balancer.Rules) {
	now = &atomic.Int64{}
	now.Store(int64(1000 * time.Second))
	r.hub.gates = balancer.NewGates(now.Load)
	rules = &balancer.Rules{Failures: 2, Successes: 1, Probes: 1, Longest: time.Minute}
	for s := 200; s < 600; s++ {
		rules.Healthy[s], rules.Unhealthy[s] = s < 500, s >= 500
	}
	return now, rules
}

// ask sends a request whose endpoints are judged by rules.
func ask(u *Upstream, rules *balancer.Rules) (*phase.Exchange, result) {
	x := request(http.MethodGet, "/", "")
	x.Judge(balancer.OfEndpoint, rules)
	return x, do(u, x)
}

// TestJudging: what an attempt comes to counts for the endpoint that it was made at, also when another one answers in the end.
func TestJudging(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		broken func(t testing.TB) *server
		status int // what counts
	}{
		{"an answer", func(t testing.TB) *server { return serve(t, answers(busy)) }, 503},
		{"refused", refused, 502},
		{"closed", closer, 502},
	} {
		r := newRig(t)
		_, rules := r.breakable()
		bad, good := tt.broken(t), serve(t, answers(ok2))
		u := r.upstream(nil, bad, good)
		for range 4 {
			ask(u, rules)
		}
		v, other := u.nodes[0].gate.View(), u.nodes[1].gate.View()
		if v.State != balancer.Open || v.Last.Why.Status != tt.status || other.State != balancer.Closed || !other.Judged {
			t.Errorf("%s: %+v, the other one %+v", tt.name, v, other)
		}
		before := len(bad.seen())
		for range 20 {
			if x, got := ask(u, rules); got.status != 200 || x.Attempts.Count != 1 {
				t.Errorf("%s: %d after %d attempts", tt.name, got.status, x.Attempts.Count)
			}
			if got := get(u); got.status != 200 { // nor do requests without rules go there
				t.Errorf("%s: %d", tt.name, got.status)
			}
		}
		if n := len(bad.seen()) - before; n != 0 {
			t.Errorf("%s: %d requests went to the broken endpoint", tt.name, n)
		}
		// Alone, it is used.
		alone := r.upstream(nil, bad)
		if x, _ := ask(alone, rules); x.Attempts.Count != 1 {
			t.Errorf("%s: the only endpoint was not tried", tt.name)
		}
	}
}

// cutter begins an answer and hangs up in its midst.
func cutter(t testing.TB) *server { return serve(t, once(chunkedHead+"2\r\nab\r\n")) }

// TestJudgingBodies: an endpoint whose answers are cut breaks, although their heads are fine; what becomes of the client says nothing.
func TestJudgingBodies(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	_, rules := r.breakable()
	bad := cutter(t)
	u := r.upstream(nil, bad, serve(t, answers(ok2)))
	finish := func(x *phase.Exchange, f *fault.Fault) {
		x.Fault = f
		x.SettleBody()
	}
	for range 8 {
		x, got := ask(u, rules)
		if f, ok := got.cut.(*fault.Fault); ok {
			finish(x, f)
		} else {
			finish(x, nil)
		}
	}
	if v := u.nodes[0].gate.View(); v.State != balancer.Open || v.Last.Why.Status != 502 || len(bad.seen()) != 2 {
		t.Errorf("%+v after %d requests", v, len(bad.seen()))
	}
	left := r.upstream(nil, cutter(t))
	for range 8 {
		x, _ := ask(left, rules)
		finish(x, fault.ClientGone)
	}
	if v := left.nodes[0].gate.View(); v.State != balancer.Closed || !v.Judged {
		t.Errorf("%+v", v)
	}
}

// TestJudgingWhatIsRepeated: an answer that is dropped in favour of another node's counts for its endpoint all the same.
func TestJudgingWhatIsRepeated(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	_, rules := r.breakable()
	bad := serve(t, answers(busy))
	u := r.upstream(func(d *resource.Upstream) { d.Retry = &resource.Retry{Statuses: []int{503}} }, bad, serve(t, answers(ok2)))
	u.budget.percent = 100
	for range 10 {
		_, got := ask(u, rules)
		got.want(t, 200, "ok")
	}
	if v := u.nodes[0].gate.View(); v.State != balancer.Open || len(bad.seen()) != 2 {
		t.Errorf("%+v after %d requests", v, len(bad.seen()))
	}
}

// TestProbesOfAnEndpoint: of 32 requests at a time one tries the endpoint out, and the others go elsewhere. What the probe comes to decides.
func TestProbesOfAnEndpoint(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	now, rules := r.breakable()
	var ill atomic.Bool
	ill.Store(true)
	var probed, elsewhere atomic.Int64
	hold := make(chan struct{})
	bad := serve(t, func(p *peer) {
		for _, ok := p.next(); ok; _, ok = p.next() {
			if ill.Load() {
				p.send(busy)
				continue
			}
			probed.Add(1)
			<-hold
			p.send(ok2)
		}
	})
	u := r.upstream(nil, bad, serve(t, func(p *peer) {
		for _, ok := p.next(); ok; _, ok = p.next() {
			elsewhere.Add(1)
			p.send(ok2)
		}
	}))
	gate := u.nodes[0].gate
	for gate.View().State != balancer.Open {
		ask(u, rules)
	}
	now.Add(int64(2 * time.Second))
	ill.Store(false)
	elsewhere.Store(0)
	var all sync.WaitGroup
	for range 32 {
		all.Go(func() {
			if _, got := ask(u, rules); got.status != 200 {
				t.Errorf("status %d", got.status)
			}
		})
	}
	eventually(t, "one probe, and the others elsewhere", func() bool { return probed.Load() == 1 && elsewhere.Load() == 31 })
	if v := gate.View(); v.State != balancer.HalfOpen || v.Probes != 1 {
		t.Errorf("%+v", v)
	}
	close(hold)
	all.Wait()
	if v := gate.View(); v.State != balancer.Closed || v.Probes != 0 || probed.Load() != 1 {
		t.Errorf("%+v after %d probes", v, probed.Load())
	}
}

// TestOnlyEndpointWhileItIsProbed: it is used by others too, since there is none besides it.
func TestOnlyEndpointWhileItIsProbed(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	now, rules := r.breakable()
	u := r.upstream(nil, serve(t, answers(ok2)))
	gate := u.nodes[0].gate
	gate.Record(rules, balancer.Outcome{Status: 500}, false)
	gate.Record(rules, balancer.Outcome{Status: 500}, false)
	now.Add(int64(2 * time.Second))
	if gate.Enter() != balancer.Probing {
		t.Fatal("no probe")
	}
	for range 3 {
		_, got := ask(u, rules)
		got.want(t, 200, "ok")
	}
	if v := gate.View(); v.State != balancer.HalfOpen || v.Probes != 1 {
		t.Errorf("%+v", v)
	}
}

func TestQuarantinedEndpoints(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	now, _ := r.breakable()
	a, b := serve(t, answers(ok2)), refused(t)
	u := r.upstream(func(d *resource.Upstream) { d.Nodes[1].Priority = 1 }, a, b)
	shut := func(n *node, ttl time.Duration) *balancer.Quarantine {
		q, err := r.hub.gates.Impose(n.gate.Target, ttl, "test")
		if err != nil {
			t.Fatal(err)
		}
		return q
	}
	q := shut(u.nodes[0], 90*time.Second)
	x := request(http.MethodGet, "/", "")
	if got := do(u, x); got.fault != fault.AllTried && got.fault != fault.ConnectFailed { // the other one was tried
		t.Errorf("got %v", got.fault)
	}
	shut(u.nodes[1], 30500*time.Millisecond)
	x = request(http.MethodGet, "/", "")
	do(u, x).wantFault(t, fault.Quarantined)
	if v, _ := x.Response.Header.Get("Retry-After"); string(v) != "31" || x.Attempts.Count != 0 {
		t.Errorf("Retry-After %q after %d attempts", v, x.Attempts.Count)
	}
	if e, f := u.Explain(request(http.MethodGet, "/", "")); f != fault.Quarantined || e.Nodes[0].State != "quarantined" || e.Next != "" {
		t.Errorf("%+v, %v", e, f)
	}
	r.hub.gates.Lift(q.ID)
	get(u).want(t, 200, "ok")
	now.Add(int64(time.Minute))
	if got := u.nodes[1].gate.Standing(); got != "" {
		t.Errorf("it has ended, and is %s", got)
	}
}

// TestGatesLiveWithTheirUpstreams: the state of an endpoint outlives the version of the upstream that found it out.
func TestGatesLiveWithTheirUpstreams(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	_, rules := r.breakable()
	doc := func() *resource.Upstream {
		return &resource.Upstream{Type: "roundrobin", Scheme: "http", PassHost: "pass", Nodes: []resource.Node{{Host: "10.0.0.1", Port: 80, Weight: 1}}}
	}
	first, err := Compile(r.hub, doc(), "u", r.def, nil)
	if err != nil {
		t.Fatal(err)
	}
	gate := first.nodes[0].gate
	gate.Record(rules, balancer.Outcome{Status: 500}, false)
	gate.Record(rules, balancer.Outcome{Status: 500}, false)
	second, err := Compile(r.hub, doc(), "u", r.def, first)
	if err != nil {
		t.Fatal(err)
	}
	first.Close()
	if second.nodes[0].gate != gate || !r.hub.gates.Has(gate.Target) || gate.Standing() != "open" {
		t.Error("the state was lost")
	}
	second.Close()
	if r.hub.gates.Has(gate.Target) {
		t.Error("the gate is kept though nobody uses the endpoint")
	}
}

// TestJudgingAlloc: counting what attempts come to allocates nothing.
func TestJudgingAlloc(t *testing.T) {
	r := newRig(t)
	_, rules := r.breakable()
	rules.Window, rules.ErrorRatio, rules.MinRequests = 10*time.Second, 0.5, 10
	host, port := replay(t, nil, warmReplies["length"])
	u := r.upstream(nil, &server{host: host, port: port})
	x := request("GET", "/", "")
	exchange := func() {
		x.Response.Header.Reset()
		x.Attempts = phase.Attempts{}
		x.Judge(balancer.OfEndpoint, rules)
		if f := u.Forward(x); f != nil {
			t.Fatal(f)
		}
	}
	for range 20 {
		exchange()
	}
	if got := testing.AllocsPerRun(300, exchange); !raceDetector && got != 0 {
		t.Errorf("%v allocations per exchange, want none", got)
	}
	if v := u.nodes[0].gate.View(); !v.Judged {
		t.Error("nothing was counted")
	}
}

// linesOf collects a log.
type linesOf struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *linesOf) printf(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fmt.Fprintf(&l.text, format+"\n", args...)
}

func (l *linesOf) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// TestBreakersAreTold: the metrics and the lines of the log.
func TestBreakersAreTold(t *testing.T) {
	r := newRig(t)
	now, rules := r.breakable()
	var lines linesOf
	m := meter.New("")
	r.hub.WatchBreakers(BreakerOptions{Meter: m, Logf: lines.printf, Audit: func(line string) { lines.printf("audit: %s", line) }})
	u := r.upstream(nil, refused(t))
	addr := u.nodes[0].addr
	ask(u, rules)
	ask(u, rules)
	ask(u, rules)
	q, err := r.hub.gates.Impose(u.nodes[0].gate.Target, time.Second, "test")
	if err != nil {
		t.Fatal(err)
	}
	exposed := func() string {
		var b strings.Builder
		if err := m.Write(&b); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	for _, want := range []string{
		`headgate_breaker_state{scope="endpoint",in="",name="` + addr + `"} 3`, `headgate_breaker_forced_total{scope="endpoint"} 1`,
		`headgate_breaker_forced_total{scope="branch"} 0`, `headgate_quarantine_until_seconds{scope="endpoint",in="",name="` + addr + `"} 1001`,
	} {
		if text := exposed(); !strings.Contains(text, want+"\n") {
			t.Errorf("%s is missing in\n%s", want, text)
		}
	}
	now.Add(int64(time.Second))
	eventually(t, "what operators are told", func() bool {
		text := lines.String()
		return strings.Contains(text, "breaker: endpoint "+addr+" is open for 2s (was closed): 2 failures, the last one status 502\n") &&
			strings.Contains(text, "audit: quarantine "+q.ID+" of endpoint "+addr+" has ended\n") &&
			strings.Contains(exposed(), `headgate_breaker_transitions_total{scope="endpoint",to="open"} 1`)
	})
}
