package upstream

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"headgate/conf/resource"
	"headgate/proxy/fault"
)

func listed(statuses ...int) func(d *resource.Upstream) {
	return func(d *resource.Upstream) { d.Retry = &resource.Retry{Statuses: statuses} }
}

func reply(status int, more string) string {
	return fmt.Sprintf("HTTP/1.1 %d Status\r\n%sX-From: %d\r\nContent-Length: 3\r\n\r\nbad", status, more, status)
}

// TestStatusesThatAreRetried: an answer that the operator has listed makes another node be asked, whatever the method; nothing of it is
// left in what the client gets.
func TestStatusesThatAreRetried(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		edit   func(d *resource.Upstream)
		first  string
		second string
		status int
		body   string
		seen   string
	}{
		{"listed", listed(429, 503), reply(503, ""), ok2, 200, "ok", "503, 200"},
		{"streamed", listed(503), "HTTP/1.1 503 Busy\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nbad\r\n", ok2, 200, "ok", "503, 200"},
		{"not listed", listed(429), reply(503, ""), ok2, 503, "bad", "503"},
		{"both", listed(503), reply(503, ""), reply(503, ""), 503, "bad", "503, 503"},
		{"no other try", func(d *resource.Upstream) { listed(503)(d); retries(0)(d) }, reply(503, ""), ok2, 503, "bad", "503"},
		{"no budget", func(d *resource.Upstream) { listed(503)(d); d.Retry.Budget = new(int) }, reply(503, ""), ok2, 503, "bad", "503"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t)
			u := r.upstream(tt.edit, serve(t, answers(tt.first)), serve(t, answers(tt.second)))
			x := request("POST", "/", "data")
			do(u, x).want(t, tt.status, tt.body)
			if statuses(x) != tt.seen {
				t.Errorf("statuses %q, want %q", statuses(x), tt.seen)
			}
			if _, left := x.Response.Header.Get("X-From"); left != (tt.status != 200) {
				t.Errorf("lines of another answer: %v", x.Response.Header.Fields())
			}
			for _, n := range u.nodes {
				if n := n.Inflight.Load(); n != 0 {
					t.Errorf("%d attempts are under way for ever", n)
				}
			}
		})
	}
}

// A node that has asked to be left alone is asked last.
func TestRetryAfter(t *testing.T) {
	r := newRig(t)
	busy := serve(t, answers(reply(429, "Retry-After: 60\r\n")))
	good := serve(t, answers(ok2))
	u := r.upstream(listed(429), busy, good)
	for range 10 {
		get(u).want(t, 200, "ok")
	}
	if n := len(busy.seen()); n != 1 {
		t.Errorf("the node that asked to be left alone got %d requests", n)
	}
	alone := r.upstream(listed(429), busy)
	for range 2 {
		get(alone).want(t, 429, "bad")
	}
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for value, want := range map[string]time.Duration{
		"0": 0, "7": 7 * time.Second, "86400": longestCool, "-1": 0, "soon": 0, "": 0, "99999999999999999999": 0,
		"Fri, 02 Jan 2026 03:04:15 GMT": 10 * time.Second, "Fri, 02 Jan 2026 03:04:00 GMT": 0, "Fri, 02 Jan 2099 03:04:00 GMT": longestCool,
	} {
		if got := retryAfter([]byte(value), now); got != want {
			t.Errorf("%q: %v, want %v", value, got, want)
		}
	}
}

// TestRetryBudget: endpoints that fail after they have got a request are not asked much more often than clients ask; those that
// cannot be reached cost nothing.
func TestRetryBudget(t *testing.T) {
	const n = 1000
	r := newRig(t)
	sick := []*server{closer(t), closer(t)}
	u := r.upstream(nil, sick...)
	for range n {
		get(u).wantFault(t, fault.ClosedBeforeHead)
	}
	asked := len(sick[0].seen()) + len(sick[1].seen())
	if most := n + n*r.def.RetryBudget/100 + retryBurst; asked > most || asked < most-2 {
		t.Errorf("%d requests made %d attempts, want %d", n, asked, most)
	}
	u = r.upstream(func(d *resource.Upstream) { zero := 0; d.Retry = &resource.Retry{Budget: &zero} }, refused(t), serve(t, answers(ok2)))
	for range 100 {
		get(u).want(t, 200, "ok")
	}
	next, err := Compile(r.hub, &resource.Upstream{Type: "roundrobin", HashOn: "vars", Scheme: "http", PassHost: "pass"}, "next", r.def, u)
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	if next.budget.left != u.budget.left {
		t.Error("an edit fills the account")
	}
}

// held is a server whose answers wait until they are let go.
func held(t *testing.T) (s *server, arrived, let chan struct{}) {
	arrived, let = make(chan struct{}, 100), make(chan struct{})
	s = serve(t, func(p *peer) {
		for {
			if _, ok := p.next(); !ok {
				return
			}
			arrived <- struct{}{}
			select {
			case <-let:
			case <-p.s.closing:
				return
			}
			p.send(ok2)
		}
	})
	return s, arrived, let
}

