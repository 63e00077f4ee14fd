// Package netpoll is what the gateway needs of the kernel and of Go's network poller beyond net.Conn.
package netpoll

import (
	"errors"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"
)

// Conn is a connection on which moving a deadline further away costs nothing. Every request moves deadlines several times, nearly always
// to later moments, and each move of the poller's timer costs more than parsing a header line. So a timer that is armed for an
// earlier moment is left alone; when it fires too early, the operation that it interrupted arms it anew and goes on.
//
// One goroutine at a time may read and one may write, each setting its own deadline. Unlike with a bare net.Conn, a deadline must not be
// set while another goroutine is in Read or Write of that direction; to get that one out, close the connection.
type Conn struct {
	net.Conn
	raw         *raw // nil when the connection is not a socket of the kernel
	read, write clock
	interrupted atomic.Bool
	nudged      atomic.Bool
	yields      bool
}

// clock is the deadline of one direction: what was asked for, and what the poller was told. Zero means none.
type clock struct {
	want, armed time.Time
}

// NewConn wraps c, which must have no deadlines yet; from here on they are set through the Conn alone.
func NewConn(c net.Conn) *Conn {
	n := &Conn{Conn: c}
	if s, ok := c.(syscall.Conn); ok && direct {
		if rc, err := s.SyscallConn(); err == nil {
			n.raw = newRaw(rc)
		}
	}
	return n
}

// SetReadDeadline makes reads fail from t on; the zero value never.
func (c *Conn) SetReadDeadline(t time.Time) error {
	if c.read.suffices(t) {
		return nil
	}
	return c.armRead(t)
}

func (c *Conn) armRead(t time.Time) error {
	err := c.Conn.SetReadDeadline(t)
	if c.interrupted.Load() { // the interruption may have come before t was armed
		err = c.Conn.SetReadDeadline(longAgo)
	}
	return err
}

// longAgo is a deadline that has passed.
var longAgo = time.Unix(1, 0)

// Interrupt makes the Read that is under way, and every later one, fail with os.ErrDeadlineExceeded. Unlike everything else it may be
// called by any goroutine at any time. Writes are not touched.
func (c *Conn) Interrupt() {
	c.interrupted.Store(true)
	_ = c.Conn.SetReadDeadline(longAgo)
}

// Interrupted says whether Interrupt was called.
func (c *Conn) Interrupted() bool { return c.interrupted.Load() }

// SetWriteDeadline makes writes fail from t on; the zero value never.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	if c.write.suffices(t) {
		return nil
	}
	return c.Conn.SetWriteDeadline(t)
}

// SetDeadline sets both.
func (c *Conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

func (c *Conn) Read(p []byte) (int, error) {
	for {
		n, err := c.readOnce(p)
		if err == nil || n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) || c.interrupted.Load() {
			return n, err
		}
		if err = c.again(err); err != nil {
			return 0, err
		}
	}
}

func (c *Conn) Write(p []byte) (int, error) {
	sent := 0
	for {
		n, err := c.writeOnce(p[sent:])
		sent += n
		if err == nil || !errors.Is(err, os.ErrDeadlineExceeded) || !c.write.early() {
			return sent, err
		}
		if err = c.Conn.SetWriteDeadline(c.write.want); err != nil {
			return sent, err
		}
	}
}

func (c *Conn) readOnce(p []byte) (int, error) {
	if c.raw != nil {
		return c.raw.read(p)
	}
	return c.Conn.Read(p)
}

func (c *Conn) writeOnce(p []byte) (int, error) {
	if c.raw != nil {
		return c.raw.write(p)
	}
	return c.Conn.Write(p)
}

// CloseWrite ends the sending direction, when the connection has one of its own.
func (c *Conn) CloseWrite() error {
	if h, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return c.Close()
}

// suffices notes the wish t and says whether the armed timer serves it: it fires at t or before.
func (k *clock) suffices(t time.Time) bool {
	k.want = t
	if t.IsZero() || !k.armed.IsZero() && !t.Before(k.armed) {
		return true // no timer at all serves the wish for none, too
	}
	k.armed = t
	return false
}

// early is asked when the timer has fired: true when that was before the moment asked for. The timer is then to be armed for it.
func (k *clock) early() bool {
	if !k.want.IsZero() && !time.Now().Before(k.want) {
		return false // armed stays in the past, so the next wish meets an expired timer and arms it anew
	}
	k.armed = k.want
	return true
}
