package upstream

import (
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// quietSocket returns a descriptor on which nothing ever arrives.
func quietSocket(t testing.TB) int {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = unix.Close(pair[0])
		_ = unix.Close(pair[1])
	})
	return pair[0]
}

// token is the connection of a pool test: it knows whether somebody has it and whether it was closed.
type token struct {
	net.Conn
	held, closed atomic.Bool
	t            testing.TB
}

func (k *token) Close() error {
	if k.closed.Swap(true) {
		k.t.Error("closed twice")
	}
	return nil
}

// TestPoolUnderLoad: however takers, givers and sweepers meet, a connection has one owner, and none is lost.
func TestPoolUnderLoad(t *testing.T) {
	const workers, rounds, size = 8, 12500, 6 // 100,000 times get and put
	fd := quietSocket(t)
	p := newPool("test", nil, PoolOptions{Size: size, IdleTimeout: time.Hour})
	var made atomic.Int64
	work := func(n int) {
		c := p.takeIdle()
		if c == nil {
			made.Add(1)
			p.open.Add(1)
			c = &conn{Conn: &token{t: t}, fd: fd, pool: p}
		}
		k := c.Conn.(*token)
		if k.held.Swap(true) || k.closed.Load() {
			t.Error("handed out twice, or closed")
		}
		if n%8 == 0 {
			runtime.Gosched() // so that more are out than the pool has room for
		}
		if k.closed.Load() {
			t.Error("closed while somebody has it")
		}
		if c.requests++; c.requests == 100 {
			c.discard()
			return
		}
		k.held.Store(false)
		now := time.Now()
		if n%16 == 1 {
			now = now.Add(-2 * time.Hour) // for the sweepers
		}
		p.put(c, now)
	}
	var sweepers, takers sync.WaitGroup
	stop := make(chan struct{})
	for range 2 {
		sweepers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					p.sweep(time.Now())
					runtime.Gosched()
				}
			}
		})
	}
	for range workers {
		takers.Go(func() {
			for n := range rounds {
				work(n)
			}
		})
	}
	takers.Wait()
	close(stop)
	sweepers.Wait()
	check := func(most int64) {
		t.Helper()
		idle := int64(0)
		for i := range p.slots {
			if p.slots[i].conn.Load() != nil {
				idle++
			}
		}
		if open := p.open.Load(); open != idle || idle > most {
			t.Fatalf("%d open, %d idle, %d made", open, idle, made.Load())
		}
		if n := stackLen(p, &p.idle) + stackLen(p, &p.free); n != size {
			t.Fatalf("%d of %d slots left", n, size)
		}
	}
	check(size)
	p.close()
	check(0)
}

// TestPoolClosesUnderLoad: what comes back while the pool is closed, or after, is closed.
func TestPoolClosesUnderLoad(t *testing.T) {
	fd := quietSocket(t)
	for range 2000 {
		p := newPool("test", nil, PoolOptions{Size: 4})
		var wg sync.WaitGroup
		for range 4 {
			p.open.Add(1)
			c := &conn{Conn: &token{t: t}, fd: fd, pool: p}
			wg.Go(func() {
				p.put(c, time.Now())
				p.sweep(time.Now())
			})
		}
		wg.Go(p.close)
		wg.Wait()
		if n := p.open.Load(); n != 0 {
			t.Fatalf("%d connections left open", n)
		}
	}
}

// TestSweepKeepsTheOrder: the warmest connection serves, before and after a sweep.
func TestSweepKeepsTheOrder(t *testing.T) {
	fd := quietSocket(t)
	p := newPool("test", nil, PoolOptions{Size: 4, IdleTimeout: time.Minute})
	now := time.Now()
	conns := make([]*conn, 4)
	for i := range conns {
		conns[i] = &conn{Conn: &token{t: t}, fd: fd, pool: p}
		p.open.Add(1)
		p.put(conns[i], now.Add(time.Duration(i)*time.Second))
	}
	p.sweep(now.Add(61500 * time.Millisecond)) // the first two are too old by now
	for _, want := range []*conn{conns[3], conns[2], nil} {
		if got := p.takeIdle(); got != want {
			t.Fatalf("got %p, want %p", got, want)
		}
	}
	if n := p.open.Load(); n != 2 {
		t.Fatalf("%d open", n)
	}
	if n := stackLen(p, &p.free); n != 4 {
		t.Fatalf("%d slots are free", n)
	}
}

func stackLen(p *Pool, head *atomic.Uint64) (n int) {
	for slot := uint32(head.Load()); slot != 0; slot = p.slots[slot-1].next.Load() {
		n++
	}
	return n
}

// A connection that is old enough begins no other request, however busy it is, and is closed.
func TestPoolAge(t *testing.T) {
	r := newRig(t)
	s := serve(t, answers(ok2))
	r.def.Pool.MaxAge = time.Hour
	u := r.upstream(nil, s)
	get(u).want(t, 200, "ok")
	get(u).want(t, 200, "ok")
	if n := s.connections(); n != 1 {
		t.Fatalf("%d connections for two requests", n)
	}
	p := u.nodes[0].pool
	c := p.takeIdle()
	if c == nil || c.born < 0 || c.born > time.Since(p.epoch) {
		t.Fatalf("%+v", c)
	}
	c.expires.Store(int64(100 * time.Hour)) // of its idle time there is enough left
	now := p.epoch.Add(c.born)
	if p.expired(c, now.Add(time.Hour-1)) || !p.expired(c, now.Add(time.Hour)) {
		t.Error("its age is not what ends it")
	}
	c.born = -time.Hour // made an hour before
	p.keep(c)
	get(u).want(t, 200, "ok")
	if n := s.connections(); n != 2 {
		t.Errorf("%d connections, want a new one", n)
	}
	r.connections(1, 1)
}
