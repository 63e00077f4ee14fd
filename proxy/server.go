package proxy

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"

	"headgate/proxy/accesslog"
	"headgate/proxy/fault"
	"headgate/proxy/meter"
	"headgate/proxy/phase"
	"headgate/proxy/snapshot"
	"headgate/proxy/vars"
)

// ServerOptions are the limits and clocks of the clients' side.
type ServerOptions struct {
	Settings phase.Settings
	// MaxHead bounds request line and header in bytes, MaxLines the header lines, MaxBody the body in bytes.
	MaxHead, MaxLines, MaxBody int
	// HeadTimeout runs from the first byte of a request to the end of its header, BodyTimeout from there to the end of its body,
	// IdleTimeout between requests, WriteTimeout while an answer is written (0 = none).
	HeadTimeout, BodyTimeout, IdleTimeout, WriteTimeout time.Duration
	// MaxConnections bounds the clients that are connected at the same time; 0 = the default of 256Ki.
	MaxConnections int
	// Server is the Server header of answers; "" lets the upstream's pass.
	Server string
	// Trusted are the peers whose X-Real-IP and X-Forwarded-* are believed.
	Trusted []netip.Prefix
	// TrimSlash takes one trailing slash off the path before it is matched.
	TrimSlash bool
	// RawTarget forwards the target as the client sent it, not the canonical form that was matched.
	RawTarget bool
	// Log takes the access log, nil for none; Format makes its lines.
	Log    *accesslog.Writer
	Format *vars.Template
	Meter  *meter.Registry
	Errorf func(format string, args ...any)
}

// Server serves a Gateway to clients.
type Server struct {
	g    *Gateway
	http *fasthttp.Server
	open atomic.Int64 // connections
	busy atomic.Int64 // connections with a request under way
}

// NewServer returns a server for what live shows.
func NewServer(live *snapshot.Live, o ServerOptions) *Server {
	g := &Gateway{
		live: live, settings: o.Settings, log: o.Log, format: o.Format, server: []byte(o.Server), errorf: o.Errorf,
		edge: edge{maxLines: o.MaxLines, trusted: o.Trusted, trimSlash: o.TrimSlash, rawTarget: o.RawTarget},

		requests: o.Meter.Counter(meter.Requests),
		panics:   o.Meter.Counter(meter.Panics),
		faults:   map[*fault.Fault]*meter.Counter{},
	}
	for _, f := range fault.All() {
		g.faults[f] = o.Meter.Counter(meter.UpstreamErrors, meter.Label{Name: "code", Value: f.Code})
	}
	if !o.Log.Enabled() {
		g.log = nil
	}
	s := &Server{g: g}
	s.http = &fasthttp.Server{
		Handler:                       g.Handle,
		ErrorHandler:                  g.refuse,
		HeaderReceived:                bodyClock(o.BodyTimeout),
		Name:                          "",
		NoDefaultServerHeader:         true,
		NoDefaultContentType:          true,
		DisableHeaderNamesNormalizing: true,
		DisablePreParseMultipartForm:  true,
		SecureErrorLogMessage:         true,
		LazyRequestTime:               true,
		ReadBufferSize:                o.MaxHead,
		WriteBufferSize:               8 << 10,
		MaxRequestBodySize:            o.MaxBody,
		ReadTimeout:                   o.HeadTimeout,
		IdleTimeout:                   o.IdleTimeout,
		WriteTimeout:                  o.WriteTimeout,
		Concurrency:                   o.MaxConnections,
		Logger:                        quiet{o.Errorf},
		ConnState:                     s.connState,
	}
	s.metrics(o.Meter)
	return s
}

// Serve accepts clients on l until it is closed.
func (s *Server) Serve(l net.Listener) error {
	if err := s.http.Serve(l); err != nil && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// Ready returns why no new traffic should come: the service is ending. Nil while it should.
func (s *Server) Ready() error {
	if s.g.draining.Load() {
		return errors.New("draining")
	}
	return nil
}

// Handler is the request path, for servers that tests run themselves.
func (s *Server) Handler() fasthttp.RequestHandler { return s.g.Handle }

// Drain ends the service without losing a request (reliability F14): every answer from now on tells its client to go, connections that
// are idle may still bring one request each until grace has passed, and what runs then may finish until ctx ends. The listeners
// must be closed already. It returns how many connections were cut off.
func (s *Server) Drain(ctx context.Context, grace time.Duration) int {
	s.g.draining.Store(true)
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	quietFrom := time.Now().Add(grace)
	for s.open.Load() > 0 && ctx.Err() == nil && (time.Now().Before(quietFrom) || s.busy.Load() > 0) {
		select {
		case <-poll.C:
		case <-ctx.Done():
		}
	}
	cut := int(s.busy.Load())
	end, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if cut > 0 { // out of time: nothing is waited for any more
		cancel()
	}
	_ = s.http.ShutdownWithContext(end)
	return cut
}

// connState keeps the counts of connections. fasthttp calls it on the goroutine that serves the connection.
func (s *Server) connState(nc net.Conn, state fasthttp.ConnState) {
	c, ok := nc.(*edgeConn)
	if !ok {
		return
	}
	busy := state == fasthttp.StateActive
	if busy != c.busy {
		c.busy = busy
		if busy {
			s.busy.Add(1)
		} else {
			s.busy.Add(-1)
		}
	}
	switch state {
	case fasthttp.StateNew:
		s.open.Add(1)
	case fasthttp.StateClosed, fasthttp.StateHijacked:
		s.open.Add(-1)
	}
}

func (s *Server) metrics(r *meter.Registry) {
	state := func(name string, f func() float64) {
		r.Gauge(meter.Connections, f, meter.Label{Name: "state", Value: name})
	}
	state("active", func() float64 { return float64(s.open.Load()) })
	state("writing", func() float64 { return float64(max(s.busy.Load(), 0)) })
	state("waiting", func() float64 { return float64(max(s.open.Load()-s.busy.Load(), 0)) })
}

// bodyClock gives a request that has a body more time than the header had.
func bodyClock(d time.Duration) func(h *fasthttp.RequestHeader) fasthttp.RequestConfig {
	return func(h *fasthttp.RequestHeader) fasthttp.RequestConfig {
		if h.ContentLength() == 0 || h.ContentLength() == -2 {
			return fasthttp.RequestConfig{}
		}
		return fasthttp.RequestConfig{ReadTimeout: d}
	}
}

// refuse answers a request that fasthttp could not read.
func (g *Gateway) refuse(ctx *fasthttp.RequestCtx, err error) {
	f := fault.BadRequest
	var small *fasthttp.ErrSmallBuffer
	var netErr net.Error
	switch {
	case errors.As(err, &small):
		f = fault.HeadTooLarge
	case errors.Is(err, fasthttp.ErrBodyTooLarge):
		f = fault.BodyTooLarge
	case errors.As(err, &netErr) && netErr.Timeout():
		f = fault.RequestTimeout
	}
	x := g.acquire(ctx)
	ctx.SetUserValue(exchangeKey, x)
	g.requests.Inc()
	x.Request.Method = ctx.Request.Header.Method()
	g.edge.client(x)
	ctx.Response.Reset()
	x.Fail(f)
	x.write()
}

// quiet passes fasthttp's complaints on. They are about single connections, and carry no bytes of them (SecureErrorLogMessage).
type quiet struct {
	errorf func(format string, args ...any)
}

func (q quiet) Printf(format string, args ...any) {
	if q.errorf != nil {
		q.errorf(format, args...)
	}
}
