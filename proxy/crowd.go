package proxy

import (
	"cmp"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"headgate/proxy/fault"
	"headgate/proxy/meter"
	"headgate/proxy/overload"
)

// crowd keeps the connections within their bounds. When there is no room for another, those go that have been idle for longest; only
// when all are at work is a newcomer turned away. Server.mu guards it.
type crowd struct {
	conns   map[*edgeConn]struct{}
	most    int // connections
	each    int // of one client; 0 = as many as there is room for
	clients map[netip.Addr]int
	going   int // connections that have been told to go, and have not gone yet

	candidates []candidate // scratch

	full, many, idle, memory *meter.Counter // connections that had to go, by reason
}

type candidate struct {
	c     *edgeConn
	since int64
}

const (
	// maxConnections is how many there may be when nobody says, and descriptors are not the bound.
	maxConnections = 256 << 10
	// ownDescriptors are those for everything that is neither a client's connection nor an upstream's.
	ownDescriptors = 64
	// minConnections is what is tried with however few descriptors.
	minConnections = 16
	// dismissedAtOnce is the share of the connections, as a divisor, of which one look for the longest idle ones makes use.
	dismissedAtOnce = 64
)

func newCrowd(most, each int, r *meter.Registry) crowd {
	if most <= 0 {
		most = affordable()
	}
	shed := func(reason string) *meter.Counter {
		return r.Counter(meter.ConnectionsShed, meter.Label{Name: "reason", Value: reason})
	}
	return crowd{
		conns: map[*edgeConn]struct{}{}, most: most, each: each, clients: map[netip.Addr]int{},
		full: shed("full"), many: shed("per_client"), idle: shed("idle"), memory: shed("memory"),
	}
}

// affordable is how many clients there are descriptors for, when each may need a connection to an upstream.
func affordable() int {
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) != nil {
		return maxConnections
	}
	n := (int64(min(limit.Cur, 1<<32)) - ownDescriptors) / 2
	return int(max(minConnections, min(n, maxConnections)))
}

// clientOf is what counts as one client: an IPv4 address, or the network of an IPv6 address, which one customer has (RFC 6177).
func clientOf(a netip.Addr) netip.Addr {
	if a.Is4() {
		return a
	}
	p, _ := a.Prefix(64) // the zero value for the zero value
	return p.Addr()
}

// capped says whether c counts among the connections of its client.
func (s *Server) capped(c *edgeConn) bool {
	return s.crowd.each > 0 && c.peer.IsValid() && !contains(s.g.edge.trusted, c.peer)
}

// noRoom is why a connection ends that was refused. It is counted as such.
var noRoom = &fault.Fault{Code: "no_room", Side: fault.Gateway, Status: 503, Retry: fault.Never}

// refusal is what a plain client is told for which there is no room.
const refusal = "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"

// admit takes a newcomer in, or marks it as refused. It runs where connections are accepted: nothing in it waits.
func (s *Server) admit(c *edgeConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := &s.crowd
	w.conns[c], s.lot.awake[c] = struct{}{}, struct{}{}
	if s.ended {
		_ = c.Conn.Close()
		return
	}
	if s.capped(c) {
		c.client = clientOf(c.peer)
		if w.clients[c.client]++; w.clients[c.client] > w.each {
			w.many.Inc()
			w.turnAway(c)
			return
		}
	}
	c.rest.Store(s.clock() + int64(giveWay))
	over := len(w.conns) - w.going - w.most
	if over <= 0 || s.dismiss(over+w.most/dismissedAtOnce, w.idle) >= over {
		return
	}
	w.full.Inc()
	w.turnAway(c)
	if c.tls == nil { // else it would take a handshake
		_, err := c.Conn.Write([]byte(refusal)) // there is room for it: nothing was sent before
		c.told = err == nil
	}
}

func (w *crowd) turnAway(c *edgeConn) {
	c.refused, c.going = true, true
	c.rest.Store(0)
	w.going++
}

// gone ends what admit has begun.
func (s *Server) gone(c *edgeConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := &s.crowd
	delete(w.conns, c)
	delete(s.lot.awake, c)
	if c.going {
		w.going--
	}
	if c.client.IsValid() {
		if w.clients[c.client]--; w.clients[c.client] == 0 {
			delete(w.clients, c.client)
		}
	}
}

// clock is the time since the server was made, in nanoseconds.
func (s *Server) clock() int64 { return int64(time.Since(s.begun)) }

// dismiss tells up to n connections to go, those first that have been idle for longest, and returns how many. s.mu is held.
//
// Who is idle is found by looking at all: they come to rest and set to work without a lock.
func (s *Server) dismiss(n int, count *meter.Counter) (dismissed int) {
	w, now := &s.crowd, s.clock()
	list := w.candidates[:0]
	for c := range w.conns {
		if since := c.rest.Load(); since != 0 && since <= now && !c.going {
			list = append(list, candidate{c, since})
		}
	}
	var parked []*edgeConn
	slices.SortFunc(list, func(a, b candidate) int { return cmp.Compare(a.since, b.since) })
	for _, idle := range list {
		if dismissed == n {
			break
		}
		c := idle.c
		if c.Conn.Waiting() || !c.rest.CompareAndSwap(idle.since, 0) {
			continue // it has just said something
		}
		c.going = true
		w.going++
		count.Inc()
		dismissed++
		if c.berth != nil {
			s.lot.take(c)
			parked = append(parked, c)
			continue
		}
		c.Conn.Interrupt() // a request that came in at this moment is answered
	}
	s.dropAll(parked)
	clear(list)
	w.candidates = list[:0]
	return dismissed
}

// dismissed says that the connection goes as soon as the request under way is answered.
func (x *exchange) dismissed() bool {
	c := x.conn()
	return c != nil && c.server != nil && c.Conn.Interrupted()
}

// relieve is told of every look at the memory. When it is tight, idle connections give back what they hold, a part of them at a time.
func (s *Server) relieve(before, now overload.Level) {
	if before != now {
		m := s.g.settings.Memory
		s.g.errorf("memory is %v (before: %v): %d of %d MiB in use", now, before, m.Used()>>20, m.Limit()>>20)
	}
	if now == overload.Calm {
		return
	}
	share := 8
	if now == overload.Full {
		share = 2
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dismiss(len(s.crowd.conns)/share+1, s.crowd.memory)
}

// works says that the head of a request is there, so that the connection stays until it is answered. An HTTP/2 connection has its own ways.
func (x *exchange) works() {
	if c := x.conn(); c != nil && c.in.mode != passing {
		c.rest.Store(0)
	}
}
