package proxy

import (
	"bytes"

	"headgate/proxy/fault"
	"headgate/proxy/phase"
	"headgate/proxy/phase/wire"
)

// lines walks over the header block once: checks every line and keeps those that go on to the upstream. What it says of the body is in
// x.length and x.waits.
func (e *edge) lines(raw []byte, x *exchange) *fault.Fault {
	q := &x.Request
	var named [4][]byte // Connection values
	lists, hosts, lengths, codings, upgrades := 0, 0, 0, 0, 0
	for n := 0; len(raw) > 0; n++ {
		line, rest, ok := wire.CutLine(raw)
		if !ok {
			return fault.BadRequest
		}
		if raw = rest; len(line) == 0 {
			break
		}
		if n >= e.maxLines || e.nginxLimits && len(line)+len("\r\n") > nginxLine {
			return e.tooLarge(false)
		}
		colon := bytes.IndexByte(line, ':')
		if colon < 0 || !wire.ValidName(line[:colon]) { // a folded line begins with white space, which no name contains
			return fault.BadRequest
		}
		name, value := line[:colon], wire.Trim(line[colon+1:])
		if !wire.ValidValue(value) {
			return fault.BadRequest
		}
		switch requestLine(name) {
		case lineHost:
			hosts++
			q.Authority = value
		case lineLength:
			lengths++
			var ok bool
			if x.length, ok = wire.ParseLength(value); !ok {
				return fault.BadFraming
			}
		case lineCoding:
			codings++
			if q.HTTP10 || !phase.EqualName(value, "chunked") {
				return fault.BadFraming
			}
			x.length = -1
		case lineUpgrade:
			upgrades++
			q.Upgrade = value
		case lineExpect:
			switch {
			case q.HTTP10:
			case phase.EqualName(value, "100-continue"):
				x.waits = true
			case !e.lenient.Expectations:
				return expectationFailed
			}
		case lineConnection:
			if lists == len(named) {
				return fault.BadRequest
			}
			named[lists] = value
			lists++
		case lineForwarded:
			e.forwardedLine(name, value, x)
		case lineTE:
			q.TakesTrailers = e.announces && !e.passHops && !q.HTTP10 && wire.HasToken(value, "trailers")
		case lineTrailer:
			if e.passHops {
				q.Header.Add(name, value)
			} else {
				e.trailers.announce(x, value)
			}
		case lineContentType:
			q.ContentType = value
			q.Header.Add(name, value)
		case lineDropped:
		case lineHop:
			if e.passHops {
				q.Header.Add(name, value)
			}
		default:
			if bytes.IndexByte(name, '_') < 0 || e.lenient.Underscores && !twin(name) {
				q.Header.Add(name, value)
			}
		}
	}
	switch {
	case lengths > 1 || codings > 1 || lengths > 0 && codings > 0:
		return fault.BadFraming
	case hosts != 1 && !q.HTTP10 || hosts > 1:
		return fault.BadHost
	}
	if upgrades > 0 && (upgrades > 1 || x.length != 0 || !asksUpgrade(q, named[:lists])) {
		q.Upgrade = nil
	}
	if !e.passNamed {
		for _, v := range named[:lists] {
			wire.StripNamed(&q.Header, v)
		}
	}
	return nil
}

// expectationFailed: an expectation other than 100-continue (RFC 9110 section 10.1.1).
var expectationFailed = &fault.Fault{Code: "expectation_failed", Side: fault.Client, Status: 417, Retry: fault.Never}

// twin says whether name is, to those who take '_' for '-', the name of a line that is not passed on as it came.
func twin(name []byte) bool {
	var buf [32]byte // longer than every such name
	if len(name) > len(buf) {
		return false
	}
	hyphened := buf[:copy(buf[:], name)]
	for i, c := range hyphened {
		if c == '_' {
			hyphened[i] = '-'
		}
	}
	return requestLine(hyphened) != lineOther
}

type lineKind uint8

const (
	lineOther lineKind = iota
	lineHost
	lineLength
	lineCoding
	lineConnection
	lineContentType
	lineExpect
	lineUpgrade
	lineForwarded
	lineHop
	lineTE
	lineTrailer
	lineDropped
)

// requestLine classes a request header line by name: addressing, framing, hop-by-hop (RFC 9110 section 7.6.1), forwarding, identity
// that only the gateway may claim, or end-to-end.
func requestLine(name []byte) lineKind {
	is := func(s string) bool { return phase.EqualName(name, s) }
	switch len(name) {
	case 2:
		if is("te") {
			return lineTE
		}
	case 4:
		if is("host") {
			return lineHost
		}
	case 6:
		if is("expect") {
			return lineExpect
		}
	case 7:
		if is("upgrade") {
			return lineUpgrade
		}
		if is("trailer") {
			return lineTrailer
		}
	case 9:
		if is("forwarded") {
			return lineDropped
		}
	case 10:
		if is("connection") {
			return lineConnection
		}
		if is("keep-alive") {
			return lineDropped
		}
	case 12:
		if is("content-type") {
			return lineContentType
		}
	case 14:
		if is("content-length") {
			return lineLength
		}
		if is("http2-settings") {
			return lineHop
		}
	case 16:
		if is("proxy-connection") {
			return lineHop
		}
	case 17:
		if is("transfer-encoding") {
			return lineCoding
		}
	case 18:
		if is("proxy-authenticate") {
			return lineHop
		}
	case 19:
		if is("proxy-authorization") {
			return lineHop
		}
	}
	return extensionLine(name)
}

// extensionLine classes the "X-" lines by which upstreams learn who the client is: where it comes from, and as whom it was
// authenticated (reliability 4.1). Many upstreams take '_' for '-' in names, so that the twins of such a line count as well, and are
// never believed.
func extensionLine(name []byte) lineKind {
	if len(name) < len("x-real-ip") || name[0]|0x20 != 'x' {
		return lineOther
	}
	switch name[2] | 0x20 {
	case 'f', 'r':
		if startsLike(name, "x-forwarded-") || like(name, "x-real-ip") {
			if bytes.IndexByte(name, '_') >= 0 {
				return lineDropped
			}
			return lineForwarded
		}
	case 'c':
		if startsLike(name, "x-consumer-") || startsLike(name, "x-credential-") {
			return lineDropped
		}
	case 'h':
		if like(name, "x-headgate-split") { // says what a split of ours has decided
			return lineDropped
		}
	case 'a', 'g', 'i', 'u':
		for _, claim := range [...]string{"x-userinfo", "x-id-token", "x-access-token", "x-authenticated-groups", "x-gateway-tenant"} {
			if like(name, claim) {
				return lineDropped
			}
		}
	}
	return lineOther
}

func like(name []byte, s string) bool { return len(name) == len(s) && startsLike(name, s) }

// startsLike compares the start of name with s, which is in lower case; case and the difference between '_' and '-' do not count.
func startsLike(name []byte, s string) bool {
	if len(name) < len(s) {
		return false
	}
	for i := range len(s) {
		c := name[i]
		switch {
		case c == '_':
			c = '-'
		case c >= 'A' && c <= 'Z':
			c |= 0x20
		}
		if c != s[i] {
			return false
		}
	}
	return true
}
