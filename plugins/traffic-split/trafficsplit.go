// Package trafficsplit is the traffic-split plugin: it sends exact shares of a route's requests to several upstreams (contract section
// 4.2). Its configuration has two forms. In the contract's, the first rule that matches decides, and its weighted_upstreams are the
// branches. In the guides', the items of rules are the branches of one split themselves:
//
//	{"rules": [{"weight": 80, "upstream": {...}, "rewrite": {"uri": "/v1/chat"}}, {"weight": 20, "upstream_id": "v2"}]}
//
// Branches are named as package split says, in both forms; a branch may rewrite the request as proxy-rewrite does, after that plugin.
//
// Beyond the contract, sticky (beside rules, or in one rule) keeps clients with their branch. A branch is the same one as long as its name
// is, wherever it stands; a branch that is only known by its position ("branch-2") is another one when it is moved.
package trafficsplit

import (
	"bytes"
	_ "embed"
	"strconv"

	"headgate/balancer"
	"headgate/conf/resource"
	"headgate/proxy/phase"
	"headgate/proxy/phase/rewrite"
)

//go:embed schema.json
var schemaJSON []byte

// Kind declares the plugin.
func Kind() phase.Kind {
	return phase.Kind{
		Name:     "traffic-split",
		Priority: 966,
		Schema:   bytes.Replace(schemaJSON, []byte(`{"$ref": "rewrite.json"}`), rewrite.Schema(), 1),
		Validate: validate,
		Build:    build,
	}
}

// plugin is immutable; what changes is in the sequences.
type plugin struct {
	rules []rule
}

// rule is one split.
type rule struct {
	// match has the alternatives; empty: the rule is for every request.
	match    []phase.Predicate
	index    int
	sequence *balancer.Sequence
	sticky   *sticky // nil: nobody keeps a branch
	branches []branch
	// missing is the answer when an upstream_id of the rule doesn't exist, nil when all do.
	missing []byte
}

// branch is where a pick leads.
type branch struct {
	name     string
	token    string            // name as headers have it
	upstream phase.Upstream    // nil: the route's own
	rewrite  *rewrite.Rewriter // nil: none
	count    phase.Counter
}

func build(conf []byte, env phase.Env) (any, error) {
	c, err := read(conf)
	if err != nil {
		return nil, err
	}
	p := &plugin{rules: make([]rule, len(c.rules))}
	t := &telling{plugin: p, header: c.header}
	for i := range c.rules {
		if p.rules[i], err = buildRule(&c.rules[i], i, env); err != nil {
			return nil, err
		}
		if s := p.rules[i].sticky; s != nil && s.cookie != nil {
			t.cookies = append(t.cookies, s.cookie)
		}
	}
	if t.header || len(t.cookies) > 0 {
		return t, nil
	}
	return p, nil
}

func buildRule(c *ruleConfig, index int, env phase.Env) (r rule, err error) {
	r.index = index
	for _, e := range c.exprs {
		m, err := env.CompileExpr(e)
		if err != nil {
			return r, inVars(err)
		}
		r.match = append(r.match, m)
	}
	names := make([]string, len(c.branches))
	weights := make([]uint64, len(c.branches))
	r.branches = make([]branch, len(c.branches))
	for i := range c.branches {
		b := &c.branches[i]
		names[i], weights[i] = b.name, b.weight
		r.branches[i] = branch{name: b.name, token: phase.HeaderToken(b.name), count: env.BranchCounter(b.name)}
		if err := r.connect(&r.branches[i], b, env); err != nil {
			return r, inBranch(b.name, err)
		}
	}
	// The sequence belongs to the document, not to this instance: an edit of anything but the weights goes on where it was, and new
	// weights settle what the old ones owed.
	r.sequence = env.Shared("rule/"+strconv.Itoa(index), func(before any) any {
		from, _ := before.(*balancer.Sequence)
		return balancer.NewSequence(balancer.NewTable(weights), names, from)
	}).(*balancer.Sequence)
	if c.sticky != nil {
		r.sticky, err = newSticky(c.sticky, names, weights, env.Slot)
	}
	return r, err
}

// connect gives a branch its upstream and its rewrite.
func (r *rule) connect(b *branch, c *branchConfig, env phase.Env) (err error) {
	switch {
	case c.upstreamID != "":
		u, ok := env.UpstreamByID(c.upstreamID)
		if ok {
			b.upstream = u
		} else if r.missing == nil {
			r.missing = []byte("failed to fetch upstream info by upstream id: " + c.upstreamID)
		}
	case c.upstream != nil:
		doc, err := resource.Encode(c.upstream)
		if err != nil {
			return err
		}
		if b.upstream, err = env.Upstream(doc, "branch/"+c.name, c.name); err != nil {
			return err
		}
	}
	if c.rewrite != nil {
		b.rewrite, err = rewrite.Compile(c.rewrite)
	}
	return err
}

// Access implements phase.Accessor: one atomic add and one index, or a hash, and no lock or allocation of its own.
func (p *plugin) Access(x *phase.Exchange) phase.Verdict {
	for i := range p.rules {
		r := &p.rules[i]
		if r.missing != nil { // even when the rule doesn't match, or the branch has weight 0
			x.Answer(500, phase.TypeText, r.missing)
			return phase.Stop
		}
		if r.matches(x) {
			return r.apply(x)
		}
	}
	return phase.Continue
}

func (r *rule) matches(x *phase.Exchange) bool {
	for _, m := range r.match {
		if m.True(x) {
			return true
		}
	}
	return len(r.match) == 0
}

func (r *rule) apply(x *phase.Exchange) phase.Verdict {
	pick := r.pick(x)
	if pick < 0 { // every weight is 0: the route's own upstream
		return phase.Continue
	}
	b := &r.branches[pick]
	// The engine counts what stays with the route's own upstream under the name that it has set.
	if b.upstream != nil || b.name != x.Branch {
		b.count.Inc(x)
	}
	if b.upstream != nil {
		x.Upstream = b.upstream
	}
	x.Branch = b.name
	if b.rewrite == nil {
		return phase.Continue
	}
	return b.rewrite.Apply(x)
}

var _ phase.Accessor = (*plugin)(nil)
