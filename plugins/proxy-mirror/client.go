package proxymirror

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

const (
	dialTime = 10 * time.Second
	// wholeTime bounds what a copy may take on its connection (contract section 6, plugin_attr.proxy-mirror).
	wholeTime = 60 * time.Second
	// maxIdle and idleTime bound the connections that are kept for later.
	maxIdle  = 16
	idleTime = 30 * time.Second
	// maxAnswer bounds the bytes of an answer that are read so that its connection can be kept.
	maxAnswer = 4 << 20
)

// client sends copies to one server. It runs no goroutine of its own.
type client struct {
	addr string
	tls  *tls.Config // nil without TLS

	mu     sync.Mutex
	closed bool
	idle   []*conn            // the latest one last
	open   map[*conn]struct{} // all of them
}

// conn is a connection; between answers nothing is buffered.
type conn struct {
	net.Conn
	raw    net.Conn // below TLS, whose farewell may take its time
	reader *bufio.Reader
	rested time.Time
}

func newClient(c *config, verify *tls.Config) *client {
	k := &client{addr: c.addr, open: map[*conn]struct{}{}}
	if c.tls {
		k.tls = &tls.Config{MinVersion: tls.VersionTLS12}
		if verify != nil {
			k.tls = verify.Clone()
		}
		k.tls.ServerName = c.host
	}
	return k
}

// send sends what method begins and reads the answer to its end; false says that there was none. A connection that was kept may be gone by
// now: a request that may be repeated (RFC 9110 section 9.2.1) is tried on a new one then.
func (k *client) send(method, request []byte) bool {
	if c := k.take(); c != nil {
		if answered := k.exchange(c, method, request); answered || !isSafe(method) {
			return answered
		}
	}
	c, err := k.dial()
	return err == nil && k.exchange(c, method, request)
}

func isSafe(method []byte) bool {
	switch string(method) {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		return true
	}
	return false
}

// exchange keeps or closes c.
func (k *client) exchange(c *conn, method, request []byte) (answered bool) {
	keep := false
	defer func() { k.leave(c, keep) }()
	if c.SetDeadline(time.Now().Add(wholeTime)) != nil {
		return false
	}
	if _, err := c.Write(request); err != nil {
		return false
	}
	r, err := http.ReadResponse(c.reader, &http.Request{Method: string(method)})
	if err != nil {
		return false
	}
	n, err := io.Copy(io.Discard, io.LimitReader(r.Body, maxAnswer))
	keep = err == nil && n < maxAnswer && !r.Close && r.StatusCode >= 200 && c.reader.Buffered() == 0
	return true
}

// take returns a connection that was kept, nil when there is none.
func (k *client) take() *conn {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.idle) == 0 {
		return nil
	}
	c := k.idle[len(k.idle)-1]
	if time.Since(c.rested) > idleTime { // and so have all before it
		for _, old := range k.idle {
			k.drop(old)
		}
		k.idle = k.idle[:0]
		return nil
	}
	k.idle = k.idle[:len(k.idle)-1]
	return c
}

// drop closes c; the caller holds the lock.
func (k *client) drop(c *conn) {
	delete(k.open, c)
	c.raw.Close()
}

func (k *client) dial() (*conn, error) {
	raw, err := net.DialTimeout("tcp", k.addr, dialTime)
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: raw, raw: raw}
	if k.tls != nil {
		c.Conn = tls.Client(raw, k.tls) // its handshake has the clock of the first write
	}
	c.reader = bufio.NewReader(c.Conn)
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		raw.Close()
		return nil, net.ErrClosed
	}
	k.open[c] = struct{}{}
	return c, nil
}

func (k *client) leave(c *conn, keep bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !keep || k.closed || len(k.idle) == maxIdle {
		k.drop(c)
		return
	}
	c.rested = time.Now()
	k.idle = append(k.idle, c)
}

// close gives up every connection.
func (k *client) close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.closed = true
	for c := range k.open {
		k.drop(c)
	}
	k.idle = nil
}
