package upstream

import (
	"bytes"

	"headgate/proxy/fault"
	"headgate/proxy/phase/wire"
)

// Limits of the chunked framing itself (reliability S8, S14).
const (
	maxChunkLine = 1 << 10  // a chunk size with its extensions
	maxTrailers  = 4 << 10  // the trailer section of one body
	maxChunkExt  = 16 << 10 // all chunk size lines of one body, beyond their digits
)

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
			if r.trailers += len(line); r.trailers > maxTrailers || len(line) > 0 && !validTrailer(line) {
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
	if !wire.ValidValue(ext) {
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
	return colon > 0 && wire.ValidName(line[:colon]) && wire.ValidValue(line[colon+1:])
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
