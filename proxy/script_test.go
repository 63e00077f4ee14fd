package proxy

import (
	"bytes"
	"io"
	"net"
	"time"

	"github.com/valyala/fasthttp"
)

// scriptConn is a connection out of memory: what the client says is there from the start, what it gets is collected.
type scriptConn struct {
	in     io.Reader
	out    bytes.Buffer
	mute   bool // throw away what the client gets
	closed bool
}

func (c *scriptConn) Read(p []byte) (int, error) { return c.in.Read(p) }

func (c *scriptConn) Write(p []byte) (int, error) {
	if c.closed {
		return 0, net.ErrClosed
	}
	if c.mute {
		return len(p), nil
	}
	return c.out.Write(p)
}

func (c *scriptConn) Close() error {
	c.closed = true
	return nil
}

// serveConn serves a connection that did not come from a Listener.
func (s *Server) serveConn(c net.Conn) {
	e := newEdgeConn(c)
	s.connState(e, fasthttp.StateNew)
	_ = s.http.ServeConn(e)
}

var scriptAddr = &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 4711}

func (c *scriptConn) LocalAddr() net.Addr              { return scriptAddr }
func (c *scriptConn) RemoteAddr() net.Addr             { return scriptAddr }
func (c *scriptConn) SetDeadline(time.Time) error      { return nil }
func (c *scriptConn) SetReadDeadline(time.Time) error  { return nil }
func (c *scriptConn) SetWriteDeadline(time.Time) error { return nil }
