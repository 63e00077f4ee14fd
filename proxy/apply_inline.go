package proxy

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"headgate/conf/resource"
	"headgate/conf/store"
	"headgate/proxy/snapshot"
)

// KeyError is what is wrong with the document Key.
type KeyError struct {
	Key string
	Err error
}

// InlineErrors are all refused resources of the file, and what the store holds that they would break, sorted by key.
type InlineErrors []KeyError

func (e InlineErrors) Error() string {
	lines := make([]string, len(e))
	for i, k := range e {
		lines[i] = k.Key + ": " + k.Err.Error()
	}
	return strings.Join(lines, "\n")
}

// Reload puts other inline resources in the place of the present ones, all or nothing.
func (a *Applier) Reload(ctx context.Context, inline map[string][]byte) (err error) {
	if e := a.submit(ctx, func() { err = a.replaceInline(inline, fromFile) }); e != nil {
		err = e
	}
	return err
}

func (a *Applier) replaceInline(inline map[string][]byte, from string) error {
	edits, put, err := a.inlineEdits(inline)
	if err != nil {
		return err
	}
	gone, uncovered, err := a.inlineGone(inline)
	if err != nil {
		return err
	}
	for _, key := range gone {
		edits = append(edits, snapshot.Edit{Key: key})
	}
	if len(edits) == 0 {
		return nil
	}
	st, err := a.stageInline(edits)
	if err != nil {
		return err
	}
	a.inlineRevision++
	for i := range put {
		put[i].CreateRevision, put[i].ModRevision = a.inlineRevision, a.inlineRevision
		if old, ok := a.stored(put[i].Key); ok {
			put[i].CreateRevision = old.CreateRevision
		}
	}
	a.mu.Lock()
	for _, item := range put {
		a.inline[item.Key] = true
	}
	a.mu.Unlock()
	a.commit(st, a.revision, put, gone, from)
	for _, item := range uncovered {
		delete(a.hidden, item.Key)
	}
	a.uncover(uncovered)
	return nil
}

// stageInline compiles edits of the file's resources, and refuses them with everything that does not compile because of them. What was
// left out before is tried again and may fail again.
func (a *Applier) stageInline(edits []snapshot.Edit) (*snapshot.Stage, error) {
	st, err := a.compiler.Stage(a.inForce, edits, true)
	if err != nil {
		return nil, err
	}
	edited := make(map[string]bool, len(edits))
	for _, e := range edits {
		edited[e.Key] = true
	}
	var bad InlineErrors
	for _, p := range st.Problems {
		if _, before := a.left[p.Key]; edited[p.Key] || !before {
			bad = append(bad, KeyError{p.Key, withoutKey(p.Key, p.Err)})
		}
	}
	if len(bad) > 0 {
		st.Discard()
		slices.SortFunc(bad, func(p, q KeyError) int { return strings.Compare(p.Key, q.Key) })
		return nil, bad
	}
	return st, nil
}

// withoutKey drops the key that err begins with.
func withoutKey(key string, err error) error {
	if inner := errors.Unwrap(err); inner != nil && err.Error() == key+": "+inner.Error() {
		return inner
	}
	return err
}

// uncover puts into force what the store holds under keys that the file has let go. The file is in force by then: what cannot be used is
// left out, as it is when it comes from the store in any other way, and is no failure of the reload.
func (a *Applier) uncover(items []store.Item) {
	if len(items) == 0 {
		return
	}
	if err := a.absorb(items, nil, a.revision, fromFile); err != nil {
		a.logf("what the store holds behind the file's former resources: %v", err)
	}
}

// inlineEdits checks the resources of the file and returns those that are new or changed. The others are not touched, and neither is
// what their plugins remember.
func (a *Applier) inlineEdits(inline map[string][]byte) (edits []snapshot.Edit, put []store.Item, err error) {
	var bad InlineErrors
	checks := a.checks(reloaded{a, inline}, len(inline))
	for _, key := range slices.Sorted(maps.Keys(inline)) {
		kind, id, err := splitKey(key)
		if err == nil {
			err = checks.validate(kind, id, inline[key])
		}
		old, ok := a.stored(key)
		if err == nil && ok && !a.inline[key] {
			err = fmt.Errorf("is stored through the Admin API already (revision %d)", old.ModRevision)
		}
		if err != nil {
			bad = append(bad, KeyError{key, err})
			continue
		}
		if ok && string(old.Value) == string(inline[key]) {
			continue
		}
		edits = append(edits, snapshot.Edit{Key: key, Value: inline[key]})
		put = append(put, store.Item{Key: key, Value: inline[key]})
	}
	if len(bad) > 0 {
		return nil, nil, bad
	}
	return edits, put, nil
}

// inlineGone returns the keys that the file does not define any more, and what the store holds under them. It refuses to drop what a
// document of the store or of the new file still refers to.
func (a *Applier) inlineGone(inline map[string][]byte) (gone []string, uncovered []store.Item, err error) {
	for _, key := range slices.Sorted(maps.Keys(a.inline)) {
		if inline[key] != nil {
			continue
		}
		gone = append(gone, key)
		if item, ok := a.hidden[key]; ok {
			uncovered = append(uncovered, item)
			continue
		}
		kind, id, err := splitKey(key)
		if err != nil {
			return nil, nil, err
		}
		if refusal := resource.CheckUnused(kind, id, reloaded{a, inline}); refusal != nil {
			return nil, nil, fmt.Errorf("%s: %w", key, refusal)
		}
	}
	return gone, uncovered, nil
}

// reloaded implements resource.Docs and world: the documents as they will be with other inline resources.
type reloaded struct {
	a      *Applier
	inline map[string][]byte
}

// Exists implements world.
func (r reloaded) Exists(key string) bool {
	return r.Document(key) != nil || r.a.assume && everything{}.Exists(key)
}

// Document implements world.
func (r reloaded) Document(key string) []byte {
	if doc := r.inline[key]; doc != nil {
		return doc
	}
	if r.a.inline[key] {
		return nil
	}
	return r.a.inForce(key)
}

// Range implements resource.Docs.
func (r reloaded) Range(kind string, f func(key string, value []byte) bool) {
	for _, item := range r.a.List(kind) {
		if !r.a.inline[item.Key] && !f(item.Key, item.Value) {
			return
		}
	}
	for _, key := range slices.Sorted(maps.Keys(r.inline)) {
		if k, _, err := splitKey(key); err == nil && k.Segment == kind && !f(key, r.inline[key]) {
			return
		}
	}
}
