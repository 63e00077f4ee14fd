package upstream

import (
	"context"
	"sync/atomic"
	"time"

	"headgate/proxy/fault"
)

// PoolOptions are the limits of the connections to one endpoint (contract section 3.1, keepalive_pool).
type PoolOptions struct {
	// Size is the number of idle connections kept; more are closed. Default 320.
	Size int
	// IdleTimeout is how long a connection may wait for its next request; 0 sets no limit.
	IdleTimeout time.Duration
	// MaxRequests is how many requests one connection may carry. Default 1000.
	MaxRequests int
}

// Pool keeps the connections to one endpoint. Getting and putting one takes no lock: idle connections sit in numbered slots that are
// linked into two stacks, whose heads carry a version against the ABA problem. Last in, first out: the warmest connection serves,
// the others age and go.
type Pool struct {
	dial *dialer
	opt  PoolOptions

	slots []poolSlot
	idle  atomic.Uint64 // stack of slots that hold a connection: version<<32 | slot+1
	free  atomic.Uint64 // stack of slots that hold none

	open   atomic.Int64 // connections that exist, idle or not
	closed atomic.Bool

	refs int // guarded by the Hub
	key  string
}

type poolSlot struct {
	conn atomic.Pointer[conn]
	next atomic.Uint32
}

func newPool(key string, d *dialer, opt PoolOptions) *Pool {
	p := &Pool{key: key, dial: d, opt: opt, slots: make([]poolSlot, opt.Size)}
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
	slot := p.pop(&p.idle)
	if slot == 0 {
		return nil
	}
	c := p.slots[slot-1].conn.Swap(nil)
	p.push(&p.free, slot)
	return c
}

// get returns a connection that is known to be alive, or a new one. now is the present time, connect bounds dialling and handshake.
func (p *Pool) get(now time.Time, connect time.Duration) (*conn, *fault.Fault) {
	for c := p.takeIdle(); c != nil; c = p.takeIdle() {
		if p.usable(c, now) {
			return c, nil
		}
		c.discard()
	}
	return p.fresh(connect)
}

func (p *Pool) usable(c *conn, now time.Time) bool {
	return (p.opt.IdleTimeout == 0 || now.Sub(c.idleAt) < p.opt.IdleTimeout) && c.alive()
}

// fresh dials.
func (p *Pool) fresh(connect time.Duration) (*conn, *fault.Fault) {
	ctx, cancel := context.WithTimeout(context.Background(), connect)
	defer cancel()
	c, f := p.dial.connect(ctx)
	if f != nil {
		return nil, f
	}
	c.pool = p
	p.open.Add(1)
	return c, nil
}

// put makes c available to the next exchange.
func (p *Pool) put(c *conn) {
	c.idleAt = time.Now()
	if !p.keep(c) {
		c.discard()
		return
	}
	if p.closed.Load() { // closed between the check and the push: whoever sees it last empties the pool
		p.drain()
	}
}

func (p *Pool) keep(c *conn) bool {
	if p.closed.Load() {
		return false
	}
	slot := p.pop(&p.free)
	if slot == 0 {
		return false
	}
	p.slots[slot-1].conn.Store(c)
	p.push(&p.idle, slot)
	return true
}

// sweep closes the connections that have been idle for too long or that the upstream has closed. A request that comes by meanwhile may
// find the pool emptier than it is and dial, nothing worse.
func (p *Pool) sweep(now time.Time) {
	var kept []*conn
	for c := p.takeIdle(); c != nil; c = p.takeIdle() {
		if p.usable(c, now) {
			kept = append(kept, c)
		} else {
			c.discard()
		}
	}
	for i := len(kept) - 1; i >= 0; i-- {
		if !p.keep(kept[i]) {
			kept[i].discard()
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
