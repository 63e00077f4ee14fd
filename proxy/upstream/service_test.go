package upstream

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"headgate/conf/resource"
	"headgate/proxy/fault"
	"headgate/proxy/phase"
	"headgate/proxy/upstream/dns"
	"headgate/proxy/upstream/dns/dnstest"
)

// directory is a rig with a name server, and with a goroutine that does what the config goroutine does.
type directory struct {
	*rig
	ns   *dnstest.Server
	dns  *dns.Client
	todo chan func()
}

func newDirectory(t testing.TB) *directory {
	d := &directory{rig: newRig(t), ns: dnstest.Start(t), todo: make(chan func())}
	// TTLs of tests are 0: an answer holds for a moment.
	o := dns.Options{MinTTL: 10 * time.Millisecond, Stale: time.Hour, Changed: d.hub.Discovered}
	d.dns = &dns.Client{Servers: []string{d.ns.Addr()}, Timeout: 30 * time.Second}
	o.Source = dns.Services(d.dns)
	d.hub.Discover(DiscoveryOptions{DNS: dns.New(o)})
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-d.hub.News():
				d.hub.UpdateNodes()
			case f := <-d.todo:
				f()
			case <-stop:
				return
			}
		}
	}()
	t.Cleanup(func() {
		close(stop)
		<-stopped
	})
	return d
}

// config runs f on the config goroutine.
func (d *directory) config(f func()) {
	done := make(chan struct{})
	d.todo <- func() { defer close(done); f() }
	<-done
}

// discovered compiles and publishes an upstream with the servers of a service.
func (d *directory) discovered(service string, prev *Upstream, edit func(doc *resource.Upstream)) (u *Upstream) {
	d.t.Helper()
	doc := &resource.Upstream{Type: "roundrobin", HashOn: "vars", Scheme: "http", PassHost: "pass", ServiceName: service, DiscoveryType: "dns"}
	if edit != nil {
		edit(doc)
	}
	var err error
	d.config(func() {
		if u, err = Compile(d.hub, doc, "test", d.def, prev); err == nil {
			u.Publish("upstreams/1")
			if prev != nil {
				prev.Close()
			}
		}
	})
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { d.config(u.Close) })
	return u
}

// servers makes list the SRV records of "web.test", and waits until u has them.
func (d *directory) servers(u *Upstream, list ...*server) {
	d.t.Helper()
	records := make([]dnstest.Record, 0, len(list))
	want := make([]string, 0, len(list))
	for _, s := range list {
		records = append(records, dnstest.SRV(0, 1, uint16(s.port), "here.test.", 0))
		want = append(want, fmt.Sprintf("127.0.0.1:%d", s.port))
	}
	d.ns.Set("here.test.", dnstest.A("127.0.0.1", 0))
	d.ns.Set("web.test.", records...)
	if u != nil {
		d.has(u, want...)
	}
}

func (d *directory) has(u *Upstream, want ...string) {
	d.t.Helper()
	slices.Sort(want)
	eventually(d.t, fmt.Sprintf("the nodes %v", want), func() bool { return slices.Equal(nodesOf(u), want) })
}

func nodesOf(u *Upstream) []string {
	list := make([]string, 0)
	for _, n := range u.present().nodes {
		list = append(list, n.addr)
	}
	slices.Sort(list)
	return list
}

// says is a server that answers with two letters.
func says(t testing.TB, text string) *server {
	return serve(t, answers("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"+text))
}

