package upstream

import (
	"sync/atomic"
	"time"

	"headgate/proxy/fault"
	"headgate/proxy/phase"
)

// Bounds of the rest that a node has which could not be connected. It is so much longer than the attempt took, so that little of the
// requests' time is lost to a node that keeps silent, and one that refuses, which costs nothing, is back soon.
const (
	shortestRest = time.Second
	longestRest  = 10 * time.Second
	restFactor   = 8
)

// rest is whether a node is left alone while others can be asked. Times are offsets from the hub's epoch. The zero value is ready.
type rest struct {
	// asked is until when the endpoint has asked for it (Retry-After); 0 = it has not.
	asked atomic.Int64
	// lost is until when a node that could not be connected rests. Then one request tries it, and it rests on until that is known, or for a
	// moment, in case the request never comes to it. 0 = it can be connected, as far as is known.
	lost atomic.Int64
}

// away says that the node is to be left alone at now. A false answer may be meant for the caller alone, who is to try.
func (r *rest) away(now time.Duration) bool {
	if r.asked.Load() > int64(now) {
		return true
	}
	until := r.lost.Load()
	return until > int64(now) || until != 0 && !r.lost.CompareAndSwap(until, int64(now+shortestRest))
}

// away says that n is to be left alone at now (see rest).
func (u *Upstream) away(n *node, now time.Duration) bool {
	if n.rest.away(now) {
		return true
	}
	if asked := n.asked.Load(); asked != 0 && n.asked.CompareAndSwap(asked, 0) {
		u.rested()
	}
	return false
}

// rested lets picks be quick again when no node of u rests any more.
func (u *Upstream) rested() {
	if !u.anyRests() {
		u.resting.Store(false)
		if u.anyRests() { // since a moment ago
			u.resting.Store(true)
		}
	}
}

func (u *Upstream) anyRests() bool {
	for _, n := range u.nodes {
		if n.asked.Load() != 0 || n.lost.Load() != 0 {
			return true
		}
	}
	return false
}

// succeed takes over what is known of the node that r's replaces.
func (r *rest) succeed(old *rest) {
	r.asked.Store(old.asked.Load())
	r.lost.Store(old.lost.Load())
}

// leaveAlone says that a node of u rests, so that picks have to look.
func (u *Upstream) leaveAlone(until *atomic.Int64, d time.Duration) {
	until.Store(int64(time.Since(u.hub.epoch) + d))
	u.resting.Store(true)
}

// connected takes note of how it has ended that x asked for a connection to n, at start.
func (u *Upstream) connected(x *phase.Exchange, n *node, f *fault.Fault, start time.Duration) {
	switch f {
	case nil:
		if u.resting.Load() && n.lost.Load() != 0 {
			n.lost.Store(0)
			u.rested()
		}
	case fault.ConnectFailed, fault.ConnectTimeout, fault.TLSTimeout:
		if u.hasty > 0 && !u.over(x) { // else it has not had its time
			u.leaveAlone(&n.lost, min(max((x.Elapsed()-start)*restFactor, shortestRest), longestRest))
		}
	}
}

// connecting is how long an attempt of x may take to connect: while another node is left to ask, no longer than the operator of the gateway
// thinks sensible, unless that of the upstream has set a time.
func (u *Upstream) connecting(x *phase.Exchange) time.Duration {
	d := u.connect
	if u.hasty > 0 && u.defaultConnect && x.Attempts.Count < u.retries && x.Attempts.Tried.Len() < len(u.nodes) {
		d = min(d, u.hasty)
	}
	return u.left(x, d)
}
