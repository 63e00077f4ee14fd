package proxy

import (
	"errors"
	"io"
	"os"

	"headgate/proxy/fault"
	"headgate/proxy/phase"
	"headgate/proxy/phase/compress"
)

// body is a response body that is still arriving, as fasthttp sees it.
type body struct {
	x     *exchange
	size  int64  // -1 when it is not known, or of no concern to who frames
	fixed bool   // the head announces its length
	piece []byte // fetched already: before the head has left, or by a Read that had no room for it
	err   error  // what comes behind piece
	held  []byte // the body, when it was there from the beginning; what comes from Stream otherwise
	begun bool   // the head has left
	coded bool   // the gateway compresses it
	tail  eventTail
}

// stream makes the answer's body one that is sent as it arrives.
func (x *exchange) stream() {
	r, out := &x.Response, &x.ctx.Response
	size := r.Size
	if x.chunked() {
		size = -1 // what the plugins make of it cannot be known
	}
	x.body = body{x: x, size: size, fixed: size >= 0, coded: size < 0 && compress.Applied(&r.Header)}
	if size < 0 && x.Request.HTTP10 { // a client that knows no chunks (RFC 9112 section 6.1); fasthttp would send them
		out.SetConnectionClose()
		out.SkipBody = true
		x.tail = true
		return
	}
	if size >= 0 && size <= maxJoined && x.fetch() {
		return
	}
	if size < 0 && !x.bodiless() {
		x.promise()
	}
	out.ImmediateHeaderFlush = true
	out.SetBodyStream(&x.body, int(size))
}

// maxJoined is how long a body in bytes may be that is looked for once more before the head leaves without it.
const maxJoined = 8 << 10

// fetch looks whether the body has come by now, without waiting: many servers send it right behind the head, and then one write to the
// client is enough for both.
func (x *exchange) fetch() bool {
	r, b := &x.Response, &x.body
	if w, ok := r.Stream.(phase.Waiter); !ok || w.Waits() {
		return false
	}
	if b.piece, b.err = x.nextPiece(); b.err != nil || int64(len(b.piece)) < b.size {
		return false
	}
	x.ctx.Response.SetBodyRaw(b.piece)
	r.Sent = b.size
	return true
}

// streamHeld makes a body that is here, and has passed the plugins, one that is sent in chunks, with trailers behind it.
func (x *exchange) streamHeld() {
	x.body = body{x: x, size: -1, held: x.Response.Body}
	x.promise()
	x.ctx.Response.SetBodyStream(&x.body, -1)
}

// next returns the next piece; io.EOF comes with the last one, which may be empty.
func (b *body) next() (piece []byte, end error) {
	if piece, end = b.piece, b.err; len(piece) > 0 || end != nil {
		b.piece = nil
		return piece, end
	}
	if b.x.Response.Stream == nil {
		return b.held, io.EOF
	}
	return b.x.nextPiece()
}

// WriteTo sends every piece as it comes. An error makes fasthttp drop the connection without the end of the body, so that the client
// sees that the answer was cut.
//
// w frames and flushes one chunk with every call when the size is not known. When it is, w would collect the pieces in a buffer, so they
// go straight to the connection: fasthttp has flushed the head, and whatever was before it (ImmediateHeaderFlush).
func (b *body) WriteTo(w io.Writer) (sent int64, err error) {
	defer b.x.brokenOff(&err)
	b.begun = true
	if b.size >= 0 {
		w = b.x.ctx.Conn()
	}
	for {
		piece, end := b.next()
		if len(piece) > 0 {
			if !b.coded {
				b.tail.note(piece)
			}
			n, err := w.Write(piece)
			sent += int64(n)
			b.x.Response.Sent += int64(n)
			if err != nil {
				b.x.raise(writeFault(err))
				if end == nil {
					b.x.finish()
				}
				return sent, err
			}
		}
		if end == io.EOF {
			if b.size < 0 {
				b.x.trail()
			}
			return sent, nil
		}
		if end != nil {
			b.lament(w, end)
			return sent, end
		}
	}
}

