package proxy

import (
	"bytes"
	"errors"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"headgate/proxy/fault"
	"headgate/proxy/phase"
	"headgate/proxy/phase/wire"
)

// intake is where the bytes of a client arrive. fasthttp gets the heads of requests and not a byte more; bodies are read here, so that
// nobody else decides where they end. Where a head ends is found here, too, and what fasthttp has parsed counts only when it has asked for
// all of that.
//
// One goroutine at a time uses it, but for Interrupt and pending.
type intake struct {
	c    *edgeConn
	src  io.Reader // the client's bytes in the clear
	mode intakeMode
	scan headScan

	rest []byte              // received, and nobody has asked for it yet
	buf  *[intakeBuffer]byte // where rest lies; nil as long as there has been none
	body incoming            // the present one
	mend *mender             // of heads; nil when they are taken as they come
	held *heldHead           // the head that the mender has; nil for none
	err  error               // what the body has ended with: io.EOF or a *fault.Fault
	cut  bool                // because the client has left
	// trailers is the trailer section of the body, once that has come to its end.
	trailers []byte
	// pending says that the body has not been read to its end.
	pending atomic.Bool
}

// incoming is how far the present body has come.
type incoming struct {
	chunked bool
	chunks  wire.Chunks
	left    int64 // of one that is not chunked
	size    int64 // as announced, -1 for chunked ones
	most    int64 // it may have
	took    int64 // bytes without framing
	// invite: the client waits until it is told to send.
	invite bool
	// patience is how long may be waited for the whole body, waited how long that was so far. Time in which nobody has asked for
	// bytes does not count. Zero patience is none of our own.
	patience, waited time.Duration
}

type intakeMode uint8

const (
	passing intakeMode = iota // other protocols, other servers: everything goes through
	atHead
	headRead // to its end
	inBody   // or behind it, before the next head is asked for
)

const (
	// intakeBuffer is how much may be received before somebody asks for it, and how much of a chunked body is read at once.
	intakeBuffer = 32 << 10
	// maxDrained is how much of a body that nobody has read is read so that the connection can be used again.
	maxDrained = 256 << 10
)

var intakeBuffers = sync.Pool{New: func() any { return new([intakeBuffer]byte) }}

// errHeadEnd: fasthttp takes the head to be longer than it is.
var errHeadEnd = errors.New("a head that goes on behind its end")

// read is the connection's Read, for whoever parses heads.
func (in *intake) read(p []byte) (int, error) {
	switch in.mode {
	case headRead:
		return 0, errHeadEnd
	case inBody:
		if !in.drain(p) {
			return 0, io.EOF
		}
		in.mode, in.scan = atHead, headScan{most: in.scan.most}
	}
	if in.mend != nil && in.mode == atHead {
		return in.gather(p)
	}
	if len(in.rest) > 0 {
		n := min(len(p), len(in.rest))
		if in.mode == atHead {
			n = in.head(in.rest[:n])
		}
		copy(p, in.rest[:n])
		in.rest = in.rest[n:]
		return n, nil
	}
	if in.mode == passing {
		return in.src.Read(p)
	}
	n, err := in.await(p[:min(len(p), intakeBuffer)])
	if n == 0 && err != nil && in.scan.begun && !errors.Is(err, os.ErrDeadlineExceeded) {
		in.c.aborted()
	}
	end := in.head(p[:n])
	if end < n {
		in.keep(p[end:n])
	}
	return end, err
}

// head returns how much of b belongs to the present head, and notes its end.
func (in *intake) head(b []byte) int {
	end := in.scan.end(b)
	if end < 0 {
		return len(b)
	}
	in.mode = headRead // or it has too many lines: what comes now is an error
	return end
}

// keep puts b aside for later.
func (in *intake) keep(b []byte) {
	if in.buf == nil {
		in.buf = intakeBuffers.Get().(*[intakeBuffer]byte)
	}
	in.rest = in.buf[:copy(in.buf[:], b)]
}

// release gives the memory back when nothing is in it. Bodies that begin has returned are not used any more.
func (in *intake) release() {
	if len(in.rest) == 0 && in.buf != nil {
		intakeBuffers.Put(in.buf)
		in.buf, in.rest = nil, nil
	}
}

