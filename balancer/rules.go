package balancer

import (
	"math"
	"sync/atomic"
	"time"
)

// Rules say what breaks a target and how it comes back. They are immutable once a Gate has seen them.
type Rules struct {
	// Unhealthy and Healthy are sets of statuses: failures and successes. What is in neither counts for the ratios alone.
	Unhealthy, Healthy Statuses
	// Failures is how many failures break the target unless Successes successes in a row come between them; 0: any number.
	Failures uint32
	// Successes is also how many probes in a row must succeed before the target is closed again; at least 1.
	Successes uint32
	// Window is the time that the ratios look back, 0 without them. They break nothing before MinRequests requests were seen in it.
	Window      time.Duration
	MinRequests uint32
	// ErrorRatio is the part of the requests, above 0 to 1, whose failure breaks the target; 0: none does.
	ErrorRatio float64
	// SlowRatio does the same for requests that took Slow or longer.
	SlowRatio float64
	Slow      time.Duration
	// Longest bounds the time for which the target stays open: 2 s, twice as long each time, up to this.
	Longest time.Duration
	// Probes is how many requests may be under way at a time while it is half-open; at least 1.
	Probes int32
	// Ramp is how long a target that has recovered takes to get its whole share back; 0: at once.
	Ramp time.Duration
}

// Statuses is a set of statuses below 600.
type Statuses [600]bool

// Has says whether the set has status.
func (s *Statuses) Has(status int) bool { return uint(status) < uint(len(s)) && s[status] }

// Outcome is what a request to a target came to.
type Outcome struct {
	Status int // of the answer, or what its failure stands for
	// Took is the time until that was known.
	Took time.Duration
	// Ago is how long ago the request was sent, when that is longer.
	Ago time.Duration
}

// openFor is how long a target is open that has broken for the level-th time in a row, from 1.
func (r *Rules) openFor(level uint8) time.Duration {
	d := r.Longest
	if level < 30 {
		d = min(d, time.Second<<level)
	}
	return d
}

// slow says whether the trigger for slow answers is on and o is one.
func (r *Rules) slow(o *Outcome) bool { return r.SlowRatio > 0 && o.Took >= r.Slow }

const (
	// windowParts is in how many parts a window is forgotten: what is older than Window counts for at most a tenth of it longer.
	windowParts = 10

	countBits = 16
	countMask = 1<<countBits - 1
	tickShift = 3 * countBits
)

// window counts the requests of the last while. Each word has the requests, failures and slow answers of one part of it, and the number
// of the part modulo 2^16, so that they change together. Beyond 65,535 requests in a part all three are halved, which keeps the ratios.
type window [windowParts]atomic.Uint64

// windowSum is what a window has counted.
type windowSum struct{ total, failed, slow uint64 }

// add counts a request at now and returns the sum with it.
func (w *window) add(now int64, length time.Duration, failed, slow bool) (sum windowSum) {
	tick := now / max(int64(length)/windowParts, 1)
	tag := uint64(tick) & countMask
	var own uint64
	for cell := &w[tick%windowParts]; ; {
		old := cell.Load()
		total, fails, slows := old&countMask, old>>countBits&countMask, old>>(2*countBits)&countMask
		switch {
		case old>>tickShift != tag:
			total, fails, slows = 0, 0, 0
		case total == countMask:
			total, fails, slows = total/2, fails/2, slows/2
		}
		total++
		if failed {
			fails++
		}
		if slow {
			slows++
		}
		own = tag<<tickShift | slows<<(2*countBits) | fails<<countBits | total
		if cell.CompareAndSwap(old, own) {
			break
		}
	}
	for i := range w {
		v := w[i].Load()
		if int64(i) == tick%windowParts {
			v = own
		}
		if age := (tag - v>>tickShift) & countMask; age < windowParts {
			sum.total += v & countMask
			sum.failed += v >> countBits & countMask
			sum.slow += v >> (2 * countBits) & countMask
		}
	}
	return sum
}

// forget empties the window.
func (w *window) forget() {
	for i := range w {
		w[i].Store(0)
	}
}

// reaches says whether part of total is at least ratio.
func reaches(part, total uint64, ratio float64) bool {
	return ratio > 0 && part > 0 && float64(part) >= math.Nextafter(ratio*float64(total), 0)
}
