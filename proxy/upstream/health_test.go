package upstream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"headgate/conf/resource"
	"headgate/proxy/fault"
	"headgate/proxy/meter"
	"headgate/proxy/phase"
)

// probing are checks that flip at the first report and probe /probe all the time.
func probing() *resource.Checks {
	return &resource.Checks{Active: &resource.ActiveChecks{
		Type: "http", Timeout: 10 * time.Second, Concurrency: 10, Path: "/probe", Verify: true,
		Healthy:   resource.Report{Interval: 5 * time.Millisecond, Statuses: []int{200}, Successes: 1},
		Unhealthy: resource.Report{Interval: 5 * time.Millisecond, Statuses: []int{500}, HTTPFailures: 1, TCPFailures: 1, Timeouts: 1},
	}}
}

// watching are checks that never probe while a test runs, and flip at the first thing that a request meets.
func watching() *resource.Checks {
	c := probing()
	c.Active.Healthy.Interval, c.Active.Unhealthy.Interval = time.Hour, time.Hour
	c.Passive = &resource.PassiveChecks{
		Healthy:   &resource.Report{Statuses: []int{200}, Successes: 1},
		Unhealthy: &resource.Report{Statuses: []int{500}, HTTPFailures: 1, TCPFailures: 1, Timeouts: 1},
	}
	return c
}

// newChecked is a rig whose hub has health checks.
func newChecked(t testing.TB) *rig {
	r := newRig(t)
	r.hub.CheckHealth(HealthOptions{})
	return r
}

func checks(c *resource.Checks) func(d *resource.Upstream) {
	return func(d *resource.Upstream) { d.Checks = c }
}

// moody is a server whose probes fail while sick is set. It answers requests with what their target asks for: "/500" with a 500.
type moody struct {
	*server
	sick   atomic.Bool
	served atomic.Int64 // requests that were no probes
}

func newMoody(t testing.TB) *moody {
	m := &moody{}
	m.server = serve(t, func(p *peer) {
		for request, ok := p.next(); ok; request, ok = p.next() {
			switch {
			case strings.HasPrefix(request, "GET /probe "):
				if m.sick.Load() {
					p.send("HTTP/1.1 500 Sick\r\nContent-Length: 0\r\n\r\n")
				} else {
					p.send(ok2)
				}
				return
			case strings.HasPrefix(request, "GET /500 "):
				p.send("HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n")
			case strings.HasPrefix(request, "GET /slow "):
				p.gone()
				return
			default:
				p.send(ok2)
			}
			m.served.Add(1)
		}
	})
	return m
}

// TestFlapping: probes begin with the publication; a server that fails them gets no request, and gets some again when it passes them.
func TestFlapping(t *testing.T) {
	r := newChecked(t)
	a, b := newMoody(t), newMoody(t)
	u := r.upstream(checks(probing()), a.server, b.server)
	a.sick.Store(true)
	if !u.nodes[0].Healthy() {
		t.Fatal("a server is unhealthy before the first probe")
	}
	u.Publish("routes/1")
	for range 3 {
		eventually(t, "the sick server is left out", func() bool { return !u.nodes[0].Healthy() })
		before := a.served.Load()
		for range 20 {
			get(u).want(t, 200, "ok")
		}
		if n := a.served.Load() - before; n != 0 {
			t.Errorf("the sick server got %d requests", n)
		}
		a.sick.Store(false)
		eventually(t, "the recovered server is back", u.nodes[0].Healthy)
		eventually(t, "requests to the recovered server", func() bool { // a probe that was late may take it out again for a moment
			get(u).want(t, 200, "ok")
			return a.served.Load() > before
		})
		a.sick.Store(true)
	}
	list := r.hub.Health()
	if len(list) != 1 || list[0].Key != "routes/1" || len(list[0].Nodes) != 2 || list[0].Nodes[1].Status != "healthy" {
		t.Errorf("%+v", list)
	}
	u.Withdraw()
	if list := r.hub.Health(); len(list) != 0 {
		t.Errorf("withdrawn, and still shown: %+v", list)
	}
}