// begin starts the body behind a head that was read here. length is in bytes, -1 for a chunked one, limit what it may have; waits says that
// the client wants to be invited. A body that is there already is returned whole; it lies in the intake's memory and is valid until
// release. Any other is to be read: pending is set.
func (in *intake) begin(length, limit int64, waits bool) (whole []byte, f *fault.Fault) {
	in.mode, in.trailers = inBody, nil
	if length == 0 {
		in.err = io.EOF
		return nil, nil
	}
	in.body = incoming{chunked: length < 0, left: length, size: length, most: limit}
	in.err, in.cut = nil, false
	switch {
	case length > limit:
		f = fault.BodyTooLarge
	case length < 0 && len(in.rest) > 0:
		body, trailers, used, all, ok := wire.Unchunk(in.rest)
		switch {
		case !ok:
			f = fault.BadFraming
		case int64(len(body)) > limit:
			f = fault.BodyTooLarge
		case all:
			in.rest, in.err, in.body.took, in.trailers = in.rest[used:], io.EOF, int64(len(body)), trailers
			return body, nil
		}
	case length > 0 && int64(len(in.rest)) >= length:
		whole, in.rest = in.rest[:length:length], in.rest[length:]
		in.err, in.body.took = io.EOF, length
		return whole, nil
	}
	in.pending.Store(true)
	if f != nil {
		in.err = f
		return nil, f
	}
	in.body.invite = waits && len(in.rest) == 0
	if in.c.pause > 0 {
		n := length
		if n < 0 {
			n = limit
		}
		in.body.patience = bodyTime(in.c.pause, n)
	}
	return nil, nil
}

// Trailers implements phase.Incoming.
func (in *intake) Trailers() []byte {
	if in.err != io.EOF || len(in.trailers) == 0 {
		return nil
	}
	return in.c.server.g.edge.trailers.filter(in.trailers)
}

// Announced implements phase.Incoming.
func (in *intake) Announced() int64 { return in.body.size }

// Limit implements phase.Incoming.
func (in *intake) Limit(n int64) {
	in.body.most = min(in.body.most, n)
	if in.err == nil && (in.body.size > n || in.body.took > n) {
		in.err = fault.BodyTooLarge
	}
}

var inviting = []byte("HTTP/1.1 100 Continue\r\n\r\n")

// Invite implements phase.Incoming. All that was answered before has left: fasthttp sees no further than one head.
func (in *intake) Invite() error {
	if !in.body.invite {
		return nil
	}
	in.body.invite = false
	_, err := in.c.top().Write(inviting)
	return err
}

// Expects implements phase.Expectant.
func (in *intake) Expects() bool { return in.body.invite }

// Hold implements phase.Incoming: the connection has no other body.
func (in *intake) Hold() error { return nil }

// Interrupt implements phase.Incoming. The connection cannot be used afterwards, unless the body had come to its end before.
func (in *intake) Interrupt() {
	if in.pending.Load() {
		in.c.Conn.Interrupt()
	}
}

// Read implements phase.Incoming: the last bytes of a body come with io.EOF.
func (in *intake) Read(p []byte) (n int, err error) {
	if in.err != nil || len(p) == 0 {
		return 0, in.err
	}
	b := &in.body
	if b.chunked {
		n = in.unchunk(p)
	} else {
		p = p[:min(int64(len(p)), b.left)]
		if len(in.rest) > 0 {
			n = copy(p, in.rest)
			in.rest = in.rest[n:]
		} else if n, err = in.fill(p); err != nil && n == 0 {
			in.fail(err)
		}
		if b.left -= int64(n); b.left == 0 {
			in.ended()
		}
	}
	if b.took += int64(n); b.took > b.most || b.chunked && b.took+b.chunks.Ahead() > b.most {
		in.err = fault.BodyTooLarge
		return 0, in.err
	}
	return n, in.err
}

// unchunk fills p with what the chunks hold that are there, and waits for some when none are.
func (in *intake) unchunk(p []byte) (n int) {
	b := &in.body
	for n < len(p) {
		piece, used, ok := b.chunks.Next(in.rest, len(p)-n)
		if in.rest = in.rest[used:]; !ok {
			in.err = fault.BadFraming
			return n
		}
		n += copy(p[n:], piece)
		switch {
		case b.chunks.Done():
			in.trailers = b.chunks.Trailers()
			in.ended()
			return n
		case len(piece) > 0:
			continue
		case n > 0 || b.took+b.chunks.Ahead() > b.most:
			return n
		}
		in.keep(in.rest) // an incomplete line, which is shorter than the buffer
		kept := len(in.rest)
		got, err := in.fill(in.buf[kept:])
		if in.rest = in.buf[:kept+got]; err != nil && got == 0 {
			in.fail(err)
			return n
		}
	}
	return n
}

