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

const noWeights = "; all weights are 0, so the route's own upstream serves"

func (r *rule) explain(x *phase.Exchange, index, item int) *phase.Choice {
	c := &phase.Choice{Rule: index, Branches: r.choices(), Why: fmt.Sprintf("rule %d is for every request", index)}
	if item >= 0 {
		c.Why = fmt.Sprintf("match[%d] of rule %d holds", item, index)
	}
	asked := x.Decision.Bucket.Kind != phase.NoBucket
	bucket, how := r.foresee(x)
	c.Why += how
	shut := func() *phase.Choice {
		c.Status, c.Why = fault.Quarantined.Status, c.Why+"; all its branches are in quarantine"
		return c
	}
	if bucket.Kind == phase.NoBucket {
		key := phase.Bucket{Kind: phase.KeyBucket} // one of those that it may get
		switch {
		case asked || r.branchOf(key, nil) >= 0 && r.left(key) >= 0:
			c.Open = true
		case r.branchOf(key, nil) >= 0:
			return shut()
		default:
			c.Why += noWeights
		}
		return c
	}
	pick := r.decide(x, bucket)
	if !asked && pick >= 0 { // a decision that is repeated is what the weights say, whatever is shut by now
		if pick = r.left(bucket); pick < 0 {
			return shut()
		}
		r.note(x, bucket, pick)
	}
	if pick < 0 {
		c.Why += noWeights
		return c
	}
	b := &r.branches[pick]
	c.Next, c.Bucket = b.name, bucket.String()
	if b.upstream != nil {
		x.Upstream = b.upstream
	}
	x.Branch = b.name
	return c
}

// left returns the branch that serves a bucket with what is open now, -1 when all are in quarantine.
func (r *rule) left(bucket phase.Bucket) int {
	if bucket.Kind == phase.KeyBucket {
		return balancer.PeekKeyed(r.gates, bucket.N, r.sticky.rendezvous.Pick)
	}
	return balancer.PeekBranch(r.sequence, r.gates)
}

// foresee returns the bucket that will decide, and what there is to say about it. The zero Bucket says that the request leaves it open.
func (r *rule) foresee(x *phase.Exchange) (bucket phase.Bucket, how string) {
	switch asked := x.Decision.Bucket; {
	case asked.Kind == phase.KeyBucket && r.sticky == nil:
		return phase.Bucket{}, "; it is not sticky, so that no key decides in it"
	case asked.Kind == phase.KeyBucket:
		return asked, "; the key is given"
	case asked.Kind == phase.PlaceBucket:
		return r.place(asked.N), "; the place in the sequence is given"
	}
	if bucket, ok := r.known(x); ok {
		return bucket, "; the client keeps its branch"
	}
	switch {
	case r.sticky == nil:
	case r.sticky.cookie != nil:
		return phase.Bucket{}, "; the client is not known yet: the value of the cookie " + r.sticky.cookie.name + " that it will get decides"
	default:
		how = "; the request has no key, so the sequence decides"
	}
	n, _ := r.sequence.Peek()
	return r.place(n), how
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
