// Package apibreaker is the api-breaker plugin: when an upstream's answers for a host and path keep failing, requests for it are turned
// away for a while, twice as long each time (contract section 4.2). The state belongs to host and path, whatever route or upstream node is
// behind them, and all routes share it.
//
// With "scope", which the contract does not know, the state is that of the route, of the branch of a split, or of the endpoint, and more
// breaks it than a number of failures: see guard.
package apibreaker

import (
	_ "embed"
	"errors"
	"sync"
	"time"

	"headgate/balancer"
	"headgate/conf/resource/split"
	"headgate/conf/schema"
	"headgate/proxy/fault"
	"headgate/proxy/phase"
	"headgate/proxy/phase/limit"
	"headgate/proxy/phase/wire"
	"headgate/proxy/vars"
)

//go:embed schema.json
var schemaJSON []byte

// Options are what the plugin needs of the process.
type Options struct {
	// RetryAfter adds the header to the contract's form too, which has none.
	RetryAfter bool
}

// Kind declares the plugin. The plugins that it builds share their state, those of another Kind do not.
func Kind(o Options) phase.Kind {
	s := &state{clock: limit.NewClock(), table: sync.OnceValue(newBreakers), options: o}
	return s.kind()
}

// state is that of all instances.
type state struct {
	options Options
	clock   limit.Clock
	table   func() breakers
}

func (s *state) kind() phase.Kind {
	return phase.Kind{Name: "api-breaker", Priority: 1005, Schema: schemaJSON, Validate: validate, Build: s.build}
}

// plugin is immutable; what changes is in the breakers.
type plugin struct {
	clock               limit.Clock
	breakers            breakers
	config              config
	retryAfter          bool
	unhealthy, healthy  balancer.Statuses
	failures, successes uint64
}

// config is what the operator writes about the answer of an open breaker.
type config struct {
	code    int
	body    []byte // nil without one: the page of code, and no lines
	lines   []line
	longest int64 // seconds
}

// line is a header line of the answer.
type line struct {
	name  []byte
	value *vars.Template
}

// The texts that the contract has for header lines (section 4.2, proxy-rewrite).
var (
	errHeaderName  = errors.New("invalid field character in header")
	errHeaderValue = errors.New("invalid value character in header")
)

func validate(conf []byte) error {
	_, doc, err := read(conf)
	if err == nil {
		_, _, err = readRules(doc)
	}
	return err
}

// read reads conf, which satisfies the schema, and checks what the schema cannot say.
func read(conf []byte) (c config, doc map[string]any, err error) {
	v, err := schema.DecodeJSON(conf)
	if err != nil {
		return c, nil, err
	}
	doc, _ = v.(map[string]any)
	c.code = int(integer(doc, "break_response_code", 0))
	c.longest = integer(doc, "max_breaker_sec", 300)
	const year = 366 * 24 * 3600
	c.longest = min(c.longest, year)
	if body, ok := doc["break_response_body"].(string); ok {
		c.body = []byte(body)
	}
	list, _ := doc["break_response_headers"].([]any)
	for _, item := range list {
		m, _ := item.(map[string]any)
		name, _ := m["key"].(string)
		value, _ := m["value"].(string)
		l := line{name: []byte(name)}
		switch {
		case !wire.ValidName(l.name):
			return c, nil, errHeaderName
		case !wire.ValidValue([]byte(value)):
			return c, nil, errHeaderValue
		}
		if l.value, err = vars.Compile(value); err != nil {
			return c, nil, err
		}
		c.lines = append(c.lines, l)
	}
	return c, doc, nil
}

func integer(doc map[string]any, name string, without int64) int64 {
	if n, ok := split.Integer(doc[name]); ok {
		return n
	}
	return without
}

// fill adds the statuses that doc names, else those from first to last.
func fill(s *balancer.Statuses, doc map[string]any, first, last int) {
	list, ok := doc["http_statuses"].([]any)
	for status := first; status <= last && !ok; status++ {
		s[status] = true
	}
	for _, v := range list {
		if n, _ := split.Integer(v); 0 < n && n < int64(len(s)) {
			s[n] = true
		}
	}
}

