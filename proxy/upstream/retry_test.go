package upstream

import (
	"slices"
	"strings"
	"testing"
	"time"

	"headgate/conf/resource"
	"headgate/proxy/fault"
	"headgate/proxy/phase"
)

func silentServer(t testing.TB) *server {
	return serve(t, func(p *peer) {
		p.next()
		p.gone()
	})
}

func closer(t testing.TB) *server { return serve(t, func(p *peer) { p.next() }) }

func statuses(x *phase.Exchange) string { return string(x.Attempts.AppendStatuses(nil)) }

// TestRetries: which failures go on to the other endpoint, by method (contract sections 3.2 and 3.3, as observed).
func TestRetries(t *testing.T) {
	t.Parallel()
	answer := func(reply string) func(testing.TB) *server {
		return func(t testing.TB) *server { return serve(t, once(reply)) }
	}
	broken := map[string]func(testing.TB) *server{
		"refused": refused,
		"closed":  closer,
		"reset": func(t testing.TB) *server {
			return serve(t, func(p *peer) {
				p.next()
				p.reset()
			})
		},
		"silent":   silentServer,
		"head cut": answer("HTTP/1.1 200 O"),
		"bad head": answer("HTTP/1.1 20\r\n\r\n"),
		"bad body": answer(chunkedHead + "x\r\n"),
		"5xx":      answer("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"),
	}
	for _, c := range []struct {
		failure, methods, statuses string
		fault                      *fault.Fault
		answered                   int // status of the upstream that is relayed
	}{
		{"refused", "GET HEAD PUT DELETE OPTIONS POST PATCH LOCK", "502, 502", fault.ConnectFailed, 0},
		{"closed", "GET HEAD PUT DELETE OPTIONS", "502, 502", fault.ClosedBeforeHead, 0},
		{"closed", "POST PATCH LOCK", "502", fault.ClosedBeforeHead, 0},
		{"reset", "GET PUT", "502, 502", fault.ClosedBeforeHead, 0},
		{"reset", "POST", "502", fault.ClosedBeforeHead, 0},
		{"silent", "GET DELETE", "504, 504", fault.HeadTimeout, 0},
		{"silent", "POST PATCH", "504", fault.HeadTimeout, 0},
		{"head cut", "GET", "502, 502", fault.HeadCut, 0},
		{"head cut", "POST", "502", fault.HeadCut, 0},
		{"bad head", "GET POST", "502", fault.BadHead, 0},
		{"bad body", "GET POST", "502", fault.BadBody, 0},
		{"5xx", "GET POST", "503", nil, 503},
	} {
		for method := range strings.FieldsSeq(c.methods) {
			t.Run(c.failure+" "+method, func(t *testing.T) {
				r := newRig(t)
				r.def.Read = 30 * time.Millisecond
				if c.failure != "silent" {
					r.def.Read = 10 * time.Second
				}
				u := r.upstream(nil, broken[c.failure](t), broken[c.failure](t))
				x := request(method, "/", "")
				got := do(u, x)
				if got.fault != c.fault || got.status != c.answered {
					t.Fatalf("got %q, status %d", got.code(), got.status)
				}
				if statuses(x) != c.statuses {
					t.Fatalf("statuses %q, want %q", statuses(x), c.statuses)
				}
				if c.fault != nil {
					r.connections(0, 0)
				}
			})
		}
	}
}

// TestOperatorLetsEverythingBeRepeated: then a POST goes on to another node as well, within the budget; a protocol switch does not.
func TestOperatorLetsEverythingBeRepeated(t *testing.T) {
	r := newRig(t)
	u := r.upstream(func(d *resource.Upstream) {
		budget := 0
		d.Retry = &resource.Retry{NonIdempotent: true, Budget: &budget}
	}, closer(t), closer(t))
	for _, c := range []struct {
		budget                int64
		method, upgrade, want string
	}{
		{0, "POST", "", "502"},
		{20, "POST", "", "502, 502"},
		{20, "PATCH", "", "502, 502"},
		{20, "GET", "websocket", "502"},
	} {
		u.budget.percent = c.budget
		x := request(c.method, "/", "")
		x.Request.Upgrade = []byte(c.upgrade)
		do(u, x).wantFault(t, fault.ClosedBeforeHead)
		if statuses(x) != c.want {
			t.Errorf("%s %s with a budget of %d: statuses %q, want %q", c.method, c.upgrade, c.budget, statuses(x), c.want)
		}
	}
}

// TestOutMethodDecidesAboutRetries: what the upstream would execute twice counts, not what the client called it.
func TestOutMethodDecidesAboutRetries(t *testing.T) {
	r := newRig(t)
	u := r.upstream(nil, closer(t), closer(t))
	x := request("GET", "/", "")
	x.Request.OutMethod = []byte("POST")
	do(u, x).wantFault(t, fault.ClosedBeforeHead)
	if statuses(x) != "502" {
		t.Fatalf("statuses %q", statuses(x))
	}
}

