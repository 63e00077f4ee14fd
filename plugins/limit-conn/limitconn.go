// Package limitconn is the limit-conn plugin: so many requests of a key are in flight at a time; some more wait first, the others are
// refused (contract section 4.4). As for limit-count, all gauges of the process are in one table, under the identity of the configuration
// they belong to. They are exact and have no locks. Requests in flight are never forgotten; should the table have no room for a new key,
// the request cannot be counted (allow_degradation).
package limitconn

import (
	_ "embed"
	"errors"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"headgate/proxy/phase"
	"headgate/proxy/phase/limit"
	"headgate/proxy/phase/limit/redis"
)

//go:embed schema.json
var schemaJSON []byte

// Kind declares the plugin. The plugins that it builds share their gauges, those of another Kind do not. w is told
// how the Redis servers do; it may be nil.
func Kind(w *redis.Watch) phase.Kind {
	g := newGauges(redis.MaxWait)
	g.pool.Watch("limit-conn", w)
	return g.kind()
}

func newGauges(wait time.Duration) *gauges {
	return &gauges{
		clock: limit.NewClock(),
		table: sync.OnceValue(limit.NewGauges),
		pool:  redis.NewPool("plugin-limit-conn:v1:", wait),
		sleep: (*phase.Exchange).Sleep,
	}
}

// gauges are those of all instances.
type gauges struct {
	clock limit.Clock
	table func() limit.Gauges
	pool  *redis.Pool
	sleep func(x *phase.Exchange, d time.Duration) phase.Verdict
}

func (g *gauges) kind() phase.Kind {
	return phase.Kind{
		Name:      "limit-conn",
		Priority:  1003,
		Schema:    limit.WithPolicies(schemaJSON),
		Encrypted: []string{"redis_password"},
		Build:     g.build,
	}
}

// plugin changes in the gauges and in its unit of waiting.
type plugin struct {
	shared    *gauges
	table     limit.Gauges
	rules     []rule
	rejection limit.Rejection
	pass      bool // requests that cannot be counted
	unit      unit
	// server is where several gateways have their gauges, nil for the policy local; a request counts there for ttl ms at most. Without
	// it, local counts here.
	server *redis.Server
	ttl    int64
	local  bool
}

// rule is one limit. The slot of a request that it counts holds what to leave and the time it has waited.
type rule struct {
	limit.Scope
	names       redis.Names
	conn, burst limit.Number
	slot        int
}

func (g *gauges) build(conf []byte, env phase.Env) (any, error) {
	c, err := read(conf)
	if err != nil {
		return nil, err
	}
	identity, err := limit.IdentityOf(env.Owner(), conf)
	if err != nil {
		return nil, err
	}
	p := &plugin{shared: g, table: g.table(), pass: c.pass, unit: unit{fixed: c.fixedDelay}}
	p.unit.seconds.Store(math.Float64bits(c.delay))
	p.rejection = limit.NewRejection(c.rejectedCode, c.rejectedMsg)
	for i, r := range c.rules {
		built := rule{slot: env.Slot()}
		if built.Scope, err = limit.NewScope(identity, c.several, i, r.keyType, r.key); err != nil {
			return nil, err
		}
		if built.conn, err = limit.NewNumber(r.conn); err != nil {
			return nil, err
		}
		if built.burst, err = limit.NewNumber(r.burst); err != nil {
			return nil, err
		}
		p.rules = append(p.rules, built)
	}
	if !c.remote {
		return p, nil
	}
	names, err := g.pool.Names(env.Owner(), conf, false)
	if err != nil {
		return nil, err
	}
	for i := range p.rules {
		p.rules[i].names = names
		if c.several {
			p.rules[i].names = names.Part(i)
		}
	}
	p.server, p.ttl, p.local = g.pool.Acquire(c.redis), c.ttl, c.local
	env.Go(p.server.Run)
	return p, nil
}

// Close implements phase.Closer.
func (p *plugin) Close() {
	if p.server != nil {
		p.server.Release()
	}
}