func limited(inflight, queue int, wait time.Duration) func(d *resource.Upstream) {
	return func(d *resource.Upstream) {
		d.Limits = &resource.Limits{Inflight: inflight, Queue: queue, QueueTimeout: wait}
	}
}

// TestLimits: a node never has more under way than it may; as many wait as the queue takes, and the others are told to come again.
func TestLimits(t *testing.T) {
	r := newRig(t)
	s, arrived, let := held(t)
	u := r.upstream(limited(2, 3, patienceForQueue), s)
	results := make(chan result, 10)
	ask := func() { go func() { results <- get(u) }() }
	ask()
	ask()
	<-arrived
	<-arrived
	for range 3 {
		ask()
	}
	eventually(t, "three to wait", func() bool { return u.limiter.waiting.Load() == 3 })
	x := request("GET", "/", "")
	do(u, x).wantFault(t, fault.EndpointsBusy)
	if v, _ := x.Response.Header.Get("Retry-After"); string(v) != "1" {
		t.Errorf("Retry-After: %q", v)
	}
	select {
	case <-arrived:
		t.Error("a third request is under way")
	default:
	}
	for range 5 {
		let <- struct{}{}
	}
	for range 5 {
		(<-results).want(t, 200, "ok")
	}
	if u.limiter.waiting.Load() != 0 || u.nodes[0].Inflight.Load() != 0 {
		t.Errorf("%d wait, %d are under way", u.limiter.waiting.Load(), u.nodes[0].Inflight.Load())
	}
}

const patienceForQueue = 30 * time.Second

// A node that has enough is passed over while another has not, and that is no attempt.
func TestLimitsPassOver(t *testing.T) {
	r := newRig(t)
	s, arrived, let := held(t)
	u := r.upstream(limited(1, 0, time.Second), s, serve(t, answers(ok2)))
	stuck := make(chan result, 1)
	for {
		x := request("GET", "/", "")
		done := make(chan result, 1)
		go func() { done <- do(u, x) }()
		select {
		case <-arrived:
			stuck <- result{}
		case res := <-done:
			res.want(t, 200, "ok")
			continue
		}
		defer func() { (<-done).want(t, 200, "ok") }()
		break
	}
	<-stuck
	for range 10 {
		x := request("GET", "/", "")
		do(u, x).want(t, 200, "ok")
		if statuses(x) != "200" {
			t.Errorf("statuses %q", statuses(x))
		}
	}
	close(let)
}

// Who has waited for long enough is told to come again, and leaves no trace.
func TestQueueTimeout(t *testing.T) {
	r := newRig(t)
	s, arrived, let := held(t)
	u := r.upstream(limited(1, 1, 20*time.Millisecond), s)
	first := make(chan result, 1)
	go func() { first <- get(u) }()
	<-arrived
	get(u).wantFault(t, fault.EndpointsBusy)
	if u.limiter.waiting.Load() != 0 {
		t.Error("somebody waits for ever")
	}
	close(let)
	(<-first).want(t, 200, "ok")
	get(u).want(t, 200, "ok")
}

// An edit of the upstream leaves nobody waiting: what ends on the version before makes room on the next.
func TestQueueAfterEdit(t *testing.T) {
	r := newRig(t)
	s, arrived, let := held(t)
	u := r.upstream(limited(1, 1, patienceForQueue), s)
	first, second := make(chan result, 1), make(chan result, 1)
	go func() { first <- get(u) }()
	<-arrived
	doc := &resource.Upstream{Type: "roundrobin", HashOn: "vars", Scheme: "http", PassHost: "pass", Nodes: []resource.Node{{Host: s.host, Port: s.port, Weight: 1}}}
	limited(1, 5, patienceForQueue)(doc)
	next, err := Compile(r.hub, doc, "next", r.def, u)
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	go func() { second <- get(next) }()
	eventually(t, "one to wait", func() bool { return next.limiter.waiting.Load() == 1 })
	close(let)
	(<-first).want(t, 200, "ok")
	(<-second).want(t, 200, "ok")
}

