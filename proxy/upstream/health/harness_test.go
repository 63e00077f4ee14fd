package health

import (
	"context"
	"fmt"
	"maps"
	"math"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"headgate/conf/resource"
	"headgate/proxy/meter"
)

// rig is a monitor in a bubble of false time, whose probes are answered by the test.
type rig struct {
	t     *testing.T
	m     *Monitor
	met   *meter.Registry
	start time.Time

	mu     sync.Mutex
	answer map[string]observation     // by address; the others succeed
	takes  time.Duration              // of a probe
	probed map[string][]time.Duration // when each address was
	now    int
	most   int // at a time
	lines  []string
}

// bubble runs f with a rig. Jitter is in the middle: intervals are exact, and the first probe comes after half a second.
func bubble(t *testing.T, f func(r *rig)) {
	synctest.Test(t, func(t *testing.T) {
		r := &rig{t: t, met: meter.New(""), start: time.Now(), answer: map[string]observation{}, probed: map[string][]time.Duration{}}
		r.m = New(Options{Meter: r.met, Logf: func(format string, args ...any) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.lines = append(r.lines, fmt.Sprintf(format, args...))
		}})
		r.m.jitter, r.m.probe = func() float64 { return 0.5 }, r.probe
		f(r)
		r.m.Close()
		synctest.Wait()
	})
}

func (r *rig) probe(ctx context.Context, p *plan, t *Target) observation {
	addr := t.address()
	r.mu.Lock()
	r.probed[addr] = append(r.probed[addr], time.Since(r.start))
	r.now++
	r.most = max(r.most, r.now)
	o, ok := r.answer[addr]
	takes := r.takes
	r.mu.Unlock()
	select {
	case <-ctx.Done():
	case <-time.After(takes):
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now--
	if !ok {
		o = observation{outcome: Success, status: 200}
	}
	return o
}

// pass lets time pass and everything that is due happen.
func (r *rig) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// say makes the probes of addr find o from now on.
func (r *rig) say(addr string, o observation) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer[addr] = o
}

// take makes every probe last d from now on.
func (r *rig) take(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.takes = d
}

// times returns when addr was probed since the last call.
func (r *rig) times(addr string) []time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	defer delete(r.probed, addr)
	return r.probed[addr]
}

func (r *rig) log() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	defer func() { r.lines = nil }()
	return r.lines
}

// statuses returns the status of every address in force.
func (r *rig) statuses() map[string]string {
	all := map[string]string{}
	for _, c := range r.m.Checked() {
		for _, n := range c.Nodes {
			all[fmt.Sprintf("%s %s:%d", c.Key, n.IP, n.Port)] = n.Status
		}
	}
	return all
}

func (r *rig) want(statuses map[string]string) {
	r.t.Helper()
	if got := r.statuses(); !maps.Equal(got, statuses) {
		r.t.Errorf("at %v: got %v, want %v", time.Since(r.start), got, statuses)
	}
}

// spec is checks that flip at once, with 5 s between probes of the healthy and 1 s between the others; edit changes them.
func spec(edit func(s *Spec), hosts ...string) Spec {
	s := Spec{Checks: &resource.Checks{Active: &resource.ActiveChecks{
		Type: "http", Timeout: time.Second, Concurrency: 10, Path: "/", Verify: true,
		Healthy:   resource.Report{Interval: 5 * time.Second, Statuses: []int{200}, Successes: 1},
		Unhealthy: resource.Report{Interval: time.Second, Statuses: []int{500}, HTTPFailures: 1, TCPFailures: 1, Timeouts: 1},
	}}}
	for _, h := range hosts {
		s.Nodes = append(s.Nodes, Node{h, 80, 1})
	}
	if edit != nil {
		edit(&s)
	}
	return s
}

func (r *rig) begin(key string, s Spec, prev *Checker) *Checker {
	c := r.m.Prepare(s, prev)
	r.m.Start(c, key)
	return c
}

var refused = observation{outcome: TCPFailure, detail: "connection refused"}

func seconds(list ...float64) (d []time.Duration) {
	for _, s := range list {
		d = append(d, time.Duration(math.Round(s*1000))*time.Millisecond)
	}
	return d
}
