package proxy

import (
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"

	"headgate/proxy/accesslog"
	"headgate/proxy/fault"
	"headgate/proxy/meter"
	"headgate/proxy/overload"
	"headgate/proxy/phase"
	"headgate/proxy/phase/wire"
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
	mask     bool          // what is secret in a line
	lifetime time.Duration // of a tunnel; 0 = for ever
	server   []byte        // the Server header of answers; empty lets the upstream's pass
	charset  bool          // see addCharset
	trailers trailers      // that may follow answers
	buffer   int           // the longest request body that is collected before it is sent on
	errorf   func(format string, args ...any)

	pool     sync.Pool
	nextID   atomic.Uint32
	draining atomic.Bool
	tunnels  atomic.Int64 // open ones

	requests *meter.Counter
	panics   *meter.Counter
	aborts   aborts
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
	length    int64          // of the request body as the head has it: -1 = chunked
	waits     bool           // the client waits before it sends the body
	incoming  phase.Incoming // the body that was not there with the head; nil = it was, or there is none
	passed    bool           // the upstream has got it to read
	escaped   []byte         // what goes out for Request.Path, when it is not that path escaped
	body      body
	tunnel    *tunnel // what the connections have become, nil on all but upgraded ones
	tail      bool    // the body is written in Close, where only the end of the connection ends it
	altered   bool    // a plugin has sent on something else than what the upstream has sent
	broken    bool    // a plugin has panicked: no chunk plugin is asked any more
	line      []byte
}

// exchangeKey files the exchange under its request, which fasthttp closes when the answer has been written, whatever became of it.
const exchangeKey = "headgate.exchange"

// Handle serves one request: phases, attempts, answer. The body of the answer leaves after Handle has returned; Close ends the
// exchange.
func (g *Gateway) Handle(ctx *fasthttp.RequestCtx) {
	x := g.acquire(ctx)
	defer x.recovered()
	x.works()
	if f := g.edge.read(ctx, x); f != nil {
		ctx.SetConnectionClose() // where this request ends is not certain
		x.Fail(f)
		x.sign()
		x.write()
		return
	}
	g.edge.vouch(x)
	if g.settings.Memory.Level() == overload.Full {
		x.Fail(fault.Overloaded)
		x.sign()
		x.write()
		return
	}
	if x.request() == phase.Continue {
		x.forward()
	}
	x.dropBody()
	x.sign()
	x.Respond()
	x.write()
}

// request finds the route and runs the request phases. Stop says that the answer has been decided.
func (x *exchange) request() phase.Verdict {
	q := &x.query
	q.Host, q.HostPort, q.Path = x.Request.Host, x.hostport, x.Request.Path
	q.Method, q.Remote = route.MethodBit(x.Request.Method), x.Client.Addr
	if f := x.challenge(); f != nil {
		x.Fail(f)
		return phase.Stop
	}
	global := x.snap.Global()
	r, ok := x.snap.Find(q, x, &x.Match)
	if !ok || !r.Finish {
		x.Presence = x.presence()
	}
	if x.Request.Broken != nil { // what there was to be known of the body is not
		x.Fail(x.Request.Broken)
		return phase.Stop
	}
	if !ok || x.g.edge.unmatched(x) {
		return x.unrouted(global)
	}
	x.route, x.Route = r, &r.Route
	if !r.Upgrade || x.conn() == nil {
		x.Request.Upgrade = nil
	}
	if r.Upstream != nil { // an interface that holds a nil pointer would not be nil
		x.Upstream = r.Upstream
	}
	x.Branch = r.Branch
	x.Enter(global, r.Chain)
	if x.RewriteGlobal() == phase.Stop {
		return phase.Stop
	}
	if r.Incomplete != nil {
		x.Fail(r.Incomplete)
		return phase.Stop
	}
	if g := r.Guard(); g != nil {
		if wait := g.Quarantined(); wait > 0 {
			x.AnswerLater(fault.Quarantined, wait)
			return phase.Stop
		}
	}
	if x.Rewrite() == phase.Stop || x.join() == phase.Stop || x.AccessGlobal() == phase.Stop {
		return phase.Stop
	}
	return x.Access()
}

// unrouted answers what no route matches. The global rules run all the same (contract section 2.6).
func (x *exchange) unrouted(global *phase.Chain) phase.Verdict {
	x.Enter(global, nil)
	if x.RewriteGlobal() == phase.Continue && x.AccessGlobal() == phase.Continue {
		x.Fault = fault.NoRoute
		x.AnswerError(fault.NoRoute.Status, "404 Route Not Found")
	}
	return phase.Stop
}

