package upstream

import (
	"time"

	"headgate/balancer"
	"headgate/proxy/meter"
)

// BreakerOptions are who is told of what breakers and operators do.
type BreakerOptions struct {
	// Meter gets the metrics. Required.
	Meter *meter.Registry
	// Logf gets a line for every change of a state; nil drops it.
	Logf func(format string, args ...any)
	// Audit gets a line for every quarantine that ends by itself; nil drops it.
	Audit func(line string)
}

// WatchBreakers makes the states of the gates known. It is called once, before the first upstream is compiled. What it tells is told by a
// goroutine of its own, so that no request waits for a log.
func (h *Hub) WatchBreakers(o BreakerOptions) {
	if o.Logf == nil {
		o.Logf = func(string, ...any) {}
	}
	if o.Audit == nil {
		o.Audit = func(string) {}
	}
	for _, s := range [...]balancer.Scope{balancer.OfBranch, balancer.OfEndpoint} { // a broken route has nowhere else to go
		h.gates.CountForced(s, o.Meter.Counter(meter.BreakerForced, meter.Label{Name: "scope", Value: s.String()}))
	}
	labels := []string{"scope", "in", "name"}
	o.Meter.Collect(meter.BreakerState, labels, func(emit meter.Emit) {
		for _, v := range h.gates.Views() {
			emit(stateValue(v.State), v.Scope.String(), v.Owner, v.Name)
		}
	})
	o.Meter.Collect(meter.Quarantine, labels, func(emit meter.Emit) {
		for _, q := range h.gates.Quarantines() {
			emit(float64(q.Until().Unix()), q.Scope.String(), q.Owner, q.Name)
		}
	})
	h.watching.Go(func() { h.tell(o) })
}

// stateValue orders the states by how bad they are.
func stateValue(s balancer.State) float64 {
	return map[balancer.State]float64{balancer.Closed: 0, balancer.Recovering: 1, balancer.HalfOpen: 2, balancer.Open: 3}[s]
}

func (h *Hub) tell(o BreakerOptions) {
	t := time.NewTicker(sweepEvery)
	defer t.Stop()
	for {
		select {
		case <-h.stop:
			return
		case e := <-h.gates.Events():
			o.Meter.Counter(meter.BreakerTransitions, meter.Label{Name: "scope", Value: e.Scope.String()},
				meter.Label{Name: "to", Value: e.To.String()}).Inc()
			o.Logf("breaker: %v", e)
		case <-t.C:
			for _, q := range h.gates.Expired() {
				o.Audit("quarantine " + q.ID + " of " + q.Target.String() + " has ended")
			}
			if n := h.gates.Lost(); n > 0 {
				o.Logf("breaker: %d more states have changed", n)
			}
		}
	}
}
