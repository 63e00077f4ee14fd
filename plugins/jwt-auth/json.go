package jwtauth

import (
	"bytes"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
	"unsafe"
)

const (
	// maxFields bounds the members of an object that is scanned, maxNesting the depth of objects and arrays in it.
	maxFields  = 128
	maxNesting = 32
)

// kind is the JSON type of a value, as far as it matters here.
type kind uint8

const (
	isAbsent kind = iota
	isString
	isNumber
	isNull
	isOther
)

// value is a JSON value: the content of a string without escapes, or the digits of a number.
type value struct {
	kind kind
	text []byte
}

// seconds returns the number.
func (v value) seconds() (float64, bool) {
	if v.kind != isNumber {
		return 0, false
	}
	s := unsafe.String(unsafe.SliceData(v.text), len(v.text)) // read only, and only during this call
	f, err := strconv.ParseFloat(s, 64)
	return f, err == nil
}

// field is a member of an object that somebody wants to know.
type field struct {
	name string
	value
}

// scan fills in the values of the wanted members of the JSON object doc and says whether it is one: valid (RFC 8259), in UTF-8, without
// half surrogates, no member twice, inside the bounds above. It allocates nothing: escapes are resolved inside doc, which is not JSON
// any more afterwards.
func scan(doc []byte, wanted []field) bool {
	if len(doc) > maxToken || !utf8.Valid(doc) {
		return false
	}
	var seen [maxFields]struct{ start, end uint16 } // the names so far
	n := 0
	s := scanner{doc: doc}
	s.blanks()
	if !s.take('{') {
		return false
	}
	s.blanks()
	for more := !s.take('}'); more; {
		name, ok := s.text()
		if !ok || n == maxFields {
			return false
		}
		for _, other := range seen[:n] {
			if bytes.Equal(doc[other.start:other.end], name) {
				return false
			}
		}
		seen[n].start, seen[n].end = uint16(s.start), uint16(s.start+len(name))
		n++
		s.blanks()
		if !s.take(':') {
			return false
		}
		s.blanks()
		v, ok := s.value(0)
		if !ok {
			return false
		}
		for i := range wanted {
			if wanted[i].name == string(name) {
				wanted[i].value = v
			}
		}
		if more, ok = s.next('}'); !ok {
			return false
		}
	}
	s.blanks()
	return s.at == len(doc)
}

// scanner reads doc from at on.
type scanner struct {
	doc   []byte
	at    int
	start int // of the content of the string that was read last
}

func (s *scanner) blanks() {
	for s.at < len(s.doc) {
		switch s.doc[s.at] {
		case ' ', '\t', '\r', '\n':
			s.at++
		default:
			return
		}
	}
}

func (s *scanner) take(c byte) bool {
	if s.at < len(s.doc) && s.doc[s.at] == c {
		s.at++
		return true
	}
	return false
}

// next reads what stands behind an element: a comma, with more to come, or end.
func (s *scanner) next(end byte) (more, ok bool) {
	s.blanks()
	if s.take(end) {
		return false, true
	}
	if !s.take(',') {
		return false, false
	}
	s.blanks()
	return true, true
}

func (s *scanner) value(depth int) (v value, ok bool) {
	if s.at == len(s.doc) || depth > maxNesting {
		return v, false
	}
	switch c := s.doc[s.at]; {
	case c == '"':
		text, ok := s.text()
		return value{isString, text}, ok
	case c == '{':
		s.at++
		s.blanks()
		for more := !s.take('}'); more; {
			if _, ok := s.text(); !ok {
				return v, false
			}
			s.blanks()
			if !s.take(':') {
				return v, false
			}
			s.blanks()
			if _, ok := s.value(depth + 1); !ok {
				return v, false
			}
			if more, ok = s.next('}'); !ok {
				return v, false
			}
		}
		return value{kind: isOther}, true
	case c == '[':
		s.at++
		s.blanks()
		for more := !s.take(']'); more; {
			if _, ok := s.value(depth + 1); !ok {
				return v, false
			}
			if more, ok = s.next(']'); !ok {
				return v, false
			}
		}
		return value{kind: isOther}, true
	case c == '-' || '0' <= c && c <= '9':
		start := s.at
		ok := s.number()
		return value{isNumber, s.doc[start:s.at]}, ok
	case c == 'n':
		return value{kind: isNull}, s.word("null")
	case c == 't':
		return value{kind: isOther}, s.word("true")
	}
	return value{kind: isOther}, s.word("false")
}

func (s *scanner) word(w string) bool {
	if len(s.doc)-s.at < len(w) || string(s.doc[s.at:s.at+len(w)]) != w {
		return false
	}
	s.at += len(w)
	return true
}

func (s *scanner) number() bool {
	s.take('-')
	if !s.take('0') && !s.digits() {
		return false
	}
	if s.take('.') && !s.digits() {
		return false
	}
	if s.take('e') || s.take('E') {
		if !s.take('+') {
			s.take('-')
		}
		return s.digits()
	}
	return true
}

// digits reads at least one.
func (s *scanner) digits() bool {
	start := s.at
	for s.at < len(s.doc) && '0' <= s.doc[s.at] && s.doc[s.at] <= '9' {
		s.at++
	}
	return s.at > start
}

// text reads a string and returns its content, with escapes resolved in place: no escape is shorter than what it stands for.
func (s *scanner) text() (content []byte, ok bool) {
	if !s.take('"') {
		return nil, false
	}
	start, end := s.at, s.at
	for s.at < len(s.doc) {
		c := s.doc[s.at]
		s.at++
		switch {
		case c == '"':
			s.start = start
			return s.doc[start:end:end], true
		case c < ' ':
			return nil, false
		case c == '\\':
			r, ok := s.escape()
			if !ok {
				return nil, false
			}
			end += utf8.EncodeRune(s.doc[end:], r)
		default:
			s.doc[end] = c
			end++
		}
	}
	return nil, false
}

// escape reads what follows a backslash.
func (s *scanner) escape() (rune, bool) {
	if s.at == len(s.doc) {
		return 0, false
	}
	c := s.doc[s.at]
	s.at++
	switch c {
	case '"', '\\', '/':
		return rune(c), true
	case 'b':
		return '\b', true
	case 'f':
		return '\f', true
	case 'n':
		return '\n', true
	case 'r':
		return '\r', true
	case 't':
		return '\t', true
	case 'u':
		r, ok := s.hex()
		if !ok || !utf16.IsSurrogate(r) {
			return r, ok
		}
		if !s.word(`\u`) {
			return 0, false
		}
		low, ok := s.hex()
		pair := utf16.DecodeRune(r, low)
		return pair, ok && pair != utf8.RuneError
	}
	return 0, false
}

func (s *scanner) hex() (r rune, ok bool) {
	if len(s.doc)-s.at < 4 {
		return 0, false
	}
	for _, c := range s.doc[s.at : s.at+4] {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		case 'A' <= c && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	s.at += 4
	return r, true
}