// SupportsBodyWriteTo tells fasthttp to prefer WriteTo.
func (b *body) SupportsBodyWriteTo() bool { return true }

// Read delivers at most one piece at a time.
func (b *body) Read(p []byte) (n int, err error) {
	defer b.x.brokenOff(&err)
	b.begun = true
	for len(b.piece) == 0 && b.err == nil {
		b.piece, b.err = b.next()
	}
	if len(b.piece) == 0 {
		if b.err == io.EOF && b.size < 0 {
			b.x.trail()
		}
		return 0, b.err
	}
	n = copy(p, b.piece)
	b.piece = b.piece[n:]
	b.x.Response.Sent += int64(n)
	return n, nil
}

// Close gives the upstream's connection back, or drops it when the body was not read to its end.
func (b *body) Close() error {
	if !b.begun && !b.x.bodiless() { // the head did not reach the client
		b.x.raise(fault.ClientGone)
	}
	b.x.closeStream()
	return nil
}

// nextPiece fetches what the upstream has sent and passes it through the chunk plugins. io.EOF comes with the last piece, which may be
// empty.
func (x *exchange) nextPiece() ([]byte, error) {
	piece, end := x.Response.Stream.Next()
	if end != nil && end != io.EOF {
		f, ok := end.(*fault.Fault)
		if !ok {
			f = fault.BodyCut
		}
		x.raise(f)
		return nil, end
	}
	if !x.chunked() {
		return piece, end
	}
	if x.body.coded { // afterwards it is no text any more
		x.body.tail.note(piece)
	}
	made, err := x.Chunk(piece, end == io.EOF)
	if err != nil {
		x.raise(chunkFault(err))
		return nil, err
	}
	x.altered = x.altered || !same(made, piece)
	return made, end
}

// same says that a and b are the same bytes in the same place.
func same(a, b []byte) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

// chunked says whether chunk plugins see the body.
func (x *exchange) chunked() bool { return !x.broken && x.HasChunkers() }

// chunkWhole passes a body that is there already through the chunk plugins. No byte of the answer has left, so an error becomes an
// answer of its own.
func (x *exchange) chunkWhole() {
	b, err := x.Chunk(x.Response.Body, true)
	if err != nil {
		x.Response.Header.Reset()
		x.Fail(chunkFault(err))
		x.ctx.SetConnectionClose()
		return
	}
	x.altered = !same(b, x.Response.Body)
	x.Response.Body, x.Response.HeadLength = b, -1
}

// writeFault is what an error of the client's connection counts as.
func writeFault(err error) *fault.Fault {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fault.WriteTimeout
	}
	return fault.ClientGone
}

// chunkFault is what a chunk plugin's error counts as.
func chunkFault(err error) *fault.Fault {
	if f, ok := err.(*fault.Fault); ok {
		return f
	}
	return fault.BadBody
}

// raise notes what broke the answer off after its head had left.
func (x *exchange) raise(f *fault.Fault) {
	x.Fault = f
	if f.Side == fault.Upstream {
		x.SettleBody() // before the client can see it
	}
	if f != fault.WriteTimeout || x.Request.HTTP2 { // else the connection has counted it
		x.g.count(f)
	}
	if f == fault.ClientGone {
		x.g.aborts.answer.Inc()
	}
}

// brokenOff turns a panic of a chunk plugin into an error that breaks this answer off.
func (x *exchange) brokenOff(err *error) {
	if r := recover(); r != nil {
		x.g.panicked(r)
		x.broken = true
		x.raise(fault.Panic)
		*err = fault.Panic
	}
}

// writeTail writes the body behind a head that fasthttp has sent, on a connection that ends with it. When the body is cut the
// connection is reset: its orderly end would make the body look complete.
func (x *exchange) writeTail() {
	_, err := x.body.WriteTo(x.ctx.Conn())
	if c := x.conn(); err != nil && c != nil {
		c.abort()
	}
}

func (x *exchange) closeStream() {
	if s := x.Response.Stream; s != nil {
		x.Response.Stream = nil
		s.Close()
	}
}
