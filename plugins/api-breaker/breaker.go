package apibreaker

import (
	"math"
	"sync/atomic"

	"headgate/proxy/phase/limit"
)

// breaker is the state of one host and path. The counts share a word, so that they change together.
type breaker struct {
	counts atomic.Uint64 // dead, successes since the last failure, failures
	opened atomic.Int64  // when the failures last reached a multiple of what opens it; valid once they have
	failed atomic.Int64  // when the last failure was noted
}

const (
	failureBits = 32
	failureMask = 1<<failureBits - 1
	oneFailure  = 1
	oneSuccess  = 1 << failureBits
	successMask = 1<<(63-failureBits) - 1
	deadBreaker = uint64(1) << 63

	second = int64(1e9)
	// idle is how long after its last failure a breaker may be dropped for the sake of memory.
	idle = 24 * 3600 * second
)

func failures(counts uint64) uint64  { return counts & failureMask }
func successes(counts uint64) uint64 { return counts >> failureBits & successMask }

// openFor is for how many nanoseconds requests are to be turned away, 0 when they are not. The breaker is open for 2, 4, 8, ... seconds, in whole seconds of the clock, the
// second in which it opens not counted, and at most for longest seconds (apisix-observed, api-breaker).
func (b *breaker) openFor(now int64, threshold uint64, longest int64) int64 {
	counts := b.counts.Load()
	if counts&deadBreaker != 0 || failures(counts) < threshold {
		return 0
	}
	opened := b.opened.Load()
	if opened == 0 {
		return 0
	}
	last := longest
	if times := failures(counts) / threshold; times < 62 {
		last = min(longest, int64(1)<<times)
	}
	until := min((opened/second+last+1)*second, opened+longest*second)
	return max(until-now, 0)
}

// fail notes a failure. alive is false when the breaker is dead.
func (b *breaker) fail(now int64, threshold uint64) (alive bool) {
	for {
		counts := b.counts.Load()
		if counts&deadBreaker != 0 {
			return false
		}
		n := min(failures(counts)+oneFailure, failureMask)
		if !b.counts.CompareAndSwap(counts, n) {
			continue
		}
		b.failed.Store(now)
		if n%threshold == 0 {
			b.opened.Store(now)
		}
		return true
	}
}

// succeed notes a success; the failures are forgotten with enough of them.
func (b *breaker) succeed(enough uint64) {
	for {
		counts := b.counts.Load()
		if counts&deadBreaker != 0 || failures(counts) == 0 {
			return
		}
		next := counts + oneSuccess
		if successes(counts)+1 >= enough {
			next = 0
		}
		if b.counts.CompareAndSwap(counts, next) {
			return
		}
	}
}

// Ends implements limit.Cell.
func (b *breaker) Ends() int64 {
	if failures(b.counts.Load()) == 0 {
		return 0
	}
	return b.failed.Load() + idle
}

// Retire implements limit.Cell.
func (b *breaker) Retire(by int64) bool {
	for {
		counts := b.counts.Load()
		switch {
		case counts&deadBreaker != 0:
			return true
		case failures(counts) != 0 && b.failed.Load()+idle > by && by != math.MaxInt64:
			return false
		case b.counts.CompareAndSwap(counts, counts|deadBreaker):
			return true
		}
	}
}

// breakers are those of all hosts and paths that have failed. Beyond the capacity of the table the one whose last failure is the oldest is
// forgotten.
type breakers struct {
	*limit.Table[breaker, *breaker]
}

func newBreakers() breakers { return breakers{limit.NewTable[breaker, *breaker]()} }

// fail notes a failure of key. It allocates only for a key that has not failed before.
func (t breakers) fail(key uint64, now int64, threshold uint64) {
	for {
		b := t.Find(key)
		if b != nil && b.fail(now, threshold) {
			return
		}
		fresh := &breaker{}
		fresh.fail(now, threshold)
		if _, inserted := t.Insert(key, fresh, now); inserted {
			return
		}
	}
}