func TestNextEndpointAnswers(t *testing.T) {
	r := newRig(t)
	good := serve(t, answers(ok2))
	u := r.upstream(nil, refused(t), good)
	tried := map[string]bool{}
	for range 10 {
		x := request("POST", "/", "data")
		do(u, x).want(t, 200, "ok")
		tried[statuses(x)] = true
		if x.Attempts.NodePort != uint16(good.port) || x.Attempts.Node != "127.0.0.1" {
			t.Fatalf("answered by %s", x.Attempts.Addr)
		}
	}
	delete(tried, "200")
	if len(tried) != 1 || !tried["502, 200"] {
		t.Fatalf("statuses seen: %v", tried)
	}
}

func TestRetryLimits(t *testing.T) {
	t.Parallel()
	f := func(name string, edit func(d *resource.Upstream), nodes int, want *fault.Fault, statusesWant string) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.def.Read, r.def.NoteUnmade = 30*time.Millisecond, strings.HasSuffix(statusesWant, ": ")
			var servers []*server
			for range nodes {
				servers = append(servers, silentServer(t))
			}
			x := request("GET", "/", "")
			do(r.upstream(edit, servers...), x).wantFault(t, want)
			if statuses(x) != statusesWant {
				t.Fatalf("statuses %q, want %q", statuses(x), statusesWant)
			}
		})
	}
	f("one node", nil, 1, fault.HeadTimeout, "504")
	f("none", retries(0), 3, fault.HeadTimeout, "504")
	f("one", retries(1), 3, fault.HeadTimeout, "504, 504")
	f("default", nil, 3, fault.HeadTimeout, "504, 504, 504")
	f("more than nodes", retries(9), 2, fault.AllTried, "504, 504")
	f("deadline", func(d *resource.Upstream) { d.RetryTimeout = 0.02 }, 3, fault.RetryDeadline, "504")
	f("deadline far away", func(d *resource.Upstream) { d.RetryTimeout = 60 }, 2, fault.HeadTimeout, "504, 504")
	f("no node", nil, 0, fault.NoEndpoint, "")
	f("the only node again", retries(2), 1, fault.HeadTimeout, "504, 504, 504")
	f("more than nodes, shown", retries(9), 2, fault.AllTried, "504, 504 : ")
	f("deadline, shown", func(d *resource.Upstream) { d.RetryTimeout = 0.02 }, 3, fault.RetryDeadline, "504 : ")
}

// senders records the endpoint of every attempt and stops at the nth.
type senders struct {
	addrs []string
	stop  int
}

func (s *senders) Send(x *phase.Exchange) phase.Verdict {
	s.addrs = append(s.addrs, x.Attempts.Addr)
	if len(s.addrs) == s.stop {
		x.Answer(418, "", nil)
		return phase.Stop
	}
	return phase.Continue
}

// TestNeverTheSameNodeTwice, in the order of priority, with the send phase before each attempt.
func TestNeverTheSameNodeTwice(t *testing.T) {
	r := newRig(t)
	var servers []*server
	for range 6 {
		servers = append(servers, refused(t))
	}
	u := r.upstream(func(d *resource.Upstream) {
		n := 20
		d.Retries = &n
		for i := range d.Nodes {
			d.Nodes[i].Priority = i / 2
		}
		d.Nodes[0].Weight = 0 // never
	}, servers...)
	for range 5 {
		x, s := request("POST", "/", ""), &senders{}
		x.Enter(nil, phase.NewChain([]phase.Instance{{Name: "s", Plugin: s}}))
		do(u, x).wantFault(t, fault.AllTried)
		if len(s.addrs) != 5 || len(slices.Compact(slices.Sorted(slices.Values(s.addrs)))) != 5 {
			t.Fatalf("tried %q", s.addrs)
		}
		for i, want := range []int{2, 2, 1, 1, 0} {
			at := slices.IndexFunc(u.nodes, func(n *node) bool { return n.addr == s.addrs[i] })
			if u.nodes[at].Priority != want {
				t.Fatalf("attempt %d went to priority %d", i, u.nodes[at].Priority)
			}
		}
	}
}

func TestSenderStops(t *testing.T) {
	r := newRig(t)
	u := r.upstream(nil, refused(t), refused(t))
	x := request("GET", "/", "")
	x.Enter(nil, phase.NewChain([]phase.Instance{{Name: "s", Plugin: &senders{stop: 2}}}))
	do(u, x).want(t, 418, "")
	if x.Response.Source != phase.FromPlugin || statuses(x) != "502" {
		t.Fatalf("source %s, statuses %q", x.Response.Source, statuses(x))
	}
	r.idleNodes(u)
}

// idleNodes: no endpoint counts an attempt as under way.
func (r *rig) idleNodes(u *Upstream) {
	r.t.Helper()
	for _, n := range u.nodes {
		if got := n.Inflight.Load(); got != 0 {
			r.t.Fatalf("%s counts %d attempts under way", n.addr, got)
		}
	}
}

