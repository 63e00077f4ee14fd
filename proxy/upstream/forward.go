package upstream

import (
	"time"

	"headgate/proxy/fault"
	"headgate/proxy/phase"
	"headgate/proxy/phase/wire"
)

const (
	// firstRead is the space a response gets at first; most answers fit whole.
	firstRead = 8 << 10
	// joinLimit is the largest request body that is sent in one write with its head.
	joinLimit = 32 << 10
)

// Forward sends the exchange and fills in its Response. It is the only retry loop of the house (contract section 3.2): another
// endpoint is tried when nothing was sent, or when the method may be repeated; never the same endpoint twice unless it is the only one, never
// once the head of an answer was there. The fault of the last attempt is returned when none succeeded.
func (u *Upstream) Forward(x *phase.Exchange) *fault.Fault {
	u, f := u.settled(x) // one set of nodes for the whole exchange
	switch {
	case f != nil:
		return f
	case u.refused != nil:
		return u.refused
	}
	tried := &x.Attempts.Tried
	tried.Reset()
	x.Attempts.AllRest = false
	var key uint64
	if u.hash != nil {
		key = u.hash.of(x)
	}
	start := x.Elapsed()
	x.Attempts.Begun = start
	if u.retries > 0 {
		u.budget.earn()
	}
	for try, next := 0, -1; ; try++ {
		if try > 0 && len(u.nodes) == 1 {
			tried.Reset()
		}
		n, f := u.admitted(x, key, next)
		if f != nil {
			x.Attempts.Unmade = u.noteUnmade && f == fault.AllTried && try > 0
			return f
		}
		x.Attempts.Addr, x.Attempts.Node, x.Attempts.NodePort = n.addr, n.Host, n.Port
		lines := x.Response.Header.Len()
		if n.send(x) == phase.Stop {
			return nil
		}
		since, watched := n.watched(x)
		if f = u.attempt(x, n); f != nil {
			x.Attempts.End = x.Elapsed()
		}
		if watched {
			n.judge(x, f, since)
		}
		if f == nil {
			u.answered(n, &x.Response)
			if u.observer != nil {
				u.observer.Observe(n.index, x.Attempts.Head-x.Attempts.Connected)
			}
			if next = u.other(x, n, key, try, start); next < 0 {
				return nil
			}
			x.SettleBody() // which nobody waits for
			drop(&x.Response, lines)
			continue
		}
		if f.Side == fault.Client { // it is nobody's attempt that has failed
			x.Attempts.Note(0)
			return f
		}
		next = -1
		f = u.late(x, f)
		x.Attempts.Note(f.Status)
		switch {
		case f.Retry == fault.Never, f.Retry == fault.Sent && !u.repeatable(&x.Request), x.Request.Spent, try >= u.retries:
			u.gaveUp(n, f)
			return f
		case f.Retry == fault.Sent && !u.budget.spend():
			u.gaveUp(n, f)
			return f
		case u.retryTimeout > 0 && x.Elapsed()-start >= u.retryTimeout:
			u.gaveUp(n, f)
			x.Attempts.Unmade = u.noteUnmade
			return fault.RetryDeadline
		}
		u.failed(n, f)
	}
}

// send runs the Send phase for n. When it ends the exchange, or breaks, no attempt is under way.
func (n *node) send(x *phase.Exchange) (v phase.Verdict) {
	v = phase.Stop
	defer func() {
		if v == phase.Stop {
			n.leave()
		}
	}()
	v = x.Send()
	return v
}

// repeatable: methods that may reach an upstream twice (contract section 3.2; POST, PATCH and LOCK may not, unless the operator lets them). A
// protocol switch may not either: what was begun on another connection nobody would end.
func (u *Upstream) repeatable(q *phase.Request) bool {
	if upgrades(q) {
		return false
	}
	if u.anyMethod {
		return true
	}
	switch string(outMethod(q)) {
	case "POST", "PATCH", "LOCK":
		return false
	}
	return true
}

