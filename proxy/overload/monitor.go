// Package overload tells how near the process is to the memory that it may have, so that it can give way before it is killed.
package overload

import (
	"sync"
	"sync/atomic"
	"time"
)

// Level is how much the process has to give way. What runs is finished at every level.
type Level uint32

const (
	// Calm: nothing is to be done.
	Calm Level = iota
	// Tight: connections that could be kept are not.
	Tight
	// Full: no request is begun.
	Full
)

func (l Level) String() string {
	switch l {
	case Calm:
		return "calm"
	case Tight:
		return "tight"
	default:
		return "full"
	}
}

// Where levels begin and end, in percent of the limit. They end below where they begin, so that they do not come and go with every request.
const (
	tightFrom, tightUntil = 85, 80
	fullFrom, fullUntil   = 95, 90
)

const (
	// lookEvery is how often the memory is measured.
	lookEvery = 100 * time.Millisecond
	// collectEvery and askEvery are how long at least lies between two collections of garbage that the monitor brings about: while there is a
	// level, and for somebody who is about to be refused.
	collectEvery = time.Second
	askEvery     = 250 * time.Millisecond
)

// Source is what a Monitor watches.
type Source interface {
	// Used is how many bytes are in use. What has not been found to be garbage counts.
	Used() int64
	// Collect finds all garbage.
	Collect()
}

// Monitor measures, beside the traffic, and publishes what the request path asks: Level and Take. A nil Monitor is that of a process
// without a limit.
//
// Garbage looks like memory in use until it is collected, and most of the time there is as much of it as the limit allows. So the monitor
// has it collected before it believes that things are tight.
type Monitor struct {
	limit  int64
	source Source

	level atomic.Uint32
	used  atomic.Int64 // when it was measured last
	// room is how much may be taken until the next measurement, which finds what was taken.
	room atomic.Int64

	mu        sync.Mutex // of those who measure
	collected time.Time  // last
	now       func() time.Time

	stop, stopped chan struct{}
}

// New returns a monitor of a process that may have limit bytes; nil when that is 0. It says Calm until Start.
func New(limit int64, s Source) *Monitor {
	if limit <= 0 {
		return nil
	}
	m := &Monitor{limit: limit, source: s, now: time.Now}
	m.room.Store(limit)
	return m
}

// Level is the present one. It costs one atomic load.
func (m *Monitor) Level() Level {
	if m == nil {
		return Calm
	}
	return Level(m.level.Load())
}

// Limit is how many bytes the process may have, 0 = any number.
func (m *Monitor) Limit() int64 {
	if m == nil {
		return 0
	}
	return m.limit
}

// Used is how many bytes were in use at the last look.
func (m *Monitor) Used() int64 {
	if m == nil {
		return 0
	}
	return m.used.Load()
}

// Take asks for n bytes for something that stays for longer than a moment, such as a body that is held. False means that they would make
// the level Full, or when it is large, Tight: a few that are large must not cost everybody else. Nothing is to be given back: the next look
// finds what has become of it.
func (m *Monitor) Take(n int, large bool) bool {
	if m == nil {
		return true
	}
	spare := int64(0)
	if large {
		spare = m.part(fullFrom - tightFrom)
	}
	return m.try(int64(n), spare) || m.search(int64(n), spare)
}

// try takes n bytes of the room if spare bytes are left.
func (m *Monitor) try(n, spare int64) bool {
	for {
		room := m.room.Load()
		if room < n+spare {
			return false
		}
		if m.room.CompareAndSwap(room, room-n) {
			return true
		}
	}
}

// search looks for room where there seems to be none.
func (m *Monitor) search(n, spare int64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.try(n, spare) { // somebody else has found some
		return true
	}
	if m.now().Sub(m.collected) < askEvery {
		return false
	}
	m.collect()
	return m.try(n, spare)
}

// collect is called with m.mu held.
func (m *Monitor) collect() (used int64) {
	m.source.Collect()
	m.collected = m.now()
	return m.measure()
}

func (m *Monitor) measure() (used int64) {
	used = m.source.Used()
	m.used.Store(used)
	m.room.Store(m.part(fullFrom) - used)
	return used
}

// part is so many percent of the limit.
func (m *Monitor) part(percent int64) int64 { return m.limit / 100 * percent }

// Start begins to measure. After each look, looked is told the level and the one before; it may take its time.
func (m *Monitor) Start(looked func(before, now Level)) {
	if m == nil {
		return
	}
	m.stop, m.stopped = make(chan struct{}), make(chan struct{})
	go func() {
		defer close(m.stopped)
		every := time.NewTicker(lookEvery)
		defer every.Stop()
		for {
			looked(m.look())
			select {
			case <-m.stop:
				return
			case <-every.C:
			}
		}
	}()
}

// Stop ends what Start has begun, and returns when it has ended.
func (m *Monitor) Stop() {
	if m == nil || m.stop == nil {
		return
	}
	close(m.stop)
	<-m.stopped
	m.stop = nil
}

// look measures once and settles the level.
func (m *Monitor) look() (before, now Level) {
	m.mu.Lock()
	defer m.mu.Unlock()
	before = m.Level()
	used := m.measure()
	if used >= m.part(fullFrom) {
		m.level.Store(uint32(Full)) // first of all: collecting takes a while
	}
	sure := false
	if (before > Calm || used >= m.part(tightFrom)) && m.now().Sub(m.collected) >= collectEvery {
		used, sure = m.collect(), true
	}
	now = m.settle(before, used, sure)
	m.level.Store(uint32(now))
	return before, now
}

// settle is the level after before when so much is in use. sure says that no garbage is in it.
func (m *Monitor) settle(before Level, used int64, sure bool) Level {
	switch {
	case used >= m.part(fullFrom), before == Full && used >= m.part(fullUntil):
		return Full
	case before > Calm && used >= m.part(tightUntil), sure && used >= m.part(tightFrom):
		return Tight
	}
	return Calm
}
