package proxy

import (
	"bytes"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"

	"headgate/proxy/fault"
	"headgate/proxy/phase"
	"headgate/proxy/phase/wire"
	"headgate/proxy/upstream"
)

// maxProtocols bounds how many protocols a client may offer at once.
const maxProtocols = 8

// asksUpgrade says whether the request, with these Connection values, properly asks to switch to the protocols in q.Upgrade (RFC 9110
// section 7.8, RFC 6455 section 4.1). A request that does not is answered as if it had not asked at all.
func asksUpgrade(q *phase.Request, connection [][]byte) bool {
	if q.HTTP10 || string(q.Method) != fasthttp.MethodGet || len(q.Body) > 0 || q.Incoming != nil {
		return false
	}
	asked := false
	for _, v := range connection {
		asked = asked || wire.HasToken(v, "upgrade")
	}
	if !asked {
		return false
	}
	list, n := q.Upgrade, 0
	for ; len(list) > 0 && n <= maxProtocols; n++ {
		var p []byte
		if p, list = wire.NextElement(list); !tunnelled(p) {
			return false
		}
	}
	return 0 < n && n <= maxProtocols
}

// tunnelled says whether a protocol (a name, perhaps with a version) may be spoken past the gateway. One that carries more HTTP requests
// may not: no route, plugin or check would see them.
func tunnelled(protocol []byte) bool {
	name, version, versioned := bytes.Cut(protocol, []byte{'/'})
	if !wire.ValidName(name) || versioned && !wire.ValidName(version) {
		return false
	}
	for _, http := range [...]string{"http", "h2c", "h2", "h3", "tls"} {
		if phase.EqualName(name, http) {
			return false
		}
	}
	return true
}

// Ends of a tunnel that are the gateway's doing. Its client has had its 101 by then.
var (
	upgradeIdle    = &fault.Fault{Code: "upgrade_idle", Side: fault.Gateway, Status: 504, Retry: fault.Never}
	upgradeExpired = &fault.Fault{Code: "upgrade_expired", Side: fault.Gateway, Status: 504, Retry: fault.Never}
	// hungUp is an end that is nobody's fault, and counted nowhere.
	hungUp = &fault.Fault{Code: "hung_up", Side: fault.Client, Status: 499, Retry: fault.Never}
)

// tunnel joins a client's connection with an upstream's, after both have switched to a protocol that is none of the gateway's business.
//
// Two goroutines move the bytes, both fasthttp's: the one that it starts for a hijacked connection takes what the client sends, and
// the one that has served the connection so far, which it would otherwise take back, takes what the upstream sends. So a tunnel keeps its
// place among the connections that the server may have.
//
// A direction that ends is closed in the same direction on the other side. Everything but two such ends cuts the tunnel: both sides see a
// reset.
type tunnel struct {
	x      *exchange
	up     *upstream.Tunnel
	client *edgeConn
	head   []byte // the 101

	began    time.Time
	moved    atomic.Int64  // when a byte last moved, since began
	idle     time.Duration // how long none may
	lifetime time.Duration // 0 = for ever
	timer    *time.Timer

	mu    sync.Mutex   // held while the connections are being cut
	cause *fault.Fault // why they were, nil while they were not

	asked          atomic.Bool // the client has ended its direction
	answered       atomic.Bool // the upstream has
	sent, received int64       // bytes of the upstream's and the client's direction, each known to its own goroutine

	down chan struct{} // closed when the upstream's direction has ended
	over chan struct{} // closed when the exchange has ended
}

// switched returns the tunnel that the response is, or nil. What a plugin has turned into another answer is none any more.
func (x *exchange) switched() *upstream.Tunnel {
	r := &x.Response
	up, ok := r.Stream.(*upstream.Tunnel)
	if !ok {
		return nil
	}
	if r.Status != fasthttp.StatusSwitchingProtocols {
		x.closeStream()
		return nil
	}
	r.Header.Del("Upgrade") // a plugin's; the upstream's is in up
	return up
}

// upgrade gives the connection to a tunnel as soon as Handle has returned, and every answer before has been sent.
func (x *exchange) upgrade(up *upstream.Tunnel) {
	h := &x.ctx.Response.Header
	h.Set(fasthttp.HeaderConnection, "Upgrade")
	h.SetBytesV(fasthttp.HeaderUpgrade, up.Protocol())
	x.line = h.AppendBytes(x.line[:0])
	t := &tunnel{
		x: x, up: up, client: x.conn(), head: x.line, began: time.Now(), idle: up.Idle(), lifetime: x.g.lifetime,
		down: make(chan struct{}), over: make(chan struct{}),
	}
	_, first := t.due(0)
	t.timer = time.AfterFunc(time.Hour, t.watch)
	t.timer.Reset(first) // not before watch can find the timer
	x.tunnel, t.client.tunnel = t, t
	t.client.in.mode = passing
	x.g.tunnels.Add(1)
	x.ctx.HijackSetNoResponse(true)
	x.ctx.Hijack(t.ask)
}

