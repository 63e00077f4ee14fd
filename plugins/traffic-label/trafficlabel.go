// Package trafficlabel is the traffic-label plugin: it marks requests with header lines, by rules and in exact shares (contract section
// 4.4).
package trafficlabel

import (
	"bytes"
	_ "embed"
	"strconv"

	"headgate/balancer"
	"headgate/proxy/phase"
	"headgate/proxy/phase/rewrite"
)

//go:embed schema.json
var schemaJSON []byte

// Kind declares the plugin.
func Kind() phase.Kind {
	return phase.Kind{
		Name:     "traffic-label",
		Priority: 967,
		Schema:   bytes.Clone(schemaJSON),
		Validate: validate,
		Build:    build,
	}
}

func build(conf []byte, env phase.Env) (any, error) {
	rules, err := read(conf)
	if err != nil {
		return nil, err
	}
	p := &plugin{rules: make([]rule, len(rules))}
	for i := range rules {
		c, r := &rules[i], &p.rules[i]
		if c.match != nil {
			if r.match, err = env.CompileExpr(c.match); err != nil {
				return nil, err
			}
		}
		r.actions = c.lines
		names := make([]string, len(c.lines))
		for n := range names {
			names[n] = strconv.Itoa(n)
		}
		// The sequence belongs to the document: an edit of anything but the weights goes on where it was.
		r.sequence = env.Shared("rule/"+strconv.Itoa(i), func(before any) any {
			from, _ := before.(*balancer.Sequence)
			return balancer.NewSequence(balancer.NewTable(c.weights), names, from)
		}).(*balancer.Sequence)
	}
	return p, nil
}

// plugin is immutable; what changes is in the sequences.
type plugin struct{ rules []rule }

// rule is for the requests that match; each takes the next of its actions.
type rule struct {
	match    phase.Predicate // nil: every request
	sequence *balancer.Sequence
	actions  []*rewrite.Rewriter // nil: none
}

// Access implements phase.Accessor. A request that an action without lines has taken goes on to the next rule (contract section 4.4).
func (p *plugin) Access(x *phase.Exchange) phase.Verdict {
	for i := range p.rules {
		r := &p.rules[i]
		if r.match != nil && !r.match.True(x) {
			continue
		}
		if n := r.sequence.Next(); n >= 0 && r.actions[n] != nil {
			return r.actions[n].Apply(x)
		}
	}
	return phase.Continue
}

var _ phase.Accessor = (*plugin)(nil)
