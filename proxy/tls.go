package proxy

import (
	"container/list"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"headgate/proxy/fault"
	"headgate/proxy/meter"
	"headgate/proxy/snapshot"
)

// TLSOptions are the bounds of TLS listeners. Which certificates are shown, and how, is for the snapshot to say.
type TLSOptions struct {
	// HandshakeTimeout is how long a client may take from its connection to the end of its handshake; 0 = 10 s.
	HandshakeTimeout time.Duration
	// MaxHandshakes bounds how many are under way at the same time; 0 = 1024. More of them wait.
	MaxHandshakes int
	// FallbackSNI is what a client that names no server is taken to ask for, "" for nothing.
	FallbackSNI string
	// HTTP2 serves clients that choose it; the snapshot's certificates must offer "h2" for that.
	HTTP2 bool
}

const (
	defaultHandshakeTimeout = 10 * time.Second
	defaultMaxHandshakes    = 1024
)

// Faults of connections whose client has to prove who it is.
var (
	// misdirected: the connection was made for another name, so that nothing is known of the client under this one (RFC 9110 section
	// 15.5.20).
	misdirected = &fault.Fault{Code: "misdirected", Side: fault.Client, Status: 421, Retry: fault.Never}
	// unproved: contract section 2.6.
	unproved = &fault.Fault{Code: "client_certificate", Side: fault.Client, Status: 400, Retry: fault.Never}
)

// tlsEdge is what all TLS connections of a server share.
type tlsEdge struct {
	live     *snapshot.Live
	base     *tls.Config
	timeout  time.Duration
	fallback string
	gate     gate
	// desks are for handshakes that compute, from a ClientHello to the answer to it: there are fewer than processors, so that requests are
	// served meanwhile.
	desks chan struct{}

	full, resumed, failed, late *meter.Counter
}

func newTLSEdge(live *snapshot.Live, o TLSOptions, r *meter.Registry) *tlsEdge {
	e := &tlsEdge{
		live: live, timeout: o.HandshakeTimeout, fallback: strings.ToLower(o.FallbackSNI), desks: make(chan struct{}, max(runtime.GOMAXPROCS(0)/2, 1)),
	}
	if e.timeout <= 0 {
		e.timeout = defaultHandshakeTimeout
	}
	limit := o.MaxHandshakes
	if limit <= 0 {
		limit = defaultMaxHandshakes
	}
	e.gate.open(limit)
	count := func(result string) *meter.Counter {
		return r.Counter(meter.Handshakes, meter.Label{Name: "result", Value: result})
	}
	e.full, e.resumed, e.failed, e.late = count("full"), count("resumed"), count("failed"), count("timeout")
	// It has no certificate: where no other configuration takes over, the client is told that its name is not known here.
	e.base = &tls.Config{GetConfigForClient: e.configFor, MinVersion: tls.VersionTLS12}
	return e
}

// configFor finds out what a client is served with, from the snapshot of this moment.
func (e *tlsEdge) configFor(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	c, ours := hello.Conn.(*edgeConn)
	if ours = ours && c.tls != nil; ours {
		e.gate.speaks(c.tls)
		e.desks <- struct{}{} // nobody waits for others while at a desk
		c.tls.atDesk = true
	}
	name := strings.ToLower(hello.ServerName)
	if name == "" {
		name = e.fallback
	}
	cert := e.live.Current().Certificate([]byte(name)) // no pin: there is nothing in it to be closed
	if cert == nil {
		return nil, nil
	}
	if ours {
		c.tls.name, c.tls.auth = name, cert.Client
	}
	return cert.Config(hello), nil
}

// tlsListener turns clients into TLS clients. Their handshakes run where they are served, not where they are accepted.
type tlsListener struct {
	net.Listener
	edge *tlsEdge
}

func (l *tlsListener) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c, ok := nc.(*edgeConn)
	if !ok {
		c = newEdgeConn(nc)
	}
	c.tls = &tlsConn{Conn: tls.Server(c, l.edge.base), edge: l.edge, raw: c, begun: time.Now()}
	c.in.src = c.tls.Conn
	return c.tls, nil
}

// ServeTLS accepts TLS clients on l until it is closed.
func (s *Server) ServeTLS(l net.Listener) error {
	return s.Serve(&tlsListener{l, s.tls})
}

