package limitcount

import (
	"headgate/proxy/phase"
	"headgate/proxy/phase/limit"
	"headgate/proxy/phase/limit/redis"
)

// remote counts in a redis that several gateways share: for every request, or here with a visit to redis now and then.
type remote struct {
	server *redis.Server
	ledger *redis.Ledger // nil: every request
	// local: without redis, count here. All gateways together let pass the limit each, then, instead of once.
	local   bool
	failure []byte
}

// connect lets p count where doc says. Nothing is reached before the configuration is in use.
func (c *counters) connect(p *plugin, doc *config, conf []byte, env phase.Env) error {
	tagged := doc.redis.Clustered() && doc.sliding
	names, err := c.pool.Names(env.Owner(), conf, tagged)
	if err != nil {
		return err
	}
	if doc.group != "" {
		names = c.pool.NamesOfGroup(doc.group, tagged)
	}
	for i := range p.rules {
		p.rules[i].names = names
		if doc.several {
			p.rules[i].names = names.Part(i)
		}
	}
	r := &remote{server: c.pool.Acquire(doc.redis), local: doc.local, failure: []byte(`{"error_msg":"failed to limit count"}` + "\n")}
	p.remote = r
	if doc.sync == 0 {
		env.Go(r.server.Run)
		return nil
	}
	r.ledger = redis.NewLedger(r.server, c.tallies(), c.clock, doc.sync)
	env.Go(r.ledger.Run)
	return nil
}

// take counts x, unless the limit is reached. An error says that redis could not be asked in time.
func (r *remote) take(x *phase.Exchange, rule *rule, s limit.Shape) (limit.Quota, error) {
	name := x.Commit(rule.names.Append(x.Arena(), x, &rule.Key))
	if r.ledger != nil {
		return r.ledger.Take(name, s), nil
	}
	return r.server.Window(name, s)
}
