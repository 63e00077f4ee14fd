package proxy

import (
	"bytes"
	"net/netip"

	"github.com/valyala/fasthttp"

	"headgate/proxy/fault"
	"headgate/proxy/phase"
	"headgate/proxy/phase/wire"
	"headgate/proxy/route"
)

// edge is what the gateway insists on, and believes, at the border.
type edge struct {
	// maxLines bounds the header lines of a request, maxBody the bytes of its body.
	maxLines int
	maxBody  int64
	// trusted are the peers whose X-Real-IP and X-Forwarded-* are believed.
	trusted []netip.Prefix
	// realIPFrom are the peers whose X-Real-IP is believed, and nothing else unless they are trusted as well.
	realIPFrom []netip.Prefix
	// keepVia keeps the X-Forwarded-For of a peer that is not trusted, with the peer's own address behind it.
	keepVia bool
	// trimSlash takes one trailing slash off the path before it is matched.
	trimSlash bool
	// keepSlash matches an escaped slash as a letter of its segment, "%2F".
	keepSlash bool
	// servlet cuts the parameters of path segments off, as servlet containers do, before the path is matched.
	servlet bool
	// rawTarget forwards the request target as it was sent; otherwise the canonical path, which is what was matched, goes out.
	rawTarget bool
	// trailers are those that may follow the body of a request; announces says that some may follow that of an answer.
	trailers  trailers
	announces bool
	// passNamed keeps the lines that Connection names.
	passNamed bool
	lenient   Lenient
	// passHops keeps the lines that are for one connection only, but for those that are about its framing.
	passHops bool
	// nginxLimits bounds lines of heads as nginx does with the buffers that it has by default.
	nginxLimits bool
	// shortRest lets a star of a route stand for no more than maxRest bytes.
	shortRest bool
}

// nginxLine is the longest line in bytes, with its end, that fits into one of nginx's buffers for large heads.
const nginxLine = 8 << 10

// maxRest is for how many bytes a star of a route stands in the contract's gateway, whose regular expressions go no further
// (apisix-observed on section 2).
const maxRest = 6 << 10

// unmatched says whether the route that was found would not have been found by the contract's gateway.
func (e *edge) unmatched(x *exchange) bool {
	if !e.shortRest || len(x.Request.Path) <= maxRest {
		return false
	}
	for _, p := range x.Match.Params[:x.Match.NParams] {
		if len(p.Value) > maxRest {
			x.Match = route.Match{}
			return true
		}
	}
	return false
}

// tooLarge is the fault of a head that is too large: in its first line, or behind it.
func (e *edge) tooLarge(firstLine bool) *fault.Fault {
	switch {
	case !e.nginxLimits:
		return fault.HeadTooLarge
	case firstLine:
		return fault.TargetTooLong
	}
	return fault.FieldTooLarge
}

// read turns what fasthttp has parsed into x.Request and refuses whatever two parsers could understand differently (RFC 9112 sections
// 3, 5 and 6): fasthttp is lenient, and what it let through would be forwarded.
func (e *edge) read(ctx *fasthttp.RequestCtx, x *exchange) *fault.Fault {
	x.describe(ctx)
	e.client(x)
	q := &x.Request
	f := e.lines(ctx.Request.Header.RawHeaders(), x)                    // first: the log line of any refusal names the client's Host and agent
	if c := x.conn(); c != nil && c.in.scan.bare && !e.lenient.BareLF { // the rest of the head is looked at line by line
		return fault.BadRequest
	}
	if e.nginxLimits && len(q.Method)+len(ctx.Request.Header.RequestURI())+len("  HTTP/1.1\r\n") > nginxLine {
		return fault.TargetTooLong
	}
	switch string(ctx.Request.Header.Protocol()) {
	case "HTTP/1.1", "HTTP/1.0":
	default:
		return fault.BadVersion
	}
	if f := e.method(q.Method); f != nil {
		return f
	}
	if f != nil {
		return f
	}
	if f := e.target(ctx.Request.Header.RequestURI(), x); f != nil {
		return f
	}
	return e.body(ctx, x)
}

