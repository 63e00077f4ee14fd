// Package upstream carries an exchange to an endpoint and brings the answer back: dialling, TLS, connection pools, timeouts, the one
// retry loop, the framing of bodies, and the Hub that keeps connections across snapshots.
package upstream

import (
	"sync"
	"time"

	"headgate/balancer"
	"headgate/proxy/fault"
	"headgate/proxy/upstream/dns"
	"headgate/proxy/upstream/health"
)

// Hub owns every connection pool and all health checks. Pools are shared by identity and counted, so that an edit of a route leaves the
// connections of its upstream alone. It outlives all snapshots.
type Hub struct {
	resolver *dns.Resolver
	filter   filter
	epoch    time.Time
	failed   func(endpoint string, f *fault.Fault, err error)
	monitor  *health.Monitor // nil without health checks
	gates    *balancer.Gates

	discovery    *dns.Resolver // nil without
	undiscovered bool          // upstreams that cannot be discovered are accepted
	news         chan struct{}
	logf         func(format string, args ...any)

	mu       sync.Mutex
	pools    map[string]*Pool
	services map[*service]struct{} // in force

	stop     chan struct{}
	done     chan struct{}
	watching sync.WaitGroup // who tells of breakers
}

// sweepEvery is how often idle connections are looked through.
const sweepEvery = time.Second

// NewHub starts a hub without health checks and discovery that resolves names with r; Close stops it, and r. failed is told of every connection that could not be made for a request, may
// be nil, and must not block.
func NewHub(r *dns.Resolver, failed func(endpoint string, f *fault.Fault, err error)) *Hub {
	h := &Hub{
		resolver: r, epoch: time.Now(), failed: failed, gates: balancer.NewGates(nil), pools: map[string]*Pool{}, services: map[*service]struct{}{},
		news: make(chan struct{}, 1), logf: func(string, ...any) {}, stop: make(chan struct{}), done: make(chan struct{}),
	}
	go h.sweep()
	return h
}

// Gates are those of all routes, branches and endpoints that are used by what is compiled with the hub.
func (h *Hub) Gates() *balancer.Gates { return h.gates }

// Close stops all probes and the hub's goroutines, and closes all idle connections.
func (h *Hub) Close() {
	if h.monitor != nil {
		h.monitor.Close()
	}
	close(h.stop)
	<-h.done
	h.watching.Wait()
	h.resolver.Close()
	if h.discovery != nil {
		h.discovery.Close()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, p := range h.pools {
		p.close()
	}
}

// acquire returns the pool with the given identity, made by build when there is none, and counts the caller as a user.
func (h *Hub) acquire(key string, build func() *Pool) *Pool {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.pools[key]
	if p == nil {
		p = build()
		h.pools[key] = p
	}
	p.refs++
	return p
}

// release undoes one acquire; the last one closes the pool.
func (h *Hub) release(p *Pool) {
	h.mu.Lock()
	p.refs--
	last := p.refs == 0
	if last {
		delete(h.pools, p.key)
	}
	h.mu.Unlock()
	if last {
		p.close()
		p.dial.release()
	}
}

// Connections returns how many upstream connections are open and how many of them are idle.
func (h *Hub) Connections() (open, idle int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, p := range h.pools {
		open += int(p.open.Load())
		for i := range p.slots {
			if p.slots[i].conn.Load() != nil {
				idle++
			}
		}
	}
	return open, idle
}

func (h *Hub) sweep() {
	defer close(h.done)
	t := time.NewTicker(sweepEvery)
	defer t.Stop()
	for {
		select {
		case <-h.stop:
			return
		case now := <-t.C:
			h.mu.Lock()
			pools := make([]*Pool, 0, len(h.pools))
			for _, p := range h.pools {
				pools = append(pools, p)
			}
			h.mu.Unlock()
			for _, p := range pools {
				p.sweep(now)
			}
		}
	}
}