// TestDiscovery: nodes appear and vanish without an edit, and no request fails on the way.
func TestDiscovery(t *testing.T) {
	d := newDirectory(t)
	a, b, c := says(t, "aa"), says(t, "bb"), says(t, "cc")
	d.servers(nil, a, b)
	u := d.discovered("web.test", nil, nil)
	served := func() string {
		seen := map[string]bool{}
		for range 20 {
			r := get(u)
			if r.code() != "" {
				t.Fatal(r.code())
			}
			seen[r.body] = true
		}
		list := make([]string, 0, len(seen))
		for s := range seen {
			list = append(list, s)
		}
		slices.Sort(list)
		return strings.Join(list, " ")
	}
	if got := served(); got != "aa bb" { // the first request has waited for the nodes
		t.Fatalf("got %s", got)
	}
	for _, step := range []struct {
		want string
		list []*server
	}{{"bb cc", []*server{b, c}}, {"aa", []*server{a}}, {"aa bb cc", []*server{a, b, c}}} {
		begun := time.Now()
		d.servers(u, step.list...)
		t.Logf("the change was visible after %v", time.Since(begun))
		if got := served(); got != step.want {
			t.Fatalf("got %s, want %s", got, step.want)
		}
	}
	// No server: nobody can be asked. One more: all is well again.
	d.servers(u)
	get(u).wantFault(t, fault.NoEndpoint)
	if e, f := u.Explain(request("GET", "/", "")); f != fault.NoEndpoint || len(e.Nodes) != 0 || e.Type != "roundrobin" {
		t.Errorf("explained as %+v, %v", e, f)
	}
	d.servers(u, c)
	if got := served(); got != "cc" {
		t.Fatalf("got %s", got)
	}
	if e, f := u.Explain(request("GET", "/", "")); f != nil || len(e.Nodes) != 1 || e.Next != nodesOf(u)[0] {
		t.Errorf("explained as %+v, %v", e, f)
	}
	// While the name server fails, all stays as it is.
	d.ns.Fail("web.test.", dnsmessage.RCodeServerFailure)
	asked := d.ns.Asked("web.test.")
	eventually(t, "failures", func() bool { return d.ns.Asked("web.test.") > asked+3 })
	if got := served(); got != "cc" {
		t.Fatalf("got %s", got)
	}
}

// TestPriorityAndWeight come from SRV records, and a port in the service name stands above theirs.
func TestPriorityAndWeight(t *testing.T) {
	d := newDirectory(t)
	d.ns.Set("a.test.", dnstest.A("127.0.0.1", 0))
	d.ns.Set("b.test.", dnstest.A("127.0.0.2", 0), dnstest.A("127.0.0.3", 0))
	d.ns.Set("web.test.", dnstest.SRV(10, 60, 81, "a.test.", 0), dnstest.SRV(20, 7, 82, "b.test.", 0), dnstest.SRV(10, 1, 0, "b.test.", 0))
	show := func(u *Upstream) string {
		var list []string
		for _, n := range u.present().nodes {
			list = append(list, fmt.Sprintf("%s*%d^%d", n.addr, n.Weight, n.Priority))
		}
		return strings.Join(list, " ")
	}
	for service, want := range map[string]string{
		"web.test":   "127.0.0.1:81*120^-10 127.0.0.2:80*1^-10 127.0.0.3:80*1^-10 127.0.0.2:82*7^-20 127.0.0.3:82*7^-20",
		"web.test:9": "127.0.0.1:9*120^-10 127.0.0.2:9*1^-10 127.0.0.3:9*1^-10",
		"b.test":     "127.0.0.2:80*1^0 127.0.0.3:80*1^0",
		"b.test:8":   "127.0.0.2:8*1^0 127.0.0.3:8*1^0",
	} {
		u := d.discovered(service, nil, nil)
		eventually(t, service+" as "+want, func() bool { return show(u) == want })
	}
}

// TestUnderWay: a request at a node that vanishes is finished there, and connections to it are not kept.
func TestUnderWay(t *testing.T) {
	d := newDirectory(t)
	arrived, release := make(chan struct{}, 1), make(chan struct{})
	old := serve(t, func(p *peer) {
		if _, ok := p.next(); ok {
			p.send("HTTP/1.1 200 OK\r\nContent-Length: 40000\r\n\r\n" + strings.Repeat("x", 20000))
			arrived <- struct{}{}
			<-release
			p.send(strings.Repeat("x", 20000))
		}
		p.gone()
	})
	d.servers(nil, old)
	u := d.discovered("web.test", nil, nil)
	done := make(chan result)
	go func() { done <- get(u) }()
	<-arrived
	next := says(t, "ok")
	d.servers(u, next)
	get(u).want(t, 200, "ok")
	close(release)
	if r := <-done; r.code() != "" || len(r.body) != 40000 {
		t.Fatalf("%q, %d bytes", r.code(), len(r.body))
	}
	d.connections(1, 1)
}

