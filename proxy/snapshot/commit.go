package snapshot

import (
	"maps"
	"slices"
	"strings"
)

// Commit publishes the stage: from when it returns, every exchange that begins runs on it. revision is the store's.
func (st *Stage) Commit(revision uint64) {
	c := st.c
	before := c.live.Current()
	c.serial++
	c.routes, c.deps = roomFor(c.routes, len(st.routes)), roomFor(c.deps, len(st.routes))
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
	st.commitConsumers()
	st.commitFolders()
	for _, key := range st.forget {
		delete(c.left, key)
	}
	for key, doc := range st.left {
		c.left[key] = doc
		if unit := unitOf(key); unit == key {
			c.depend(key, append(slices.Clone(st.deps[key]), c.deps[key]...)) // the version in force has its own
		}
	}
	for key, s := range st.upstreams {
		c.depend(key, st.deps[key]) // on the certificate that its connections show
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
	st.commitCertificates()
	c.table, c.registry = st.table, st.registry.final()
	next := &Snapshot{Revision: revision, table: c.table, registry: c.registry, certificates: c.certificates, serial: c.serial}
	if c.globals != nil {
		next.global = c.globals.Chain
	}
	c.live.publish(next)
	c.graves.bury(before)
	if len(removed) > 0 {
		c.opt.Meter.ForgetRoutes(removed, c.unused(labels))
	}
	for key, s := range st.upstreams {
		if s != nil {
			s.Publish(key)
		}
	}
	for _, p := range st.parts() {
		p.run()
	}
}

// roomFor returns m, or a copy of it when by more would make it grow step by step.
func roomFor[V any](m map[string]V, by int) map[string]V {
	if by <= 2*len(m)+fewAtOnce {
		return m
	}
	roomy := make(map[string]V, len(m)+by)
	maps.Copy(roomy, m)
	return roomy
}

// parts are what the stage has compiled.
func (st *Stage) parts() (list []*part) {
	for _, r := range st.routes {
		if r != nil {
			list = append(list, &r.part)
		}
	}
	for _, c := range st.consumers {
		if c != nil {
			list = append(list, &c.part)
		}
	}
	for _, g := range st.groups {
		if g != nil {
			list = append(list, &g.part)
		}
	}
	if st.globals != nil {
		list = append(list, &st.globals.part)
	}
	return list
}

// exchange takes note that the part before is not in force any more and after is; either may be nil.
func (c *Compiler) exchange(before, after *part) {
	if before != nil {
		before.retire()
		c.graves.add(before.born, c.serial, before.close)
		for _, s := range before.uses {
			c.release(s, 1)
		}
	}
	if after != nil {
		after.born = c.serial
		for _, s := range after.uses {
			s.routes++
		}
	}
}

func (st *Stage) commitConsumers() {
	c := st.c
	for key, g := range st.groups {
		var before, after *part
		if old := c.groups[key]; old != nil {
			before = &old.part
		}
		delete(c.groups, key)
		if g != nil {
			after, c.groups[key] = &g.part, g
		}
		c.commitUnit(key, before, after, st.deps[key])
	}
	for key, next := range st.consumers {
		var before, after *part
		if old := c.consumers[key]; old != nil {
			before = &old.part
		}
		delete(c.consumers, key)
		if next != nil {
			after, c.consumers[key] = &next.part, next
		}
		c.commitUnit(key, before, after, st.deps[key])
	}
	if st.globals != nil {
		var before *part
		if c.globals != nil {
			before = &c.globals.part
		}
		c.globals = st.globals
		c.commitUnit(globalUnit, before, &st.globals.part, st.deps[globalUnit])
	}
}

// commitUnit puts after in the place of before.
func (c *Compiler) commitUnit(key string, before, after *part, deps []string) {
	c.exchange(before, after)
	delete(c.left, key)
	if after == nil {
		deps = nil
	}
	c.depend(key, deps)
}

// commitFolders takes note of which documents there are that are compiled together with others. Those that were tried are not left out
// any more, unless st.left says so again.
func (st *Stage) commitFolders() {
	c := st.c
	for key, doc := range st.edits {
		folder, listed := folderOf(key)
		if !listed {
			continue
		}
		delete(c.left, key)
		if doc == nil {
			if delete(c.folders[folder], key); len(c.folders[folder]) == 0 {
				delete(c.folders, folder)
			}
			continue
		}
		if c.folders[folder] == nil {
			c.folders[folder] = map[string]bool{}
		}
		c.folders[folder][key] = true
	}
	for _, key := range st.Recovered {
		delete(c.left, key)
	}
}

// commitRoute puts r in the place of the route key; nil removes it.
func (st *Stage) commitRoute(key string, r *Route) {
	c := st.c
	var before, after *part
	if old := c.routes[key]; old != nil {
		before = &old.part
		c.count(old.Name, -1)
	}
	if r != nil {
		c.count(r.Name, 1)
	}
	if r == nil {
		delete(c.routes, key)
	} else {
		after, c.routes[key] = &r.part, r
	}
	if delete(c.hidden, key); r != nil && !r.listed {
		c.hidden[key] = r
	}
	c.commitUnit(key, before, after, st.deps[key])
}

// unused returns those of labels that have series and that no route in force can have, whether as its id or, with prefer_name, as its
// name.
func (c *Compiler) unused(labels []string) []string {
	var free []string
	slices.Sort(labels)
	for _, l := range slices.Compact(labels) {
		if c.routes["routes/"+l] == nil && c.names[l] == 0 && c.opt.Meter.Recorded(l) {
			free = append(free, l)
		}
	}
	return free
}

// count takes note that by routes more have the name.
func (c *Compiler) count(name string, by int) {
	if name == "" {
		return
	}
	if c.names[name] += by; c.names[name] == 0 {
		delete(c.names, name)
	}
}

// release takes note that n routes less use s.
func (c *Compiler) release(s *shared, n int) {
	if s.routes -= n; s.routes == 0 && s.replaced {
		s.Withdraw()
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
	for key, next := range st.consumers {
		if next != nil {
			delete(c.state, key)
		}
	}
	for key, g := range st.groups {
		if g != nil {
			delete(c.state, key)
		}
	}
	if st.globals != nil {
		for key := range c.folders[globalUnit] {
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
