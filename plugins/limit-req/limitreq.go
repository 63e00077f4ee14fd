// Package limitreq is the limit-req plugin: a leaky bucket for each key, which delays the requests that are ahead of the rate and refuses
// those beyond the burst (contract section 4.4). As for limit-count, all buckets of the process are in one table of bounded memory, under
// the identity of the configuration they belong to; buckets are exact and have no locks.
package limitreq

import (
	_ "embed"
	"encoding/json"
	"math"
	"sync"
	"time"

	"headgate/conf/resource/split"
	"headgate/conf/schema"
	"headgate/proxy/phase"
	"headgate/proxy/phase/limit"
	"headgate/proxy/phase/limit/redis"
)

//go:embed schema.json
var schemaJSON []byte

// Kind declares the plugin. The plugins that it builds share their buckets, those of another Kind do not. w is told
// how the Redis servers do; it may be nil.
func Kind(w *redis.Watch) phase.Kind {
	b := newBuckets(redis.MaxWait)
	b.pool.Watch("limit-req", w)
	return b.kind()
}

func newBuckets(wait time.Duration) *buckets {
	return &buckets{
		clock: limit.NewClock(),
		table: sync.OnceValue(limit.NewBuckets),
		pool:  redis.NewPool("plugin-limit-req:v1:", wait),
		sleep: (*phase.Exchange).Sleep,
	}
}

// buckets are those of all instances.
type buckets struct {
	clock limit.Clock
	table func() limit.Buckets
	pool  *redis.Pool
	sleep func(x *phase.Exchange, d time.Duration) phase.Verdict
}

func (b *buckets) kind() phase.Kind {
	return phase.Kind{
		Name:      "limit-req",
		Priority:  1001,
		Schema:    limit.WithPolicies(schemaJSON),
		Encrypted: []string{"redis_password"},
		Build:     b.build,
	}
}

// plugin is immutable; what changes is in the buckets.
type plugin struct {
	shared    *buckets
	table     limit.Buckets
	identity  limit.Identity
	key       limit.Key
	rate      limit.Rate
	nodelay   bool
	rejection limit.Rejection
	pass      bool // allow_degradation
	// server is where several gateways have their buckets, nil for the policy local. Without it, local counts here.
	server *redis.Server
	names  redis.Names
	local  bool
}

func (b *buckets) build(conf []byte, env phase.Env) (any, error) {
	v, err := schema.DecodeJSON(conf)
	if err != nil {
		return nil, err
	}
	doc, _ := v.(map[string]any)
	p := &plugin{shared: b, table: b.table(), rate: limit.PerSecond(number(doc["rate"]), number(doc["burst"]))}
	p.nodelay, _ = doc["nodelay"].(bool)
	p.pass, _ = doc["allow_degradation"].(bool)
	degradation, _ := doc["degradation"].(string)
	p.local = degradation == "local"
	if p.identity, err = limit.IdentityOf(env.Owner(), conf); err != nil {
		return nil, err
	}
	kind, _ := doc["key_type"].(string)
	key, _ := doc["key"].(string)
	if p.key, err = limit.NewKey(kind, key); err != nil {
		return nil, err
	}
	code, _ := split.Integer(doc["rejected_code"])
	msg, _ := doc["rejected_msg"].(string)
	p.rejection = limit.NewRejection(int(code), msg)
	settings, remote := redis.Read(doc)
	if !remote {
		return p, nil
	}
	if p.names, err = b.pool.Names(env.Owner(), conf, false); err != nil {
		return nil, err
	}
	p.server = b.pool.Acquire(settings)
	env.Go(p.server.Run)
	return p, nil
}

// Close implements phase.Closer.
func (p *plugin) Close() {
	if p.server != nil {
		p.server.Release()
	}
}

// number is a number that the schema has checked: above 0, or at least 0. What underflows is the slowest rate that there is.
func number(v any) float64 {
	n, _ := v.(json.Number)
	f, _ := n.Float64()
	return math.Max(f, math.SmallestNonzeroFloat64)
}

// shortestDelay is below what is worth waiting for.
const shortestDelay = time.Millisecond

// Access implements phase.Accessor. It allocates only when it meets a key for the first time, and where it asks a redis.
func (p *plugin) Access(x *phase.Exchange) phase.Verdict {
	var wait int64
	var ok bool
	var err error
	if p.server != nil {
		wait, ok, err = p.server.Bucket(x.Commit(p.names.Append(x.Arena(), x, &p.key)), p.rate)
	}
	switch {
	case p.server == nil || err != nil && p.local:
		wait, ok = p.table.Take(p.table.Hash(x, &p.identity, &p.key), p.rate, p.shared.clock())
	case err != nil:
		return limit.Unable(x, p.pass)
	}
	if !ok {
		return p.rejection.Answer(x)
	}
	if d := time.Duration(wait); d >= shortestDelay && !p.nodelay {
		return p.shared.sleep(x, d)
	}
	return phase.Continue
}

var (
	_ phase.Accessor = (*plugin)(nil)
	_ phase.Closer   = (*plugin)(nil)
)
