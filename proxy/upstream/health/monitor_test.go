package health

import (
	"bytes"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"headgate/balancer"
	"headgate/conf/resource"
)

// TestRhythm: probes begin with the upstream, without any request; each verdict has its interval, counted from the end of a probe.
func TestRhythm(t *testing.T) {
	bubble(t, func(r *rig) {
		r.m.Prepare(spec(nil, "never"), nil)
		r.begin("routes/1", spec(nil, "a", "b"), nil)
		r.say("b:80", refused)
		r.take(100 * time.Millisecond)
		r.pass(11 * time.Second)
		if got, want := r.times("a:80"), seconds(0.5, 5.6, 10.7); !slices.Equal(got, want) {
			t.Errorf("a healthy target was probed at %v, want %v", got, want)
		}
		if got, want := r.times("b:80"), seconds(0.5, 1.6, 2.7, 3.8, 4.9, 6, 7.1, 8.2, 9.3, 10.4); !slices.Equal(got, want) {
			t.Errorf("an unhealthy target was probed at %v, want %v", got, want)
		}
		if got := r.times("never:80"); got != nil {
			t.Errorf("an upstream that was not published was probed at %v", got)
		}
		r.want(map[string]string{"routes/1 a:80": "healthy", "routes/1 b:80": "unhealthy"})
	})
}

// TestJitter: probes that begin together do not stay together, and none is off by more than a tenth.
func TestJitter(t *testing.T) {
	bubble(t, func(r *rig) {
		n := 0
		r.m.jitter = func() float64 { n++; return float64(n%11) / 10 }
		hosts := []string{"a", "b", "c", "d", "e"}
		r.begin("routes/1", spec(nil, hosts...), nil)
		r.pass(20 * time.Second)
		seen := map[time.Duration]bool{}
		for _, h := range hosts {
			at := r.times(h + ":80")
			if at[0] > time.Second {
				t.Errorf("%s: the first probe came at %v", h, at[0])
			}
			for i, d := range at[1:] {
				if gap := d - at[i]; gap < 4500*time.Millisecond || gap > 5500*time.Millisecond {
					t.Errorf("%s: %v between two probes, want 5 s give or take a tenth", h, gap)
				}
			}
			seen[at[0]] = true
		}
		if len(seen) < 3 {
			t.Errorf("the first probes came at %v", seen)
		}
	})
}

// TestConcurrency: an upstream has at most as many probes under way as it says, slow ones do not starve another upstream, and all targets
// have their turn.
func TestConcurrency(t *testing.T) {
	bubble(t, func(r *rig) {
		var hosts []string
		for i := range 30 {
			hosts = append(hosts, fmt.Sprintf("n%d", i))
		}
		narrow := func(s *Spec) { s.Checks.Active.Concurrency = 3 }
		c := r.begin("upstreams/1", spec(narrow, hosts...), nil)
		r.take(time.Second)
		r.pass(4 * time.Second)
		r.begin("upstreams/1", spec(narrow, hosts...), c) // an edit makes no room for more
		r.pass(6 * time.Second)
		if r.most != 3 {
			t.Errorf("%d probes at a time, want 3", r.most)
		}
		for _, h := range hosts {
			if got := r.times(h + ":80"); len(got) != 1 {
				t.Errorf("%s was probed at %v, want once", h, got)
			}
		}
		r.begin("upstreams/2", spec(nil, "other"), nil)
		r.pass(time.Second)
		if got := r.times("other:80"); len(got) != 1 {
			t.Errorf("another upstream's server was probed at %v, want once", got)
		}
	})
}

// TestBound: all upstreams together have a bound, and everybody's turn comes.
func TestBound(t *testing.T) {
	bubble(t, func(r *rig) {
		r.take(time.Second)
		for i := range 3 * maxProbes {
			r.begin(fmt.Sprintf("routes/%d", i), spec(nil, fmt.Sprintf("n%d", i), fmt.Sprintf("m%d", i)), nil)
		}
		r.pass(7 * time.Second)
		if r.most != maxProbes {
			t.Errorf("%d probes at a time, want %d", r.most, maxProbes)
		}
		if got := len(r.probed); got != 6*maxProbes {
			t.Errorf("%d of %d targets were probed", got, 6*maxProbes)
		}
	})
}

