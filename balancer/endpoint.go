package balancer

import (
	"net"
	"strconv"
	"sync/atomic"
)

// Endpoint is one address of an upstream. Host, Port, Weight and Priority are
// fixed once requests can see the endpoint; what changes at run time is
// atomic. A zero Endpoint is healthy and idle. It must not be copied.
type Endpoint struct {
	Host     string // name or IP literal, IPv6 without brackets
	Port     uint16
	Weight   uint64 // 0: not picked unless nothing else can be (contract 3.2)
	Priority int    // higher is served first

	id string

	// Written by every request: kept away from what every pick reads.
	_ [cacheLine]byte
	// Inflight counts the attempts under way. Whoever sends adds 1 before and
	// takes 1 off after, on every path; pickers only read it.
	Inflight atomic.Int64
	_        [cacheLine]byte

	// down is the probes' verdict. Any further reason to leave an endpoint out
	// stands beside it and is asked for in Healthy.
	down atomic.Bool
}

// NewEndpoint returns a healthy endpoint with its identity made once.
func NewEndpoint(host string, port uint16, weight uint64, priority int) *Endpoint {
	return &Endpoint{Host: host, Port: port, Weight: weight, Priority: priority, id: identity(host, port)}
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
func (e *Endpoint) Healthy() bool { return !e.down.Load() }

// SetHealthy records the verdict of health checks; it holds for the next pick.
func (e *Endpoint) SetHealthy(ok bool) { e.down.Store(!ok) }

func identity(host string, port uint16) string {
	return net.JoinHostPort(host, strconv.Itoa(int(port)))
}
