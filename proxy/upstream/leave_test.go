package upstream

import (
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"headgate/conf/resource"
	"headgate/proxy/fault"
	"headgate/proxy/netpoll"
	"headgate/proxy/phase"
)

// leaving is a request whose client leaves.
type leaving struct {
	*phase.Exchange
	ended chan *fault.Fault
}

func leaver(u *Upstream) leaving {
	l := leaving{request(http.MethodPost, "/", "data"), make(chan *fault.Fault, 1)}
	l.Presence = &netpoll.Presence{}
	go func() { l.ended <- u.Forward(l.Exchange) }()
	return l
}

// leave returns when the exchange has ended.
func (l leaving) leave(t *testing.T, stage phase.Stage) {
	t.Helper()
	l.Presence.Leave()
	select {
	case f := <-l.ended:
		if f != fault.ClientGone || l.Stage != stage {
			t.Errorf("got %v in stage %d, want %d", f, l.Stage, stage)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("it is still waited for")
	}
}

// unhurried is a rig that nothing but leaving gets out of connecting.
func unhurried(r *rig) *rig {
	r.def.Connect = time.Hour
	return r
}

// nothingLeft: no place, no count, no connection, and nobody was told of a failure.
func (r *rig) nothingLeft(u *Upstream) {
	r.t.Helper()
	r.idleNodes(u)
	r.connections(0, 0)
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.faults) > 0 {
		r.t.Errorf("reported %q", r.faults)
	}
}

// TestClientLeavesWhileConnecting: whatever a connection waits for, it is given up with the client, and that says nothing of the endpoint.
func TestClientLeavesWhileConnecting(t *testing.T) {
	t.Run("dial", func(t *testing.T) {
		t.Parallel()
		r := unhurried(newRig(t))
		u := r.upstream(nil, blackhole(t), serve(t, answers(ok2)))
		u.nodes = u.nodes[:1]
		l := leaver(u)
		eventually(t, "the attempt", func() bool { return u.nodes[0].Inflight.Load() == 1 })
		time.Sleep(20 * time.Millisecond) // mostly, the dial has begun; the outcome must be the same if it has not, but for the stage
		l.Presence.Leave()
		if f := <-l.ended; f != fault.ClientGone {
			t.Errorf("got %v", f)
		}
		r.nothingLeft(u)
	})
	t.Run("handshake", func(t *testing.T) {
		t.Parallel()
		r := unhurried(newRig(t))
		begun := make(chan struct{})
		u := r.secure(newAuthority(t), nil, nil, func(p *peer) { // plain: it never answers a handshake
			p.arrives()
			close(begun)
			p.gone()
		})
		l := leaver(u)
		<-begun
		l.leave(t, phase.InConnect)
		r.nothingLeft(u)
	})
	t.Run("name", func(t *testing.T) {
		t.Parallel()
		r, ns := newNamed(t, time.Second)
		unhurried(r)
		ns.Silence(func(string, dnsmessage.Type) bool { return true })
		s := says(t, "ok")
		s.host = "name.test"
		u := r.upstream(nil, s)
		l := leaver(u)
		eventually(t, "the question", func() bool { return ns.Asked("name.test.") > 0 })
		l.leave(t, phase.InConnect)
		r.nothingLeft(u)
	})
	t.Run("discovery", func(t *testing.T) {
		t.Parallel()
		d := newDirectory(t)
		unhurried(d.rig)
		d.ns.Silence(func(string, dnsmessage.Type) bool { return true })
		u := d.discovered("here.test", nil, nil)
		eventually(t, "the question", func() bool { return d.ns.Asked("here.test.") > 0 })
		leaver(u).leave(t, phase.InConnect)
	})
}

// TestDialAsTheClientLeaves: however the two meet, a connection that was made is in the pool, and no other is left.
func TestDialAsTheClientLeaves(t *testing.T) {
	r := newRig(t)
	s := serve(t, answers(ok2))
	u := r.upstream(func(d *resource.Upstream) {
		d.KeepalivePool = &resource.KeepalivePool{Size: 1000, IdleTimeout: time.Hour}
	}, s)
	pool := u.nodes[0].pool
	for i := range 300 {
		p := &netpoll.Presence{}
		var both sync.WaitGroup
		both.Go(func() {
			time.Sleep(time.Duration(i) * time.Microsecond)
			p.Leave()
		})
		c, f := pool.fresh(p, time.Hour, 0)
		switch {
		case f == nil:
			c.release(true, 0, time.Now())
		case f != fault.ClientGone || c != nil:
			t.Errorf("%v, %v", f, c)
		}
		both.Wait()
	}
	open, idle := r.hub.Connections()
	if open != idle {
		t.Errorf("%d connections, of which %d are idle", open, idle)
	}
	for range open + 1 {
		get(u).want(t, 200, "ok")
	}
}

// TestClientLeavesTheQueue: its place is there for the next one.
func TestClientLeavesTheQueue(t *testing.T) {
	r := newRig(t)
	s, arrived, let := held(t)
	u := r.upstream(limited(1, 3, time.Hour), s)
	first := make(chan result, 1)
	go func() { first <- get(u) }()
	<-arrived
	for range 5 {
		all := []leaving{leaver(u), leaver(u), leaver(u)}
		eventually(t, "three to wait", func() bool { return u.limiter.waiting.Load() == 3 })
		get(u).wantFault(t, fault.EndpointsBusy)
		for _, l := range all {
			l.leave(t, phase.InQueue)
		}
		if n := u.limiter.waiting.Load(); n != 0 {
			t.Errorf("%d wait", n)
		}
	}
	close(let)
	(<-first).want(t, 200, "ok")
	get(u).want(t, 200, "ok")
	r.idleNodes(u)
}

// TestQueueAsTheClientLeaves: what becomes free as one of two leaves is not lost with it.
func TestQueueAsTheClientLeaves(t *testing.T) {
	r := newRig(t)
	arrived, let := make(chan struct{}), make(chan struct{})
	u := r.upstream(limited(1, 2, time.Hour), serve(t, func(p *peer) {
		for {
			q, ok := p.next()
			if !ok {
				return
			}
			if strings.HasSuffix(q, "hold") {
				arrived <- struct{}{}
				<-let
			}
			p.send(ok2)
		}
	}))
	for range 50 {
		first, second := make(chan result, 1), make(chan result, 1)
		go func() { first <- do(u, request("POST", "/", "hold")) }()
		<-arrived
		l := leaver(u)
		go func() { second <- get(u) }()
		eventually(t, "two to wait", func() bool { return u.limiter.waiting.Load() == 2 })
		go l.Presence.Leave()
		let <- struct{}{}
		(<-first).want(t, 200, "ok")
		(<-second).want(t, 200, "ok")
		if f := <-l.ended; f != nil && f != fault.ClientGone {
			t.Errorf("got %v", f)
		}
	}
	r.idleNodes(u)
}
