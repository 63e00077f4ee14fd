package snapshot

import (
	"errors"
	"fmt"
	"slices"

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
	// LookupEnv resolves references of plugin configurations to the environment; nil knows no variable.
	LookupEnv func(name string) (string, bool)
	TLS       TLSOptions
	// GlobalTwinsStop runs a plugin that stands in several global rules for none of them (contract section 2.7), instead of for the one
	// that was stored first.
	GlobalTwinsStop bool
	// BareNodeHost leaves the port out of the Host of pass_host "node" in http upstreams that stand in the configuration of a plugin.
	BareNodeHost bool
	// Inert are names of plugins that documents may configure although there is no such kind: they do not run.
	Inert []string
}

// Compiler turns documents into snapshots. It belongs to the config goroutine: a change is staged (compiled beside the running
// configuration), and then committed or discarded.
type Compiler struct {
	opt   Options
	kinds map[string]*kind
	live  *Live

	routes    map[string]*Route
	names     map[string]int    // of routes, how many have each
	hidden    map[string]*Route // of routes those with status 0, which no table has
	consumers map[string]*consumer
	groups    map[string]*group
	globals   *globals
	folders   map[string]map[string]bool // keys of the documents that are compiled together with their siblings
	upstreams map[string]*shared         // by the key of the document that holds it: upstreams/1, services/1
	deps      map[string][]string        // unit -> keys of the documents it is made of, and of those it would be if they existed
	users     map[string]map[string]bool // deps, the other way round
	left      map[string][]byte          // the latest version of documents of which it does not compile
	state     map[string]map[string]any  // owner -> what its plugins keep by identity, see phase.Env.Shared
	since     func(key string) uint64    // see OrderBy
	table     *route.Table[*Route]
	layouts   phase.Layouts // of all chains
	registry  registry
	serial    uint64
	graves    graveyard

	certs        map[string]*Certificate // by the key of the document
	certificates certificates
	tickets      *Tickets
}

type kind struct {
	phase.Kind
	number   uint8 // in the list of all
	schema   *schema.Schema
	consumer *schema.Schema // nil unless it is for authentication
	metadata *schema.Schema // nil when it has none
	about    string         // key of the document with its metadata
}

// shared is an upstream that several routes use. It is closed when its document has another one or none, and no route in force was
// compiled with it any more: a route that does not compile with the next version keeps this one alive.
type shared struct {
	*upstream.Upstream
	key      string // of the document
	born     uint64
	routes   int // in force that use it
	replaced bool
}

// Tickets are the keys of the session tickets that clients get.
func (c *Compiler) Tickets() *Tickets { return c.tickets }

// NewCompiler returns a compiler whose first snapshot, an empty one, is live.
func NewCompiler(live *Live, opt Options) (*Compiler, error) {
	c := &Compiler{
		opt: opt, live: live, kinds: map[string]*kind{},
		routes: map[string]*Route{}, names: map[string]int{}, hidden: map[string]*Route{}, upstreams: map[string]*shared{},
		deps: map[string][]string{}, users: map[string]map[string]bool{}, left: map[string][]byte{}, state: map[string]map[string]any{},
		consumers: map[string]*consumer{}, groups: map[string]*group{}, folders: map[string]map[string]bool{},
		table: route.New[*Route](opt.Mode), registry: newRegistry(), certs: map[string]*Certificate{}, tickets: newTickets(),
	}
	c.certificates = newCertificates(opt.TLS, c.tickets)
	if opt.LookupEnv == nil {
		c.opt.LookupEnv = func(string) (string, bool) { return "", false }
	}
	if len(opt.Kinds) > maxKinds {
		return nil, fmt.Errorf("%d plugins are more than %d", len(opt.Kinds), maxKinds)
	}
	for n, k := range opt.Kinds {
		if c.kinds[k.Name] != nil {
			return nil, fmt.Errorf("plugin %s is listed twice", k.Name)
		}
		made, err := newKind(k, uint8(n))
		if err != nil {
			return nil, fmt.Errorf("schema of plugin %s: %w", k.Name, err)
		}
		c.kinds[k.Name] = made
	}
	c.serial++
	live.publish(&Snapshot{table: c.table, registry: c.registry, certificates: c.certificates, serial: c.serial})
	return c, nil
}

// maxKinds is how many kinds a set of them can hold.
const maxKinds = 256

func newKind(k phase.Kind, number uint8) (*kind, error) {
	made := &kind{Kind: k, number: number, about: "plugin_metadata/" + k.Name}
	raw, err := schema.WithMeta(k.Schema)
	if err == nil {
		made.schema, err = schema.Compile(k.Name, raw, resource.SchemaRefs()...)
	}
	if err == nil && k.Consumer != nil {
		if raw, err = schema.WithMeta(k.Consumer.Schema); err == nil {
			made.consumer, err = schema.Compile(k.Name+" consumer", raw)
		}
	}
	if err == nil && k.MetadataSchema != nil {
		made.metadata, err = schema.Compile(k.Name+" metadata", k.MetadataSchema)
	}
	return made, err
}