// join brings in the plugins of the consumer, when somebody was authenticated.
func (x *exchange) join() phase.Verdict {
	p := x.Principal()
	if p == nil {
		return phase.Continue
	}
	var group *phase.Chain
	if p.Group != "" {
		var ok bool
		if group, ok = x.snap.Group(p.Group); !ok {
			x.Fail(fault.MissingGroup)
			return phase.Stop
		}
	}
	return x.Join(group)
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
	if r.Upstream == x.Upstream && x.Branch == r.Branch && r.Count != nil { // else the split has counted it
		r.Count.Inc(&x.Exchange)
	}
	if len(x.Request.OutTarget) == 0 {
		x.Request.OutTarget = x.Commit(x.g.edge.appendTarget(x.Arena(), x))
	}
	if x.Request.Incoming != nil && !x.buffered() {
		return
	}
	if !x.Request.HTTP10 {
		x.Informer = x
	}
	mine := x.Response.Header.Len() // what is behind comes from the upstream
	f := x.Upstream.Forward(&x.Exchange)
	x.Settle()
	if f != nil {
		x.Fail(f)
	} else if x.Response.Source == phase.FromUpstream {
		if x.g.charset {
			addCharset(&x.Exchange)
		}
		x.Receive(mine)
	}
	asked := x.Attempts.Count > 0 && f != fault.UnknownNode && f != fault.RefusedNode // else there was nobody to be asked
	if s := x.Response.Status; asked && (s >= 500 || x.g.settings.AlwaysUpstreamStatus) {
		x.Response.Header.Set(nameUpstreamStatus, x.Commit(x.Attempts.AppendStatuses(x.Arena())))
	}
}

// buffered collects a short request body, so that it can be sent more than once. false says that it has failed to come; a long one is
// left where it is.
func (x *exchange) buffered() bool {
	q := &x.Request
	if limit := x.g.buffer; !q.Unbuffered && q.Broken == nil && q.Incoming.Announced() <= int64(limit) {
		x.TryHold(limit)
	}
	if q.Broken != nil {
		x.Fail(q.Broken)
		return false
	}
	x.passed = q.Incoming != nil
	return true
}

// dropBody ends the use of a request body of which not all is here: nobody waits for it any more once the answer is decided.
func (x *exchange) dropBody() {
	if q := &x.Request; q.Incoming != nil {
		q.Incoming, q.Body = nil, nil
	}
}

// leftover says that there is a part of the request body which will never be read, so that the connection ends with the answer.
func (x *exchange) leftover() bool {
	in, ok := x.incoming.(*intake)
	switch {
	case !ok:
		return false
	case x.passed: // it may still be passing
		return in.pending.Load() || in.c.Interrupted()
	}
	return in.pending.Load() && in.wasted()
}

var nameUpstreamStatus = []byte("X-APISIX-Upstream-Status")

func firstFault(a, b *fault.Fault) *fault.Fault {
	if a != nil {
		return a
	}
	return b
}

var nameServer = []byte("Server")

// sign names the gateway in the answer, whoever made it. Plugins that work on answers may change that.
func (x *exchange) sign() {
	if len(x.g.server) > 0 {
		x.Response.Header.Set(nameServer, x.g.server)
	}
}

// write hands the response to fasthttp.
func (x *exchange) write() {
	r, out := &x.Response, &x.ctx.Response
	h := &out.Header
	up := x.switched()
	whole := r.Stream == nil && !x.bodiless()
	if whole && x.chunked() {
		x.chunkWhole()
	}
	if x.Fault != nil {
		x.g.count(x.Fault)
		if x.Fault == fault.Overloaded {
			x.RetryAfter(overloadWait)
		}
		if x.left() {
			h.SetConnectionClose()
		}
	}
	out.SetStatusCode(r.Status)
	for _, f := range r.Header.Fields() {
		switch {
		case framesResponse(f.Name) && !x.announces(f):
		case len(h.ContentEncoding()) > 0 && phase.EqualName(f.Name, fasthttp.HeaderContentEncoding): // h has room for one line of codings
			h.SetContentEncodingBytes(x.Commit(append(append(append(x.Arena(), h.ContentEncoding()...), ", "...), f.Value...)))
		default:
			h.AddBytesKV(f.Name, f.Value)
		}
	}
	if x.g.leaving() || x.dismissed() || x.incoming != nil && x.leftover() {
		h.SetConnectionClose()
	}
	switch {
	case up != nil:
		x.upgrade(up)
	case whole && r.Trailers.Fields.Len() > 0 && x.trails():
		x.streamHeld()
	case whole:
		out.SetBodyRaw(r.Body)
		r.Sent = int64(len(r.Body))
	case r.Stream != nil:
		x.stream()
	default:
		out.SkipBody = true
		x.announce()
	}
}

// overloadWait is when to come back to a gateway that has no memory left.
const overloadWait = time.Second

// leaving says that clients are to go when they have their answers.
func (g *Gateway) leaving() bool {
	return g.draining.Load() || g.settings.Memory.Level() != overload.Calm
}

// bodiless: these answers have no body, whatever their framing says (RFC 9112 section 6.3).
func (x *exchange) bodiless() bool {
	s := x.Response.Status
	return string(x.Request.Method) == fasthttp.MethodHead || s == 204 || s == 304
}

