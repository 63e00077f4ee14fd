package proxy

import (
	"cmp"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/valyala/fasthttp"

	"headgate/proxy/accesslog"
	"headgate/proxy/fault"
	"headgate/proxy/meter"
	"headgate/proxy/netpoll"
	"headgate/proxy/overload"
	"headgate/proxy/phase"
	"headgate/proxy/snapshot"
	"headgate/proxy/vars"
)

// ServerOptions are the limits and clocks of the clients' side.
type ServerOptions struct {
	Settings phase.Settings
	// MaxHead bounds request line and header in bytes, MaxLines the header lines, MaxBody the body in bytes.
	MaxHead, MaxLines int
	MaxBody           int64
	// BodyBuffer is the longest body in bytes that is collected before it is sent on, so that it can be sent again. Longer ones pass
	// through as they come. 0 collects none.
	BodyBuffer int
	// HeadTimeout runs from the first byte of a request to the end of its header (0 = none), IdleTimeout between requests (0 =
	// HeadTimeout). BodyTimeout is how long the client may pause within a body, which as a whole may take BodyTimeout and one second
	// for every KiB of its length, or of MaxBody where the length is not announced. 0 = the body shares what is left of HeadTimeout.
	HeadTimeout, BodyTimeout, IdleTimeout time.Duration
	// WriteTimeout is how long a client may take no bytes of its answer (0 = for ever). It does not bound the whole answer.
	WriteTimeout time.Duration
	// UpgradeLifetime is how long a connection lives on after it has switched to another protocol, whatever happens on it (0 = as long as
	// both ends want). How long it may be idle is for its upstream's clocks to say.
	UpgradeLifetime time.Duration
	// MaxConnections bounds the clients that are connected at the same time; 0 = what there are descriptors for, 256Ki at most. When
	// there is no room, those go that have been idle for longest.
	MaxConnections int
	// MaxPerClient bounds those of one address (IPv6: of one /64 network) that is not in Trusted; 0 = no bound.
	MaxPerClient int
	// Memory is watched while the server serves; nil = there is no limit.
	Memory *overload.Monitor
	// TLS is for ServeTLS.
	TLS TLSOptions
	// Server is the Server header of answers; "" lets the upstream's pass.
	Server string
	// Trusted are the peers whose X-Real-IP and X-Forwarded-* are believed.
	Trusted []netip.Prefix
	// RealIPFrom are the peers whose X-Real-IP alone is believed.
	RealIPFrom []netip.Prefix
	// KeepForwardedFor passes on the X-Forwarded-For of a peer that is not trusted, with the peer's address behind it (contract section
	// 3.5). It is not believed; but an upstream that reads the first address of the list believes the client.
	KeepForwardedFor bool
	// TrimSlash takes one trailing slash off the path before it is matched.
	TrimSlash bool
	// RawTarget forwards the target as the client sent it, not the canonical form that was matched.
	RawTarget bool
	// KeepSlash and Servlet are gateway.match_uri_encoded_slash and gateway.normalize_uri_like_servlet (contract section 2.2).
	KeepSlash, Servlet bool
	// PassNamed passes on the lines that Connection names, which RFC 9110 section 7.6.1 forbids.
	PassNamed bool
	// Lenient is what is let in although it is not the strict form.
	Lenient Lenient
	// PassHops passes on Proxy-*, Trailer and HTTP2-Settings, which the same section forbids.
	PassHops bool
	// NginxHeadLimits refuses request lines above 8 KiB with 414, and header lines above 8 KiB and all that is beyond MaxHead and MaxLines
	// with 400.
	NginxHeadLimits bool
	// ShortRest lets no star of a route stand for more than 6 KiB of a path.
	ShortRest bool
	// RequestTrailers and ResponseTrailers are the names of the fields that may pass behind bodies; "*" = all that may stand there at all.
	RequestTrailers, ResponseTrailers []string
	// Charset names UTF-8 as the charset of text answers that name none.
	Charset bool
	// Log takes the access log, nil for none; Format makes its lines.
	Log    *accesslog.Writer
	Format *vars.Template
	// ShowSecrets writes values into the log as they are. Otherwise *** stands for those of arguments, header lines and cookies whose
	// names are those of secrets, and for user information in URLs.
	ShowSecrets bool
	Meter       *meter.Registry
	// Errorf takes what operators should read, nil for nobody. It must not block.
	Errorf func(format string, args ...any)
}

// Server serves a Gateway to clients.
type Server struct {
	g        *Gateway
	http     *fasthttp.Server
	tls      *tlsEdge
	goAway   func()                          // tells HTTP/2 clients that the service is ending; nil without HTTP/2
	mend     *mender                         // of heads; nil when they are taken as they come
	patience time.Duration                   // for writes
	pause    time.Duration                   // within a request body
	linger   atomic.Int64                    // connections whose clients still send although they have been answered
	watcher  atomic.Pointer[netpoll.Watcher] // nil before anybody is served
	watch    sync.Once                       // starts it
	open     atomic.Int64                    // connections
	busy     atomic.Int64                    // connections with a request under way

	begun time.Time

	idle  time.Duration // how long a connection may wait for a request; 0 = for ever
	mu    sync.Mutex
	crowd crowd
	lot   lot
	ended bool // connections that come now are closed
}

