package proxy

import (
	"bytes"
	"errors"
	"os"
	"sync"

	"headgate/proxy/phase/wire"
)

// mender brings the heads of HTTP/1 requests into the strict form before anybody parses them, as far as it is allowed to. What it leaves as
// it is meets the same checks as without it.
type mender struct {
	Lenient
	limit int       // of a head in bytes; longer ones stay as they are, and are refused for their length
	heads sync.Pool // of *heldHead
}

// heldHead is a head that is gathered, and then delivered.
type heldHead struct {
	raw, mended []byte
	out         []byte // what is delivered: one of them; nil as long as the head is not whole
	at          int    // how much of it has been
}

// maxKeptHead is how large the memory of a head may be that is used again.
const maxKeptHead = 64 << 10

// newMender returns nil when heads are to stay as they are.
func newMender(l Lenient, limit int) *mender {
	if !l.mends() {
		return nil
	}
	return &mender{Lenient: l, limit: limit, heads: sync.Pool{New: func() any { return &heldHead{} }}}
}

// gather is the intake's read for heads that may have to be mended. The first byte is delivered once it is there, because the clock of
// the head begins with it, and the others when the head is whole.
func (in *intake) gather(p []byte) (int, error) {
	for in.held == nil || in.held.out == nil {
		if len(in.rest) > 0 {
			in.rest = in.rest[in.take(in.rest):]
		} else {
			n, err := in.await(p[:min(len(p), intakeBuffer)])
			if used := in.take(p[:n]); used < n {
				in.keep(p[used:n])
			}
			if n == 0 && err != nil {
				if in.scan.begun && !errors.Is(err, os.ErrDeadlineExceeded) {
					in.c.aborted()
				}
				return 0, err
			}
		}
		if h := in.held; h != nil && h.at == 0 && len(p) > 0 {
			p[0], h.at = h.raw[0], 1
			return 1, nil
		}
	}
	h := in.held
	n := copy(p, h.out[h.at:])
	if h.at += n; h.at == len(h.out) {
		in.mode = headRead
		in.dropHeld()
	}
	return n, nil
}

// take adds the part of b that belongs to the present head to it, and returns how much of b was used. There is no head before its first
// byte: an idle connection holds no memory for it.
func (in *intake) take(b []byte) (used int) {
	if in.held == nil {
		for used < len(b) && in.mend.passes(b[used]) {
			used++
		}
		if b = b[used:]; len(b) == 0 {
			return used
		}
		in.held = in.mend.heads.Get().(*heldHead)
	}
	h := in.held
	end := in.scan.end(b)
	whole := end >= 0
	if !whole {
		end = len(b)
	}
	h.raw = append(h.raw, b[:end]...)
	switch {
	case len(h.raw) > in.mend.limit:
		h.out = h.raw
	case whole:
		h.mended = in.mend.mend(h.mended[:0], h.raw)
		h.out = h.mended
	}
	return used + end
}

// dropHeld gives the memory of a head back.
func (in *intake) dropHeld() {
	h := in.held
	if h == nil {
		return
	}
	in.held = nil
	if cap(h.raw)+cap(h.mended) <= maxKeptHead {
		*h = heldHead{raw: h.raw[:0], mended: h.mended[:0]}
		in.mend.heads.Put(h)
	}
}

// passes says whether c does not count in front of a request line (RFC 9112 section 2.2).
func (m *mender) passes(c byte) bool {
	return c == '\r' || c == '\n' || m.LineSpaces && (c == ' ' || c == '\t')
}

// mend appends the whole head to dst. A head that was in the strict form stays as it is, byte for byte.
func (m *mender) mend(dst, head []byte) []byte {
	line, end, head := m.cut(head)
	dst = append(m.requestLine(dst, line), end...)
	open := -1          // where the end of the last line is in dst, if another one may be joined to it
	var length []byte   // what a Content-Length has said
	for len(head) > 0 { // up to the empty line
		line, end, head = m.cut(head)
		strict := len(end) == len(crlf)
		switch kind, value := m.kind(line); {
		case kind == notALine:
			if open < 0 || !m.FoldedLines || !strict || len(line) == 0 || line[0] != ' ' && line[0] != '\t' {
				dst, open = append(append(dst, line...), end...), -1
				continue
			}
			dst = m.value(append(dst[:open], ' '), wire.Trim(line))
			open = len(dst)
		case kind == lineLength:
			one, ok := m.single(value)
			if ok && strict && length != nil && bytes.Equal(one, length) {
				open = -1
				continue
			}
			if ok && len(one) < len(value) {
				dst = append(append(append(dst, line[:bytes.IndexByte(line, ':')]...), ": "...), one...)
			} else {
				dst = append(dst, line...)
			}
			length, open = one, -1
		case kind == lineOther, kind == lineContentType:
			name := bytes.IndexByte(line, ':') + 1
			dst = m.value(append(dst, line[:name]...), line[name:])
			if open = -1; strict {
				open = len(dst)
			}
		default: // it frames or addresses the message, or is dropped
			dst, open = append(dst, line...), -1
		}
		dst = append(dst, end...)
	}
	return dst
}

const crlf = "\r\n"

// cut takes the first line off b. The end is what the line is to end with.
func (m *mender) cut(b []byte) (line []byte, end string, rest []byte) {
	i := bytes.IndexByte(b, '\n')
	switch {
	case i < 0: // a whole head has none such
		return b, "", nil
	case i > 0 && b[i-1] == '\r':
		return b[:i-1], crlf, b[i+1:]
	case m.BareLF:
		return b[:i], crlf, b[i+1:]
	}
	return b[:i], "\n", b[i+1:]
}

// notALine is what is not of the form of a header line.
const notALine lineKind = 255

func (m *mender) kind(line []byte) (lineKind, []byte) {
	colon := bytes.IndexByte(line, ':')
	if colon < 0 || !wire.ValidName(line[:colon]) {
		return notALine, nil
	}
	return requestLine(line[:colon]), wire.Trim(line[colon+1:])
}

// requestLine appends a request line. One that has not three words stays as it is.
func (m *mender) requestLine(dst, line []byte) []byte {
	if !m.LineSpaces {
		return append(dst, line...)
	}
	start, words := len(dst), 0
	for rest := line; len(rest) > 0; {
		n := 0
		for n < len(rest) && rest[n] != ' ' && rest[n] != '\t' {
			n++
		}
		if n > 0 {
			if words++; words > 1 {
				dst = append(dst, ' ')
			}
			dst = append(dst, rest[:n]...)
		}
		rest = rest[min(n+1, len(rest)):]
	}
	if words != 3 {
		return append(dst[:start], line...)
	}
	return dst
}

// value appends a part of a value. NUL, CR and LF stay, and make it invalid.
func (m *mender) value(dst, v []byte) []byte {
	start := len(dst)
	dst = append(dst, v...)
	if m.ControlBytes {
		for i, c := range dst[start:] {
			if c < ' ' && c != '\t' && c != '\r' && c != '\n' && c != 0 || c == 0x7f {
				dst[start+i] = ' '
			}
		}
	}
	return dst
}

// single returns the one length that a list of equal lengths stands for.
func (m *mender) single(value []byte) (one []byte, ok bool) {
	if !m.RepeatedLength {
		return nil, false
	}
	one, rest := wire.NextElement(value)
	if _, ok := wire.ParseLength(one); !ok {
		return nil, false
	}
	for n := bytes.Count(value, []byte{','}); n > 0; n-- {
		var next []byte
		if next, rest = wire.NextElement(rest); !bytes.Equal(next, one) {
			return nil, false
		}
	}
	return one, true
}