// TestIdle: targets that wait for their next probe cost no goroutine.
func TestIdle(t *testing.T) {
	bubble(t, func(r *rig) {
		before := runtime.NumGoroutine()
		for i := range 200 {
			r.begin(fmt.Sprintf("routes/%d", i), spec(nil, "a", "b", "c", "d", "e"), nil)
		}
		r.pass(time.Second)
		if len(r.probed) != 5 {
			t.Fatalf("%d addresses were probed", len(r.probed))
		}
		if after := runtime.NumGoroutine(); after > before+50 { // one may be about to end
			t.Errorf("%d goroutines with 1000 idle targets, %d with none", after, before)
		}
	})
}

// TestEdit: a new version of an upstream keeps the verdicts, the counters and the rhythm of the addresses that it still has, though the
// checks, the weights and the other nodes change; what it does not have is probed no more.
func TestEdit(t *testing.T) {
	bubble(t, func(r *rig) {
		first := r.begin("upstreams/1", spec(func(s *Spec) { s.Checks.Active.Unhealthy.HTTPFailures = 2 }, "a", "b", "c"), nil)
		r.say("a:80", refused)
		r.say("b:80", observation{outcome: HTTPFailure, status: 500})
		r.pass(time.Second)
		before := map[string]string{"upstreams/1 a:80": "unhealthy", "upstreams/1 b:80": "mostly_healthy", "upstreams/1 c:80": "healthy"}
		r.want(before)

		discarded := r.m.Prepare(spec(nil, "a", "x"), first)
		r.m.Withdraw(discarded)
		r.want(before)

		second := r.m.Prepare(spec(func(s *Spec) {
			s.Checks.Active.Path, s.Checks.Active.Unhealthy.HTTPFailures = "/other", 2
			s.Nodes[0].Weight = 7
		}, "a", "b", "d"), first)
		if second.Target(0) != first.Target(0) || second.Target(0).Health().Healthy() {
			t.Error("the verdict on a is not shared by both versions")
		}
		r.m.Start(second, "upstreams/1")
		r.want(map[string]string{"upstreams/1 a:80": "unhealthy", "upstreams/1 b:80": "mostly_healthy", "upstreams/1 d:80": "healthy"})
		r.m.Withdraw(first) // when its last reader has left
		r.pass(10 * time.Second)
		if got, want := r.times("b:80"), seconds(0.5, 5.5, 6.5, 7.5, 8.5, 9.5, 10.5); !slices.Equal(got, want) {
			t.Errorf("b was probed at %v, want %v", got, want)
		}
		if got, want := r.times("c:80"), seconds(0.5); !slices.Equal(got, want) {
			t.Errorf("c, which is gone, was probed at %v, want %v", got, want)
		}
		if got, want := r.times("d:80"), seconds(1.5, 6.5); !slices.Equal(got, want) {
			t.Errorf("d was probed at %v, want %v", got, want)
		}
		r.want(map[string]string{"upstreams/1 a:80": "unhealthy", "upstreams/1 b:80": "unhealthy", "upstreams/1 d:80": "healthy"})
	})
}

// TestWithdraw: what is not in force is neither probed nor shown, whatever the order in which the next version comes, and though a probe of
// it is under way.
func TestWithdraw(t *testing.T) {
	bubble(t, func(r *rig) {
		r.take(2 * time.Second)
		c := r.begin("routes/1", spec(nil, "a"), nil)
		r.pass(time.Second) // in the middle of a probe
		next := r.m.Prepare(spec(nil, "a"), c)
		r.m.Withdraw(c)
		r.m.Withdraw(c)
		if got := r.statuses(); len(got) != 0 {
			t.Errorf("withdrawn, and shown: %v", got)
		}
		r.m.Start(next, "routes/1")
		r.pass(9 * time.Second)
		if got, want := r.times("a:80"), seconds(0.5, 7.5); !slices.Equal(got, want) {
			t.Errorf("probed at %v, want %v", got, want)
		}
		r.m.Withdraw(next)
		r.pass(time.Minute)
		if got := r.times("a:80"); got != nil {
			t.Errorf("withdrawn, and probed at %v", got)
		}
		if len(r.m.schedule) != 0 || r.m.probes != 0 || len(r.m.inForce) != 0 {
			t.Error("something is left in the schedule")
		}
	})
}

// TestClose ends probes that hang, and afterwards nothing begins.
func TestClose(t *testing.T) {
	bubble(t, func(r *rig) {
		r.take(time.Hour)
		c := r.begin("routes/1", spec(nil, "a", "b"), nil)
		r.pass(time.Second)
		r.m.Close()
		if took := time.Since(r.start); took != time.Second {
			t.Errorf("closed after %v", took)
		}
		r.want(map[string]string{"routes/1 a:80": "healthy", "routes/1 b:80": "healthy"}) // what was broken off says nothing
		r.begin("routes/2", spec(nil, "c"), nil)
		r.pass(time.Minute)
		if got := r.times("c:80"); got != nil {
			t.Errorf("probed at %v after the end", got)
		}
		r.m.Withdraw(c)
	})
}

