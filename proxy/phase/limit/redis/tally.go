package redis

import (
	"math"
	"sync"
	"sync/atomic"
	"time"

	"headgate/proxy/phase/limit"
)

// Tallies count here and tell the Redis now and then (sync_interval). What all gateways together let pass in a window may exceed the limit
// by what comes to the other gateways in one interval; in sliding windows, whose numbers follow the clock of the gateway, also by what the
// clocks differ. While the Redis is away each gateway counts what it sees itself.
type Tallies struct{ *limit.Table[tally, *tally] }

// NewTallies returns the tallies of no key yet.
func NewTallies() Tallies { return Tallies{limit.NewTable[tally, *tally]()} }

// tally has the requests of one key in one window.
type tally struct {
	seen    atomic.Int64 // known to have passed in the window, on all gateways; deadTally when it counts no more
	pending atomic.Int64 // passed here and not told to the Redis
	last    atomic.Int64 // sliding: passed in the window before
	ends    atomic.Int64
	name    []byte
	shape   limit.Shape // of the request that made it

	listed atomic.Bool // is on the list of a Ledger
	next   *tally      // on that list

	mu   sync.Mutex // of those who tell the Redis; requests never take it
	base int64      // what the Redis said last
}

const deadTally = math.MinInt64

// Ends implements limit.Cell. A sliding window still matters to the one after it.
func (t *tally) Ends() int64 {
	if t.seen.Load() == deadTally {
		return 0
	}
	if t.shape.Sliding {
		return t.ends.Load() + t.shape.Window
	}
	return t.ends.Load()
}

// Retire implements limit.Cell. What is pending is still told.
func (t *tally) Retire(by int64) bool {
	for {
		seen := t.seen.Load()
		if seen == deadTally {
			return true
		}
		if t.Ends() > by {
			return false
		}
		if t.seen.CompareAndSwap(seen, deadTally) {
			return true
		}
	}
}

// take counts a request unless the limit is reached.
func (t *tally) take(s limit.Shape, now int64) (q limit.Quota, alive bool) {
	for {
		seen := t.seen.Load()
		if seen == deadTally {
			return q, false
		}
		rest := min(max(t.ends.Load()-now, 0), s.Window)
		last := min(t.last.Load(), s.Count)
		if float64(seen)+float64(last)*float64(rest)/float64(s.Window) >= float64(s.Count) {
			return slidingQuota(s, false, seen, last, rest), true
		}
		if t.seen.CompareAndSwap(seen, seen+1) {
			t.pending.Add(1)
			return slidingQuota(s, true, seen, last, rest), true
		}
	}
}

// learn takes over what the Redis said about the window after it was told of n requests: total passed in it, and last in the one before.
func (t *tally) learn(total, n, last int64) {
	difference := total - t.base - n // by others
	t.base = total
	t.last.Store(last)
	for {
		seen := t.seen.Load()
		if seen == deadTally || t.seen.CompareAndSwap(seen, max(seen+difference, 0)) {
			return
		}
	}
}

// Ledger tells one Redis what was counted for one configuration.
type Ledger struct {
	server   *Server
	tallies  Tallies
	clock    limit.Clock
	interval time.Duration
	dirty    atomic.Pointer[tally] // a list; every tally is on one at most
}

// NewLedger returns the ledger that is told to server each interval, once Run runs.
func NewLedger(s *Server, t Tallies, clock limit.Clock, interval time.Duration) *Ledger {
	return &Ledger{server: s, tallies: t, clock: clock, interval: interval}
}

// Take counts a request of key, unless the limit is reached. It allocates only when a window begins. A fixed window begins with its first
// request here until the Redis tells when it really began.
func (l *Ledger) Take(key []byte, s limit.Shape) limit.Quota {
	now := l.clock()
	hash := l.tallies.Key(key)
	id := now / s.Window
	if s.Sliding {
		hash = window(hash, id)
	}
	for {
		t := l.tallies.Find(hash)
		if t == nil || now >= t.ends.Load() {
			t = l.begin(hash, key, s, id, now)
			if t == nil {
				continue
			}
		}
		q, alive := t.take(s, now)
		if !alive {
			continue
		}
		if q.OK {
			l.note(t)
		}
		return q
	}
}