func (s *state) build(conf []byte, _ phase.Env) (any, error) {
	c, doc, err := read(conf)
	if err != nil {
		return nil, err
	}
	rules, scoped, err := readRules(doc)
	if scoped || err != nil {
		return &guard{config: c, rules: rules.Rules, scope: rules.scope}, err
	}
	p := &plugin{clock: s.clock, breakers: s.table(), config: c, retryAfter: s.options.RetryAfter}
	unhealthy, _ := doc["unhealthy"].(map[string]any)
	healthy, _ := doc["healthy"].(map[string]any)
	fill(&p.unhealthy, unhealthy, 500, 500)
	fill(&p.healthy, healthy, 200, 200)
	p.failures = uint64(min(integer(unhealthy, "failures", 3), failureMask))
	p.successes = uint64(min(integer(healthy, "successes", 3), successMask))
	return p, nil
}

// key is the hash of host and path. A host has no slash, and a path begins with one.
func (p *plugin) key(x *phase.Exchange) uint64 {
	return p.breakers.Key(x.Commit(append(append(x.Arena(), x.Request.Host...), x.Request.Path...)))
}

// Access implements phase.Accessor. It allocates nothing.
func (p *plugin) Access(x *phase.Exchange) phase.Verdict {
	if p.breakers.Len() == 0 { // nothing has failed yet
		return phase.Continue
	}
	b := p.breakers.Find(p.key(x))
	if b == nil {
		return phase.Continue
	}
	left := b.openFor(p.clock(), p.failures, p.config.longest)
	if left <= 0 {
		return phase.Continue
	}
	p.config.answer(x)
	if p.retryAfter {
		retryAfter(x, time.Duration(left))
	}
	return phase.Stop
}

// answer is that of an open breaker.
func (c *config) answer(x *phase.Exchange) {
	if c.body == nil {
		x.AnswerPage(c.code)
		return
	}
	x.Answer(c.code, phase.TypeText, c.body)
	for i := range c.lines {
		c.lines[i].apply(x)
	}
}

// retryAfter says when to come back unless the operator has.
func retryAfter(x *phase.Exchange, wait time.Duration) {
	if _, has := x.Response.Header.Get("Retry-After"); !has {
		x.RetryAfter(wait)
	}
}

// apply adds the line; a Content-Type takes the place of the one that every body has.
func (l *line) apply(x *phase.Exchange) {
	buf, _ := l.value.Append(x.Arena(), x)
	value := x.Commit(buf) // our own copy
	for i, c := range value {
		if c < ' ' && c != '\t' || c == 0x7f { // a decoded variable must not begin a line of its own
			value[i] = ' '
		}
	}
	if phase.EqualName(l.name, "content-type") {
		x.Response.Header.Set(l.name, value)
		return
	}
	x.Response.Header.Add(l.name, value)
}

// Done implements phase.Finisher: what the last attempt came to is noted. It allocates only for a host and path that fail for the first
// time.
func (p *plugin) Done(x *phase.Exchange) {
	outcomes := x.Attempts.Statuses()
	if len(outcomes) == 0 {
		return
	}
	status := int(outcomes[len(outcomes)-1])
	if f := x.Fault; f != nil && f.Side == fault.Upstream { // also of an answer that was cut behind its head
		status = f.Status
	}
	switch {
	case status >= len(p.unhealthy):
	case p.unhealthy[status]:
		p.breakers.fail(p.key(x), p.clock(), p.failures)
	case p.healthy[status] && p.breakers.Len() > 0:
		if b := p.breakers.Find(p.key(x)); b != nil {
			b.succeed(p.successes)
		}
	}
}

var (
	_ phase.Accessor = (*plugin)(nil)
	_ phase.Finisher = (*plugin)(nil)
)
