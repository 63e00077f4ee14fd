package upstream

import (
	"net"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"headgate/balancer"
	"headgate/conf/resource"
	"headgate/proxy/fault"
)

// turnstile is a server whose address can be refusing connections for a while: it listens only while it is open.
type turnstile struct {
	t    *testing.T
	addr string
	ln   net.Listener
	hits atomic.Int64
}

func newTurnstile(t *testing.T) *turnstile {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := &turnstile{t: t, addr: ln.Addr().String(), ln: ln}
	t.Cleanup(func() { _ = d.ln.Close() })
	go d.serve(ln)
	return d
}

func (d *turnstile) serve(ln net.Listener) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		d.hits.Add(1)
		go func() {
			defer c.Close()
			buf := make([]byte, 4096)
			if _, err := c.Read(buf); err == nil {
				_, _ = c.Write([]byte("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\nback"))
			}
		}()
	}
}

// node is the address in a document.
func (d *turnstile) node() resource.Node {
	a := d.ln.Addr().(*net.TCPAddr)
	return resource.Node{Host: a.IP.String(), Port: a.Port, Weight: 1}
}

func (d *turnstile) close() { _ = d.ln.Close() }

func (d *turnstile) open() {
	ln, err := net.Listen("tcp", d.addr)
	if err != nil {
		d.t.Fatal(err)
	}
	d.ln = ln
	go d.serve(ln)
}

// restRig is an upstream of a node that is always there and one behind a turnstile; nothing is pooled.
func restRig(t *testing.T) (*Upstream, *turnstile) {
	r := newRig(t)
	r.def.NextNode = 10 * time.Second
	gate := newTurnstile(t)
	u := r.upstream(func(d *resource.Upstream) {
		d.Nodes = append(d.Nodes, gate.node())
	}, serve(t, func(p *peer) {
		for _, ok := p.next(); ok; _, ok = p.next() {
			p.send(ok2)
		}
	}))
	return u, gate
}

// TestLostNodeRests: a node that cannot be connected costs one attempt, not one for each request of its turn, and every request is answered.
// When its rest is over one request tries it, and from then on it has its share.
func TestLostNodeRests(t *testing.T) {
	t.Parallel()
	u, gate := restRig(t)
	gate.close()
	failed := func(requests int) (n int) {
		for range requests {
			x := request("GET", "/", "")
			do(u, x).want(t, 200, "ok")
			n += x.Attempts.Count - 1
		}
		return n
	}
	lost := &u.nodes[1].lost
	if n := failed(2); n != 1 || lost.Load() == 0 {
		t.Fatalf("%d attempts failed, want 1", n)
	}
	lost.Store(int64(time.Since(u.hub.epoch) + time.Hour))
	if n := failed(10); n != 0 {
		t.Errorf("%d attempts failed at a node that rests", n)
	}
	lost.Store(1)
	if n := failed(2); n != 1 || lost.Load() == 1 {
		t.Errorf("%d attempts failed after its rest, want 1", n)
	}
	lost.Store(1)
	gate.open()
	eventually(t, "the node has its share again", func() bool {
		a, b := request("GET", "/", ""), request("GET", "/", "")
		do(u, a)
		do(u, b)
		return string(a.Response.Body) != string(b.Response.Body)
	})
	if u.resting.Load() || u.nodes[1].lost.Load() != 0 {
		t.Error("picks still look for nodes that rest")
	}
}

// TestLostNodeIsBetterThanNone: when no node can be connected all are asked, by every request.
func TestLostNodeIsBetterThanNone(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.def.NextNode = 10 * time.Second
	a, b := newTurnstile(t), newTurnstile(t)
	u := r.upstream(func(d *resource.Upstream) {
		d.Nodes = append(d.Nodes, a.node(), b.node())
	})
	a.close()
	b.close()
	for range 3 {
		x := request("GET", "/", "")
		do(u, x).wantFault(t, fault.ConnectFailed)
		if x.Attempts.Count != 2 {
			t.Fatalf("%d attempts, want 2", x.Attempts.Count)
		}
	}
	b.open()
	do(u, request("GET", "/", "")).want(t, 200, "back")
}

