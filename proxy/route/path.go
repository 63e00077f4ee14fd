package route

// PathError says why a request path cannot be matched. Every PathError is ErrBadPath in the sense of errors.Is.
type PathError uint8

const (
	ErrBadPath       PathError = iota // any of the following
	ErrPathRelative                   // does not start with '/'
	ErrPathEscape                     // '%' without two hexadecimal digits
	ErrPathNUL                        // %00
	ErrPathControl                    // raw control byte, space or DEL
	ErrPathAboveRoot                  // ".." leads out of the root
)

func (e PathError) Error() string {
	switch e {
	case ErrPathRelative:
		return "route: path does not start with a slash"
	case ErrPathEscape:
		return "route: malformed percent escape in the path"
	case ErrPathNUL:
		return "route: NUL in the path"
	case ErrPathControl:
		return "route: control byte or space in the path"
	case ErrPathAboveRoot:
		return "route: path leads above the root"
	}
	return "route: bad path"
}

// Is makes every PathError match ErrBadPath.
func (e PathError) Is(target error) bool {
	return target == ErrBadPath || target == e
}

// Clean reports whether raw is already what AppendNormalized would make of it, so that the caller can use it as it is.
func Clean(raw []byte) bool {
	if len(raw) == 0 || raw[0] != '/' {
		return false
	}
	for i, c := range raw {
		if c > '?' {
			if c == 0x7f {
				return false
			}
			continue
		}
		switch {
		case c == '/':
			// A slash or a dot segment behind it has to go.
			rest := raw[i+1:]
			if len(rest) == 0 {
				return true
			}
			if rest[0] == '/' || rest[0] == '.' && dotSegment(rest) {
				return false
			}
		case c <= ' ' || c == '%' || c == '#' || c == '?':
			return false
		}
	}
	return true
}

// dotSegment reports whether b, which starts with '.', starts with a "." or ".." segment. A byte that ends the path or may decode to
// a dot or a slash is found by Clean itself.
func dotSegment(b []byte) bool {
	b = b[1:]
	if len(b) > 0 && b[0] == '.' {
		b = b[1:]
	}
	return len(b) == 0 || b[0] == '/'
}

// AppendNormalized appends the form of a request path that rules are matched against and returns the extended dst. It follows what
// nginx makes of $uri (contract section 2.2): escapes are decoded once, %2F and %2E included; then "." and ".." segments are
// resolved and runs of slashes merged; a raw '#' (or '?') ends the path. An escaped '#', '?' or '%' is an ordinary byte. raw is the
// path as sent, without the query; the empty one (as in `http://host`) gives "/". raw and dst must not overlap. On an error, which
// is a PathError, dst comes back as it was.
func AppendNormalized(dst, raw []byte) ([]byte, error) { return appendNormalized(dst, raw, false) }

// EncodedSlash stands for a slash that was sent as %2F in what AppendMarked returns. No path has this byte of its own.
const EncodedSlash = 0

// AppendMarked is AppendNormalized, except that an escaped slash belongs to its segment: it becomes the byte EncodedSlash.
func AppendMarked(dst, raw []byte) ([]byte, error) { return appendNormalized(dst, raw, true) }

func appendNormalized(dst, raw []byte, mark bool) ([]byte, error) {
	start := len(dst)
	if len(raw) == 0 {
		return append(dst, '/'), nil
	}
	if raw[0] != '/' {
		return dst, ErrPathRelative
	}
	dst = append(dst, '/')
	// Invariant: dst[start] is a slash and segment is the index behind the last slash of dst.
	segment := start + 1
	for i := 1; i < len(raw); i++ {
		c := raw[i]
		if c == '#' || c == '?' {
			break
		}
		if c <= ' ' || c == 0x7f {
			return dst[:start], ErrPathControl
		}
		if c == '%' {
			if i+2 >= len(raw) {
				return dst[:start], ErrPathEscape
			}
			hi, lo := unhex(raw[i+1]), unhex(raw[i+2])
			if max(hi, lo) > 0xf {
				return dst[:start], ErrPathEscape
			}
			if c = hi<<4 | lo; c == 0 {
				return dst[:start], ErrPathNUL
			}
			i += 2
			if mark && c == '/' {
				dst = append(dst, EncodedSlash)
				continue
			}
		}
		if c != '/' {
			dst = append(dst, c)
			continue
		}
		n, ok := endSegment(dst, start, segment)
		if !ok {
			return dst[:start], ErrPathAboveRoot
		}
		dst = dst[:n]
		if dst[n-1] != '/' {
			dst = append(dst, '/')
		}
		segment = len(dst)
	}
	n, ok := endSegment(dst, start, segment)
	if !ok {
		return dst[:start], ErrPathAboveRoot
	}
	return dst[:n], nil
}

// endSegment returns the length of dst once its last segment, dst[segment:], is resolved if it is a dot segment. ok is false when it
// leads above the root at dst[start].
func endSegment(dst []byte, start, segment int) (n int, ok bool) {
	switch string(dst[segment:]) {
	case ".":
		return segment, true
	case "..":
		n = segment - 1 // the slash in front of ".."
		if n == start {
			return 0, false
		}
		for dst[n-1] != '/' {
			n--
		}
		return n, true
	}
	return len(dst), true
}

// unhex returns the value of a hexadecimal digit, 0xff for any other byte.
func unhex(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10
	}
	return 0xff
}
