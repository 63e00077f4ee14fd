package upstream

import (
	"errors"
	"os"
	"time"

	"headgate/proxy/fault"
	"headgate/proxy/phase"
)

const (
	// firstRead is the space a response gets at first; most answers fit whole.
	firstRead = 8 << 10
	// joinLimit is the largest request body that is sent in one write with its head.
	joinLimit = 32 << 10
)

// Forward sends the exchange and fills in its Response. It is the only retry loop of the house (contract section 3.2): another
// endpoint is tried when nothing was sent, or when the method may be repeated; never the same endpoint twice while others are
// left, never once response bytes have come. The fault of the last attempt is returned when none succeeded.
func (u *Upstream) Forward(x *phase.Exchange) *fault.Fault {
	if len(u.nodes) == 0 {
		return fault.NoEndpoint
	}
	tried := &x.Attempts.Tried
	tried.Reset()
	var key uint64
	if u.hash != nil {
		key = u.hash.of(x)
	}
	start := x.Elapsed()
	x.Attempts.Begun = start
	for try := 0; ; try++ {
		i := u.pick.Pick(tried, key)
		if i < 0 {
			return fault.AllTried
		}
		tried.Add(i)
		n := u.nodes[i]
		x.Attempts.Addr, x.Attempts.Node, x.Attempts.NodePort = n.addr, n.Host, n.Port
		n.Inflight.Add(1)
		f := u.attempt(x, n)
		n.Inflight.Add(-1)
		if f == nil {
			if u.observer != nil && x.Attempts.Head > 0 {
				u.observer.Observe(i, x.Attempts.Head-x.Attempts.Connected)
			}
			return nil
		}
		x.Attempts.Note(f.Status)
		switch {
		case f.Retry == fault.Never, f.Retry == fault.Sent && !repeatable(x), try >= u.retries:
			return f
		case u.retryTimeout > 0 && x.Elapsed()-start >= u.retryTimeout:
			return fault.RetryDeadline
		}
	}
}

// repeatable: methods that may reach an upstream twice (contract section 3.2; POST, PATCH and LOCK may not).
func repeatable(x *phase.Exchange) bool {
	m := x.Request.Method
	if len(x.Request.OutMethod) > 0 {
		m = x.Request.OutMethod
	}
	switch string(m) {
	case "POST", "PATCH", "LOCK":
		return false
	}
	return true
}

// attempt makes one try at one endpoint. A connection that had served before and dies without a single response byte was closed by
// the upstream while it was idle: the request is repeated once on a new connection, and that does not count as a try.
func (u *Upstream) attempt(x *phase.Exchange, n *node) *fault.Fault {
	if x.Send() == phase.Stop {
		return nil
	}
	now := time.Now()
	c, f := n.pool.get(now, u.connect)
	if f != nil {
		return f
	}
	reused := c.reused
	if !reused { // dialling took its time
		now = time.Now()
	}
	f = u.exchange(x, n, c, now)
	if f == fault.ClosedBeforeHead && reused || f == fault.SendFailed && reused {
		if c, f = n.pool.fresh(u.connect); f != nil {
			return f
		}
		f = u.exchange(x, n, c, time.Now())
	}
	return f
}

// exchange sends the request over c and reads the answer. c is given back, closed, or handed to the response's stream.
func (u *Upstream) exchange(x *phase.Exchange, n *node, c *conn, now time.Time) *fault.Fault {
	x.Attempts.Connected = now.Sub(x.Start)
	if f := u.write(x, n, c, now); f != nil {
		c.discard()
		return f
	}
	in := x.Wire.In
	if cap(in) < firstRead {
		in = make([]byte, firstRead)
	}
	in = in[:cap(in)]
	read, scanned := 0, 0
	lines := x.Response.Header.Len() // set by plugins already; what a refused head adds goes again
	if err := c.SetReadDeadline(now.Add(u.read)); err != nil {
		c.discard()
		return fault.ClosedBeforeHead
	}
	for interim := 0; ; {
		end := headEnd(in[:read], scanned)
		if end < 0 {
			scanned = read
			var f *fault.Fault
			if in, read, f = u.readMore(c, in, read); f != nil {
				x.Wire.In = in
				c.discard()
				return f
			}
			continue
		}
		h, f := parseHead(in[:end], string(x.Request.Method) == "HEAD", &x.Response.Header)
		if f == nil && h.status < 200 {
			x.Response.Header.Truncate(lines)
			if interim++; h.status == 101 || interim > maxInterim {
				f = fault.BadHead
			} else {
				read = copy(in, in[end:read])
				scanned = 0
				continue
			}
		}
		x.Wire.In = in
		if f == nil {
			x.Attempts.Head = x.Elapsed()
			if f = u.receive(x, c, h, in, end, read); f == nil {
				return nil
			}
		}
		x.Response.Header.Truncate(lines)
		c.discard()
		return f
	}
}

