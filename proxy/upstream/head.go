package upstream

import (
	"bytes"
	"time"
	"unsafe"

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
	trailers  bool // a Trailer line announces some
	// keepFor is how long the upstream will wait for the next request, 0 when it does not say.
	keepFor time.Duration
}

// Limits of a response head beside its size.
const (
	maxInterim = 16 // 1xx answers before the real one
	// Of these the client gets the first few, of all attempts. Some clients take five for an attack, and the gateway may have sent a 100 of
	// its own.
	maxInformed      = 4
	maxInformedBytes = 16 << 10
	maxLines         = 512 // header lines
)

// informs says whether the client gets an interim answer with a head of size bytes, and counts it.
func informs(a *phase.Attempts, size int) bool {
	if a.Informed++; a.Informed > maxInformed {
		return false
	}
	a.InformedBytes += size
	return a.InformedBytes <= maxInformedBytes
}

var crlfcrlf = []byte("\r\n\r\n")

// headEnd returns the index behind the empty line that ends the head, or -1. from is where the search may begin.
func headEnd(b []byte, from int) int {
	from = max(from-3, 0)
	i := bytes.Index(b[from:], crlfcrlf)
	if i < 0 {
		return -1
	}
	return from + i + len(crlfcrlf)
}

// plausible says whether b can be the beginning of a head, so that what is none is not waited for.
func plausible(b []byte) bool {
	const version = "HTTP/1."
	if n := min(len(b), len(version)); string(b[:n]) != version[:n] {
		return false
	}
	i := bytes.IndexByte(b, '\n')
	return i < 0 || b[i-1] == '\r'
}

// AnswerLines says which header lines of answers go on to the client beside the end-to-end ones. The zero value keeps to RFC 9110 section
// 7.6.1; the others do as the contract's gateway does.
type AnswerLines struct {
	// PassHops passes on Proxy-Authenticate, Proxy-Connection, TE, Trailer and Upgrade, PassNamed what Connection names.
	PassHops, PassNamed bool
	// EndAccel keeps the lines that are meant for a proxy like nginx: X-Accel-* and X-Pad.
	EndAccel bool
}

// keeps says whether a line of this kind goes on in an answer with the status.
func (l *AnswerLines) keeps(kind lineKind, status int) bool {
	switch kind {
	case lineOther:
		return true
	case lineHop:
		return l.PassHops && status != switching
	case lineAccel:
		return !l.EndAccel
	}
	return false
}

// parseHead reads one complete response head (b ends with the empty line) and adds the lines that go on to h; they point into b.
// Anything that a strict reader could take for another message is refused (RFC 9112 sections 4, 5 and 6).
func parseHead(b []byte, headRequest bool, h *phase.Header, pass AnswerLines) (head, *fault.Fault) {
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
	mine := h.Len() // the lines before are not the upstream's
	var chunked, closing, keep bool
	var named [4][]byte // Connection values that name other lines
	lists, lines := 0, 0
	for {
		line, rest, ok = wire.CutLine(rest)
		if !ok {
			return r, fault.BadHead
		}
		if len(line) == 0 {
			break
		}
		colon := bytes.IndexByte(line, ':')
		if lines++; lines > maxLines || colon <= 0 || !wire.ValidName(line[:colon]) {
			return r, fault.BadHead
		}
		name, value := line[:colon], wire.Trim(line[colon+1:])
		if !wire.ValidValue(value) {
			return r, fault.BadHead
		}
		switch kind := responseLine(name); kind {
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
			switch {
			case phase.EqualName(value, "keep-alive"):
				keep = true
			case phase.EqualName(value, "close"):
				closing = true
			case lists == len(named):
				return r, fault.BadHead
			default:
				closing = closing || wire.HasToken(value, "close")
				keep = keep || wire.HasToken(value, "keep-alive")
				named[lists] = value
				lists++
			}
		case lineKeepAlive:
			r.keepFor = promised(value)
		case lineContentType: // one leaves, and which one must not be a guess
			if first, again := firstLine(h, mine, name); !again {
				h.Add(name, value)
			} else if !bytes.Equal(first, value) {
				return r, fault.BadHead
			}
		case lineTrailer:
			r.trailers = true
			if pass.keeps(lineHop, r.status) {
				h.Add(name, value)
			}
		default:
			if pass.keeps(kind, r.status) {
				h.Add(name, value)
			}
		}
	}
	if lists > 0 && !pass.PassNamed {
		dropNamed(h, mine, named[:lists])
	}
	r.keepAlive = !closing && (http11 || keep) && r.keepFor >= 0
	if f := r.frame(chunked, headRequest); f != nil {
		return r, f
	}
	return r, nil
}

