// Package workflow is the workflow plugin: the first rule whose case holds answers the request, or puts a limit on it (contract section
// 4.4). The limits are plugins of their own; this one runs them for the requests of its rule, in the place of those that the route has.
package workflow

import (
	"bytes"
	_ "embed"
	"strings"

	"headgate/proxy/phase"
)

//go:embed schema.json
var schemaJSON []byte

// Kind declares the plugin.
func Kind() phase.Kind {
	return phase.Kind{
		Name:     "workflow",
		Priority: 1006,
		Schema:   bytes.Clone(schemaJSON),
		Validate: validate,
		Build:    build,
		Uses:     []string{limitCount, limitConn},
	}
}

func build(conf []byte, env phase.Env) (any, error) {
	rules, err := read(conf)
	if err != nil {
		return nil, err
	}
	p := &plugin{rules: make([]rule, len(rules)), slot: env.Slot()}
	for i := range rules {
		c, r := &rules[i], &p.rules[i]
		if r.always = c.always; !r.always {
			// The contract takes an expression that nobody understands, and so does an Admin API that speaks it. Whom the rule is for
			// is not known then: requests that come to it are refused.
			if r.condition, err = env.CompileExpr(c.condition); err != nil {
				r.condition, r.broken = nil, true
			}
		}
		for n, a := range c.actions {
			built, err := buildAction(a, env)
			if err != nil {
				return nil, err
			}
			if n == 0 {
				r.action = built
			}
		}
	}
	return p, nil
}

func buildAction(c actionConfig, env phase.Env) (a action, err error) {
	if c.name == "" {
		return action{status: c.code}, nil
	}
	built, err := env.Plugin(c.name, c.conf)
	if err != nil {
		complaint := err.Error()
		if rest, ok := strings.CutPrefix(complaint, "failed to check the configuration of plugin "+c.name+" err: "); ok {
			complaint = rest
		}
		return a, inAction(c.name, complaint)
	}
	a.kind, _ = env.Number(c.name)
	a.access, _ = built.(phase.Accessor)
	a.done, _ = built.(phase.Finisher)
	if a.access == nil {
		return a, inAction(c.name, "the plugin cannot be an action")
	}
	return a, nil
}

// plugin is immutable. The slot of an exchange has the number of the rule that it met, from 1.
type plugin struct {
	rules []rule
	slot  int
}

type rule struct {
	always    bool
	condition phase.Predicate
	broken    bool
	action    action
}

// action answers with status, or runs a plugin.
type action struct {
	status int
	access phase.Accessor // nil: answer
	done   phase.Finisher // nil: none
	kind   uint8          // of the plugin
}

var bodyRejected = []byte("{\"error_msg\":\"rejected by workflow\"}\n")

// Access implements phase.Accessor.
func (p *plugin) Access(x *phase.Exchange) phase.Verdict {
	for i := range p.rules {
		r := &p.rules[i]
		if r.broken {
			x.AnswerPage(500)
			return phase.Stop
		}
		if !r.always && !r.condition.True(x) {
			continue
		}
		a := &r.action
		if a.access == nil {
			return a.answer(x)
		}
		x.Slot(p.slot).Int = int64(i) + 1
		x.PassOver(a.kind)
		return a.access.Access(x)
	}
	return phase.Continue
}

func (a *action) answer(x *phase.Exchange) phase.Verdict {
	if a.status < 200 { // no answer ends with an interim one (RFC 9110 section 15.2)
		x.AnswerPage(500)
	} else {
		x.Answer(a.status, phase.TypeText, bodyRejected)
	}
	return phase.Stop
}

// Done implements phase.Finisher.
func (p *plugin) Done(x *phase.Exchange) {
	if n := x.Slot(p.slot).Int; n > 0 {
		if d := p.rules[n-1].action.done; d != nil {
			d.Done(x)
		}
	}
}

var (
	_ phase.Accessor = (*plugin)(nil)
	_ phase.Finisher = (*plugin)(nil)
)
