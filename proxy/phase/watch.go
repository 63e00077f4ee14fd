package phase

import (
	"strconv"
	"time"

	"headgate/balancer"
	"headgate/proxy/fault"
)

// watch is a target that the exchange is counted for.
type watch struct {
	gate  *balancer.Gate  // nil: none; of endpoints, that of a probe under way
	rules *balancer.Rules // nil: by those that have broken it
	probe bool
}

// Guarded is implemented by Route.Compiled where routes have gates.
type Guarded interface {
	// Gate returns the route's gate, which it makes when it has none yet.
	Gate() *balancer.Gate
}

// RouteGate returns the gate of the exchange's route, nil when it has none. The first call for a route may allocate.
func (x *Exchange) RouteGate() *balancer.Gate {
	if x.Route == nil {
		return nil
	}
	if g, ok := x.Route.Compiled.(Guarded); ok {
		return g.Gate()
	}
	return nil
}

// Judge makes r what the targets of that scope are judged by for this exchange. It comes before the attempts.
func (x *Exchange) Judge(of balancer.Scope, r *balancer.Rules) { x.watches[of].rules = r }

// Rules returns what Judge has set for the scope, nil without it.
func (x *Exchange) Rules(of balancer.Scope) *balancer.Rules { return x.watches[of].rules }

// EnterGate takes note that g has admitted the exchange, with what it has said: when the attempts are over g hears how it went. It takes the
// place of another gate of the same scope.
func (x *Exchange) EnterGate(g *balancer.Gate, a balancer.Admission) {
	w := &x.watches[g.Scope]
	w.leave()
	w.gate, w.probe = g, a == balancer.Probing
}

// leave ends the probe of w, if there is one.
func (w *watch) leave() {
	if w.probe {
		w.probe = false
		w.gate.Leave()
	}
}

// Settle tells the gates of the route and the branch what the attempts came to. It runs before a byte of the answer leaves, so that a
// client which has seen the failure that broke a target does not meet it again.
func (x *Exchange) Settle() {
	branch, route := &x.watches[balancer.OfBranch], &x.watches[balancer.OfRoute]
	if branch.gate == nil && route.gate == nil {
		return
	}
	a := &x.Attempts
	if statuses := a.Statuses(); len(statuses) > 0 && (x.Fault == nil || x.Fault.Side != fault.Client) {
		o := balancer.Outcome{Status: int(statuses[len(statuses)-1]), Took: a.Head - a.Begun}
		if o.Took <= 0 { // no head has come
			o.Took = x.Elapsed() - a.Begun
		}
		branch.record(o)
		route.record(o)
	}
	branch.leave()
	route.leave()
}

func (w *watch) record(o balancer.Outcome) {
	if w.gate != nil {
		w.gate.Record(w.rules, o, w.probe)
	}
}

// SettleEndpoint tells g, the gate of the endpoint that was tried last, what that came to.
func (x *Exchange) SettleEndpoint(g *balancer.Gate, o balancer.Outcome) {
	w := &x.watches[balancer.OfEndpoint]
	g.Record(w.rules, o, w.probe && w.gate == g)
	w.leave()
}

// LeaveEndpoint ends the probe of the endpoint that was tried last, if it was one, without a word on it.
func (x *Exchange) LeaveEndpoint() { x.watches[balancer.OfEndpoint].leave() }

// leaveGates ends the probes of an exchange that did not come to its end.
func (x *Exchange) leaveGates() {
	for i := range x.watches {
		x.watches[i].leave()
	}
}

// AnswerLater makes f the outcome, as Fail does, and says when to come back: in whole seconds, at least one.
func (x *Exchange) AnswerLater(f *fault.Fault, wait time.Duration) {
	x.Fail(f)
	x.RetryAfter(wait)
}

var nameRetryAfter = []byte("Retry-After")

// RetryAfter sets the header Retry-After (RFC 9110 section 10.2.3) to wait in whole seconds, rounded up, at least one.
func (x *Exchange) RetryAfter(wait time.Duration) {
	seconds := max((wait+time.Second-1)/time.Second, 1)
	x.Response.Header.Set(nameRetryAfter, x.Commit(strconv.AppendInt(x.Arena(), int64(seconds), 10)))
}
