package accesslog

import (
	"unicode/utf8"
	"unsafe"
)

const (
	// MaxField bounds what one field adds to a line, in bytes after escaping.
	MaxField = 2048
	// Cut stands where a field was cut. A backslash of the value is never written as itself, so no value can fake it.
	Cut = `\...`
)

// AppendEscaped appends value so that it cannot end a line, a quoted field or the terminal that shows it: control characters, '"',
// '\', invalid UTF-8, and the Unicode characters that break lines or reorder text become \xNN, byte by byte. What would exceed
// MaxField is replaced by Cut. The value is not kept.
func AppendEscaped(dst, value []byte) []byte {
	// The string is a view that ends with this call.
	return AppendEscapedString(dst, unsafe.String(unsafe.SliceData(value), len(value)))
}

// AppendEscapedString is AppendEscaped for a string.
func AppendEscapedString(dst []byte, value string) []byte {
	room := MaxField
	for len(value) > 0 {
		n := plainPrefix(value)
		if n > room {
			return append(append(dst, value[:room]...), Cut...)
		}
		dst = append(dst, value[:n]...)
		room -= n
		if value = value[n:]; value == "" {
			break
		}
		c, size := utf8.DecodeRuneInString(value)
		written := size
		if !printable(c, size) {
			written = 4 * size
		}
		if written > room {
			return append(dst, Cut...)
		}
		room -= written
		if written == size {
			dst = append(dst, value[:size]...)
		} else {
			for i := range size {
				dst = appendHex(dst, value[i])
			}
		}
		value = value[size:]
	}
	return dst
}

// plainPrefix returns how many bytes of s are ASCII that needs no escape.
func plainPrefix(s string) int {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < ' ' || c >= 0x7f || c == '"' || c == '\\' {
			return i
		}
	}
	return len(s)
}

// printable tells whether a rune that plainPrefix stopped at, decoded from size bytes, is written as it is.
func printable(c rune, size int) bool {
	switch {
	case c < 0xa0: // ASCII that must be escaped, DEL, and the C1 controls that some terminals obey
		return false
	case c == utf8.RuneError && size == 1:
		return false
	case c == 0x2028, c == 0x2029: // line and paragraph separator
		return false
	case c >= 0x202a && c <= 0x202e, c >= 0x2066 && c <= 0x2069: // bidirectional overrides and isolates
		return false
	}
	return true
}

func appendHex(dst []byte, c byte) []byte {
	const digits = "0123456789ABCDEF"
	return append(dst, '\\', 'x', digits[c>>4], digits[c&15])
}
