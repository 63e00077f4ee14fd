package upstream

import (
	"time"

	"headgate/balancer"
	"headgate/proxy/fault"
	"headgate/proxy/phase"
)

// admitted is coming with the last word left to the gates: what others are probing is passed over as long as there is anything else.
func (u *Upstream) admitted(x *phase.Exchange, key uint64, first int) (*node, *fault.Fault) {
	var spare *node
	for {
		n, f := u.coming(x, key, first)
		switch {
		case f == nil:
		case f == fault.AllTried && spare != nil:
			return u.force(x, spare)
		case f == fault.AllTried && x.Attempts.Count == 0:
			if wait := u.shutFor(); wait > 0 {
				x.RetryAfter(wait)
				return nil, fault.Quarantined
			}
			return nil, f
		default:
			return nil, f
		}
		if n.gate.Whole() {
			return n, nil
		}
		if a := n.gate.Enter(); a != balancer.Refused {
			x.EnterGate(n.gate, a)
			return n, nil
		}
		n.leave()
		if spare == nil && n.gate.Quarantined() == 0 {
			spare = n
		}
		if first = -1; !x.Attempts.Tried.Has(n.index) { // beyond what can be marked: it would come again
			return nil, fault.AllTried
		}
	}
}

// force uses n although others are probing it, because there is no other.
func (u *Upstream) force(x *phase.Exchange, n *node) (*node, *fault.Fault) {
	if !n.enter() {
		return nil, u.busy(x)
	}
	n.gate.Force()
	return n, nil
}

// shutFor is how long it takes until an operator's word on one of the endpoints ends, 0 when none is shut.
func (u *Upstream) shutFor() (wait time.Duration) {
	for _, n := range u.nodes {
		if left := n.gate.Quarantined(); left > 0 && (wait == 0 || left < wait) {
			wait = left
		}
	}
	return wait
}

// watched says whether an attempt at n has to be judged, and since when it runs. While all is well and the exchange has no rules for
// endpoints there is nothing to do.
func (n *node) watched(x *phase.Exchange) (since time.Duration, ok bool) {
	if x.Rules(balancer.OfEndpoint) == nil && n.gate.Whole() {
		return 0, false
	}
	return x.Elapsed(), true
}

// judge tells the gate of n what an attempt came to that began at since. What the gateway or the client broke says nothing of the endpoint.
func (n *node) judge(x *phase.Exchange, f *fault.Fault, since time.Duration) {
	switch {
	case f == nil:
		x.SettleEndpoint(n.gate, balancer.Outcome{Status: x.Response.Status, Took: x.Attempts.Head - since})
	case f.Side == fault.Upstream:
		x.SettleEndpoint(n.gate, balancer.Outcome{Status: f.Status, Took: x.Elapsed() - since})
	default:
		x.LeaveEndpoint()
	}
}
