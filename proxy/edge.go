package proxy

import (
	"bytes"
	"net/netip"
	"strconv"

	"github.com/valyala/fasthttp"

	"headgate/proxy/fault"
	"headgate/proxy/phase"
	"headgate/proxy/phase/wire"
	"headgate/proxy/route"
)

// edge is what the gateway insists on, and believes, at the border.
type edge struct {
	// maxLines bounds the header lines of a request.
	maxLines int
	// trusted are the peers whose X-Real-IP and X-Forwarded-* are believed.
	trusted []netip.Prefix
	// trimSlash takes one trailing slash off the path before it is matched.
	trimSlash bool
	// rawTarget forwards the request target as it was sent; otherwise the canonical path, which is what was matched, goes out.
	rawTarget bool
}

// read turns what fasthttp has parsed into x.Request and refuses whatever two parsers could understand differently (RFC 9112 sections
// 3, 5 and 6): fasthttp is lenient, and what it let through would be forwarded.
func (e *edge) read(ctx *fasthttp.RequestCtx, x *exchange) *fault.Fault {
	h, q := &ctx.Request.Header, &x.Request
	q.Method, q.Body = h.Method(), ctx.Request.Body()
	switch p := h.Protocol(); string(p) {
	case "HTTP/1.1":
	case "HTTP/1.0":
		q.HTTP10 = true
	default:
		return fault.BadVersion
	}
	if !upperToken(q.Method) {
		return fault.BadRequest
	}
	switch string(q.Method) {
	case fasthttp.MethodConnect, fasthttp.MethodTrace: // a tunnel, and an echo of what the client's cookies are
		return fault.MethodNotAllowed
	}
	e.client(x)
	raw := h.RawHeaders()
	q.Length = int64(len(q.Method)+len(h.RequestURI())+len(" HTTP/1.1\r\n ")+len(raw)) + int64(len(q.Body))
	if f := e.lines(raw, x); f != nil {
		return f
	}
	return e.target(h.RequestURI(), x)
}

// upperToken: every registered method is made of capitals and hyphens; anything else is a client that guesses.
func upperToken(method []byte) bool {
	for _, c := range method {
		if (c < 'A' || c > 'Z') && c != '-' && c != '_' {
			return false
		}
	}
	return len(method) > 0
}

// lines walks over the header block once: checks every line and keeps those that go on to the upstream.
func (e *edge) lines(raw []byte, x *exchange) *fault.Fault {
	q := &x.Request
	var named [4][]byte // Connection values
	lists, n := 0, 0
	hosts, lengths, codings := 0, 0, 0
	for rest := raw; len(raw) > 0; n++ {
		line, after, ok := wire.CutLine(rest)
		if !ok {
			return fault.BadRequest
		}
		if rest = after; len(line) == 0 {
			break
		}
		if n >= e.maxLines {
			return fault.HeadTooLarge
		}
		colon := bytes.IndexByte(line, ':')
		if colon < 0 || !wire.ValidName(line[:colon]) {
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
			if _, ok := wire.ParseLength(value); !ok {
				return fault.BadFraming
			}
		case lineCoding:
			codings++
			if q.HTTP10 || !phase.EqualName(value, "chunked") {
				return fault.BadFraming
			}
		case lineConnection:
			if lists == len(named) {
				return fault.BadRequest
			}
			named[lists] = value
			lists++
		case lineForwarded:
			if x.Client.Trusted {
				e.believe(name, value, x)
			}
		case lineContentType:
			q.ContentType = value
			q.Header.Add(name, value)
		case lineDropped:
		default:
			q.Header.Add(name, value)
		}
	}
	switch {
	case lengths > 1 || codings > 1 || lengths > 0 && codings > 0:
		return fault.BadFraming
	case hosts != 1 && !q.HTTP10 || hosts > 1:
		return fault.BadHost
	}
	for _, v := range named[:lists] {
		wire.StripNamed(&q.Header, v)
	}
	return nil
}

