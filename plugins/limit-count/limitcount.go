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

	"headgate/proxy/phase"
	"headgate/proxy/phase/limit"
)

//go:embed schema.json
var schemaJSON []byte

//go:embed metadata.json
var metadataJSON []byte

// Kind declares the plugin. The plugins that it builds share their counters, those of another Kind do not.
func Kind() phase.Kind {
	c := &counters{clock: limit.NewClock(), windows: sync.OnceValue(limit.NewWindows), groups: newGroups()}
	return c.kind()
}

// counters are those of all instances.
type counters struct {
	clock   limit.Clock
	windows func() limit.Windows
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
	rejection limit.Rejection
	pass      bool // requests that cannot be counted
	quiet     bool // without quota headers
	groups    *groups
}

// rule is one limit.
type rule struct {
	identity limit.Identity
	key      limit.Key
	// optional rules are for the requests that their key has a value for.
	optional      bool
	count, window limit.Number
	sliding       bool
	headers       headers
}

func (c *counters) build(conf []byte, env phase.Env) (any, error) {
	doc, err := read(conf)
	if err != nil {
		return nil, err
	}
	if err := limit.CheckPolicy(doc.policy); err != nil {
		return nil, err
	}
	identity, err := limit.IdentityOf(env.Owner(), conf)
	if err != nil {
		return nil, err
	}
	p := &plugin{clock: c.clock, windows: c.windows(), pass: doc.pass, quiet: doc.quiet, groups: c.groups}
	if p.rejection, err = limit.NewRejection(doc.rejectedCode, doc.rejectedMsg); err != nil {
		return nil, err
	}
	names, err := headerNames(env.Metadata())
	if err != nil {
		return nil, err
	}
	for i, r := range doc.rules {
		built := rule{identity: identity, optional: doc.several, sliding: doc.sliding, headers: names.with(r.prefix)}
		if doc.several {
			built.identity = identity.Part(i)
		}
		if built.key, err = limit.NewKey(r.keyType, r.key); err != nil {
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
	if doc.group == "" {
		return p, nil
	}
	p.rules[0].identity = limit.IdentityOfGroup(doc.group)
	stable, err := limit.Stable(conf)
	if err != nil {
		return nil, err
	}
	return p, c.groups.join(doc.group, env.Owner(), string(stable), p)
}

// Close implements phase.Closer.
func (p *plugin) Close() { p.groups.leave(p) }

// Access implements phase.Accessor. It allocates only when it meets a key for the first time.
func (p *plugin) Access(x *phase.Exchange) phase.Verdict {
	applies := false
	for i := range p.rules { // all are understood before the first is charged
		if r := &p.rules[i]; r.applies(x) {
			if _, ok := r.shape(x); !ok {
				return limit.Unable(x, p.pass)
			}
			applies = true
		}
	}
	if !applies {
		return limit.Unable(x, p.pass)
	}
	now := p.clock()
	for i := range p.rules {
		r := &p.rules[i]
		if !r.applies(x) {
			continue
		}
		shape, _ := r.shape(x)
		q := p.windows.Take(p.windows.Hash(x, &r.identity, &r.key), shape, now)
		if !p.quiet {
			r.headers.set(x, shape.Count, &q)
		}
		if !q.OK {
			return p.rejection.Answer(x)
		}
	}
	return phase.Continue
}

// applies says whether the rule is for x.
func (r *rule) applies(x *phase.Exchange) bool {
	if !r.optional {
		return true
	}
	key, ok := r.key.Append(x.Arena(), x)
	x.Commit(key)
	return ok
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
