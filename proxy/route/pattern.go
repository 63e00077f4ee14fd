package route

import (
	"bytes"
	"errors"
	"strings"
)

// extName is the name under which an unnamed `*` segment is captured.
const extName = ":ext"

// pattern is a path pattern with more than a literal prefix: chunks of literal text and parameters with stars between them. It is
// compared from the right, each chunk at its rightmost place, which gives every star the longest match that a greedy regular
// expression would give it, without backtracking: the work is bounded by the product of the lengths of path and pattern.
//
// A star is a segment that starts with '*' (the rest of the segment is its name) or a '*' inside a segment; it matches any bytes,
// also none and also '/'. A parameter is a segment that starts with ':' (parameter mode only); it matches one or more bytes other than '/'.
type pattern struct {
	chunks []chunk
	stars  []int    // capture slot of the star behind chunk i, or -1; len(stars) == len(chunks)-1
	names  []string // by capture slot
}

// chunk is a run of literals and parameters. Every parameter is a whole segment, so it has a '/' (or the end of the pattern) on each
// side and its extent is never ambiguous. A chunk behind a star starts with a literal or is empty.
type chunk []part

type part struct {
	lit   []byte
	param int // capture slot, -1 for a literal
}

// compilePattern returns the text under which uri is stored and whether it is stored as a prefix (contract section 2.2). p is nil when a
// candidate found under that text needs no further comparison; ext tells that it ends in an unnamed star segment to be captured.
func compilePattern(mode Mode, uri string) (stored string, prefix bool, p *pattern, ext bool, err error) {
	special := "*"
	if mode == URIWithParameter {
		special = "*:"
	}
	cut := strings.IndexAny(uri, special)
	if cut < 0 {
		return uri, false, nil, false, nil
	}
	stored = uri[:cut]
	if cut == len(uri)-1 && uri[cut] == '*' {
		return stored, true, nil, startsSegment(uri, cut), nil
	}
	p = &pattern{}
	if err := p.parse(uri, mode == URIWithParameter); err != nil {
		return "", false, nil, false, err
	}
	return stored, true, p, false, nil
}

func startsSegment(uri string, i int) bool {
	return i == 0 || uri[i-1] == '/'
}

func (p *pattern) parse(uri string, params bool) error {
	var current chunk
	lit := 0 // start of the literal text not yet stored
	flush := func(end int) {
		if lit < end {
			current = append(current, part{lit: []byte(uri[lit:end]), param: -1})
		}
	}
	for i := 0; i < len(uri); {
		first := startsSegment(uri, i)
		switch {
		case first && params && uri[i] == ':':
			flush(i)
			end := segmentEnd(uri, i)
			current = append(current, part{param: p.name(uri[i+1 : end])})
			i, lit = end, end
		case uri[i] == '*':
			flush(i)
			p.chunks = append(p.chunks, current)
			current = nil
			end, capture := i+1, -1
			if first {
				end = segmentEnd(uri, i)
				name := uri[i+1 : end]
				if name == "" {
					name = extName
				}
				capture = p.name(name)
			}
			p.stars = append(p.stars, capture)
			i, lit = end, end
		default:
			i++
		}
	}
	flush(len(uri))
	p.chunks = append(p.chunks, current)
	if len(p.names) > MaxParams {
		return errTooManyParams
	}
	return nil
}

var errTooManyParams = errors.New("more than 16 captures")

func (p *pattern) name(s string) int {
	p.names = append(p.names, s)
	return len(p.names) - 1
}

func segmentEnd(uri string, i int) int {
	if j := strings.IndexByte(uri[i:], '/'); j >= 0 {
		return i + j
	}
	return len(uri)
}

// match compares the whole of path and stores the captures in m. A failed comparison leaves m.NParams alone.
func (p *pattern) match(path []byte, m *Match) bool {
	last := len(p.chunks) - 1
	lo := p.chunks[0].matchAt(path, 0, m)
	if lo < 0 || last == 0 && lo != len(path) {
		return false
	}
	hi := len(path) // where the star left of the chunks placed so far ends
	for i := last; i > 0; i-- {
		start, end := p.chunks[i].lastMatch(path[:hi], lo, i == last, m)
		if start < 0 {
			return false
		}
		if i < last {
			p.capture(i, path[end:hi], m)
		}
		hi = start
	}
	if last > 0 {
		p.capture(0, path[lo:hi], m)
	}
	for i, name := range p.names {
		m.Params[i].Name = name
	}
	m.NParams = len(p.names)
	return true
}

func (p *pattern) capture(star int, value []byte, m *Match) {
	if i := p.stars[star]; i >= 0 {
		m.Params[i].Value = value
	}
}

// matchAt compares c with path from start on and returns where it ends, or -1.
func (c chunk) matchAt(path []byte, start int, m *Match) int {
	for i := range c {
		part := &c[i]
		rest := path[start:]
		if part.param < 0 {
			if !bytes.HasPrefix(rest, part.lit) {
				return -1
			}
			start += len(part.lit)
			continue
		}
		n := bytes.IndexByte(rest, '/')
		if n < 0 {
			n = len(rest)
		}
		if n == 0 {
			return -1
		}
		m.Params[part.param].Value = rest[:n]
		start += n
	}
	return start
}

// lastMatch finds the rightmost place of c in path[lo:], which has to end at the end of path if atEnd. start is -1 if there is none.
func (c chunk) lastMatch(path []byte, lo int, atEnd bool, m *Match) (start, end int) {
	if len(c) == 0 {
		return len(path), len(path)
	}
	first := c[0].lit
	if len(c) == 1 {
		start = lo + bytes.LastIndex(path[lo:], first)
		if start < lo || atEnd && start+len(first) != len(path) {
			return -1, -1
		}
		return start, start + len(first)
	}
	for limit := len(path); ; limit = start {
		i := bytes.LastIndexByte(path[lo:limit], first[0])
		if i < 0 {
			return -1, -1
		}
		start = lo + i
		end = c.matchAt(path, start, m)
		if end >= 0 && (!atEnd || end == len(path)) {
			return start, end
		}
	}
}
