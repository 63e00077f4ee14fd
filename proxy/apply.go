package proxy

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"headgate/conf/resource"
	"headgate/conf/store"
	"headgate/proxy/meter"
	"headgate/proxy/offload"
	"headgate/proxy/snapshot"
)

// Applier is the config path: one goroutine, one mailbox. Every change, wherever it comes from, is decoded, validated, compiled beside
// the running configuration, saved, and published, in this order; what fails on the way has changed nothing. While an edit waits for a
// store that does not answer, everything but other edits goes on (see aside).
type Applier struct {
	compiler *snapshot.Compiler
	store    store.Store
	offload  *offload.Pool
	lenient  func(name string) bool
	readOnly string
	assume   bool
	audit    func(line string)
	logf     func(format string, args ...any)

	mailbox chan *job
	stop    context.CancelFunc
	done    chan struct{}

	// What others may read; only the config goroutine writes.
	mu       sync.RWMutex
	docs     *documents       // in force
	inline   map[string]bool  // keys of docs that come from the TOML file
	left     *documents       // of the store that are not in force; docs may have the versions before
	reasons  map[string]error // why, by the keys of left
	shadowed map[string]error // global rules that are in force but for some of their plugins
	revision uint64
	pending  int // former snapshots that still have readers

	// The config goroutine's own.
	queue  []*job             // edits that came while another waits for the store
	events <-chan store.Event // of the store; nil while they are lost
	batch  []store.Event      // of a change that has not arrived as a whole
	// followed is the revision up to which everything has arrived.
	followed uint64
	again    <-chan time.Time      // when to catch up with a store whose events were lost
	hidden   map[string]store.Item // stored under keys of inline
	deleted  map[string]uint64     // revisions of own deletions that the watch has not shown yet
	// changed counts what was done to the compiler: a stage is only good for the count at which it began.
	changed uint64
	// inlineRevision counts the changes of the file's resources; what a change puts has the count as its revision.
	inlineRevision uint64

	changes map[string]*meter.Counter
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
		mailbox: make(chan *job), done: make(chan struct{}),
		docs: newDocuments(), inline: map[string]bool{}, left: newDocuments(), reasons: map[string]error{},
		hidden: map[string]store.Item{}, deleted: map[string]uint64{}, changes: map[string]*meter.Counter{},
	}
	a.compiler.OrderBy(a.since)
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
	if len(items) >= manyDocuments {
		// To decode them took as much again as what stays. With little to do, the runtime would give it back after minutes.
		o.Offload.Do(debug.FreeOSMemory)
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
	defer func() { a.giveUp(errShutDown) }()
	tick := time.NewTicker(collectEvery)
	defer tick.Stop()
	for {
		a.followReady()
		if ctx.Err() == nil && a.next() {
			continue
		}
		select {
		case <-ctx.Done():
			return
		case j := <-a.mailbox:
			j.run()
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

// commit publishes st, made of the documents put and removed, and from then on shows what is in force now. from says who made the change,
// for the audit; "" when somebody else writes it down.
func (a *Applier) commit(st *snapshot.Stage, revision uint64, put []store.Item, removed []string, from string) {
	if from != "" && a.audit != nil {
		a.auditAll(put, removed, revision, from)
	}
	a.changed++
	a.mu.Lock()
	defer a.mu.Unlock()
	a.revision = max(a.revision, revision)
	st.Commit(a.revision)
	for _, w := range st.Warnings {
		a.logf("WARNING: %s", w)
	}
	for _, key := range removed {
		a.docs.remove(key)
		a.takeIn(key)
		delete(a.inline, key)
	}
	for _, item := range put {
		a.docs.put(item)
		a.takeIn(item.Key)
	}
	for _, key := range st.Dropped {
		a.docs.remove(key)
	}
	if st.Shadowed != nil {
		a.shadowed = st.Shadowed
	}
	for _, key := range st.Recovered {
		if item, ok := a.left.get(key); ok {
			a.docs.put(item)
			a.takeIn(key)
			a.logf("%s from the store is in force now", key)
		}
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

var _ Plane = (*Applier)(nil)
