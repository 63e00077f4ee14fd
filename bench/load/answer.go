package load

import (
	"bytes"
	"errors"
	"strconv"
)

// maxHeader bounds the header of one answer, in bytes.
const maxHeader = 16 << 10

var errFraming = errors.New("answer without usable framing")

// head is what the generator needs to know of an answer's header.
type head struct {
	size   int // bytes, with the empty line; 0 while the header is incomplete
	status int
	body   int  // Content-Length
	close  bool // the peer ends the connection after this answer
}

// parseHead reads the header at the start of b. Only bodies of a known length
// are understood: every peer of the rig hands the upstream's Content-Length on,
// so a chunked answer means that the peer reframed it and is an error here.
func parseHead(b []byte) (head, error) {
	end := bytes.Index(b, []byte("\r\n\r\n"))
	if end < 0 {
		if len(b) >= maxHeader {
			return head{}, errFraming
		}
		return head{}, nil
	}
	status, rest, _ := bytes.Cut(b[:end], []byte("\r\n"))
	if len(status) < 12 || !bytes.HasPrefix(status, []byte("HTTP/1.1 ")) {
		return head{}, errFraming
	}
	h := head{size: end + 4, body: -1}
	var err error
	if h.status, err = strconv.Atoi(string(status[9:12])); err != nil {
		return head{}, errFraming
	}
	for line := range bytes.SplitSeq(rest, []byte("\r\n")) {
		// Only names that start with c or t matter: most lines cost one comparison.
		if len(line) == 0 || (line[0]|0x20 != 'c' && line[0]|0x20 != 't') {
			continue
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimSpace(value)
		switch {
		case bytes.EqualFold(name, []byte("content-length")):
			n, err := strconv.ParseUint(string(value), 10, 31)
			if err != nil {
				return head{}, errFraming
			}
			h.body = int(n)
		case bytes.EqualFold(name, []byte("connection")):
			h.close = h.close || bytes.EqualFold(value, []byte("close"))
		case bytes.EqualFold(name, []byte("transfer-encoding")):
			return head{}, errFraming
		}
	}
	if h.body < 0 {
		return head{}, errFraming
	}
	return h, nil
}
