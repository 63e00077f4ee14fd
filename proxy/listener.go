package proxy

import (
	"container/list"
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"headgate/proxy/fault"
	"headgate/proxy/netpoll"
)

// edgeConn is a client's connection. The texts of its addresses are made once, not for every request.
type edgeConn struct {
	*netpoll.Conn
	peer                netip.Addr
	peerText, localText []byte
	peerPort, localPort uint16

	patience time.Duration // for the client to take one write; 0 = for ever
	pause    time.Duration // the client may make one within a request body; 0 = it has no clock of its own
	heard    bool          // the client has sent something
	stalled  bool          // the client has taken nothing for its patience
	until    time.Time     // what the last read deadline from outside was
	in       intake
	server   *Server // that serves it, nil for listeners of others
	presence netpoll.Presence
	busy     atomic.Bool // a request is under way
	tunnel   *tunnel     // what it carries since it has switched protocols
	tls      *tlsConn    // that lies over it; nil on a plain connection

	// rest is from when on, by the server's clock, the connection may be dismissed; 0 = it has a request under way.
	rest    atomic.Int64
	refused bool // there is no room for it
	told    bool // it has been told so

	settled  atomic.Bool // it has been answered, and nothing has come since
	parking  atomic.Bool // its Read has ended so that it is parked
	woken    bool        // it was parked, and nothing has come since
	answered uint64      // how many requests have been,
	before   uint64      // and how many before it was parked last

	// What the server's crowd knows of it, under its lock.
	going  bool          // it has been told to go
	client netip.Addr    // whose it is, when those are counted
	berth  *list.Element // in the lot; nil when it is not parked
}

func newEdgeConn(c net.Conn) *edgeConn {
	e := &edgeConn{Conn: netpoll.NewConn(c)}
	e.in.c, e.in.src = e, socketReader{e}
	boundUnsent(c)
	e.peer, e.peerPort, e.peerText = address(c.RemoteAddr())
	_, e.localPort, e.localText = address(c.LocalAddr())
	return e
}

// edgeConnOf finds the connection below TLS, or what fasthttp was given itself; nil when it did not come from a Listener.
func edgeConnOf(nc net.Conn) *edgeConn {
	switch c := nc.(type) {
	case *edgeConn:
		return c
	case *tlsConn:
		return c.raw
	}
	return nil
}

// SetReadDeadline bounds reads. Request bodies have clocks of their own.
func (c *edgeConn) SetReadDeadline(t time.Time) error {
	c.until = t
	return c.Conn.SetReadDeadline(t)
}

// Read delivers what the intake lets through; below TLS, what comes from the socket.
func (c *edgeConn) Read(p []byte) (int, error) {
	if c.refused {
		return 0, net.ErrClosed
	}
	if c.tls != nil {
		return socketReader{c}.Read(p)
	}
	return c.in.read(p)
}

// top is the connection above TLS.
func (c *edgeConn) top() net.Conn {
	if c.tls != nil {
		return c.tls
	}
	return c
}

// socketReader reads what comes from the socket.
type socketReader struct{ c *edgeConn }

func (r socketReader) Read(p []byte) (int, error) {
	n, err := r.c.Conn.Read(p)
	if n > 0 && !r.c.heard { // with HTTP/2 others look at it meanwhile
		r.c.heard = true
	}
	return n, err
}

// writePiece is how many bytes a client must take within its patience: a slow client is not one that has stopped.
const writePiece = 64 << 10

func (c *edgeConn) Write(p []byte) (sent int, err error) {
	if c.tls != nil {
		c.tls.standUp()
	}
	if c.patience == 0 {
		return c.Conn.Write(p)
	}
	for {
		if err = c.SetWriteDeadline(time.Now().Add(c.patience)); err != nil {
			return sent, err
		}
		n, err := c.Conn.Write(p[sent:min(len(p), sent+writePiece)])
		if sent += n; err != nil || sent == len(p) {
			if errors.Is(err, os.ErrDeadlineExceeded) && !c.stalled && c.server != nil && c.tunnel == nil {
				c.stalled = true // TLS may want to say goodbye
				c.server.g.count(fault.WriteTimeout)
			}
			return sent, err
		}
	}
}

// aborted counts a client that has left in the middle of its request.
func (c *edgeConn) aborted() {
	if c.server != nil {
		c.server.g.aborts.request.Inc()
	}
}

// abort closes the connection so that the client sees an error, not the end of the stream.
func (c *edgeConn) abort() {
	if t, ok := c.Conn.Conn.(*net.TCPConn); ok {
		_ = t.SetLinger(0)
	}
	_ = c.Conn.Close()
}

// maxLingering bounds how many clients are waited for that still send although they have been answered.
const maxLingering = 1024

// Close is for the goroutine that serves the connection. A client that may still be sending gets the time to find its answer. It does nothing
// to a connection that is being parked.
func (c *edgeConn) Close() error {
	if c.parking.Load() {
		return nil
	}
	if s := c.server; s != nil && (c.in.midway() || c.told) {
		if c.busy.Swap(false) { // a drain waits for answers, not for this
			s.busy.Add(-1)
		}
		if s.linger.Add(1) <= maxLingering {
			netpoll.Linger(c.Conn.Conn)
		}
		s.linger.Add(-1)
	}
	return c.Conn.Close()
}

