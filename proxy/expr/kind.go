package expr

import (
	"encoding/binary"
	"iter"
)

// Kind says what a value is: a request is text, but the fields of its body have the types of JSON, and operators tell them apart.
type Kind uint8

const (
	None   Kind = iota // there is no value
	Text               // any bytes
	Number             // a JSON number as it was written
	Bool               // "true" or "false"
	Opaque             // null, an object, an array inside a list: a value that nothing is equal to
	List               // several values, written one after the other with OpenItem and CloseItem
)

// itemHead is the space before the text of an item: its kind and its length.
const itemHead = 5

// OpenItem starts an item of a List at the end of dst: append its text and call CloseItem. A List can't contain another.
func OpenItem(dst []byte, kind Kind) []byte { return append(dst, byte(kind), 0, 0, 0, 0) }

// CloseItem ends the item whose OpenItem was called with a dst of length start.
func CloseItem(dst []byte, start int) {
	binary.LittleEndian.PutUint32(dst[start+1:], uint32(len(dst)-start-itemHead))
}

// AppendItem appends a whole item to the List in dst.
func AppendItem(dst []byte, kind Kind, text []byte) []byte {
	start := len(dst)
	dst = append(OpenItem(dst, kind), text...)
	CloseItem(dst, start)
	return dst
}

// Items goes through a List.
func Items(list []byte) iter.Seq2[Kind, []byte] {
	return func(yield func(Kind, []byte) bool) {
		for len(list) >= itemHead {
			end := itemHead + int(binary.LittleEndian.Uint32(list[1:]))
			if !yield(Kind(list[0]), list[itemHead:end]) {
				return
			}
			list = list[end:]
		}
	}
}

// Joined returns the texts of a List with ", " between them, as repeated headers are read. It overwrites list.
func Joined(list []byte) []byte {
	out := list[:0] // an item's head is longer than what replaces it
	for _, text := range Items(list) {
		if len(out) > 0 {
			out = append(out, ", "...)
		}
		out = append(out, text...)
	}
	return out
}
