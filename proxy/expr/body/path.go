package body

import (
	"bytes"
	"strconv"
	"strings"

	"headgate/proxy/expr"
)

// step is one part of a path into a document.
type step struct {
	kind  stepKind
	deep  bool // also in everything below
	name  string
	low   int // of an index, or of a slice, whose ends count from the end when they are negative
	high  int
	hasLo bool
	hasHi bool
}

type stepKind uint8

const (
	stepName stepKind = iota
	stepAny
	stepIndex
	stepSlice
)

// isPlain reports whether a path names one value: member names with dots between them. Any other is a JSONPath, which names a list.
func isPlain(path string) bool {
	return !strings.ContainsAny(path, "[*") && !strings.Contains(path[1:], "..")
}

// nextStep reads a step of a path, which starts with "." or "[". ok is false for what isn't understood: unions, filters, scripts.
func nextStep(path string) (s step, rest string, ok bool) {
	if rest, s.deep = strings.CutPrefix(path, ".."); !s.deep {
		rest, _ = strings.CutPrefix(path, ".")
	}
	if strings.HasPrefix(rest, "[") {
		return bracket(s, rest[1:])
	}
	end := strings.IndexAny(rest, ".[")
	if end < 0 {
		end = len(rest)
	}
	s.name, rest = rest[:end], rest[end:]
	if s.name == "*" {
		s.kind = stepAny
	}
	return s, rest, end > 0
}

// bracket reads a step of the forms [*], ['name'], ["name"], [n] and [n:n].
func bracket(s step, text string) (_ step, rest string, ok bool) {
	if text == "" {
		return s, "", false
	}
	if quote := text[0]; quote == '\'' || quote == '"' {
		end := strings.IndexByte(text[1:], quote) + 1
		if end == 0 || !strings.HasPrefix(text[end+1:], "]") {
			return s, "", false
		}
		s.name = text[1:end]
		return s, text[end+2:], true
	}
	text, rest, ok = strings.Cut(text, "]")
	low, high, slice := strings.Cut(text, ":")
	switch {
	case !ok:
		return s, "", false
	case text == "*":
		s.kind = stepAny
		return s, rest, true
	case !slice:
		s.kind = stepIndex
		s.low, ok = index(low)
		return s, rest, ok
	}
	s.kind = stepSlice
	if s.hasLo = low != ""; s.hasLo {
		if s.low, ok = index(low); !ok {
			return s, "", false
		}
	}
	if s.hasHi = high != ""; s.hasHi {
		if s.high, ok = index(high); !ok {
			return s, "", false
		}
	}
	return s, rest, true
}

// index reads a small integer. A bracket holds no other number, and strconv would allocate its errors.
func index(text string) (int, bool) {
	digits := strings.TrimPrefix(text, "-")
	if digits == "" || len(digits) > 9 || strings.Trim(digits, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.Atoi(text)
	return n, err == nil
}

// lookup follows a plain path through a valid document. Of several members with one name the last counts. An empty step is passed over.
func lookup(text []byte, path string) (at int, ok bool) {
	at = skipSpace(text, 0)
	for path != "" {
		path = path[1:]
		name := path
		if end := strings.IndexByte(path, '.'); end >= 0 {
			name = path[:end]
		}
		path = path[len(name):]
		if name == "" {
			continue
		}
		if at = member(text, at, name); at < 0 {
			return 0, false
		}
	}
	return at, true
}

// member returns where the value of a member starts, or -1.
func member(text []byte, at int, name string) int {
	found := -1
	if text[at] != '{' {
		return found
	}
	for m := (members{text: text, object: true, at: at}); m.next(0); {
		if stringEqual(m.key, name) {
			found = m.value
		}
	}
	return found
}

// selection collects the values that a JSONPath names.
type selection struct {
	text   []byte
	dst    []byte // a List
	budget int    // how many bytes may still be looked at: paths with several ".." would go through a document again and again
}

func (q *selection) run(at int, path string) {
	if path == "" {
		q.dst = appendItem(q.dst, q.text, at)
		return
	}
	s, rest, ok := nextStep(path)
	if !ok || q.budget < 0 {
		return
	}
	c := q.text[at]
	if c != '{' && c != '[' {
		return
	}
	count := 0
	if s.kind == stepSlice || s.kind == stepIndex {
		if c == '[' && (s.low < 0 || s.high < 0) {
			count = q.count(at)
		}
	}
	if s.kind == stepName {
		if value := member(q.text, at, s.name); value >= 0 {
			q.run(value, rest)
		}
		if !s.deep {
			return
		}
	}
	m := members{text: q.text, object: c == '{', at: at}
	for i := 0; q.budget >= 0 && m.next(0); i++ {
		q.budget -= m.at - m.value
		if s.picks(i, count, c == '[') {
			q.run(m.value, rest)
		}
		if s.deep {
			q.run(m.value, path)
		}
	}
}

// picks reports whether a step takes a member by its position. Names are looked for elsewhere.
func (s *step) picks(i, count int, array bool) bool {
	switch s.kind {
	case stepAny:
		return true
	case stepIndex:
		return array && i == fromEnd(s.low, count)
	case stepSlice:
		return array && (!s.hasLo || i >= fromEnd(s.low, count)) && (!s.hasHi || i < fromEnd(s.high, count))
	default:
		return false
	}
}

func fromEnd(i, count int) int {
	if i < 0 {
		return i + count
	}
	return i
}

func (q *selection) count(at int) int {
	n := 0
	m := members{text: q.text, at: at}
	for m.next(0) {
		n++
	}
	q.budget -= m.end - at
	return n
}

// appendItem appends the value at at to a List. What lies inside an array or object is left out: nothing can be equal to it.
func appendItem(dst, text []byte, at int) []byte {
	kind := kindOf(text[at])
	switch {
	case kind == expr.Text:
		start := len(dst)
		dst = appendString(expr.OpenItem(dst, kind), text[at+1:skipString(text, at)-1])
		expr.CloseItem(dst, start)
		return dst
	case text[at] == '{':
		return expr.AppendItem(dst, kind, nil)
	case text[at] == '[':
		return expr.AppendItem(dst, kind, nil)
	default:
		return expr.AppendItem(dst, kind, text[at:skipValue(text, at, 0)])
	}
}

// jsonArg returns the value that a path names in a document.
func jsonArg(text []byte, path string, dst []byte) ([]byte, expr.Kind) {
	if !valid(text) {
		return dst, expr.None
	}
	if !isPlain(path) {
		q := selection{text: text, dst: dst, budget: 16*len(text) + 1<<16}
		q.run(skipSpace(text, 0), path)
		if len(q.dst) == len(dst) || q.budget < 0 {
			return dst, expr.None
		}
		return q.dst, expr.List
	}
	at, ok := lookup(text, path)
	if !ok {
		return dst, expr.None
	}
	switch text[at] {
	case '"':
		quoted := text[at+1 : skipString(text, at)-1]
		if bytes.IndexByte(quoted, '\\') < 0 {
			return quoted, expr.Text
		}
		return appendString(dst, quoted), expr.Text
	case '[':
		for m := (members{text: text, at: at}); m.next(0); {
			dst = appendItem(dst, text, m.value)
		}
		return dst, expr.List
	default:
		return text[at:skipValue(text, at, 0)], kindOf(text[at])
	}
}
