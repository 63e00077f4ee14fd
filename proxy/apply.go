package proxy

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"headgate/conf/resource"
	"headgate/conf/schema"
	"headgate/conf/store"
	"headgate/proxy/meter"
	"headgate/proxy/offload"
	"headgate/proxy/phase"
	"headgate/proxy/snapshot"
)

// Applier is the config path: one goroutine, one mailbox. Every change, wherever it comes from, is decoded, validated, compiled beside
// the running configuration, saved, and published, in this order; what fails on the way has changed nothing.
type Applier struct {
	compiler *snapshot.Compiler
	store    store.Store
	offload  *offload.Pool
	logf     func(format string, args ...any)

	mailbox chan func()
	stop    context.CancelFunc
	done    chan struct{}

	mu       sync.RWMutex // guards what Get and List read; only the config goroutine writes
	docs     map[string]store.Item
	inline   map[string]bool // keys that come from the TOML file
	revision uint64

	changes map[string]*meter.Counter
	pending int
}

// ApplierOptions are what the config path works with.
type ApplierOptions struct {
	Compiler *snapshot.Compiler
	Store    store.Store
	Offload  *offload.Pool
	Meter    *meter.Registry
	Logf     func(format string, args ...any)
	// Inline are the resources of the TOML file, by key.
	Inline map[string][]byte
}

// collectEvery is how often former snapshots are looked at for readers that have left.
const collectEvery = 50 * time.Millisecond

// StartApplier loads the store and the inline resources, publishes them, and follows the store from there. Inline resources must be
// right; a stored document that cannot be used is logged and left out.
func StartApplier(ctx context.Context, o ApplierOptions) (*Applier, error) {
	a := &Applier{
		compiler: o.Compiler, store: o.Store, offload: o.Offload, logf: o.Logf,
		mailbox: make(chan func()), done: make(chan struct{}),
		docs: map[string]store.Item{}, inline: map[string]bool{}, changes: map[string]*meter.Counter{},
	}
	for _, result := range []string{applied, refused, failed} {
		a.changes[result] = o.Meter.Counter(meter.ConfigChanges, meter.Label{Name: "result", Value: result})
	}
	o.Meter.Gauge(meter.ConfigRevision, func() float64 { return float64(a.Revision()) })
	o.Meter.Gauge(meter.SnapshotPending, func() float64 {
		a.mu.RLock()
		defer a.mu.RUnlock()
		return float64(a.pending)
	})
	items, revision, err := o.Store.List(ctx)
	if err != nil {
		return nil, fmt.Errorf("reading the store: %w", err)
	}
	if err := a.load(items, revision, o.Inline); err != nil {
		return nil, err
	}
	run, cancel := context.WithCancel(context.Background())
	a.stop = cancel
	events, err := o.Store.Watch(run, revision)
	if err != nil {
		cancel()
		return nil, fmt.Errorf("watching the store: %w", err)
	}
	go a.run(run, events)
	return a, nil
}

// Results of a change, as metrics name them.
const (
	applied = "applied"
	refused = "refused"
	failed  = "failed"
)

// run is the config goroutine.
func (a *Applier) run(ctx context.Context, events <-chan store.Event) {
	defer close(a.done)
	tick := time.NewTicker(collectEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case f := <-a.mailbox:
			f()
		case e, ok := <-events:
			if !ok {
				events = nil // the store is being closed
				continue
			}
			a.follow(e)
		case <-tick.C:
			pending := a.compiler.Collect(a.offload.Do)
			a.mu.Lock()
			a.pending = pending
			a.mu.Unlock()
		}
	}
}

// Close stops the config goroutine. The last snapshot stays in force.
func (a *Applier) Close() {
	a.stop()
	<-a.done
}

// submit runs f on the config goroutine and waits for it.
func (a *Applier) submit(ctx context.Context, f func()) error {
	finished := make(chan struct{})
	select {
	case a.mailbox <- func() { defer close(finished); f() }:
		<-finished // once begun, a change is carried to its end
		return nil
	case <-a.done:
		return fmt.Errorf("%w: shutting down", store.ErrUnavailable)
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", store.ErrUnavailable, ctx.Err())
	}
}

// Apply implements Plane.
func (a *Applier) Apply(ctx context.Context, c Change) (r Result, err error) {
	if e := a.submit(ctx, func() { r, err = a.apply(ctx, c) }); e != nil {
		err = e
	}
	var refusal *resource.Error
	switch {
	case err == nil:
		a.changes[applied].Inc()
	case errors.As(err, &refusal):
		a.changes[refused].Inc()
	default:
		a.changes[failed].Inc()
	}
	return r, err
}

