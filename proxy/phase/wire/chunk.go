package wire

import "bytes"

// Limits of the chunked framing itself (reliability S8, S14).
const (
	maxChunkLine = 1 << 10  // a chunk size with its extensions
	maxChunkExt  = 16 << 10 // all chunk size lines of one body, beyond their digits
	// MaxTrailers bounds the trailer section of one body, in bytes.
	MaxTrailers = 4 << 10
	// MaxTrailerLines is how many lines a trailer section may have to be of any use.
	MaxTrailerLines = 16
)

// Chunks takes a chunked body apart (RFC 9112 section 7.1), a request's or an answer's. It keeps no bytes but those of the trailer
// section: what it does not use, it wants to see again together with what follows. Once it has failed it stays failed. The zero value
// stands before a body.
type Chunks struct {
	left    int64 // data bytes of the present chunk still to come
	state   chunkState
	done    bool
	failed  bool
	ext     int
	sum     int // bytes of trailer lines, without their ends
	lines   int // of the trailer section
	trailer []byte
	// walking: nobody will ask for the trailer section.
	walking bool
}

// Done says that the body is complete.
func (r *Chunks) Done() bool { return r.done }

// Trailers returns the trailer section of a complete body: checked lines (see NextField) in the order in which they came. It is nil when
// there are none, and when there are more than MaxTrailerLines, which are all dropped (RFC 9110 section 6.5.1 lets a recipient do that):
// a part of them could say something else than the whole. The bytes are the caller's.
func (r *Chunks) Trailers() []byte {
	if !r.done {
		return nil
	}
	return r.trailer
}

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
				if len(rest) > MaxTrailers || bytes.IndexByte(rest, '\n') >= 0 {
					return nil, used, r.fail()
				}
				return nil, used, true
			}
			used += len(line) + 2
			if r.done = len(line) == 0; r.done {
				break
			}
			if r.sum += len(line); r.sum > MaxTrailers || !validTrailer(line) {
				return nil, used, r.fail()
			}
			r.collect(line)
		}
	}
	return nil, used, true
}

func (r *Chunks) fail() bool {
	r.failed = true
	return false
}

// collect keeps a trailer line.
func (r *Chunks) collect(line []byte) {
	switch r.lines++; {
	case r.walking:
	case r.lines > MaxTrailerLines:
		r.trailer = nil
	default:
		r.trailer = append(append(r.trailer, line...), '\r', '\n')
	}
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

// validTrailer: what is no header line may be the beginning of another message.
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
// of b the body took. trailers is what Chunks.Trailers would return; it lies in b, behind body.
func Unchunk(b []byte) (body, trailers []byte, used int, whole, ok bool) {
	r := Chunks{walking: true}
	// Walk through once without writing: a body that is incomplete must stay as it is.
	for probe := b; !r.done; {
		p, n, ok := r.Next(probe, len(probe))
		if !ok {
			return nil, nil, 0, false, false
		}
		if len(p) == 0 && !r.done {
			return nil, nil, 0, false, true
		}
		probe = probe[n:]
		used += n
	}
	if end := used - len("\r\n"); r.lines > 0 && r.lines <= MaxTrailerLines {
		start := end - r.sum - r.lines*len("\r\n")
		trailers = b[start:end:end]
	}
	r = Chunks{walking: true}
	w := 0
	for rest := b; !r.done; {
		p, n, _ := r.Next(rest, len(rest))
		w += copy(b[w:], p)
		rest = rest[n:]
	}
	return b[:w:w], trailers, used, true, true
}
