package upstream

import (
	"encoding/binary"
	"net"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// conn is one connection to an endpoint. It has no read buffer: a response is read into the exchange that asked for it, so that an idle
// connection costs no memory and a byte that belongs to nobody cannot hide in one.
type conn struct {
	net.Conn
	pool     *Pool
	fd       int
	tls      *recordReader // nil on plain connections
	requests int
	idleAt   time.Time
	// reused says that the connection has carried an exchange before the present one.
	reused bool
	// filled says that the last read took all the space it was given; crypto/tls may then hold more of the same record.
	filled bool
}

func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.filled = n == len(p)
	return n, err
}

// alive looks into the socket without taking anything out. Nothing to read is what an idle connection must show; the end of the
// stream, an error, or bytes that nobody asked for mean that it cannot be used again.
func (c *conn) alive() bool {
	if c.tls != nil && c.tls.buffered() > 0 {
		return false
	}
	var b [1]byte
	for {
		_, _, e := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(c.fd), uintptr(unsafe.Pointer(&b[0])), 1,
			unix.MSG_PEEK|unix.MSG_DONTWAIT, 0, 0)
		switch e {
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			return true
		default:
			return false
		}
	}
}

// release gives c back after a complete exchange with nothing left over, or closes it. unused is the number of bytes that were read
// beyond the response.
func (c *conn) release(reusable bool, unused int) {
	c.requests++
	hidden := c.tls != nil && (c.filled || c.tls.buffered() > 0)
	if !reusable || unused != 0 || hidden || c.requests >= c.pool.opt.MaxRequests {
		c.discard()
		return
	}
	c.reused = true
	c.pool.put(c)
}

// discard closes c for good.
func (c *conn) discard() {
	c.pool.open.Add(-1)
	_ = c.Close()
}

// descriptor returns the file descriptor of a connection, which stays valid as long as the connection is open.
func descriptor(nc net.Conn) (int, error) {
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return -1, net.ErrClosed
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return -1, err
	}
	fd := -1
	if err = raw.Control(func(p uintptr) { fd = int(p) }); err != nil {
		return -1, err
	}
	return fd, nil
}

// recordReader stands between crypto/tls and the socket and hands over at most one TLS record per read. crypto/tls reads ahead
// into a buffer that cannot be inspected; this way whatever came in too much stays here, where buffered shows it.
type recordReader struct {
	net.Conn
	buf        []byte
	start, end int
	rest       int // bytes of the current record that have not been handed over
}

const tlsHeader = 5

func newRecordReader(nc net.Conn) *recordReader {
	return &recordReader{Conn: nc, buf: make([]byte, 0, 4096)}
}

// buffered is the number of bytes taken from the socket that crypto/tls has not seen.
func (r *recordReader) buffered() int { return r.end - r.start }

func (r *recordReader) Read(p []byte) (int, error) {
	if r.start == r.end {
		if r.rest > 0 && len(p) > r.rest { // inside a large record: straight through, never past its end
			p = p[:r.rest]
		}
		if r.rest > 0 {
			n, err := r.Conn.Read(p)
			r.rest -= n
			return n, err
		}
		r.start, r.end = 0, 0
		n, err := r.Conn.Read(r.buf[:cap(r.buf)])
		if n == 0 {
			return 0, err
		}
		r.end = n
	}
	if r.rest == 0 {
		for r.end-r.start < tlsHeader {
			if r.start > 0 {
				copy(r.buf[:cap(r.buf)], r.buf[r.start:r.end])
				r.end, r.start = r.end-r.start, 0
			}
			n, err := r.Conn.Read(r.buf[r.end:cap(r.buf)])
			r.end += n
			if n == 0 {
				return 0, err
			}
		}
		h := r.buf[r.start:r.end]
		r.rest = tlsHeader + int(binary.BigEndian.Uint16(h[3:tlsHeader]))
	}
	n := copy(p, r.buf[r.start:min(r.end, r.start+r.rest)])
	r.start += n
	r.rest -= n
	return n, nil
}