// TestNeverTheLast: when all servers fail, all of them are used, whatever the rule, and that can be seen. A single one always is.
func TestNeverTheLast(t *testing.T) {
	for _, kind := range []string{"roundrobin", "least_conn", "ewma", "chash"} {
		for _, count := range []int{1, 2, 3} {
			t.Run(fmt.Sprint(kind, " ", count), func(t *testing.T) {
				met := meter.New("")
				r := newRig(t)
				var lines []string
				var mu sync.Mutex
				r.hub.CheckHealth(HealthOptions{Meter: met, Logf: func(format string, args ...any) {
					mu.Lock()
					defer mu.Unlock()
					lines = append(lines, fmt.Sprintf(format, args...))
				}})
				var all []*server
				for range count {
					m := newMoody(t)
					m.sick.Store(true)
					all = append(all, m.server)
				}
				u := r.upstream(func(d *resource.Upstream) { d.Checks, d.Type, d.Key = probing(), kind, "uri" }, all...)
				u.Publish("upstreams/1")
				eventually(t, "all are unhealthy", func() bool {
					for _, n := range u.nodes {
						if n.Healthy() {
							return false
						}
					}
					return true
				})
				used := map[string]bool{}
				for i := range 60 {
					x := request("GET", fmt.Sprintf("/%d", i), "")
					do(u, x).want(t, 200, "ok")
					used[x.Attempts.Addr] = true
				}
				if len(used) != count {
					t.Errorf("%d of %d unhealthy servers are used", len(used), count)
				}
				eventually(t, "the metrics say so", func() bool {
					var text bytes.Buffer
					if err := met.Write(&text); err != nil {
						t.Fatal(err)
					}
					return strings.Contains(text.String(), `headgate_upstream_all_down{upstream="upstreams/1"} 1`+"\n") &&
						strings.Count(text.String(), `apisix_upstream_status{name="/apisix/upstreams/1",ip="127.0.0.1",port=`) == count
				})
				eventually(t, "the log says so", func() bool {
					mu.Lock()
					defer mu.Unlock()
					return len(lines) == count && strings.HasSuffix(lines[count-1], "so that all are used")
				})
			})
		}
	}
}

// TestPassiveStatus: the final status of requests counts, and after the verdict the others serve.
func TestPassiveStatus(t *testing.T) {
	r := newChecked(t)
	a, b := newMoody(t), newMoody(t)
	u := r.upstream(checks(watching()), a.server, b.server)
	for range 4 {
		get(u).want(t, 200, "ok")
	}
	x := request("GET", "/500", "")
	do(u, x).want(t, 500, "")
	sick := x.Attempts.Addr
	for range 6 {
		x := request("GET", "/hello", "")
		do(u, x).want(t, 200, "ok")
		if x.Attempts.Addr == sick {
			t.Error("the server that answered 500 got a request")
		}
	}
}