// target takes the request target apart (RFC 9112 section 3.2) and finds the one authority and the one path of the request.
func (e *edge) target(target []byte, x *exchange) *fault.Fault {
	q := &x.Request
	if len(target) == 0 {
		return fault.BadPath
	}
	if target[0] != '/' && string(target) != "*" {
		authority, path, ok := absoluteForm(target)
		if !ok {
			return fault.BadPath
		}
		q.Authority, target = authority, path // the target's authority beats the Host line (RFC 9112 section 3.2.2)
	}
	for _, c := range target {
		if c <= ' ' || c == 0x7f {
			return fault.BadPath
		}
	}
	if len(q.Authority) > 0 || !q.HTTP10 {
		host, hostport, err := route.AppendHost(x.hostBuf[:0], q.Authority)
		if err != nil {
			return fault.BadHost
		}
		q.Host, x.hostport = host, hostport
	}
	if !e.rawTarget && bytes.IndexByte(target, '#') >= 0 { // no part of a request target (RFC 9112 section 3.2)
		return fault.BadPath
	}
	q.RawPath = target
	if i := bytes.IndexByte(target, '?'); i >= 0 {
		q.RawPath, q.Query = target[:i], target[i+1:]
	}
	switch {
	case string(q.RawPath) == "*":
		if string(q.Method) != fasthttp.MethodOptions || len(q.Query) > 0 {
			return fault.BadPath
		}
		q.Path = q.RawPath
	case route.Clean(q.RawPath):
		q.Path = q.RawPath
	default:
		path, err := route.AppendNormalized(x.Arena(), q.RawPath)
		if err != nil {
			return fault.BadPath
		}
		q.Path = x.Commit(path)
	}
	if e.trimSlash && len(q.Path) > 1 && q.Path[len(q.Path)-1] == '/' {
		q.Path = q.Path[:len(q.Path)-1]
	}
	return nil
}

// absoluteForm splits "http://authority/path?query".
func absoluteForm(t []byte) (authority, path []byte, ok bool) {
	i := bytes.Index(t, []byte("://"))
	if i < 0 || !phase.EqualName(t[:i], "http") && !phase.EqualName(t[:i], "https") {
		return nil, nil, false
	}
	t = t[i+len("://"):]
	end := bytes.IndexAny(t, "/?#")
	if end < 0 {
		return t, []byte("/"), len(t) > 0
	}
	if t[end] != '/' { // an empty path in front of a query
		return nil, nil, false
	}
	return t[:end], t[end:], end > 0
}

// client fills in who is at the other end of the connection.
func (e *edge) client(x *exchange) {
	c := &x.Client
	if conn, ok := x.ctx.Conn().(*edgeConn); ok {
		c.Peer, c.PeerText, c.Port = conn.peer, conn.peerText, conn.peerPort
		c.ServerAddr, c.ServerPort = conn.localText, conn.localPort
	}
	c.Addr, c.Text = c.Peer, c.PeerText
	for _, p := range e.trusted {
		if p.Contains(c.Peer) {
			c.Trusted = true
			break
		}
	}
}

// forwarded are the forwarding lines of a trusted peer.
type forwarded struct {
	realIP, via, proto, host, port []byte
}

// believe keeps a forwarding line of a trusted peer.
func (e *edge) believe(name, value []byte, x *exchange) {
	f := &x.forwarded
	switch {
	case phase.EqualName(name, "x-real-ip"):
		f.realIP = value
	case phase.EqualName(name, "x-forwarded-for"):
		if f.via != nil {
			f.via = x.Commit(append(append(append(x.Arena(), f.via...), ", "...), value...))
		} else {
			f.via = value
		}
	case phase.EqualName(name, "x-forwarded-proto"):
		f.proto = value
	case phase.EqualName(name, "x-forwarded-host"):
		f.host = value
	case phase.EqualName(name, "x-forwarded-port"):
		f.port = value
	}
}

var (
	nameRealIP         = []byte("X-Real-IP")
	nameForwardedFor   = []byte("X-Forwarded-For")
	nameForwardedProto = []byte("X-Forwarded-Proto")
	nameForwardedHost  = []byte("X-Forwarded-Host")
	nameForwardedPort  = []byte("X-Forwarded-Port")
	schemeHTTP         = []byte("http")
	schemeHTTPS        = []byte("https")
)

