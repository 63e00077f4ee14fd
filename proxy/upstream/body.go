package upstream

import (
	"bytes"
	"errors"
	"io"
	"os"
	"sync"
	"time"

	"headgate/proxy/fault"
	"headgate/proxy/phase"
)

// pieceSize is how much of a streamed body is read at once.
const pieceSize = 16 << 10

// Limits of the framing itself (reliability S8, S14).
const (
	maxChunkLine = 1 << 10  // a chunk size with its extensions
	maxTrailers  = 4 << 10  // the trailer section of one body
	maxChunkExt  = 16 << 10 // all chunk size lines of one body, beyond their digits
)

// stream delivers a response body piece by piece, and knows a body that was cut from one that is complete. It owns its
// connection until Close.
type stream struct {
	c       *conn
	x       *phase.Exchange
	timeout time.Duration

	framing framing
	left    int64 // byLength: bytes to come
	keep    bool
	chunks  chunkReader

	pending []byte // read together with the head, not yet delivered
	buf     []byte
	err     error // sticky: io.EOF after a complete body, or the fault
}

var streams = sync.Pool{New: func() any { return &stream{buf: make([]byte, pieceSize)} }}

// newStream takes over c. pending are the body bytes that came with the head, valid until Close.
func newStream(x *phase.Exchange, c *conn, h head, timeout time.Duration, pending []byte) *stream {
	s := streams.Get().(*stream)
	*s = stream{c: c, x: x, timeout: timeout, framing: h.framing, left: h.length, keep: h.keepAlive, pending: pending, buf: s.buf}
	return s
}

// Next implements phase.Stream.
func (s *stream) Next() ([]byte, error) {
	for s.err == nil {
		if p := s.take(); len(p) > 0 {
			return p, nil
		}
		if s.err == nil {
			s.fill()
		}
	}
	return nil, s.err
}

