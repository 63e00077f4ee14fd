package upstream

import (
	"bytes"
	"strconv"

	"headgate/proxy/fault"
	"headgate/proxy/phase"
	"headgate/proxy/phase/wire"
)

// framing says how the end of a response body is found (RFC 9112 section 6.3).
type framing uint8

const (
	noBody framing = iota
	byLength
	byChunks
	byClose
)

// head is what the response head says about the message itself.
type head struct {
	status    int
	framing   framing
	length    int64 // byLength; else -1
	announced int64 // Content-Length of a bodyless answer (HEAD, 304), -1 when absent
	keepAlive bool
}

// maxInterim bounds the 1xx answers that may come before the real one.
const maxInterim = 16

// headEnd returns the index behind the empty line that ends the head, or -1. from is where the search may begin.
func headEnd(b []byte, from int) int {
	i := bytes.Index(b[max(from-3, 0):], crlfcrlf)
	if i < 0 {
		return -1
	}
	return max(from-3, 0) + i + len(crlfcrlf)
}

var crlfcrlf = []byte("\r\n\r\n")

// parseHead reads one complete response head (b ends with the empty line) and adds the end-to-end lines to h; they point into b.
// Anything that a strict reader could take for another message is refused (RFC 9112 sections 4, 5 and 6).
func parseHead(b []byte, headRequest bool, h *phase.Header) (head, *fault.Fault) {
	r := head{length: -1, announced: -1}
	line, rest, ok := wire.CutLine(b)
	if !ok || len(line) < 12 || string(line[:7]) != "HTTP/1." || line[7] != '0' && line[7] != '1' || line[8] != ' ' {
		return r, fault.BadHead
	}
	http11 := line[7] == '1'
	for _, d := range line[9:12] {
		if d < '0' || d > '9' {
			return r, fault.BadHead
		}
		r.status = r.status*10 + int(d-'0')
	}
	if len(line) > 12 && line[12] != ' ' || r.status < 100 || r.status > 599 || !wire.ValidValue(line[12:]) {
		return r, fault.BadHead
	}
	var chunked, closing, keep bool
	var named [4][]byte // Connection lines that name others
	lists := 0
	for {
		line, rest, ok = wire.CutLine(rest)
		if !ok {
			return r, fault.BadHead
		}
		if len(line) == 0 {
			break
		}
		colon := bytes.IndexByte(line, ':')
		if colon <= 0 || !wire.ValidName(line[:colon]) {
			return r, fault.BadHead
		}
		name, value := line[:colon], wire.Trim(line[colon+1:])
		if !wire.ValidValue(value) {
			return r, fault.BadHead
		}
		switch responseLine(name) {
		case lineContentLength:
			n, ok := wire.ParseLength(value)
			if !ok || r.announced >= 0 && r.announced != n {
				return r, fault.BadHead
			}
			r.announced = n
		case lineTransferEncoding:
			if chunked || !phase.EqualName(value, "chunked") || !http11 {
				return r, fault.BadHead
			}
			chunked = true
		case lineConnection:
			closing = closing || wire.HasToken(value, "close")
			keep = keep || wire.HasToken(value, "keep-alive")
			if lists == len(named) {
				return r, fault.BadHead
			}
			named[lists] = value
			lists++
		case lineDropped:
		default:
			h.Add(name, value)
		}
	}
	for _, v := range named[:lists] {
		wire.StripNamed(h, v)
	}
	if chunked && r.announced >= 0 {
		return r, fault.BadHead
	}
	r.keepAlive = !closing && (http11 || keep)
	switch {
	case r.status < 200 || r.status == 204:
		r.framing, r.announced = noBody, -1
		if chunked {
			return r, fault.BadHead
		}
	case headRequest || r.status == 304:
		r.framing = noBody
	case chunked:
		r.framing = byChunks
	case r.announced >= 0:
		r.framing, r.length = byLength, r.announced
		r.announced = -1
	default:
		r.framing, r.keepAlive = byClose, false
	}
	return r, nil
}

type lineKind uint8

const (
	lineOther lineKind = iota
	lineContentLength
	lineTransferEncoding
	lineConnection
	lineDropped
)

// responseLine classes a header line of a response by name: framing, hop-by-hop (RFC 9110 section 7.6.1) or end-to-end. Date is
// the gateway's own.
func responseLine(name []byte) lineKind {
	switch len(name) {
	case 2:
		if phase.EqualName(name, "te") {
			return lineDropped
		}
	case 4:
		if phase.EqualName(name, "date") {
			return lineDropped
		}
	case 7:
		if phase.EqualName(name, "trailer") || phase.EqualName(name, "upgrade") {
			return lineDropped
		}
	case 10:
		if phase.EqualName(name, "connection") {
			return lineConnection
		}
		if phase.EqualName(name, "keep-alive") {
			return lineDropped
		}
	case 14:
		if phase.EqualName(name, "content-length") {
			return lineContentLength
		}
	case 16:
		if phase.EqualName(name, "proxy-connection") {
			return lineDropped
		}
	case 17:
		if phase.EqualName(name, "transfer-encoding") {
			return lineTransferEncoding
		}
	case 18:
		if phase.EqualName(name, "proxy-authenticate") {
			return lineDropped
		}
	}
	return lineOther
}

// appendRequest writes the request head. host is the Host to send.
func appendRequest(dst []byte, x *phase.Exchange, host []byte) []byte {
	q := &x.Request
	method := q.Method
	if len(q.OutMethod) > 0 {
		method = q.OutMethod
	}
	dst = append(dst, method...)
	dst = append(dst, ' ')
	dst = append(dst, q.OutTarget...)
	dst = append(dst, " HTTP/1.1\r\nHost: "...)
	dst = append(dst, host...)
	dst = append(dst, '\r', '\n')
	dst = appendHeader(dst, &q.Header)
	if len(q.Body) > 0 || wantsLength(method) {
		dst = append(dst, "Content-Length: "...)
		dst = strconv.AppendInt(dst, int64(len(q.Body)), 10)
		dst = append(dst, '\r', '\n')
	}
	return append(dst, '\r', '\n')
}

// wantsLength: a request with one of these methods says so when its body is empty (RFC 9110 section 8.6).
func wantsLength(method []byte) bool {
	switch string(method) {
	case "POST", "PUT", "PATCH":
		return true
	}
	return false
}

func appendHeader(dst []byte, h *phase.Header) []byte {
	for _, f := range h.Fields() {
		dst = append(dst, f.Name...)
		dst = append(dst, ':', ' ')
		dst = append(dst, f.Value...)
		dst = append(dst, '\r', '\n')
	}
	return dst
}
