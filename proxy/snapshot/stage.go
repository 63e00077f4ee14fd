package snapshot

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"

	"headgate/conf/resource"
	"headgate/proxy/route"
	"headgate/proxy/upstream"
)

// Edit is the next state of one document; a nil Value deletes it.
type Edit struct {
	Key   string
	Value []byte
	// Since is when the document was stored first, see Compiler.OrderBy; of one that is not stored yet it is NotStored.
	Since uint64
	// Check, when not nil, has the first word on the decoded Value of the route Key, which it must not change. It may be called by several
	// goroutines at a time. What it refuses is left out as what does not compile is, but is not tried again.
	Check func(key string, doc map[string]any) error
}

// NotStored is the Since of a document that comes after all that are stored. Stage.Stored tells when it was stored after all.
const NotStored = math.MaxUint64

// Lookup returns the document in force under key, nil when there is none.
type Lookup func(key string) []byte

// Problem is a document that was left out of a Stage, or that refused it, with the reason.
type Problem struct {
	Key string
	Err error
}

func (p *Problem) Error() string { return p.Err.Error() }

// Unwrap returns the reason.
func (p *Problem) Unwrap() error { return p.Err }

// Stage is a compiled change that is not in force yet.
type Stage struct {
	// Problems are what was left out, each key once.
	Problems []Problem
	// Recovered are documents that had been left out and are in force from Commit on.
	Recovered []string
	// Dropped are documents that were in force and are not from Commit on, because an older one has what they claim. They are among the
	// Problems.
	Dropped []string
	// Shadowed says, by key, of which global rules a part does not run although they are in force; nil when that is as it was.
	Shadowed map[string]error
	// Warnings are about what is in force and will not do what its author may expect.
	Warnings []string

	c    *Compiler
	docs Lookup
	// mu guards what routes that are compiled side by side share: deps, inert, Warnings. sharing does so for state and joined.
	mu, sharing sync.Mutex
	lenient     bool
	edits       map[string][]byte
	born        map[string]uint64                                     // Since, of edits that may claim something, and of routes
	folders     map[string][]string                                   // keys of edits that are compiled together with their siblings
	checks      map[string]func(key string, doc map[string]any) error // of edits
	routes      map[string]*Route                                     // nil = removed, as in the following
	consumers   map[string]*consumer
	groups      map[string]*group
	globals     *globals // nil = unchanged
	upstreams   map[string]*shared
	deps        map[string][]string // of every unit that was compiled or left out
	table       *route.Table[*Route]
	registry    registry
	state       map[string]map[string]any
	joined      map[string]bool            // parts of state that more than one unit asked for
	left        map[string][]byte          // see Compiler.left
	forget      []string                   // keys that are not left out any more, although nothing of them is in force
	inert       map[string]map[string]bool // plugin that does not run -> keys of the documents that configure it

	certs        map[string]*Certificate
	certificates certificates
	shown        []string // shared upstreams that are compiled anew because of the certificate that they show
}

// Stage compiles edits of the documents that docs shows. Everything that depends on an edited document is compiled anew, all else is
// shared. With lenient set, what does not compile is left out and reported, as for documents that arrive from a store, and what was
// in force under its key stays; otherwise the first such document refuses the whole change and nothing has happened. What had been
// left out before is tried again when something that it depends on is edited. As it was broken before, it never refuses a change.
func (c *Compiler) Stage(docs Lookup, edits []Edit, lenient bool) (*Stage, error) {
	st := &Stage{
		c: c, docs: docs, lenient: lenient, edits: make(map[string][]byte, len(edits)), born: map[string]uint64{}, routes: make(map[string]*Route, len(edits)),
		consumers: map[string]*consumer{}, groups: map[string]*group{}, upstreams: map[string]*shared{}, deps: make(map[string][]string, len(edits)),
		registry: c.registry.draft(), certs: map[string]*Certificate{}, certificates: c.certificates, state: map[string]map[string]any{}, left: map[string][]byte{},
	}
	for _, e := range edits {
		st.edits[e.Key] = e.Value
		if e.Since != 0 && (mayClaim(e.Key) || isRoute(e.Key)) {
			st.born[e.Key] = e.Since
		}
		if folder, listed := folderOf(e.Key); listed {
			if st.folders == nil {
				st.folders = map[string][]string{}
			}
			st.folders[folder] = append(st.folders[folder], e.Key)
		}
		if e.Check != nil {
			if st.checks == nil {
				st.checks = make(map[string]func(string, map[string]any) error, len(edits))
			}
			st.checks[e.Key] = e.Check
		}
	}
	if err := st.compile(); err != nil {
		st.Discard()
		return nil, err
	}
	return st, nil
}