// NewServer returns a server for what live shows.
func NewServer(live *snapshot.Live, o ServerOptions) *Server {
	if o.Errorf == nil {
		o.Errorf = func(string, ...any) {}
	}
	g := &Gateway{
		live: live, settings: o.Settings, server: []byte(o.Server), charset: o.Charset, buffer: o.BodyBuffer, lifetime: o.UpgradeLifetime, errorf: o.Errorf,
		trailers: newTrailers(o.ResponseTrailers),
		edge: edge{
			maxLines: o.MaxLines, maxBody: o.MaxBody, trusted: o.Trusted, realIPFrom: o.RealIPFrom, keepVia: o.KeepForwardedFor, trimSlash: o.TrimSlash,
			rawTarget: o.RawTarget, keepSlash: o.KeepSlash, servlet: o.Servlet, passNamed: o.PassNamed, passHops: o.PassHops, lenient: o.Lenient,
			nginxLimits: o.NginxHeadLimits, shortRest: o.ShortRest, trailers: newTrailers(o.RequestTrailers),
		},

		requests: o.Meter.Counter(meter.Requests),
		panics:   o.Meter.Counter(meter.Panics),
		aborts:   newAborts(o.Meter),
		faults:   map[*fault.Fault]*meter.Counter{},
	}
	for _, f := range append(fault.All(), expectationFailed, upgradeIdle, upgradeExpired, misdirected, unproved) {
		g.faults[f] = o.Meter.Counter(meter.Faults, meter.Label{Name: "side", Value: f.Side.String()}, meter.Label{Name: "code", Value: f.Code})
	}
	if o.Log != nil && o.Log.Enabled() && o.Format != nil {
		g.log, g.format, g.mask = o.Log, o.Format, !o.ShowSecrets
	}
	g.settings.Memory = o.Memory
	g.edge.announces = !g.trailers.none()
	s := &Server{g: g, mend: newMender(o.Lenient, o.MaxHead), patience: o.WriteTimeout, pause: o.BodyTimeout, begun: time.Now(),
		idle: cmp.Or(o.IdleTimeout, o.HeadTimeout), crowd: newCrowd(o.MaxConnections, o.MaxPerClient, o.Meter)}
	s.lot.open()
	s.http = &fasthttp.Server{
		Handler:                       g.Handle,
		ErrorHandler:                  g.refuse,
		HeaderReceived:                headReceived,
		NoDefaultServerHeader:         true,
		NoDefaultContentType:          true,
		DisableHeaderNamesNormalizing: true,
		DisablePreParseMultipartForm:  true,
		SecureErrorLogMessage:         true,
		LazyRequestTime:               true,
		ReadBufferSize:                o.MaxHead,
		WriteBufferSize:               8 << 10,
		ReadTimeout:                   o.HeadTimeout,
		IdleTimeout:                   o.IdleTimeout,
		MaxIdleWorkerDuration:         workerIdle,
		Concurrency:                   2*s.crowd.most + maxLingering, // those that go take a moment; the crowd is what bounds
		Logger:                        &complaints{errorf: o.Errorf},
		ConnState:                     s.connState,
		// No WriteTimeout: it would run from the first byte of an answer to its last. See edgeConn.Write.
	}
	s.tls = newTLSEdge(live, o.TLS, o.Meter)
	if o.TLS.HTTP2 {
		s.http.NextProto(protoHTTP2, newH2(s, o).serve)
	}
	s.metrics(o.Meter)
	return s
}

// Serve accepts clients on l until it is closed. Drain must follow.
func (s *Server) Serve(l net.Listener) error {
	s.watch.Do(s.startWatcher)
	if err := s.http.Serve(l); err != nil && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// startWatcher does nothing when the drain, which would end the watcher, is over.
func (s *Server) startWatcher() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return
	}
	w, err := netpoll.NewWatcher()
	if err != nil {
		s.g.errorf("clients that leave are not noticed before something is written to them: %v", err)
	}
	s.watcher.Store(w)
	if w != nil {
		s.startLot()
	}
	s.g.settings.Memory.Start(s.relieve)
}

// Ready returns why no new traffic should come: the service is ending, or refuses requests for want of memory. Nil while it should.
func (s *Server) Ready() error {
	switch {
	case s.g.draining.Load():
		return errors.New("draining")
	case s.g.settings.Memory.Level() == overload.Full:
		return errors.New("out of memory")
	}
	return nil
}

