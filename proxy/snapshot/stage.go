package snapshot

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"

	"headgate/conf/resource"
	"headgate/proxy/route"
	"headgate/proxy/upstream"
)

// Edit is the next state of one document; a nil Value deletes it.
type Edit struct {
	Key   string
	Value []byte
}

// Lookup returns the document in force under key, nil when there is none.
type Lookup func(key string) []byte

// Problem is a document that was left out of a Stage, with the reason.
type Problem struct {
	Key string
	Err error
}

// Stage is a compiled change that is not in force yet.
type Stage struct {
	// Problems are what was left out, each key once.
	Problems []Problem
	// Recovered are routes that had been left out and whose latest document is in force from Commit on.
	Recovered []string

	c         *Compiler
	docs      Lookup
	lenient   bool
	edits     map[string][]byte
	routes    map[string]*Route // nil = removed
	upstreams map[string]*shared
	deps      map[string][]string // of every route that was compiled or left out
	table     *route.Table[*Route]
	order     map[string]uint64
	state     map[string]map[string]any
	left      map[string][]byte // see Compiler.left
}

// Stage compiles edits of the documents that docs shows. Everything that depends on an edited document is compiled anew, all else is
// shared. With lenient set, what does not compile is left out and reported, as for documents that arrive from a store, and what was
// in force under its key stays; otherwise the first such document refuses the whole change and nothing has happened. Routes that
// had been left out before are tried again when something that they depend on is edited. As they were broken before, they never
// refuse a change.
func (c *Compiler) Stage(docs Lookup, edits []Edit, lenient bool) (*Stage, error) {
	st := &Stage{
		c: c, docs: docs, lenient: lenient, edits: make(map[string][]byte, len(edits)), routes: map[string]*Route{},
		upstreams: map[string]*shared{}, deps: map[string][]string{}, order: map[string]uint64{}, state: map[string]map[string]any{}, left: map[string][]byte{},
	}
	for _, e := range edits {
		st.edits[e.Key] = e.Value
	}
	if err := st.compile(); err != nil {
		st.Discard()
		return nil, err
	}
	return st, nil
}

func (st *Stage) compile() error {
	// Sorted, because equals are ordered by key when they are loaded together (contract section 2.2), and to make one and the same
	// mistake of several be told every time.
	for _, key := range slices.Sorted(maps.Keys(st.edits)) {
		if err := st.compileShared(key, st.edits[key]); err != nil {
			if !st.lenient {
				return err
			}
			delete(st.edits, key) // routes that refer to it go on with the version in force
			st.Problems = append(st.Problems, Problem{key, err})
		}
	}
	keys := st.affected()
	remove := make([]string, 0, len(keys))
	put := make([]route.Rule[*Route], 0, len(keys))
	for _, key := range keys {
		r, err := st.compileKey(key)
		switch {
		case err != nil:
			return err
		case r == nil && st.keeps(key):
			continue
		case r != nil && r.listed:
			put = append(put, r.rule)
		default:
			remove = append(remove, key)
		}
		st.routes[key] = r
	}
	var err error
	st.table, err = st.c.table.With(remove, put)
	return err
}

// compileKey compiles the route key as it is to be from now on. It returns nil when the route is removed, or left out and what is in
// force under its key stays as it is.
func (st *Stage) compileKey(key string) (*Route, error) {
	doc, edited := st.edits[key]
	retried := false
	if !edited {
		if doc, retried = st.c.left[key]; !retried {
			doc = st.docs(key)
		}
	}
	if doc == nil {
		return nil, nil
	}
	r, err := st.compileRoute(key, doc)
	if err == nil {
		if retried {
			st.Recovered = append(st.Recovered, key)
		}
		return r, nil
	}
	if !st.lenient && !retried {
		return nil, err
	}
	st.Problems = append(st.Problems, Problem{key, err})
	st.left[key] = doc
	// The version in force stays, but it has to follow what it depends on.
	stands := st.docs(key)
	if stands == nil || bytes.Equal(stands, doc) || !slices.ContainsFunc(st.c.deps[key], func(d string) bool { _, e := st.edits[d]; return e }) {
		return nil, nil
	}
	if r, err = st.compileRoute(key, stands); err != nil {
		return nil, nil
	}
	return r, nil
}

// keeps says whether the route key was left out, so that it stays as it is.
func (st *Stage) keeps(key string) bool {
	_, left := st.left[key]
	return left
}

// affected returns the keys of the routes to compile, sorted.
func (st *Stage) affected() []string {
	set := map[string]bool{}
	for key := range st.edits {
		if strings.HasPrefix(key, "routes/") {
			set[key] = true
		}
		for r := range st.c.users[key] {
			set[r] = true
		}
	}
	return slices.Sorted(maps.Keys(set))
}

