package proxy

import (
	"container/list"
	"io"
	"net"
	"sync"
	"time"

	"headgate/proxy/netpoll"
)

// A connection that waits for its next request keeps a goroutine, fasthttp's reader and its request: many times what the connection itself
// takes. So one that has waited for a while is parked: its Read returns the end of the stream, which it is not, fasthttp ends its loop, and
// neither its Close nor the state that fasthttp reports closes anything. The watcher's epoll set waits for it then. When something can be
// read from it, be it its end, fasthttp gets it as if it had just been accepted.
//
// Nothing was read from the socket when that happens, so no byte can get lost between the two. The crowd, the counts and the watcher know a
// parked connection as what it is, one that is open and idle. Connections of HTTP/2 and tunnels are never parked.
const (
	// parkAfter is how long a connection must have waited, so that those that are busy never pay for it.
	parkAfter = time.Second
	parkSweep = parkAfter
	// parkLeast is how much of its idle time must be left for it to be worth while. It also bounds how far the parked ones are from
	// lying in the order in which their idle time ends.
	parkLeast = 4 * parkSweep
)

// lot is where connections are parked, and the listener over which fasthttp gets them back.
type lot struct {
	woken  chan net.Conn
	closed chan struct{}
	once   sync.Once
	users  sync.WaitGroup // goroutines that end when it is closed

	// Server.mu guards the rest.
	awake  map[*edgeConn]struct{} // the connections that are not parked
	parked list.List              // of *edgeConn: those that are, about in the order in which their idle time ends
}

func (l *lot) open() {
	l.woken, l.closed, l.awake = make(chan net.Conn), make(chan struct{}), map[*edgeConn]struct{}{}
}

// Accept implements net.Listener.
func (l *lot) Accept() (net.Conn, error) {
	select {
	case c := <-l.woken:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *lot) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// Addr implements net.Listener.
func (l *lot) Addr() net.Addr { return &net.TCPAddr{} }

// take takes c out. Server.mu is held.
func (l *lot) take(c *edgeConn) {
	l.parked.Remove(c.berth)
	c.berth = nil
	l.awake[c] = struct{}{}
}

// startLot begins to park connections. There is a watcher.
func (s *Server) startLot() {
	s.lot.users.Go(func() { _ = s.http.Serve(&s.lot) })
	s.lot.users.Go(func() {
		tick := time.NewTicker(parkSweep)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				s.sweep(parkAfter)
			case <-s.lot.closed:
				return
			}
		}
	})
}

// sweep nudges the connections that have waited for that long, so that they park, and closes those parked ones whose idle time is over.
func (s *Server) sweep(waited time.Duration) {
	s.mu.Lock()
	now := s.clock()
	for c := range s.lot.awake {
		if since := c.rest.Load(); since == 0 || since > now-int64(waited) || c.going || !c.settled.Load() {
			continue
		} else if s.idle > 0 && since+int64(s.idle-parkLeast) < now {
			continue
		}
		c.Conn.Nudge()
	}
	over := s.expired(time.Now())
	s.mu.Unlock()
	s.dropAll(over)
}

// expired takes those out of the lot whose idle time has ended by now. s.mu is held.
func (s *Server) expired(now time.Time) (over []*edgeConn) {
	var next *list.Element
	for e := s.lot.parked.Front(); e != nil; e = next {
		next = e.Next()
		c := e.Value.(*edgeConn)
		if c.until.IsZero() || now.Add(parkLeast).Before(c.until) {
			break
		}
		if now.Before(c.until) || c.Conn.Waiting() {
			continue
		}
		s.lot.take(c)
		over = append(over, c)
	}
	return over
}

// dropAll closes connections that were taken out of the lot. It does not wait: TLS says goodbye.
func (s *Server) dropAll(conns []*edgeConn) {
	if len(conns) == 0 {
		return
	}
	go func() {
		for _, c := range conns {
			s.drop(c)
		}
	}()
}

func (s *Server) drop(c *edgeConn) {
	_ = c.top().Close()
	s.closed(c)
}

// await is how the intake reads while there may be no head at all. A connection that has been answered, and waits for the next request, may
// be parked here. One that was parked, and ends without another request, ends without a word, like one that was not.
func (in *intake) await(p []byte) (int, error) {
	c := in.c
	settled := c.settled.Load()
	if !settled && !c.woken {
		return in.src.Read(p)
	}
	c.Conn.Yields(settled && c.presence.Watched())
	n, err := in.src.Read(p)
	c.Conn.Yields(false)
	switch {
	case n > 0 || err == nil:
		return n, err
	case err == netpoll.ErrNudged:
		c.parking.Store(true)
		return 0, io.EOF
	case c.woken:
		return 0, io.EOF
	}
	return 0, err
}

// park puts c into the lot, which must have been asked for by its Read. fasthttp has nothing to do with it any more. False says that it is
// to be closed.
func (s *Server) park(c *edgeConn) bool {
	c.in.release()
	s.mu.Lock()
	defer s.mu.Unlock()
	c.parking.Store(false)
	if s.ended || c.going {
		return false
	}
	c.before = c.answered
	if !s.watcher.Load().Sleep(c.Conn, &c.presence, c) {
		return false
	}
	delete(s.lot.awake, c)
	c.berth = s.lot.parked.PushBack(c)
	return true
}

// Wake implements netpoll.Sleeper: something can be read.
func (c *edgeConn) Wake() {
	s := c.server
	if !s.leaves(c) {
		return
	}
	select {
	case s.lot.woken <- c.top():
	case <-s.lot.closed:
		s.drop(c)
	}
}

// leaves takes c out of the lot so that it is served; false when somebody else has taken it out.
func (s *Server) leaves(c *edgeConn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.berth == nil {
		return false
	}
	s.lot.take(c)
	c.woken = true
	c.settled.Store(false)
	c.rest.Store(s.clock()) // it has its time, too, to be read from before it counts as idle for long
	return true
}
