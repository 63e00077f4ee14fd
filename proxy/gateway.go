package proxy

import (
	"io"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"

	"headgate/proxy/accesslog"
	"headgate/proxy/fault"
	"headgate/proxy/meter"
	"headgate/proxy/phase"
	"headgate/proxy/route"
	"headgate/proxy/snapshot"
	"headgate/proxy/vars"
)

// Gateway is the request path. Read Handle downwards; everything it calls is a leaf.
type Gateway struct {
	live     *snapshot.Live
	settings phase.Settings
	edge     edge
	log      *accesslog.Writer
	format   *vars.Template
	server   []byte // the Server header of answers; empty lets the upstream's pass
	errorf   func(format string, args ...any)

	pool     sync.Pool
	nextID   atomic.Uint32
	draining atomic.Bool

	requests *meter.Counter
	panics   *meter.Counter
	faults   map[*fault.Fault]*meter.Counter // filled once, read only
}

// exchange is a phase.Exchange with what only the engine needs.
type exchange struct {
	phase.Exchange
	g     *Gateway
	ctx   *fasthttp.RequestCtx
	snap  *snapshot.Snapshot
	shard uint32

	route     *snapshot.Route
	query     route.Query
	hostport  []byte
	hostBuf   [2 * route.MaxHost]byte // what Host and hostport are made in
	forwarded forwarded
	body      bodyReader
	line      []byte
}

// exchangeKey files the exchange under its request, which fasthttp closes when the answer has been written, whatever became of it.
const exchangeKey = "headgate.exchange"

// Handle serves one request: phases, attempts, answer. The body of the answer leaves after Handle has returned; Close ends the
// exchange.
func (g *Gateway) Handle(ctx *fasthttp.RequestCtx) {
	x := g.acquire(ctx)
	ctx.SetUserValue(exchangeKey, x)
	defer x.recovered()
	g.requests.Inc()
	if f := g.edge.read(ctx, x); f != nil {
		ctx.SetConnectionClose() // where this request ends is not certain
		x.Fail(f)
		x.write()
		return
	}
	g.edge.vouch(x)
	if x.request() == phase.Continue {
		x.forward()
	}
	x.Respond()
	x.write()
}

// request finds the route and runs the request phases. Stop says that the answer has been decided.
func (x *exchange) request() phase.Verdict {
	q := &x.query
	q.Host, q.HostPort, q.Path = x.Request.Host, x.hostport, x.Request.Path
	q.Method, q.Remote = route.MethodBit(x.Request.Method), x.Client.Addr
	r, ok := x.snap.Find(q, x, &x.Match)
	if !ok {
		x.Fault = fault.NoRoute
		x.AnswerError(fault.NoRoute.Status, "404 Route Not Found")
		return phase.Stop
	}
	x.route, x.Route = r, &r.Route
	if r.Upstream != nil { // an interface that holds a nil pointer would not be nil
		x.Upstream = r.Upstream
	}
	x.Branch = r.Branch
	x.Enter(nil, r.Chain, r.Slots)
	if x.Rewrite(false) == phase.Stop {
		return phase.Stop
	}
	return x.Access(false)
}

// Accept implements route.Filter: the route's own vars.
func (x *exchange) Accept(r *snapshot.Route) bool { return r.Vars == nil || r.Vars.True(&x.Exchange) }

// forward sends the exchange to its upstream.
func (x *exchange) forward() {
	r := x.route
	if x.Upstream == nil {
		x.Fail(firstFault(r.Missing, fault.NoUpstream))
		return
	}
	if r.Upstream == x.Upstream && r.Count != nil {
		r.Count.Inc()
	}
	if len(x.Request.OutTarget) == 0 {
		x.Request.OutTarget = x.Commit(x.g.edge.appendTarget(x.Arena(), &x.Request))
	}
	if f := x.Upstream.Forward(&x.Exchange); f != nil {
		x.Fail(f)
	}
	if s := x.Response.Status; x.Attempts.Count > 0 && (s >= 500 || x.g.settings.AlwaysUpstreamStatus) {
		x.Response.Header.Set(nameUpstreamStatus, x.Commit(x.Attempts.AppendStatuses(x.Arena())))
	}
}

var nameUpstreamStatus = []byte("X-APISIX-Upstream-Status")

func firstFault(a, b *fault.Fault) *fault.Fault {
	if a != nil {
		return a
	}
	return b
}

