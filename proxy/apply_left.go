package proxy

import (
	"iter"
	"maps"
	"strings"

	"headgate/conf/resource"
	"headgate/conf/schema"
	"headgate/conf/store"
	"headgate/proxy/snapshot"
)

// noteProblems leaves out what st has left out; edited are the documents of its edits.
func (a *Applier) noteProblems(st *snapshot.Stage, edited map[string]store.Item) {
	for _, p := range st.Problems {
		item, ok := edited[p.Key]
		if !ok {
			item, ok = a.stored(p.Key) // it depends on what was edited
		}
		if ok {
			a.leaveOut(item, p.Err)
		}
	}
}

// leaveOut takes note of a document of the store that cannot be used. What was in force under its key before stays, as far as this is
// concerned. What is no JSON object is shown, and edited, as an empty one: everybody who lists documents expects objects.
func (a *Applier) leaveOut(item store.Item, why error) {
	why = redacted{why}
	before, had := a.left.get(item.Key)
	if !had || before.ModRevision != item.ModRevision || a.reasons[item.Key].Error() != why.Error() {
		a.logf("%s from the store is left out: %v", item.Key, why)
	}
	decoded, err := schema.DecodeJSON(item.Value)
	if _, isObject := decoded.(map[string]any); err != nil || !isObject {
		item.Value = []byte("{}")
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.left.put(item)
	a.reasons[item.Key] = why
}

// takeIn takes note that the document key is not left out any more. The caller holds mu.
func (a *Applier) takeIn(key string) {
	a.left.remove(key)
	delete(a.reasons, key)
}

// redacted is an error whose text does not quote the document: the log and the control API are not for secrets.
type redacted struct{ error }

func (r redacted) Error() string { return resource.Redact(r.error.Error()) }

// Unwrap returns the error itself.
func (r redacted) Unwrap() error { return r.error }

// LeftOut returns why each stored document that is not in force is left out, by key, and of which global rules a part is.
func (a *Applier) LeftOut() map[string]error {
	a.mu.RLock()
	defer a.mu.RUnlock()
	list := make(map[string]error, len(a.reasons))
	maps.Copy(list, a.shadowed)
	maps.Copy(list, a.reasons)
	return list
}

// CountLeftOut returns how many LeftOut lists.
func (a *Applier) CountLeftOut() int {
	a.mu.RLock()
	defer a.mu.RUnlock()
	n := len(a.reasons)
	for key := range a.shadowed {
		if _, wholly := a.reasons[key]; !wholly {
			n++
		}
	}
	return n
}

// since implements the order of snapshot.Compiler.OrderBy on the config goroutine: that of the first revisions. The file comes before the
// store, so that nothing that is stored takes away what it has.
func (a *Applier) since(key string) uint64 {
	if a.inline[key] {
		return 0
	}
	item, _ := a.stored(key)
	return item.CreateRevision
}

// stored returns what the store, or the file, holds under key as far as is known, in force or not.
func (a *Applier) stored(key string) (store.Item, bool) {
	if item, ok := a.left.get(key); ok {
		return item, true
	}
	return a.docs.get(key)
}

// Get implements Plane.
func (a *Applier) Get(key string) (store.Item, bool) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.stored(key)
}

// List implements Plane.
func (a *Applier) List(path string) []store.Item {
	a.mu.RLock()
	docs, left := a.docs.below(path), a.left.below(path)
	a.mu.RUnlock()
	return collect(merged(left, docs))
}

// InForce returns the documents that are in force, as Get and List return those that are stored: of a document that is left out the
// version before, if that was ever in force here.
func (a *Applier) InForce() Reader { return inForce{a} }

type inForce struct{ a *Applier }

// Get implements Reader.
func (f inForce) Get(key string) (store.Item, bool) {
	f.a.mu.RLock()
	defer f.a.mu.RUnlock()
	return f.a.docs.get(key)
}

// List implements Reader.
func (f inForce) List(path string) []store.Item {
	f.a.mu.RLock()
	docs := f.a.docs.below(path)
	f.a.mu.RUnlock()
	return collect(docs)
}

// collect copies a list that stays as it is.
func collect(list iter.Seq[*store.Item]) []store.Item {
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

// merged is the union of two lists in the order of keys; of a key that both have it has the item of first.
func merged(first, second iter.Seq[*store.Item]) iter.Seq[*store.Item] {
	return func(yield func(*store.Item) bool) {
		next, stop := iter.Pull(first)
		defer stop()
		early, more := next()
		for item := range second {
			for more && strings.Compare(early.Key, item.Key) < 0 {
				if !yield(early) {
					return
				}
				early, more = next()
			}
			if more && early.Key == item.Key {
				item = early
				early, more = next()
			}
			if !yield(item) {
				return
			}
		}
		for more {
			if !yield(early) {
				return
			}
			early, more = next()
		}
	}
}