// body finds out where the body comes from. One that is there already is the exchange's at once.
func (e *edge) body(ctx *fasthttp.RequestCtx, x *exchange) (f *fault.Fault) {
	q := &x.Request
	if b, ok := ctx.Request.BodyStream().(*h2Body); ok {
		q.Incoming, x.incoming = b, b
		if b.Announced() > e.maxBody {
			return fault.BodyTooLarge
		}
		return nil
	}
	c := x.conn()
	if c == nil || c.in.mode == passing || c.in.mode == atHead { // the request did not come through our own hands, or has been read whole
		if n := int64(len(q.Body)); x.length > n || n > e.maxBody {
			return fault.BadFraming
		}
		return nil
	}
	if c.in.mode != headRead { // fasthttp takes it for one request, and it is more
		return fault.BadRequest
	}
	if q.Body, f = c.in.begin(x.length, e.maxBody, x.waits); f == nil && c.in.pending.Load() {
		q.Incoming, x.incoming = &c.in, &c.in
	} else {
		q.Trailers = c.in.Trailers()
	}
	q.Length += int64(len(q.Body))
	return f
}

// describe fills in what a log line tells of any request, forwarded or refused.
func (x *exchange) describe(ctx *fasthttp.RequestCtx) {
	h, q := &ctx.Request.Header, &x.Request
	q.Method = h.Method()
	if !ctx.Request.IsBodyStream() {
		q.Body = ctx.Request.Body()
	}
	q.RawPath, q.Query = cutQuery(h.RequestURI())
	q.HTTP10 = string(h.Protocol()) == "HTTP/1.0"
	if c := x.conn(); c != nil && c.tls != nil {
		q.HTTP2 = c.tls.http2
	}
	q.Length = int64(len(q.Method)+len(h.RequestURI())+len("  HTTP/1.1\r\n")+max(len(h.RawHeaders()), len("\r\n"))) + int64(len(q.Body))
}

// method says what is wrong with a method.
func (e *edge) method(m []byte) *fault.Fault {
	switch {
	case string(m) == fasthttp.MethodConnect, // a tunnel
		string(m) == fasthttp.MethodTrace && !e.lenient.Trace: // an echo of what the client's cookies are
		return fault.MethodNotAllowed
	case upperToken(m):
		return nil
	case !e.lenient.Methods || len(m) > maxMethod || !wire.ValidName(m):
		return fault.BadRequest
	}
	for _, special := range [...]string{fasthttp.MethodHead, fasthttp.MethodTrace, fasthttp.MethodConnect} {
		if phase.EqualName(m, special) { // nobody knows whether its answer has a body
			return fault.BadRequest
		}
	}
	return nil
}

// maxMethod is longer than every registered method.
const maxMethod = 32

// upperToken: every registered method is made of capitals and hyphens; anything else is a client that guesses.
func upperToken(method []byte) bool {
	for _, c := range method {
		if (c < 'A' || c > 'Z') && c != '-' && c != '_' {
			return false
		}
	}
	return len(method) > 0 && len(method) <= maxMethod
}

// target takes the request target apart (RFC 9112 section 3.2) and finds the one authority and the one path of the request.
func (e *edge) target(target []byte, x *exchange) *fault.Fault {
	q := &x.Request
	for _, c := range target {
		if c <= ' ' || c == 0x7f {
			return fault.BadPath
		}
	}
	if i := bytes.IndexByte(target, '#'); i >= 0 { // no part of a request target (RFC 9112 section 3.2)
		if e.lenient.Fragments {
			target = target[:i]
		} else if !e.rawTarget {
			return fault.BadPath
		}
	}
	if len(target) == 0 {
		return fault.BadPath
	}
	if target[0] != '/' && string(target) != "*" {
		authority, rest, ok := absoluteForm(target)
		if !ok {
			return fault.BadPath
		}
		q.Authority, target = authority, rest // the target's authority beats the Host line (RFC 9112 section 3.2.2)
	}
	if len(q.Authority) > 0 || !q.HTTP10 {
		host, hostport, err := route.AppendHost(x.hostBuf[:0], q.Authority)
		if err != nil {
			return fault.BadHost
		}
		q.Host, x.hostport = host, hostport
	}
	q.RawPath, q.Query = cutQuery(target)
	if len(q.RawPath) == 0 { // absolute form without a path (RFC 9112 sections 3.2.1 and 3.2.4)
		q.RawPath = pathRoot
		if q.Query == nil && string(q.Method) == fasthttp.MethodOptions {
			q.RawPath = pathServer
		}
	}
	return e.path(x)
}

var (
	pathRoot   = []byte("/")
	pathServer = []byte("*")
)

