package proxy

import (
	"iter"
	"net/http"

	"headgate/proxy/phase"
	"headgate/proxy/phase/wire"
)

// trailers says which fields may pass behind a body.
type trailers struct {
	all   bool
	names []string
}

// newTrailers allows the fields called names; "*" allows all that may stand behind a body at all.
func newTrailers(names []string) trailers {
	t := trailers{names: names}
	for _, n := range names {
		t.all = t.all || n == "*"
	}
	return t
}

// none says that no field passes.
func (t *trailers) none() bool { return !t.all && len(t.names) == 0 }

// pass says whether a field called name may pass behind a body.
func (t *trailers) pass(name []byte) bool {
	allowed := t.all
	for i := 0; i < len(t.names) && !allowed; i++ {
		allowed = phase.EqualName(name, t.names[i])
	}
	return allowed && requestLine(name) == lineOther && !needsHead(name)
}

// filter returns those lines of a checked section that may pass, each with CRLF, in memory of their own; nil when none may.
func (t *trailers) filter(section []byte) (lines []byte) {
	if t.none() {
		return nil
	}
	for len(section) > 0 {
		var f phase.Field
		if f, section = wire.NextField(section); t.pass(f.Name) {
			lines = append(append(append(append(lines, f.Name...), ": "...), f.Value...), "\r\n"...)
		}
	}
	return lines
}

// announce adds to q.Announced the names in the value of a Trailer line that may pass.
func (t *trailers) announce(x *exchange, value []byte) {
	if t.none() {
		return
	}
	list := append(x.Arena(), x.Request.Announced...)
	start := len(x.Arena())
	for len(value) > 0 {
		var name []byte
		if name, value = wire.NextElement(value); !wire.ValidName(name) || !t.pass(name) {
			continue
		}
		if len(list) > start {
			list = append(list, ", "...)
		}
		list = append(list, name...)
	}
	x.Request.Announced = x.Commit(list)
}

// needsHead says that a field has its effect, or could have it somewhere down the line, before or beside the body: it frames, routes,
// authenticates, conditions or caches the message, or says how the body is to be read (RFC 9110 section 6.5.1). What requestLine
// classes is not repeated here. Upstreams that take '_' for '-' are meant, too.
func needsHead(name []byte) bool {
	for _, prefix := range [...]string{"content-", "proxy-", "if-", "access-control-", "sec-", "x-forwarded-", "x-apisix-", "x-headgate-", "x-accel-"} {
		if startsLike(name, prefix) {
			return !like(name, "content-digest") // RFC 9530 section 2 has it there
		}
	}
	for _, n := range [...]string{
		"host", "connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "http2-settings", "via", "forwarded", "alt-svc",
		"authorization", "www-authenticate", "authentication-info", "cookie", "set-cookie", "set-cookie2", "apikey", "x-api-key", "x-real-ip",
		"expect", "max-forwards", "range", "pragma", "cache-control", "age", "expires", "date", "vary", "warning", "retry-after", "location",
		"origin", "referer", "user-agent", "accept-encoding", "server", "status", "refresh", "x-http-method-override", "x-method-override",
		"strict-transport-security", "x-content-type-options", "x-frame-options", "clear-site-data", "surrogate-control",
	} {
		if like(name, n) {
			return true
		}
	}
	return false
}

// describesBytes: these are true of the very bytes that the upstream has sent.
func describesBytes(name []byte) bool {
	for _, n := range [...]string{"content-digest", "repr-digest", "digest", "etag", "last-modified"} {
		if like(name, n) {
			return true
		}
	}
	return false
}

// promised yields the names of the fields that may follow the body of the answer, as far as they are known. A name that a header line has
// is left out: no client shall take the one for the other.
func (x *exchange) promised() iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		t := &x.Response.Trailers
		for _, list := range [...][]phase.Field{t.Announced.Fields(), t.Fields.Fields()} {
			for i := range list {
				name := list[i].Name
				if x.chunked() && describesBytes(name) {
					continue
				}
				if _, has := x.Response.Header.GetBytes(name); !has && x.g.trailers.pass(name) && !yield(name) {
					return
				}
			}
		}
	}
}

// trailing yields the fields that follow the body of the answer.
func (x *exchange) trailing() iter.Seq[phase.Field] {
	return func(yield func(phase.Field) bool) {
		for _, f := range x.Response.Trailers.Fields.Fields() {
			if x.g.trailers.pass(f.Name) && !(x.altered && describesBytes(f.Name)) && !yield(f) {
				return
			}
		}
	}
}

// trails says that fields follow a body that is here.
func (x *exchange) trails() bool {
	for range x.trailing() {
		return !x.Request.HTTP10
	}
	return false
}

// promise announces the trailers of an answer that is about to go out in chunks.
func (x *exchange) promise() {
	for name := range x.promised() {
		_ = x.ctx.Response.Header.AddTrailerBytes(name) // what fasthttp does not want is not announced
	}
}

// trail hands fasthttp the fields that follow the last chunk. The head has left, so that what the header says now is about them alone.
func (x *exchange) trail() {
	if x.Response.Trailers.Fields.Len() == 0 {
		return
	}
	h := &x.ctx.Response.Header
	for f := range x.trailing() { // before anything is added: fasthttp would send a header line of that name again
		h.DelBytes(f.Name)
		_ = h.AddTrailerBytes(f.Name) // what it does not want is not sent
	}
	for f := range x.trailing() {
		h.AddBytesKV(f.Name, f.Value)
	}
}

// trail sends the fields that follow the body. They end the stream.
func (w *h2Writer) trail(x *exchange) {
	if x.Response.Trailers.Fields.Len() == 0 {
		return
	}
	for f := range x.trailing() {
		w.Header().Add(http.TrailerPrefix+http.CanonicalHeaderKey(string(f.Name)), string(f.Value)) // fields of one name are one there
	}
}