// upgraded is told of every state of the connection. The goroutine that has served it carries the tunnel's one direction from here. A
// connection that broke before, when the answers to earlier requests were sent, is closed without a word to anybody else: fasthttp
// does not close the exchange then.
func (c *edgeConn) upgraded(nc net.Conn, state fasthttp.ConnState) {
	t := c.tunnel
	if t == nil {
		return
	}
	switch state {
	case fasthttp.StateHijacked:
		t.answer(nc)
		close(t.down)
		<-t.over
	case fasthttp.StateClosed:
		_ = t.x.Close()
	}
}

// ask is the client's direction. When it returns, fasthttp closes the connection, then the exchange.
func (t *tunnel) ask(client net.Conn) {
	t.forward(client)
	<-t.down
}

// tunnelBuffer is how many bytes of the client are read at once.
const tunnelBuffer = 16 << 10

var tunnelBuffers = sync.Pool{New: func() any { return new([tunnelBuffer]byte) }}

// forward sends the upstream what the client sends, from the first byte behind its request head.
func (t *tunnel) forward(client net.Conn) {
	buf := tunnelBuffers.Get().(*[tunnelBuffer]byte)
	defer tunnelBuffers.Put(buf)
	deaf := false
	for {
		n, err := client.Read(buf[:])
		if n > 0 && !deaf {
			t.touch()
			// An upstream that takes nothing any more may have said something before, which is still to be delivered: the other
			// direction sees what becomes of the connection. What the client has yet to send is passed over until then.
			sent, err := t.up.Write(buf[:n])
			t.received += int64(sent)
			if deaf = err != nil; !deaf {
				t.touch()
			}
		}
		switch {
		case err == nil:
		case errors.Is(err, io.EOF):
			t.asked.Store(true)
			if !deaf {
				_ = t.up.CloseWrite() // likewise
			}
			return
		default:
			t.cut(t.clientFault(err))
			return
		}
	}
}

// answer sends the client the 101 and what the upstream sends.
func (t *tunnel) answer(client net.Conn) {
	if _, err := client.Write(t.head); err != nil {
		t.cut(t.clientFault(err))
		return
	}
	for {
		piece, err := t.up.Next()
		if err == io.EOF {
			t.answered.Store(true)
			if err := closeWrite(client); err != nil {
				t.cut(t.clientFault(err))
			}
			return
		}
		if err != nil {
			t.cut(fault.BodyCut)
			return
		}
		t.touch()
		n, err := client.Write(piece)
		t.sent += int64(n)
		if err != nil {
			t.cut(t.clientFault(err))
			return
		}
		t.touch()
	}
}

// clientFault is what an error of the client's connection counts as: nothing, when the gateway has closed it, or when the client had
// said before that it was done.
func (t *tunnel) clientFault(err error) *fault.Fault {
	if errors.Is(err, net.ErrClosed) || t.asked.Load() {
		return hungUp
	}
	return fault.ClientGone
}

func closeWrite(c net.Conn) error {
	if h, ok := c.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return c.Close()
}

func (t *tunnel) touch() { t.moved.Store(int64(time.Since(t.began))) }

// cut ends both directions at once. The first cause counts. Nobody returns before both connections have been reset: whoever closed one
// earlier would make an orderly end of it.
func (t *tunnel) cut(f *fault.Fault) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.cause == nil {
		t.cause = f
		t.client.abort()
		t.up.Cut()
	}
}

// watch runs when the tunnel may have become too old, or too quiet.
func (t *tunnel) watch() {
	if f, next := t.due(time.Since(t.began)); f != nil {
		t.cut(f)
	} else {
		t.timer.Reset(next)
	}
}

// due says why a tunnel of this age must end now, or when to ask again.
func (t *tunnel) due(age time.Duration) (f *fault.Fault, next time.Duration) {
	next = t.idle - (age - time.Duration(t.moved.Load()))
	switch {
	case t.lifetime > 0 && age >= t.lifetime:
		return upgradeExpired, 0
	case next <= 0 && t.answered.Load(): // the client has got everything, and did not care to say goodbye
		return hungUp, 0
	case next <= 0:
		return upgradeIdle, 0
	case t.lifetime > 0:
		next = min(next, t.lifetime-age)
	}
	return nil, next
}

// settle puts down what the tunnel did, before the exchange ends. Both directions have ended, or never begun.
func (t *tunnel) settle() {
	t.timer.Stop()
	t.client.tunnel = nil
	x := t.x
	x.g.tunnels.Add(-1)
	x.Response.Sent += t.sent
	x.Request.Length += t.received
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.cause != nil && t.cause != hungUp {
		x.raise(t.cause)
	}
}
