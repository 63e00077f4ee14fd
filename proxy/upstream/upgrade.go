package upstream

import (
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"headgate/proxy/fault"
	"headgate/proxy/phase"
	"headgate/proxy/phase/wire"
)

// switching is the status by which an upstream agrees to another protocol (RFC 9110 section 15.2.2).
const switching = 101

// upgrades says that the request asks its upstream to switch protocols. What plugins have made of it must still be a request that can:
// one without a body, behind which the other protocol would begin.
func upgrades(q *phase.Request) bool {
	return len(q.Upgrade) > 0 && q.BodySize() == 0 && string(outMethod(q)) == "GET"
}

// connection returns one for the request. A protocol switch gets a new one: that a pooled connection was at its end shows only when
// the request has been sent, and then it could not be repeated.
func (u *Upstream) connection(x *phase.Exchange, n *node, now time.Time) (c *conn, f *fault.Fault) {
	start := x.Elapsed()
	if upgrades(&x.Request) {
		c, f = n.pool.fresh(x.Presence, u.connecting(x), u.handshake)
	} else {
		c, f = n.pool.get(x.Presence, now, u.connecting(x), u.handshake)
	}
	u.connected(x, n, f, start)
	return c, f
}

// another returns a new connection in the place of one that was at its end.
func (u *Upstream) another(x *phase.Exchange, n *node) (c *conn, f *fault.Fault) {
	start := x.Elapsed()
	c, f = n.pool.fresh(x.Presence, u.left(x, u.connect), u.handshake)
	u.connected(x, n, f, start)
	return c, f
}

// agrees says that the head, which parseHead has read, switches to what the request asked for. Every other 101 is none.
func agrees(q *phase.Request, raw []byte, h head) bool {
	return h.status == switching && upgrades(q) && len(chosen(raw, q.Upgrade)) > 0
}

// chosen returns the protocols that the 101 names, which must all have been offered; nil when they were not, or when the head is not
// one behind which another protocol can begin (RFC 9110 section 7.8).
func chosen(raw, offered []byte) []byte {
	line, rest, ok := wire.CutLine(raw)
	if !ok || len(line) < len("HTTP/1.1") || line[len("HTTP/1.1")-1] != '1' {
		return nil
	}
	var protocols []byte
	found, agreed := 0, false
	for line, rest, ok = wire.CutLine(rest); ok && len(line) > 0; line, rest, ok = wire.CutLine(rest) {
		f := field(line)
		switch {
		case phase.EqualName(f.Name, "upgrade"):
			found++
			protocols = f.Value
		case phase.EqualName(f.Name, "connection"):
			agreed = agreed || wire.HasToken(f.Value, "upgrade")
		case phase.EqualName(f.Name, "content-length"):
			if n, ok := wire.ParseLength(f.Value); !ok || n > 0 {
				return nil
			}
		}
	}
	if found != 1 || !agreed {
		return nil
	}
	offers := [...][]byte{offered}
	for list := protocols; len(list) > 0; {
		var p []byte
		if p, list = wire.NextElement(list); len(p) == 0 || !isNamed(p, offers[:]) {
			return nil
		}
	}
	return protocols
}

// field splits a header line that is known to be valid.
func field(line []byte) phase.Field {
	for i, c := range line {
		if c == ':' {
			return phase.Field{Name: line[:i], Value: wire.Trim(line[i+1:])}
		}
	}
	return phase.Field{}
}

// tunnelBuffer is how many bytes a tunnel reads from the upstream at once: a whole TLS record.
const tunnelBuffer = 16 << 10

var tunnelBuffers = sync.Pool{New: func() any { return new([tunnelBuffer]byte) }}

// Tunnel is a connection to an upstream that has switched protocols: bytes in both directions that nobody here frames, without
// deadlines. It is the stream of its response, whose status is 101. One goroutine may call Next while another one calls Write and
// CloseWrite, and any may call Cut at any time. Close comes last.
type Tunnel struct {
	c        *conn
	n        *node
	x        *phase.Exchange
	protocol []byte
	early    []byte // came with the head, not yet delivered
	buf      *[tunnelBuffer]byte
	idle     time.Duration
}

// tunnel takes over c, and the attempt that n counts as under way, and makes the 101 with this head the response. With a fault, c is
// still the caller's.
func (u *Upstream) tunnel(x *phase.Exchange, c *conn, n *node, head, early []byte) *fault.Fault {
	if !c.sent() {
		return c.unsent
	}
	if !c.unawaited() {
		return fault.ClientGone
	}
	if errors.Join(c.SetReadDeadline(time.Time{}), c.SetWriteDeadline(time.Time{})) != nil {
		return fault.HeadCut
	}
	r := &x.Response
	r.Stream = &Tunnel{
		c: c, n: n, x: x, protocol: chosen(head, x.Request.Upgrade), early: early,
		buf: tunnelBuffers.Get().(*[tunnelBuffer]byte), idle: max(u.send, u.read),
	}
	c.expect(max(peerPatience, u.send, u.read) + time.Second)
	r.Status, r.Source = switching, phase.FromUpstream
	x.Attempts.Note(switching)
	return nil
}

// Protocol is what the upstream has switched to, as it said so; valid until Close.
func (t *Tunnel) Protocol() []byte { return t.protocol }

// Idle is how long no byte may move in either direction: the longer of the upstream's send and read timeouts.
func (t *Tunnel) Idle() time.Duration { return t.idle }

// Next implements phase.Stream. io.EOF says that the upstream has ended its direction; the other one may go on. What runs in a tunnel
// has an end of its own, so TLS without a closing alert counts as that, too.
func (t *Tunnel) Next() ([]byte, error) {
	if p := t.early; len(p) > 0 {
		t.early = nil
		return p, nil
	}
	n, err := t.c.Read(t.buf[:])
	switch {
	case n > 0 || err == nil:
		return t.buf[:n], nil
	case errors.Is(err, io.EOF):
		return nil, io.EOF
	}
	return nil, fault.BodyCut
}

// Write sends p to the upstream, for as long as that takes.
func (t *Tunnel) Write(p []byte) (int, error) { return t.c.Write(p) }

// CloseWrite tells the upstream that nothing more will come.
func (t *Tunnel) CloseWrite() error {
	if h, ok := t.c.Conn.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return t.c.socket.Close()
}

// Cut ends both directions at once and gets everybody out of Next and Write. The upstream sees a reset: an orderly end would say that the
// client had nothing more to send.
func (t *Tunnel) Cut() {
	if s, ok := t.c.socket.Conn.(*net.TCPConn); ok {
		_ = s.SetLinger(0)
	}
	_ = t.c.socket.Close()
}

// Close implements phase.Stream.
func (t *Tunnel) Close() {
	t.x.Attempts.End = t.x.Elapsed()
	t.c.abort()
	t.n.leave()
	tunnelBuffers.Put(t.buf)
	t.buf, t.early, t.x = nil, nil, nil
}

var _ phase.Stream = (*Tunnel)(nil)