// passOver takes note that the document owner configures a plugin that does not run.
func (st *Stage) passOver(plugin, owner string) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.inert == nil {
		st.inert = map[string]map[string]bool{}
	}
	if st.inert[plugin] == nil {
		st.inert[plugin] = map[string]bool{}
	}
	st.inert[plugin][owner] = true
}

// maxNamed bounds how many documents one warning names.
const maxNamed = 10

// warnOfInert adds a warning for every plugin that was passed over.
func (st *Stage) warnOfInert() {
	for _, plugin := range slices.Sorted(maps.Keys(st.inert)) {
		owners := slices.Sorted(maps.Keys(st.inert[plugin]))
		more := ""
		if len(owners) > maxNamed {
			more = fmt.Sprintf(" and %d more", len(owners)-maxNamed)
			owners = owners[:maxNamed]
		}
		st.Warnings = append(st.Warnings, fmt.Sprintf("plugin %s is configured in %s%s and does not run here (compat.accept_inert)",
			plugin, strings.Join(owners, ", "), more))
	}
}

func (st *Stage) compile() error {
	if err := st.stageCertificates(); err != nil {
		return err
	}
	// Sorted, to make one and the same mistake of several be told every time.
	for _, key := range sortedKeys(st.edits) {
		if err := st.compileShared(key, st.edits[key]); err != nil {
			if !st.lenient {
				return &Problem{key, err}
			}
			delete(st.edits, key) // routes that refer to it go on with the version in force
			st.Problems = append(st.Problems, Problem{key, err})
		}
	}
	if err := st.stageShown(); err != nil {
		return err
	}
	u := st.affected()
	for _, key := range u.groups {
		if err := st.stageGroup(key); err != nil {
			return err
		}
	}
	if err := st.stageConsumers(u.consumers); err != nil {
		return err
	}
	if u.globals {
		var err error
		if st.globals, err = st.compileGlobals(); err != nil {
			return err
		}
	}
	if err := st.stageRoutes(u.routes); err != nil {
		return err
	}
	// What compiled and was taken back has not recovered.
	st.Recovered = slices.DeleteFunc(st.Recovered, func(key string) bool { _, left := st.left[key]; return left })
	st.warnOfInert()
	return nil
}

// isRoute says whether the document key is one.
func isRoute(key string) bool { return strings.HasPrefix(key, "routes/") }

// Stored tells that the document key, whose Edit said NotStored, was stored at since, which is later than all that the stage knows of. It
// comes before Commit, and costs no more than a look-up: among routes that the router tries in the order in which they were stored, this one
// stays the last.
func (st *Stage) Stored(key string, since uint64) {
	r := st.routes[key]
	if r == nil || r.rule.Order != NotStored {
		return
	}
	r.rule.Order = since
	if r.listed {
		st.table.SetOrder(key, since)
	}
}

// stageRoutes compiles routes. Of routes that are equal to the router that comes first which was stored first, of those that were stored
// together the one whose key comes first (contract section 2.2): that follows from what is stored alone, so that all gateways on a store
// agree, whenever they have learned of them.
func (st *Stage) stageRoutes(keys []string) error {
	orders := make([]uint64, len(keys))
	for i, key := range keys {
		old := st.c.routes[key]
		if _, edited := st.edits[key]; old != nil && !edited {
			orders[i] = old.rule.Order
		} else {
			orders[i] = st.since(key)
		}
	}
	warned := len(st.Warnings)
	tries := make([]try[Route], len(keys))
	Parallel(len(keys), func(i int) {
		check := st.checks[keys[i]]
		tries[i] = attempt(st, keys[i], false, func(raw []byte) (*Route, error) {
			r, err := st.compileRoute(keys[i], raw, orders[i], check)
			check = nil // it is about the latest version, which comes first
			return r, err
		})
	})
	slices.Sort(st.Warnings[warned:])
	remove := make([]string, 0, len(keys))
	put := make([]route.Rule[*Route], 0, len(keys))
	var refused error
	for i, key := range keys {
		keep, err := tries[i].settle(st, key)
		if refused == nil {
			refused = err
		}
		r := tries[i].unit
		switch {
		case keep || err != nil:
			continue
		case r != nil && r.listed:
			put = append(put, r.rule)
		default:
			remove = append(remove, key)
		}
		st.routes[key] = r
	}
	if refused != nil {
		return refused
	}
	var err error
	st.table, err = st.c.table.With(remove, put)
	return err
}

func (st *Stage) stageGroup(key string) error {
	g, keep, err := settle(st, key, false, func(raw []byte) (*group, error) { return st.compileGroup(key, raw) })
	if err != nil || keep {
		return err
	}
	st.groups[key] = g
	if g == nil {
		_, id, _ := strings.Cut(key, "/")
		st.registry.groups = st.registry.groups.without(id)
		return nil
	}
	st.registry.groups = st.registry.groups.with(g.id, g)
	return nil
}

