package health

import (
	"container/heap"
	"context"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"headgate/balancer"
	"headgate/proxy/meter"
)

const (
	// maxProbes bounds the probes that run at a time, of all upstreams together.
	maxProbes = 256
	// growthSteps is in how many steps the share of a target grows that has recovered.
	growthSteps = 20
	// maxFlips bounds the flips that wait to be logged; what is beyond is counted.
	maxFlips = 1000
)

// Options of a Monitor.
type Options struct {
	// Dial opens the connection of a probe before ctx ends. Required.
	Dial func(ctx context.Context, host string, port int) (net.Conn, error)
	// Meter gets the metrics; nil: nobody does.
	Meter *meter.Registry
	// Prefix stands before the keys of documents in the contract's metrics; default "/apisix".
	Prefix string
	// Logf gets one line for every verdict that changes; nil drops it. It may block without harm to requests.
	Logf func(format string, args ...any)
}

// Monitor runs the checks of all upstreams: one goroutine that keeps the time, and one for each probe under way.
type Monitor struct {
	opt    Options
	probe  func(ctx context.Context, p *plan, t *Target) observation // prober.run, but for tests
	jitter func() float64                                            // 0 to 1
	counts [outcomes]*meter.Counter

	ctx     context.Context
	cancel  context.CancelFunc
	running sync.WaitGroup
	wake    chan struct{}

	mu       sync.Mutex
	closed   bool
	schedule schedule
	probes   int     // under way
	ready    []*lane // with something queued that may be able to run
	growing  []*Target
	inForce  map[*Checker]struct{}
	flips    []flip
	lost     int // flips that were not kept
}

// flip is a change of a verdict, to be logged.
type flip struct {
	observation
	target  *Target
	key     string
	up      bool
	count   int // of observations in a row
	allDown bool
}

// New starts a monitor; Close stops it.
func New(opt Options) *Monitor {
	if opt.Prefix == "" {
		opt.Prefix = "/apisix"
	}
	if opt.Logf == nil {
		opt.Logf = func(string, ...any) {}
	}
	m := &Monitor{opt: opt, jitter: rand.Float64, wake: make(chan struct{}, 1), inForce: map[*Checker]struct{}{}}
	m.probe = m.run
	m.ctx, m.cancel = context.WithCancel(context.Background())
	m.register()
	m.running.Go(m.keepTime)
	return m
}

// Close stops all probes and returns when they have ended.
func (m *Monitor) Close() {
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	m.cancel()
	m.running.Wait()
}

// Start puts c in force in the place of the version that it was prepared from. key is that of the document that holds the upstream, under
// which operators find it. What was being probed goes on in its rhythm; the first probe of a new address comes within a second. A
// Checker that was withdrawn cannot start again.
func (m *Monitor) Start(c *Checker, key string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return
	}
	c.key = key
	now := time.Now()
	for i, t := range c.targets {
		t.plan = &c.plans[i]
		switch {
		case t.probing || t.queued || t.index >= 0:
			continue
		case t.due.IsZero():
			first := min(c.interval(word(t.health.Load()).status()), time.Second)
			t.due = now.Add(time.Duration(m.jitter() * float64(first)))
		}
		heap.Push(&m.schedule, t)
	}
	if c.prev != nil {
		m.withdraw(c.prev)
		c.prev = nil
	}
	m.inForce[c] = struct{}{}
	m.poke()
}

// Withdraw ends the probes of c and takes it out of what operators see. The targets that a later version has taken over stay with that. It
// may be called at any time and more than once.
func (m *Monitor) Withdraw(c *Checker) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.withdraw(c)
}

func (m *Monitor) withdraw(c *Checker) {
	delete(m.inForce, c)
	c.prev = nil
	for _, t := range c.targets {
		if t.plan == nil || t.plan.Checker != c {
			continue
		}
		t.plan = nil
		if t.index >= 0 {
			heap.Remove(&m.schedule, t.index)
		}
	}
}

// poke makes the timekeeper look again.
func (m *Monitor) poke() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// keepTime starts what is due, lets shares grow, and logs.
func (m *Monitor) keepTime() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		m.mu.Lock()
		wait := m.turn(time.Now())
		flips, lost := m.flips, m.lost
		m.flips, m.lost = nil, 0
		m.mu.Unlock()
		for i := range flips {
			m.log(&flips[i])
		}
		if lost > 0 {
			m.opt.Logf("health: %d more verdicts have changed", lost)
		}
		timer.Reset(wait)
		select {
		case <-m.ctx.Done():
			return
		case <-m.wake:
		case <-timer.C:
		}
	}
}

