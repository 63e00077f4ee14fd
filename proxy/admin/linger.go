package admin

import (
	"io"
	"net"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"
)

const (
	// lingerTime and lingerBytes bound what is read of a request after its answer was sent.
	lingerTime  = 2 * time.Second
	lingerBytes = 64 << 20
)

// Linger wraps a listener for NewServer: a client that is answered while it still sends gets the answer. Without it the kernel would throw
// the answer away together with the bytes that nobody has read (RFC 9112 section 9.6).
func Linger(l net.Listener) net.Listener { return lingering{l} }

type lingering struct{ net.Listener }

func (l lingering) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &lingerConn{Conn: c}, nil
}

type lingerConn struct {
	net.Conn
	early atomic.Bool // the present request was answered before it was read
}

// answeredEarly takes note that the request of ctx is answered before it was read to its end.
func answeredEarly(ctx *fasthttp.RequestCtx) {
	if c, ok := ctx.Conn().(*lingerConn); ok {
		c.early.Store(true)
	}
}

// Close implements net.Conn.
func (c *lingerConn) Close() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok && c.early.Load() && half.CloseWrite() == nil {
		_ = c.Conn.SetReadDeadline(time.Now().Add(lingerTime))
		_, _ = io.CopyN(io.Discard, c.Conn, lingerBytes)
	}
	return c.Conn.Close()
}
