package proxy

import (
	"context"
	"errors"
	"fmt"
	"time"

	"headgate/conf/resource"
	"headgate/conf/store"
	"headgate/proxy/snapshot"
)

// Apply implements Plane.
func (a *Applier) Apply(ctx context.Context, c Change) (Result, error) {
	results, err := a.ApplyAll(ctx, []Change{c})
	if err != nil {
		var of *ChangeError
		if errors.As(err, &of) {
			err = of.Err
		}
		return Result{}, err
	}
	return results[0], nil
}

// ApplyAll implements Plane.
func (a *Applier) ApplyAll(ctx context.Context, list []Change) (r []Result, err error) {
	if e := a.post(ctx, &job{edit: true, do: func() { r, err = a.apply(ctx, list) }}); e != nil {
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

// pending is a change with its next document.
type pending struct {
	Change
	old  *store.Item
	next []byte // nil deletes
}

// attempt carries list out on the documents as they are known here.
func (a *Applier) attempt(ctx context.Context, list []Change) ([]Result, error) {
	todo, err := a.edited(list)
	if err != nil {
		return nil, err
	}
	after := view{a, make(map[string][]byte, len(todo))}
	edits := make([]snapshot.Edit, 0, len(todo))
	for _, p := range todo {
		after.edits[p.Key] = p.next
		if !isInternal(p.Key) {
			e := snapshot.Edit{Key: p.Key, Value: p.next, Since: snapshot.NotStored}
			if p.old != nil {
				e.Since = p.old.CreateRevision
			}
			edits = append(edits, e)
		}
	}
	verdicts, checks := make([]error, len(todo)), a.checks(after, len(todo))
	snapshot.Parallel(len(todo), func(i int) { verdicts[i] = checks.check(todo[i], after) })
	for i, p := range todo {
		if err := verdicts[i]; err != nil {
			return nil, &ChangeError{p.Key, err}
		}
	}
	st, err := a.compiler.Stage(a.inForce, edits, false)
	if err != nil {
		key := todo[0].Key
		var of *snapshot.Problem
		if errors.As(err, &of) && after.has(of.Key) {
			key = of.Key
		}
		return nil, &ChangeError{key, resource.Invalid(err.Error())}
	}
	begun := a.changed
	var items []store.Item
	var revision uint64
	a.aside(func() { items, revision, err = a.save(ctx, todo) })
	if err != nil {
		st.Discard()
		if errors.Is(err, store.ErrUnavailable) { // those that have waited for this one need not wait for the same again
			a.giveUp(fmt.Errorf("%w: a write before this one failed", store.ErrUnavailable))
		}
		if errors.Is(err, store.ErrNotFound) { // it was there when the change was made up
			err = fmt.Errorf("%w: %w", store.ErrConflict, err)
		}
		if errors.Is(err, store.ErrConflict) {
			a.awaitOthers(ctx, todo)
		}
		return nil, err
	}
	results := make([]Result, len(todo))
	for i, p := range todo {
		results[i] = Result{Item: items[i], Old: p.old, Revision: revision}
	}
	put, removed := a.saved(todo, items, revision)
	if a.changed == begun {
		for i, p := range todo {
			if p.old == nil {
				st.Stored(p.Key, items[i].CreateRevision)
			}
		}
		a.noteProblems(st, nil)
		a.commit(st, revision, put, removed, "")
		return results, nil
	}
	// What was compiled is out of date. The store has the change, so it is one that arrives like anybody else's.
	st.Discard()
	return results, a.absorb(put, removed, revision, "")
}

// saved returns what the store has taken of todo and is not known here yet.
func (a *Applier) saved(todo []pending, items []store.Item, revision uint64) (put []store.Item, removed []string) {
	for i, p := range todo {
		before, had := a.stored(p.Key)
		switch {
		case had && before.ModRevision >= revision: // the watch was faster
		case p.next != nil:
			put = append(put, items[i])
		case had:
			a.deleted[p.Key] = revision
			removed = append(removed, p.Key)
		}
	}
	return put, removed
}

// awaitOthers waits for the event of the change that came before todo, so that whoever tries again tries with the document as it is now.
func (a *Applier) awaitOthers(ctx context.Context, todo []pending) {
	limit := time.NewTimer(overtakenWait)
	defer limit.Stop()
	for {
		for _, p := range todo {
			var seen uint64
			if p.old != nil {
				seen = p.old.ModRevision
			}
			if item, _ := a.stored(p.Key); item.ModRevision != seen {
				return
			}
		}
		select {
		case e, ok := <-a.events:
			if a.receive(e, ok); !ok {
				return
			}
		case <-limit.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// edited asks every change for its next document.
func (a *Applier) edited(list []Change) ([]pending, error) {
	todo := make([]pending, 0, len(list))
	seen := make(map[string]bool, len(list))
	for _, c := range list {
		if why := a.ReadOnly(c.Key); why != "" {
			return nil, &ChangeError{c.Key, resource.Invalid(why)}
		}
		if seen[c.Key] {
			return nil, &ChangeError{c.Key, errors.New("is changed twice at a time")}
		}
		seen[c.Key] = true
		p := pending{Change: c}
		if item, ok := a.stored(c.Key); ok {
			p.old = &item
		}
		var err error
		if p.next, err = c.Edit(p.old); err == nil && p.next == nil && p.old == nil {
			err = resource.KeyNotFound()
		}
		if err != nil {
			return nil, &ChangeError{c.Key, err}
		}
		todo = append(todo, p)
	}
	return todo, nil
}

// check judges one change in the light of all.
func (c *checks) check(p pending, after view) error {
	if isInternal(p.Key) {
		return nil
	}
	kind, id, err := splitKey(p.Key)
	if err != nil {
		return err
	}
	if p.next != nil {
		return c.validate(kind, id, p.next)
	}
	if p.Force {
		return nil
	}
	// A typed nil must not become a non-nil error.
	if refusal := resource.CheckUnused(kind, id, after.mentioning(id)); refusal != nil {
		return refusal
	}
	return nil
}

// save writes todo into the store, all or nothing.
func (a *Applier) save(ctx context.Context, todo []pending) ([]store.Item, uint64, error) {
	writes := make([]store.Write, len(todo))
	for i, p := range todo {
		writes[i] = store.Write{Key: p.Key, Value: p.next}
		if p.old != nil {
			writes[i].IfRevision = p.old.ModRevision
		}
		if p.TTL > 0 && p.next != nil {
			writes[i].Expires = time.Now().Add(p.TTL)
		}
	}
	if len(writes) > 1 {
		return a.store.Batch(ctx, writes)
	}
	w := writes[0]
	if w.Value == nil {
		revision, err := a.store.Delete(ctx, w.Key, w.IfRevision)
		return []store.Item{{Key: w.Key, ModRevision: revision}}, revision, err
	}
	item, err := a.store.Put(ctx, w.Key, w.Value, w.IfRevision, w.Expires)
	return []store.Item{item}, item.ModRevision, err
}

// badID refuses an id that cannot be part of a key, in the contract's words for it (section 1.7).
const badID = `invalid configuration: property "id" validation failed: object matches none of the required`

func splitKey(key string) (resource.Kind, string, error) {
	if kind, id, ok := resource.ParseKey(key); ok {
		return kind, id, nil
	}
	if _, known := resource.KindOf(kindOfKey(key)); known {
		return resource.Kind{}, "", resource.Invalid(badID)
	}
	return resource.Kind{}, "", fmt.Errorf("unknown key %q", key)
}
