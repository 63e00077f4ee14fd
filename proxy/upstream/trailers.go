package upstream

import (
	"strconv"

	"headgate/proxy/phase"
	"headgate/proxy/phase/wire"
)

// announced notes the names that the Trailer lines of a head, which parseHead has read, promise.
func announced(t *phase.Trailers, head []byte) {
	for _, rest, ok := wire.CutLine(head); ok && len(rest) > len("\r\n"); { // the status line is none
		var f phase.Field
		if f, rest = wire.NextField(rest); !phase.EqualName(f.Name, "trailer") {
			continue
		}
		for list := f.Value; len(list) > 0 && t.Announced.Len() < wire.MaxTrailerLines; {
			var name []byte
			if name, list = wire.NextElement(list); wire.ValidName(name) {
				t.Announced.Add(name, nil)
			}
		}
	}
}

// trailed notes the fields of a trailer section.
func trailed(t *phase.Trailers, section []byte) {
	for len(section) > 0 {
		var f phase.Field
		f, section = wire.NextField(section)
		t.Fields.Add(f.Name, f.Value)
	}
}

// appendChunked writes a whole body in one chunk, with trailer lines behind it.
func appendChunked(dst, body, trailers []byte) []byte {
	if len(body) > 0 {
		dst = append(strconv.AppendUint(dst, uint64(len(body)), 16), '\r', '\n')
		dst = append(append(dst, body...), '\r', '\n')
	}
	return appendEnd(dst, trailers)
}

// appendEnd ends a chunked body.
func appendEnd(dst, trailers []byte) []byte {
	dst = append(append(dst, "0\r\n"...), trailers...)
	return append(dst, '\r', '\n')
}

// appendNames writes the Trailer line that announces these trailer lines.
func appendNames(dst, trailers []byte) []byte {
	dst = append(dst, "Trailer: "...)
	for i := 0; len(trailers) > 0; i++ {
		var f phase.Field
		f, trailers = wire.NextField(trailers)
		if i > 0 {
			dst = append(dst, ", "...)
		}
		dst = append(dst, f.Name...)
	}
	return append(dst, '\r', '\n')
}