// window mixes the number of a window into the hash of a key.
func window(hash uint64, id int64) uint64 { return hash ^ uint64(id)*0x9e3779b97f4a7c15 }

// begin adds the tally of a window that has none, and returns the one that has it now; nil when that is over already.
func (l *Ledger) begin(hash uint64, key []byte, s limit.Shape, id, now int64) *tally {
	fresh := &tally{name: append([]byte(nil), key...), shape: s}
	fresh.ends.Store(now + s.Window)
	if s.Sliding {
		fresh.ends.Store((id + 1) * s.Window)
		if before := l.tallies.Find(window(window(hash, id), id-1)); before != nil {
			fresh.last.Store(max(before.seen.Load(), 0))
		}
	}
	if t, _ := l.tallies.Insert(hash, fresh, now); t != nil && now < t.ends.Load() {
		return t
	}
	return nil
}

// note puts t on the list of what the Redis is to be told.
func (l *Ledger) note(t *tally) {
	if t.listed.Load() || !t.listed.CompareAndSwap(false, true) {
		return
	}
	for {
		t.next = l.dirty.Load()
		if l.dirty.CompareAndSwap(t.next, t) {
			return
		}
	}
}

// Run tells the Redis each interval until done is closed, and then a last time. It is for phase.Env.Go.
func (l *Ledger) Run(done <-chan struct{}) {
	l.server.start()
	ticks := time.NewTicker(l.interval)
	defer ticks.Stop()
	for {
		select {
		case <-ticks.C:
			l.push()
		case <-done:
			l.push()
			return
		}
	}
}

// maxTold is the number of tallies that the Redis is told of at a time: they leave room in the server's queue for requests.
const maxTold = maxQueue / 4

// told is a tally that the Redis is being told of.
type told struct {
	*tally
	n int64
	c *call
}

// push tells the Redis everything that is on the list.
func (l *Ledger) push() {
	list := l.dirty.Swap(nil)
	batch := make([]told, 0, maxTold)
	for list != nil {
		if l.server.away.Load() { // later
			for t := list; t != nil; {
				next := t.next
				t.listed.Store(false)
				l.note(t)
				t = next
			}
			return
		}
		for batch = batch[:0]; list != nil && len(batch) < maxTold; {
			t := list
			list = t.next
			t.next = nil
			t.listed.Store(false) // who counts from here on lists it again
			if n := t.pending.Swap(0); n > 0 && (t.shape.Sliding || l.clock() < t.ends.Load()) {
				batch = append(batch, told{t, n, l.tell(t, n)})
			}
		}
		for _, b := range batch {
			<-b.c.done // workers finish whatever they are given
			l.learn(b)
		}
		clear(batch)
	}
}

// tell hands the call that counts n requests of t to the workers.
func (l *Ledger) tell(t *tally, n int64) *call {
	s := l.server
	ms := t.shape.Window / int64(time.Millisecond)
	var c *call
	if t.shape.Sliding {
		c = s.newCall(s.pool.scripts.slide, t.name, t.ends.Load()/t.shape.Window-1, n, 2*ms)
	} else {
		c = s.newCall(s.pool.scripts.fixed, t.name, n, ms)
	}
	c.state.Store(waiting)
	s.queue <- c
	return c
}

// learn takes over the answer. What may not have arrived is told again: rather count twice than not at all.
func (l *Ledger) learn(b told) {
	r, err := b.c.reply, b.c.err
	l.server.calls.Put(b.c)
	if err != nil {
		b.pending.Add(b.n)
		l.note(b.tally)
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	last := r[1]
	if !b.shape.Sliding {
		b.ends.Store(l.clock() + r[1]*int64(time.Millisecond))
		last = 0
	}
	b.tally.learn(r[0], b.n, last)
}