// write sends head and body.
func (u *Upstream) write(x *phase.Exchange, n *node, c *conn, now time.Time) *fault.Fault {
	out := appendRequest(x.Wire.Out[:0], x, u.host(x, n))
	body := x.Request.Body
	if len(body) <= joinLimit {
		out, body = append(out, body...), nil
	}
	x.Wire.Out = out
	if err := c.SetWriteDeadline(now.Add(u.send)); err != nil {
		return fault.SendFailed
	}
	_, err := c.Write(out)
	if err == nil && len(body) > 0 {
		_, err = c.Write(body)
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fault.SendTimeout
	}
	return fault.SendFailed
}

// readMore reads behind in[:read], making room up to the limit of a head.
func (u *Upstream) readMore(c *conn, in []byte, read int) ([]byte, int, *fault.Fault) {
	if read == len(in) {
		if len(in) >= u.maxHead {
			return in, read, fault.BadHead
		}
		bigger := make([]byte, min(2*len(in), u.maxHead))
		copy(bigger, in)
		in = bigger
	}
	n, err := c.Read(in[read:])
	read += n
	if n > 0 || err == nil {
		return in, read, nil
	}
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return in, read, fault.HeadTimeout
	case read == 0:
		return in, read, fault.ClosedBeforeHead
	}
	return in, read, fault.HeadCut
}

// receive turns the head h, which ends at in[end], and what follows it into the response. A body that is there already, or that fits
// behind the head and has a known length, is taken whole; everything else is streamed. With a fault, c is still the caller's.
func (u *Upstream) receive(x *phase.Exchange, c *conn, h head, in []byte, end, read int) *fault.Fault {
	r := &x.Response
	switch h.framing {
	case noBody:
		r.Body, r.HeadLength = nil, h.announced
		u.whole(x, c, h, read-end)
	case byLength:
		for int64(read-end) < h.length && h.length <= int64(len(in)-end) {
			n, err := c.Read(in[read:])
			read += n
			if n == 0 && err != nil {
				if errors.Is(err, os.ErrDeadlineExceeded) {
					return fault.ReadTimeout
				}
				return fault.BodyCut
			}
		}
		if int64(read-end) < h.length {
			u.stream(x, c, h, in[end:read])
			break
		}
		r.Body = in[end : end+int(h.length)]
		u.whole(x, c, h, read-end-int(h.length))
	case byChunks:
		body, used, ok, f := unchunk(in[end:read])
		if f != nil {
			return f
		}
		if !ok {
			u.stream(x, c, h, in[end:read])
			break
		}
		r.Body = body
		u.whole(x, c, h, read-end-used)
	default:
		u.stream(x, c, h, in[end:read])
	}
	r.Status, r.Source = h.status, phase.FromUpstream
	x.Attempts.Note(h.status)
	return nil
}

func (u *Upstream) whole(x *phase.Exchange, c *conn, h head, unused int) {
	x.Attempts.End = x.Elapsed()
	c.release(h.keepAlive, unused)
}

func (u *Upstream) stream(x *phase.Exchange, c *conn, h head, pending []byte) {
	x.Response.Stream = newStream(x, c, h, u.read, pending)
	x.Response.Size = h.length
}

var _ phase.Upstream = (*Upstream)(nil)