// frame settles where the body ends (RFC 9112 section 6.3).
func (r *head) frame(chunked, headRequest bool) *fault.Fault {
	if chunked && r.announced >= 0 {
		return fault.BadHead
	}
	switch {
	case r.status < 200 || r.status == 204:
		if chunked {
			return fault.BadHead
		}
		if r.announced > 0 { // a body may come that must not be taken for the next answer
			r.keepAlive = false
		}
		r.framing, r.announced = noBody, -1
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
	return nil
}

// promised reads the timeout of a Keep-Alive value and takes a second off for the way. 0 means that there is none, -1 that the
// connection is not worth keeping.
func promised(value []byte) time.Duration {
	for len(value) > 0 {
		var e []byte
		e, value = wire.NextElement(value)
		const prefix = "timeout="
		if len(e) <= len(prefix) || !phase.EqualName(e[:len(prefix)], prefix) {
			continue
		}
		seconds, ok := wire.ParseLength(e[len(prefix):])
		switch {
		case !ok || seconds > 1<<30:
			return 0
		case seconds <= 1:
			return -1
		}
		return time.Duration(seconds-1) * time.Second
	}
	return 0
}

// firstLine returns the value of the first line with this name from start on.
func firstLine(h *phase.Header, start int, name []byte) (value []byte, ok bool) {
	for _, f := range h.Fields()[start:] {
		if bytes.EqualFold(f.Name, name) {
			return f.Value, true
		}
	}
	return nil, false
}

// dropNamed removes those of the lines from start on that the Connection values name. What describes the body or belongs to the
// client's session cannot be taken away like this.
func dropNamed(h *phase.Header, start int, values [][]byte) {
	fields := h.Fields()
	kept := start
	for _, f := range fields[start:] {
		if !isNamed(f.Name, values) || endures(f.Name) {
			fields[kept] = f
			kept++
		}
	}
	h.Truncate(kept)
}

func isNamed(name []byte, values [][]byte) bool {
	token := unsafe.String(unsafe.SliceData(name), len(name)) // read only, and only during this call
	for _, v := range values {
		if wire.HasToken(v, token) {
			return true
		}
	}
	return false
}

func endures(name []byte) bool {
	for _, p := range [...]string{"content-type", "content-encoding", "set-cookie", "location", "www-authenticate"} {
		if phase.EqualName(name, p) {
			return true
		}
	}
	return false
}

type lineKind uint8

const (
	lineOther lineKind = iota
	lineContentLength
	lineTransferEncoding
	lineConnection
	lineKeepAlive
	lineTrailer
	lineDropped
	lineHop
	lineAccel
	lineContentType
)

// responseLine classes a header line of a response by name: framing, hop-by-hop (RFC 9110 section 7.6.1), meant for the proxy, or end-to-end.
// Date is the gateway's own.
func responseLine(name []byte) lineKind {
	switch len(name) {
	case 2:
		if phase.EqualName(name, "te") {
			return lineHop
		}
	case 4:
		if phase.EqualName(name, "date") {
			return lineDropped
		}
	case 7:
		if phase.EqualName(name, "trailer") {
			return lineTrailer
		}
		if phase.EqualName(name, "upgrade") {
			return lineHop
		}
	case 10:
		if phase.EqualName(name, "connection") {
			return lineConnection
		}
		if phase.EqualName(name, "keep-alive") {
			return lineKeepAlive
		}
	case 12:
		if phase.EqualName(name, "content-type") {
			return lineContentType
		}
	case 14:
		if phase.EqualName(name, "content-length") {
			return lineContentLength
		}
	case 16:
		if phase.EqualName(name, "proxy-connection") {
			return lineHop
		}
	case 17:
		if phase.EqualName(name, "transfer-encoding") {
			return lineTransferEncoding
		}
	case 18:
		if phase.EqualName(name, "proxy-authenticate") {
			return lineHop
		}
	}
	if len(name) >= len("x-pad") && name[0]|0x20 == 'x' && name[1] == '-' && forProxy(name) {
		return lineAccel
	}
	return lineOther
}

// forProxy says whether a line tells nginx how to treat the answer.
func forProxy(name []byte) bool {
	const accel = "x-accel-"
	return len(name) > len(accel) && phase.EqualName(name[:len(accel)], accel) || phase.EqualName(name, "x-pad")
}
