// Package offload runs work that no request waits for, on a bounded number of goroutines.
package offload

import (
	"time"

	"github.com/panjf2000/ants/v2"
)

// Pool is a bounded set of workers.
type Pool struct {
	workers  *ants.Pool
	panicked func(any)
}

// New returns a pool of size workers, which are started when needed. panicked is told what a task threw; the pool lives on.
func New(size int, panicked func(any)) (*Pool, error) {
	p, err := ants.NewPool(size, ants.WithNonblocking(true), ants.WithPanicHandler(panicked))
	if err != nil {
		return nil, err
	}
	return &Pool{workers: p, panicked: panicked}, nil
}

// Try hands task to a free worker. False says that there is none and that task will not run: the caller decides whether to do
// without it.
func (p *Pool) Try(task func()) bool { return p.workers.Submit(task) == nil }

// Do runs task on a free worker, or, when there is none, right here: nothing is dropped, even after Close. Whoever calls it survives a
// panic of task.
func (p *Pool) Do(task func()) {
	if p.Try(task) {
		return
	}
	defer func() {
		if r := recover(); r != nil {
			p.panicked(r)
		}
	}()
	task()
}

// Close takes no more tasks and waits for those that run, at most for the time given; past it there is an error.
func (p *Pool) Close(wait time.Duration) error { return p.workers.ReleaseTimeout(wait) }