// stageConsumers compiles consumers, and settles who of them and of those in force shows what.
func (st *Stage) stageConsumers(keys []string) error {
	ct := contest{st: st, tried: make(map[string]*consumer, len(keys)), gone: map[string]*credential{}}
	for todo := keys; len(todo) > 0; todo = ct.run() {
		for _, key := range todo {
			c, keep, err := settle(st, key, true, func(raw []byte) (*consumer, error) { return st.compileConsumer(key, raw) })
			if err != nil {
				return err
			}
			if keep {
				c = st.c.consumers[key]
			} else if c != nil {
				st.consumers[key] = c // so that Discard closes it
			}
			ct.tried[key] = c
		}
	}
	if !st.lenient {
		if err := ct.objection(); err != nil {
			return err
		}
	}
	ct.apply()
	return nil
}

// latest returns the document key as it is to be from now on, nil when there is none. retried says that it was left out before and is
// not edited.
func (st *Stage) latest(key string) (doc []byte, retried bool) {
	doc, edited := st.edits[key]
	if edited {
		return doc, false
	}
	if doc, retried = st.c.left[key]; retried {
		return doc, true
	}
	return st.docs(key), false
}

// try is what became of the latest version of a document.
type try[U any] struct {
	unit    *U     // nil: the document is gone, or nothing of it compiles
	doc     []byte // the latest version
	retried bool   // see latest
	err     error  // why the latest version does not compile; unit is then made of the version in force, if of any
}

// refusal is the error of an Edit's Check.
type refusal struct{ error }

func (r refusal) Unwrap() error { return r.error }

// attempt compiles the latest version of the document key. Does it not compile, then the version in force has to follow what it depends
// on: it is compiled anew when that is edited, or, with follow, in any case.
func attempt[U any](st *Stage, key string, follow bool, compile func(raw []byte) (*U, error)) (t try[U]) {
	t.doc, t.retried = st.latest(key)
	if t.doc == nil {
		return t
	}
	if t.unit, t.err = compile(t.doc); t.err == nil || !st.lenient && !t.retried {
		return t
	}
	stands := st.docs(key)
	follow = follow || slices.ContainsFunc(st.c.deps[key], func(d string) bool { _, e := st.edits[d]; return e })
	if stands != nil && !bytes.Equal(stands, t.doc) && follow {
		t.unit, _ = compile(stands) // nil after an error
	}
	return t
}

// settle takes note of how the attempt ended. keep says that the document was left out, and that what is in force under its key stays.
func (t *try[U]) settle(st *Stage, key string) (keep bool, err error) {
	switch {
	case t.doc == nil:
	case t.err == nil:
		if t.retried {
			st.Recovered = append(st.Recovered, key)
		}
	case !st.lenient && !t.retried:
		return false, &Problem{key, t.err}
	default:
		var refused refusal
		if errors.As(t.err, &refused) {
			st.Problems = append(st.Problems, Problem{key, refused.error})
			st.forget = append(st.forget, key)
		} else {
			st.leaveOut(key, t.doc, t.err)
		}
		return t.unit == nil, nil
	}
	return false, nil
}

// settle compiles the latest version of the document key. nil means that the document is gone, or, with keep, that it was left out and
// what is in force under its key stays as it is. See attempt for the rest.
func settle[U any](st *Stage, key string, follow bool, compile func(raw []byte) (*U, error)) (u *U, keep bool, err error) {
	t := attempt(st, key, follow, compile)
	keep, err = t.settle(st, key)
	return t.unit, keep, err
}

func (st *Stage) leaveOut(key string, doc []byte, err error) {
	st.Problems = append(st.Problems, Problem{key, err})
	st.left[key] = doc
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
	st.clientCertificate(doc, key)
	var prev *upstream.Upstream
	if s := st.c.upstreams[key]; s != nil {
		prev = s.Upstream
	}
	u, err := upstream.Compile(st.c.opt.Hub, doc, name, st.c.opt.Defaults, prev)
	if err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	st.upstreams[key] = &shared{Upstream: u, key: key}
	st.warnUseless(key, u)
	return nil
}

// warnUseless warns of an upstream that is accepted and can serve nobody, or not as it says.
func (st *Stage) warnUseless(key string, u *upstream.Upstream) {
	if flaw := u.Flaw(); flaw != "" {
		st.warn("%s: %s; it is accepted all the same (compat.unknown_balancers, compat.unserved_schemes)", key, flaw)
	}
	if u.Undiscovered() {
		st.warn("%s: its nodes are left to a discovery that is not configured here, so it has none (compat.undiscovered_upstreams)", key)
	}
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
	for _, p := range st.parts() {
		p.close()
	}
	for _, s := range st.upstreams {
		if s != nil {
			s.Close()
		}
	}
	st.routes, st.consumers, st.groups, st.globals, st.upstreams = nil, nil, nil, nil, nil
}
