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

// KeyError is one thing that is wrong with the document Key.
type KeyError struct {
	Key string
	Err error
	// Path, Unknown and Known are those of a schema.Problem; nothing is known of where most problems are.
	Path    []any
	Unknown bool
	Known   []string
}

// Error names the member by its path.
func (e KeyError) Error() string {
	text := e.Key
	for _, part := range e.Path {
		text += fmt.Sprintf(" %v", part)
	}
	return text + ": " + e.Err.Error()
}

// InlineErrors are all refused resources of the file, and what the store holds that they would break, sorted by key.
type InlineErrors []KeyError

func (e InlineErrors) Error() string {
	lines := make([]string, len(e))
	for i, k := range e {
		lines[i] = k.Error()
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
	if err != nil || len(edits)+len(gone) == 0 {
		return err
	}
	st, shown, err := a.stageInline(edits, gone, uncovered)
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
	isShown := func(key string) bool { _, ok := shown[key]; return ok }
	for _, item := range uncovered {
		if isShown(item.Key) {
			delete(a.inline, item.Key)
			put = append(put, item)
		}
	}
	a.mu.Unlock()
	a.noteProblems(st, nil)
	a.commit(st, a.revision, put, slices.DeleteFunc(gone, isShown), from)
	for _, item := range uncovered {
		delete(a.hidden, item.Key)
	}
	a.uncover(slices.DeleteFunc(uncovered, func(item store.Item) bool { return isShown(item.Key) }))
	return nil
}

// stageInline compiles edits of the file's resources, and in the place of those that are gone what the store has uncovered under their
// keys: what can be used of that is shown. It refuses the change with everything that does not compile because of it. What was left out
// before is tried again and may fail again.
func (a *Applier) stageInline(edits []snapshot.Edit, gone []string, uncovered []store.Item) (st *snapshot.Stage, shown map[string]store.Item, err error) {
	shown = make(map[string]store.Item, len(uncovered))
	checks := a.checks(everything{}, len(uncovered))
	for _, item := range uncovered {
		if kind, id, err := splitKey(item.Key); err == nil && checks.validate(kind, id, item.Value) == nil {
			shown[item.Key] = item
		}
	}
	for refused := true; refused; {
		all := slices.Clone(edits)
		for _, key := range gone {
			all = append(all, snapshot.Edit{Key: key, Value: shown[key].Value, Since: shown[key].CreateRevision}) // no value unless it is shown
		}
		if st, err = a.compiler.Stage(a.inForce, all, true); err != nil {
			return nil, nil, err
		}
		// What the file had must not stay because what comes in its place does not compile: see uncover.
		refused = false
		for _, p := range st.Problems {
			if _, of := shown[p.Key]; of {
				delete(shown, p.Key)
				refused = true
			}
		}
		if refused {
			st.Discard()
		}
	}
	edited := make(map[string]bool, len(edits))
	for _, e := range edits {
		edited[e.Key] = true
	}
	var bad InlineErrors
	for _, p := range st.Problems {
		if _, before := a.left.get(p.Key); edited[p.Key] || !before {
			bad = append(bad, KeyError{Key: p.Key, Err: withoutKey(p.Key, p.Err)})
		}
	}
	if len(bad) > 0 {
		st.Discard()
		slices.SortFunc(bad, func(p, q KeyError) int { return strings.Compare(p.Key, q.Key) })
		return nil, nil, bad
	}
	return st, shown, nil
}

// withoutKey drops the key that err begins with.
func withoutKey(key string, err error) error {
	if inner := errors.Unwrap(err); inner != nil && err.Error() == key+": "+inner.Error() {
		return inner
	}
	return err
}

// uncover takes what the store holds under keys that the file has let go, and that cannot be used: it is left out, as it is when it
// comes from the store in any other way, and is no failure of the reload.
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
	keys := slices.Sorted(maps.Keys(inline))
	verdicts := make([][]KeyError, len(keys))
	snapshot.Parallel(len(keys), func(i int) { verdicts[i] = checks.mistakes(keys[i], inline[keys[i]]) })
	for i, key := range keys {
		old, ok := a.stored(key)
		if len(verdicts[i]) == 0 && ok && !a.inline[key] {
			verdicts[i] = []KeyError{{Key: key, Err: fmt.Errorf("is stored through the Admin API already (revision %d)", old.ModRevision)}}
		}
		if len(verdicts[i]) > 0 {
			bad = append(bad, verdicts[i]...)
			continue
		}
		if ok && string(old.Value) == string(inline[key]) {
			continue
		}
		edits = append(edits, snapshot.Edit{Key: key, Value: inline[key]})
		put = append(put, store.Item{Key: key, Value: inline[key]})
	}
	if len(bad) > 0 {
		return nil, nil, a.besides(bad, edits)
	}
	return edits, put, nil
}

// besides adds to bad what does not compile of those that are valid, so that nobody has to come back for it. Nothing is kept of it.
func (a *Applier) besides(bad InlineErrors, valid []snapshot.Edit) InlineErrors {
	st, err := a.compiler.Stage(a.inForce, valid, true)
	if err != nil {
		return bad
	}
	defer st.Discard()
	for _, p := range st.Problems {
		if slices.ContainsFunc(valid, func(e snapshot.Edit) bool { return e.Key == p.Key }) {
			bad = append(bad, KeyError{Key: p.Key, Err: withoutKey(p.Key, p.Err)})
		}
	}
	slices.SortStableFunc(bad, func(p, q KeyError) int { return strings.Compare(p.Key, q.Key) })
	return bad
}

// mistakes returns everything that is wrong with a resource of the file.
func (c *checks) mistakes(key string, raw []byte) []KeyError {
	kind, id, err := splitKey(key)
	if err != nil {
		return []KeyError{{Key: key, Err: err}}
	}
	if err = c.validate(kind, id, raw); err == nil {
		return nil
	}
	doc, undecoded := resource.DecodeObject(raw)
	if undecoded != nil {
		return []KeyError{{Key: key, Err: err}}
	}
	var list []KeyError
	for _, m := range resource.Mistakes(kind, id, doc, c) {
		list = append(list, KeyError{Key: key, Err: resource.Invalid(m.Msg), Path: m.Path, Unknown: m.Unknown, Known: m.Known})
	}
	return list
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
		return r.a.hidden[key].Value
	}
	return r.a.inForce(key)
}

// Range implements resource.Docs.
func (r reloaded) Range(kind string, f func(key string, value []byte) bool) {
	for _, docs := range [...]*documents{r.a.docs, r.a.left} {
		for item := range docs.below(kind) {
			if !r.a.inline[item.Key] && !f(item.Key, item.Value) {
				return
			}
		}
	}
	for _, key := range slices.Sorted(maps.Keys(r.a.hidden)) {
		if r.inline[key] == nil && kindOfKey(key) == kind && !f(key, r.a.hidden[key].Value) {
			return
		}
	}
	for _, key := range slices.Sorted(maps.Keys(r.inline)) {
		if k, _, err := splitKey(key); err == nil && k.Segment == kind && !f(key, r.inline[key]) {
			return
		}
	}
}