func address(a net.Addr) (netip.Addr, uint16, []byte) {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.Addr{}, 0, nil
	}
	ap := t.AddrPort()
	addr := ap.Addr().Unmap()
	return addr, ap.Port(), []byte(addr.String())
}

// Listener stands between the kernel and fasthttp, whose accept loop ends for good on the first error. Shortage of descriptors and
// connections that were reset in the queue are waited out here.
type Listener struct {
	net.Listener
	last  atomic.Bool // only those in the queue are still accepted
	spare *os.File    // one descriptor in reserve, to accept and drop with when there are no others
	mu    sync.Mutex
	once  sync.Once
	done  chan struct{}
}

// Listen opens a TCP listener on addr ("host:port"). An IPv4 address takes IPv4 only, 0.0.0.0 too, which Go would open for both; an
// empty host takes both.
func Listen(ctx context.Context, addr string) (*Listener, error) {
	network := "tcp"
	if ap, err := netip.ParseAddrPort(addr); err == nil && ap.Addr().Is4() {
		network = "tcp4"
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	return Adopt(l), nil
}

// Adopt makes a Listener of a socket that somebody else has opened. It belongs to the Listener then.
func Adopt(l net.Listener) *Listener {
	own := &Listener{Listener: l, done: make(chan struct{})}
	own.reserve()
	return own
}

// Descriptor returns a copy of the socket, which the caller closes. Clients that nobody has accepted yet are in the queue of both.
func (l *Listener) Descriptor() (fd int, err error) {
	sc, ok := l.Listener.(syscall.Conn)
	if !ok {
		return -1, errors.ErrUnsupported
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return -1, err
	}
	fd = -1
	failed := raw.Control(func(s uintptr) { fd, err = unix.FcntlInt(s, unix.F_DUPFD_CLOEXEC, 0) })
	return fd, errors.Join(failed, err)
}

// Waits between two tries to accept.
const (
	minBackoff = 5 * time.Millisecond
	maxBackoff = time.Second
)

// Accept returns the next client. It fails only when the listener was closed.
func (l *Listener) Accept() (net.Conn, error) {
	for wait := minBackoff; ; wait = min(2*wait, maxBackoff) {
		c, err := l.Listener.Accept()
		if err == nil {
			return newEdgeConn(c), nil
		}
		if errors.Is(err, net.ErrClosed) {
			return nil, net.ErrClosed
		}
		if l.last.Load() {
			if c := l.queued(); c != nil {
				return newEdgeConn(c), nil
			}
			_ = l.Close()
			return nil, net.ErrClosed
		}
		if (errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)) && l.shed() {
			wait = minBackoff // the queue moves
		}
		select {
		case <-l.done:
			return nil, net.ErrClosed
		case <-time.After(wait):
		}
	}
}

// Finish closes the listener when the clients that wait in its queue have been accepted: the kernel would reset them. It does not wait for
// that, and needs somebody who accepts.
func (l *Listener) Finish() {
	t, ok := l.Listener.(*net.TCPListener)
	if !ok {
		_ = l.Close()
		return
	}
	l.last.Store(true)
	_ = t.SetDeadline(time.Unix(1, 0)) // Accept goes on in the queue; it fails only when the listener is closed
}

// queued takes a client out of the queue, nil when there is none.
func (l *Listener) queued() net.Conn {
	sc, ok := l.Listener.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil
	}
	fd := -1
	err = raw.Control(func(s uintptr) {
		for fd < 0 {
			n, _, err := unix.Accept4(int(s), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
			if err == nil {
				fd = n
			} else if !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.ECONNABORTED) {
				return
			}
		}
	})
	if err != nil || fd < 0 {
		return nil
	}
	f := os.NewFile(uintptr(fd), "client")
	defer f.Close() // the connection has a descriptor of its own
	c, err := net.FileConn(f)
	if err != nil {
		return nil
	}
	return c
}

// shed takes one client out of the queue and hangs up, so that it learns of the shortage at once.
func (l *Listener) shed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	t, ok := l.Listener.(*net.TCPListener)
	if l.spare == nil || !ok {
		l.reserve() // somebody else was faster the last time
		return false
	}
	_ = l.spare.Close()
	defer l.reserve()
	_ = t.SetDeadline(time.Now().Add(10 * time.Millisecond))
	defer func() {
		_ = t.SetDeadline(time.Time{})
		if l.last.Load() { // Finish has come in between
			_ = t.SetDeadline(time.Unix(1, 0))
		}
	}()
	c, err := t.Accept()
	if err != nil {
		return false
	}
	_ = c.Close()
	return true
}

// reserve opens the spare descriptor, unless the listener has been closed. l.mu is held.
func (l *Listener) reserve() {
	l.spare = nil
	select {
	case <-l.done:
	default:
		l.spare, _ = os.Open(os.DevNull) // without it, shortage is waited out instead of shed
	}
}

// Close stops accepting.
func (l *Listener) Close() error {
	err := net.ErrClosed
	l.once.Do(func() {
		close(l.done)
		err = l.Listener.Close()
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.spare != nil {
			_ = l.spare.Close()
			l.spare = nil
		}
	})
	return err
}
