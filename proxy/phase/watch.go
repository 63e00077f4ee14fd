package phase

import (
	"strconv"
	"time"

	"headgate/balancer"
	"headgate/proxy/fault"
)

// watch is a target that the exchange is counted for.
type watch struct {
	gate  *balancer.Gate  // nil: none; of endpoints, that of a probe under way, and of the last attempt once it is settled
	rules *balancer.Rules // nil: by those that have broken it
	probe bool
	owed  owed
	head  balancer.Outcome // of an answer whose body is owed
}

// owed is what has to be told of a body that was still to come when its head was judged.
type owed uint8

const (
	nothing    owed = iota
	cut             // that it was cut
	cutOfProbe      // the same, of a probe
	outcome         // how it went in any case
)

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
// client which has seen the failure that broke a target does not meet it again. SettleBody has the last word on answers whose body is
// still to come.
func (x *Exchange) Settle() {
	branch, route := &x.watches[balancer.OfBranch], &x.watches[balancer.OfRoute]
	if branch.gate == nil && route.gate == nil {
		return
	}
	a := &x.Attempts
	statuses := a.Statuses()
	if n := len(statuses); n > 0 && statuses[n-1] > 0 && (x.Fault == nil || x.Fault.Side != fault.Client) { // else it was the client that has ended it
		o := balancer.Outcome{Status: int(statuses[n-1]), Took: a.Head - a.Begun}
		if o.Took <= 0 { // no head has come
			o.Took = x.Elapsed() - a.Begun
		}
		branch.record(o, x.streams())
		route.record(o, x.streams())
	}
	branch.leave()
	route.leave()
}

// streams says that the body of the answer is still to come. What runs in a tunnel is no body.
func (x *Exchange) streams() bool { return x.Response.Stream != nil && x.Response.Status != 101 }

// record tells the gate what the attempt came to; of a body that is still to come, as far as it is known: a failure is one whatever follows, and
// a probe does not keep others waiting for the end of a stream. Else the body decides.
func (w *watch) record(o balancer.Outcome, streams bool) {
	w.owed, w.head = nothing, o
	switch {
	case w.gate == nil:
		return
	case !streams || w.rules != nil && w.rules.Unhealthy.Has(o.Status):
	case w.probe:
		w.owed = cutOfProbe
	case w.rules == nil:
		w.owed = cut
	default:
		w.owed = outcome
		return
	}
	w.gate.Record(w.rules, o, w.probe)
}

// SettleEndpoint tells g, the gate of the endpoint that was tried last, what that came to. As with Settle, SettleBody has the last word.
func (x *Exchange) SettleEndpoint(g *balancer.Gate, o balancer.Outcome) {
	w := &x.watches[balancer.OfEndpoint]
	if w.gate != g {
		w.leave()
		w.gate = g
	}
	w.record(o, x.streams())
	w.leave()
}

// SettleBody tells the gates what has become of the body of the answer, or that nobody waits for it any more: one that the upstream has cut
// (Fault) is a failure. It does so once.
func (x *Exchange) SettleBody() {
	broken := x.Fault != nil && x.Fault.Side == fault.Upstream
	for i := range x.watches {
		w := &x.watches[i]
		switch {
		case w.owed == nothing:
		case broken:
			// It is news of this moment, whenever the request was sent.
			w.gate.Record(w.rules, balancer.Outcome{Status: x.Fault.Status}, w.owed == cutOfProbe)
		case w.owed == outcome:
			w.head.Ago = x.Elapsed() - x.Attempts.Begun
			w.gate.Record(w.rules, w.head, false)
		}
		w.owed = nothing
	}
}

// LeaveEndpoint ends the probe of the endpoint that was tried last, if it was one, without a word on it.
func (x *Exchange) LeaveEndpoint() { x.watches[balancer.OfEndpoint].leave() }

// leaveGates ends the probes of an exchange that did not come to its end, and tells of the body of one that did.
func (x *Exchange) leaveGates() {
	x.SettleBody()
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