// vouch settles the client's address and adds the lines by which the upstream learns of it (contract section 3.5). Whatever a peer
// that is not trusted said about that was dropped before.
func (e *edge) vouch(x *exchange) {
	c, f, h := &x.Client, &x.forwarded, &x.Request.Header
	if len(f.realIP) > 0 {
		if a, err := netip.ParseAddr(string(f.realIP)); err == nil {
			c.Addr, c.Text = a.Unmap(), f.realIP
		}
	}
	h.Add(nameRealIP, c.Text)
	via := c.Text
	if len(f.via) > 0 {
		via = x.Commit(append(append(append(x.Arena(), f.via...), ", "...), c.Text...))
	}
	h.Add(nameForwardedFor, via)
	proto := schemeHTTP
	if x.Request.TLS {
		proto = schemeHTTPS
	}
	h.Add(nameForwardedProto, or(f.proto, proto))
	h.Add(nameForwardedHost, or(f.host, x.Request.Authority))
	if len(f.port) == 0 {
		if i := len(x.Request.Host); i < len(x.hostport) && x.hostport[i] == ':' && i+1 < len(x.hostport) {
			f.port = x.hostport[i+1:]
		} else {
			f.port = x.Commit(strconv.AppendUint(x.Arena(), uint64(c.ServerPort), 10))
		}
	}
	h.Add(nameForwardedPort, f.port)
}

func or(a, b []byte) []byte {
	if len(a) > 0 {
		return a
	}
	return b
}

// appendTarget writes the request target that goes to the upstream when no plugin has written one.
func (e *edge) appendTarget(dst []byte, q *phase.Request) []byte {
	if e.rawTarget || len(q.Path) == len(q.RawPath) && bytes.Equal(q.Path, q.RawPath) {
		dst = append(dst, q.RawPath...)
	} else {
		dst = wire.AppendPath(dst, q.Path)
	}
	if len(q.Query) > 0 {
		dst = append(append(dst, '?'), q.Query...)
	}
	return dst
}

type lineKind uint8

const (
	lineOther lineKind = iota
	lineHost
	lineLength
	lineCoding
	lineConnection
	lineContentType
	lineForwarded
	lineDropped
)

// requestLine classes a request header line by name: addressing, framing, hop-by-hop (RFC 9110 section 7.6.1), forwarding, identity
// that only the gateway may claim, or end-to-end.
func requestLine(name []byte) lineKind {
	is := func(s string) bool { return phase.EqualName(name, s) }
	switch len(name) {
	case 2:
		if is("te") {
			return lineDropped
		}
	case 4:
		if is("host") {
			return lineHost
		}
	case 6:
		if is("expect") {
			return lineDropped
		}
	case 7:
		if is("trailer") || is("upgrade") {
			return lineDropped
		}
	case 9:
		if is("forwarded") {
			return lineDropped
		}
		if is("x-real-ip") {
			return lineForwarded
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
			return lineDropped
		}
	case 15:
		if is("x-forwarded-for") {
			return lineForwarded
		}
	case 16:
		if is("x-forwarded-host") || is("x-forwarded-port") {
			return lineForwarded
		}
		if is("proxy-connection") {
			return lineDropped
		}
	case 17:
		if is("transfer-encoding") {
			return lineCoding
		}
		if is("x-forwarded-proto") {
			return lineForwarded
		}
	case 18:
		if is("proxy-authenticate") {
			return lineDropped
		}
	case 19:
		if is("proxy-authorization") || is("x-consumer-username") {
			return lineDropped
		}
	case 20:
		if is("x-consumer-custom-id") {
			return lineDropped
		}
	case 23:
		if is("x-credential-identifier") {
			return lineDropped
		}
	}
	return identityTwin(name)
}

// identityTwin catches the spellings of identity headers with '_' for '-', which many upstreams take for the same name.
func identityTwin(name []byte) lineKind {
	if len(name) < len("x_consumer_") || name[0]|0x20 != 'x' || bytes.IndexByte(name, '_') < 0 {
		return lineOther
	}
	for _, prefix := range [...]string{"x-consumer-", "x-credential-", "x-forwarded-"} {
		if len(name) >= len(prefix) && twins(name[:len(prefix)], prefix) {
			return lineDropped
		}
	}
	return lineOther
}

func twins(b []byte, s string) bool {
	for i := range b {
		c := b[i]
		if c == '_' {
			c = '-'
		}
		if c >= 'A' && c <= 'Z' {
			c |= 0x20
		}
		if c != s[i] {
			return false
		}
	}
	return true
}
