package limit

import (
	"bytes"
	"encoding/json"
)

// Stable writes conf, less _meta, in the one form that equal configurations have: members sorted, no white space. The result may be conf
// itself.
func Stable(conf []byte) ([]byte, error) {
	if isStable(conf) {
		return conf, nil
	}
	doc, err := Decode(conf)
	if err != nil {
		return nil, err
	}
	delete(doc, "_meta")
	return json.Marshal(doc)
}

// Decode returns the members of a configuration; numbers are json.Number. The empty array is also the empty object.
func Decode(conf []byte) (map[string]any, error) {
	d := json.NewDecoder(bytes.NewReader(conf))
	d.UseNumber()
	var doc any
	if err := d.Decode(&doc); err != nil {
		return nil, err
	}
	m, _ := doc.(map[string]any)
	if m == nil {
		m = map[string]any{}
	}
	return m, nil
}

// isStable says that conf has its stable form already, as nearly everything has that the compiler hands to a plugin. It does not know all
// that has it: strings with anything but plain ASCII in them and numbers other than integers are for the library.
func isStable(conf []byte) bool {
	s := stableScan{conf: conf}
	return s.at('{') && s.object(0) && s.pos == len(conf)
}

// maxStableDepth bounds the recursion.
const maxStableDepth = 16

type stableScan struct {
	conf []byte
	pos  int
}

func (s *stableScan) at(c byte) bool { return s.pos < len(s.conf) && s.conf[s.pos] == c }

// take moves on if the next byte is c.
func (s *stableScan) take(c byte) bool {
	if !s.at(c) {
		return false
	}
	s.pos++
	return true
}

func (s *stableScan) value(depth int) bool {
	switch {
	case s.pos == len(s.conf) || depth > maxStableDepth:
		return false
	case s.at('{'):
		return s.object(depth)
	case s.at('['):
		return s.array(depth)
	case s.at('"'):
		_, ok := s.text()
		return ok
	}
	for _, word := range [...]string{"true", "false", "null"} {
		if bytes.HasPrefix(s.conf[s.pos:], []byte(word)) {
			s.pos += len(word)
			return true
		}
	}
	return s.integer()
}

// object wants the names of the members in order, each once, and no _meta among those of the configuration.
func (s *stableScan) object(depth int) bool {
	s.pos++
	if s.take('}') {
		return true
	}
	var last []byte
	for first := true; ; first = false {
		name, ok := s.text()
		if !ok || !first && bytes.Compare(last, name) >= 0 || depth == 0 && string(name) == "_meta" || !s.take(':') || !s.value(depth+1) {
			return false
		}
		last = name
		if !s.take(',') {
			return s.take('}')
		}
	}
}

func (s *stableScan) array(depth int) bool {
	s.pos++
	if s.take(']') {
		return true
	}
	for s.value(depth + 1) {
		if !s.take(',') {
			return s.take(']')
		}
	}
	return false
}

// text wants a string that means what it says and that the library writes as it is, and returns what is between the quotes.
func (s *stableScan) text() (inner []byte, ok bool) {
	if !s.take('"') {
		return nil, false
	}
	start := s.pos
	for ; s.pos < len(s.conf); s.pos++ {
		switch c := s.conf[s.pos]; {
		case c == '"':
			s.pos++
			return s.conf[start : s.pos-1], true
		case c < ' ' || c > '~' || c == '\\' || c == '<' || c == '>' || c == '&':
			return nil, false
		}
	}
	return nil, false
}

func (s *stableScan) integer() bool {
	s.take('-')
	start := s.pos
	for s.pos < len(s.conf) && '0' <= s.conf[s.pos] && s.conf[s.pos] <= '9' {
		s.pos++
	}
	digits := s.pos - start
	return digits > 0 && (digits == 1 || s.conf[start] != '0')
}
