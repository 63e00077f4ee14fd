package proxy

import (
	"net/http"
	"strconv"

	"github.com/valyala/fasthttp"

	"headgate/proxy/phase"
)

// writerKey is under which an HTTP/2 request has the way back to its client.
const writerKey = "headgate.writer"

// Inform implements phase.Informer. A client that does not take it fails at the answer, if it wants that.
func (x *exchange) Inform(status int, lines []phase.Field) {
	if w, ok := x.ctx.UserValue(writerKey).(http.ResponseWriter); ok {
		h := w.Header()
		for _, f := range lines {
			if x.informs(f.Name) {
				h.Add(string(f.Name), string(f.Value))
			}
		}
		w.WriteHeader(status)
		clear(h) // the answer has lines of its own
		return
	}
	c := x.conn()
	if c == nil {
		return
	}
	b := append(x.line[:0], "HTTP/1.1 "...)
	b = append(strconv.AppendInt(b, int64(status), 10), ' ')
	b = append(append(b, fasthttp.StatusMessage(status)...), "\r\n"...)
	for _, f := range lines {
		if x.informs(f.Name) {
			b = append(append(append(append(b, f.Name...), ": "...), f.Value...), "\r\n"...)
		}
	}
	x.line = append(b, "\r\n"...)
	_, _ = c.top().Write(x.line) // all that was answered before has left, as with 100
}

// informs says whether a line of an interim answer is the upstream's to send.
func (x *exchange) informs(name []byte) bool {
	return !framesResponse(name) && !(len(x.g.server) > 0 && phase.EqualName(name, "server"))
}

var _ phase.Informer = (*exchange)(nil)
