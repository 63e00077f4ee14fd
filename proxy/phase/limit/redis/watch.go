package redis

import (
	"sync"
	"time"

	"headgate/proxy/meter"
)

// Names of the metrics. Their labels are the plugin and the Redis, without users and passwords.
const (
	metricUp       = meter.OwnPrefix + "redis_up"
	metricFailures = meter.OwnPrefix + "redis_failures_total"
)

// Watch tells the operator how the servers of all pools do that belong to it. A nil Watch tells nobody.
type Watch struct {
	meter *meter.Registry
	logf  func(format string, args ...any)
	mu    sync.Mutex
	pools []*Pool
}

// NewWatch returns a Watch without pools. logf gets a line when a server goes away and when it is back, not for every request, and for each
// server at most one a second; what it cannot say at once it says as soon as a second has passed, if it still is so.
func NewWatch(m *meter.Registry, logf func(format string, args ...any)) *Watch {
	w := &Watch{meter: m, logf: logf}
	m.Collect(metricUp, []string{"plugin", "redis"}, w.emit)
	m.Describe(metricUp, "1 for a Redis that limits count in while it answers in time, else 0.")
	return w
}

func (w *Watch) emit(emit meter.Emit) {
	w.mu.Lock()
	pools := w.pools
	w.mu.Unlock()
	for _, p := range pools {
		for name, up := range p.states() {
			emit(up, p.plugin, name)
		}
	}
}

// states says of each server whether it is there. Of two with one name, which differ in what is not shown, the worse one counts.
func (p *Pool) states() map[string]float64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	states := make(map[string]float64, len(p.servers))
	for _, s := range p.servers {
		up, seen := states[s.name]
		switch {
		case s.away.Load():
			up = 0
		case !seen:
			up = 1
		}
		states[s.name] = up
	}
	return states
}

// Watch lets w tell of the servers of p, which plugin uses. It is called before the first Acquire; w may be nil.
func (p *Pool) Watch(plugin string, w *Watch) {
	p.plugin, p.watch = plugin, w
	if w == nil {
		return
	}
	w.mu.Lock()
	w.pools = append(w.pools, p)
	w.mu.Unlock()
}

// reason is why a call has failed.
type reason int

const (
	whileAway reason = iota
	slow
	busy
	broken
	reasons
)

func (r reason) String() string { return [...]string{"away", "slow", "busy", "error"}[r] }

// failures counts the calls of requests that a server did not answer, by reason.
type failures [reasons]*meter.Counter

func (w *Watch) failures(plugin, server string) (f failures) {
	for r := range f {
		if w == nil {
			f[r] = &meter.Counter{}
			continue
		}
		f[r] = w.meter.Counter(metricFailures, meter.Label{Name: "plugin", Value: plugin}, meter.Label{Name: "redis", Value: server},
			meter.Label{Name: "reason", Value: reason(r).String()})
	}
	if w != nil {
		w.meter.Describe(metricFailures, "Requests of which a Redis was not told in time, by reason: away, slow, busy, error.")
	}
	return f
}

// quiet is the time between two lines about one server.
const quiet = time.Second

// said is what the operator was told last of a server. It is tend's.
type said struct {
	away bool
	at   time.Time
}

// report tells the operator when that is no longer so.
func (s *Server) report() {
	w, away := s.pool.watch, s.away.Load()
	if w == nil || away == s.said.away || !s.said.at.IsZero() && time.Since(s.said.at) < quiet {
		return
	}
	s.said = said{away, time.Now()}
	if !away {
		w.logf("%s: %s answers again", s.pool.plugin, s.name)
		return
	}
	cause := errSlow
	if c := s.cause.Load(); c != nil {
		cause = *c
	}
	w.logf("%s: %s is away: %v", s.pool.plugin, s.name, cause)
}

// lost declares the server away, because of cause.
func (s *Server) lost(cause error) {
	if !s.away.Load() {
		s.cause.Store(&cause)
		s.away.Store(true)
	}
}