// turn does what is to be done now and returns how long there is nothing else to do.
func (m *Monitor) turn(now time.Time) time.Duration {
	wait := time.Hour
	if m.closed {
		return wait
	}
	if step := m.grow(now); step > 0 {
		wait = step
	}
	for len(m.schedule) > 0 {
		t := m.schedule[0]
		if left := t.due.Sub(now); left > 0 {
			wait = min(wait, left)
			break
		}
		heap.Pop(&m.schedule)
		t.queued = true
		l := t.plan.lane
		l.queue = append(l.queue, t)
		m.list(l)
	}
	m.serve()
	return wait
}

// list makes l one of those that serve looks at.
func (m *Monitor) list(l *lane) {
	if !l.listed && len(l.queue) > 0 {
		l.listed = true
		m.ready = append(m.ready, l)
	}
}

// serve starts what waits and may run. A lane that has as many probes as it may is listed again when one of them ends.
func (m *Monitor) serve() {
	for len(m.ready) > 0 && m.probes < maxProbes {
		l := m.ready[0]
		m.ready = m.ready[1:]
		l.listed = false
		for len(l.queue) > 0 {
			t := l.queue[0]
			if t.plan != nil {
				if l.running >= t.plan.checks.Active.Concurrency {
					break
				}
				if m.probes >= maxProbes {
					m.list(l)
					return
				}
				m.launch(t)
			}
			t.queued = false
			l.queue = l.queue[1:]
		}
	}
}

func (m *Monitor) launch(t *Target) {
	p := t.plan
	t.probing = true
	p.lane.running++
	m.probes++
	m.running.Go(func() {
		o := m.probe(m.ctx, p, t)
		if m.ctx.Err() != nil { // broken off, which says nothing of the target
			return
		}
		m.counts[o.outcome].Inc()
		p.report(t, &p.active, o)
		m.probed(t, p.lane)
	})
}

// probed takes note of the end of a probe of t.
func (m *Monitor) probed(t *Target, l *lane) {
	m.mu.Lock()
	defer m.mu.Unlock()
	t.probing = false
	l.running--
	m.probes--
	if t.plan != nil {
		t.due = time.Now().Add(m.spread(t.plan.interval(word(t.health.Load()).status())))
		heap.Push(&m.schedule, t)
	}
	m.list(l)
	m.poke()
}

// spread returns an interval that differs by up to a tenth, so that probes which began together do not stay together.
func (m *Monitor) spread(interval time.Duration) time.Duration {
	return time.Duration((0.9 + 0.2*m.jitter()) * float64(interval))
}

// flipped takes note that the verdict on t has changed by the rules of c.
func (m *Monitor) flipped(c *Checker, t *Target, f flip) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	if t.plan != nil {
		c = t.plan.Checker
	}
	f.key, f.allDown = c.key, c.allDown()
	if len(m.flips) < maxFlips {
		m.flips = append(m.flips, f)
	} else {
		m.lost++
	}
	if f.up && c.checks.SlowStart > 0 {
		if t.growsFor == 0 {
			m.growing = append(m.growing, t)
		}
		t.growsSince, t.growsFor = now, c.checks.SlowStart
	}
	if t.index >= 0 { // the other verdict may have a shorter interval
		if due := now.Add(m.spread(c.interval(word(t.health.Load()).status()))); due.Before(t.due) {
			t.due = due
			heap.Fix(&m.schedule, t.index)
		}
	}
	m.poke()
}

// grow gives every target that has recovered the share that it has earned by now, and returns the time to the next step, 0 without any.
func (m *Monitor) grow(now time.Time) (step time.Duration) {
	left := m.growing[:0]
	for _, t := range m.growing {
		passed := now.Sub(t.growsSince)
		if passed >= t.growsFor || !t.health.Healthy() {
			t.health.SetShare(balancer.WholeShare)
			t.growsFor = 0
			continue
		}
		t.health.SetShare(uint32(float64(passed) / float64(t.growsFor) * balancer.WholeShare))
		left = append(left, t)
		if s := max(t.growsFor/growthSteps, 10*time.Millisecond); step == 0 || s < step {
			step = s
		}
	}
	clear(m.growing[len(left):])
	m.growing = left
	return step
}

// schedule is a heap of targets by the time at which they are due.
type schedule []*Target

func (s schedule) Len() int           { return len(s) }
func (s schedule) Less(i, j int) bool { return s[i].due.Before(s[j].due) }

func (s schedule) Swap(i, j int) {
	s[i], s[j] = s[j], s[i]
	s[i].index, s[j].index = i, j
}

// Push implements heap.Interface.
func (s *schedule) Push(x any) {
	t := x.(*Target)
	t.index = len(*s)
	*s = append(*s, t)
}

// Pop implements heap.Interface.
func (s *schedule) Pop() any {
	old := *s
	t := old[len(old)-1]
	old[len(old)-1] = nil
	*s = old[:len(old)-1]
	t.index = -1
	return t
}
