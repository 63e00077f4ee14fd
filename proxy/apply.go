package proxy

import (
	"context"
	"errors"
	"fmt"
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

	// What others may read; only the config goroutine writes.
	mu       sync.RWMutex
	docs     map[string]store.Item // in force
	inline   map[string]bool       // keys of docs that come from the TOML file
	left     map[string]leftOut    // documents of the store that are not in force
	revision uint64
	pending  int // former snapshots that still have readers

	// The config goroutine's own.
	hidden  map[string]store.Item // stored under keys of inline
	deleted map[string]uint64     // revisions of own deletions that the watch has not shown yet
	// inlineRevision counts the changes of the file's resources; what a change puts has the count as its revision.
	inlineRevision uint64

	changes map[string]*meter.Counter
}

// leftOut is a document that the store holds but that cannot be used, with the reason. What was in force under its key before stays.
type leftOut struct {
	store.Item
	why error
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

const (
	// collectEvery is how often former snapshots are looked at for readers that have left.
	collectEvery = 50 * time.Millisecond
	// catchUpEvery is the pause between two tries to follow a store that cannot be followed.
	catchUpEvery = time.Second
)

// StartApplier loads the store and the inline resources, publishes them, and follows the store from there. Inline resources must be
// right; a stored document that cannot be used is logged and left out.
func StartApplier(ctx context.Context, o ApplierOptions) (*Applier, error) {
	a := &Applier{
		compiler: o.Compiler, store: o.Store, offload: o.Offload, logf: o.Logf,
		mailbox: make(chan func()), done: make(chan struct{}),
		docs: map[string]store.Item{}, inline: map[string]bool{}, left: map[string]leftOut{},
		hidden: map[string]store.Item{}, deleted: map[string]uint64{}, changes: map[string]*meter.Counter{},
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
	var again <-chan time.Time // when to catch up with a store whose events were lost
	for {
		select {
		case <-ctx.Done():
			return
		case f := <-a.mailbox:
			f()
		case e, ok := <-events:
			if !ok {
				events, again = nil, time.After(0)
				continue
			}
			a.follow(e)
		case <-again:
			var err error
			if events, err = a.catchUp(ctx); err == nil {
				again = nil
			} else if ctx.Err() == nil {
				a.logf("following the store: %v; trying again in %v", err, catchUpEvery)
				again = time.After(catchUpEvery)
			}
		case <-tick.C:
			if pending := a.compiler.Collect(a.offload.Do); pending != a.pending {
				a.mu.Lock()
				a.pending = pending
				a.mu.Unlock()
			}
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
	if item, ok := a.stored(c.Key); ok {
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
	st, err := a.compiler.Stage(a.inForce, []snapshot.Edit{{Key: c.Key, Value: next}}, false)
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
	a.commit(st, item.ModRevision, []store.Item{item}, nil)
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
	st, err := a.compiler.Stage(a.inForce, []snapshot.Edit{{Key: c.Key}}, false)
	if err != nil {
		return Result{}, resource.Invalid(err.Error())
	}
	revision, err := a.store.Delete(ctx, c.Key, old.ModRevision)
	if err != nil {
		st.Discard()
		return Result{}, err
	}
	a.deleted[c.Key] = revision
	a.commit(st, revision, nil, []string{c.Key})
	return Result{Item: store.Item{Key: c.Key, ModRevision: revision}, Old: old, Revision: revision}, nil
}

// commit publishes st, made of the documents put and removed, and from then on shows what is in force now.
func (a *Applier) commit(st *snapshot.Stage, revision uint64, put []store.Item, removed []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.revision = max(a.revision, revision)
	st.Commit(a.revision)
	for _, key := range removed {
		delete(a.docs, key)
		delete(a.left, key)
		delete(a.inline, key)
	}
	for _, item := range put {
		a.docs[item.Key] = item
		delete(a.left, item.Key)
	}
	for _, key := range st.Recovered {
		a.docs[key] = a.left[key].Item
		delete(a.left, key)
		a.logf("%s from the store is in force now", key)
	}
}

// stored returns what the store holds under key as far as is known, in force or not.
func (a *Applier) stored(key string) (store.Item, bool) {
	if l, ok := a.left[key]; ok {
		return l.Item, true
	}
	item, ok := a.docs[key]
	return item, ok
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

// inForce implements snapshot.Lookup on the config goroutine.
func (a *Applier) inForce(key string) []byte {
	if item, ok := a.docs[key]; ok {
		return item.Value
	}
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

// LeftOut returns why each stored document that is not in force is left out, by key.
func (a *Applier) LeftOut() map[string]error {
	a.mu.RLock()
	defer a.mu.RUnlock()
	list := make(map[string]error, len(a.left))
	for key, l := range a.left {
		list[key] = l.why
	}
	return list
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

// badID refuses an id that cannot be part of a key, in the contract's words for it (section 1.7).
const badID = `invalid configuration: property "id" validation failed: object matches none of the required`

func splitKey(key string) (resource.Kind, string, error) {
	segment, id, ok := strings.Cut(key, "/")
	kind, known := resource.KindOf(segment)
	if ok && known && id == "" {
		return resource.Kind{}, "", resource.Invalid(badID)
	}
	if !ok || !known {
		return resource.Kind{}, "", fmt.Errorf("unknown key %q", key)
	}
	return kind, id, nil
}

var _ Plane = (*Applier)(nil)
