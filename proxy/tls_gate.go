package proxy

import (
	"container/list"
	"sync"
	"time"
)

// gate bounds how many handshakes are under way. Where there is no room, one that has taken its time gives way, so that clients which
// connect and say nothing do not keep others out.
type gate struct {
	limit  int
	freed  chan struct{} // has a token when somebody who waits should look again
	closed chan struct{}
	once   sync.Once

	mu    sync.Mutex
	inner list.List // of *tlsConn, those that have been in for longest first
}

// giveWay is how long a handshake has its place for itself. It is many times what a client far away needs.
const giveWay = time.Second

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
	if g.inner.Len() >= g.limit {
		oldest := g.inner.Front().Value.(*tlsConn)
		if wait = giveWay - now.Sub(oldest.entered); wait > 0 {
			return false, wait
		}
		g.remove(oldest)
		_ = oldest.raw.Conn.Close()
	}
	c.place, c.entered = g.inner.PushBack(c), now
	if g.inner.Len() < g.limit {
		g.wake()
	}
	return true, 0
}

// leave gives the place of c to somebody else, unless it had to give way.
func (g *gate) leave(c *tlsConn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.remove(c)
	g.wake()
}

func (g *gate) remove(c *tlsConn) {
	if c.place != nil {
		g.inner.Remove(c.place)
		c.place = nil
	}
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
	return g.inner.Len()
}