func (a *Applier) apply(ctx context.Context, c Change) (Result, error) {
	if why := a.ReadOnly(c.Key); why != "" {
		return Result{}, resource.Invalid(why)
	}
	var old *store.Item
	if item, ok := a.docs[c.Key]; ok {
		old = &item
	}
	next, err := c.Edit(old)
	if err != nil {
		return Result{}, err
	}
	if next == nil {
		return a.delete(ctx, c, old)
	}
	kind, id, err := splitKey(c.Key)
	if err != nil {
		return Result{}, err
	}
	if err := a.validate(kind, id, next, a.exists); err != nil {
		return Result{}, err
	}
	st, err := a.compiler.Stage(a.published, []snapshot.Edit{{Key: c.Key, Value: next}}, false)
	if err != nil {
		return Result{}, resource.Invalid(err.Error())
	}
	condition := store.Absent
	if old != nil {
		condition = old.ModRevision
	}
	var expires time.Time
	if c.TTL > 0 {
		expires = time.Now().Add(c.TTL)
	}
	item, err := a.store.Put(ctx, c.Key, next, condition, expires)
	if err != nil {
		st.Discard()
		return Result{}, err
	}
	a.commit(st, item.ModRevision, func() { a.docs[c.Key] = item })
	return Result{Item: item, Old: old, Revision: item.ModRevision}, nil
}

func (a *Applier) delete(ctx context.Context, c Change, old *store.Item) (Result, error) {
	if old == nil {
		return Result{}, resource.KeyNotFound()
	}
	kind, id, err := splitKey(c.Key)
	if err != nil {
		return Result{}, err
	}
	if !c.Force {
		if err := resource.CheckUnused(kind, id, docsView{a}); err != nil {
			return Result{}, err
		}
	}
	st, err := a.compiler.Stage(a.published, []snapshot.Edit{{Key: c.Key}}, false)
	if err != nil {
		return Result{}, resource.Invalid(err.Error())
	}
	revision, err := a.store.Delete(ctx, c.Key, old.ModRevision)
	if err != nil {
		st.Discard()
		return Result{}, err
	}
	a.commit(st, revision, func() { delete(a.docs, c.Key) })
	return Result{Item: store.Item{Key: c.Key, ModRevision: revision}, Old: old, Revision: revision}, nil
}

// commit publishes st and shows the documents as update leaves them.
func (a *Applier) commit(st *snapshot.Stage, revision uint64, update func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	st.Commit(revision)
	update()
	a.revision = max(a.revision, revision)
}

// validate judges a document as a whole (contract section 1.4, steps 5 and 6).
func (a *Applier) validate(kind resource.Kind, id string, raw []byte, exists func(key string) bool) error {
	doc, err := schema.DecodeJSON(raw)
	if err != nil {
		return resource.Invalid("invalid configuration: " + err.Error())
	}
	m, ok := doc.(map[string]any)
	if !ok {
		return resource.Invalid("invalid configuration")
	}
	// A typed nil must not become a non-nil error.
	if refusal := resource.Validate(kind, id, m, checks{a.compiler, exists}); refusal != nil {
		return refusal
	}
	return nil
}

// checks implements resource.Env.
type checks struct {
	*snapshot.Compiler
	exists func(key string) bool
}

func (c checks) Exists(key string) bool { return c.exists(key) }

func (c checks) CheckVars(raw any) error {
	_, err := phase.CompilePredicate(raw)
	return err
}

func (a *Applier) exists(key string) bool {
	_, ok := a.docs[key]
	return ok
}

// published implements snapshot.Lookup on the config goroutine.
func (a *Applier) published(key string) []byte {
	if item, ok := a.docs[key]; ok {
		return item.Value
	}
	return nil
}

// follow applies an event of the store that was not caused here. What does not compile is left out with its reason, and its previous
// version stays.
func (a *Applier) follow(e store.Event) {
	key := e.Item.Key
	known, ok := a.docs[key]
	if a.inline[key] || ok && known.ModRevision >= e.Item.ModRevision || !ok && e.Deleted {
		return
	}
	edit := snapshot.Edit{Key: key}
	if !e.Deleted {
		edit.Value = e.Item.Value
	}
	st, err := a.compiler.Stage(a.published, []snapshot.Edit{edit}, true)
	if err != nil {
		a.logf("%s from the store is left out: %v", key, err)
		return
	}
	for _, p := range st.Problems {
		a.logf("%s from the store is left out: %v", p.Key, p.Err)
	}
	a.commit(st, e.Item.ModRevision, func() {
		if e.Deleted {
			delete(a.docs, key)
		} else {
			a.docs[key] = e.Item
		}
	})
}

