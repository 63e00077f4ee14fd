package proxycache

import (
	"bytes"
	"time"
	"unsafe"

	"headgate/proxy/phase"
	"headgate/proxy/phase/wire"
)

// directives is what the Cache-Control lines of a message say (RFC 9111 section 5.2), as far as a shared cache has to know it. Lengths of
// time are in seconds, -1 when they are not given.
type directives struct {
	noStore, noCache, private, public, mustRevalidate, onlyIfCached bool
	maxAge, sMaxAge, minFresh                                       int64
}

// readDirectives reads the Cache-Control lines among lines. A directive that restricts does so with arguments, too: no-cache="x" counts as
// no-cache.
func readDirectives(lines []phase.Field) directives {
	d := directives{maxAge: -1, sMaxAge: -1, minFresh: -1}
	for i := range lines {
		if !phase.EqualName(lines[i].Name, "cache-control") {
			continue
		}
		for list := lines[i].Value; len(list) > 0; {
			var e []byte
			e, list = nextElement(list)
			name, argument, has := bytes.Cut(e, []byte{'='})
			d.add(wire.Trim(name), wire.Trim(argument), has)
		}
	}
	return d
}

func (d *directives) add(name, argument []byte, has bool) {
	switch {
	case phase.EqualName(name, "no-store"):
		d.noStore = true
	case phase.EqualName(name, "no-cache"):
		d.noCache = true
	case phase.EqualName(name, "private"):
		d.private = true
	case phase.EqualName(name, "public"):
		d.public = true
	case phase.EqualName(name, "must-revalidate"):
		d.mustRevalidate = true
	case phase.EqualName(name, "only-if-cached"):
		d.onlyIfCached = true
	case phase.EqualName(name, "max-age"):
		d.maxAge = shorter(d.maxAge, seconds(argument, has))
	case phase.EqualName(name, "s-maxage"):
		d.sMaxAge = shorter(d.sMaxAge, seconds(argument, has))
	case phase.EqualName(name, "min-fresh"):
		d.minFresh = max(d.minFresh, seconds(argument, has))
	}
}

// shorter: of two that contradict each other the careful one counts.
func shorter(a, b int64) int64 {
	if a < 0 {
		return b
	}
	return min(a, b)
}

// seconds reads a delta-seconds, which may stand in quotes. What is none is 0: nothing is fresh for as long as nobody can tell.
func seconds(b []byte, has bool) int64 {
	if !has {
		return 0
	}
	if n := len(b); n >= 2 && b[0] == '"' && b[n-1] == '"' {
		b = b[1 : n-1]
	}
	if len(b) == 0 {
		return 0
	}
	var n int64
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0
		}
		n = min(10*n+int64(c-'0'), maxTTL)
	}
	return n
}

// nextElement cuts the first element off a comma-separated list; commas in quoted strings do not separate.
func nextElement(list []byte) (element, rest []byte) {
	quoted := false
	for i := 0; i < len(list); i++ {
		switch c := list[i]; {
		case c == '"':
			quoted = !quoted
		case c == '\\' && quoted:
			i++
		case c == ',' && !quoted:
			return wire.Trim(list[:i]), list[i+1:]
		}
	}
	return wire.Trim(list), nil
}

// lifetime is for how long the answer with lines, which came at the time at, is fresh (RFC 9111 section 4.2.1); false when it does not say.
func (d *directives) lifetime(lines []phase.Field, at time.Time) (time.Duration, bool) {
	switch {
	case d.sMaxAge >= 0:
		return time.Duration(d.sMaxAge) * time.Second, true
	case d.maxAge >= 0:
		return time.Duration(d.maxAge) * time.Second, true
	}
	given := false
	var until time.Time
	for i := range lines {
		if phase.EqualName(lines[i].Name, "expires") { // of several the last one counts; one that is no date has passed
			until, _ = parseDate(lines[i].Value)
			given = true
		}
	}
	if !given {
		return 0, false
	}
	return min(max(until.Sub(at), 0), maxTTL*time.Second), true
}

// age is what the Age line says, in seconds; 0 without a usable one.
func age(lines []phase.Field) int64 {
	for i := range lines {
		if phase.EqualName(lines[i].Name, "age") {
			return seconds(lines[i].Value, true)
		}
	}
	return 0
}

// parseDate reads the three forms of a date in HTTP (RFC 9110 section 5.6.7).
func parseDate(b []byte) (time.Time, bool) {
	s := unsafe.String(unsafe.SliceData(b), len(b)) // read only, and only during this call
	for _, layout := range [...]string{"Mon, 02 Jan 2006 15:04:05 GMT", "Monday, 02-Jan-06 15:04:05 GMT", time.ANSIC} {
		if t, err := time.Parse(layout, s); err == nil {
			return t, true
		}
	}
	return time.Time{}, false
}

// notModified says whether the client has what e would give it (RFC 9110 section 13.2.2).
func notModified(h *phase.Header, e *entry) bool {
	asked := false
	for _, f := range h.Fields() {
		if !phase.EqualName(f.Name, "if-none-match") {
			continue
		}
		asked = true
		for list := f.Value; len(list) > 0; {
			var tag []byte
			if tag, list = nextElement(list); string(tag) == "*" || len(e.etag) > 0 && bytes.Equal(strong(tag), strong(e.etag)) {
				return true
			}
		}
	}
	if asked || len(e.modified) == 0 {
		return false
	}
	since, ok := h.Get("If-Modified-Since")
	if !ok {
		return false
	}
	if bytes.Equal(since, e.modified) {
		return true
	}
	have, ok := parseDate(since)
	last, known := parseDate(e.modified)
	return ok && known && !last.After(have)
}

// strong is an entity tag without its mark of weakness, which does not count here (RFC 9110 section 8.8.3.2).
func strong(tag []byte) []byte { return bytes.TrimPrefix(tag, []byte("W/")) }

// preconditions: whether the request depends on something that only the origin can tell (RFC 9111 section 4.3.2).
func preconditions(h *phase.Header) bool {
	for _, f := range h.Fields() {
		if phase.EqualName(f.Name, "if-match") || phase.EqualName(f.Name, "if-unmodified-since") {
			return true
		}
	}
	return false
}
