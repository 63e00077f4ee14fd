package snapshot

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

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
	users     map[string]map[string]bool // document key -> keys of the routes compiled from it
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

// shared is an upstream that several routes use.
type shared struct {
	*upstream.Upstream
	born uint64
}

// NewCompiler returns a compiler whose first snapshot, an empty one, is live.
func NewCompiler(live *Live, opt Options) (*Compiler, error) {
	c := &Compiler{
		opt: opt, live: live, kinds: map[string]*kind{},
		routes: map[string]*Route{}, upstreams: map[string]*shared{},
		users: map[string]map[string]bool{}, order: map[string]uint64{}, state: map[string]map[string]any{},
		table: route.New[*Route](opt.Mode),
	}
	for _, k := range opt.Kinds {
		s, err := schema.Compile(k.Name, k.Schema, resource.SchemaRefs()...)
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

// Edit is the next state of one document; a nil Value deletes it.
type Edit struct {
	Key   string
	Value []byte
}

// Lookup returns the published document under key, nil when there is none.
type Lookup func(key string) []byte

// Problem is a document that was left out of a lenient Stage, with the reason.
type Problem struct {
	Key string
	Err error
}

// Stage is a compiled change that is not in force yet.
type Stage struct {
	c         *Compiler
	docs      Lookup
	edits     map[string][]byte
	routes    map[string]*Route // nil = removed
	upstreams map[string]*shared
	table     *route.Table[*Route]
	order     map[string]uint64
	state     map[string]map[string]any
	Problems  []Problem
}

// Stage compiles edits of the documents that docs shows. Everything that depends on an edited document is compiled anew, all else is shared. With lenient set,
// routes that do not compile are left out and reported, as for documents that arrive from a store; otherwise the first one
// refuses the whole change and nothing has happened.
func (c *Compiler) Stage(docs Lookup, edits []Edit, lenient bool) (*Stage, error) {
	st := &Stage{
		c: c, docs: docs, edits: make(map[string][]byte, len(edits)), routes: map[string]*Route{},
		upstreams: map[string]*shared{}, order: map[string]uint64{}, state: map[string]map[string]any{},
	}
	affected := map[string]bool{}
	for _, e := range edits {
		st.edits[e.Key] = e.Value
		if strings.HasPrefix(e.Key, "routes/") {
			affected[e.Key] = true
		}
		for r := range c.users[e.Key] {
			affected[r] = true
		}
	}
	fail := func(key string, err error) error {
		if lenient {
			st.Problems = append(st.Problems, Problem{key, err})
			return nil
		}
		st.Discard()
		return err
	}
	for _, e := range edits {
		if err := st.compileShared(e); err != nil {
			if err = fail(e.Key, err); err != nil {
				return nil, err
			}
		}
	}
	keys := make([]string, 0, len(affected))
	for k := range affected {
		keys = append(keys, k)
	}
	slices.Sort(keys) // equals are ordered by key when they are loaded together (contract section 2.2)
	var remove []string
	put := make([]route.Rule[*Route], 0, len(keys))
	for _, key := range keys {
		doc := st.get(key)
		if doc == nil {
			st.routes[key] = nil
			remove = append(remove, key)
			continue
		}
		r, err := st.compileRoute(key, doc)
		if err != nil {
			if err = fail(key, err); err != nil {
				return nil, err
			}
			continue
		}
		st.routes[key] = r
		if r.listed {
			put = append(put, r.rule)
		} else {
			remove = append(remove, key)
		}
	}
	var err error
	if st.table, err = c.table.With(remove, put); err != nil {
		st.Discard()
		return nil, err
	}
	return st, nil
}

// compileShared compiles the upstream that an edited upstream or service document holds.
func (st *Stage) compileShared(e Edit) error {
	var doc *resource.Upstream
	var name string
	section, id, _ := strings.Cut(e.Key, "/")
	if e.Value != nil {
		switch section {
		case "upstreams":
			u, err := resource.DecodeUpstream(e.Value)
			if err != nil {
				return err
			}
			doc, name = u, id
		case "services":
			s, err := resource.DecodeService(e.Value)
			if err != nil {
				return err
			}
			doc, name = s.Upstream, defaultBranch
		}
	}
	if section != "upstreams" && section != "services" {
		return nil
	}
	if doc == nil {
		st.upstreams[e.Key] = nil
		return nil
	}
	if doc.Name != "" {
		name = doc.Name
	}
	var prev *upstream.Upstream
	if s := st.c.upstreams[e.Key]; s != nil {
		prev = s.Upstream
	}
	u, err := upstream.Compile(st.c.opt.Hub, doc, name, st.c.opt.Defaults, prev)
	if err != nil {
		return fmt.Errorf("%s: %w", e.Key, err)
	}
	st.upstreams[e.Key] = &shared{Upstream: u}
	return nil
}

// get returns a document as it will be after the change, nil when there will be none.
func (st *Stage) get(key string) []byte {
	if doc, edited := st.edits[key]; edited {
		return doc
	}
	return st.docs(key)
}

// sharedUpstream returns the upstream that the document key holds, as it will be after the change.
func (st *Stage) sharedUpstream(key string) *upstream.Upstream {
	if s, edited := st.upstreams[key]; edited {
		if s == nil {
			return nil
		}
		return s.Upstream
	}
	if s := st.c.upstreams[key]; s != nil {
		return s.Upstream
	}
	return nil
}

// Discard drops the stage; the running configuration was not touched.
func (st *Stage) Discard() {
	for _, r := range st.routes {
		if r != nil {
			r.close()
		}
	}
	for _, s := range st.upstreams {
		if s != nil {
			s.Close()
		}
	}
}

// Commit publishes the stage: from when it returns, every exchange that begins runs on it. revision is the store's.
func (st *Stage) Commit(revision uint64) {
	c := st.c
	before := c.live.Current()
	c.serial++
	for key, r := range st.routes {
		old := c.routes[key]
		if old != nil {
			c.graves.add(old.born, c.serial, old.close)
			for _, d := range old.deps {
				delete(c.users[d], key)
				if len(c.users[d]) == 0 {
					delete(c.users, d)
				}
			}
		}
		if r == nil {
			delete(c.routes, key)
			delete(c.order, key)
			continue
		}
		r.born = c.serial
		c.routes[key] = r
		for _, d := range r.deps {
			if c.users[d] == nil {
				c.users[d] = map[string]bool{}
			}
			c.users[d][key] = true
		}
	}
	for key, o := range st.order {
		if c.routes[key] != nil {
			c.order[key] = o
		}
	}
	for owner, parts := range st.state {
		if c.state[owner] == nil {
			c.state[owner] = map[string]any{}
		}
		maps.Copy(c.state[owner], parts)
	}
	for key, s := range st.upstreams {
		if old := c.upstreams[key]; old != nil {
			c.graves.add(old.born, c.serial, old.Close)
		}
		if s == nil {
			delete(c.upstreams, key)
			continue
		}
		s.born = c.serial
		c.upstreams[key] = s
	}
	for key, doc := range st.edits {
		if doc == nil {
			delete(c.state, key)
		}
	}
	c.table = st.table
	c.live.publish(&Snapshot{Revision: revision, table: c.table, serial: c.serial})
	c.graves.bury(before)
	for _, r := range st.routes {
		if r != nil {
			r.run()
		}
	}
}

// Collect closes what no exchange uses any more and returns how many former snapshots still have readers. Closing may take its
// time, so each piece goes through run.
func (c *Compiler) Collect(run func(func())) (pending int) {
	for _, f := range c.graves.collect() {
		run(f)
	}
	return len(c.graves.former)
}

// Close closes everything that the live snapshot uses. No exchange may be running.
func (c *Compiler) Close() {
	for _, r := range c.routes {
		r.close()
	}
	for _, s := range c.upstreams {
		s.Close()
	}
	for _, f := range c.graves.retirees {
		f.close()
	}
}

// CheckPlugin validates one plugin configuration (contract section 1.6). conf is decoded JSON.
func (c *Compiler) CheckPlugin(name string, conf any) error {
	k := c.kinds[name]
	if k == nil {
		return errors.New("unknown plugin [" + name + "]")
	}
	if err := k.schema.Validate(withoutMeta(conf)); err != nil {
		return err
	}
	if k.Validate == nil {
		return nil
	}
	raw, err := resource.Encode(conf)
	if err != nil {
		return err
	}
	return k.Validate(raw)
}

// KnownPlugin says whether there is a plugin called name.
func (c *Compiler) KnownPlugin(name string) bool { return c.kinds[name] != nil }

// withoutMeta leaves out _meta, which the compiler handles and no plugin's schema knows.
func withoutMeta(conf any) any {
	m, ok := conf.(map[string]any)
	if !ok {
		return conf
	}
	if _, has := m["_meta"]; !has {
		return conf
	}
	plain := make(map[string]any, len(m))
	for k, v := range m {
		if k != "_meta" {
			plain[k] = v
		}
	}
	return plain
}
