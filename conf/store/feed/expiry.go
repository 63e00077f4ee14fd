package feed

import (
	"container/heap"
	"sync"
	"time"
)

const (
	// retry is the pause after an expiry that failed.
	retry = time.Second
	// recheck bounds every wait, because the wall clock that deadlines refer to may be set.
	recheck = time.Minute
)

// Expiry calls a function for every key whose time has come, on one goroutine. A key that was given several times is called at each
// of them: the callee looks at the item and decides.
type Expiry struct {
	expire func(key string) error
	mu     sync.Mutex
	queue  deadlines
	wake   chan struct{} // capacity 1: the head of the queue changed
	stop   chan struct{}
	once   sync.Once // closes stop
	done   chan struct{}
}

// NewExpiry starts the goroutine. expire must return an error only when it is to be called again later.
func NewExpiry(expire func(key string) error) *Expiry {
	x := &Expiry{expire: expire, wake: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{})}
	go x.run()
	return x
}

// Add schedules key. A zero time does nothing.
func (x *Expiry) Add(key string, at time.Time) {
	if at.IsZero() {
		return
	}
	x.mu.Lock()
	heap.Push(&x.queue, deadline{key: key, at: at})
	x.mu.Unlock()
	select {
	case x.wake <- struct{}{}:
	default:
	}
}

// Close stops the goroutine and waits for it. expire is not called afterwards.
func (x *Expiry) Close() {
	x.once.Do(func() { close(x.stop) })
	<-x.done
}

func (x *Expiry) run() {
	defer close(x.done)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-x.stop:
			return
		case <-x.wake:
		case <-timer.C:
		}
		timer.Reset(x.due())
	}
}

// due expires what is due and returns how long to wait for the next.
func (x *Expiry) due() time.Duration {
	for {
		select {
		case <-x.stop:
			return recheck
		default:
		}
		x.mu.Lock()
		if len(x.queue) == 0 {
			x.mu.Unlock()
			return recheck
		}
		next := x.queue[0]
		wait := min(time.Until(next.at), recheck)
		if wait > 0 {
			x.mu.Unlock()
			return wait
		}
		heap.Pop(&x.queue)
		x.mu.Unlock()
		if x.expire(next.key) != nil {
			x.mu.Lock()
			heap.Push(&x.queue, next)
			x.mu.Unlock()
			return retry
		}
	}
}

type deadline struct {
	at  time.Time
	key string
}

// deadlines is a heap, earliest first.
type deadlines []deadline

func (d deadlines) Len() int           { return len(d) }
func (d deadlines) Less(i, j int) bool { return d[i].at.Before(d[j].at) }
func (d deadlines) Swap(i, j int)      { d[i], d[j] = d[j], d[i] }
func (d *deadlines) Push(v any)        { *d = append(*d, v.(deadline)) }

func (d *deadlines) Pop() any {
	old := *d
	last := old[len(old)-1]
	*d = old[:len(old)-1]
	return last
}