// take delivers from what has been read, and sets err at the end of the body.
func (s *stream) take() []byte {
	switch s.framing {
	case byLength:
		n := min(int64(len(s.pending)), s.left)
		p := s.pending[:n]
		s.pending = s.pending[n:]
		if s.left -= n; s.left == 0 && n == 0 {
			s.err = io.EOF
		}
		return p
	case byChunks:
		p, used, f := s.chunks.next(s.pending)
		s.pending = s.pending[used:]
		if f != nil {
			s.err = f
		} else if s.chunks.done && len(p) == 0 {
			s.err = io.EOF
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
	if kept == len(s.buf) {
		s.err = fault.BadBody
		return
	}
	if err := s.c.SetReadDeadline(time.Now().Add(s.timeout)); err != nil {
		s.err = fault.BodyCut
		return
	}
	n, err := s.c.Read(s.buf[kept:])
	s.pending = s.buf[:kept+n]
	if n > 0 {
		return
	}
	switch {
	case err == nil:
	case errors.Is(err, os.ErrDeadlineExceeded):
		s.err = fault.ReadTimeout
	case s.framing == byClose && errors.Is(err, io.EOF):
		s.err = io.EOF
	default:
		s.err = fault.BodyCut
	}
}

// Close implements phase.Stream.
func (s *stream) Close() {
	s.x.Attempts.End = s.x.Elapsed()
	s.c.release(s.keep && s.err == io.EOF, len(s.pending))
	*s = stream{buf: s.buf}
	streams.Put(s)
}

// chunkReader takes a chunked body apart (RFC 9112 section 7.1). It keeps no bytes: what it does not use, it wants to see again
// together with what follows. Once it has failed it stays failed.
type chunkReader struct {
	left     int64 // data bytes of the present chunk still to come
	state    chunkState
	done     bool
	trailers int
	ext      int
	failed   bool
}

type chunkState uint8

const (
	atSize chunkState = iota
	inData
	atDataEnd
	inTrailers
)

// next returns the next piece of data in b (nil when b ends before one) and how many bytes of b were used. The piece points
// into b. done is set when the body is complete.
func (r *chunkReader) next(b []byte) (piece []byte, used int, f *fault.Fault) {
	if r.failed {
		return nil, 0, fault.BadBody
	}
	for !r.done {
		rest := b[used:]
		switch r.state {
		case inData:
			if len(rest) == 0 {
				return nil, used, nil
			}
			n := min(int64(len(rest)), r.left)
			if r.left -= n; r.left == 0 {
				r.state = atDataEnd
			}
			return rest[:n], used + int(n), nil
		case atDataEnd:
			if len(rest) < 2 {
				if len(rest) == 1 && rest[0] != '\r' {
					return nil, used, r.fail()
				}
				return nil, used, nil
			}
			if rest[0] != '\r' || rest[1] != '\n' {
				return nil, used, r.fail()
			}
			used += 2
			r.state = atSize
		case atSize:
			line, ok := chunkLine(rest)
			if !ok {
				if len(rest) > maxChunkLine || bytes.IndexByte(rest, '\n') >= 0 {
					return nil, used, r.fail()
				}
				return nil, used, nil
			}
			if !r.size(line) {
				return nil, used, r.fail()
			}
			used += len(line) + 2
		case inTrailers:
			line, ok := chunkLine(rest)
			if !ok {
				if len(rest) > maxTrailers || bytes.IndexByte(rest, '\n') >= 0 {
					return nil, used, r.fail()
				}
				return nil, used, nil
			}
			used += len(line) + 2
			if r.trailers += len(line); r.trailers > maxTrailers {
				return nil, used, r.fail()
			}
			r.done = len(line) == 0
		}
	}
	return nil, used, nil
}

func (r *chunkReader) fail() *fault.Fault {
	r.failed = true
	return fault.BadBody
}

// size reads a chunk size line without its CRLF.
func (r *chunkReader) size(line []byte) bool {
	var n int64
	i := 0
	for ; i < len(line); i++ {
		d, ok := hexDigit(line[i])
		if !ok {
			break
		}
		if i == 15 {
			return false
		}
		n = n<<4 | int64(d)
	}
	if i == 0 || len(line) > maxChunkLine {
		return false
	}
	if r.ext += len(line) - i; r.ext > maxChunkExt {
		return false
	}
	ext := line[i:]
	for len(ext) > 0 && (ext[0] == ' ' || ext[0] == '\t') {
		ext = ext[1:]
	}
	if len(ext) > 0 && ext[0] != ';' || len(ext) == 0 && i < len(line) {
		return false
	}
	for _, c := range ext {
		if c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	if r.left = n; n == 0 {
		r.state = inTrailers
	} else {
		r.state = inData
	}
	return true
}

func hexDigit(c byte) (byte, bool) {
	switch {
	case c >= '0' && c <= '9':
		return c - '0', true
	case c|0x20 >= 'a' && c|0x20 <= 'f':
		return c | 0x20 - 'a' + 10, true
	}
	return 0, false
}

// chunkLine returns the line that ends with the first CRLF, which must be the first LF too.
func chunkLine(b []byte) ([]byte, bool) {
	i := bytes.IndexByte(b, '\n')
	if i < 1 || b[i-1] != '\r' {
		return nil, false
	}
	return b[:i-1], true
}

// unchunk decodes a chunked body that is complete in b, in place. ok is false when more is needed; used is how much of b the
// body took.
func unchunk(b []byte) (body []byte, used int, ok bool, f *fault.Fault) {
	var r chunkReader
	// Walk through once without writing: a body that is incomplete must stay as it is.
	for probe := b; !r.done; {
		p, n, f := r.next(probe)
		if f != nil {
			return nil, 0, false, f
		}
		if len(p) == 0 && !r.done {
			return nil, 0, false, nil
		}
		probe = probe[n:]
		used += n
	}
	r = chunkReader{}
	w := 0
	for rest := b; !r.done; {
		p, n, _ := r.next(rest)
		w += copy(b[w:], p)
		rest = rest[n:]
	}
	return b[:w], used, true, nil
}
