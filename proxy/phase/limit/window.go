package limit

import (
	"sync/atomic"
	"time"
)

// Window counts the requests of one key in windows of time that follow each other, exactly and without a lock.
//
// state has the number of requests in the present window and the generation of that window, so that one compare-and-swap begins the next
// window and a request that was counted tells in which. What belongs to a generation besides is kept by its parity; it is written before
// the generation begins, by whoever notices that it is due, and all who notice agree on it.
type Window struct {
	state  atomic.Uint64    // dead, generation, used
	ends   [2]atomic.Int64  // strictly increasing from one generation to the next
	before [2]atomic.Uint64 // sliding: generation, and what the window before had used
	tail   int64            // how long a window counts after its end, in nanoseconds
}

const (
	usedBits        = 48
	usedMask        = 1<<usedBits - 1
	generations     = 1 << 15
	dead            = uint64(1) << 63
	maxUsed         = usedMask >> 1 // a limit above it is never reached
	maxWindow       = int64(1<<31) * int64(time.Second)
	generationsMask = generations - 1
)

// Quota is what becomes of a request, and of the limit.
type Quota struct {
	OK bool
	// Remaining is the number of further requests that pass now.
	Remaining int64
	// Reset is the time in nanoseconds until the window ends, or, for a sliding window that is full, until a request passes again.
	Reset int64
}

// Shape is a limit: count requests in a window of that many nanoseconds. See Seconds.
type Shape struct {
	Count, Window int64
	// Sliding windows begin at multiples of their length and count a share of the window before. Fixed ones begin at the first request.
	Sliding bool
}

// Seconds returns n seconds in nanoseconds, at most 68 years.
func Seconds(n int64) int64 { return min(n, maxWindow/int64(time.Second)) * int64(time.Second) }

// NewWindow returns the window of a key's first request, which it counts, and what becomes of that.
func NewWindow(s Shape, now int64) (*Window, Quota) {
	w := &Window{}
	end := s.end(now)
	if s.Sliding {
		w.tail = s.Window
	}
	w.ends[0].Store(end)
	w.state.Store(1)
	return w, Quota{true, s.Count - 1, end - now}
}

func (s Shape) end(now int64) int64 {
	if s.Sliding {
		return (now/s.Window + 1) * s.Window
	}
	return now + s.Window
}

// Take counts a request, unless the limit is reached. alive is false when the window is dead, and q says nothing.
func (w *Window) Take(s Shape, now int64) (q Quota, alive bool) {
	limit := min(s.Count, maxUsed)
	for {
		state := w.state.Load()
		if state&dead != 0 {
			return q, false
		}
		end := w.ends[parity(state)].Load()
		if now >= end {
			w.renew(state, end, s, now)
			continue
		}
		used, rest := int64(state&usedMask), min(end-now, s.Window)
		if used >= limit {
			return Quota{false, 0, rest}, true
		}
		if s.Sliding {
			weight, wait := w.weight(state, used, rest, limit, s.Window)
			if wait > 0 {
				return Quota{false, 0, wait}, true
			}
			if !w.state.CompareAndSwap(state, state+1) { // no other request may come between the estimate and the count
				continue
			}
			return Quota{true, max(int64(float64(s.Count-used-1)-weight), 0), rest}, true
		}
		state = w.state.Add(1)
		if state&dead != 0 {
			return q, false
		}
		if used = int64(state & usedMask); used > limit {
			return Quota{false, 0, rest}, true
		}
		return Quota{true, s.Count - used, rest}, true
	}
}

// weight returns what the window before still counts, and, when that leaves no room for a request, the time until it does.
func (w *Window) weight(state uint64, used, rest, limit, length int64) (weight float64, wait int64) {
	before := w.before[parity(state)].Load()
	if generation(before) != generation(state) {
		return 0, 0
	}
	last := min(int64(before&usedMask), limit)
	weight = float64(last) * (float64(rest) / float64(length))
	if float64(used)+weight < float64(limit) {
		return weight, 0
	}
	free := float64(limit-used) / float64(last) * float64(length)
	return weight, max(rest-int64(free), 1)
}

// renew begins the window that is due at now, behind the one of state that ended at end. When somebody else is quicker it does nothing.
func (w *Window) renew(state uint64, end int64, s Shape, now int64) {
	g := (generation(state) + 1) & generationsMask
	next := g << usedBits
	at := parity(next)
	// The first who comes says when the window ends. It is later than end, which what was here before is not.
	if o := w.ends[at].Load(); o <= end {
		w.ends[at].CompareAndSwap(o, s.end(now))
	}
	if s.Sliding {
		want := next
		if w.ends[at].Load()-end == s.Window {
			want |= state & usedMask
		}
		// used grows until the generation ends, so that the largest proposal is the true one.
		if o := w.before[at].Load(); generation(o) != g || o < want {
			if !w.before[at].CompareAndSwap(o, want) {
				return
			}
		}
	}
	w.state.CompareAndSwap(state, next)
}

// Ends implements Cell.
func (w *Window) Ends() int64 {
	state := w.state.Load()
	if state&dead != 0 {
		return 0
	}
	return w.ends[parity(state)].Load() + w.tail
}

// Retire implements Cell.
func (w *Window) Retire(by int64) bool {
	for {
		state := w.state.Load()
		if state&dead != 0 {
			return true
		}
		if w.ends[parity(state)].Load()+w.tail > by {
			return false
		}
		if w.state.CompareAndSwap(state, state|dead) {
			return true
		}
	}
}

func generation(state uint64) uint64 { return state >> usedBits & generationsMask }
func parity(state uint64) uint64     { return state >> usedBits & 1 }

// Windows are the windows of many keys.
type Windows struct{ *Table[Window, *Window] }

// NewWindows returns the windows of no key yet.
func NewWindows() Windows { return Windows{NewTable[Window, *Window]()} }

// Take counts a request of key, unless the limit is reached. It allocates only for a key that it does not know.
func (t Windows) Take(key uint64, s Shape, now int64) Quota {
	for {
		if w := t.Find(key); w != nil {
			if q, alive := w.Take(s, now); alive {
				return q
			}
		}
		if fresh, q := NewWindow(s, now); t.add(key, fresh, now) {
			return q
		}
	}
}
