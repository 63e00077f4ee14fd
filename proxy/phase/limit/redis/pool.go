// Package redis counts in a Redis that several gateways share (contract sections 4.2 limit-count and 4.4 limit-req, limit-conn).
//
// No request ever talks to the Redis itself. It hands a call to one of a fixed number of workers, which send what has gathered as one
// batch, and waits for the answer for MaxWait at most, whatever dialling, TLS, a failover or a stopped server may take. After a failure
// the server counts as away: requests learn that at once, and one goroutine tries in the background until the server answers in time
// again. So a Redis in trouble costs neither time nor goroutines.
//
// What was sent is never sent again. A call that nobody waited for may have been counted, at most what the workers had sent when the
// server went away: that many requests count twice (once in the Redis, once wherever the limit was told instead), none is forgotten. A
// failover loses what the old master had not yet told the new one.
package redis

import (
	"context"
	"sync"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

// MaxWait is how long a request waits for a Redis: of the 5 ms that it may cost, one is left to the scheduler.
const MaxWait = 4 * time.Millisecond

// Pool has the servers that the plugins of one kind use. Those with the same settings share one, across routes and reloads.
type Pool struct {
	prefix  string
	wait    time.Duration
	scripts *scripts
	plugin  string // that uses it
	watch   *Watch // may be nil
	mu      sync.Mutex
	servers map[[32]byte]*Server
}

// NewPool returns a pool without servers. The names of all keys begin with prefix. wait is how long a request waits for an answer.
func NewPool(prefix string, wait time.Duration) *Pool {
	goredis.SetLogger(silence{}) // the client would write to standard error, a line for each attempt
	return &Pool{prefix: prefix, wait: wait, scripts: newScripts(), servers: map[[32]byte]*Server{}}
}

type silence struct{}

func (silence) Printf(context.Context, string, ...any) {}

// Acquire returns the server of s, to be given back with Release. It does no IO: the server is reached for the first time when something
// is to be counted, or in Run.
func (p *Pool) Acquire(s Settings) *Server {
	id := s.identity()
	p.mu.Lock()
	defer p.mu.Unlock()
	server := p.servers[id]
	if server == nil {
		server = newServer(p, id, s)
		p.servers[id] = server
	}
	server.users++
	return server
}

// Len returns the number of servers in use.
func (p *Pool) Len() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.servers)
}

// Release gives the server back. The last one closes its connections and ends its goroutines, which takes a moment when it is in trouble.
func (s *Server) Release() {
	s.pool.mu.Lock()
	s.users--
	last := s.users == 0
	if last {
		delete(s.pool.servers, s.id)
	}
	s.pool.mu.Unlock()
	if last {
		s.close()
	}
}
