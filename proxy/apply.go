package proxy

import (
	"context"
	"fmt"
	"sync"
	"time"

	"headgate/conf/resource"
	"headgate/conf/store"
	"headgate/proxy/meter"
	"headgate/proxy/offload"
	"headgate/proxy/snapshot"
)

// Applier is the config path: one goroutine, one mailbox. Every change, wherever it comes from, is decoded, validated, compiled beside
// the running configuration, saved, and published, in this order; what fails on the way has changed nothing.
type Applier struct {
	compiler *snapshot.Compiler
	store    store.Store
	offload  *offload.Pool
	lenient  func(name string) bool
	readOnly string
	assume   bool
	audit    func(line string)
	logf     func(format string, args ...any)

	mailbox chan func()
	stop    context.CancelFunc
	done    chan struct{}

	// What others may read; only the config goroutine writes.
	mu       sync.RWMutex
	docs     *documents         // in force
	inline   map[string]bool    // keys of docs that come from the TOML file
	left     map[string]leftOut // documents of the store that are not in force
	revision uint64
	pending  int // former snapshots that still have readers

	// The config goroutine's own.
	events <-chan store.Event // of the store; nil while they are lost
	batch  []store.Event      // of a change that has not arrived as a whole
	// followed is the revision up to which everything has arrived.
	followed uint64
	again    <-chan time.Time      // when to catch up with a store whose events were lost
	hidden   map[string]store.Item // stored under keys of inline
	deleted  map[string]uint64     // revisions of own deletions that the watch has not shown yet
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
	// Lenient says whether a compat switch is on, see resource.Env.
	Lenient func(name string) bool
	// ReadOnly, when not empty, says why nobody can edit documents through Plane.
	ReadOnly string
	// Assume takes it that what an inline resource refers to exists: for a trial without the store that has it.
	Assume bool
	// Audit gets one line for every document that changed in another way than through Plane. May be nil.
	Audit func(line string)
	Logf  func(format string, args ...any)
	// Inline are the resources of the TOML file, by key.
	Inline map[string][]byte
}

const (
	// collectEvery is how often former snapshots are looked at for readers that have left.
	collectEvery = 50 * time.Millisecond
	// catchUpEvery is the pause between two tries to follow a store that cannot be followed.
	catchUpEvery = time.Second
	// eventsAhead is how many events may go before an edit that waits.
	eventsAhead = 256
	// overtakenWait bounds the wait for the event of a write that came before one of this gateway's.
	overtakenWait = time.Second
)

// StartApplier loads the store and the inline resources, publishes them, and follows the store from there. Inline resources must be
// right; a stored document that cannot be used is logged and left out.
func StartApplier(ctx context.Context, o ApplierOptions) (*Applier, error) {
	a := &Applier{
		compiler: o.Compiler, store: o.Store, offload: o.Offload, lenient: o.Lenient,
		readOnly: o.ReadOnly, assume: o.Assume, audit: o.Audit, logf: o.Logf,
		mailbox: make(chan func()), done: make(chan struct{}),
		docs: newDocuments(), inline: map[string]bool{}, left: map[string]leftOut{},
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
	if a.events, err = o.Store.Watch(run, revision); err != nil {
		cancel()
		return nil, fmt.Errorf("watching the store: %w", err)
	}
	a.followed = revision
	go a.run(run)
	return a, nil
}

// Results of a change, as metrics name them.
const (
	applied = "applied"
	refused = "refused"
	failed  = "failed"
)

// run is the config goroutine.
func (a *Applier) run(ctx context.Context) {
	defer close(a.done)
	tick := time.NewTicker(collectEvery)
	defer tick.Stop()
	for {
		a.followReady()
		select {
		case <-ctx.Done():
			return
		case f := <-a.mailbox:
			f()
		case e, ok := <-a.events:
			a.receive(e, ok)
		case <-a.again:
			var err error
			if a.events, err = a.catchUp(ctx); err == nil {
				a.again, a.followed = nil, a.Revision()
			} else if ctx.Err() == nil {
				a.logf("following the store: %v; trying again in %v", err, catchUpEvery)
				a.again = time.After(catchUpEvery)
			}
		case <-a.compiler.NodeNews():
			a.compiler.UpdateNodes()
		case <-tick.C:
			if pending := a.compiler.Collect(a.offload.Do); pending != a.pending {
				a.mu.Lock()
				a.pending = pending
				a.mu.Unlock()
			}
		}
	}
}

// followReady takes the events that are there. They go before edits, because an edit is of the latest document; how many go before one
// is limited, so that edits have their turn.
func (a *Applier) followReady() {
	for range eventsAhead {
		select {
		case e, ok := <-a.events:
			a.receive(e, ok)
		default:
			return
		}
	}
}

// receive takes one event; ok is false when there are no more, because some were lost.
func (a *Applier) receive(e store.Event, ok bool) {
	if !ok {
		a.events, a.again, a.batch = nil, time.After(0), nil
		return
	}
	if a.batch = append(a.batch, e); !e.More {
		a.follow(a.batch)
		a.batch, a.followed = nil, e.Item.ModRevision
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

// commit publishes st, made of the documents put and removed, and from then on shows what is in force now. from says who made the change,
// for the audit; "" when somebody else writes it down.
func (a *Applier) commit(st *snapshot.Stage, revision uint64, put []store.Item, removed []string, from string) {
	if from != "" && a.audit != nil {
		a.auditAll(put, removed, revision, from)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.revision = max(a.revision, revision)
	st.Commit(a.revision)
	for _, w := range st.Warnings {
		a.logf("WARNING: %s", w)
	}
	for _, key := range removed {
		a.docs.remove(key)
		delete(a.left, key)
		delete(a.inline, key)
	}
	for _, item := range put {
		a.docs.put(item)
		delete(a.left, item.Key)
	}
	for _, key := range st.Recovered {
		a.docs.put(a.left[key].Item)
		delete(a.left, key)
		a.logf("%s from the store is in force now", key)
	}
}

// auditAll writes down what is about to change, one line for each document.
func (a *Applier) auditAll(put []store.Item, removed []string, revision uint64, from string) {
	line := func(key string, after []byte, revision uint64) {
		old, had := a.docs.get(key)
		done := "changed"
		switch {
		case after == nil:
			done = "deleted"
		case !had:
			done = "created"
		}
		changes := resource.Diff(old.Value, after)
		if changes == "" {
			changes = "in nothing"
		}
		a.audit(fmt.Sprintf("from=%s %s: %s %s, revision %d -> %d", from, key, done, changes, old.ModRevision, revision))
	}
	for _, item := range put {
		line(item.Key, item.Value, item.ModRevision)
	}
	for _, key := range removed {
		if _, had := a.docs.get(key); had {
			line(key, nil, revision)
		}
	}
}

// stored returns what the store holds under key as far as is known, in force or not.
func (a *Applier) stored(key string) (store.Item, bool) {
	if l, ok := a.left[key]; ok {
		return l.Item, true
	}
	return a.docs.get(key)
}

// Get implements Plane.
func (a *Applier) Get(key string) (store.Item, bool) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.docs.get(key)
}

// List implements Plane.
func (a *Applier) List(path string) []store.Item {
	a.mu.RLock()
	list := a.docs.below(path)
	a.mu.RUnlock()
	n := 0
	for range list {
		n++
	}
	items := make([]store.Item, 0, n)
	for item := range list {
		items = append(items, *item)
	}
	return items
}

// ReadOnly implements Plane.
func (a *Applier) ReadOnly(key string) string {
	if a.readOnly != "" {
		return a.readOnly
	}
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

var _ Plane = (*Applier)(nil)