// TestNodesThatStay keep what is known of them: health, what is under way, who asked to be left alone, and their connections.
func TestNodesThatStay(t *testing.T) {
	d := newDirectory(t)
	d.hub.CheckHealth(HealthOptions{})
	a, b, c := newMoody(t), newMoody(t), newMoody(t)
	d.servers(nil, a.server, b.server)
	u := d.discovered("web.test", nil, func(doc *resource.Upstream) { doc.Type, doc.Checks = "least_conn", watching() })
	d.has(u, nodesOfServers(a.server, b.server)...)
	at := func(s *moody) *node {
		nodes := u.present().nodes
		return nodes[slices.IndexFunc(nodes, func(n *node) bool { return n.addr == fmt.Sprintf("127.0.0.1:%d", s.port) })]
	}
	for at(a).Healthy() {
		_ = do(u, request("GET", "/500", ""))
		if !at(b).Healthy() {
			at(b).SetHealthy(true)
		}
	}
	at(b).Inflight.Add(3)
	at(b).asked.Store(1)
	before := u.present()
	accepted := b.connections()
	d.servers(u, a.server, b.server, c.server)
	if u.present() == before || at(a).Healthy() || !at(b).Healthy() || at(b).Inflight.Load() != 3 || at(b).asked.Load() != 1 || !at(c).Healthy() {
		t.Errorf("a %v, b %v with %d, c %v", at(a).Healthy(), at(b).Healthy(), at(b).Inflight.Load(), at(c).Healthy())
	}
	at(b).Inflight.Add(-3)
	at(c).Inflight.Add(5)
	for range 5 {
		get(u).want(t, 200, "ok")
	}
	if b.connections() > accepted+1 {
		t.Errorf("%d connections more to a node that stays", b.connections()-accepted)
	}
	if list := d.hub.Health(); len(list) != 1 || len(list[0].Nodes) != 3 {
		t.Errorf("shown are %+v", list)
	}
	// An edit of the document keeps all of it too, and needs no new question.
	next := d.discovered("web.test", u, func(doc *resource.Upstream) { doc.Type, doc.Checks, doc.Name = "least_conn", watching(), "edited" })
	if u = next; len(nodesOf(u)) != 3 || at(a).Healthy() || at(c).Inflight.Load() != 5 {
		t.Errorf("after the edit: %v, a %v, c with %d", nodesOf(u), at(a).Healthy(), at(c).Inflight.Load())
	}
}

func nodesOfServers(list ...*server) (out []string) {
	for _, s := range list {
		out = append(out, fmt.Sprintf("127.0.0.1:%d", s.port))
	}
	return out
}

// TestFirstAnswer: the requests of the first moments wait for it, as long as connecting may take, and a failure is an answer.
func TestFirstAnswer(t *testing.T) {
	d := newDirectory(t)
	d.dns.Timeout, d.dns.Rounds = 100*time.Millisecond, 100 // questions that get no answer are repeated
	s := says(t, "ok")
	d.ns.Silence(func(string, dnsmessage.Type) bool { return true })
	u := d.discovered(fmt.Sprintf("here.test:%d", s.port), nil, nil)
	short := u.WithTimeout(&resource.Timeout{Connect: 20 * time.Millisecond, Send: time.Minute, Read: time.Minute})
	get(short).wantFault(t, fault.NoEndpoint)
	if !u.Same(short) || short.Name() != "test" {
		t.Error("the copy with other clocks is another upstream")
	}
	d.ns.Silence(nil)
	// Who waits at an upstream that was replaced meanwhile is served as well.
	d.ns.Silence(func(name string, _ dnsmessage.Type) bool { return name == "late.test." })
	late := fmt.Sprintf("late.test:%d", s.port)
	old := d.discovered(late, nil, nil)
	done := make(chan result)
	go func() { done <- get(old) }()
	eventually(t, "the question", func() bool { return d.ns.Asked("late.test.") > 0 })
	next := d.discovered(late, nil, nil)
	d.config(old.Withdraw)
	d.ns.Set("late.test.", dnstest.A("127.0.0.1", 0))
	d.ns.Silence(nil)
	(<-done).want(t, 200, "ok")
	get(next).want(t, 200, "ok")

	d.ns.Fail("gone.test.", dnsmessage.RCodeNameError)
	get(d.discovered("gone.test", nil, nil)).wantFault(t, fault.NoEndpoint)

	d.ns.Fail("broken.test.", dnsmessage.RCodeServerFailure)
	broken := d.discovered("broken.test", nil, nil)
	get(broken).wantFault(t, fault.NoEndpoint)
	d.ns.Set("broken.test.", dnstest.SRV(0, 1, uint16(s.port), "here.test.", 0))
	d.ns.Set("here.test.", dnstest.A("127.0.0.1", 0))
	d.has(broken, nodesOfServers(s)...)
	get(broken).want(t, 200, "ok")
}