// load publishes what the store held at start, and the inline resources.
func (a *Applier) load(items []store.Item, revision uint64, inline map[string][]byte) error {
	edits := make([]snapshot.Edit, 0, len(items))
	for _, item := range items {
		if _, _, err := splitKey(item.Key); err != nil {
			a.logf("%s in the store is left out: %v", item.Key, err)
			continue
		}
		if inline[item.Key] != nil {
			a.logf("%s in the store is hidden by the one in the configuration file", item.Key)
			continue
		}
		edits = append(edits, snapshot.Edit{Key: item.Key, Value: item.Value})
		a.docs[item.Key] = item
	}
	st, err := a.compiler.Stage(a.published, edits, true)
	if err != nil {
		return err
	}
	for _, p := range st.Problems {
		a.logf("%s in the store is left out: %v", p.Key, p.Err)
	}
	a.commit(st, revision, func() {})
	return a.replaceInline(inline)
}

// Reload puts other inline resources in the place of the present ones, all or nothing.
func (a *Applier) Reload(ctx context.Context, inline map[string][]byte) (err error) {
	if e := a.submit(ctx, func() { err = a.replaceInline(inline) }); e != nil {
		err = e
	}
	return err
}

func (a *Applier) replaceInline(inline map[string][]byte) error {
	exists := func(key string) bool {
		if inline[key] != nil {
			return true
		}
		return a.exists(key) && !a.inline[key]
	}
	var edits []snapshot.Edit
	next := map[string]store.Item{}
	for _, key := range slices.Sorted(maps.Keys(inline)) {
		kind, id, err := splitKey(key)
		if err == nil {
			err = a.validate(kind, id, inline[key], exists)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
		if old, ok := a.docs[key]; ok && !a.inline[key] {
			return fmt.Errorf("%s: is stored through the Admin API already (revision %d)", key, old.ModRevision)
		}
		item := store.Item{Key: key, Value: inline[key], CreateRevision: 1, ModRevision: 1}
		if old, ok := a.docs[key]; ok && string(old.Value) == string(item.Value) {
			next[key] = old
			continue // untouched, and so is what its plugins remember
		}
		next[key] = item
		edits = append(edits, snapshot.Edit{Key: key, Value: item.Value})
	}
	var gone []string
	for key := range a.inline {
		if inline[key] == nil {
			gone = append(gone, key)
			edits = append(edits, snapshot.Edit{Key: key})
		}
	}
	st, err := a.compiler.Stage(a.published, edits, false)
	if err != nil {
		return err
	}
	a.commit(st, a.revision, func() {
		for _, key := range gone {
			delete(a.docs, key)
		}
		clear(a.inline)
		for key, item := range next {
			a.docs[key] = item
			a.inline[key] = true
		}
	})
	return nil
}

// Get implements Plane.
func (a *Applier) Get(key string) (store.Item, bool) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	item, ok := a.docs[key]
	return item, ok
}

// List implements Plane.
func (a *Applier) List(kind string) []store.Item {
	a.mu.RLock()
	defer a.mu.RUnlock()
	var items []store.Item
	for key, item := range a.docs {
		if strings.HasPrefix(key, kind) && len(key) > len(kind) && key[len(kind)] == '/' {
			items = append(items, item)
		}
	}
	slices.SortFunc(items, func(p, q store.Item) int { return strings.Compare(p.Key, q.Key) })
	return items
}

// ReadOnly implements Plane.
func (a *Applier) ReadOnly(key string) string {
	a.mu.RLock()
	defer a.mu.RUnlock()
	if a.inline[key] {
		return key + " is defined in the configuration file and cannot be changed through the API"
	}
	return ""
}

// Revision is the store's revision that is in force.
func (a *Applier) Revision() uint64 {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.revision
}

// docsView implements resource.Docs on the config goroutine.
type docsView struct{ a *Applier }

func (d docsView) Range(kind string, f func(key string, value []byte) bool) {
	for _, item := range d.a.List(kind) {
		if !f(item.Key, item.Value) {
			return
		}
	}
}

func splitKey(key string) (resource.Kind, string, error) {
	segment, id, ok := strings.Cut(key, "/")
	kind, known := resource.KindOf(segment)
	if !ok || !known || id == "" {
		return resource.Kind{}, "", fmt.Errorf("unknown key %q", key)
	}
	return kind, id, nil
}

var _ Plane = (*Applier)(nil)