// TestPassive: what requests meet changes the verdict, one version's report counts for the next one, and the verdict brings its interval
// with it. Without passive checks, and in a direction that they do not name, requests say nothing.
func TestPassive(t *testing.T) {
	bubble(t, func(r *rig) {
		off := r.begin("routes/1", spec(nil, "a"), nil)
		half := r.begin("routes/2", spec(func(s *Spec) {
			s.Checks.Passive = &resource.PassiveChecks{Unhealthy: &resource.Report{Statuses: []int{500}, HTTPFailures: 2, TCPFailures: 1, Timeouts: 1}}
		}, "b"), nil)
		slow := func(s *Spec) {
			s.Checks.Active.Healthy.Interval, s.Checks.Active.Unhealthy.Interval = 100*time.Second, 2*time.Second
			s.Checks.Passive = &resource.PassiveChecks{
				Healthy:   &resource.Report{Statuses: []int{201}, Successes: 2},
				Unhealthy: &resource.Report{Statuses: []int{503}, HTTPFailures: 2, TCPFailures: 1},
			}
		}
		old := r.begin("routes/3", spec(slow, "c", "d", "e"), nil)
		full := r.begin("routes/3", spec(slow, "c", "d", "e"), old)
		r.pass(time.Second)
		for range 10 {
			off.Answered(off.Target(0), 500)
			off.Failed(off.Target(0), false)
			full.Failed(full.Target(2), true)  // its limit is 0
			full.Answered(full.Target(2), 500) // in no list
		}
		half.Answered(half.Target(0), 500)
		half.Answered(half.Target(0), 200)
		half.Answered(half.Target(0), 500)
		old.Answered(old.Target(0), 503)
		full.Answered(full.Target(0), 503)
		full.Failed(full.Target(1), false)
		full.Answered(full.Target(1), 201)
		r.want(map[string]string{
			"routes/1 a:80": "healthy", "routes/2 b:80": "unhealthy",
			"routes/3 c:80": "unhealthy", "routes/3 d:80": "mostly_unhealthy", "routes/3 e:80": "healthy",
		})
		full.Answered(full.Target(1), 201)
		r.say("c:80", refused)
		r.times("c:80")
		r.pass(5 * time.Second)
		if got, want := r.times("c:80"), seconds(3, 5); !slices.Equal(got, want) {
			t.Errorf("after the verdict the target was probed at %v, want %v", got, want)
		}
		if s := r.statuses()["routes/3 d:80"]; s != "healthy" {
			t.Errorf("after two successes: %s", s)
		}
	})
}

// TestSlowStart: the share of a target that has recovered grows linearly, starts anew with every recovery, and ends whole.
func TestSlowStart(t *testing.T) {
	bubble(t, func(r *rig) {
		slow := func(s *Spec) { s.Checks.SlowStart = 10 * time.Second }
		c := r.begin("routes/1", spec(slow, "a"), nil)
		h := c.Target(0).Health()
		share := func() float64 { return float64(h.Share()) / balancer.WholeShare }
		near := func(what string, want float64) {
			t.Helper()
			if got := share(); got < want-0.051 || got > want+0.001 {
				t.Errorf("%s: a share of %.3f, want %.3f", what, got, want)
			}
		}
		if !h.Ramps || share() != 1 {
			t.Errorf("at first: ramps %t, share %v", h.Ramps, share())
		}
		r.say("a:80", refused)
		r.pass(600 * time.Millisecond)
		r.say("a:80", observation{outcome: Success})
		r.pass(900 * time.Millisecond) // probed, and healthy, at 1.5
		if !h.Healthy() {
			t.Fatal("did not recover")
		}
		near("on recovery", 0)
		r.pass(2500 * time.Millisecond)
		near("after a quarter", 0.25)
		r.begin("routes/1", spec(slow, "a", "b"), c)
		r.pass(2500 * time.Millisecond)
		near("after one half, and an edit", 0.5)
		r.say("a:80", refused) // probed every 5 s: at 6.5, when it has just passed, and 11.5
		r.pass(5 * time.Second)
		if h.Healthy() {
			t.Fatal("is healthy")
		}
		r.say("a:80", observation{outcome: Success})
		r.pass(1100 * time.Millisecond)
		near("on the second recovery", 0.01)
		r.pass(9900 * time.Millisecond)
		if share() != 1 {
			t.Errorf("in the end: a share of %v", share())
		}
		if len(r.m.growing) != 0 {
			t.Error("is still growing")
		}
	})
}

