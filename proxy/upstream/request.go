package upstream

import (
	"bytes"
	"strconv"

	"headgate/proxy/fault"
	"headgate/proxy/phase"
)

// appendRequest writes the request head; host is the Host to send. What plugins have made of values that clients sent must not
// make two requests out of one: a head that has more lines than were meant is refused.
func appendRequest(dst []byte, x *phase.Exchange, host []byte) ([]byte, *fault.Fault) {
	q := &x.Request
	method := outMethod(q)
	if !visible(q.OutTarget) || len(q.OutTarget) == 0 {
		return dst, fault.BadPath
	}
	if !visible(host) {
		return dst, fault.BadHost
	}
	start := len(dst)
	dst = append(dst, method...)
	dst = append(dst, ' ')
	dst = append(dst, q.OutTarget...)
	dst = append(dst, " HTTP/1.1\r\nHost: "...)
	dst = append(dst, host...)
	dst = append(dst, '\r', '\n')
	lines := 3 // with the empty one
	for _, f := range q.Header.Fields() {
		if framesRequest(f.Name) {
			continue
		}
		dst = append(dst, f.Name...)
		dst = append(dst, ':', ' ')
		dst = append(dst, f.Value...)
		dst = append(dst, '\r', '\n')
		lines++
	}
	if upgrades(q) {
		dst = append(dst, "Connection: Upgrade\r\nUpgrade: "...)
		dst = append(dst, q.Upgrade...)
		dst = append(dst, '\r', '\n')
		lines += 2
	}
	if q.TakesTrailers && !upgrades(q) {
		dst = append(dst, "Connection: TE\r\nTE: trailers\r\n"...)
		lines += 2
	}
	switch size := q.BodySize(); {
	case len(q.Trailers) > 0:
		dst = append(appendNames(dst, q.Trailers), "Transfer-Encoding: chunked\r\n"...)
		lines += 2
	case size < 0:
		if len(q.Announced) > 0 {
			dst = append(append(append(dst, "Trailer: "...), q.Announced...), '\r', '\n')
			lines++
		}
		dst = append(dst, "Transfer-Encoding: chunked\r\n"...)
		lines++
	case size > 0 || wantsLength(method):
		dst = append(dst, "Content-Length: "...)
		dst = strconv.AppendInt(dst, size, 10)
		dst = append(dst, '\r', '\n')
		lines++
	}
	dst = append(dst, '\r', '\n')
	if bytes.Count(dst[start:], lf) != lines || bytes.Count(dst[start:], cr) != lines {
		return dst[:start], fault.BadRequest
	}
	return dst, nil
}

var lf, cr = []byte{'\n'}, []byte{'\r'}

// outMethod is the method that the upstream sees.
func outMethod(q *phase.Request) []byte {
	if len(q.OutMethod) > 0 {
		return q.OutMethod
	}
	return q.Method
}

// wantsLength: a request with one of these methods says so when its body is empty (RFC 9110 section 8.6).
func wantsLength(method []byte) bool {
	switch string(method) {
	case "POST", "PUT", "PATCH":
		return true
	}
	return false
}

// framesRequest: the lines that say where the request goes and ends are the gateway's own, whatever a plugin has set.
func framesRequest(name []byte) bool {
	switch len(name) {
	case 2:
		return phase.EqualName(name, "te")
	case 4:
		return phase.EqualName(name, "host")
	case 7:
		return phase.EqualName(name, "upgrade")
	case 10:
		return phase.EqualName(name, "connection")
	case 14:
		return phase.EqualName(name, "content-length")
	case 17:
		return phase.EqualName(name, "transfer-encoding")
	}
	return false
}

// visible says that b has no space and no control byte.
func visible(b []byte) bool {
	for _, c := range b {
		if c <= ' ' || c == 0x7f {
			return false
		}
	}
	return true
}
