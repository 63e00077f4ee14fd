package proxy

//lint:file-ignore SA1019 net/http, which is to be used instead, serves HTTP/2 only where it has accepted the connection and shaken hands

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/valyala/fasthttp"
	"golang.org/x/net/http2"

	"headgate/proxy/fault"
	"headgate/proxy/netpoll"
	"headgate/proxy/phase/wire"
)

// protoHTTP2 is HTTP/2 by its name in RFC 7301.
const protoHTTP2 = "h2"

// Bounds of one HTTP/2 connection.
const (
	maxStreams       = 128                       // at a time
	streamWindow     = 128 << 10                 // bytes of a request body that wait to be read
	connectionWindow = maxStreams * streamWindow // so that streams which are not read do not stop the others
	pingAfter        = 30 * time.Second          // of silence, to find out whether the client is there
	pingPatience     = 15 * time.Second
)

// h2 serves HTTP/2 connections: every stream becomes an exchange of its own, on the same path as an HTTP/1.1 request. Frames, header
// compression, flow control and the bounds of streams that are begun and reset are those of x/net/http2.
type h2 struct {
	s        *Server
	server   *http2.Server
	base     *http.Server
	maxBody  int64
	maxHead  int
	requests sync.Pool // of *h2Request
}

func newH2(s *Server, o ServerOptions) *h2 {
	h := &h2{s: s, maxBody: o.MaxBody, maxHead: o.MaxHead}
	idle := o.IdleTimeout
	if idle <= 0 {
		idle = o.HeadTimeout
	}
	// A header that is a little too large is refused with an answer, here; one that is far too large ends the connection, there. What the
	// library would log quotes what clients send.
	h.base = &http.Server{
		MaxHeaderBytes: 2 * o.MaxHead, IdleTimeout: idle, ErrorLog: log.New(io.Discard, "", 0),
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: maxStreams, MaxReceiveBufferPerStream: streamWindow, MaxReceiveBufferPerConnection: connectionWindow,
			SendPingTimeout: pingAfter, PingTimeout: pingPatience,
		},
	}
	h.server = &http2.Server{IdleTimeout: idle}
	_ = http2.ConfigureServer(h.base, h.server)                     // it has no TLS configuration that could be wrong
	s.goAway = func() { _ = h.base.Shutdown(context.Background()) } // of no listener: it tells the connections, and returns
	return h
}

// serve serves a connection whose handshake has chosen HTTP/2, until its last exchange has ended.
func (h *h2) serve(nc net.Conn) error {
	c := &h2Conn{h: h, conn: nc, edge: edgeConnOf(nc), quiet: make(chan struct{}), large: make(chan struct{}, 1)}
	if c.edge == nil {
		return errNotReady
	}
	h.server.ServeConn(nc, &http2.ServeConnOpts{BaseConfig: h.base, Handler: c})
	c.end()
	return nil
}

// h2Conn is one HTTP/2 connection.
type h2Conn struct {
	h    *h2
	conn net.Conn
	edge *edgeConn
	// large has a token while a large request body is held in memory: one connection has one at a time, as it would without streams.
	large chan struct{}

	mu      sync.Mutex
	streams int    // with an exchange
	count   uint64 // of them so far
	ended   bool
	quiet   chan struct{} // closed when it has ended and the last stream has, too
}

// begin counts an exchange; false when the connection has ended.
func (c *h2Conn) begin() (number uint64, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return 0, false
	}
	if c.streams++; c.streams == 1 {
		c.edge.busy.Store(true)
		c.edge.rest.Store(0)
		c.h.s.busy.Add(1)
	}
	c.count++
	return c.count, true
}

func (c *h2Conn) done() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.streams--; c.streams > 0 {
		return
	}
	c.edge.busy.Store(false)
	c.edge.rest.Store(c.h.s.clock())
	c.h.s.busy.Add(-1)
	if c.ended {
		close(c.quiet)
	}
}

// end waits for the exchanges that are still running.
func (c *h2Conn) end() {
	c.mu.Lock()
	c.ended = true
	running := c.streams > 0
	c.mu.Unlock()
	if running {
		<-c.quiet
	}
}

// h2Request is what one stream needs to look like a request of HTTP/1.1.
type h2Request struct {
	ctx    fasthttp.RequestCtx
	head   []byte
	reader bytes.Reader
	buf    *bufio.Reader
	body   h2Body
}

// ServeHTTP carries one stream through the request path.
func (c *h2Conn) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	number, ok := c.begin()
	if !ok {
		panic(http.ErrAbortHandler)
	}
	whole := false
	defer func() {
		c.done()
		if !whole {
			panic(http.ErrAbortHandler) // RST_STREAM: the client must not take what it has got for all
		}
	}()
	q, _ := c.h.requests.Get().(*h2Request)
	if q == nil {
		q = &h2Request{buf: bufio.NewReaderSize(nil, c.h.maxHead)}
	}
	whole = c.exchange(q, number, w, r)
	if q.body.large {
		<-c.large
	}
	q.body = h2Body{}
	c.h.requests.Put(q)
}

// exchange answers r and says whether the client has got all of the answer.
func (c *h2Conn) exchange(q *h2Request, number uint64, w http.ResponseWriter, r *http.Request) (whole bool) {
	ctx, g := &q.ctx, c.h.s.g
	ctx.Init2(c.conn, nil, true)
	here := &netpoll.Presence{}
	defer context.AfterFunc(r.Context(), here.Leave)()
	ctx.SetUserValue(presenceKey, here)
	ctx.SetUserValue(writerKey, w)
	ctx.Request.Header.DisableNormalizing()
	ctx.Response.Header.DisableNormalizing()
	ctx.Response.Header.SetNoDefaultContentType(true)
	defer func() {
		_ = ctx.Response.CloseBodyStream() // before the exchange that it belongs to ends
		ctx.ResetUserValues()              // ends the exchange
		ctx.Request.Reset()
		ctx.Response.Reset()
	}()
	if err := q.read(r, c, http.NewResponseController(w)); err != nil {
		g.refuse(ctx, err)
	} else {
		g.Handle(ctx)
	}
	x, _ := ctx.UserValue(exchangeKey).(*exchange)
	if x == nil {
		return false
	}
	x.ConnRequests = number
	return c.answer(x, w)
}

