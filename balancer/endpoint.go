package balancer

import (
	"net"
	"strconv"
	"sync/atomic"
)

// Endpoint is one address of an upstream. Host, Port, Weight and Priority are
// fixed once requests can see the endpoint; what changes at run time is
// atomic. A zero Endpoint is healthy and cannot be sent to. It must not be
// copied.
type Endpoint struct {
	Host     string // name or IP literal, IPv6 without brackets
	Port     uint16
	Weight   uint64 // 0: not picked unless nothing else can be (contract 3.2)
	Priority int    // higher is served first

	// Inflight counts the attempts under way. Whoever sends adds 1 before and
	// takes 1 off after, on every path; pickers only read it.
	Inflight *atomic.Int64

	id     string
	judged *Health // nil: own
	own    Health

	gate *Gate // nil until somebody asks for it
}

// load is written by every request: kept away from what every pick reads.
type load struct {
	_     [cacheLine]byte
	count atomic.Int64
	_     [cacheLine]byte
}

// NewEndpoint returns a healthy, idle endpoint with its identity made once.
func NewEndpoint(host string, port uint16, weight uint64, priority int) *Endpoint {
	return &Endpoint{
		Host: host, Port: port, Weight: weight, Priority: priority, Inflight: &new(load).count, id: identity(host, port),
	}
}

// Succeed makes e, of which no picker was made yet, share the count of attempts of
// the endpoint that it replaces: those that run at the change still count
// (contract 3.2, least_conn).
func (e *Endpoint) Succeed(old *Endpoint) { e.Inflight = old.Inflight }

// Judge makes h the verdict on e, of which no picker was made yet. Several
// endpoints may share one.
func (e *Endpoint) Judge(h *Health) { e.judged = h }

// Guard makes g decide whether e, of which no picker was made yet, may be used. Several endpoints may share one.
func (e *Endpoint) Guard(g *Gate) { e.gate = g }

// Gate returns what Guard has set; without that, a gate that lets everything pass.
func (e *Endpoint) Gate() *Gate {
	if e.gate == nil {
		e.gate = new(Gate)
	}
	return e.gate
}

// ID returns "host:port" (IPv6 in brackets), by which the state of an endpoint
// is kept across changes. It allocates unless NewEndpoint made e.
func (e *Endpoint) ID() string {
	if e.id != "" {
		return e.id
	}
	return identity(e.Host, e.Port)
}

// Healthy tells whether e may be picked while others are healthy too.
func (e *Endpoint) Healthy() bool { return e.health().Healthy() }

// SetHealthy records a verdict; it holds for the next pick.
func (e *Endpoint) SetHealthy(ok bool) { e.health().Set(ok) }

func (e *Endpoint) health() *Health {
	if e.judged != nil {
		return e.judged
	}
	return &e.own
}

func identity(host string, port uint16) string {
	return net.JoinHostPort(host, strconv.Itoa(int(port)))
}
