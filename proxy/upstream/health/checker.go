// Package health judges the servers of upstreams (contract section 3.4): by probes, from the moment the upstream is published, and by what
// requests met. One Monitor serves all upstreams. A verdict is an atomic word that the pickers read; nothing else of this package is
// on the request path but the passive reports, which take no lock unless the verdict changes.
package health

import (
	"crypto/tls"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"headgate/balancer"
	"headgate/conf/resource"
)

// Spec is what a Checker is made of.
type Spec struct {
	Checks *resource.Checks // with Active
	Nodes  []Node
	// PassHost and UpstreamHost are the upstream's: they decide on the Host of the probes.
	PassHost, UpstreamHost string
	// TLS returns the settings of https probes that ask for the name.
	TLS func(serverName string, verify bool) *tls.Config
}

// Node is a server of the upstream.
type Node struct {
	Host   string // name or address, IPv6 without brackets
	Port   int
	Weight uint64
}

// Checker is the checks of one version of an upstream. It is immutable but for what the Monitor keeps in it.
type Checker struct {
	m       *Monitor
	checks  *resource.Checks
	active  rules
	passive rules
	targets []*Target // one for each address
	plans   []plan    // of targets
	ofNode  []*Target // of the nodes of the spec
	picked  []*Target // of the nodes that requests go to
	lane    *lane

	// Guarded by Monitor.mu.
	prev *Checker // to be replaced by this one when it starts
	key  string   // "" unless it is in force
}

// Target is one address that is judged. The versions of an upstream share the targets whose addresses are the same, so that a verdict
// outlives every edit of other things.
type Target struct {
	host   string
	port   int
	health balancer.Health
	seen   atomic.Pointer[string] // the address that host had at the last probe, nil before

	// Guarded by Monitor.mu.
	plan    *plan     // how it is probed; nil: not at all
	due     time.Time // zero before the first turn
	index   int       // in the schedule, -1 when it is not there
	queued  bool      // due, and waiting for its turn in its lane
	probing bool
	// Since when, and for how long, the share grows.
	growsSince time.Time
	growsFor   time.Duration
}

// plan is how one version of an upstream probes a target.
type plan struct {
	*Checker
	request []byte
	tls     *tls.Config // of https probes
}

// lane is what the versions of one upstream share: how many probes run, and what waits for its turn. Guarded by Monitor.mu.
type lane struct {
	running int
	queue   []*Target
	listed  bool // among those that the monitor looks at next
}

// Health is the verdict, to be shared by the endpoints of the address.
func (t *Target) Health() *balancer.Health { return &t.health }

// Prepare makes the checks of an upstream, which do nothing before Start. prev are those of the version that it replaces, or nil: what is
// known of the addresses that both have is kept.
func (m *Monitor) Prepare(s Spec, prev *Checker) *Checker {
	c := &Checker{m: m, checks: s.Checks, prev: prev}
	a := s.Checks.Active
	c.active = newRules(&a.Healthy, &a.Unhealthy)
	if p := s.Checks.Passive; p != nil {
		c.passive = newRules(p.Healthy, p.Unhealthy)
	}
	known := map[string]*Target{}
	if prev == nil {
		c.lane = &lane{}
	} else {
		c.lane = prev.lane
		for _, t := range prev.targets {
			known[t.address()] = t
		}
	}
	made := map[string]*Target{}
	for _, n := range s.Nodes {
		t := &Target{host: n.Host, port: n.Port, index: -1}
		if a.Port != 0 {
			t.port = a.Port
		}
		id := t.address()
		switch {
		case made[id] != nil:
			t = made[id]
		default:
			if old := known[id]; old != nil {
				t = old
			}
			made[id] = t
			t.health.Ramps = s.Checks.SlowStart > 0
			c.targets = append(c.targets, t)
			c.plans = append(c.plans, c.newPlan(&s, n.Host))
		}
		c.ofNode = append(c.ofNode, t)
		if n.Weight > 0 {
			c.picked = append(c.picked, t)
		}
	}
	if len(c.picked) == 0 { // then all of them are used
		c.picked = c.ofNode
	}
	return c
}