var (
	errNoRequest = errors.New("a request that HTTP/1.1 cannot express")
	errLength    = errors.New("a body whose length is not clear")
)

// read makes ctx the request that r is. The request path judges it; what must be right is that it cannot become another one on the way
// into HTTP/1.1.
func (q *h2Request) read(r *http.Request, c *h2Conn, rc *http.ResponseController) error {
	if !wire.ValidName([]byte(r.Method)) || !visible(r.RequestURI) {
		return errNoRequest
	}
	b := append(append(append(append(q.head[:0], r.Method...), ' '), r.RequestURI...), " HTTP/1.1\r\n"...)
	line := func(name, value string) {
		b = append(append(append(append(b, name...), ": "...), value...), "\r\n"...)
	}
	if r.Host != "" {
		line("Host", r.Host)
	}
	for name := range r.Trailer { // what the client has announced
		if !needsHead([]byte(name)) {
			line("Trailer", name)
		}
	}
	if wire.HasToken([]byte(r.Header.Get("Te")), "trailers") {
		line("Te", "trailers")
	}
	for name, values := range r.Header {
		switch name {
		case "Host", "Connection", "Keep-Alive", "Proxy-Connection", "Transfer-Encoding", "Upgrade", "Te", "Content-Length":
			continue // HTTP/2 has its own ways (RFC 9113 section 8.2.2)
		}
		for _, v := range values {
			line(name, v)
		}
	}
	q.head = append(b, "\r\n"...)
	q.reader.Reset(q.head)
	q.buf.Reset(&q.reader)
	if err := q.ctx.Request.Header.Read(q.buf); err != nil {
		return err
	}
	if q.reader.Len() > 0 || q.buf.Buffered() > 0 {
		return errNoRequest
	}
	if announced, has := r.Header["Content-Length"]; has { // the library checks some of it (RFC 9113 section 8.1.1)
		if n, ok := wire.ParseLength([]byte(announced[0])); !ok || len(announced) > 1 || n != r.ContentLength {
			return errLength
		}
	}
	if r.ContentLength == 0 {
		return nil
	}
	q.body = h2Body{r: r, c: c, control: rc, left: r.ContentLength, most: c.h.maxBody}
	q.ctx.Request.SetBodyStream(&q.body, -1)
	return nil
}

// visible says whether target has neither white space nor control characters.
func visible(target string) bool {
	for i := range len(target) {
		if target[i] <= ' ' || target[i] == 0x7f {
			return false
		}
	}
	return target != ""
}

// answer sends what the request path has decided.
func (c *h2Conn) answer(x *exchange, w http.ResponseWriter) (whole bool) {
	out, header := &x.ctx.Response, w.Header()
	header["Content-Type"] = nil // none is guessed
	for name, value := range out.Header.All() {
		if !framesResponse(name) {
			header.Add(string(name), string(value))
		}
	}
	if c.h.s.g.leaving() {
		header.Set("Connection", "close") // the library makes it a GOAWAY
	}
	switch {
	case out.IsBodyStream():
		if x.body.size >= 0 {
			header.Set("Content-Length", strconv.FormatInt(x.body.size, 10))
		}
		for _, name := range out.Header.PeekTrailerKeys() {
			header.Add("Trailer", string(name))
		}
		w.WriteHeader(out.StatusCode())
		sink := &h2Writer{w, http.NewResponseController(w), c.edge.patience}
		_ = sink.control.Flush() // the head is not to wait for the first piece; that piece will meet the error
		x.body.size = -1         // each piece goes through sink, as if its length had not been known
		_, err := x.body.WriteTo(sink)
		if err == nil {
			sink.trail(x)
		}
		return err == nil
	case out.SkipBody:
		if n := out.Header.ContentLength(); n > 0 {
			header.Set("Content-Length", strconv.Itoa(n))
		}
		w.WriteHeader(out.StatusCode())
		return true
	}
	body := out.Body()
	header.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(out.StatusCode())
	if len(body) == 0 {
		return true
	}
	_, err := (&h2Writer{w, http.NewResponseController(w), c.edge.patience}).Write(body)
	if err != nil && writeFault(err) == fault.WriteTimeout {
		x.raise(fault.WriteTimeout)
	}
	return err == nil
}

// h2Writer sends every piece at once. A client that opens no window for it is waited for as long as one that takes no bytes. The library's
// deadline ends the stream whether or not anything is being written, so there is one only while something is.
type h2Writer struct {
	http.ResponseWriter
	control  *http.ResponseController
	patience time.Duration
}

func (w *h2Writer) Write(p []byte) (sent int, err error) {
	for len(p) > 0 && err == nil {
		if w.patience > 0 {
			_ = w.control.SetWriteDeadline(time.Now().Add(w.patience))
		}
		var n int
		if n, err = w.ResponseWriter.Write(p[:min(len(p), writePiece)]); err == nil {
			err = w.control.Flush()
		}
		sent, p = sent+n, p[n:]
	}
	if w.patience > 0 && err == nil {
		_ = w.control.SetWriteDeadline(time.Time{})
	}
	return sent, err
}