// Under load every request is served, and no limit is exceeded at any moment.
func TestLimitsUnderLoad(t *testing.T) {
	const limit, clients, each = 3, 32, 100
	r := newRig(t)
	var running, most atomic.Int64
	script := func(p *peer) {
		for {
			if _, ok := p.next(); !ok {
				return
			}
			now := running.Add(1)
			for old := most.Load(); now > old && !most.CompareAndSwap(old, now); old = most.Load() {
			}
			running.Add(-1)
			p.send(ok2)
		}
	}
	u := r.upstream(limited(limit, clients, patienceForQueue), serve(t, script), serve(t, script))
	var all sync.WaitGroup
	for range clients {
		all.Go(func() {
			for range each {
				if res := get(u); res.status != 200 {
					t.Errorf("got %q, status %d", res.code(), res.status)
				}
			}
		})
	}
	all.Wait()
	if most.Load() > 2*limit {
		t.Errorf("%d requests at a time, want at most %d", most.Load(), 2*limit)
	}
	for _, n := range u.nodes {
		if n.Inflight.Load() != 0 {
			t.Errorf("%d are under way for ever", n.Inflight.Load())
		}
	}
}

// TestTotalTimeout: the clock of the whole exchange ends whichever part is under way, with a fault of its own.
func TestTotalTimeout(t *testing.T) {
	t.Parallel()
	total := func(d *resource.Upstream) {
		d.Timeout = &resource.Timeout{Connect: 10 * time.Second, Send: 10 * time.Second, Read: 10 * time.Second, Total: 60 * time.Millisecond}
	}
	r := newRig(t)
	get(r.upstream(total, blackhole(t))).wantFault(t, fault.TotalTimeout)
	get(r.upstream(total, silentServer(t), silentServer(t))).wantFault(t, fault.TotalTimeout)
	do(r.upstream(total, silentServer(t)), request("POST", "/", strings.Repeat("x", 16<<20))).wantFault(t, fault.TotalTimeout) // which nobody reads
	get(r.upstream(func(d *resource.Upstream) { total(d); limited(1, 1, 10*time.Second)(d) }, silentServer(t))).wantFault(t, fault.TotalTimeout)
	stalled := serve(t, func(p *peer) {
		p.next()
		p.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n")
		p.gone()
	})
	late := func(d *resource.Upstream) { total(d); d.Timeout.Total = 2 * time.Second } // long enough for the head to arrive
	if res := get(r.upstream(late, stalled)); res.cut != error(fault.TotalTimeout) || res.body != "ab" {
		t.Errorf("a body that stalls: %q, %v", res.body, res.cut)
	}
}

// The head has a clock of its own, and so has the handshake.
func TestClocksOfTheirOwn(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	slow := func(edit func(*resource.Timeout)) func(d *resource.Upstream) {
		return func(d *resource.Upstream) {
			d.Timeout = &resource.Timeout{Connect: 30 * time.Second, Send: 30 * time.Second, Read: 30 * time.Second}
			edit(d.Timeout)
		}
	}
	get(r.upstream(slow(func(t *resource.Timeout) { t.Head = 30 * time.Millisecond }), silentServer(t))).wantFault(t, fault.HeadTimeout)
	get(r.upstream(func(d *resource.Upstream) {
		d.Scheme = "https"
		slow(func(t *resource.Timeout) { t.Handshake = 30 * time.Millisecond })(d)
	}, serve(t, func(p *peer) { p.gone() }))).wantFault(t, fault.TLSTimeout)
}

// TestFirstContent: signs of life are not an answer. The clock stops at the first event with content, and for other bodies at the first byte.
func TestFirstContent(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	clock := func(first time.Duration) func(d *resource.Upstream) {
		return func(d *resource.Upstream) {
			d.Timeout = &resource.Timeout{Connect: 30 * time.Second, Send: 30 * time.Second, Read: 30 * time.Second, FirstContent: first}
		}
	}
	const (
		events  = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 100000\r\n\r\n"
		role    = "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n"
		content = "data: {\"choices\":[{\"delta\":{\"content\":\"Hi\"}}]}\n\n"
	)
	stall := func(parts ...string) *server {
		return serve(t, func(p *peer) {
			p.next()
			p.send(parts...)
			p.gone()
		})
	}
	const long = 2 * time.Second // for the head to arrive within
	for _, tt := range []struct {
		name string
		s    *server
	}{
		{"head alone", stall(events)},
		{"role", stall(events, ": ping\n\n", role)},
		{"other body", stall("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")},
		{"short body", stall("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")},
	} {
		if res := get(r.upstream(clock(long), tt.s)); res.status != 200 || res.cut != error(fault.FirstContentTimeout) {
			t.Errorf("%s: status %d, %q", tt.name, res.status, res.code())
		}
	}
	get(r.upstream(clock(50*time.Millisecond), stall())).wantFault(t, fault.HeadTimeout) // early enough for another node
	// After the first content it is the clock between two reads that runs.
	brief := func(d *resource.Upstream) {
		clock(long)(d)
		d.Timeout.Read, d.Timeout.Head = 300*time.Millisecond, long
	}
	for name, s := range map[string]*server{
		"content":    stall(events + role + content),
		"other body": stall("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n"),
	} {
		if res := get(r.upstream(brief, s)); res.cut != error(fault.ReadTimeout) {
			t.Errorf("%s: %q", name, res.code())
		}
	}
}
