package upstream

import (
	"math"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"headgate/proxy/fault"
	"headgate/proxy/netpoll"
	"headgate/proxy/phase"
	"headgate/proxy/upstream/dns"
)

// conn is one connection to an endpoint. It has no read buffer: a response is read into the exchange that asked for it, so that an idle
// connection costs no memory and a byte that belongs to nobody cannot hide in one. One exchange at a time owns it.
type conn struct {
	net.Conn               // what is read and written: the socket, or TLS over it
	socket   *netpoll.Conn // below everything
	pool     *Pool
	fd       int
	records  *recordReader // nil on plain connections
	requests int
	born     time.Duration // since the pool's epoch
	// expires is when the connection may no longer wait for a request, as an offset from the pool's epoch. The sweeper reads it
	// without owning the connection.
	expires atomic.Int64
	// keepFor is how long the upstream promised to wait (Keep-Alive: timeout), 0 when it said nothing.
	keepFor time.Duration
	// reused says that the connection has carried an exchange before the present one.
	reused bool
	// filled says that the last read took all the space it was given; crypto/tls may then hold more of the same record.
	filled bool
	// unsent is why the request could not be written whole, nil when it was or is still being written. An answer may come all the same.
	unsent *fault.Fault
	// presence is that of the client for whom it is read, nil outside exchanges.
	presence *netpoll.Presence
	// held is a request whose body waits for the client to be invited to send it, nil when there is none.
	held *phase.Request
	// upload is the request body that is still leaving, nil when none is.
	upload *upload
	// remote is the address that was dialled; from is the answer of the resolver that had it last, nil for a node that is an address.
	remote netip.Addr
	from   *dns.Answer
}

func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.filled = n == len(p)
	return n, err
}

// alive looks into the socket without taking anything out. Nothing to read is what an idle connection must show; the end of the
// stream, an error, or bytes that nobody asked for mean that it cannot be used again.
func (c *conn) alive() bool {
	if c.records != nil && c.records.buffered() > 0 {
		return false
	}
	return silent(c.fd)
}

func silent(fd int) bool {
	var b [1]byte
	for {
		_, _, e := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), 1,
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

// expect makes the kernel break the connection when what was sent is not acknowledged for d, or cannot leave because the upstream takes no more.
// The latter may be slowness, which has clocks of its own: where much is to be sent, d must not be less than those.
func (c *conn) expect(d time.Duration) {
	ms := min((d+time.Millisecond-1)/time.Millisecond, math.MaxInt32)
	_ = unix.SetsockoptInt(c.fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(ms)) // without it, the kernel's own patience is longer
}

// Of Linux's TCP states (include/net/tcp_states.h), the one after a reset.
const tcpClose = 7

// hearing is how many milliseconds after the request was sent a reset still means that the upstream closed its end without having read what
// its kernel had taken. An upstream that resets a connection later may have worked on the request all the while.
const hearing = 2000

// unheard says, of a connection that has ended without an answer, that the upstream has most probably not taken the whole request: its kernel
// refused a part of it (reset), had not acknowledged all when the stream ended, or had, but the stream was reset at once. An upstream that
// has read a request to its end and then closes leaves no trace, and may have executed it.
func (c *conn) unheard() bool {
	// The kernel reads the state before it locks the socket for the rest: a reset that comes in between shows in neither, the
	// first time.
	for range 2 {
		i, err := unix.GetsockoptTCPInfo(c.fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil {
			continue
		}
		if i.Unacked > 0 {
			return true
		}
		if i.State == tcpClose { // which forgets what was in flight: the SYN, too, counts as an acknowledged byte
			return i.Bytes_sent == 0 || i.Notsent_bytes > 0 || i.Bytes_acked <= i.Bytes_sent-i.Bytes_retrans || i.Last_data_sent < hearing
		}
	}
	return false
}

// release gives c back after a complete exchange with nothing left over, or closes it. unused is the number of bytes that were read
// beyond the response.
func (c *conn) release(reusable bool, unused int, now time.Time) {
	c.requests++
	hidden := c.records != nil && (c.filled || c.records.buffered() > 0)
	limit := c.pool.opt.MaxRequests
	switch {
	case !c.unawaited(), !c.sent():
		c.abort()
	case !reusable || unused != 0 || hidden || limit > 0 && c.requests >= limit:
		c.discard()
	default:
		c.reused = true
		c.pool.put(c, now)
	}
}

// discard closes c, which nobody writes to, for good. Over TLS the upstream is told.
func (c *conn) discard() {
	c.pool.open.Add(-1)
	_ = c.Close()
}

// await says that c is read for the client of x until it is given back or closed.
func (c *conn) await(x *phase.Exchange) {
	if c.presence = x.Presence; c.presence != nil {
		c.presence.Await(c.socket)
	}
}

// unawaited ends that. False says that the client has left: c is interrupted, or will be at any time.
func (c *conn) unawaited() bool {
	p := c.presence
	c.presence = nil
	return p == nil || p.Done()
}

// abort closes c in whatever state it is, without a word, and returns when the request body is no longer in use. When that is because the
// client has left, the upstream sees a reset: the end of a stream may count as no more than the end of the request.
func (c *conn) abort() {
	if c.unawaited(); c.socket.Interrupted() {
		if s, ok := c.socket.Conn.(*net.TCPConn); ok {
			_ = s.SetLinger(0)
		}
	}
	c.pool.open.Add(-1)
	_ = c.socket.Close() // a closing alert could wait for room in the send buffer
	if c.upload != nil {
		c.upload.stop()
	}
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