// tlsConn is a client's connection with TLS over it.
type tlsConn struct {
	*tls.Conn
	edge  *tlsEdge
	raw   *edgeConn
	begun time.Time
	ready bool // the handshake has succeeded

	atDesk bool // known to its goroutine

	place   *list.Element // in the gate, whose lock guards it, and the next two
	entered time.Time
	spoken  bool

	name  string               // what the client has asked for, in lower case
	auth  *snapshot.ClientAuth // that was in force for the name
	shown []*x509.Certificate  // by the client, its own first
	http2 bool
	// proved is what the client has satisfied last.
	proved atomic.Pointer[snapshot.ClientAuth]
}

var (
	errNotReady = errors.New("tls: handshake not complete")
	errCrowded  = errors.New("tls: handshake timed out while others were served")
)

// Handshake waits for its turn and lets the client prove itself and us. After an error the connection is closed, and counts as one on
// which nobody has asked for anything.
func (c *tlsConn) Handshake() error {
	if c.ready {
		return nil
	}
	if c.raw.refused {
		return noRoom
	}
	err := c.handshake()
	if err != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) || err == errCrowded {
			c.edge.late.Inc()
		} else {
			c.edge.failed.Inc()
		}
		_ = c.raw.Conn.Close()
		c.raw.heard = false
		return err
	}
	state := c.ConnectionState()
	c.shown, c.http2 = state.PeerCertificates, state.NegotiatedProtocol == protoHTTP2
	if c.http2 {
		c.raw.in.mode = passing
	}
	if len(c.shown) > 0 {
		c.proved.Store(c.auth)
	}
	c.ready = true
	if state.DidResume {
		c.edge.resumed.Inc()
	} else {
		c.edge.full.Inc()
	}
	return nil
}

func (c *tlsConn) handshake() error {
	end := c.begun.Add(c.edge.timeout)
	if !c.edge.gate.enter(c, end) {
		return errCrowded
	}
	defer c.edge.gate.leave(c)
	defer c.standUp()
	if err := c.raw.SetDeadline(end); err != nil {
		return err
	}
	if err := c.Conn.Handshake(); err != nil {
		return err
	}
	if !time.Now().Before(end) { // a deadline is moved by every write, see edgeConn.Write
		return os.ErrDeadlineExceeded
	}
	return c.raw.SetDeadline(time.Time{})
}

// standUp leaves the desk to somebody else.
func (c *tlsConn) standUp() {
	if c.atDesk {
		c.atDesk = false
		<-c.edge.desks
	}
}

// Read delivers what the intake lets through.
func (c *tlsConn) Read(p []byte) (int, error) { return c.raw.in.read(p) }

// Write keeps fasthttp from answering clients that it has no room for: that would take a handshake, on the goroutine that accepts.
func (c *tlsConn) Write(p []byte) (int, error) {
	if !c.ready {
		return 0, errNotReady
	}
	return c.Conn.Write(p)
}

// Close says goodbye, unless the connection is being parked.
func (c *tlsConn) Close() error {
	if c.raw.parking.Load() {
		return nil
	}
	return c.Conn.Close()
}

// challenge says why the client of a TLS connection must not have what it asks for: the Host that it names asks clients for certificates,
// and this connection was made for another name, or the client has shown none that is good enough by now.
//
// The snapshot's word counts, not that of the handshake. It is asked again when the document has changed since.
func (x *exchange) challenge() *fault.Fault {
	if !x.Request.TLS || !x.snap.AsksClients() {
		return nil
	}
	cert := x.snap.Certificate(x.Request.Host)
	if cert == nil || cert.Client == nil {
		return nil
	}
	c := x.conn()
	switch {
	case c == nil || c.tls == nil || c.tls.name != string(x.Request.Host):
		return misdirected
	case c.tls.proves(cert.Client), cert.Client.Skips(&x.Exchange):
		return nil
	}
	return unproved
}

// proves says whether the client satisfies a.
func (c *tlsConn) proves(a *snapshot.ClientAuth) bool {
	if c.proved.Load() == a {
		return true
	}
	if len(c.shown) == 0 || a.Verify(c.shown) != nil {
		return false
	}
	c.proved.Store(a)
	return true
}