// TestInflight: an attempt is under way until the body has been read, which is what least_conn goes by.
func TestInflight(t *testing.T) {
	r := newRig(t)
	release := make(chan struct{})
	s := serve(t, func(p *peer) {
		p.next()
		p.send(chunkedHead, "2\r\nok\r\n")
		<-release
	})
	u := r.upstream(nil, s)
	x := request("GET", "/", "")
	if f := u.Forward(x); f != nil {
		t.Fatal(f)
	}
	if n := u.nodes[0].Inflight.Load(); n != 1 {
		t.Fatalf("%d under way while the body is", n)
	}
	close(release)
	x.Response.Stream.Close()
	r.idleNodes(u)
	get(r.upstream(nil, serve(t, answers(ok2)))).want(t, 200, "ok")
	r.idleNodes(u)
}

// panicky is a plugin that breaks in the send phase.
type panicky struct{}

func (panicky) Send(*phase.Exchange) phase.Verdict { panic("broken plugin") }

func TestPanicLeavesNoCount(t *testing.T) {
	r := newRig(t)
	u := r.upstream(nil, refused(t))
	x := request("GET", "/", "")
	x.Enter(nil, phase.NewChain([]phase.Instance{{Name: "p", Plugin: panicky{}}}))
	func() {
		defer func() { _ = recover() }()
		u.Forward(x)
	}()
	r.idleNodes(u)
}

// TestHashing: equal keys go together, whatever else differs.
func TestHashing(t *testing.T) {
	r := newRig(t)
	s := []*server{serve(t, answers(ok2)), serve(t, answers(ok2)), serve(t, answers(ok2))}
	for _, c := range []struct {
		on, key string
		set     func(x *phase.Exchange, v string)
	}{
		{"header", "X-Tenant", func(x *phase.Exchange, v string) { x.Request.Header.Add([]byte("x-tenant"), []byte(v)) }},
		{"cookie", "sid", func(x *phase.Exchange, v string) { x.Request.Header.Add([]byte("Cookie"), []byte("a=b; sid="+v)) }},
		{"consumer", "", func(x *phase.Exchange, v string) { x.Consumer.Name = v }},
		{"vars", "arg_k", func(x *phase.Exchange, v string) { x.Request.Query = []byte("k=" + v) }},
		{"vars_combinations", "$arg_k-$request_method", func(x *phase.Exchange, v string) { x.Request.Query = []byte("k=" + v) }},
		{"vars", "no_such_variable", func(x *phase.Exchange, v string) { x.Client.Text = []byte(v) }}, // the client's address
	} {
		u := r.upstream(func(d *resource.Upstream) { d.Type, d.HashOn, d.Key = "chash", c.on, c.key }, s...)
		used := map[string]bool{}
		for _, v := range strings.Fields("a b c d e f g h i j k l m n o p") {
			var first string
			for range 3 {
				x := request("GET", "/", "")
				c.set(x, v)
				do(u, x).want(t, 200, "ok")
				if first == "" {
					first = x.Attempts.Addr
				}
				if x.Attempts.Addr != first {
					t.Fatalf("%s %s: %q went to %s and %s", c.on, c.key, v, first, x.Attempts.Addr)
				}
			}
			used[first] = true
		}
		if len(used) < 2 {
			t.Errorf("%s %s: everything went to %v", c.on, c.key, used)
		}
	}
	bad := &resource.Upstream{Type: "chash", HashOn: "moon", Scheme: "http"}
	if _, err := Compile(r.hub, bad, "test", r.def, nil); err == nil {
		t.Error("hash_on moon was accepted")
	}
}

// TestEveryRuleServes: the rules that learn from exchanges get to see them, and all endpoints get requests.
func TestEveryRuleServes(t *testing.T) {
	for _, rule := range []string{"roundrobin", "least_conn", "ewma", "chash"} {
		r := newRig(t)
		u := r.upstream(func(d *resource.Upstream) { d.Type, d.Key = rule, "remote_port" }, serve(t, answers(ok2)), serve(t, answers(ok2)))
		used := map[string]int{}
		for i := range 40 {
			x := request("GET", "/", "")
			x.Client.Port = uint16(i)
			do(u, x).want(t, 200, "ok")
			used[x.Attempts.Addr]++
			if x.Attempts.Head <= x.Attempts.Connected || x.Attempts.End < x.Attempts.Head {
				t.Fatalf("connected %v, head %v, end %v", x.Attempts.Connected, x.Attempts.Head, x.Attempts.End)
			}
		}
		if rule != "ewma" && len(used) != 2 {
			t.Errorf("%s: %v", rule, used)
		}
		r.idleNodes(u)
	}
	r := newRig(t)
	if _, err := Compile(r.hub, &resource.Upstream{Type: "moon", Scheme: "http", Nodes: []resource.Node{{Host: "a", Weight: 1}}}, "", r.def, nil); err == nil {
		t.Error("an unknown rule was accepted")
	}
	if _, err := Compile(r.hub, &resource.Upstream{Type: "roundrobin", Scheme: "grpc"}, "", r.def, nil); err == nil {
		t.Error("a scheme that is not spoken was accepted")
	}
	if len(r.hub.pools) != 0 {
		t.Error("a refused document has left pools behind")
	}
}