// TestClocksOfDiscovered: a route's own clocks count with every set of nodes.
func TestClocksOfDiscovered(t *testing.T) {
	d := newDirectory(t)
	silent, well := serve(t, func(p *peer) { p.gone() }), says(t, "ok")
	d.servers(nil, silent)
	u := d.discovered("web.test", nil, nil)
	quick := u.WithTimeout(&resource.Timeout{Connect: time.Minute, Send: time.Minute, Read: time.Minute, Head: 20 * time.Millisecond})
	post(quick).wantFault(t, fault.HeadTimeout)
	d.servers(u, well, silent)
	d.servers(u, silent)
	post(quick).wantFault(t, fault.HeadTimeout)
	d.servers(u, well)
	if first := quick.present(); first == u.present() || first != quick.present() {
		t.Fatal("the copy has no clocks of its own, or another set of nodes every time")
	}
	post(u).want(t, 200, "ok")
}

// TestDiscoveryIsRefused: what cannot be found is refused, or accepted without nodes when the operator wants that.
func TestDiscoveryIsRefused(t *testing.T) {
	r := newRig(t)
	f := func(kind, service, want string) {
		t.Helper()
		doc := &resource.Upstream{Type: "roundrobin", Scheme: "http", ServiceName: service, DiscoveryType: kind}
		u, err := Compile(r.hub, doc, "test", r.def, nil)
		if err == nil {
			defer u.Close()
			u.Publish("upstreams/1")
			get(u).wantFault(t, fault.NoEndpoint)
			if !u.Undiscovered() {
				t.Errorf("%s %s is taken for discovered", kind, service)
			}
			return
		}
		if want == "" || !strings.Contains(err.Error(), want) {
			t.Errorf("%s %s: %v", kind, service, err)
		}
	}
	f("dns", "web.test", "set servers of [discovery.dns] in the configuration file")
	f("consul", "web.test", `discovery_type "consul" is not supported`)
	r.hub.Discover(DiscoveryOptions{Store: true})
	f("dns", "web.test", "")
	f("consul", "web.test", "")
	d := newDirectory(t)
	r = d.rig
	f("dns", ":80", "service_name has no name")
	f("nacos", "web.test", `discovery_type "nacos" is not supported`)
	// Nodes win over a discovery_type without a service.
	u := d.upstream(func(doc *resource.Upstream) { doc.DiscoveryType = "consul" }, says(t, "ok"))
	get(u).want(t, 200, "ok")
}

// TestIdentityOfDiscovered: over TLS a server must prove that it is the service, not that it has the address which DNS says.
func TestIdentityOfDiscovered(t *testing.T) {
	d := newDirectory(t)
	ca := newAuthority(t)
	d.def.TLS.Roots = ca.pool()
	s := serveTLS(t, ca.server("upstream.test"), answers(ok2))
	d.ns.Set("upstream.test.", dnstest.A("127.0.0.1", 0))
	d.ns.Set("_https._tcp.upstream.test.", dnstest.SRV(0, 1, uint16(s.port), "upstream.test.", 0))
	d.ns.Set("evil.test.", dnstest.A("127.0.0.1", 0))
	https := func(doc *resource.Upstream) { doc.Scheme = "https" }
	get(d.discovered(fmt.Sprintf("upstream.test:%d", s.port), nil, https)).want(t, 200, "ok")
	get(d.discovered("_https._tcp.upstream.test", nil, https)).want(t, 200, "ok")
	get(d.discovered(fmt.Sprintf("evil.test:%d", s.port), nil, https)).wantFault(t, fault.TLSWrongName)
	get(d.discovered(fmt.Sprintf("evil.test:%d", s.port), nil, func(doc *resource.Upstream) {
		doc.Scheme, doc.PassHost, doc.UpstreamHost = "https", "rewrite", "upstream.test"
	})).want(t, 200, "ok")
}

