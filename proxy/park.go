package proxy

import (
	"container/list"
	"io"
	"net"
	"runtime"
	"runtime/debug"
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
		var t thrift
		for {
			select {
			case <-tick.C:
				t.look(s.sweep(parkAfter))
			case <-s.lot.closed:
				return
			}
		}
	})
}

// sweep nudges the connections that have waited for that long, so that they park, and closes those parked ones whose idle time is over. It
// returns how many are parked.
func (s *Server) sweep(waited time.Duration) (parked int) {
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
	parked = s.lot.parked.Len()
	s.mu.Unlock()
	s.dropAll(over)
	return parked
}

// thrift gives back to the system what connections have held that are parked by now. A gateway whose requests allocate nothing may do for
// minutes without a collection, and what lies in pools goes in the second one only.
type thrift struct {
	from  int // how many were parked at the last collection, or have been since, if those were fewer
	left  int // sweeps until the last of the two collections; 0 = none is due
	pause int // sweeps during which none is begun
}

const (
	thriftGain  = 1024            // connections more than before make it worth while
	thriftDelay = 6               // sweeps until then: workers of fasthttp end meanwhile
	thriftPause = 60              // sweeps
	workerIdle  = 2 * time.Second // how long one is kept that has no connection
)

// look is told after every sweep how many are parked.
func (t *thrift) look(parked int) {
	t.from = min(t.from, parked)
	t.pause = max(t.pause-1, 0)
	switch t.left {
	case 0:
		if parked-t.from >= thriftGain && t.pause == 0 {
			t.left = thriftDelay
		}
		return
	case 2:
		runtime.GC()
	case 1:
		debug.FreeOSMemory()
		t.from, t.pause = parked, thriftPause
	}
	t.left--
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
