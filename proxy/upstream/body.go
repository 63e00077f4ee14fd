package upstream

import (
	"errors"
	"io"
	"sync"
	"time"

	"headgate/proxy/fault"
	"headgate/proxy/llm"
	"headgate/proxy/phase"
	"headgate/proxy/phase/wire"
	"headgate/proxy/upstream/health"
)

// pieceSize is how much of a streamed body is read at once: a whole TLS record, and more, so that a read that is not full has left
// nothing behind in crypto/tls; the rest is room for an incomplete chunk line.
const pieceSize = 18 << 10

// stream delivers a response body piece by piece, and knows a body that was cut from one that is complete. It owns its
// connection until Close.
type stream struct {
	c      *conn
	n      *node
	x      *phase.Exchange
	clocks *clocks

	starved bool              // nothing of the answer has come yet, and there is a clock for it
	events  bool              // the body is an event stream
	content *llm.FirstContent // kept for the next exchange; nil until one needs it

	framing framing
	left    int64 // byLength: bytes to come
	keep    bool
	chunks  wire.Chunks

	checks *health.Checker // that hear how it ends; nil without any
	status int             // of the answer

	pending []byte // read, not yet delivered
	buf     []byte
	err     error // sticky: io.EOF after a complete body, or the fault
}

var streams = sync.Pool{New: func() any { return &stream{buf: make([]byte, pieceSize)} }}

// newStream takes over c, and the attempt that n counts as under way. pending are the body bytes that came with the head, valid
// until Close.
func newStream(x *phase.Exchange, c *conn, n *node, h head, clocks *clocks, pending []byte) *stream {
	s := streams.Get().(*stream)
	*s = stream{
		c: c, n: n, x: x, clocks: clocks,
		framing: h.framing, left: h.length, keep: h.keepAlive, pending: pending, buf: s.buf, content: s.content,
	}
	if clocks.first > 0 {
		s.await()
	}
	return s
}

// Next implements phase.Stream.
func (s *stream) Next() ([]byte, error) {
	for s.err == nil {
		if p := s.take(); len(p) > 0 {
			if s.starved {
				s.starved = s.events && !s.content.Feed(p)
			}
			return p, nil
		}
		if s.err == nil {
			s.fill()
		}
	}
	return nil, s.err
}

// await begins to look for content.
func (s *stream) await() {
	s.starved = true
	kind, _ := s.x.Response.Header.Get("Content-Type")
	_, coded := s.x.Response.Header.Get("Content-Encoding")
	const events = "text/event-stream"
	if s.events = !coded && len(kind) >= len(events) && phase.EqualName(kind[:len(events)], events); !s.events {
		return
	}
	if s.content == nil {
		s.content = &llm.FirstContent{}
	}
	s.content.Reset()
}

// take delivers from what has been read, and sets err at the end of the body.
func (s *stream) take() []byte {
	switch s.framing {
	case byLength:
		n := min(int64(len(s.pending)), s.left)
		p := s.pending[:n]
		s.pending = s.pending[n:]
		s.left -= n
		if n == 0 && s.left == 0 {
			s.err = io.EOF
		}
		return p
	case byChunks:
		p, used, ok := s.chunks.Next(s.pending, len(s.pending))
		s.pending = s.pending[used:]
		if !ok {
			s.err = fault.BadBody
		} else if s.chunks.Done() && len(p) == 0 {
			s.err = io.EOF
			if trailers := s.chunks.Trailers(); trailers != nil {
				trailed(&s.x.Response.Trailers, trailers)
			}
		}
		return p
	default:
		p := s.pending
		s.pending = nil
		return p
	}
}

// fill reads the next bytes. It asks for more than the body can still hold, so that bytes which belong to no answer show up.
func (s *stream) fill() {
	kept := copy(s.buf, s.pending) // an incomplete chunk line; take has used all else
	patience := s.clocks.left(s.x, s.clocks.read)
	if s.starved {
		patience = s.clocks.content(s.x, patience)
	}
	if err := s.c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		s.err = fault.BodyCut
		return
	}
	n, err := s.c.Read(s.buf[kept:])
	s.pending = s.buf[:kept+n]
	if n > 0 || err == nil {
		return
	}
	s.err = s.ended(err)
}

// ended says what a read error means for the body. Where only the end of the stream ends it, TLS must say so: an end without a
// closing alert may be anybody's doing (RFC 9112 section 9.8).
func (s *stream) ended(err error) error {
	switch {
	case s.c.socket.Interrupted():
		return fault.ClientGone
	case isTimeout(err):
		if s.starved {
			return s.clocks.starved(s.x, fault.ReadTimeout)
		}
		return s.clocks.late(s.x, fault.ReadTimeout)
	case s.framing == byClose && errors.Is(err, io.EOF) && (s.c.records == nil || !s.c.records.torn):
		return io.EOF
	}
	return fault.BodyCut
}

// Waits implements phase.Waiter.
func (s *stream) Waits() bool {
	switch {
	case s.err != nil || s.complete():
		return false
	case s.framing == byChunks && len(s.pending) > 0:
		probe := s.chunks // what is there may be no more than the end of the last chunk
		if p, _, ok := probe.Next(s.pending, len(s.pending)); len(p) > 0 || !ok || probe.Done() {
			return false
		}
	case len(s.pending) > 0:
		return false
	}
	c := s.c
	if c.records != nil && (c.filled || c.records.buffered() > 0) {
		return false
	}
	return silent(c.fd)
}

// complete says that every byte of the body has been read.
func (s *stream) complete() bool {
	return s.err == io.EOF || s.err == nil && (s.framing == byLength && s.left == 0 || s.framing == byChunks && s.chunks.Done())
}

// Close implements phase.Stream.
func (s *stream) Close() {
	end := s.x.Elapsed()
	s.x.Attempts.End = end
	if s.complete() {
		s.c.release(s.keep, len(s.pending), s.x.Start.Add(end))
	} else {
		s.c.abort()
	}
	s.report()
	s.n.leave()
	*s = stream{buf: s.buf, content: s.content}
	streams.Put(s)
}

// report tells the passive checks of a body that was cut or that was none (contract section 3.4): as of a connection that has broken, or of an upstream
// that takes too long. Every other end, also that of a client who does not want the rest, leaves the answer a success.
func (s *stream) report() {
	if s.checks == nil {
		return
	}
	if f, ok := s.err.(*fault.Fault); ok && f.Side == fault.Upstream {
		s.checks.Failed(s.n.target, f.Status == fault.ReadTimeout.Status)
		return
	}
	s.checks.Answered(s.n.target, s.status)
}

var _ phase.Waiter = (*stream)(nil)
