package proxy

import (
	"context"
	"strings"

	"headgate/conf/resource"
	"headgate/conf/store"
	"headgate/proxy/snapshot"
)

// Who made a change, in the audit.
const (
	fromStore = "store"
	fromFile  = "file"
)

// load publishes what the store held at start, and the inline resources.
func (a *Applier) load(items []store.Item, revision uint64, inline map[string][]byte) error {
	own := make([]store.Item, 0, len(items))
	for _, item := range items {
		if inline[item.Key] != nil {
			a.logf("%s in the store is hidden by the one in the configuration file", item.Key)
			a.hidden[item.Key] = item
			continue
		}
		own = append(own, item)
	}
	if err := a.absorb(own, nil, revision, ""); err != nil {
		return err
	}
	return a.replaceInline(inline, "")
}

// follow applies the events of one change of the store that was not caused here.
func (a *Applier) follow(events []store.Event) {
	var put []store.Item
	var removed []string
	var revision uint64
	for _, e := range events {
		key := e.Item.Key
		revision = max(revision, e.Item.ModRevision)
		if known := a.known(key); known >= e.Item.ModRevision {
			if a.deleted[key] == e.Item.ModRevision {
				delete(a.deleted, key)
			}
			continue
		}
		delete(a.deleted, key)
		_, stored := a.stored(key)
		switch {
		case e.Deleted && a.inline[key]:
			delete(a.hidden, key)
		case e.Deleted && stored:
			removed = append(removed, key)
		case !e.Deleted:
			put = append(put, e.Item)
		}
	}
	if len(put)+len(removed) == 0 {
		return
	}
	if err := a.absorb(put, removed, revision, fromStore); err != nil {
		a.logf("a change of the store, revision %d: %v", revision, err)
	}
}

// known returns the latest revision of key that has been seen, 0 when there is none.
func (a *Applier) known(key string) uint64 {
	if a.inline[key] {
		return a.hidden[key].ModRevision
	}
	item, _ := a.stored(key)
	return max(item.ModRevision, a.deleted[key])
}

// catchUp compares with the store as a whole after events were lost, and returns the events from then on.
func (a *Applier) catchUp(ctx context.Context) (<-chan store.Event, error) {
	items, revision, err := a.store.List(ctx)
	if err != nil {
		return nil, err
	}
	clear(a.deleted) // the list is newer than any of them
	var put []store.Item
	listed := make(map[string]bool, len(items))
	for _, item := range items {
		listed[item.Key] = true
		// Not "newer than": a store that was put back to an older state is right too.
		if item.ModRevision != a.known(item.Key) {
			put = append(put, item)
		}
	}
	var removed []string
	for item := range a.docs.all() {
		if !listed[item.Key] && !a.inline[item.Key] {
			removed = append(removed, item.Key)
		}
	}
	for key := range a.left {
		if _, inForce := a.docs.get(key); !inForce && !listed[key] {
			removed = append(removed, key)
		}
	}
	for key := range a.hidden {
		if !listed[key] {
			delete(a.hidden, key)
		}
	}
	if err := a.absorb(put, removed, revision, fromStore); err != nil {
		return nil, err
	}
	return a.store.Watch(ctx, revision)
}

// absorb puts into force what the store holds: put are new or changed documents, removed keys that are gone. What cannot be used is left
// out with its reason, and its previous version stays.
func (a *Applier) absorb(put []store.Item, removed []string, revision uint64, from string) error {
	edits := make([]snapshot.Edit, 0, len(put)+len(removed))
	usable := make(map[string]store.Item, len(put))
	checks := a.checks(everything{}, len(put))
	verdicts, check := a.judge(put, checks), checks.route
	for i, item := range put {
		if isInternal(item.Key) {
			usable[item.Key] = item
			continue
		}
		if _, _, err := splitKey(item.Key); err != nil {
			a.logf("%s in the store is ignored: %v", item.Key, err)
			continue
		}
		if a.inline[item.Key] {
			a.hidden[item.Key] = item
			continue
		}
		if err := verdicts[i]; err != nil {
			a.compiler.Forget(item.Key) // no edit of anything else can make it valid
			a.leaveOut(leftOut{item, err})
			continue
		}
		usable[item.Key] = item
		edit := snapshot.Edit{Key: item.Key, Value: item.Value}
		if isRoute(item.Key) {
			edit.Check = check
		}
		edits = append(edits, edit)
	}
	for _, key := range removed {
		edits = append(edits, snapshot.Edit{Key: key})
	}
	if len(edits)+len(usable) == 0 {
		a.mu.Lock()
		a.revision = max(a.revision, revision)
		a.mu.Unlock()
		return nil
	}
	st, err := a.compiler.Stage(a.inForce, edits, true)
	if err != nil {
		return err
	}
	for _, p := range st.Problems {
		item, ok := usable[p.Key]
		if !ok {
			item, ok = a.stored(p.Key) // it depends on what was put or removed
		}
		if ok {
			a.leaveOut(leftOut{item, p.Err})
		}
		delete(usable, p.Key)
	}
	fresh := make([]store.Item, 0, len(usable))
	for _, item := range put { // in the order of their keys, which is the cheapest to take up
		if got, ok := usable[item.Key]; ok {
			fresh = append(fresh, got)
			delete(usable, item.Key)
		}
	}
	a.commit(st, revision, fresh, removed, from)
	return nil
}

// judge validates documents that came from the store, but for routes.
func (a *Applier) judge(items []store.Item, checks *checks) []error {
	verdicts := make([]error, len(items))
	snapshot.Parallel(len(items), func(i int) {
		key := items[i].Key
		if kind, id, err := splitKey(key); err == nil && !isInternal(key) && !a.inline[key] && !isRoute(key) {
			verdicts[i] = checks.validate(kind, id, items[i].Value)
		}
	})
	return verdicts
}

// isRoute tells the documents that are validated when they are compiled. Of routes there are many at a start, and so each is decoded only
// once. Nothing refers to them, so that nobody else needs to know first whether they are valid.
func isRoute(key string) bool { return strings.HasPrefix(key, "routes/") }

// route validates the route key. It implements the Check of an edit.
func (c *checks) route(key string, doc map[string]any) error {
	kind, id, err := splitKey(key)
	if err != nil {
		return err
	}
	return c.validateDecoded(kind, id, doc)
}

// leaveOut takes note of a document that cannot be used.
func (a *Applier) leaveOut(l leftOut) {
	l.why = redacted{l.why}
	a.logf("%s from the store is left out: %v", l.Key, l.why)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.left[l.Key] = l
}

// redacted is an error whose text does not quote the document: the log and the control API are not for secrets.
type redacted struct{ error }

func (r redacted) Error() string { return resource.Redact(r.error.Error()) }

// Unwrap returns the error itself.
func (r redacted) Unwrap() error { return r.error }
