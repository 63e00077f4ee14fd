package proxy

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"headgate/proxy/netpoll"
)

// edgeConn is a client's connection. The texts of its addresses are made once, not for every request.
type edgeConn struct {
	*netpoll.Conn
	peer                netip.Addr
	peerText, localText []byte
	peerPort, localPort uint16
	busy                bool // a request is under way; written by the connection's own goroutine
}

func newEdgeConn(c net.Conn) *edgeConn {
	e := &edgeConn{Conn: netpoll.NewConn(c)}
	e.peer, e.peerPort, e.peerText = address(c.RemoteAddr())
	_, e.localPort, e.localText = address(c.LocalAddr())
	return e
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
	spare *os.File // one descriptor in reserve, to accept and drop with when there are no others
	mu    sync.Mutex
	once  sync.Once
	done  chan struct{}
}

// Listen opens a TCP listener on addr ("host:port").
func Listen(ctx context.Context, addr string) (*Listener, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	spare, _ := os.Open(os.DevNull) // without it, shortage is waited out instead of shed
	return &Listener{Listener: l, spare: spare, done: make(chan struct{})}, nil
}

// maxBackoff bounds the wait between two tries to accept.
const maxBackoff = time.Second

// Accept returns the next client. It fails only when the listener was closed.
func (l *Listener) Accept() (net.Conn, error) {
	for wait := 5 * time.Millisecond; ; wait = min(2*wait, maxBackoff) {
		c, err := l.Listener.Accept()
		if err == nil {
			return newEdgeConn(c), nil
		}
		if errors.Is(err, net.ErrClosed) {
			return nil, err
		}
		if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) {
			l.shed()
		}
		select {
		case <-l.done:
			return nil, net.ErrClosed
		case <-time.After(wait):
		}
	}
}

// shed takes one client out of the queue and hangs up, so that it learns of the shortage at once.
func (l *Listener) shed() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.spare == nil {
		return
	}
	_ = l.spare.Close()
	if t, ok := l.Listener.(*net.TCPListener); ok {
		_ = t.SetDeadline(time.Now().Add(10 * time.Millisecond))
		if c, err := t.Accept(); err == nil {
			_ = c.Close()
		}
		_ = t.SetDeadline(time.Time{})
	}
	l.spare, _ = os.Open(os.DevNull)
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