// attempt makes one try at one endpoint, which has counted it as under way and does so until the answer has been read. A connection that had served
// before and was closed by the upstream while it was idle shows that only now, when the close and the request met on the way: the request is
// repeated once on a new connection, and that does not count as a try.
func (u *Upstream) attempt(x *phase.Exchange, n *node) *fault.Fault {
	x.Attempts.Connected, x.Attempts.Head, x.Attempts.End = 0, 0, 0
	if f := u.prepare(x, n); f != nil {
		n.leave()
		return f
	}
	if x.Presence.Left() {
		n.leave()
		return fault.ClientGone
	}
	now := x.Start.Add(x.Elapsed())
	c, f := u.connection(x, n, now)
	if f == nil {
		var stale bool
		if !c.reused { // dialling took its time
			now = x.Start.Add(x.Elapsed())
		}
		if stale, f = u.exchange(x, n, c, now); stale && !x.Request.Spent {
			if c, f = u.another(x, n); f == nil {
				_, f = u.exchange(x, n, c, x.Start.Add(x.Elapsed()))
			}
		}
	}
	if c == nil && f == fault.ClientGone {
		x.Stage = phase.InConnect
	}
	if f != nil || x.Response.Stream == nil { // a stream takes itself off the count
		n.leave()
	}
	return f
}

// prepare writes the request into x.Wire.Out, with its body when that is short.
func (u *Upstream) prepare(x *phase.Exchange, n *node) (f *fault.Fault) {
	out, f := appendRequest(x.Wire.Out[:0], x, u.host(x, n))
	if q := &x.Request; q.Incoming == nil && len(q.Body) <= joinLimit {
		if len(q.Trailers) > 0 {
			out = appendChunked(out, q.Body, q.Trailers)
		} else {
			out = append(out, q.Body...)
		}
	}
	x.Wire.Out = out
	return f
}

// exchange sends the request over c and reads the answer. c is given back, closed, or handed to the response's stream. With a fault,
// stale says that the connection was at its end before the request came, so that the upstream has not executed it.
func (u *Upstream) exchange(x *phase.Exchange, n *node, c *conn, now time.Time) (stale bool, f *fault.Fault) {
	x.Attempts.Connected = now.Sub(x.Start)
	c.await(x)
	u.write(x, c, now)
	lines := x.Response.Header.Len() // set by plugins already; what a refused head adds goes again
	h, end, read, f := u.readHead(x, c)
	if f == nil && c.reused && h.status == 408 && !h.keepAlive && !x.Request.Spent {
		// What servers say when they close an idle connection (RFC 9110 section 15.5.9); it was not the answer to this request, unless
		// its body may have kept the upstream waiting.
		f, stale = fault.ClosedBeforeHead, true
	}
	if f == nil {
		x.Attempts.Head = x.Elapsed()
		if f = u.receive(x, c, n, h, end, read); f == nil {
			return false, nil
		}
	} else if c.reused && (f == fault.ClosedBeforeHead || f == fault.SendFailed) {
		stale = stale || c.unsent != nil || c.held != nil || u.repeatable(&x.Request) || c.unheard()
	}
	x.Response.Header.Truncate(lines)
	c.abort()
	return stale, f
}

// write sends the request; a long body goes on leaving in the background. An error is left in c.unsent, since an answer may be there
// nevertheless.
func (u *Upstream) write(x *phase.Exchange, c *conn, now time.Time) {
	err := c.SetWriteDeadline(now.Add(u.left(x, u.send)))
	if err == nil {
		_, err = c.Write(x.Wire.Out)
	}
	if q := &x.Request; err == nil && (q.Incoming != nil || len(q.Body) > joinLimit) {
		if e, ok := q.Incoming.(phase.Expectant); ok && e.Expects() && u.look > 0 {
			c.held = q
		} else {
			err = c.begin(q, u.send)
		}
	}
	c.unsent = sendFault(err)
}

