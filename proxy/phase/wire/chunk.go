package wire

import "bytes"

// Limits of the chunked framing itself (reliability S8, S14).
const (
	maxChunkLine = 1 << 10  // a chunk size with its extensions
	maxTrailers  = 4 << 10  // the trailer section of one body
	maxChunkExt  = 16 << 10 // all chunk size lines of one body, beyond their digits
)

// Chunks takes a chunked body apart (RFC 9112 section 7.1), a request's or an answer's. It keeps no bytes: what it does not use, it wants
// to see again together with what follows. Once it has failed it stays failed. Trailers are checked, counted and dropped. The zero
// value stands before a body.
type Chunks struct {
	left     int64 // data bytes of the present chunk still to come
	state    chunkState
	done     bool
	trailers int
	ext      int
	failed   bool
}

// Done says that the body is complete.
func (r *Chunks) Done() bool { return r.done }

// Ahead is how much data the present chunk still has.
func (r *Chunks) Ahead() int64 { return r.left }

type chunkState uint8

const (
	atSize chunkState = iota
	inData
	atDataEnd
	inTrailers
)

// Next returns the next piece of data in b, at most most bytes (nil when b ends before one), and how many bytes of b were used. The piece
// points into b. ok is false when this is no chunked body.
func (r *Chunks) Next(b []byte, most int) (piece []byte, used int, ok bool) {
	if r.failed {
		return nil, 0, false
	}
	for !r.done {
		rest := b[used:]
		switch r.state {
		case inData:
			if len(rest) == 0 {
				return nil, used, true
			}
			n := min(int64(len(rest)), r.left, int64(most))
			if r.left -= n; r.left == 0 {
				r.state = atDataEnd
			}
			return rest[:n], used + int(n), true
		case atDataEnd:
			if len(rest) < 2 {
				if len(rest) == 1 && rest[0] != '\r' {
					return nil, used, r.fail()
				}
				return nil, used, true
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
				return nil, used, true
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
				return nil, used, true
			}
			used += len(line) + 2
			if r.done = len(line) == 0; r.done {
				break
			}
			if r.trailers += len(line); r.trailers > maxTrailers || !validTrailer(line) {
				return nil, used, r.fail()
			}
		}
	}
	return nil, used, true
}

func (r *Chunks) fail() bool {
	r.failed = true
	return false
}

// size reads a chunk size line without its CRLF.
func (r *Chunks) size(line []byte) bool {
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
	if !ValidValue(ext) {
		return false
	}
	if r.left = n; n == 0 {
		r.state = inTrailers
	} else {
		r.state = inData
	}
	return true
}

// validTrailer: trailers are dropped, but what is no header line may be the beginning of another message.
func validTrailer(line []byte) bool {
	colon := bytes.IndexByte(line, ':')
	return colon > 0 && ValidName(line[:colon]) && ValidValue(line[colon+1:])
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

// Unchunk decodes a chunked body that is complete in b, in place. whole is false when more is needed, and b is as it was; used is how much
// of b the body took.
func Unchunk(b []byte) (body []byte, used int, whole, ok bool) {
	var r Chunks
	// Walk through once without writing: a body that is incomplete must stay as it is.
	for probe := b; !r.done; {
		p, n, ok := r.Next(probe, len(probe))
		if !ok {
			return nil, 0, false, false
		}
		if len(p) == 0 && !r.done {
			return nil, 0, false, true
		}
		probe = probe[n:]
		used += n
	}
	r = Chunks{}
	w := 0
	for rest := b; !r.done; {
		p, n, _ := r.Next(rest, len(rest))
		w += copy(b[w:], p)
		rest = rest[n:]
	}
	return b[:w], used, true, true
}
