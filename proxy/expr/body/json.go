package body

import (
	"bytes"
	"encoding/binary"
	"unicode/utf16"
	"unicode/utf8"

	"headgate/proxy/expr"
)

// maxNesting bounds how deep arrays and objects may lie in each other; a deeper document has no values. The contract's decoder
// stops there too.
const maxNesting = 1000

// valid reports whether text is one JSON document (RFC 8259), white space around it allowed.
func valid(text []byte) bool {
	end := skipValue(text, skipSpace(text, 0), 0)
	return end >= 0 && skipSpace(text, end) == len(text)
}

func skipSpace(text []byte, at int) int {
	for at < len(text) && (text[at] == ' ' || text[at] == '\n' || text[at] == '\t' || text[at] == '\r') {
		at++
	}
	return at
}

// skipValue returns where the value at at ends, or -1 for what is no value.
func skipValue(text []byte, at, nesting int) int {
	if at >= len(text) {
		return -1
	}
	switch c := text[at]; {
	case c == '"':
		return skipString(text, at)
	case c == '{':
		return skipContainer(text, at, nesting+1, true)
	case c == '[':
		return skipContainer(text, at, nesting+1, false)
	case c == 't':
		return skipWord(text, at, "true")
	case c == 'f':
		return skipWord(text, at, "false")
	case c == 'n':
		return skipWord(text, at, "null")
	default:
		return skipNumber(text, at)
	}
}

func skipContainer(text []byte, at, nesting int, object bool) int {
	if nesting > maxNesting {
		return -1
	}
	m := members{text: text, object: object, at: at}
	for m.next(nesting) {
	}
	return m.end
}

// members goes through the members of an object or the elements of an array.
type members struct {
	text   []byte
	object bool
	at     int // before the first call of next: the bracket; later: behind the value
	begun  bool
	key    []byte // between the quotes, as written
	value  int    // where the value starts
	end    int    // behind the container once next said false, -1 if it was malformed
}

// next moves to the next member. nesting is the depth of the container.
func (m *members) next(nesting int) bool {
	closing := byte(']')
	if m.object {
		closing = '}'
	}
	m.end = -1
	if !m.begun {
		m.at = skipSpace(m.text, m.at+1)
	} else {
		m.at = skipSpace(m.text, m.at)
	}
	if m.at >= len(m.text) {
		return false
	}
	switch c := m.text[m.at]; {
	case c == closing:
		m.end = m.at + 1
		return false
	case !m.begun:
		m.begun = true
	case c != ',':
		return false
	default:
		if m.at = skipSpace(m.text, m.at+1); m.at < len(m.text) && m.text[m.at] == closing {
			return false
		}
	}
	if m.object {
		if m.at >= len(m.text) || m.text[m.at] != '"' {
			return false
		}
		end := skipString(m.text, m.at)
		if end < 0 {
			return false
		}
		m.key = m.text[m.at+1 : end-1]
		m.at = skipSpace(m.text, end)
		if m.at >= len(m.text) || m.text[m.at] != ':' {
			return false
		}
		m.at = skipSpace(m.text, m.at+1)
	}
	m.value = m.at
	m.at = skipValue(m.text, m.at, nesting)
	return m.at >= 0
}

func skipWord(text []byte, at int, word string) int {
	if len(text)-at < len(word) || string(text[at:at+len(word)]) != word {
		return -1
	}
	return at + len(word)
}

func skipNumber(text []byte, at int) int {
	if at < len(text) && text[at] == '-' {
		at++
	}
	first := at
	at = skipDigits(text, at)
	if at == first || text[first] == '0' && at > first+1 {
		return -1
	}
	if at < len(text) && text[at] == '.' {
		fraction := at + 1
		if at = skipDigits(text, fraction); at == fraction {
			return -1
		}
	}
	if at < len(text) && text[at]|0x20 == 'e' {
		at++
		if at < len(text) && (text[at] == '+' || text[at] == '-') {
			at++
		}
		exponent := at
		if at = skipDigits(text, exponent); at == exponent {
			return -1
		}
	}
	return at
}

