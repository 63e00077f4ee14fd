package proxy

import (
	"context"
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

// InlineErrors are all refused resources of the file, sorted by key.
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
	if e := a.submit(ctx, func() { err = a.replaceInline(inline) }); e != nil {
		err = e
	}
	return err
}

func (a *Applier) replaceInline(inline map[string][]byte) error {
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
	st, err := a.compiler.Stage(a.inForce, edits, false)
	if err != nil {
		return err
	}
	a.mu.Lock()
	for _, item := range put {
		a.inline[item.Key] = true
	}
	a.mu.Unlock()
	a.commit(st, a.revision, put, gone)
	for _, item := range uncovered {
		delete(a.hidden, item.Key)
	}
	if len(uncovered) > 0 {
		return a.absorb(uncovered, nil, a.revision)
	}
	return nil
}

// inlineEdits checks the resources of the file and returns those that are new or changed. The others are not touched, and neither is
// what their plugins remember.
func (a *Applier) inlineEdits(inline map[string][]byte) (edits []snapshot.Edit, put []store.Item, err error) {
	var bad InlineErrors
	exists := func(key string) bool { return inline[key] != nil || a.exists(key) && !a.inline[key] }
	for _, key := range slices.Sorted(maps.Keys(inline)) {
		kind, id, err := splitKey(key)
		if err == nil {
			err = a.validate(kind, id, inline[key], exists)
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
		put = append(put, store.Item{Key: key, Value: inline[key], CreateRevision: 1, ModRevision: 1})
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

// reloaded implements resource.Docs: the documents as they will be with other inline resources.
type reloaded struct {
	a      *Applier
	inline map[string][]byte
}

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
