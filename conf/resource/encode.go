package resource

import (
	"bytes"
	"encoding/json"
	"slices"
	"strconv"
)

// Encode writes doc as compact JSON: keys sorted, numbers as they were written, neither slashes nor <, >, & escaped, no newline at
// the end. Equal documents give equal bytes. doc is made of the types that schema.DecodeJSON returns.
func Encode(doc any) ([]byte, error) {
	if b, ok := appendValue(make([]byte, 0, firstBuffer), doc); ok {
		return b, nil
	}
	return encodeSlowly(doc)
}

// firstBuffer holds most configurations of plugins, in bytes.
const firstBuffer = 96

// encodeSlowly is Encode as the library does it, for every type that it knows.
func encodeSlowly(doc any) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(doc); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n")), nil
}

// appendValue writes what nearly every document is made of, as the library would, and gives up on the rest.
func appendValue(b []byte, v any) (_ []byte, ok bool) {
	switch v := v.(type) {
	case map[string]any:
		return appendObject(b, v)
	case []any:
		if v == nil {
			return append(b, "null"...), true
		}
		b = append(b, '[')
		for i, item := range v {
			if i > 0 {
				b = append(b, ',')
			}
			if b, ok = appendValue(b, item); !ok {
				return b, false
			}
		}
		return append(b, ']'), true
	case string:
		return appendPlain(b, v)
	case json.Number:
		if !isInteger(v) {
			return b, false
		}
		return append(b, v...), true
	case bool:
		return strconv.AppendBool(b, v), true
	case nil:
		return append(b, "null"...), true
	}
	return b, false
}

func appendObject(b []byte, m map[string]any) (_ []byte, ok bool) {
	if m == nil {
		return append(b, "null"...), true
	}
	var buf [16]string
	names := buf[:0]
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	b = append(b, '{')
	for i, name := range names {
		if i > 0 {
			b = append(b, ',')
		}
		if b, ok = appendPlain(b, name); !ok {
			return b, false
		}
		if b, ok = appendValue(append(b, ':'), m[name]); !ok {
			return b, false
		}
	}
	return append(b, '}'), true
}

// appendPlain writes a string of printable ASCII without anything to escape.
func appendPlain(b []byte, s string) (_ []byte, ok bool) {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			return b, false
		}
	}
	return append(append(append(b, '"'), s...), '"'), true
}

// isInteger says that n is written as an integer of JSON. Other numbers are rare enough for the library.
func isInteger(n json.Number) bool {
	if len(n) > 1 && n[0] == '-' {
		n = n[1:]
	}
	if n == "" || len(n) > 1 && n[0] == '0' {
		return false
	}
	for i := range len(n) {
		if n[i] < '0' || n[i] > '9' {
			return false
		}
	}
	return true
}