// announce gives an answer to HEAD the length of the body that GET would have got, if that is known.
func (x *exchange) announce() {
	r, h := &x.Response, &x.ctx.Response.Header
	switch {
	case string(x.Request.Method) != fasthttp.MethodHead || x.chunked():
	case r.HeadLength >= 0:
		h.SetContentLength(int(r.HeadLength))
	case len(r.Body) > 0:
		h.SetContentLength(len(r.Body))
	}
}

// framesResponse: the lines that say where the answer ends, and its Date, are the gateway's own, whatever a plugin has set.
func framesResponse(name []byte) bool {
	switch len(name) {
	case 4:
		return phase.EqualName(name, "date")
	case 7:
		return phase.EqualName(name, "trailer")
	case 10:
		return phase.EqualName(name, "connection") || phase.EqualName(name, "keep-alive")
	case 14:
		return phase.EqualName(name, "content-length")
	case 17:
		return phase.EqualName(name, "transfer-encoding")
	}
	return false
}

// announces says that f is a Trailer line that can go on as it came. No trailers follow it: fasthttp would take the lines that it names out
// of the head for them, so it names none that are there.
func (x *exchange) announces(f phase.Field) bool {
	if t := &x.Response.Trailers; !x.g.edge.passHops || t.Announced.Len()+t.Fields.Len() > 0 || x.Request.HTTP2 || !phase.EqualName(f.Name, "trailer") || wire.HasToken(f.Value, "server") {
		return false
	}
	for _, other := range x.Response.Header.Fields() {
		if wire.HasToken(f.Value, string(other.Name)) {
			return false
		}
	}
	return true
}

// Close ends the exchange: the done phase, the log line, the pin, the pool. fasthttp calls it exactly once, after the last byte or
// the last error.
func (x *exchange) Close() error {
	if t := x.tunnel; t != nil {
		t.settle()
		defer close(t.over)
	}
	defer x.abandoned()
	g := x.g
	if x.tail {
		x.writeTail()
	}
	x.closeStream()
	x.account()
	x.Finish(g.panicked)
	if g.log != nil {
		source := vars.Source(logSource{&x.Exchange})
		if g.mask {
			source = maskedSource{logSource{&x.Exchange}}
		}
		line, _ := g.format.Append(x.line[:0], source)
		x.line = append(line, '\n')
		g.log.Write(x.shard, x.line)
	}
	x.unpin()
	x.Reset()
	if c := x.conn(); c != nil {
		c.in.release()
	}
	x.route, x.ctx, x.hostport, x.forwarded, x.body, x.escaped = nil, nil, nil, forwarded{}, body{}, nil
	x.length, x.waits, x.incoming, x.passed = 0, false, nil, false
	x.tunnel, x.tail, x.altered, x.broken = nil, false, false, false
	x.query = route.Query{}
	g.pool.Put(x)
	return nil
}

// account adds what has come of the body to the length of the request. Nobody reads it any more.
func (x *exchange) account() {
	switch b := x.incoming.(type) {
	case *intake:
		x.Request.Length += b.body.took
	case *h2Body:
		x.Request.Length += b.took
	}
}

// abandoned keeps a panic at the end of one exchange from ending the process. What is left of the exchange is not used again.
func (x *exchange) abandoned() {
	if r := recover(); r != nil {
		x.unpin()
		x.g.panicked(r)
	}
}

// unpin lets go of the snapshot, once.
func (x *exchange) unpin() {
	if s := x.snap; s != nil {
		x.snap = nil
		s.Unpin(x.shard)
	}
}

func (g *Gateway) acquire(ctx *fasthttp.RequestCtx) *exchange {
	x, _ := g.pool.Get().(*exchange)
	if x == nil {
		x = &exchange{g: g, shard: g.nextID.Add(1)}
	}
	x.ctx = ctx
	x.Start = time.Now()
	x.ConnRequests = ctx.ConnRequestNum()
	if c := x.conn(); c != nil {
		x.ConnRequests += c.before
	}
	x.Request.TLS = ctx.IsTLS()
	x.snap = g.live.Pin(x.shard)
	x.Begin(&g.settings)
	x.Registry, x.Revision = x.snap, x.snap.Revision
	ctx.SetUserValue(exchangeKey, x)
	g.requests.Inc()
	return x
}

// conn is the client's connection, nil when it did not come from a Listener.
func (x *exchange) conn() *edgeConn { return edgeConnOf(x.ctx.Conn()) }

// recovered turns a panic of a plugin into a 500 for this request alone.
func (x *exchange) recovered() {
	r := recover()
	if r == nil {
		return
	}
	x.g.panicked(r)
	x.broken = true
	x.closeStream()
	out := &x.ctx.Response
	out.Reset()
	out.Header.DisableNormalizing()
	out.Header.SetNoDefaultContentType(true)
	out.SetConnectionClose()
	x.Response.Header.Reset()
	x.Fail(fault.Panic)
	x.sign()
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