// TestOneTries: of many who come when the rest of a node is over one tries it, and the rest of them leave it alone.
func TestOneTries(t *testing.T) {
	var n rest
	n.lost.Store(int64(5 * time.Second))
	tries := 0
	for range 100 {
		if !n.away(6 * time.Second) {
			tries++
		}
	}
	if tries != 1 {
		t.Errorf("%d try, want 1", tries)
	}
	if n.away(6*time.Second + longestRest) {
		t.Error("nobody tries when nothing was heard of who did")
	}
}

// TestNextNode: a node that keeps silent while it is dialled is given up early when another one is left, with the gateway's time, and with
// the upstream's own when it has one.
func TestNextNode(t *testing.T) {
	r := newRig(t)
	r.def.NextNode = 7 * time.Second
	two := func(d *resource.Upstream) {
		d.Nodes = append(d.Nodes, resource.Node{Host: "127.0.0.1", Port: 1, Weight: 1}, resource.Node{Host: "127.0.0.1", Port: 2, Weight: 1})
	}
	x := request("GET", "/", "")
	u := r.upstream(two)
	x.Attempts.Tried.Add(0)
	if d := u.connecting(x); d != 7*time.Second {
		t.Errorf("the first of two has %v", d)
	}
	own := u.WithTimeout(&resource.Timeout{Connect: 9 * time.Second, Send: time.Second, Read: time.Second})
	if d := own.connecting(x); d != 9*time.Second {
		t.Errorf("with a time of its own it has %v", d)
	}
	x.Attempts.Tried.Add(1)
	if d := u.connecting(x); d != 10*time.Second {
		t.Errorf("the last one has %v", d)
	}
}

// picks counts what a picker is asked for.
type picks struct {
	balancer.Picker
	n int
}

func (p *picks) Pick(tried *balancer.Tried, key uint64) int {
	p.n++
	return p.Picker.Pick(tried, key)
}

// TestAllRestIsFoundOnce: a request that every node refuses does not look at all that are left before each attempt.
func TestAllRestIsFoundOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.def.NextNode = 10 * time.Second
	a := newTurnstile(t)
	a.close()
	const nodes = 100
	u := r.upstream(func(d *resource.Upstream) {
		for i := range nodes {
			n := a.node()
			n.Host = "127.0.1." + strconv.Itoa(1+i)
			d.Nodes = append(d.Nodes, n)
		}
	})
	for _, n := range u.nodes {
		u.leaveAlone(&n.lost, time.Hour)
	}
	p := &picks{Picker: u.pick}
	u.pick = p
	x := request("GET", "/", "")
	do(u, x).wantFault(t, fault.ConnectFailed)
	if x.Attempts.Count != nodes || p.n > 3*nodes {
		t.Errorf("%d attempts, %d picks", x.Attempts.Count, p.n)
	}
}

// TestRestBeyondWhatCanBeMarked: a node that no set of tried ones can hold does not come up for ever.
func TestRestBeyondWhatCanBeMarked(t *testing.T) {
	t.Parallel()
	for _, limits := range []*resource.Limits{nil, {Inflight: 1, Queue: 1, QueueTimeout: time.Millisecond}} {
		r := newRig(t)
		r.def.NextNode = 10 * time.Second
		u := r.upstream(func(d *resource.Upstream) {
			d.Type, d.Key, d.Limits = balancer.ConsistHash, "remote_addr", limits
			two := 2
			d.Retries = &two
			for i := range 1100 {
				d.Nodes = append(d.Nodes, resource.Node{Host: "127.0.1.1", Port: 1 + i, Weight: 1})
			}
			d.Nodes[1099].Weight = 1 << 60
		})
		u.leaveAlone(&u.nodes[1099].lost, time.Hour)
		do(u, request("GET", "/", "")).wantFault(t, fault.ConnectFailed)
		if limits != nil {
			u.nodes[1099].Inflight.Add(1)
			do(u, request("GET", "/", "")).wantFault(t, fault.EndpointsBusy)
		}
	}
}

