package load

import (
	"math/bits"
	"time"
)

const (
	subBuckets = 64 // per power of two: values are kept within 1/64
	buckets    = 32 * subBuckets
)

// Histogram counts durations in microseconds, each kept within 1.6 % of its
// value. The zero value is empty. It is not safe for concurrent use.
type Histogram struct {
	n      uint64
	counts [buckets]uint64
}

// Record adds one duration; negative ones count as zero.
func (h *Histogram) Record(d time.Duration) {
	h.n++
	h.counts[bucket(uint64(max(d.Microseconds(), 0)))]++
}

// Merge adds the counts of other.
func (h *Histogram) Merge(other *Histogram) {
	h.n += other.n
	for i, n := range other.counts {
		h.counts[i] += n
	}
}

// Count is the number of durations recorded.
func (h *Histogram) Count() uint64 { return h.n }

// Quantile returns the smallest recorded value that at least the share q
// (0..1) of all values does not exceed, and 0 when the histogram is empty.
func (h *Histogram) Quantile(q float64) time.Duration {
	rank := min(max(uint64(q*float64(h.n)+0.5), 1), h.n)
	seen := uint64(0)
	for i, n := range h.counts {
		if seen += n; n > 0 && seen >= rank {
			return time.Duration(lowerBound(i)) * time.Microsecond
		}
	}
	return 0
}

// bucket and lowerBound are exact below 128; from there on the top seven bits
// of a value choose the bucket.
func bucket(v uint64) int {
	if v < 2*subBuckets {
		return int(v)
	}
	shift := bits.Len64(v) - 7
	return min(shift*subBuckets+int(v>>shift), buckets-1)
}

func lowerBound(i int) uint64 {
	if i < 2*subBuckets {
		return uint64(i)
	}
	shift := i/subBuckets - 1
	return uint64(i-shift*subBuckets) << shift
}