// compileShared compiles the upstream that an edited upstream or service document holds.
func (st *Stage) compileShared(key string, value []byte) error {
	var doc *resource.Upstream
	var name string
	section, id, _ := strings.Cut(key, "/")
	switch {
	case section != "upstreams" && section != "services":
		return nil
	case value == nil:
	case section == "upstreams":
		u, err := resource.DecodeUpstream(value)
		if err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
		doc, name = u, id
	default:
		s, err := resource.DecodeService(value)
		if err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
		doc, name = s.Upstream, defaultBranch
	}
	if doc == nil {
		st.upstreams[key] = nil
		return nil
	}
	if doc.Name != "" {
		name = doc.Name
	}
	var prev *upstream.Upstream
	if s := st.c.upstreams[key]; s != nil {
		prev = s.Upstream
	}
	u, err := upstream.Compile(st.c.opt.Hub, doc, name, st.c.opt.Defaults, prev)
	if err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	st.upstreams[key] = &shared{Upstream: u}
	return nil
}

// get returns a document as it will be after the change, nil when there will be none.
func (st *Stage) get(key string) []byte {
	if doc, edited := st.edits[key]; edited {
		return doc
	}
	return st.docs(key)
}

// shared returns the upstream that the document key holds, as it will be after the change, nil when there will be none.
func (st *Stage) shared(key string) *shared {
	if s, edited := st.upstreams[key]; edited {
		return s
	}
	return st.c.upstreams[key]
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
	st.routes, st.upstreams = nil, nil
}

// Commit publishes the stage: from when it returns, every exchange that begins runs on it. revision is the store's.
func (st *Stage) Commit(revision uint64) {
	c := st.c
	before := c.live.Current()
	c.serial++
	var removed, labels []string // ids, and what the label route of their series may be
	for key, r := range st.routes {
		if r == nil {
			_, id, _ := strings.Cut(key, "/")
			removed, labels = append(removed, id), append(labels, id)
			if old := c.routes[key]; old != nil && old.Name != "" {
				labels = append(labels, old.Name)
			}
		}
		st.commitRoute(key, r)
	}
	for key, doc := range st.left {
		c.left[key] = doc
		c.depend(key, append(slices.Clone(st.deps[key]), c.deps[key]...)) // the version in force has its own
	}
	for key, s := range st.upstreams {
		if old := c.upstreams[key]; old != nil {
			old.replaced = true
			c.release(old, 0)
		}
		if s == nil {
			delete(c.upstreams, key)
			continue
		}
		s.born = c.serial
		c.upstreams[key] = s
	}
	st.commitState()
	c.table = st.table
	c.live.publish(&Snapshot{Revision: revision, table: c.table, serial: c.serial})
	c.graves.bury(before)
	if len(removed) > 0 {
		c.opt.Meter.ForgetRoutes(removed, c.unused(labels))
	}
	for _, r := range st.routes {
		if r != nil {
			r.run()
		}
	}
}

// commitRoute puts r in the place of the route key; nil removes it.
func (st *Stage) commitRoute(key string, r *Route) {
	c := st.c
	if old := c.routes[key]; old != nil {
		c.graves.add(old.born, c.serial, old.close)
		for _, s := range old.uses {
			c.release(s, 1)
		}
	}
	delete(c.left, key)
	if r == nil {
		delete(c.routes, key)
		delete(c.order, key)
		c.depend(key, nil)
		return
	}
	r.born = c.serial
	c.routes[key] = r
	c.order[key] = st.order[key]
	c.depend(key, st.deps[key])
	for _, s := range r.uses {
		s.routes++
	}
}

// unused returns those of labels that have series and that no route in force can have, whether as its id or, with prefer_name, as its
// name. Only a label with series is worth the walk through the names.
func (c *Compiler) unused(labels []string) []string {
	free := make(map[string]bool, len(labels))
	for _, l := range labels {
		if c.routes["routes/"+l] == nil && c.opt.Meter.Recorded(l) {
			free[l] = true
		}
	}
	if len(free) == 0 {
		return nil
	}
	for _, r := range c.routes {
		if r.Name != "" {
			delete(free, r.Name)
		}
	}
	return slices.Collect(maps.Keys(free))
}

// release takes note that n routes less use s.
func (c *Compiler) release(s *shared, n int) {
	if s.routes -= n; s.routes == 0 && s.replaced {
		c.graves.add(s.born, c.serial, s.Close)
	}
}

// depend makes deps what the route key depends on.
func (c *Compiler) depend(key string, deps []string) {
	for _, d := range c.deps[key] {
		delete(c.users[d], key)
		if len(c.users[d]) == 0 {
			delete(c.users, d)
		}
	}
	if len(deps) == 0 {
		delete(c.deps, key)
		return
	}
	slices.Sort(deps)
	c.deps[key] = slices.Compact(deps)
	for _, d := range c.deps[key] {
		if c.users[d] == nil {
			c.users[d] = map[string]bool{}
		}
		c.users[d][key] = true
	}
}

// commitState makes what the plugins keep by identity the state of before of the next change. A document that was compiled as a whole
// has what its plugins asked for, and no more; a service of which only some routes were compiled keeps the rest.
func (st *Stage) commitState() {
	c := st.c
	for key, r := range st.routes {
		if r != nil {
			delete(c.state, key)
		}
	}
	for key, doc := range st.edits {
		if doc == nil || len(st.Problems) == 0 {
			delete(c.state, key)
		}
	}
	for owner, parts := range st.state {
		if c.state[owner] == nil {
			c.state[owner] = parts
		} else {
			maps.Copy(c.state[owner], parts)
		}
	}
}