// path finds the one path that is matched.
func (e *edge) path(x *exchange) *fault.Fault {
	q := &x.Request
	switch {
	case string(q.RawPath) == "*":
		if string(q.Method) != fasthttp.MethodOptions || q.Query != nil {
			return fault.BadPath
		}
		q.Path = q.RawPath
		return nil
	case e.servlet && bytes.IndexByte(q.RawPath, ';') >= 0:
		plain, ok := appendWithoutParameters(x.Arena(), q.RawPath)
		if !ok {
			return fault.BadPath
		}
		if f := e.normalize(x, x.Commit(plain)); f != nil {
			return f
		}
	case route.Clean(q.RawPath):
		q.Path = q.RawPath
	default:
		if f := e.normalize(x, q.RawPath); f != nil {
			return f
		}
	}
	if e.trimSlash && len(q.Path) > 1 && q.Path[len(q.Path)-1] == '/' {
		q.Path = q.Path[:len(q.Path)-1]
		if n := len(x.escaped); n > 0 {
			x.escaped = x.escaped[:n-1]
		}
	}
	return nil
}

// normalize makes q.Path out of raw, and what goes out for it when that is not simply its escaped form.
func (e *edge) normalize(x *exchange, raw []byte) *fault.Fault {
	q := &x.Request
	if !e.keepSlash || !hasEncodedSlash(raw) {
		path, err := route.AppendNormalized(x.Arena(), raw)
		if err != nil {
			return fault.BadPath
		}
		q.Path = x.Commit(path)
		return nil
	}
	marked, err := route.AppendMarked(x.Arena(), raw)
	if err != nil {
		return fault.BadPath
	}
	marked = x.Commit(marked)
	matched, out := x.Arena(), []byte(nil)
	for rest := marked; ; {
		part, more, found := bytes.Cut(rest, []byte{route.EncodedSlash})
		if matched = append(matched, part...); !found {
			break
		}
		matched, rest = append(matched, "%2F"...), more
	}
	q.Path = x.Commit(matched)
	out = x.Arena()
	for rest := marked; ; {
		part, more, found := bytes.Cut(rest, []byte{route.EncodedSlash})
		if out = wire.AppendPath(out, part); !found {
			break
		}
		out, rest = append(out, "%2F"...), more
	}
	x.escaped = x.Commit(out)
	return nil
}

func hasEncodedSlash(path []byte) bool {
	for {
		i := bytes.IndexByte(path, '%')
		if i < 0 || i+2 >= len(path) {
			return false
		}
		if path[i+1] == '2' && path[i+2]|0x20 == 'f' {
			return true
		}
		path = path[i+1:]
	}
}

// appendWithoutParameters appends path without the ";parameters" of its segments. ok is false for a dot segment with parameters, which
// one side would take for a name and the other for a step up.
func appendWithoutParameters(dst, path []byte) (out []byte, ok bool) {
	for len(path) > 0 {
		segment, rest := path, []byte(nil)
		if i := bytes.IndexByte(path[1:], '/'); i >= 0 {
			segment, rest = path[:i+1], path[i+1:]
		}
		path = rest
		i := bytes.IndexByte(segment, ';')
		if i < 0 {
			dst = append(dst, segment...)
			continue
		}
		start := len(dst)
		name, err := route.AppendNormalized(dst, segment[:i])
		if err != nil || len(name)-start < 2 && i > 1 { // "/." and "/..", however they are spelt
			return dst, false
		}
		dst = append(dst, segment[:i]...)
	}
	return dst, true
}

// cutQuery splits a target at its first '?'. The query is nil when there is none, and only then.
func cutQuery(target []byte) (path, query []byte) {
	if i := bytes.IndexByte(target, '?'); i >= 0 {
		return target[:i], target[i+1:]
	}
	return target, nil
}

// absoluteForm splits "http://authority/path?query"; the rest is empty or starts with '/' or '?'.
func absoluteForm(t []byte) (authority, rest []byte, ok bool) {
	i := bytes.Index(t, []byte("://"))
	if i < 0 || !phase.EqualName(t[:i], "http") && !phase.EqualName(t[:i], "https") {
		return nil, nil, false
	}
	t = t[i+len("://"):]
	end := len(t)
	if i := bytes.IndexAny(t, "/?#"); i >= 0 {
		end = i
	}
	return t[:end], t[end:], end > 0 && (end == len(t) || t[end] != '#')
}

// appendTarget writes the request target that goes to the upstream when no plugin has written one.
func (e *edge) appendTarget(dst []byte, x *exchange) []byte {
	q := &x.Request
	switch {
	case e.rawTarget || bytes.Equal(q.Path, q.RawPath):
		dst = append(dst, q.RawPath...)
	case x.escaped != nil:
		dst = append(dst, x.escaped...)
	default:
		dst = wire.AppendPath(dst, q.Path)
	}
	if q.Query != nil {
		dst = append(append(dst, '?'), q.Query...)
	}
	return dst
}
