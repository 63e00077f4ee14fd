package trafficsplit

import (
	"fmt"

	"headgate/balancer"
	"headgate/proxy/fault"
	"headgate/proxy/phase"
)

// Explain implements phase.Explainer: what Access would do, without taking a place in the sequence.
func (p *plugin) Explain(x *phase.Exchange) *phase.Choice {
	for i := range p.rules {
		r := &p.rules[i]
		if r.missing != nil {
			return &phase.Choice{
				Rule: i, Branches: r.choices(), Status: 500, Answer: string(r.missing),
				Why: fmt.Sprintf("rule %d names an upstream that does not exist, whether the rule matches or not", i),
			}
		}
		item, ok := r.matching(x)
		if !ok {
			continue
		}
		return r.explain(x, i, item)
	}
	why := "there are no rules"
	if n := len(p.rules); n > 0 {
		why = fmt.Sprintf("none of the %d rules matches", n)
	}
	return &phase.Choice{Rule: -1, Branches: []phase.ChoiceBranch{}, Why: why}
}

// matching returns which of the alternatives of r holds, -1 when it has none and is for every request.
func (r *rule) matching(x *phase.Exchange) (item int, ok bool) {
	for i, m := range r.match {
		if m.True(x) {
			return i, true
		}
	}
	return -1, len(r.match) == 0
}

func (r *rule) explain(x *phase.Exchange, index, item int) *phase.Choice {
	c := &phase.Choice{Rule: index, Branches: r.choices(), Why: fmt.Sprintf("rule %d is for every request", index)}
	if item >= 0 {
		c.Why = fmt.Sprintf("match[%d] of rule %d holds", item, index)
	}
	pick := balancer.PeekBranch(r.sequence, r.gates)
	if pick < 0 && r.sequence.Table().At(0) >= 0 {
		c.Status, c.Why = fault.Quarantined.Status, c.Why+"; all its branches are in quarantine"
		return c
	}
	if pick < 0 {
		c.Why += "; all weights are 0, so the route's own upstream serves"
		return c
	}
	b := &r.branches[pick]
	c.Next = b.name
	if b.upstream != nil {
		x.Upstream = b.upstream
	}
	x.Branch = b.name
	return c
}

// choices are the branches with what the sequence gives them.
func (r *rule) choices() []phase.ChoiceBranch {
	table := r.sequence.Table()
	weights := table.Weights()
	list := make([]phase.ChoiceBranch, len(r.branches))
	for i := range r.branches {
		b := &r.branches[i]
		list[i] = phase.ChoiceBranch{Name: b.name, Weight: weights[i], Share: table.Share(i), State: r.gates[i].Standing()}
		if b.upstream != nil {
			list[i].Upstream = b.upstream.Name()
		}
	}
	return list
}

var _ phase.Explainer = (*plugin)(nil)