// write hands the response to fasthttp.
func (x *exchange) write() {
	r, out := &x.Response, &x.ctx.Response
	if x.Fault != nil {
		x.g.count(x.Fault)
	}
	out.SetStatusCode(r.Status)
	h := &out.Header
	for _, f := range r.Header.Fields() {
		h.AddBytesKV(f.Name, f.Value)
	}
	if len(x.g.server) > 0 {
		h.SetServerBytes(x.g.server)
	}
	if x.g.draining.Load() {
		h.SetConnectionClose()
	}
	if r.Stream == nil && x.HasChunkers() {
		body, err := x.Chunk(r.Body, true)
		if err != nil {
			x.Response.Body, body = nil, nil
			x.ctx.SetConnectionClose()
		}
		r.Body, r.HeadLength = body, -1
	}
	switch {
	case r.Stream != nil:
		size := r.Size
		if x.HasChunkers() {
			size = -1 // what the plugins make of it cannot be known
		}
		x.body = bodyReader{x: x, size: size}
		out.ImmediateHeaderFlush = true
		out.SetBodyStream(&x.body, int(size))
	case string(x.Request.Method) == fasthttp.MethodHead:
		if r.HeadLength >= 0 {
			h.SetContentLength(int(r.HeadLength))
		} else if len(r.Body) > 0 {
			h.SetContentLength(len(r.Body))
		}
		out.SkipBody = true
	default:
		out.SetBodyRaw(r.Body)
		r.Sent = int64(len(r.Body))
	}
}

// bodyReader is how fasthttp reads a response body that is still arriving.
type bodyReader struct {
	x     *exchange
	size  int64 // -1 when it is not known
	piece []byte
	last  bool
}

// Read delivers what the upstream has sent, no more than one piece at a time, so that every piece is flushed as it comes. An error
// other than io.EOF makes fasthttp drop the connection without the end of the body: the client sees that the answer was cut.
func (b *bodyReader) Read(p []byte) (int, error) {
	for len(b.piece) == 0 {
		if b.last {
			return 0, io.EOF
		}
		if err := b.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, b.piece)
	b.piece = b.piece[n:]
	b.x.Response.Sent += int64(n)
	return n, nil
}

// next fetches a piece and passes it through the chunk plugins.
func (b *bodyReader) next() error {
	piece, err := b.x.Response.Stream.Next()
	if err != nil && err != io.EOF {
		if f, ok := err.(*fault.Fault); ok {
			b.x.Fault = f
			b.x.g.count(f)
		}
		return err
	}
	b.last = err == io.EOF
	b.piece, err = b.x.Chunk(piece, b.last)
	return err
}

// SupportsBodyWriteTo says whether WriteTo may be used: when the length was announced, there is no chunk framing to add.
func (b *bodyReader) SupportsBodyWriteTo() bool { return b.size >= 0 }

// WriteTo sends a body of known length. fasthttp has flushed the head (ImmediateHeaderFlush) and would collect the body in its
// buffer; to let every piece leave as it comes, the pieces go straight to the connection.
func (b *bodyReader) WriteTo(io.Writer) (int64, error) {
	conn := b.x.ctx.Conn()
	var sent int64
	for {
		if len(b.piece) == 0 {
			if b.last {
				return sent, nil
			}
			if err := b.next(); err != nil {
				return sent, err
			}
			continue
		}
		n, err := conn.Write(b.piece)
		sent += int64(n)
		b.x.Response.Sent += int64(n)
		b.piece = b.piece[n:]
		if err != nil {
			return sent, err
		}
	}
}

// Close gives the upstream's connection back, or drops it when the body was not read to its end.
func (b *bodyReader) Close() error {
	b.x.closeStream()
	return nil
}

func (x *exchange) closeStream() {
	if s := x.Response.Stream; s != nil {
		x.Response.Stream = nil
		s.Close()
	}
}

// Close ends the exchange: the done phase, the log line, the pin, the pool. fasthttp calls it exactly once, after the last byte or
// the last error.
func (x *exchange) Close() error {
	g := x.g
	x.closeStream()
	x.Finish(g.panicked)
	if g.log != nil && x.ctx != nil {
		line, _ := g.format.Append(x.line[:0], logSource{&x.Exchange})
		x.line = append(line, '\n')
		g.log.Write(x.shard, x.line)
	}
	x.snap.Unpin(x.shard)
	x.Reset()
	x.snap, x.route, x.ctx, x.hostport, x.forwarded, x.body = nil, nil, nil, nil, forwarded{}, bodyReader{}
	x.query = route.Query{}
	g.pool.Put(x)
	return nil
}

func (g *Gateway) acquire(ctx *fasthttp.RequestCtx) *exchange {
	x, _ := g.pool.Get().(*exchange)
	if x == nil {
		x = &exchange{g: g, shard: g.nextID.Add(1)}
	}
	x.ctx = ctx
	x.Start = time.Now()
	x.ConnRequests = ctx.ConnRequestNum()
	x.Request.TLS = ctx.IsTLS()
	x.snap = g.live.Pin(x.shard)
	x.Begin(&g.settings)
	return x
}

// recovered turns a panic of a plugin into a 500 for this request alone.
func (x *exchange) recovered() {
	r := recover()
	if r == nil {
		return
	}
	x.g.panicked(r)
	x.closeStream()
	x.ctx.Response.Reset()
	x.ctx.SetConnectionClose()
	x.Response.Header.Reset()
	x.Fail(fault.Panic)
	x.write()
}

func (g *Gateway) panicked(r any) {
	g.panics.Inc()
	g.errorf("panic on the request path: %v\n%s", r, debug.Stack())
}

func (g *Gateway) count(f *fault.Fault) {
	if c := g.faults[f]; c != nil {
		c.Inc()
	}
}
