package etcd

import (
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// relay is the network between a client and etcd.
type relay struct {
	target   string
	listener net.Listener
	done     sync.WaitGroup

	mu    sync.Mutex
	cut   bool
	conns map[net.Conn]bool

	withholdRequests, withholdAnswers atomic.Bool
	withheld                          atomic.Int64 // bytes of requests
}

func newRelay(t *testing.T, endpoint string) *relay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{target: strings.TrimPrefix(endpoint, "http://"), listener: l, conns: map[net.Conn]bool{}}
	r.done.Go(r.serve)
	t.Cleanup(func() {
		_ = l.Close()
		r.Cut()
		r.done.Wait()
	})
	return r
}

func (r *relay) Endpoint() string { return "http://" + r.listener.Addr().String() }

// Cut ends all connections, and new ones at once, until Mend. What was withheld is lost.
func (r *relay) Cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cut = true
	for c := range r.conns {
		_ = c.Close()
	}
}

// Mend lets everything through again.
func (r *relay) Mend() {
	r.withholdRequests.Store(false)
	r.withholdAnswers.Store(false)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cut = false
}

// WithholdAnswers lets etcd hear the client and not the other way round.
func (r *relay) WithholdAnswers() { r.withholdAnswers.Store(true) }

// WithholdRequests lets nothing more through to etcd.
func (r *relay) WithholdRequests() { r.withholdRequests.Store(true) }

// Withheld returns the number of bytes that etcd did not get.
func (r *relay) Withheld() int64 { return r.withheld.Load() }

func (r *relay) serve() {
	for {
		client, err := r.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", r.target)
		if err != nil {
			_ = client.Close()
			continue
		}
		if !r.enter(client, server) {
			continue
		}
		var both sync.WaitGroup
		both.Go(func() { r.copy(server, client, &r.withholdRequests, &r.withheld) })
		both.Go(func() { r.copy(client, server, &r.withholdAnswers, new(atomic.Int64)) })
		r.done.Go(func() {
			both.Wait()
			r.mu.Lock()
			defer r.mu.Unlock()
			delete(r.conns, client)
			delete(r.conns, server)
		})
	}
}

func (r *relay) enter(conns ...net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range conns {
		if r.cut {
			_ = c.Close()
			continue
		}
		r.conns[c] = true
	}
	return !r.cut
}

// copy passes bytes on until one side ends, and then ends the other.
func (r *relay) copy(to io.WriteCloser, from io.ReadCloser, withhold *atomic.Bool, withheld *atomic.Int64) {
	defer to.Close()
	defer from.Close()
	b := make([]byte, 32<<10)
	for {
		n, err := from.Read(b)
		if err != nil {
			return
		}
		if withhold.Load() {
			withheld.Add(int64(n))
			continue
		}
		if _, err := to.Write(b[:n]); err != nil {
			return
		}
	}
}
