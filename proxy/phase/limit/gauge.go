package limit

import (
	"math"
	"sync/atomic"
)

// Gauge counts the requests of one key that are in flight (contract section 4.4, limit-conn).
type Gauge struct{ n atomic.Int64 }

const deadGauge = math.MinInt64

// Enter counts a request unless limit are there already. n is the number of requests with it. alive is false when the gauge is dead.
func (g *Gauge) Enter(limit int64) (n int64, ok, alive bool) {
	for {
		n = g.n.Load()
		if n == deadGauge {
			return 0, false, false
		}
		if n >= limit {
			return n, false, true
		}
		if g.n.CompareAndSwap(n, n+1) {
			return n + 1, true, true
		}
	}
}

// Leave ends what Enter began. A gauge with requests in it is never dropped, so that it still is the key's.
func (g *Gauge) Leave() { g.n.Add(-1) }

// Ends implements Cell.
func (g *Gauge) Ends() int64 {
	if g.n.Load() > 0 {
		return math.MaxInt64
	}
	return 0
}

// Retire implements Cell.
func (g *Gauge) Retire(int64) bool {
	return g.n.CompareAndSwap(0, deadGauge) || g.n.Load() == deadGauge
}

// Gauges are the gauges of many keys.
type Gauges struct{ *Table[Gauge, *Gauge] }

// NewGauges returns the gauges of no key yet.
func NewGauges() Gauges { return Gauges{NewTable[Gauge, *Gauge]()} }

// Enter counts a request of key unless limit are there already, and returns the gauge that it must leave. Without a gauge, full tells a
// table that has no room from a limit that is reached. It allocates only for a key that it does not know.
func (t Gauges) Enter(key uint64, limit, now int64) (g *Gauge, n int64, full bool) {
	for {
		if g = t.Find(key); g != nil {
			n, ok, alive := g.Enter(limit)
			switch {
			case ok:
				return g, n, false
			case alive:
				return nil, n, false
			}
		}
		if limit < 1 {
			return nil, 0, false
		}
		fresh := &Gauge{}
		fresh.n.Store(1)
		switch cell, inserted := t.Insert(key, fresh, now); {
		case inserted:
			return fresh, 1, false
		case cell == nil:
			return nil, 0, true
		}
	}
}
