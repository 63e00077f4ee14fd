package limit

import (
	"math"
	"sync/atomic"
)

// Bucket is the leaky bucket of one key: it runs dry at a steady rate, every request pours one unit into it (contract section 4.4,
// limit-req). Its one word is the time at which it will be empty, which is the excess in units of the rate.
type Bucket struct {
	empty    atomic.Int64
	interval int64 // of the rate it was made with
}

const deadBucket = math.MinInt64

// Rate is a limit: one request per Interval nanoseconds, and up to Burst that are ahead of it.
type Rate struct {
	Interval int64
	Burst    float64
}

// PerSecond returns the rate of n requests a second.
func PerSecond(n, burst float64) Rate {
	const slowest = 1 << 60 // 36 years
	return Rate{max(int64(math.Min(math.Round(1e9/n), slowest)), 1), burst}
}

// Take pours one request into the bucket unless that would exceed the burst. wait is how long it takes until the request is no longer
// ahead of the rate, in nanoseconds. alive is false when the bucket is dead.
func (b *Bucket) Take(r Rate, now int64) (wait int64, ok, alive bool) {
	for {
		empty := b.empty.Load()
		if empty == deadBucket {
			return 0, false, false
		}
		next := max(empty, now-r.Interval) + r.Interval
		if float64(next-now)/float64(r.Interval) > r.Burst {
			return 0, false, true
		}
		if b.empty.CompareAndSwap(empty, next) {
			return max(next-now, 0), true, true
		}
	}
}

// Ends implements Cell.
func (b *Bucket) Ends() int64 {
	if empty := b.empty.Load(); empty != deadBucket {
		return empty + b.interval
	}
	return 0
}

// Retire implements Cell.
func (b *Bucket) Retire(by int64) bool {
	for {
		empty := b.empty.Load()
		if empty == deadBucket {
			return true
		}
		if empty+b.interval > by {
			return false
		}
		if b.empty.CompareAndSwap(empty, deadBucket) {
			return true
		}
	}
}

// Buckets are the buckets of many keys.
type Buckets struct{ *Table[Bucket, *Bucket] }

// NewBuckets returns the buckets of no key yet.
func NewBuckets() Buckets { return Buckets{NewTable[Bucket, *Bucket]()} }

// Take pours one request of key into its bucket; see Bucket.Take. It allocates only for a key that it does not know.
func (t Buckets) Take(key uint64, r Rate, now int64) (wait int64, ok bool) {
	for {
		if b := t.Find(key); b != nil {
			if wait, ok, alive := b.Take(r, now); alive {
				return wait, ok
			}
		}
		fresh := &Bucket{interval: r.Interval}
		fresh.empty.Store(now)
		if t.add(key, fresh, now) {
			return 0, true
		}
	}
}
