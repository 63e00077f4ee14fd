// Package faultinjection is the fault-injection plugin: it delays requests or answers them in the place of the upstream, so that clients
// can be tried on failures (contract section 4.4).
package faultinjection

import (
	"bytes"
	_ "embed"
	"fmt"
	"math/rand/v2"
	"time"

	"headgate/proxy/phase"
	"headgate/proxy/phase/headerline"
	"headgate/proxy/vars"
)

//go:embed schema.json
var schemaJSON []byte

// Kind declares the plugin.
func Kind() phase.Kind {
	return phase.Kind{
		Name:     "fault-injection",
		Priority: 11000,
		Schema:   bytes.Clone(schemaJSON),
		Validate: validate,
		Build:    build,
	}
}

// validate builds what doesn't need a compiler's environment: expressions compile without one.
func validate(conf []byte) error {
	c, err := read(conf)
	if err == nil {
		_, err = compile(c, phase.CompilePredicate)
	}
	return err
}

func build(conf []byte, env phase.Env) (any, error) {
	c, err := read(conf)
	if err != nil {
		return nil, err
	}
	return compile(c, env.CompileExpr)
}

func compile(c Config, expression func(raw any) (phase.Predicate, error)) (*plugin, error) {
	p := &plugin{}
	if d := c.Delay; d != nil {
		chosen, err := newChoice(d.Choice, expression)
		if err != nil {
			return nil, err
		}
		p.delay = &delay{chosen, d.Duration}
	}
	if a := c.Abort; a != nil {
		chosen, err := newChoice(a.Choice, expression)
		if err != nil {
			return nil, err
		}
		p.abort = &abort{choice: chosen, status: a.Status}
		if a.Body != nil {
			if p.abort.body, err = vars.Compile(*a.Body); err != nil {
				return nil, err
			}
		}
		if p.abort.lines, err = headerline.NewAnswer(a.Headers); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// plugin is immutable; what is nil is not done.
type plugin struct {
	delay *delay
	abort *abort
}

type delay struct {
	choice
	duration time.Duration
}

type abort struct {
	choice
	status int
	body   *vars.Template // nil: the status's page
	lines  headerline.Answer
}

// choice says which requests are meant.
type choice struct {
	percentage int
	// when has the alternatives if conditional is set; without any, no request is meant.
	conditional bool
	when        []phase.Predicate
}

func newChoice(c Choice, expression func(raw any) (phase.Predicate, error)) (choice, error) {
	out := choice{percentage: c.Percentage, conditional: c.Vars != nil}
	for _, raw := range c.Vars {
		p, err := expression(raw)
		if err != nil {
			return out, err
		}
		out.when = append(out.when, p)
	}
	return out, nil
}

func (c *choice) means(x *phase.Exchange) bool {
	return (c.percentage >= 100 || rand.IntN(100) < c.percentage) && c.fits(x)
}

// fits says whether x is among the requests of which a part is meant.
func (c *choice) fits(x *phase.Exchange) bool {
	for _, p := range c.when {
		if p.True(x) {
			return true
		}
	}
	return !c.conditional
}

// Rewrite implements phase.Rewriter.
func (p *plugin) Rewrite(x *phase.Exchange) phase.Verdict {
	if p.delay != nil && p.delay.means(x) && x.Sleep(p.delay.duration) == phase.Stop {
		return phase.Stop
	}
	if p.abort == nil || !p.abort.means(x) {
		return phase.Continue
	}
	p.abort.answer(x)
	return phase.Stop
}

func (a *abort) answer(x *phase.Exchange) {
	switch {
	case a.body != nil:
		b, _ := a.body.Append(x.Arena(), x)
		x.Answer(a.status, phase.TypeText, x.Commit(b))
	case a.status < 300 && a.status != 204: // a success has no page, but a type
		x.Answer(a.status, phase.TypeText, nil)
	default:
		x.AnswerPage(a.status)
	}
	a.lines.Set(x)
}

// Foretell implements phase.Answerer.
func (p *plugin) Foretell(x *phase.Exchange) *phase.Foretold {
	if p.abort == nil || p.abort.percentage <= 0 || !p.abort.fits(x) {
		return nil
	}
	percentage := min(p.abort.percentage, 100)
	return &phase.Foretold{
		Status: p.abort.status, Share: float64(percentage) / 100, Why: fmt.Sprintf("abort is for %d %% of such requests", percentage),
	}
}

var (
	_ phase.Rewriter = (*plugin)(nil)
	_ phase.Answerer = (*plugin)(nil)
)