// TestRestEndsWithItsNode: the version of an upstream without the node that rested picks without a look.
func TestRestEndsWithItsNode(t *testing.T) {
	r := newRig(t)
	doc := &resource.Upstream{Type: "roundrobin", Scheme: "http", PassHost: "pass", Nodes: []resource.Node{
		{Host: "127.0.0.1", Port: 1, Weight: 1}, {Host: "127.0.0.1", Port: 2, Weight: 1},
	}}
	var before *Upstream
	for _, want := range []bool{false, true, false} {
		u, err := Compile(r.hub, doc, "test", r.def, before)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(u.Close)
		if got := u.resting.Load(); got != want {
			t.Errorf("with %d nodes: resting %t, want %t", len(doc.Nodes), got, want)
		}
		if before == nil {
			u.leaveAlone(&u.nodes[1].lost, time.Hour)
		} else {
			next := *doc
			next.Nodes = doc.Nodes[:1]
			doc = &next
		}
		before = u
	}
}

// TestStaleThenLost: the dial that follows a connection which was at its end counts like any other.
func TestStaleThenLost(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.def.NextNode = 10 * time.Second
	gate := newTurnstile(t)
	u := r.upstream(func(d *resource.Upstream) { d.Nodes = append(d.Nodes, gate.node()) })
	gate.close()
	x := request("GET", "/", "")
	if _, f := u.another(x, u.nodes[0]); f != fault.ConnectFailed || u.nodes[0].lost.Load() == 0 || !u.resting.Load() {
		t.Errorf("%v, and the node does not rest", f)
	}
}

// TestNoTimeIsNoFailure: a dial that ends because the exchange has no time left says nothing of the node.
func TestNoTimeIsNoFailure(t *testing.T) {
	r := newRig(t)
	r.def.NextNode = time.Second
	u := r.upstream(func(d *resource.Upstream) {
		d.Nodes = []resource.Node{{Host: "127.0.0.1", Port: 1, Weight: 1}}
		d.Timeout = &resource.Timeout{Connect: time.Second, Send: time.Second, Read: time.Second, Total: time.Second}
	})
	for _, late := range []bool{true, false} {
		x := request("GET", "/", "")
		if late {
			x.Start = x.Start.Add(-time.Hour)
		}
		if u.connected(x, u.nodes[0], fault.ConnectTimeout, 0); u.resting.Load() == late {
			t.Errorf("late %t: resting %t", late, !late)
		}
	}
}

// TestFullIsBetterThanLost: who comes when the nodes that can be connected are full waits for one of them, and is not sent to one that rests.
func TestFullIsBetterThanLost(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.def.NextNode = 10 * time.Second
	s, arrived, let := held(t)
	gate := newTurnstile(t)
	gate.close()
	limit := limited(1, 1, 30*time.Second)
	u := r.upstream(func(d *resource.Upstream) {
		limit(d)
		d.Nodes = append(d.Nodes, gate.node())
	}, s)
	u.leaveAlone(&u.nodes[1].lost, time.Hour)
	first := make(chan result, 1)
	go func() { first <- do(u, request("GET", "/", "")) }()
	<-arrived
	x, second := request("GET", "/", ""), make(chan result, 1)
	go func() { second <- do(u, x) }()
	eventually(t, "it waits", func() bool { return u.limiter.waiting.Load() == 1 })
	close(let)
	(<-first).want(t, 200, "ok")
	(<-second).want(t, 200, "ok")
	if statuses(x) != "200" {
		t.Errorf("statuses %q", statuses(x))
	}
}
