// Package wire is the grammar of HTTP/1 header lines that both ends of the gateway check with: tokens, values, lists, lengths
// (RFC 9110 section 5, RFC 9112 sections 5 and 6).
package wire

import (
	"bytes"

	"headgate/proxy/phase"
)

// CutLine returns the line up to the first CRLF and what follows. A bare LF does not end a line: it makes the message invalid.
func CutLine(b []byte) (line, rest []byte, ok bool) {
	i := bytes.IndexByte(b, '\n')
	if i < 1 || b[i-1] != '\r' {
		return nil, nil, false
	}
	return b[:i-1], b[i+1:], true
}

// Trim removes optional white space from both ends.
func Trim(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\t') {
		b = b[:len(b)-1]
	}
	return b
}

// NextField cuts the first line off a section of lines that have been checked and that each end with CRLF.
func NextField(section []byte) (f phase.Field, rest []byte) {
	line, rest, _ := CutLine(section)
	colon := bytes.IndexByte(line, ':')
	return phase.Field{Name: line[:colon], Value: Trim(line[colon+1:])}, rest
}

const tokenBytes = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

// tokens has one bit for each byte that a token may contain.
var tokens = func() (t [256]bool) {
	for i := range len(tokenBytes) {
		t[tokenBytes[i]] = true
	}
	return t
}()

// ValidName says whether b is a token, as every header name must be.
func ValidName(b []byte) bool {
	for _, c := range b {
		if !tokens[c] {
			return false
		}
	}
	return len(b) > 0
}

// ValidValue says whether b is free of control bytes other than tab.
func ValidValue(b []byte) bool {
	for _, c := range b {
		if c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// ParseLength reads a Content-Length: digits only, no sign, no list, at most 18 of them.
func ParseLength(b []byte) (int64, bool) {
	if len(b) == 0 || len(b) > 18 {
		return 0, false
	}
	var n int64
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}

// NextElement cuts the first element off a comma-separated list.
func NextElement(list []byte) (element, rest []byte) {
	if i := bytes.IndexByte(list, ','); i >= 0 {
		return Trim(list[:i]), list[i+1:]
	}
	return Trim(list), nil
}

// HasToken says whether the list contains token, ASCII letters without regard to case.
func HasToken(list []byte, token string) bool {
	for len(list) > 0 {
		var e []byte
		if e, list = NextElement(list); phase.EqualName(e, token) {
			return true
		}
	}
	return false
}

// StripNamed removes from h every line that the Connection value list names. Lines that frame, address or authorise the message
// cannot be taken away like this.
func StripNamed(h *phase.Header, list []byte) {
	for len(list) > 0 {
		var e []byte
		if e, list = NextElement(list); len(e) > 0 && !protected(e) {
			h.DelBytes(e)
		}
	}
}

func protected(name []byte) bool {
	for _, p := range [...]string{"host", "content-length", "content-type", "authorization", "cookie", "set-cookie", "apikey", "x-api-key"} {
		if phase.EqualName(name, p) {
			return true
		}
	}
	return false
}

// AppendPath appends a decoded path in the form of a request target: every byte outside of pchar and "/" is percent-encoded
// (RFC 3986 section 3.3).
func AppendPath(dst, path []byte) []byte {
	const hex = "0123456789ABCDEF"
	for _, c := range path {
		if pathBytes[c] {
			dst = append(dst, c)
		} else {
			dst = append(dst, '%', hex[c>>4], hex[c&15])
		}
	}
	return dst
}

// pathBytes has one bit for each byte that stands for itself in a path.
var pathBytes = func() (t [256]bool) {
	const plain = "-._~!$&'()*+,;=:@/0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	for i := range len(plain) {
		t[plain[i]] = true
	}
	return t
}()