// Access implements phase.Accessor. It allocates only when it meets a key for the first time, and where it asks a redis.
func (p *plugin) Access(x *phase.Exchange) phase.Verdict {
	applies := false
	for i := range p.rules { // all are understood before the first counts
		if r := &p.rules[i]; r.Applies(x) {
			if _, _, ok := r.numbers(x); !ok {
				return limit.Unable(x, p.pass)
			}
			applies = true
		}
	}
	if !applies {
		return limit.Unable(x, p.pass)
	}
	now, away := p.shared.clock(), false
	for i := range p.rules {
		r := &p.rules[i]
		if !r.Applies(x) {
			continue
		}
		conn, burst, _ := r.numbers(x)
		in, n, err := p.enter(x, r, conn+burst, now, &away)
		switch {
		case err != nil:
			if limit.Unable(x, p.pass) == phase.Stop {
				return phase.Stop
			}
			continue
		case in == nil:
			return p.rejection.Answer(x)
		}
		s := x.Slot(r.slot)
		s.Ptr = in
		if n <= conn {
			continue
		}
		if d := p.unit.times((n - 1) / conn); d >= shortestDelay {
			s.Int = int64(d)
			if p.shared.sleep(x, d) == phase.Stop {
				return phase.Stop
			}
		}
	}
	return phase.Continue
}

// visit is what a request that was counted leaves at its end.
type visit interface{ Leave() }

// errFull: there is no room for one more key.
var errFull = errors.New("too many keys")

// enter counts x unless most are in flight: then in is nil. n is the number with it. away says that redis has failed for this request,
// which is reason enough not to wait for it again.
func (p *plugin) enter(x *phase.Exchange, r *rule, most, now int64, away *bool) (in visit, n int64, err error) {
	if p.server != nil {
		if !*away {
			v, n, err := p.server.Enter(x.Commit(r.names.Append(x.Arena(), x, &r.Key)), most, p.ttl)
			switch {
			case err == nil && v != nil:
				return v, n, nil
			case err == nil:
				return nil, n, nil
			}
			*away = true
		}
		if !p.local {
			return nil, 0, redis.ErrAway
		}
	}
	g, n, full := p.table.Enter(p.table.Hash(x, &r.Identity, &r.Key), most, now)
	switch {
	case full:
		return nil, 0, errFull
	case g == nil:
		return nil, n, nil
	}
	return g, n, nil
}

// shortestDelay is below what is worth waiting for.
const shortestDelay = time.Millisecond

// numbers are those of the limit for x; ok is false when the texts for them are no numbers.
func (r *rule) numbers(x *phase.Exchange) (conn, burst int64, ok bool) {
	conn, ok = r.conn.Value(x, 1)
	burst, valid := r.burst.Value(x, 0)
	return conn, burst, ok && valid
}

// Done implements phase.Finisher.
func (p *plugin) Done(x *phase.Exchange) {
	for i := range p.rules {
		s := x.Slot(p.rules[i].slot)
		in, _ := s.Ptr.(visit)
		if in == nil {
			continue
		}
		s.Ptr = nil
		in.Leave()
		if x.Stage == phase.InPlugin { // it has left while it waited, which does not tell how long requests take
			continue
		}
		took := x.Attempts.Took()
		if x.Attempts.Count == 0 { // nothing was asked; what it has waited here is no work
			took = x.Elapsed() - time.Duration(s.Int)
		}
		p.unit.learn(took)
	}
}

// unit is the unit of waiting: what the operator says at first, then a mean over how long requests take, the last one half of it, unless
// that is switched off (only_use_default_delay).
type unit struct {
	fixed   bool
	seconds atomic.Uint64 // the bits of a float64
}

// times returns n units, at most an hour: that one request waits for ever serves nobody.
func (u *unit) times(n int64) time.Duration {
	const longest = 3600
	return time.Duration(min(math.Float64frombits(u.seconds.Load())*float64(n), longest) * float64(time.Second))
}

func (u *unit) learn(took time.Duration) {
	if u.fixed {
		return
	}
	for {
		before := u.seconds.Load()
		mean := (math.Float64frombits(before) + max(took, 0).Seconds()) / 2
		if u.seconds.CompareAndSwap(before, math.Float64bits(mean)) {
			return
		}
	}
}

var (
	_ phase.Accessor = (*plugin)(nil)
	_ phase.Finisher = (*plugin)(nil)
	_ phase.Closer   = (*plugin)(nil)
)
