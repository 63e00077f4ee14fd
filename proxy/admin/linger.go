package admin

import (
	"net"
	"sync/atomic"

	"github.com/valyala/fasthttp"

	"headgate/proxy/netpoll"
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
	if c.early.Load() {
		netpoll.Linger(c.Conn)
	}
	return c.Conn.Close()
}