// fill reads from the connection under the clocks of the body.
func (in *intake) fill(p []byte) (int, error) {
	b := &in.body
	if b.patience == 0 {
		return in.src.Read(p)
	}
	asked := time.Now()
	wait := min(in.c.pause, b.patience-b.waited)
	if err := in.c.Conn.SetReadDeadline(asked.Add(wait)); err != nil {
		return 0, err
	}
	n, err := in.src.Read(p)
	b.waited += time.Since(asked)
	return n, err
}

func (in *intake) ended() {
	in.err = io.EOF
	in.settle()
	in.pending.Store(false)
}

// settle takes back the clocks of the body.
func (in *intake) settle() {
	if in.body.patience > 0 {
		_ = in.c.Conn.SetReadDeadline(in.c.until)
	}
}

func (in *intake) fail(err error) {
	f := fault.BadRequest // it has ended before its time
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		f = fault.BodyTimeout
	case errors.Is(err, syscall.ECONNRESET):
		f = fault.ClientGone
	}
	in.cut = f != fault.BodyTimeout
	in.err = f
}

// drain passes over what is left of the body, so that the next head is next. false says that this is not worth it, or that
// nobody can know where that head is. p is for scratch.
func (in *intake) drain(p []byte) bool {
	if !in.pending.Load() {
		return true
	}
	if in.wasted() || len(p) == 0 {
		return false
	}
	for sum := 0; in.err == nil && sum <= maxDrained; {
		n, _ := in.Read(p)
		sum += n
	}
	return in.err == io.EOF
}

// wasted says that the connection cannot be used after the present body: too much of it is left, or nobody knows how much, it is broken, or
// it will not come as nobody has invited the client to send it. Who is told that the connection goes on must find it open.
func (in *intake) wasted() bool {
	return in.err != nil || in.body.invite || in.body.chunked || in.body.left > maxDrained
}

// midway says that the client may still be sending what nobody is going to read.
func (in *intake) midway() bool {
	switch in.mode {
	case passing:
		return false
	case atHead:
		return in.scan.begun
	case headRead:
		return true
	}
	return in.pending.Load() || len(in.rest) > 0
}

var _ phase.Expectant = (*intake)(nil)

// headScan finds the empty line that ends a head, in pieces as they come. It ends lines where lenient readers do, with or without a CR.
type headScan struct {
	begun bool // anything but line ends has come; those before a request do not count (RFC 9112 section 2.2)
	tail  uint8
	lined bool // the request line has ended,
	bare  bool // without a CR
	cr    bool // it has not, and what has come of it ends with one
	many  bool // the head has more lines than most, and was given up
	lines int  // that have ended
	most  int  // of them; 0 = any number
}

// What the last piece has ended with.
const (
	tailLine uint8 = iota // the middle of a line
	tailLF                // the end of one
	tailCR                // the end of one, and a CR
)

// end returns the index behind the empty line, or behind one that is too many, or -1.
func (s *headScan) end(b []byte) int {
	i := 0
	if !s.begun {
		for i < len(b) && (b[i] == '\r' || b[i] == '\n') {
			i++
		}
		if i == len(b) {
			return -1
		}
		s.begun = true
	}
	for {
		if s.tail != tailLine {
			if i == len(b) {
				return -1
			}
			switch {
			case b[i] == '\n':
				return i + 1
			case b[i] == '\r' && s.tail == tailLF:
				s.tail = tailCR
				i++
				continue
			}
			s.tail = tailLine
		}
		n := bytes.IndexByte(b[i:], '\n')
		if !s.lined {
			s.requestLine(b[i:], n)
		}
		if n < 0 {
			return -1
		}
		i += n + 1
		s.tail = tailLF
		if s.lines++; s.most > 0 && s.lines > s.most {
			s.many = true
			return i
		}
	}
}

// requestLine looks at a piece of the request line that ends at b[n], or goes on when n is negative.
func (s *headScan) requestLine(b []byte, n int) {
	before := s.cr
	switch {
	case n > 0:
		before = b[n-1] == '\r'
	case n < 0 && len(b) > 0:
		s.cr = b[len(b)-1] == '\r'
	}
	if n >= 0 {
		s.lined, s.bare = true, !before
	}
}
