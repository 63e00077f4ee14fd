package resource

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// What checks leave open (contract section 3.4).
const (
	defaultProbeTimeout = time.Second
	defaultConcurrency  = 10
	maxConcurrency      = 1000
	maxSlowStart        = time.Hour
)

// checks reads the health checks. Of a direction that passive checks do not mention nothing is watched; active checks always have both.
func (f *fields) checks() *Checks {
	sub := f.object("checks")
	if sub == nil {
		return nil
	}
	c := &Checks{Active: sub.activeChecks(), SlowStart: duration(sub.seconds("slow_start", 0))}
	if c.SlowStart > maxSlowStart {
		sub.fail("slow_start", fmt.Sprintf("at most %.0f seconds", maxSlowStart.Seconds()))
	}
	if p := sub.object("passive"); p != nil {
		c.Passive = &PassiveChecks{}
		if r := p.object("healthy"); r != nil {
			statuses := append(span(200, 208), 226)
			c.Passive.Healthy = p.report(r, Report{Statuses: append(statuses, span(300, 308)...), Successes: 5})
		}
		if r := p.object("unhealthy"); r != nil {
			c.Passive.Unhealthy = p.report(r, Report{Statuses: []int{429, 500, 503}, HTTPFailures: 5, TCPFailures: 2, Timeouts: 7})
		}
		sub.adopt(p)
	}
	f.adopt(sub)
	return c
}

func (f *fields) activeChecks() *ActiveChecks {
	sub := f.object("active")
	if sub == nil {
		return nil
	}
	a := &ActiveChecks{
		Type: sub.textOr("type", "http"), Host: sub.text("host"), Port: sub.integer("port", 0),
		Path: sub.textOr("http_path", "/"), Headers: sub.texts("req_headers"), Verify: true,
		Timeout:     duration(sub.seconds("timeout", defaultProbeTimeout.Seconds())),
		Concurrency: min(max(sub.integer("concurrency", defaultConcurrency), 1), maxConcurrency),
		Healthy:     Report{Interval: time.Second, Statuses: []int{200, 302}, Successes: 2},
		Unhealthy: Report{
			Interval: time.Second, Statuses: append([]int{429, 404}, span(500, 505)...), HTTPFailures: 5, TCPFailures: 2, Timeouts: 3,
		},
	}
	if a.Timeout == 0 {
		a.Timeout = defaultProbeTimeout
	}
	if v := sub.boolean("https_verify_certificate"); v != nil {
		a.Verify = *v
	}
	if r := sub.object("healthy"); r != nil {
		a.Healthy = *sub.report(r, a.Healthy)
	}
	if r := sub.object("unhealthy"); r != nil {
		a.Unhealthy = *sub.report(r, a.Unhealthy)
	}
	sub.probe(a)
	f.adopt(sub)
	return a
}

// probe refuses what would make another request out of the probe, or none.
func (f *fields) probe(a *ActiveChecks) {
	if !slices.Contains([]string{"http", "https", "tcp"}, a.Type) {
		f.fail("type", "http, https or tcp")
	}
	if a.Port < 0 || a.Port > 1<<16-1 {
		f.fail("port", "a port of 1 to 65535")
	}
	if !strings.HasPrefix(a.Path, "/") {
		a.Path = "/" + a.Path
	}
	if hasAny(a.Path, " ") {
		f.fail("http_path", "a path without spaces and control characters")
	}
	if hasAny(a.Host, " ") {
		f.fail("host", "a host name")
	}
	for _, line := range a.Headers {
		name, value, ok := strings.Cut(line, ":")
		if !ok || !isToken(name) || hasAny(strings.ReplaceAll(value, "\t", ""), "") {
			f.fail("req_headers", `lines of the form "Name: value"`)
		}
	}
}

// isToken says whether s can be the name of a header line (RFC 9110 section 5.6.2).
func isToken(s string) bool {
	return s != "" && !hasAny(s, " \"(),/:;<=>?@[\\]{}") && !strings.ContainsFunc(s, func(r rune) bool { return r > '~' })
}

// hasAny says whether s has a control character or one of chars.
func hasAny(s, chars string) bool {
	return strings.ContainsAny(s, chars) || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f })
}

// report reads one direction on top of its defaults.
func (f *fields) report(sub *fields, r Report) *Report {
	limit := func(name string, def int) int {
		n := sub.integer(name, def)
		if n < 0 || n > 254 {
			sub.fail(name, "a limit of 0 to 254")
		}
		return n
	}
	if r.Interval > 0 { // active; documents that were never validated must not make the probes race
		r.Interval = max(duration(sub.seconds("interval", r.Interval.Seconds())), time.Second)
	}
	r.Successes = limit("successes", r.Successes)
	r.HTTPFailures = limit("http_failures", r.HTTPFailures)
	r.TCPFailures = limit("tcp_failures", r.TCPFailures)
	r.Timeouts = limit("timeouts", r.Timeouts)
	if list := sub.list("http_statuses"); list != nil {
		r.Statuses = make([]int, 0, len(list))
		for _, v := range list {
			n, ok := toInt(v)
			if !ok || n < 100 || n > 599 {
				sub.fail("http_statuses", "statuses of 100 to 599")
			}
			r.Statuses = append(r.Statuses, int(n))
		}
	}
	f.adopt(sub)
	return &r
}

func span(first, last int) []int {
	list := make([]int, 0, last-first+1)
	for n := first; n <= last; n++ {
		list = append(list, n)
	}
	return list
}