// Forget gives up the latest version of a document that was left out: it is not tried again.
func (c *Compiler) Forget(key string) { delete(c.left, key) }

// NodeNews has something to read when UpdateNodes has something to do.
func (c *Compiler) NodeNews() <-chan struct{} { return c.opt.Hub.News() }

// UpdateNodes gives upstreams whose nodes are discovered those that there are now. No snapshot changes: each such upstream has its own
// pointer to a set of nodes, which an exchange follows once.
func (c *Compiler) UpdateNodes() { c.opt.Hub.UpdateNodes() }

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
	end := func(p *part) {
		p.close()
		for _, s := range p.uses {
			if s.routes--; s.routes == 0 && s.replaced {
				s.Close()
			}
		}
	}
	for _, r := range c.routes {
		end(&r.part)
	}
	for _, next := range c.consumers {
		end(&next.part)
	}
	for _, g := range c.groups {
		end(&g.part)
	}
	if c.globals != nil {
		end(&c.globals.part)
	}
	for _, s := range c.upstreams {
		s.Close()
	}
	c.graves.retirees, c.routes, c.consumers, c.groups, c.globals, c.upstreams = nil, nil, nil, nil, nil, nil
}

// CheckPlugin validates one plugin configuration, _meta included (contract sections 1.6 and 1.7). conf is decoded JSON.
func (c *Compiler) CheckPlugin(name string, conf any, use resource.Use) error {
	return c.checkPlugin(name, conf, nil, use)
}

// checkPlugin is CheckPlugin; text is conf as JSON, nil when nobody has made it yet.
func (c *Compiler) checkPlugin(name string, conf any, text []byte, use resource.Use) error {
	k := c.kinds[name]
	if k == nil {
		return errors.New("unknown plugin [" + name + "]")
	}
	judge, validate := k.rules(use)
	if judge != nil {
		if err := judge.Validate(conf); err != nil {
			return err
		}
	}
	if validate == nil {
		return nil
	}
	if text == nil || hasMeta(conf) {
		var err error
		if text, err = resource.Encode(withoutMeta(conf)); err != nil {
			return err
		}
	}
	return validate(text)
}

// rules are those by which a configuration for the use is judged; either may be nil.
func (k *kind) rules(use resource.Use) (*schema.Schema, func(conf []byte) error) {
	switch {
	case use == resource.AsMetadata:
		return k.metadata, nil
	case use == resource.InConsumer && k.Consumer != nil:
		return k.consumer, k.Consumer.Validate
	}
	return k.schema, k.Validate
}

// PluginProblems implements resource.Surveyor.
func (c *Compiler) PluginProblems(name string, conf any, use resource.Use) []schema.Problem {
	k := c.kinds[name]
	if k == nil {
		return nil
	}
	if judge, _ := k.rules(use); judge != nil {
		return judge.Problems(conf)
	}
	return nil
}

// Plugin says how the gateway stands to a plugin name.
func (c *Compiler) Plugin(name string) resource.PluginState {
	if c.kinds[name] != nil {
		return resource.PluginPresent
	}
	if _, known := resource.KnownPlugin(name); !known {
		return resource.PluginUnknown
	}
	if slices.Contains(c.opt.Inert, name) {
		return resource.PluginInert
	}
	return resource.PluginKnown
}

// IsAuth says whether the plugin tells consumers.
func (c *Compiler) IsAuth(name string) bool {
	return c.kinds[name] != nil && c.kinds[name].Consumer != nil
}

// Kind returns the kind of plugin called name.
func (c *Compiler) Kind(name string) (phase.Kind, bool) {
	if k := c.kinds[name]; k != nil {
		return k.Kind, true
	}
	return phase.Kind{}, false
}

// Names returns the names of all plugins that documents may configure, highest priority first: also of those that do not run.
func (c *Compiler) Names() []string {
	type named struct {
		name     string
		priority int
	}
	list := make([]named, 0, len(c.opt.Kinds)+len(c.opt.Inert))
	for _, k := range c.opt.Kinds {
		list = append(list, named{k.Name, k.Priority})
	}
	for _, name := range c.opt.Inert {
		if priority, known := resource.KnownPlugin(name); known && c.kinds[name] == nil {
			list = append(list, named{name, priority})
		}
	}
	slices.SortStableFunc(list, func(p, q named) int { return q.priority - p.priority })
	names := make([]string, len(list))
	for i, n := range list {
		names[i] = n.name
	}
	return names
}
