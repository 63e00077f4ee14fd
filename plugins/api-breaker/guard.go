package apibreaker

import (
	"encoding/json"
	"fmt"
	"time"

	"headgate/balancer"
	"headgate/conf/resource/split"
	"headgate/proxy/phase"
)

// guard is the plugin with a scope. What breaks is kept by identity (balancer.Gate), whatever configuration it is used by:
//
//   - route: requests of the route are turned away;
//   - branch: the other branches of the split share what a broken one leaves, and it gets that back gradually;
//   - endpoint: other nodes are picked, in every upstream that has it.
//
// A branch or an endpoint is used nevertheless when no other is left.
type guard struct {
	config config
	rules  balancer.Rules
	scope  balancer.Scope
}

// scopedRules are what a configuration with a scope says.
type scopedRules struct {
	balancer.Rules
	scope balancer.Scope
}

// readRules reads what doc, which satisfies the schema, says with a scope; scoped is false when it is the contract's form.
func readRules(doc map[string]any) (r scopedRules, scoped bool, err error) {
	unhealthy, _ := doc["unhealthy"].(map[string]any)
	healthy, _ := doc["healthy"].(map[string]any)
	name, scoped := doc["scope"].(string)
	if !scoped {
		for _, member := range [...]string{"error_ratio", "slow_ratio", "slow_ms", "window_sec", "min_requests"} {
			if _, has := unhealthy[member]; has {
				return r, false, fmt.Errorf(`property "scope" is required when "unhealthy.%s" is set`, member)
			}
		}
		return r, false, nil
	}
	for s := range balancer.Scopes {
		if s.String() == name {
			r.scope = s
		}
	}
	fill(&r.Unhealthy, unhealthy, 500, 599)
	fill(&r.Healthy, healthy, 200, 499)
	r.Healthy[101] = r.Healthy[200] // a connection that becomes a tunnel
	r.ErrorRatio, r.SlowRatio = number(unhealthy["error_ratio"]), number(unhealthy["slow_ratio"])
	failures := int64(3)
	if r.ErrorRatio > 0 || r.SlowRatio > 0 {
		failures = 0
		r.Window = seconds(unhealthy, "window_sec", 10)
	}
	const most = 1 << 20
	r.Failures = uint32(min(integer(unhealthy, "failures", failures), most))
	r.Successes = uint32(min(integer(healthy, "successes", 3), most))
	r.Slow = time.Duration(integer(unhealthy, "slow_ms", 0)) * time.Millisecond
	r.MinRequests = uint32(integer(unhealthy, "min_requests", 20))
	r.Probes = int32(integer(doc, "half_open_requests", 1))
	const longest = 366 * 24 * 3600
	r.Longest = time.Duration(min(integer(doc, "max_breaker_sec", 300), longest)) * time.Second
	if r.scope != balancer.OfRoute { // there is nobody who could take the rest of a route's share
		r.Ramp = seconds(doc, "slow_start_sec", 10)
	}
	return r, true, nil
}

func seconds(doc map[string]any, name string, without int64) time.Duration {
	return time.Duration(integer(doc, name, without)) * time.Second
}

// number reads any JSON number, 0 for everything else.
func number(v any) float64 {
	if n, ok := v.(json.Number); ok {
		f, _ := n.Float64()
		return f
	}
	n, _ := split.Integer(v)
	return float64(n)
}

// Access implements phase.Accessor. It allocates nothing. What the attempts come to is counted by the engine, before the answer leaves.
func (g *guard) Access(x *phase.Exchange) phase.Verdict {
	if g.scope == balancer.OfRoute {
		gate := x.RouteGate()
		if gate == nil { // a global rule, and no route has matched
			return phase.Continue
		}
		a := gate.Admit(0)
		if a == balancer.Refused {
			g.config.answer(x)
			retryAfter(x, max(gate.OpenFor(), gate.Quarantined()))
			return phase.Stop
		}
		x.EnterGate(gate, a)
	}
	x.Judge(g.scope, &g.rules)
	return phase.Continue
}

var _ phase.Accessor = (*guard)(nil)
