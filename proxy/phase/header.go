package phase

import "unsafe"

// Field is one header line. Name and Value are borrowed: they stay valid until the exchange ends.
type Field struct {
	Name, Value []byte
}

// Header is an ordered list of header lines; names keep the form they were sent in and compare without regard to case
// (RFC 9110 section 5.1). A request has a dozen lines, which a scan beats any map on. The zero value is empty.
type Header struct {
	fields []Field
}

// Fields returns the lines in order. The slice is valid until the next change of h.
func (h *Header) Fields() []Field { return h.fields }

// Len returns the number of lines.
func (h *Header) Len() int { return len(h.fields) }

// Reset empties h and keeps its memory.
func (h *Header) Reset() { h.Truncate(0) }

// Truncate drops every line behind the first n; when there are not that many, it does nothing.
func (h *Header) Truncate(n int) {
	if n < len(h.fields) {
		clear(h.fields[n:]) // what is borrowed is let go
		h.fields = h.fields[:n]
	}
}

// Add appends a line. h keeps name and value: the caller must not change them before the exchange ends.
func (h *Header) Add(name, value []byte) {
	h.fields = append(h.fields, Field{name, value})
}

// Get returns the value of the first line called name, and whether there is one.
func (h *Header) Get(name string) ([]byte, bool) {
	for i := range h.fields {
		if EqualName(h.fields[i].Name, name) {
			return h.fields[i].Value, true
		}
	}
	return nil, false
}

// GetBytes is Get for a name that comes from a message.
func (h *Header) GetBytes(name []byte) ([]byte, bool) {
	return h.Get(unsafe.String(unsafe.SliceData(name), len(name))) // read only, and only during this call
}

// Set replaces every line called name by one, in the place of the first. h keeps name and value, as Add does.
func (h *Header) Set(name, value []byte) {
	n := unsafe.String(unsafe.SliceData(name), len(name)) // read only, and only during this call
	for i := range h.fields {
		if EqualName(h.fields[i].Name, n) {
			h.fields[i].Value = value
			h.deleteFrom(i+1, n)
			return
		}
	}
	h.Add(name, value)
}

// Del removes every line called name and says whether there was one.
func (h *Header) Del(name string) bool {
	n := len(h.fields)
	h.deleteFrom(0, name)
	return len(h.fields) != n
}

// DelBytes is Del for a name that comes from a message.
func (h *Header) DelBytes(name []byte) bool {
	return h.Del(unsafe.String(unsafe.SliceData(name), len(name))) // read only, and only during this call
}

func (h *Header) deleteFrom(start int, name string) {
	kept := h.fields[:start]
	for _, f := range h.fields[start:] {
		if !EqualName(f.Name, name) {
			kept = append(kept, f)
		}
	}
	h.Truncate(len(kept))
}

// EqualName compares a header name with another one, ASCII letters without regard to case.
func EqualName(b []byte, s string) bool {
	if len(b) != len(s) {
		return false
	}
	for i := 0; i < len(b); i++ {
		x, y := b[i], s[i]
		if x == y {
			continue
		}
		if x|0x20 != y|0x20 || x|0x20 < 'a' || x|0x20 > 'z' {
			return false
		}
	}
	return true
}