func skipDigits(text []byte, at int) int {
	for at < len(text) && '0' <= text[at] && text[at] <= '9' {
		at++
	}
	return at
}

// skipString returns where the string that opens at at ends. Bodies are mostly long strings, so that it looks at eight bytes at a time.
func skipString(text []byte, at int) int {
	at++
	for {
		for len(text)-at >= 8 && plain(binary.LittleEndian.Uint64(text[at:])) {
			at += 8
		}
		for at < len(text) && text[at] != '"' && text[at] != '\\' && text[at] >= ' ' {
			at++
		}
		switch {
		case at >= len(text) || text[at] < ' ':
			return -1
		case text[at] == '"':
			return at + 1
		}
		_, size := escape(text[at:])
		if size == 0 {
			return -1
		}
		at += size
	}
}

// plain reports whether none of eight bytes is a quote, a backslash or a control character. It may say no too often, never yes.
func plain(word uint64) bool {
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	quote, backslash := word^(ones*'"'), word^(ones*'\\')
	return ((word-ones*' ')&^word|(quote-ones)&^quote|(backslash-ones)&^backslash)&highs == 0
}

// escape decodes the escape sequence that text starts with; size is how long it is, 0 for one that there isn't. Half a surrogate pair
// stands for U+FFFD.
func escape(text []byte) (r rune, size int) {
	if len(text) < 2 {
		return 0, 0
	}
	switch c := text[1]; c {
	case '"', '\\', '/':
		return rune(c), 2
	case 'b':
		return '\b', 2
	case 'f':
		return '\f', 2
	case 'n':
		return '\n', 2
	case 'r':
		return '\r', 2
	case 't':
		return '\t', 2
	case 'u':
		r = codeUnit(text)
		if r < 0 {
			return 0, 0
		}
		if !utf16.IsSurrogate(r) {
			return r, 6
		}
		if pair := utf16.DecodeRune(r, codeUnit(text[6:])); pair != utf8.RuneError {
			return pair, 12
		}
		return utf8.RuneError, 6
	}
	return 0, 0
}

// codeUnit reads \uXXXX at the start of text, -1 for anything else.
func codeUnit(text []byte) rune {
	if len(text) < 6 || text[0] != '\\' || text[1] != 'u' {
		return -1
	}
	r := rune(0)
	for _, c := range text[2:6] {
		digit := hexDigit(c)
		if digit < 0 {
			return -1
		}
		r = r<<4 | digit
	}
	return r
}

func hexDigit(c byte) rune {
	switch {
	case '0' <= c && c <= '9':
		return rune(c - '0')
	case 'a' <= c|0x20 && c|0x20 <= 'f':
		return rune(c|0x20-'a') + 10
	default:
		return -1
	}
}

// appendString appends the text that a valid string stands for; quoted is what lies between its quotes.
func appendString(dst, quoted []byte) []byte {
	for {
		i := bytes.IndexByte(quoted, '\\')
		if i < 0 {
			return append(dst, quoted...)
		}
		dst = append(dst, quoted[:i]...)
		r, size := escape(quoted[i:])
		if size == 0 {
			return dst
		}
		dst, quoted = utf8.AppendRune(dst, r), quoted[i+size:]
	}
}

// stringEqual compares the text of a valid string with a plain one.
func stringEqual(quoted []byte, s string) bool {
	for {
		i := bytes.IndexByte(quoted, '\\')
		if i < 0 {
			return string(quoted) == s
		}
		if len(s) < i || string(quoted[:i]) != s[:i] {
			return false
		}
		r, size := escape(quoted[i:])
		var buf [utf8.UTFMax]byte
		char := utf8.AppendRune(buf[:0], r)
		s = s[i:]
		if size == 0 || len(s) < len(char) || s[:len(char)] != string(char) {
			return false
		}
		quoted, s = quoted[i+size:], s[len(char):]
	}
}

// kindOf tells a value by its first byte.
func kindOf(c byte) expr.Kind {
	switch c {
	case '"':
		return expr.Text
	case 't', 'f':
		return expr.Bool
	case '{', '[', 'n':
		return expr.Opaque
	default:
		return expr.Number
	}
}