// TestPassiveFailures: a failure that was followed by another attempt counts for its server: refused connections as TCP failures, and what
// took too long as timeouts. The client's and the gateway's own failures, and without passive checks all of them, say nothing.
func TestPassiveFailures(t *testing.T) {
	counters := func(r *rig, u *Upstream, node int) string {
		for _, n := range r.hub.Health()[0].Nodes {
			if n.Port == int(u.nodes[node].Port) {
				return fmt.Sprintf("%s %d %d %d", n.Status, n.Counter.HTTP, n.Counter.TCP, n.Counter.Timeout)
			}
		}
		return "gone"
	}
	for name, c := range map[string]struct {
		edit   func(d *resource.Upstream)
		dead   bool // else slow
		target string
		want   string
	}{
		"refused": {nil, true, "/", "unhealthy 0 1 0"},
		"slow": {func(d *resource.Upstream) {
			d.Timeout = &resource.Timeout{Connect: time.Minute, Send: time.Minute, Read: 400 * time.Millisecond}
		}, false, "/slow", "unhealthy 0 0 1"},
		"the limit is not reached": {func(d *resource.Upstream) { d.Checks.Passive.Unhealthy.TCPFailures = 2 }, true, "/", "mostly_healthy 0 1 0"},
		"failures are not watched": {func(d *resource.Upstream) { d.Checks.Passive.Unhealthy = nil }, true, "/", "healthy 0 0 0"},
		"nothing is watched":       {func(d *resource.Upstream) { d.Checks.Passive = nil }, true, "/", "healthy 0 0 0"},
		"the last attempt counts as the client's status": {func(d *resource.Upstream) {
			n := 0
			d.Retries = &n
			d.Checks.Passive.Unhealthy.Statuses = []int{502}
			d.Checks.Passive.Unhealthy.HTTPFailures = 2
		}, true, "/", "mostly_healthy 1 0 0"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newChecked(t)
			first := refused(t)
			if !c.dead {
				first = newMoody(t).server
			}
			good := newMoody(t)
			u := r.upstream(func(d *resource.Upstream) {
				d.Checks = watching()
				d.Nodes[1].Priority = -1
				if c.edit != nil {
					c.edit(d)
				}
			}, first, good.server)
			do(u, request("GET", c.target, ""))
			u.Publish("routes/1") // not before: the first probe comes at some time within a second, and has its own opinion
			if got := counters(r, u, 0); got != c.want {
				t.Errorf("the first server is %s, want %s", got, c.want)
			}
			u.Withdraw()
			down := strings.HasPrefix(c.want, "unhealthy")
			x := request("GET", "/", "")
			do(u, x)
			if first := x.Attempts.Addr == u.nodes[1].addr && x.Attempts.Count == 1; first != down {
				t.Errorf("the second request had %d attempts, the last one at %s", x.Attempts.Count, x.Attempts.Addr)
			}
		})
	}
	t.Run("an unknown name", func(t *testing.T) {
		r := newChecked(t)
		r.names = func(context.Context, string) ([]netip.Addr, error) { return nil, errors.New("no such name") }
		u := r.upstream(func(d *resource.Upstream) { d.Checks = watching() }, &server{host: "a.test", port: 80}, &server{host: "b.test", port: 80})
		get(u).wantFault(t, fault.UnknownNode)
		if !u.nodes[0].Healthy() || !u.nodes[1].Healthy() {
			t.Error("a name server's failure counts against servers")
		}
	})
}

