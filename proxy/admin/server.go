// Package admin holds what the listeners of the operators share: the settings of their servers, their error pages, and the checks
// that come before any of their handlers. The listeners themselves are v3 (Admin API), control (read-only views), status and metricsd;
// catalog knows the schemas that two of them show.
package admin

import (
	"errors"
	"net"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/valyala/fasthttp"

	"headgate/proxy/phase"
)

const (
	// maxHeaderLines bounds the header lines of a request (reliability 4.1, header bombs); more are answered with 431.
	maxHeaderLines = 100

	maxHead     = 16 << 10 // bytes of request line and headers
	headTimeout = 10 * time.Second
	bodyTimeout = 30 * time.Second
	sendTimeout = 60 * time.Second
	idleTimeout = 60 * time.Second
	maxConns    = 256 // bounds what bodies of clients without a key can hold in memory
)

// Logf takes one line of the log, without a newline. It must be safe for concurrent use.
type Logf func(format string, args ...any)

// Printf makes a Logf a fasthttp.Logger.
func (f Logf) Printf(format string, args ...any) { f(format, args...) }

// ServerOptions are what the listeners differ in.
type ServerOptions struct {
	Handler fasthttp.RequestHandler
	// Name is the value of the Server header; none is sent when it is empty.
	Name string
	// MaxBody is the largest request body in bytes that reaches Handler; values below 1 allow 4 KiB.
	MaxBody int
	// BodyLimit, when it returns more than 0, is used instead of MaxBody for the request that has this head. May be nil.
	BodyLimit func(*fasthttp.RequestHeader) int
	// TooLarge answers a request whose body is larger; the connection is closed afterwards. Nil means the 413 page.
	TooLarge fasthttp.RequestHandler
	// Logf gets the complaints of the server; nil drops them.
	Logf Logf
}

// NewServer returns a server for few, trusted, careless clients: bounded in time, connections and bytes, silent about request
// contents in its log. Handler runs under Guard. Serve it on a Linger of the listener.
func NewServer(o ServerOptions) *fasthttp.Server {
	if o.Logf == nil {
		o.Logf = func(string, ...any) {}
	}
	if o.MaxBody < 1 {
		o.MaxBody = 4 << 10
	}
	return &fasthttp.Server{
		Handler: Guard(o.Handler, o.Logf),
		Name:    o.Name,
		Logger:  o.Logf,
		ErrorHandler: func(ctx *fasthttp.RequestCtx, err error) {
			answeredEarly(ctx)
			if errors.Is(err, fasthttp.ErrBodyTooLarge) && o.TooLarge != nil {
				o.TooLarge(ctx)
				return
			}
			Page(ctx, statusOf(err))
		},
		HeaderReceived: func(head *fasthttp.RequestHeader) fasthttp.RequestConfig {
			c := fasthttp.RequestConfig{ReadTimeout: bodyTimeout}
			if o.BodyLimit != nil {
				c.MaxRequestBodySize = max(o.BodyLimit(head), 0)
			}
			return c
		},
		MaxRequestBodySize:           o.MaxBody,
		ReadBufferSize:               maxHead,
		ReadTimeout:                  headTimeout,
		WriteTimeout:                 sendTimeout,
		IdleTimeout:                  idleTimeout,
		Concurrency:                  maxConns,
		CloseOnShutdown:              true,
		DisablePreParseMultipartForm: true,
		NoDefaultServerHeader:        true,
		NoDefaultContentType:         true,
		SecureErrorLogMessage:        true,
	}
}

// statusOf says which page answers a request that could not be read.
func statusOf(err error) int {
	var small *fasthttp.ErrSmallBuffer
	var netErr net.Error
	switch {
	case errors.As(err, &small):
		return fasthttp.StatusRequestHeaderFieldsTooLarge
	case errors.Is(err, fasthttp.ErrBodyTooLarge):
		return fasthttp.StatusRequestEntityTooLarge
	case errors.As(err, &netErr) && netErr.Timeout():
		return fasthttp.StatusRequestTimeout
	}
	return fasthttp.StatusBadRequest
}

// Guard returns next behind a cap on header lines and with its panics turned into 500 pages; nothing below it recovers any.
func Guard(next fasthttp.RequestHandler, logf Logf) fasthttp.RequestHandler {
	return func(ctx *fasthttp.RequestCtx) {
		defer func() {
			if p := recover(); p != nil {
				logf("panic while answering %s %q: %v\n%s", ctx.Method(), ctx.Path(), p, debug.Stack())
				Page(ctx, fasthttp.StatusInternalServerError)
				ctx.SetConnectionClose()
			}
		}()
		if ctx.Request.Header.Len() > maxHeaderLines {
			Page(ctx, fasthttp.StatusRequestHeaderFieldsTooLarge)
			ctx.SetConnectionClose()
			return
		}
		next(ctx)
	}
}

// Page answers with the short HTML page of status and none of the headers that were set before, except Server.
func Page(ctx *fasthttp.RequestCtx, status int) {
	title := strconv.Itoa(status) + " " + phase.PageTitle(status)
	server := string(ctx.Response.Header.Server())
	ctx.Response.Reset()
	if server != "" {
		ctx.Response.Header.SetServer(server)
	}
	ctx.SetStatusCode(status)
	ctx.SetContentType(phase.TypeHTML)
	ctx.SetBodyString("<html>\r\n<head><title>" + title + "</title></head>\r\n<body>\r\n<center><h1>" + title +
		"</h1></center>\r\n</body>\r\n</html>\r\n")
}