// TestNothingIsLeft: an upstream that is closed leaves no name, no pool and no service behind.
func TestNothingIsLeft(t *testing.T) {
	d := newDirectory(t)
	s := says(t, "ok")
	d.servers(nil, s)
	for _, publish := range []bool{false, true} {
		doc := &resource.Upstream{Type: "roundrobin", Scheme: "http", ServiceName: "web.test", DiscoveryType: "dns"}
		u, err := Compile(d.hub, doc, "test", d.def, nil)
		if err != nil {
			t.Fatal(err)
		}
		if publish {
			d.config(func() { u.Publish("upstreams/1") })
			get(u).want(t, 200, "ok")
			d.config(u.Withdraw)
			get(u).want(t, 200, "ok")
		}
		d.config(u.Close)
		d.hub.mu.Lock()
		if len(d.hub.pools)+len(d.hub.services) > 0 {
			t.Errorf("%d pools, %d services", len(d.hub.pools), len(d.hub.services))
		}
		d.hub.mu.Unlock()
	}
	asked := d.ns.Asked("web.test.")
	d.servers(nil, s, says(t, "no"))
	time.Sleep(50 * time.Millisecond) // more than a few TTLs
	if d.ns.Asked("web.test.") > asked+1 {
		t.Error("a name that nobody uses is asked for")
	}
}

// TestNodesChangeUnderLoad: not one request fails while nodes come and go all the time.
func TestNodesChangeUnderLoad(t *testing.T) {
	for _, kind := range []string{"roundrobin", "least_conn", "ewma", "chash"} {
		t.Run(kind, func(t *testing.T) {
			d := newDirectory(t)
			d.hub.CheckHealth(HealthOptions{})
			servers := []*server{says(t, "ok"), says(t, "ok"), says(t, "ok"), says(t, "ok")}
			d.servers(nil, servers...)
			u := d.discovered("web.test", nil, func(doc *resource.Upstream) {
				doc.Type, doc.Key, doc.Checks = kind, "remote_addr", watching()
				doc.Limits = &resource.Limits{Inflight: 2, Queue: 100, QueueTimeout: time.Minute}
			})
			with := u.WithTimeout(&resource.Timeout{Connect: time.Minute, Send: time.Minute, Read: time.Minute})
			var sent atomic.Int64
			stop := make(chan struct{})
			var running sync.WaitGroup
			for i := range 6 {
				running.Go(func() {
					for at := u; ; sent.Add(1) {
						if i%2 == 1 {
							at = with
						}
						if r := get(at); r.code() != "" || r.body != "ok" {
							t.Errorf("%q, %q", r.code(), r.body)
							return
						}
						select {
						case <-stop:
							return
						default:
						}
					}
				})
			}
			for i := range 8 {
				d.servers(u, servers[i%4], servers[(i+1+i/4)%4])
			}
			close(stop)
			running.Wait()
			t.Logf("%d requests, 8 changes, 0 errors", sent.Load())
		})
	}
}

// TestDiscoveredAlloc: the set of nodes is one pointer; following it allocates nothing.
func TestDiscoveredAlloc(t *testing.T) {
	d := newDirectory(t)
	d.def.Pool.MaxRequests = 0
	_, port := replay(t, nil, warmReplies["length"])
	d.ns.Set("here.test.", dnstest.A("127.0.0.1", 3600))
	u := d.discovered(fmt.Sprintf("here.test:%d", port), nil, nil)
	u = u.WithTimeout(&resource.Timeout{Connect: time.Minute, Send: time.Minute, Read: time.Minute})
	x := request("GET", "/v1/models", "")
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
	if got := testing.AllocsPerRun(300, exchange); !raceDetector && got != 0 {
		t.Errorf("%v allocations per exchange, want none", got)
	}
}