// TestVerdictSurvives: a new version of an upstream shares the verdicts with the old one, which may still be in use, both ways; checks that
// are gone take theirs with them.
func TestVerdictSurvives(t *testing.T) {
	r := newChecked(t)
	a, b := newMoody(t), newMoody(t)
	doc := &resource.Upstream{Type: "roundrobin", HashOn: "vars", Scheme: "http", PassHost: "pass", Checks: watching(), Nodes: []resource.Node{
		{Host: a.host, Port: a.port, Weight: 1}, {Host: b.host, Port: b.port, Weight: 1},
	}}
	compile := func(edit func(d *resource.Upstream), prev *Upstream) *Upstream {
		d := *doc
		d.Nodes = append([]resource.Node(nil), doc.Nodes...)
		if edit != nil {
			edit(&d)
		}
		u, err := Compile(r.hub, &d, "test", r.def, prev)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	first := compile(nil, nil)
	first.Publish("routes/1")
	do(first, request("GET", "/500", ""))
	sick := 0
	if first.nodes[0].Healthy() {
		sick = 1
	}
	if first.nodes[sick].Healthy() {
		t.Fatal("a 500 makes no server unhealthy")
	}
	second := compile(func(d *resource.Upstream) {
		d.Retries, d.Type = new(int), "least_conn"
		d.Nodes[sick].Weight = 50
		d.Nodes = append(d.Nodes, resource.Node{Host: "127.0.0.2", Port: 9, Weight: 0})
	}, first)
	if second.nodes[sick].Healthy() || !second.nodes[1-sick].Healthy() || !second.nodes[2].Healthy() {
		t.Error("the verdicts did not survive an edit")
	}
	second.Publish("routes/1")
	first.Close()
	own := second.WithTimeout(&resource.Timeout{Connect: time.Second, Send: time.Second, Read: time.Second})
	for range 5 {
		x := request("GET", "/", "")
		do(own, x).want(t, 200, "ok")
		if x.Attempts.Addr != second.nodes[1-sick].addr {
			t.Error("the unhealthy server got a request")
		}
	}
	if second.checks.Answered(second.nodes[sick].target, 200); !first.nodes[sick].Healthy() {
		t.Error("the old version does not see what the new one learns")
	}
	if list := r.hub.Health(); len(list) != 1 || len(list[0].Nodes) != 3 {
		t.Errorf("%+v", list)
	}
	second.checks.Answered(second.nodes[sick].target, 500)
	third := compile(func(d *resource.Upstream) { d.Checks = nil }, second)
	third.Publish("routes/1")
	second.Close()
	if !third.nodes[sick].Healthy() || len(r.hub.Health()) != 0 {
		t.Error("a verdict outlives the checks")
	}
	third.Close()
}

// TestSlowStartOfARecoveredServer: a server that is back gets next to nothing at first when its share is to grow over an hour, and its half when it
// is not to grow at all.
func TestSlowStartOfARecoveredServer(t *testing.T) {
	for _, kind := range []string{"roundrobin", "least_conn", "chash"} {
		for slow, fits := range map[time.Duration]func(n int64) bool{
			time.Hour: func(n int64) bool { return n <= 20 },
			0:         func(n int64) bool { return n >= 100 },
		} {
			t.Run(fmt.Sprint(kind, " ", slow), func(t *testing.T) {
				r := newChecked(t)
				a, b := newMoody(t), newMoody(t)
				u := r.upstream(func(d *resource.Upstream) {
					d.Type, d.Key, d.Checks = kind, "uri", watching()
					d.Checks.SlowStart = slow
				}, a.server, b.server)
				u.Publish("routes/1")
				u.checks.Answered(u.nodes[0].target, 500)
				if u.nodes[0].Healthy() {
					t.Fatal("a 500 makes no server unhealthy")
				}
				u.checks.Answered(u.nodes[0].target, 200)
				if !u.nodes[0].Healthy() {
					t.Fatal("did not recover")
				}
				for i := range 400 {
					do(u, request("GET", fmt.Sprintf("/%d", i), "")).want(t, 200, "ok")
				}
				if n := a.served.Load(); !fits(n) || n+b.served.Load() != 400 {
					t.Errorf("the server that has recovered got %d of 400 requests, the other one %d", n, b.served.Load())
				}
			})
		}
	}
}

// TestPassiveAlone: checks without probes could never bring a server back, and are none.
func TestPassiveAlone(t *testing.T) {
	r := newChecked(t)
	c := watching()
	c.Active = nil
	u := r.upstream(checks(c), newMoody(t).server, newMoody(t).server)
	u.Publish("routes/1")
	do(u, request("GET", "/500", "")).want(t, 500, "")
	if len(r.hub.Health()) != 0 || !u.nodes[0].Healthy() || !u.nodes[1].Healthy() {
		t.Error("passive checks without active ones judge")
	}
}

// TestTrial: a hub that only tries a configuration probes nobody.
func TestTrial(t *testing.T) {
	r := newRig(t)
	m := newMoody(t)
	u := r.upstream(checks(probing()), m.server)
	u.Publish("routes/1")
	for range 20 { // a probe would come within 5 ms
		get(u).want(t, 200, "ok")
		time.Sleep(time.Millisecond)
	}
	for _, request := range m.seen() {
		if strings.HasPrefix(request, "GET /probe") {
			t.Fatal("probed")
		}
	}
	if list := r.hub.Health(); len(list) != 0 {
		t.Errorf("%+v", list)
	}
}

// TestInflightSurvives: what runs at the old version of an upstream counts for the new one.
func TestInflightSurvives(t *testing.T) {
	r := newChecked(t)
	u := r.upstream(nil, newMoody(t).server)
	u.nodes[0].Inflight.Add(1)
	next, err := Compile(r.hub, &resource.Upstream{Type: "least_conn", Scheme: "http", PassHost: "pass", Nodes: []resource.Node{
		{Host: "127.0.0.1", Port: 1, Weight: 1}, {Host: "127.0.0.1", Port: int(u.nodes[0].Port), Weight: 1},
	}}, "test", r.def, u)
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	if a, b := next.nodes[0].Inflight.Load(), next.nodes[1].Inflight.Load(); a != 0 || b != 1 {
		t.Errorf("%d and %d attempts under way, want 0 and 1", a, b)
	}
}

// TestHealthUnderLoad: requests, probes and edits at once; nothing is lost while a server comes and goes.
func TestHealthUnderLoad(t *testing.T) {
	r := newChecked(t)
	a, b := newMoody(t), newMoody(t)
	c := probing()
	c.SlowStart = 20 * time.Millisecond
	c.Passive = &resource.PassiveChecks{Healthy: &resource.Report{Statuses: []int{200}, Successes: 1}, Unhealthy: &resource.Report{TCPFailures: 1}}
	var live atomic.Pointer[Upstream]
	compile := func(prev *Upstream) *Upstream {
		u, err := Compile(r.hub, &resource.Upstream{Type: "roundrobin", Scheme: "http", PassHost: "pass", Checks: c, Nodes: []resource.Node{
			{Host: a.host, Port: a.port, Weight: 1}, {Host: b.host, Port: b.port, Weight: 1},
		}}, "test", r.def, prev)
		if err != nil {
			t.Fatal(err)
		}
		live.Store(u)
		u.Publish("routes/1")
		return u
	}
	versions := []*Upstream{compile(nil)}
	var working sync.WaitGroup
	for range 4 {
		working.Go(func() {
			for range 200 {
				if res := get(live.Load()); res.code() != "" || res.status != 200 {
					t.Errorf("%s, status %d", res.code(), res.status)
				}
			}
		})
	}
	for i := range 20 {
		a.sick.Store(i%2 == 0)
		versions = append(versions, compile(versions[i]))
		versions[i].Withdraw()
		time.Sleep(time.Millisecond)
	}
	working.Wait()
	for _, u := range versions {
		u.Close()
	}
	if len(r.hub.Health()) != 0 {
		t.Error("closed upstreams are shown")
	}
}

// TestHealthAlloc: neither picking nor reporting costs an allocation with checks on.
func TestHealthAlloc(t *testing.T) {
	r := newChecked(t)
	host, port := replay(t, nil, warmReplies["length"])
	c := watching()
	c.SlowStart = time.Minute
	c.Passive.Unhealthy.Statuses, c.Passive.Unhealthy.HTTPFailures = []int{200}, 254 // every answer is counted, then none
	c.Passive.Healthy = nil
	u := r.upstream(func(d *resource.Upstream) {
		d.Checks = c
		d.Nodes = append(d.Nodes, resource.Node{Host: "127.0.0.1", Port: 1, Weight: 1})
	}, &server{host: host, port: port})
	u.nodes[1].SetHealthy(false)
	x := request("GET", "/", "")
	exchange := func() {
		x.Response.Header.Reset()
		x.Attempts = phase.Attempts{}
		if f := u.Forward(x); f != nil {
			t.Fatal(f)
		}
	}
	for range 20 {
		exchange()
	}
	if got := testing.AllocsPerRun(200, exchange); !raceDetector && got != 0 {
		t.Errorf("%v allocations per exchange", got)
	}
}
