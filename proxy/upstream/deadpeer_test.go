package upstream

import (
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"headgate/conf/resource"
	"headgate/proxy/fault"
	"headgate/proxy/phase"
)

// vanish makes everything that is sent to p disappear, as when its host is gone or a box on the way has forgotten the connection.
func (p *peer) vanish(t *testing.T) {
	raw, err := p.tcp.SyscallConn()
	if err != nil {
		t.Error(err)
		return
	}
	drop := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K}} // keep 0 bytes of each packet
	err2 := raw.Control(func(fd uintptr) {
		err = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &drop[0]})
	})
	if err != nil || err2 != nil {
		t.Error(err, err2)
	}
}

// option reads an option of c's socket, in what the kernel counts it in.
func (c *conn) option(t *testing.T, level, name int) int {
	t.Helper()
	v, err := unix.GetsockoptInt(c.fd, level, name)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func (c *conn) patience(t *testing.T) time.Duration {
	return time.Duration(c.option(t, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT)) * time.Millisecond
}

// TestPeersAreAsked: every connection has the options by which the kernel finds out that nobody is there.
func TestPeersAreAsked(t *testing.T) {
	overBoth(t, func(t *testing.T, _ *rig, start func(func(p *peer)) *Upstream) {
		c := start(answers(ok2)).dialed(t)
		defer c.discard()
		if d := c.patience(t); d != peerPatience {
			t.Errorf("patience %v", d)
		}
		for _, o := range []struct{ level, name, want int }{
			{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
			{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, int(askPeer / time.Second)},
			{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, int(askPeerAgain / time.Second)},
		} {
			if got := c.option(t, o.level, o.name); got != o.want {
				t.Errorf("option %d of level %d is %d, want %d", o.name, o.level, got, o.want)
			}
		}
	})
}

// TestSlowTakers: an upstream that is slow to take a long body has the time that the send clock gives it, and the connection is as before afterwards.
func TestSlowTakers(t *testing.T) {
	r := newRig(t)
	r.def.Send = time.Minute
	u := r.upstream(nil, serve(t, answers(ok2)))
	c := u.dialed(t)
	x := request("POST", "/", bigBody)
	if f := u.prepare(x, u.nodes[0]); f != nil {
		t.Fatal(f)
	}
	if _, err := c.Write(x.Wire.Out); err != nil {
		t.Fatal(err)
	}
	c.startUpload(&phase.Request{Body: []byte(bigBody)}, r.def.Send)
	if d := c.patience(t); d <= r.def.Send {
		t.Errorf("the kernel gives up after %v, before the send clock", d)
	}
	eventually(t, "the body to leave", c.sent)
	if d := c.patience(t); d != peerPatience {
		t.Errorf("patience %v for what comes next", d)
	}
	c.discard()
}

// TestFault34DeadPeers: peers that are gone without a word are found dead in the middle of an exchange, and in the pool, whatever the clocks of
// the exchange say.
func TestFault34DeadPeers(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	hour := func(d *resource.Upstream) {
		d.Timeout = &resource.Timeout{Connect: time.Hour, Send: time.Hour, Read: time.Hour}
		d.KeepalivePool = &resource.KeepalivePool{Size: 4, IdleTimeout: time.Hour}
	}
	gone := make(chan struct{}, 3)
	idle := make(chan struct{})
	s := serve(t, func(p *peer) {
		q, _ := p.next()
		switch {
		case strings.HasSuffix(q, "stream"):
			p.send(chunkedHead, "2\r\nok\r\n")
			fallthrough
		case strings.HasSuffix(q, "wait"):
			p.vanish(t)
		default:
			p.send(ok2)
			<-idle
			p.vanish(t)
		}
		gone <- struct{}{}
		<-p.s.closing
	})
	u := r.upstream(hour, s)
	var mu sync.Mutex
	took := map[string]time.Duration{}
	note := func(what string, begun time.Time) {
		mu.Lock()
		defer mu.Unlock()
		took[what] = time.Since(begun)
	}
	var all sync.WaitGroup
	for what, want := range map[string]string{"wait": fault.HeadTimeout.Code, "stream": "stream: " + fault.ReadTimeout.Code} {
		all.Go(func() {
			begun := time.Now()
			if got := do(u, request("POST", "/", what)); got.code() != want {
				t.Errorf("%s: got %q, want %q", what, got.code(), want)
			}
			note(what, begun)
		})
	}
	pooled := r.upstream(func(d *resource.Upstream) { hour(d); d.KeepalivePool.Requests = 1000 }, s) // a pool of its own
	get(pooled).want(t, 200, "ok")
	close(idle)
	for range 3 {
		<-gone
	}
	all.Go(func() {
		begun := time.Now()
		for pool := pooled.nodes[0].pool; ; time.Sleep(10 * time.Millisecond) {
			if pool.sweep(time.Now()); pool.open.Load() == 0 {
				break
			}
			if time.Since(begun) > 30*time.Second {
				t.Error("it is kept in the pool")
				break
			}
		}
		note("pool", begun)
	})
	all.Wait()
	ms := func(what string) string { return strconv.FormatFloat(took[what].Seconds(), 'f', 1, 64) + " s" }
	t.Logf("F34: 3 of 3 peers that vanished found dead, waiting for the head after %s, in a stream after %s, idle in the pool after %s (goal 10 s)",
		ms("wait"), ms("stream"), ms("pool"))
}
