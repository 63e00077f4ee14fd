// Package body reads variables out of request bodies: fields of JSON documents and forms (post_arg) and what a GraphQL request asks for
// (contract section 2.5). It works on the bytes as they came and allocates nothing; what it builds goes into the caller's buffer.
package body

import (
	"bytes"

	"headgate/proxy/expr"
)

// MaxBody is the longest body in bytes that has fields.
const MaxBody = 64 << 20

// Media types that bodies are read as.
const (
	typeJSON      = "application/json"
	typeForm      = "application/x-www-form-urlencoded"
	typeMultipart = "multipart/form-data"
)

// FormArg returns the first field of a form body with that name, decoded (post_arg_<name>).
func FormArg(contentType, body []byte, name string, dst []byte) ([]byte, bool) {
	if len(body) > MaxBody || !mediaTypeIs(contentType, typeForm) {
		return dst, false
	}
	for p := (pairs{rest: body}); p.next(); {
		if p.named(name) {
			return p.append(dst), true
		}
	}
	return dst, false
}

// Arg returns what a path names in a JSON, form or multipart body (post_arg.<path>); path starts with "." or "[".
//
// In JSON a path of plain names leads to one value, an array being a List. One with "[", "*" or ".." is a JSONPath of names, quoted
// names, indices, slices and wildcards, and names a List, or None when it is empty. In forms a path is one name; a repeated field of
// an urlencoded form is a List, of a multipart one the last counts. Values are built in dst or are parts of body; a List is always
// built. A body that is malformed, longer than MaxBody or nested deeper than 1000 has no values.
func Arg(contentType, body []byte, path string, dst []byte) ([]byte, expr.Kind) {
	switch {
	case len(path) < 2 || len(body) > MaxBody:
		return dst, expr.None
	case mediaTypeIs(contentType, typeJSON):
		return jsonArg(body, path, dst)
	case mediaTypeIs(contentType, typeForm):
		if isPlain(path) {
			return formArg(body, path[1:], dst)
		}
	case mediaTypeIs(contentType, typeMultipart):
		if isPlain(path) {
			if value, ok := multipartArg(contentType, body, path[1:]); ok {
				return value, expr.Text
			}
		}
	}
	return dst, expr.None
}

// mediaTypeIs compares the type of a Content-Type value, without its parameters.
func mediaTypeIs(contentType []byte, mediaType string) bool {
	if i := bytes.IndexByte(contentType, ';'); i >= 0 {
		contentType = contentType[:i]
	}
	return equalFold(bytes.Trim(contentType, " \t"), mediaType)
}

// equalFold compares with a text in lower case, without regard to the case of ASCII letters.
func equalFold(b []byte, lower string) bool {
	if len(b) != len(lower) {
		return false
	}
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

// formArg returns the fields of one name. A field without "=" is true.
func formArg(body []byte, name string, dst []byte) ([]byte, expr.Kind) {
	var first pairs
	count := 0
	for p := (pairs{rest: body}); p.next(); {
		if !p.named(name) {
			continue
		}
		count++
		switch count {
		case 1:
			first = p
			continue
		case 2:
			dst = first.appendItem(dst)
		}
		dst = p.appendItem(dst)
	}
	switch count {
	case 0:
		return dst, expr.None
	case 1:
		return first.append(dst), first.kind()
	default:
		return dst, expr.List
	}
}

// pairs goes through the fields of an urlencoded form.
type pairs struct {
	rest       []byte
	key, value []byte // encoded
	flag       bool   // there was no "="
}

func (p *pairs) next() bool {
	for len(p.rest) > 0 {
		pair := p.rest
		if i := bytes.IndexByte(pair, '&'); i >= 0 {
			pair, p.rest = pair[:i], pair[i+1:]
		} else {
			p.rest = nil
		}
		equals := bytes.IndexByte(pair, '=')
		if p.flag = equals < 0; p.flag {
			p.key, p.value = pair, nil
		} else {
			p.key, p.value = pair[:equals], pair[equals+1:]
		}
		if len(p.key) > 0 {
			return true
		}
	}
	return false
}

func (p *pairs) named(name string) bool {
	n := 0
	for key := p.key; len(key) > 0; n++ {
		c, size := percent(key)
		if n == len(name) || name[n] != c {
			return false
		}
		key = key[size:]
	}
	return n == len(name)
}

func (p *pairs) kind() expr.Kind {
	if p.flag {
		return expr.Bool
	}
	return expr.Text
}

func (p *pairs) append(dst []byte) []byte {
	if p.flag {
		return append(dst, "true"...)
	}
	for value := p.value; len(value) > 0; {
		c, size := percent(value)
		dst, value = append(dst, c), value[size:]
	}
	return dst
}

func (p *pairs) appendItem(dst []byte) []byte {
	start := len(dst)
	dst = p.append(expr.OpenItem(dst, p.kind()))
	expr.CloseItem(dst, start)
	return dst
}

// percent returns the first decoded byte of a text that isn't empty and how many bytes stand for it.
func percent(encoded []byte) (c byte, size int) {
	c = encoded[0]
	switch {
	case c == '+':
		return ' ', 1
	case c == '%' && len(encoded) > 2:
		high, low := hexDigit(encoded[1]), hexDigit(encoded[2])
		if high >= 0 && low >= 0 {
			return byte(high<<4 | low), 3
		}
	}
	return c, 1
}