// TestShown is what operators see: the log, a line for each flip and none in between, the metrics, and the nodes.
func TestShown(t *testing.T) {
	bubble(t, func(r *rig) {
		s := spec(func(s *Spec) {
			s.Checks.Active.Unhealthy.HTTPFailures, s.Checks.Active.Healthy.Successes, s.Checks.Active.Healthy.Interval = 2, 2, time.Second
			s.Checks.Active.Host = "probe.test"
			s.Checks.Passive = &resource.PassiveChecks{Unhealthy: &resource.Report{Timeouts: 1}}
			s.Nodes = append(s.Nodes, Node{"a", 80, 3}, Node{"::1", 81, 0}) // one address twice; one that gets no requests
		}, "a", "b")
		c := r.begin("routes/1", s, nil)
		r.say("a:80", observation{outcome: HTTPFailure, status: 500})
		r.pass(2 * time.Second)
		c.Failed(c.Target(1), true)
		synctest.Wait()
		want := []string{
			"health: routes/1: a:80 is unhealthy: 2 HTTP failures, the last one status 500 (probe)",
			"health: routes/1: b:80 is unhealthy: 1 timeout (request); no server is healthy, so that all are used",
		}
		if got := r.log(); !slices.Equal(got, want) {
			t.Errorf("log\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		var text bytes.Buffer
		if err := r.met.Write(&text); err != nil {
			t.Fatal(err)
		}
		for _, line := range []string{
			`apisix_upstream_status{name="/apisix/routes/1",ip="a",port="80"} 0`,
			`apisix_upstream_status{name="/apisix/routes/1",ip="b",port="80"} 0`,
			`apisix_upstream_status{name="/apisix/routes/1",ip="::1",port="81"} 1`,
			`headgate_upstream_all_down{upstream="routes/1"} 1`,
			`headgate_health_probes_total{result="http_failure"} 2`,
			`headgate_health_probes_total{result="success"} 4`,
			`headgate_health_probes_total{result="ignored"} 0`,
		} {
			if !strings.Contains(text.String(), line+"\n") {
				t.Errorf("the exposition lacks %s", line)
			}
		}
		list := r.m.Checked()
		if len(list) != 1 || list[0].Key != "routes/1" || list[0].Type != "http" {
			t.Fatalf("%+v", list)
		}
		wantNodes := []NodeHealth{
			{"a", 80, "probe.test", "unhealthy", Counters{HTTP: 2}},
			{"b", 80, "probe.test", "unhealthy", Counters{Timeout: 1}},
			{"::1", 81, "probe.test", "healthy", Counters{}},
		}
		if !slices.Equal(list[0].Nodes, wantNodes) {
			t.Errorf("nodes %+v\nwant %+v", list[0].Nodes, wantNodes)
		}
		r.say("a:80", observation{outcome: Success, status: 200})
		r.pass(2 * time.Second)
		want = []string{
			"health: routes/1: a:80 is healthy again: 2 successes, the last one status 200 (probe)",
			"health: routes/1: b:80 is healthy again: 2 successes, the last one status 200 (probe)",
		}
		got := r.log()
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("log\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		if all := r.m.allDown(); all["routes/1"] != 0 {
			t.Errorf("all down: %v", all)
		}
	})
}

// TestManyFlips: a flapping server does not fill memory while the log is slow.
func TestManyFlips(t *testing.T) {
	bubble(t, func(r *rig) {
		c := r.begin("routes/1", spec(func(s *Spec) {
			s.Checks.Passive = &resource.PassiveChecks{
				Healthy: &resource.Report{Statuses: []int{200}, Successes: 1}, Unhealthy: &resource.Report{Statuses: []int{500}, HTTPFailures: 1},
			}
		}, "a"), nil)
		block := make(chan struct{})
		r.m.opt.Logf = func(format string, args ...any) {
			<-block
			r.mu.Lock()
			defer r.mu.Unlock()
			r.lines = append(r.lines, fmt.Sprintf(format, args...))
		}
		c.Answered(c.Target(0), 500)
		synctest.Wait() // the log is stuck with the first line
		for range maxFlips {
			c.Answered(c.Target(0), 200)
			c.Answered(c.Target(0), 500)
		}
		close(block)
		synctest.Wait()
		got := r.log()
		if len(got) != maxFlips+2 || got[len(got)-1] != fmt.Sprintf("health: %d more verdicts have changed", maxFlips) {
			t.Errorf("%d lines, the last one %q", len(got), got[len(got)-1])
		}
	})
}
