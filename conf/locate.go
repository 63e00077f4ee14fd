package conf

import (
	"bytes"
	"strconv"
	"strings"
)

// locate finds the line of every key, array element and table header of a TOML text, because the decoder keeps positions of syntax
// errors only. Keys are spelled as childKey and indexKey spell them. The text is expected to be valid; with any other text the
// answer is incomplete, never a panic or an endless loop.
func locate(text []byte) map[string]int {
	s := scanner{text: bytes.TrimPrefix(text, []byte("\xef\xbb\xbf")), line: 1, lines: map[string]int{}, arrays: map[string]int{}}
	s.document()
	return s.lines
}

// maxNesting bounds the recursion over arrays and inline tables; positions deeper down fall back to an enclosing key.
const maxNesting = 64

type scanner struct {
	text   []byte
	pos    int
	line   int
	depth  int
	lines  map[string]int
	arrays map[string]int // [[x]] headers seen so far, by key
}

func (s *scanner) peek() byte {
	if s.pos < len(s.text) {
		return s.text[s.pos]
	}
	return 0
}

func (s *scanner) more() bool { return s.pos < len(s.text) }

// next moves over one byte and counts lines.
func (s *scanner) next() {
	if s.peek() == '\n' {
		s.line++
	}
	s.pos++
}

// blank skips white space, comments and line ends.
func (s *scanner) blank() {
	for s.more() {
		switch s.peek() {
		case ' ', '\t', '\r', '\n':
			s.next()
		case '#':
			for s.more() && s.peek() != '\n' {
				s.pos++
			}
		default:
			return
		}
	}
}

func (s *scanner) mark(key string) {
	if _, seen := s.lines[key]; !seen {
		s.lines[key] = s.line
	}
}

func (s *scanner) document() {
	table := ""
	for s.blank(); s.more(); s.blank() {
		before := s.pos
		if s.peek() == '[' {
			table = s.header()
		} else {
			s.pair(table)
		}
		if s.pos == before {
			s.next()
		}
	}
}

// header reads [a.b] or [[a.b]] and returns the key of the table that follows. A part that names an array of tables means its
// latest element.
func (s *scanner) header() string {
	line := s.line
	array := bytes.HasPrefix(s.text[s.pos:], []byte("[["))
	s.pos++
	if array {
		s.pos++
	}
	parts := s.key()
	for s.more() && s.peek() != '\n' && s.peek() != '#' {
		s.pos++
	}
	key := ""
	for i, part := range parts {
		key = childKey(key, part)
		if array && i == len(parts)-1 {
			s.arrays[key]++
		}
		if _, seen := s.lines[key]; !seen {
			s.lines[key] = line
		}
		if n := s.arrays[key]; n > 0 {
			key = indexKey(key, n-1)
			if _, seen := s.lines[key]; !seen {
				s.lines[key] = line
			}
		}
	}
	return key
}

// key reads a dotted key, bare or quoted parts.
func (s *scanner) key() []string {
	var parts []string
	for {
		s.space()
		switch c := s.peek(); {
		case c == '"' || c == '\'':
			parts = append(parts, s.quotedKey(c))
		default:
			start := s.pos
			for s.more() && isBareKeyByte(s.peek()) {
				s.pos++
			}
			if s.pos == start {
				return parts
			}
			parts = append(parts, string(s.text[start:s.pos]))
		}
		s.space()
		if s.peek() != '.' {
			return parts
		}
		s.pos++
	}
}

func (s *scanner) space() {
	for s.more() && (s.peek() == ' ' || s.peek() == '\t') {
		s.pos++
	}
}

func (s *scanner) quotedKey(quote byte) string {
	start := s.pos
	s.str()
	raw := string(s.text[start:min(s.pos, len(s.text))])
	if quote == '\'' {
		return strings.Trim(raw, "'")
	}
	// Go's and TOML's escapes differ only in \e and \/, which no known key needs.
	if name, err := strconv.Unquote(raw); err == nil {
		return name
	}
	return strings.Trim(raw, `"`)
}

// pair reads key = value inside the table called parent.
func (s *scanner) pair(parent string) {
	parts := s.key()
	key := parent
	for _, part := range parts {
		key = childKey(key, part)
		s.mark(key)
	}
	if s.peek() != '=' {
		return
	}
	s.pos++
	s.space()
	s.value(key)
}

func (s *scanner) value(key string) {
	if s.depth >= maxNesting {
		s.scalar()
		return
	}
	s.depth++
	defer func() { s.depth-- }()
	switch s.peek() {
	case '[':
		s.pos++
		for i := 0; ; i++ {
			if s.blank(); !s.more() || s.peek() == ']' {
				break
			}
			before := s.pos
			element := indexKey(key, i)
			s.mark(element)
			s.value(element)
			if !s.separator(']', before) {
				break
			}
		}
		s.pos++
	case '{':
		s.pos++
		for {
			if s.blank(); !s.more() || s.peek() == '}' {
				break
			}
			before := s.pos
			s.pair(key)
			if !s.separator('}', before) {
				break
			}
		}
		s.pos++
	case '"', '\'':
		s.str()
	default:
		s.scalar()
	}
}

// separator moves over the comma behind an element and reports whether another element may follow.
func (s *scanner) separator(end byte, before int) bool {
	s.blank()
	switch {
	case !s.more() || s.peek() == end:
		return false
	case s.peek() == ',' || s.pos == before:
		s.next()
	}
	return true
}

// scalar skips a number, boolean or date.
func (s *scanner) scalar() {
	for s.more() {
		switch s.peek() {
		case ',', ']', '}', '\n', '\r', '#':
			return
		}
		s.pos++
	}
}

// str skips a string of any of TOML's four kinds.
func (s *scanner) str() {
	quote := s.peek()
	long := bytes.Repeat([]byte{quote}, 3)
	if bytes.HasPrefix(s.text[s.pos:], long) {
		for s.pos += 3; s.more(); s.next() {
			if quote == '"' && s.peek() == '\\' {
				s.next()
				continue
			}
			if bytes.HasPrefix(s.text[s.pos:], long) {
				s.pos += 3
				// Up to two quotes may stand directly before the closing three.
				for n := 0; n < 2 && s.peek() == quote; n++ {
					s.pos++
				}
				return
			}
		}
		return
	}
	for s.pos++; s.more() && s.peek() != '\n'; s.pos++ {
		if quote == '"' && s.peek() == '\\' && s.pos+1 < len(s.text) && s.text[s.pos+1] != '\n' {
			s.pos++
			continue
		}
		if s.peek() == quote {
			s.pos++
			return
		}
	}
}