// connState keeps the counts of connections. fasthttp calls it for one connection at a time: from the accept loop for a new one, then
// on the goroutine that serves it.
func (s *Server) connState(nc net.Conn, state fasthttp.ConnState) {
	c := edgeConnOf(nc)
	if c == nil {
		return
	}
	switch {
	case state == fasthttp.StateNew && c.woken:
		return // everything is as it was
	case state == fasthttp.StateClosed && c.parking.Load():
		if s.park(c) {
			return
		}
		_ = nc.Close()
	}
	c.upgraded(nc, state)
	if busy := state == fasthttp.StateActive; busy != c.busy.Load() {
		c.busy.Store(busy)
		if busy {
			s.busy.Add(1)
		} else {
			s.busy.Add(-1)
		}
	}
	switch state {
	case fasthttp.StateNew:
		c.patience, c.pause, c.server = s.patience, s.pause, s
		c.in.mode, c.in.mend, c.in.scan.most = atHead, s.mend, bombLines*s.g.edge.maxLines
		s.watcher.Load().Add(c.Conn, &c.presence)
		s.open.Add(1)
		s.admit(c)
	case fasthttp.StateActive:
		c.rest.Store(s.clock() + int64(giveWay)) // until its head is there
		c.settled.Store(false)
		c.woken = false
	case fasthttp.StateIdle:
		c.rest.Store(s.clock())
		c.settled.Store(true)
		c.answered++
	case fasthttp.StateClosed, fasthttp.StateHijacked:
		s.closed(c)
	}
}

// closed ends what StateNew has begun. Nobody else uses c any more.
func (s *Server) closed(c *edgeConn) {
	s.watcher.Load().Remove(&c.presence)
	c.in.rest = nil
	c.in.release()
	c.in.dropHeld()
	s.gone(c)
	s.open.Add(-1)
}

func (s *Server) metrics(r *meter.Registry) {
	state := func(name string, f func() float64) {
		r.Gauge(meter.Connections, f, meter.Label{Name: "state", Value: name})
	}
	r.Gauge(meter.UpgradedConnections, func() float64 { return float64(s.g.tunnels.Load()) })
	r.Gauge(meter.OverloadLevel, func() float64 { return float64(s.g.settings.Memory.Level()) })
	r.Gauge(meter.MemoryLimit, func() float64 { return float64(s.g.settings.Memory.Limit()) })
	r.Gauge(meter.MemoryUsed, func() float64 { return float64(s.g.settings.Memory.Used()) })
	state("active", func() float64 { return float64(s.open.Load()) })
	state("writing", func() float64 { return float64(max(s.busy.Load(), 0)) })
	state("waiting", func() float64 { return float64(max(s.open.Load()-s.busy.Load(), 0)) })
}

// headReceived runs between head and body: fasthttp is to read no body, and to invite nobody to send one. What the head says of a body is
// in its raw lines, which stay as they are.
func headReceived(h *fasthttp.RequestHeader) fasthttp.RequestConfig {
	if n := h.ContentLength(); n > 0 || n == -1 {
		h.SetContentLength(0)
	}
	if len(h.Peek(fasthttp.HeaderExpect)) > 0 {
		h.Del(fasthttp.HeaderExpect)
	}
	return fasthttp.RequestConfig{}
}

// bodyTime is how long a body of n bytes may take as a whole: the pause that is allowed anyhow, and one second for every KiB. A client
// that never pauses for that long still cannot keep its slot for ever.
func bodyTime(pause time.Duration, n int64) time.Duration {
	const (
		rate    = 1 << 10        // bytes a second
		most    = 8 << 30        // bytes; more seconds than these take would overflow
		longest = 10 * time.Hour // for the pause, so that the sum cannot overflow either
	)
	return min(pause, longest) + time.Duration(min(n, most))*time.Second/rate
}

// refuse answers a request that fasthttp could not read.
func (g *Gateway) refuse(ctx *fasthttp.RequestCtx, err error) {
	f, c := unreadable(err), edgeConnOf(ctx.Conn())
	if c != nil && !c.heard { // it has asked for nothing, so it gets no answer
		_ = c.Close()
		return
	}
	if c != nil && c.in.scan.many {
		f = fault.HeadTooLarge
	}
	if f == fault.HeadTooLarge {
		f = g.edge.tooLarge(c != nil && !c.in.scan.lined)
	}
	x := g.acquire(ctx)
	defer x.recovered()
	raw := ctx.Request.Header.RawHeaders()
	if len(raw) > 0 { // else fasthttp has thrown the head away with what came behind it
		x.describe(ctx)
	}
	g.edge.client(x)
	_ = g.edge.lines(raw, x) // for the log line; the request is refused as it is
	ctx.SetConnectionClose()
	x.Fail(f)
	x.sign()
	x.write()
}

// bombLines times as many lines as a head may have are not parsed any more: a line takes many times its length of memory, which lasts as long
// as the connection. With fewer of them the log still tells what was asked for.
const bombLines = 2

// unreadable is the fault of a request that fasthttp gave up on with err.
func unreadable(err error) *fault.Fault {
	var small *fasthttp.ErrSmallBuffer
	switch {
	case errors.As(err, &small):
		return fault.HeadTooLarge
	case errors.Is(err, fasthttp.ErrBodyTooLarge):
		return fault.BodyTooLarge
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fault.RequestTimeout
	case errors.Is(err, syscall.ECONNRESET):
		return fault.ClientGone
	}
	return fault.BadRequest
}
