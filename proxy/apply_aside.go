package proxy

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"headgate/conf/store"
)

// storePatience is how long the config goroutine waits for the store before it attends to others: longer than a store takes that is well.
const storePatience = 100 * time.Millisecond

var errShutDown = fmt.Errorf("%w: shutting down", store.ErrUnavailable)

// job is what the mailbox takes.
type job struct {
	do func()
	// edit says that do writes to the store: such jobs are done one after the other.
	edit  bool
	begun atomic.Bool // or given up: whoever sets it decides
	done  chan error
}

// run does the job, unless somebody has given it up.
func (j *job) run() {
	if j.begun.CompareAndSwap(false, true) {
		j.do()
		j.done <- nil
	}
}

// drop gives the job up, unless it has begun.
func (j *job) drop(why error) {
	if j.begun.CompareAndSwap(false, true) {
		j.done <- why
	}
}

// submit runs f, which does not write to the store, on the config goroutine and waits for it.
func (a *Applier) submit(ctx context.Context, f func()) error { return a.post(ctx, &job{do: f}) }

// post has the config goroutine do j and waits for it. The error says that j was not begun.
func (a *Applier) post(ctx context.Context, j *job) error {
	j.done = make(chan error, 1)
	select {
	case a.mailbox <- j:
	case <-a.done:
		return errShutDown
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", store.ErrUnavailable, ctx.Err())
	}
	select {
	case err := <-j.done:
		return err
	case <-ctx.Done():
		j.drop(fmt.Errorf("%w: %w", store.ErrUnavailable, ctx.Err()))
		return <-j.done // once begun, a change is carried to its end
	}
}

// next does the first of the edits that have queued up, and reports whether there was one.
func (a *Applier) next() bool {
	if len(a.queue) == 0 {
		return false
	}
	j := a.queue[0]
	a.queue = a.queue[1:]
	j.run()
	return true
}

// giveUp drops the edits that have queued up.
func (a *Applier) giveUp(why error) {
	for _, j := range a.queue {
		j.drop(why)
	}
	a.queue = nil
}

// aside waits for f, which talks to the store and to nothing else. When that takes longer than a store that is well, everything but edits
// goes on meanwhile: what others have stored, the file's resources, and whoever wants to look. So a stage that was made before may be
// out of date afterwards, which changed tells. Edits queue up.
func (a *Applier) aside(f func()) {
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		f()
	}()
	patience := time.NewTimer(storePatience)
	defer patience.Stop()
	select {
	case <-answered:
		return
	case <-patience.C:
	}
	for {
		select {
		case <-answered:
			return
		case j := <-a.mailbox:
			if j.edit {
				a.queue = append(a.queue, j)
			} else {
				j.run()
			}
		case e, ok := <-a.events:
			a.receive(e, ok)
		}
	}
}
