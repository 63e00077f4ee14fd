package snapshot

import (
	"sync/atomic"

	"headgate/balancer"
	"headgate/proxy/phase"
)

// branchGate is the use of a branch's gate by a part.
type branchGate struct{ *balancer.Gate }

// Close implements phase.Closer.
func (g branchGate) Close() { g.Release() }

// routeGate is the gate of a route. Most routes have none: it is made when a breaker or an operator asks for it.
type routeGate struct {
	set  *balancer.Gates
	gate atomic.Pointer[balancer.Gate]
}

// Guard returns the gate, nil when nobody has asked for one.
func (r *Route) Guard() *balancer.Gate { return r.guard.gate.Load() }

// Gate implements phase.Guarded.
func (r *Route) Gate() *balancer.Gate {
	if g := r.guard.gate.Load(); g != nil {
		return g
	}
	g := r.guard.set.Acquire(r.target())
	if !r.guard.gate.CompareAndSwap(nil, g) {
		g.Release()
	}
	return r.guard.gate.Load()
}

func (r *Route) target() balancer.Target {
	return balancer.Target{Scope: balancer.OfRoute, Owner: r.Key}
}

// guarded gives a route that is being compiled its gate if something is known about it.
func (r *Route) guarded(set *balancer.Gates) {
	r.guard.set = set
	if set.Sought(r.target()) {
		r.Gate()
	}
}

// release gives the gate back. No exchange uses the route any more.
func (g *routeGate) release() {
	if gate := g.gate.Load(); gate != nil {
		gate.Release()
	}
}

// GuardRoute gives the route in force under key its gate; ok is false when there is no such route. It belongs to the config goroutine.
func (c *Compiler) GuardRoute(key string) (ok bool) {
	r := c.routes[key]
	if r != nil {
		r.Gate()
	}
	return r != nil
}

var _ phase.Guarded = (*Route)(nil)
