package upstream

import (
	"time"

	"headgate/balancer"
	"headgate/proxy/fault"
	"headgate/proxy/phase"
)

// Explanation is an upstream and what it would do with an exchange, in the form in which the control API shows it.
type Explanation struct {
	Name string `json:"name"`
	// From is the key of the document that holds the upstream; the caller fills it in.
	From string `json:"from,omitempty"`
	Type string `json:"type"`
	// Nodes are in the order of the document, at most maxExplained of them; More is how many there are besides.
	Nodes []ExplainedNode `json:"nodes"`
	More  int             `json:"more,omitempty"`
	// Next is the node of the next such request's first attempt, "host:port"; "" when there is none. When that one rests, it is another one of
	// those that do not, if there is any.
	Next string `json:"next"`
}

// ExplainedNode is one node. Healthy is the present verdict of its checks.
type ExplainedNode struct {
	Addr     string `json:"addr"`
	Weight   uint64 `json:"weight"`
	Priority int    `json:"priority"`
	Healthy  bool   `json:"healthy"`
	// State is what its breaker or an operator says: open, half-open, recovering or quarantined; else resting, when it could not be connected or
	// has asked to be left alone; "" when all is well.
	State string `json:"state,omitempty"`
}

// maxExplained bounds the nodes that are listed.
const maxExplained = 1000

// Explain says where Forward would send x first, or the fault that it would return. Nothing changes: no turn is taken, no connection made.
// With the rule ewma it is the node that is best now; Forward takes the better one of two at random.
func (u *Upstream) Explain(x *phase.Exchange) (Explanation, *fault.Fault) {
	u = u.present()
	e := Explanation{Name: u.name, Type: balancer.KindOf(u.pick), Nodes: make([]ExplainedNode, 0, min(len(u.nodes), maxExplained))}
	for i, n := range u.nodes {
		if i == maxExplained {
			e.More = len(u.nodes) - i
			break
		}
		e.Nodes = append(e.Nodes, ExplainedNode{n.addr, n.Weight, n.Priority, n.Healthy(), u.standing(n)})
	}
	switch {
	case len(u.nodes) == 0:
		return e, fault.NoEndpoint
	case u.refused != nil:
		return e, u.refused
	}
	var key uint64
	if u.hash != nil {
		key = u.hash.of(x)
	}
	i := balancer.Peek(u.pick, key)
	switch {
	case i < 0 && u.shutFor() > 0:
		return e, fault.Quarantined
	case i < 0:
		return e, fault.AllTried
	}
	e.Next = u.nodes[i].addr
	return e, nil
}

// standing is why n may get less than its share, "" when nothing speaks against it.
func (u *Upstream) standing(n *node) string {
	state := n.gate.Standing()
	if now := int64(time.Since(u.hub.epoch)); state == "" && (n.asked.Load() > now || n.lost.Load() > now) {
		state = "resting"
	}
	return state
}

// Same says that u and o come from one compilation of one document, though their clocks may differ (see WithTimeout).
func (u *Upstream) Same(o *Upstream) bool { return u.pick == o.pick && u.service == o.service }