// Target returns the target of the i-th node of the spec.
func (c *Checker) Target(i int) *Target { return c.ofNode[i] }

func (c *Checker) newPlan(s *Spec, node string) plan {
	host := probeHost(s, node)
	p := plan{Checker: c, request: probeRequest(s.Checks.Active, host)}
	if s.Checks.Active.Type == "https" {
		name := host
		if h, _, err := net.SplitHostPort(host); err == nil {
			name = h
		}
		p.tls = s.TLS(strings.Trim(name, "[]"), s.Checks.Active.Verify)
	}
	return p
}

// probeHost is the Host that probes of the node ask for (contract section 3.4). What the operator has set for the checks is only second to
// what the servers see of requests, too.
func probeHost(s *Spec, node string) string {
	_, err := netip.ParseAddr(node)
	switch {
	case s.PassHost == "rewrite" && s.UpstreamHost != "":
		return s.UpstreamHost
	case s.PassHost == "node" && err != nil:
		return node
	case s.Checks.Active.Host != "":
		return s.Checks.Active.Host
	case strings.Contains(node, ":"):
		return "[" + node + "]"
	}
	return node
}

// probeRequest is the request of http and https probes. The lines that frame it are ours, whatever the document says; a Host of the
// document's own replaces ours.
func probeRequest(a *resource.ActiveChecks, host string) []byte {
	b := append([]byte("GET "), a.Path...)
	b = append(b, " HTTP/1.1\r\nConnection: close\r\n"...)
	for _, line := range a.Headers {
		name, value, _ := strings.Cut(line, ":")
		switch strings.ToLower(name) {
		case "host":
			host = strings.TrimSpace(value)
			continue
		case "connection", "content-length", "transfer-encoding":
			continue
		}
		b = append(append(b, line...), "\r\n"...)
	}
	return append(append(append(b, "Host: "...), host...), "\r\n\r\n"...)
}

func (t *Target) address() string { return net.JoinHostPort(t.host, strconv.Itoa(t.port)) }

// interval is the time from one probe of a target with that status to the next.
func (c *Checker) interval(s Status) time.Duration {
	if s < MostlyUnhealthy {
		return c.checks.Active.Healthy.Interval
	}
	return c.checks.Active.Unhealthy.Interval
}

// allDown says whether every node that requests go to is left out, so that all are used.
func (c *Checker) allDown() bool {
	for _, t := range c.picked {
		if t.health.Healthy() {
			return false
		}
	}
	return len(c.picked) > 0
}

// Answered is the passive report of a request whose final status came from t, or stands for the failure of its last attempt there.
func (c *Checker) Answered(t *Target, status int) {
	if c.checks.Passive != nil {
		c.report(t, &c.passive, observation{outcome: c.passive.classify(status), status: status, passive: true})
	}
}

// Good says whether passive checks count an answer with the status as a success.
func (c *Checker) Good(status int) bool {
	return c.checks.Passive != nil && c.passive.classify(status) == Success
}

// Failed is the passive report of an attempt at t that was followed by another one elsewhere, or whose answer was cut.
func (c *Checker) Failed(t *Target, timedOut bool) {
	if c.checks.Passive == nil {
		return
	}
	o := observation{outcome: TCPFailure, passive: true}
	if timedOut {
		o.outcome = Timeout
	}
	c.report(t, &c.passive, o)
}

// observation is one report with what an operator wants to know of it.
type observation struct {
	outcome Outcome
	status  int // 0: none
	passive bool
	detail  string // of a failed probe: the system's words
}

// report counts o. Only a flip costs more than a few atomic operations.
func (c *Checker) report(t *Target, r *rules, o observation) {
	limit := r.limits[o.outcome]
	for {
		old := word(t.health.Load())
		next := old.report(o.outcome, limit)
		if next == old {
			return
		}
		flips := (old^next)&down != 0
		if flips && next&down == 0 && c.checks.SlowStart > 0 {
			t.health.SetShare(0) // before it is picked again; it grows from there
		}
		if t.health.CompareAndSwap(uint64(old), uint64(next)) {
			if flips {
				c.m.flipped(c, t, flip{target: t, observation: o, up: next&down == 0, count: next.count(o.outcome)})
			}
			return
		}
	}
}
