package upstream

import (
	"context"
	"math"
	"sync/atomic"
	"time"

	"headgate/proxy/fault"
	"headgate/proxy/netpoll"
)

// PoolOptions are the limits of the connections to one endpoint (contract section 3.1, keepalive_pool).
type PoolOptions struct {
	// Size is the number of idle connections kept; more are closed. 0 keeps none.
	Size int
	// IdleTimeout is how long a connection may wait for its next request; 0 sets no limit. What the upstream itself announces
	// (Keep-Alive: timeout) counts when it is shorter.
	IdleTimeout time.Duration
	// MaxRequests is how many requests one connection may carry; 0 sets no limit.
	MaxRequests int
	// MaxAge is how long after it was made a connection may begin another request; 0 sets no limit.
	MaxAge time.Duration
}

// Pool keeps the connections to one endpoint. Getting and putting one takes no lock: idle connections sit in numbered slots that are
// linked into two stacks, whose heads carry a version against the ABA problem. Last in, first out: the warmest connection serves,
// the others age and go.
type Pool struct {
	dial  *dialer
	opt   PoolOptions
	epoch time.Time

	slots []poolSlot
	// idle links the slots that were filled: version<<32 | slot+1. The sweeper may have emptied some of them meanwhile.
	idle atomic.Uint64
	free atomic.Uint64 // the others, all empty

	open   atomic.Int64 // connections that exist, idle or not
	closed atomic.Bool

	refs int // guarded by the Hub
	key  string
}

// poolSlot holds an idle connection. Whoever swaps the pointer out owns the connection.
type poolSlot struct {
	conn atomic.Pointer[conn]
	next atomic.Uint32
}

func newPool(key string, d *dialer, opt PoolOptions) *Pool {
	p := &Pool{key: key, dial: d, opt: opt, epoch: time.Now(), slots: make([]poolSlot, opt.Size)}
	for i := range p.slots {
		p.push(&p.free, uint32(i+1))
	}
	return p
}

func (p *Pool) push(head *atomic.Uint64, slot uint32) {
	for {
		old := head.Load()
		p.slots[slot-1].next.Store(uint32(old))
		if head.CompareAndSwap(old, (old>>32+1)<<32|uint64(slot)) {
			return
		}
	}
}

// pop returns a slot number from 1, or 0 when the stack is empty.
func (p *Pool) pop(head *atomic.Uint64) uint32 {
	for {
		old := head.Load()
		slot := uint32(old)
		if slot == 0 {
			return 0
		}
		next := p.slots[slot-1].next.Load()
		if head.CompareAndSwap(old, (old>>32+1)<<32|uint64(next)) {
			return slot
		}
	}
}

// takeIdle returns the warmest idle connection, nil when there is none.
func (p *Pool) takeIdle() *conn {
	for {
		slot := p.pop(&p.idle)
		if slot == 0 {
			return nil
		}
		c := p.slots[slot-1].conn.Swap(nil)
		p.push(&p.free, slot)
		if c != nil {
			return c
		}
	}
}

// get returns a connection that is known to be alive, or a new one. now is the present time; the rest is for a new one, see fresh.
func (p *Pool) get(client *netpoll.Presence, now time.Time, connect, handshake time.Duration) (*conn, *fault.Fault) {
	for c := p.takeIdle(); c != nil; c = p.takeIdle() {
		if p.usable(c, now) {
			return c, nil
		}
		c.discard()
	}
	return p.fresh(client, connect, handshake)
}

func (p *Pool) usable(c *conn, now time.Time) bool {
	return !p.expired(c, now) && p.placed(c) && c.alive()
}

// placed says that the node still has the address that c leads to.
func (p *Pool) placed(c *conn) bool {
	if c.from == nil {
		return true
	}
	a := p.dial.name.Answer()
	if a != nil && a != c.from {
		if !a.Has(c.remote) {
			return false
		}
		c.from = a
	}
	return true
}

func (p *Pool) expired(c *conn, now time.Time) bool {
	age := now.Sub(p.epoch)
	return int64(age) >= c.expires.Load() || p.opt.MaxAge > 0 && age-c.born >= p.opt.MaxAge
}

// fresh dials. connect bounds dialling and handshake, handshake the latter alone; 0 = no clock of its own. It ends when the client leaves, who
// may be nil. A connection that is there nevertheless is not for nothing: it waits for the next request.
func (p *Pool) fresh(client *netpoll.Presence, connect, handshake time.Duration) (*conn, *fault.Fault) {
	ctx, cancel := context.WithTimeout(client.Context(), connect)
	defer cancel()
	c, f := p.dial.connect(ctx, handshake)
	if f != nil {
		return nil, f
	}
	c.pool, c.born = p, time.Since(p.epoch)
	p.open.Add(1)
	if client.Left() {
		c.reused = true // it may be at its end when it is taken
		p.put(c, time.Now())
		return nil, fault.ClientGone
	}
	return c, nil
}

// put makes c, idle from now on, available to the next exchange.
func (p *Pool) put(c *conn, now time.Time) {
	limit := p.opt.IdleTimeout
	if limit == 0 || c.keepFor > 0 && c.keepFor < limit {
		limit = c.keepFor
	}
	if limit > 0 {
		c.expires.Store(int64(now.Sub(p.epoch) + limit))
	} else {
		c.expires.Store(math.MaxInt64)
	}
	p.keep(c)
}

// keep stores c in a slot, or closes it when there is none.
func (p *Pool) keep(c *conn) {
	if p.closed.Load() {
		c.discard()
		return
	}
	slot := p.pop(&p.free)
	if slot == 0 {
		c.discard()
		return
	}
	p.slots[slot-1].conn.Store(c)
	p.push(&p.idle, slot)
	if p.closed.Load() { // closed between the check and the push: whoever sees it last empties the pool
		p.drain()
	}
}

// sweep closes the connections that have been idle for too long or that the upstream has closed. The others stay where they are and
// stay available. A slot that is emptied keeps its place in the stack until takeIdle meets it.
func (p *Pool) sweep(now time.Time) {
	for i := range p.slots {
		c := p.slots[i].conn.Load()
		// Not ours yet: another goroutine may be using or closing it, so what is seen here is a reason to look again, no more.
		if c == nil || !p.expired(c, now) && silent(c.fd) || !p.slots[i].conn.CompareAndSwap(c, nil) {
			continue
		}
		if p.usable(c, now) {
			p.keep(c)
		} else {
			c.discard()
		}
	}
}

func (p *Pool) drain() {
	for c := p.takeIdle(); c != nil; c = p.takeIdle() {
		c.discard()
	}
}

// close closes the idle connections; those in use are closed when they come back.
func (p *Pool) close() {
	p.closed.Store(true)
	p.drain()
}