// readHead reads the head of the answer into x.Wire.In, where it ends at end, and what came with it up to read; 1xx answers before it
// are passed on. The whole head has one clock.
func (u *Upstream) readHead(x *phase.Exchange, c *conn) (h head, end, read int, f *fault.Fault) {
	lines := x.Response.Header.Len()
	in := x.Wire.In
	if cap(in) < firstRead {
		in = make([]byte, firstRead)
	}
	in = in[:cap(in)]
	x.Wire.In = in
	patience := u.left(x, u.head)
	if c.upload == nil { // else the clock of the content waits for the request to leave, as that of the head does
		patience = u.content(x, patience)
	}
	if c.unsent != nil {
		patience = earlyAnswer
	}
	if err := c.SetReadDeadline(x.Start.Add(x.Elapsed() + patience)); err != nil {
		if !c.sent() && c.unsent != nil && c.unsent.Side == fault.Client { // the upload was quicker, and has ended the connection
			return h, 0, 0, c.unsent
		}
		return h, 0, 0, fault.ClosedBeforeHead
	}
	isHead := string(outMethod(&x.Request)) == "HEAD"
	for scanned, interim := 0, 0; ; {
		if end = headEnd(in[:read], scanned); end < 0 {
			if read > scanned && !plausible(in[:read]) {
				return h, 0, read, fault.BadHead
			}
			scanned = read
			if in, read, f = u.readMore(x, c, read); f != nil {
				if interim > 0 && (f == fault.ClosedBeforeHead || f == fault.SendFailed) {
					f = fault.HeadCut // bytes have come
				}
				return h, 0, read, f
			}
			continue
		}
		h, f = parseHead(in[:end], isHead, &x.Response.Header, u.lines)
		if f != nil || h.status >= 200 || agrees(&x.Request, in[:end], h) {
			return h, end, read, f
		}
		if h.status > switching && x.Informer != nil && informs(&x.Attempts, end) {
			x.Informer.Inform(h.status, x.Response.Header.Fields()[lines:])
		}
		x.Response.Header.Truncate(lines)
		if interim++; h.status == switching || interim > maxInterim {
			return h, end, read, fault.BadHead
		}
		read = copy(in, in[end:read])
		scanned = 0
	}
}

// readMore reads behind in[:read], making room up to the limit of a head.
func (u *Upstream) readMore(x *phase.Exchange, c *conn, read int) ([]byte, int, *fault.Fault) {
	in := x.Wire.In
	if read == len(in) {
		if len(in) >= u.maxHead {
			return in, read, fault.BadHead
		}
		in = make([]byte, min(2*len(in), u.maxHead))
		copy(in, x.Wire.In)
		x.Wire.In = in
	}
	n, err := u.readDuringUpload(x, c, in[read:])
	read += n
	if n > 0 || err == nil {
		return in, read, nil
	}
	switch sent := c.sent(); {
	case c.socket.Interrupted():
		return in, read, fault.ClientGone
	case c.unsent != nil && c.unsent.Side == fault.Client:
		return in, read, c.unsent
	case read > 0 && !isTimeout(err):
		return in, read, fault.HeadCut
	case c.unsent != nil:
		return in, read, c.unsent
	case isTimeout(err):
		return in, read, fault.HeadTimeout
	case !sent: // closed in the middle of the upload
		return in, read, fault.SendFailed
	}
	return in, read, fault.ClosedBeforeHead
}

// receive turns the head h, which ends at end in x.Wire.In, and what follows it into the response. A body that has come with the head is
// taken whole; everything else is streamed. With a fault, c is still the caller's.
func (u *Upstream) receive(x *phase.Exchange, c *conn, n *node, h head, end, read int) *fault.Fault {
	r, in := &x.Response, x.Wire.In
	if h.status == switching {
		return u.tunnel(x, c, n, in[:end], in[end:read])
	}
	c.keepFor = h.keepFor
	var body []byte
	whole, used := true, 0
	switch h.framing {
	case noBody:
		r.HeadLength = h.announced
	case byLength:
		if whole = h.length <= int64(read-end); whole {
			used = int(h.length)
			body = in[end : end+used]
		}
	case byChunks:
		var ok bool
		var trailers []byte
		if body, trailers, used, whole, ok = wire.Unchunk(in[end:read]); !ok {
			return fault.BadBody
		}
		if h.trailers {
			announced(&r.Trailers, in[:end])
		}
		if len(trailers) > 0 {
			trailed(&r.Trailers, trailers)
		}
	case byClose:
		whole = false
	}
	if whole {
		now := x.Elapsed()
		x.Attempts.End = now
		r.Body = body
		c.release(h.keepAlive, read-end-used, x.Start.Add(now))
	} else {
		r.Stream = newStream(x, c, n, h, &u.clocks, in[end:read])
		r.Size = h.length
	}
	r.Status, r.Source = h.status, phase.FromUpstream
	x.Attempts.Note(h.status)
	return nil
}

var _ phase.Upstream = (*Upstream)(nil)
