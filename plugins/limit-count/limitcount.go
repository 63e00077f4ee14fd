// Package limitcount is the limit-count plugin: so many requests of a key pass in a window of time (contract section 4.2). Counting is
// exact from any number of goroutines, without locks.
//
// All counters of the process are in one table, each under the identity of the configuration it belongs to: the document that holds it and
// what it says. So an edit of anything else keeps the counters, and one of the configuration begins new ones. Memory is bounded as package
// limit says: a flood of new keys beyond its capacity makes the keys whose windows end first begin anew.
package limitcount

import (
	_ "embed"
	"sync"
	"time"

	"headgate/proxy/phase"
	"headgate/proxy/phase/limit"
	"headgate/proxy/phase/limit/redis"
)

//go:embed schema.json
var schemaJSON []byte

//go:embed metadata.json
var metadataJSON []byte

// Kind declares the plugin. The plugins that it builds share their counters, those of another Kind do not. w is told
// how the Redis servers do; it may be nil.
func Kind(w *redis.Watch) phase.Kind {
	c := newCounters(redis.MaxWait)
	c.pool.Watch("limit-count", w)
	return c.kind()
}

func newCounters(wait time.Duration) *counters {
	return &counters{
		clock:   limit.NewClock(),
		windows: sync.OnceValue(limit.NewWindows),
		tallies: sync.OnceValue(redis.NewTallies),
		pool:    redis.NewPool("plugin-limit-count:v1:", wait),
		groups:  newGroups(),
	}
}

// counters are those of all instances.
type counters struct {
	clock   limit.Clock
	windows func() limit.Windows
	tallies func() redis.Tallies // of what goes to redis now and then
	pool    *redis.Pool
	groups  *groups
}

func (c *counters) kind() phase.Kind {
	return phase.Kind{
		Name:           "limit-count",
		Priority:       1002,
		Schema:         limit.WithPolicies(schemaJSON),
		MetadataSchema: metadataJSON,
		Encrypted:      []string{"redis_password", "sentinel_password"},
		Validate:       validate,
		Build:          c.build,
	}
}

// plugin is immutable; what changes is in the windows.
type plugin struct {
	rules     []rule
	clock     limit.Clock
	windows   limit.Windows
	remote    *remote // nil: the windows
	rejection limit.Rejection
	pass      bool // requests that cannot be counted
	quiet     bool // without quota headers
	groups    *groups
}

// rule is one limit.
type rule struct {
	limit.Scope
	names         redis.Names
	count, window limit.Number
	sliding       bool
	headers       headers
}

func (c *counters) build(conf []byte, env phase.Env) (any, error) {
	doc, err := read(conf)
	if err != nil {
		return nil, err
	}
	identity, err := limit.IdentityOf(env.Owner(), conf)
	if err != nil {
		return nil, err
	}
	p := &plugin{clock: c.clock, windows: c.windows(), pass: doc.pass, quiet: doc.quiet, groups: c.groups}
	p.rejection = limit.NewRejection(doc.rejectedCode, doc.rejectedMsg)
	names, err := headerNames(env.Metadata())
	if err != nil {
		return nil, err
	}
	for i, r := range doc.rules {
		built := rule{sliding: doc.sliding, headers: names.with(r.prefix)}
		if built.Scope, err = limit.NewScope(identity, doc.several, i, r.keyType, r.key); err != nil {
			return nil, err
		}
		if built.count, err = limit.NewNumber(r.count); err != nil {
			return nil, err
		}
		if built.window, err = limit.NewNumber(r.window); err != nil {
			return nil, err
		}
		p.rules = append(p.rules, built)
	}
	if doc.group != "" {
		p.rules[0].Identity = limit.IdentityOfGroup(doc.group)
		stable, err := limit.Stable(conf)
		if err != nil {
			return nil, err
		}
		if err := c.groups.join(doc.group, env.Owner(), string(stable), p); err != nil {
			return nil, err
		}
	}
	if doc.remote {
		err = c.connect(p, doc, conf, env)
	}
	if err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

// Close implements phase.Closer.
func (p *plugin) Close() {
	p.groups.leave(p)
	if p.remote != nil {
		p.remote.server.Release()
	}
}

// Access implements phase.Accessor. It allocates only when it meets a key for the first time, and where it asks a redis.
func (p *plugin) Access(x *phase.Exchange) phase.Verdict {
	applies := false
	for i := range p.rules { // all are understood before the first is charged
		if r := &p.rules[i]; r.Applies(x) {
			if _, ok := r.shape(x); !ok {
				return limit.Unable(x, p.pass)
			}
			applies = true
		}
	}
	if !applies {
		return limit.Unable(x, p.pass)
	}
	now, away := p.clock(), false
	for i := range p.rules {
		r := &p.rules[i]
		if !r.Applies(x) {
			continue
		}
		shape, _ := r.shape(x)
		var q limit.Quota
		if p.remote != nil && !away {
			var err error
			q, err = p.remote.take(x, r, shape)
			away = err != nil // a request waits once
		}
		switch {
		case p.remote == nil || away && p.remote.local:
			q = p.windows.Take(p.windows.Hash(x, &r.Identity, &r.Key), shape, now)
		case away && p.pass:
			continue
		case away:
			x.Answer(500, phase.TypeText, p.remote.failure)
			return phase.Stop
		}
		if !p.quiet {
			r.headers.set(x, shape.Count, &q)
		}
		if !q.OK {
			return p.rejection.Answer(x)
		}
	}
	return phase.Continue
}

// shape is the limit for x; ok is false when the texts for it are no numbers.
func (r *rule) shape(x *phase.Exchange) (s limit.Shape, ok bool) {
	count, ok := r.count.Value(x, 1)
	window, valid := r.window.Value(x, 1)
	return limit.Shape{Count: count, Window: limit.Seconds(window), Sliding: r.sliding}, ok && valid
}

var (
	_ phase.Accessor = (*plugin)(nil)
	_ phase.Closer   = (*plugin)(nil)
)
