package upstream

import (
	"time"

	"headgate/balancer"
	"headgate/proxy/fault"
	"headgate/proxy/phase"
)

// next picks the endpoint of the next attempt and marks it as tried. A gate that is not whole has the last word: what others are probing
// is passed over as long as there is anything else.
func (u *Upstream) next(x *phase.Exchange, key uint64) (int, *fault.Fault) {
	tried := &x.Attempts.Tried
	spare := -1
	for {
		i := u.pick.Pick(tried, key)
		if i < 0 {
			break
		}
		g := u.nodes[i].gate
		if g.Whole() {
			tried.Add(i)
			return i, nil
		}
		a := g.Enter()
		if a != balancer.Refused {
			tried.Add(i)
			x.EnterGate(g, a)
			return i, nil
		}
		if tried.Add(i); !tried.Has(i) { // beyond what can be marked
			break
		}
		if spare < 0 && g.Quarantined() == 0 {
			spare = i
		}
	}
	if spare >= 0 {
		u.nodes[spare].gate.Force()
		return spare, nil
	}
	if wait := u.shutFor(); wait > 0 && x.Attempts.Count == 0 {
		x.RetryAfter(wait)
		return -1, fault.Quarantined
	}
	return -1, fault.AllTried
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
