package snapshot

import (
	"errors"
	"fmt"

	"headgate/conf/resource"
	"headgate/conf/schema"
	"headgate/proxy/meter"
	"headgate/proxy/phase"
	"headgate/proxy/route"
	"headgate/proxy/upstream"
)

// Options are what a Compiler works with.
type Options struct {
	Kinds    []phase.Kind
	Hub      *upstream.Hub
	Meter    *meter.Registry
	Defaults upstream.Defaults
	Mode     route.Mode
	// CountAll counts requests by branch on every route, not only on those with the prometheus plugin.
	CountAll bool
}

// Compiler turns documents into snapshots. It belongs to the config goroutine: a change is staged (compiled beside the running
// configuration), and then committed or discarded.
type Compiler struct {
	opt   Options
	kinds map[string]*kind
	live  *Live

	routes    map[string]*Route
	upstreams map[string]*shared         // by the key of the document that holds it: upstreams/1, services/1
	deps      map[string][]string        // route key -> keys of the documents it is made of, and of those it would be if they existed
	users     map[string]map[string]bool // deps, the other way round
	left      map[string][]byte          // the latest document of routes for which it does not compile
	order     map[string]uint64          // route key -> place among equals
	state     map[string]map[string]any  // owner -> what its plugins keep by identity, see phase.Env.Shared
	nextOrder uint64
	table     *route.Table[*Route]
	serial    uint64
	graves    graveyard
}

type kind struct {
	phase.Kind
	schema *schema.Schema
}

// shared is an upstream that several routes use. It is closed when its document has another one or none, and no route in force was
// compiled with it any more: a route that does not compile with the next version keeps this one alive.
type shared struct {
	*upstream.Upstream
	born     uint64
	routes   int // in force that use it
	replaced bool
}

// NewCompiler returns a compiler whose first snapshot, an empty one, is live.
func NewCompiler(live *Live, opt Options) (*Compiler, error) {
	c := &Compiler{
		opt: opt, live: live, kinds: map[string]*kind{},
		routes: map[string]*Route{}, upstreams: map[string]*shared{},
		deps: map[string][]string{}, users: map[string]map[string]bool{}, left: map[string][]byte{}, order: map[string]uint64{}, state: map[string]map[string]any{},
		table: route.New[*Route](opt.Mode),
	}
	for _, k := range opt.Kinds {
		raw, err := schema.WithMeta(k.Schema)
		if err != nil {
			return nil, fmt.Errorf("schema of plugin %s: %w", k.Name, err)
		}
		s, err := schema.Compile(k.Name, raw, resource.SchemaRefs()...)
		if err != nil {
			return nil, fmt.Errorf("schema of plugin %s: %w", k.Name, err)
		}
		if c.kinds[k.Name] != nil {
			return nil, fmt.Errorf("plugin %s is listed twice", k.Name)
		}
		c.kinds[k.Name] = &kind{Kind: k, schema: s}
	}
	c.serial++
	live.publish(&Snapshot{table: c.table, serial: c.serial})
	return c, nil
}

// Forget gives up the latest document of a route that was left out: it is not tried again.
func (c *Compiler) Forget(key string) { delete(c.left, key) }

// Collect closes what no exchange uses any more and returns how many former snapshots still have readers. Closing may take its
// time, so each piece goes through run.
func (c *Compiler) Collect(run func(func())) (pending int) {
	for _, f := range c.graves.collect() {
		run(f)
	}
	return len(c.graves.former)
}

// Close closes everything that the live snapshot and its predecessors use. No exchange may be running, and the Compiler is of no use
// afterwards.
func (c *Compiler) Close() {
	for _, f := range c.graves.retirees {
		f.close()
	}
	for _, r := range c.routes {
		r.close()
		for _, s := range r.uses {
			if s.routes--; s.routes == 0 && s.replaced {
				s.Close()
			}
		}
	}
	for _, s := range c.upstreams {
		s.Close()
	}
	c.graves.retirees, c.routes, c.upstreams = nil, nil, nil
}

// CheckPlugin validates one plugin configuration, _meta included (contract sections 1.6 and 1.7). conf is decoded JSON.
func (c *Compiler) CheckPlugin(name string, conf any) error {
	k := c.kinds[name]
	if k == nil {
		return errors.New("unknown plugin [" + name + "]")
	}
	if err := k.schema.Validate(conf); err != nil {
		return err
	}
	if k.Validate == nil {
		return nil
	}
	raw, err := resource.Encode(withoutMeta(conf))
	if err != nil {
		return err
	}
	return k.Validate(raw)
}

// KnownPlugin says whether there is a plugin called name.
func (c *Compiler) KnownPlugin(name string) bool { return c.kinds[name] != nil }
