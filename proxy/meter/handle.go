package meter

import (
	"math"
	"sync/atomic"

	"github.com/VictoriaMetrics/metrics"
)

// Counter is the handle of one counter series. It is safe for concurrent use, takes no lock and allocates nothing.
type Counter struct {
	cell metrics.Counter
	_    [56]byte // a cache line of its own: neighbours are hot at the same time on other cores
}

// Inc adds one.
func (c *Counter) Inc() { c.cell.Inc() }

// Add adds n; a counter never goes down, so a negative n is ignored.
func (c *Counter) Add(n int64) {
	if n > 0 {
		c.cell.AddInt64(n)
	}
}

// Value returns the current count.
func (c *Counter) Value() uint64 { return c.cell.Get() }

// Gauge is the handle of one gauge series: either settable, or computed by a callback at every exposition.
type Gauge struct {
	bits atomic.Uint64
	fn   atomic.Pointer[func() float64]
}

// Set stores v. A gauge with a callback ignores it.
func (g *Gauge) Set(v float64) { g.bits.Store(math.Float64bits(v)) }

// Add adds delta, which may be negative.
func (g *Gauge) Add(delta float64) { addFloat(&g.bits, delta) }

// Value returns what the exposition would show now.
func (g *Gauge) Value() float64 {
	if fn := g.fn.Load(); fn != nil {
		return (*fn)()
	}
	return math.Float64frombits(g.bits.Load())
}

// Histogram is the handle of one histogram series with fixed upper bounds. Observe is lock-free: one atomic add and one
// compare-and-swap. The library's PrometheusHistogram holds a mutex for each update, hence this one.
type Histogram struct {
	bounds []float64       // strictly increasing, shared by the family, never written
	counts []atomic.Uint64 // one per bound, not cumulative, and one more for what lies above the last bound
	sum    atomic.Uint64   // bits of a float64
}

func newHistogram(bounds []float64) *Histogram {
	return &Histogram{bounds: bounds, counts: make([]atomic.Uint64, len(bounds)+1)}
}

// Observe records v in the unit of the bounds. NaN and negative values are ignored.
func (h *Histogram) Observe(v float64) {
	if !(v >= 0) {
		return
	}
	i := 0
	for i < len(h.bounds) && v > h.bounds[i] {
		i++
	}
	h.counts[i].Add(1)
	addFloat(&h.sum, v)
}

// Count returns the number of recorded values.
func (h *Histogram) Count() uint64 {
	var n uint64
	for i := range h.counts {
		n += h.counts[i].Load()
	}
	return n
}

// Sum returns the sum of the recorded values.
func (h *Histogram) Sum() float64 { return math.Float64frombits(h.sum.Load()) }

func addFloat(bits *atomic.Uint64, delta float64) {
	for {
		old := bits.Load()
		if bits.CompareAndSwap(old, math.Float64bits(math.Float64frombits(old)+delta)) {
			return
		}
	}
}
