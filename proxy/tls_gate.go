package proxy

import (
	"container/list"
	"sync"
	"time"
)

// gate bounds how many handshakes are under way. Where there is no room, one that has taken its time gives way, so that clients which
// connect and say nothing do not keep others out. Clients that have said who they want get more time: when thousands come back at once, each
// is slow because all are.
type gate struct {
	limit  int
	freed  chan struct{} // has a token when somebody who waits should look again
	closed chan struct{}
	once   sync.Once

	mu     sync.Mutex
	silent list.List // of *tlsConn, those that have been in for longest first
	spoken list.List // the same, of those whose ClientHello has come, the longest ago first
}

// giveWay is how long a handshake has its place for itself, giveWayLater how long it has it from its ClientHello on. Each is many times what a
// client far away needs.
const (
	giveWay      = time.Second
	giveWayLater = 5 * time.Second
)

func (g *gate) open(limit int) {
	g.limit, g.freed, g.closed = limit, make(chan struct{}, 1), make(chan struct{})
}

// close sends away everybody who waits, and who will have to.
func (g *gate) close() { g.once.Do(func() { close(g.closed) }) }

// enter waits for a place until end. It is false when there was none; otherwise leave must follow.
func (g *gate) enter(c *tlsConn, end time.Time) bool {
	for {
		in, wait := g.try(c)
		if in {
			return true
		}
		if wait = min(wait, time.Until(end)); wait <= 0 {
			return false
		}
		select {
		case <-g.freed:
		case <-time.After(wait):
		case <-g.closed:
			return false
		}
	}
}

// try takes a place, or says when it is worth another try at the latest.
func (g *gate) try(c *tlsConn) (in bool, wait time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	if g.taken() >= g.limit {
		oldest, wait := g.oldest(now)
		if wait > 0 {
			return false, wait
		}
		g.remove(oldest)
		_ = oldest.raw.Conn.Close()
	}
	c.place, c.entered = g.silent.PushBack(c), now
	if g.taken() < g.limit {
		g.wake()
	}
	return true, 0
}

// oldest is the one that is to give way first, and when. Somebody is in. Nobody is slow whose bytes wait for us: then we are.
func (g *gate) oldest(now time.Time) (c *tlsConn, wait time.Duration) {
	for e := g.silent.Front(); e != nil; e = g.silent.Front() {
		c = e.Value.(*tlsConn)
		if wait = giveWay - now.Sub(c.entered); wait > 0 || !c.raw.Conn.Waiting() {
			break
		}
		g.promote(c, now)
		c = nil
	}
	for e := g.spoken.Front(); e != nil; e = g.spoken.Front() {
		other := e.Value.(*tlsConn)
		later := giveWayLater - now.Sub(other.entered)
		if later <= 0 && other.raw.Conn.Waiting() {
			other.entered = now
			g.spoken.MoveToBack(e)
			continue
		}
		if c == nil || later < wait {
			c, wait = other, later
		}
		break
	}
	return c, wait
}

// speaks notes that the ClientHello of c has come.
func (g *gate) speaks(c *tlsConn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if c.place != nil && !c.spoken {
		g.promote(c, time.Now())
	}
}

func (g *gate) promote(c *tlsConn, now time.Time) {
	g.silent.Remove(c.place)
	c.place, c.entered, c.spoken = g.spoken.PushBack(c), now, true
}

func (g *gate) taken() int { return g.silent.Len() + g.spoken.Len() }

// leave gives the place of c to somebody else, unless it had to give way.
func (g *gate) leave(c *tlsConn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.remove(c)
	g.wake()
}

func (g *gate) remove(c *tlsConn) {
	switch {
	case c.place == nil:
		return
	case c.spoken:
		g.spoken.Remove(c.place)
	default:
		g.silent.Remove(c.place)
	}
	c.place = nil
}

func (g *gate) wake() {
	select {
	case g.freed <- struct{}{}:
	default:
	}
}

// under returns how many handshakes are under way.
func (g *gate) under() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.taken()
}
