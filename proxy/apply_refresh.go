package proxy

import (
	"context"
	"errors"
	"time"

	"headgate/conf/resource"
	"headgate/conf/store"
)

// refreshWait bounds how long a refused edit waits for what others have stored.
const refreshWait = 100 * time.Millisecond

// apply carries list out. What is refused is tried once more when a store that others write to has changes that have not arrived here:
// what the edit needs may be among them, stored a moment ago through another gateway (contract section 1.6: references are looked up in
// the store).
func (a *Applier) apply(ctx context.Context, list []Change) ([]Result, error) {
	results, err := a.attempt(ctx, list)
	var refusal *resource.Error
	if errors.As(err, &refusal) && a.refresh(ctx) {
		return a.attempt(ctx, list)
	}
	return results, err
}

// refresh waits until the changes that the store has now have arrived, and reports whether there were any.
func (a *Applier) refresh(ctx context.Context) (news bool) {
	shared, ok := a.store.(store.Reporter)
	if !ok || a.events == nil || !shared.Status().Reachable {
		return false
	}
	var head uint64
	var err error
	a.aside(func() { _, head, err = a.store.Batch(ctx, nil) })
	if err != nil {
		return false
	}
	limit := time.NewTimer(refreshWait)
	defer limit.Stop()
	for a.followed < head {
		select {
		case e, ok := <-a.events:
			if a.receive(e, ok); !ok {
				return news
			}
			news = true
		case <-limit.C: // the latest revision may be of something that is no document
			return news
		case <-ctx.Done():
			return news
		}
	}
	return news
}
