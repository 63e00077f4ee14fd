package phase

import (
	"net/netip"
	"time"

	"headgate/balancer"
	"headgate/proxy/expr"
	"headgate/proxy/fault"
	"headgate/proxy/netpoll"
	"headgate/proxy/overload"
	"headgate/proxy/route"
)

// Exchange is one request and its answer, from the first header byte to the last body byte. It comes from a pool: no plugin may keep
// it, or any bytes it lends, after Done. It belongs to one goroutine at a time.
type Exchange struct {
	Request  Request
	Response Response
	Client   Client
	Consumer Consumer

	// Route is the matched route, nil when none matched. Match holds what the router learned: the pattern and its parameters.
	Route *Route
	// Registry has the consumers of the exchange's snapshot.
	Registry Registry
	Match    route.Match

	// Upstream is where the exchange will be sent; the engine sets the route's own before the access phase, a split replaces it.
	Upstream Upstream
	// Branch names the choice of a split, or the upstream when there was none to make.
	Branch string
	// Decision is how the last split came to Branch. Revision is that of the configuration that serves the exchange.
	Decision Decision
	Revision uint64
	// Attempts tells what has been tried so far.
	Attempts Attempts

	// Presence tells when the client has left, for whoever waits on its behalf; nil when that makes no difference.
	Presence *netpoll.Presence
	// Stage is what the exchange was waiting for when its client left; it is set by who has found that out.
	Stage Stage
	// Informer takes the interim answers (1xx) that the upstream gives before its answer; nil when the client knows none.
	Informer Informer

	// Start is the wall and monotonic time at which the head was complete.
	Start time.Time
	// Fault is why the exchange failed, nil while it has not.
	Fault *fault.Fault
	// ConnRequests is the number of this request on its connection, from 1.
	ConnRequests uint64
	// Scratch holds the buffers of vars expressions.
	Scratch expr.Scratch

	// Wire holds the bytes as they travel: the request head being sent, the response as it was read.
	Wire struct{ Out, In []byte }

	settings  *Settings
	principal *Principal
	global    *Chain
	chain     *Chain // of the route
	// own and group are the chains of the consumer and its group once Join has brought them in.
	own, group *Chain
	joined     bool
	stopped    bool
	done       bool
	watches    [balancer.Scopes]watch
	chunking   uint8   // see HasChunkers
	passing    bool    // passed is not empty
	passed     kindSet // see PassOver
	slots      [slotClasses][]Slot
	arena      []byte
	held       []byte // what HoldBody has collected
	captures   [][]byte
	id         requestID
	clock      localTime
}

// Settings are the facts of the process that an exchange answers with.
type Settings struct {
	Version    string // of Headgate
	APIVersion string // of the APISIX that is imitated
	Hostname   string
	// AlwaysUpstreamStatus adds X-APISIX-Upstream-Status to every proxied answer, not only to 5xx (contract section 1.11).
	AlwaysUpstreamStatus bool
	// HTTPSPort is where clients reach the gateway over TLS, 0 when they do not.
	HTTPSPort uint16
	// MaxHeldBody is the longest request body in bytes that is held in memory for a plugin which needs it whole.
	MaxHeldBody int
	// Memory is asked before a held body gets more room; nil when there is no limit.
	Memory *overload.Monitor
	// MaxPostArgs is the longest body in bytes in which post_arg variables are looked for; 0 leaves it at what the body room bears.
	MaxPostArgs int
}

// Request is what goes to the upstream, and what came in where the two differ. Plugins change the Out fields and Header.
type Request struct {
	// Method, RawPath, Query (without "?") and Authority are as the client sent them.
	Method, RawPath, Query, Authority []byte
	// Path is the one canonical path that was matched: decoded once, dots resolved, slashes merged.
	Path []byte
	// Host is Authority in lower case, without port.
	Host []byte
	// HTTP10 says that the client speaks HTTP/1.0.
	HTTP10 bool
	// HTTP2 says that it speaks HTTP/2.
	HTTP2 bool
	// TLS says that the client came over TLS.
	TLS bool
	// Length is the size of the head and the body in bytes.
	Length int64
	// Body is what is held of the request body: all of it, unless Incoming is set. Whoever needs the whole body asks HoldBody or
	// TryHold first.
	Body []byte
	// Incoming delivers what follows Body, nil when nothing does.
	Incoming Incoming
	// Trailers are the lines behind Body that may go on, each with CRLF, once all of the body is held; nil when there are none. A request
	// with trailers goes out in chunks. Announced is the list of names that the client has announced, as far as they may go on.
	Trailers, Announced []byte
	// TakesTrailers says that the client takes what is behind the body of an answer (TE: trailers, RFC 9110 section 10.1.4).
	TakesTrailers bool
	// Unbuffered: a body that has not come with its head passes as it comes, however short it is.
	Unbuffered bool
	// Spent says that a part of Incoming is on its way to an upstream, so that the request cannot be sent again.
	Spent bool
	// Broken is why the body cannot be had whole, nil as long as nothing speaks against it.
	Broken *fault.Fault
	// Header has the end-to-end lines to forward: no Host, no framing, nothing hop-by-hop.
	Header Header
	// ContentType is the client's.
	ContentType []byte
	// Upgrade is the list of protocols that the client asks to switch to (RFC 9110 section 7.8), nil when it does not, or when the route
	// lets nobody switch.
	Upgrade []byte

	// OutMethod, OutTarget and OutHost, when not empty, replace the client's method, the request target (path and query, already
	// escaped) and the Host that the upstream sees.
	OutMethod, OutTarget, OutHost []byte
}

// Response is the answer on its way to the client.
type Response struct {
	Status int
	// Header has the end-to-end lines, without Content-Length, Transfer-Encoding, Connection, Date and Server.
	Header Header
	// Body is the whole body, or, when Stream is set, unused.
	Body []byte
	// Stream delivers the body piece by piece; Size is its length in bytes, -1 when only the end tells.
	Stream Stream
	Size   int64
	// Trailers are the fields behind the body.
	Trailers Trailers
	// HeadLength is the Content-Length that a HEAD answer or a 304 announced, -1 when it did not.
	HeadLength int64
	// Source says who made the answer: the upstream, a plugin ("apisix"), or the gateway because proxying failed ("nginx").
	Source Source
	// Sent is the number of body bytes handed to the client's connection so far.
	Sent int64
}

// Trailers are the fields behind the body of an upstream's answer (RFC 9110 section 6.5). They are no header lines, and never become any.
type Trailers struct {
	// Announced has the names, without values, that the upstream's head promises.
	Announced Header
	// Fields are those that have come: all of them once the body is complete.
	Fields Header
}

// Drop forgets them: they belong to a body that is not going to be sent.
func (t *Trailers) Drop() {
	t.Announced.Reset()
	t.Fields.Reset()
}

// Source of an answer, by the names that the contract's metrics use (section 3.3).
type Source uint8

const (
	FromPlugin Source = iota
	FromGateway
	FromUpstream
)

func (s Source) String() string {
	switch s {
	case FromUpstream:
		return "upstream"
	case FromGateway:
		return "nginx"
	default:
		return "apisix"
	}
}

// Stream is a response body that is still arriving. Next returns the next piece, valid until the following call; io.EOF after the
// last one, or the *fault.Fault that cut it. Close gives the connection back or throws it away; it is called exactly once.
type Stream interface {
	Next() ([]byte, error)
	Close()
}

// Informer passes interim answers on to the client (RFC 9110 section 15.2).
type Informer interface {
	// Inform sends one now. Its lines are end-to-end ones, valid until it returns. 100 and 101 have ways of their own.
	Inform(status int, lines []Field)
}

// Waiter is a Stream that knows whether there is something to deliver.
type Waiter interface {
	Stream
	// Waits says that Next would have to wait for the upstream. An error counts as something, and so does the end.
	Waits() bool
}

// Client is who sent the request.
type Client struct {
	// Addr and Text are the client's address after real-ip rules; Port belongs to it (0 when it is not known).
	Addr netip.Addr
	Text []byte
	Port uint16
	// Peer and PeerText are the other end of the TCP connection, whatever headers say.
	Peer     netip.Addr
	PeerText []byte
	// Trusted says that Peer is among the trusted addresses, whose forwarding headers are believed.
	Trusted bool
	// ServerAddr and ServerPort are our end of the connection.
	ServerAddr []byte
	ServerPort uint16
}

// Consumer is who the request was authenticated as; empty when nobody was.
type Consumer struct {
	Name, Group, CredentialID string
	// CustomID is the consumer's label custom_id.
	CustomID string
	// Labels are read only; nil without any.
	Labels map[string]string
}

// Stage is what an exchange waits for.
type Stage uint8

const (
	// InAttempt: for an upstream that has been asked. It is what nothing else was noted for.
	InAttempt Stage = iota
	// InPlugin: for a delay, or for somebody whom a plugin asks.
	InPlugin
	// InQueue: for an endpoint that can take one more.
	InQueue
	// InConnect: for a connection to an endpoint: its address, the dial, the TLS handshake.
	InConnect
)

// maxStatuses bounds how many attempts leave their status in headers and logs.
const maxStatuses = 8

// Attempts is the history of the attempt loop.
type Attempts struct {
	// Addr ("host:port") and Node (host) are of the last endpoint tried; empty when none was.
	Addr, Node string
	// NodePort is its port.
	NodePort uint16
	// Count is the number of attempts; statuses and addrs have the outcomes and endpoints of the first few.
	Count    int
	statuses [maxStatuses]uint16
	addrs    [maxStatuses]string
	// Unmade says that one more attempt was due and is shown, although there was no node or no time for it.
	Unmade bool
	// Tried marks the endpoints of the present upstream that were tried.
	Tried balancer.Tried
	// AllRest says that nobody who was left to ask could be connected of late: who is asked next is not looked for any longer.
	AllRest bool
	// Informed counts the interim answers that were there for the client, InformedBytes their bytes as long as it was given any.
	Informed, InformedBytes int
	// Begun, Connected, Head and End are offsets from Exchange.Start: of the first attempt, and of the last one's connection, response
	// head and last body byte, or failure. Zero means that it did not come to that.
	Begun, Connected, Head, End time.Duration
}

// Note records the outcome of one attempt: a status of the upstream, or the one its failure stands for; 0 when it was ended because of the
// client.
func (a *Attempts) Note(status int) {
	if a.Count < maxStatuses {
		a.statuses[a.Count], a.addrs[a.Count] = uint16(status), a.Addr
	}
	a.Count++
}

// Statuses returns the noted outcomes, first to last.
func (a *Attempts) Statuses() []uint16 { return a.statuses[:min(a.Count, maxStatuses)] }

// Route is what plugins, logs and metrics may know of the matched route. It is immutable.
type Route struct {
	ID, Name              string
	ServiceID, ServiceKey string
	ServiceName           string
	// Key is the store key, "routes/1".
	Key string
	// Compiled is the engine's own form of the route.
	Compiled any
}

// Settings returns the facts of the process.
func (x *Exchange) Settings() *Settings { return x.settings }

// Keep copies b into the exchange, so that it can be handed to Header.Add and the Out fields.
func (x *Exchange) Keep(b []byte) []byte {
	start := len(x.arena)
	x.arena = append(x.arena, b...)
	return x.arena[start:len(x.arena):len(x.arena)]
}

// Arena returns the exchange's append buffer: append to it and pass the result to Commit. Between the two nothing else may be kept:
// no Keep, no Answer, no second Arena.
func (x *Exchange) Arena() []byte { return x.arena }

// Commit keeps what was appended to the buffer that Arena returned and returns just that part.
func (x *Exchange) Commit(extended []byte) []byte {
	start := len(x.arena)
	x.arena = extended
	return extended[start:len(extended):len(extended)]
}

// SetCaptures makes the groups of a regular expression available to templates as $1, $2, ... (group 0 is the whole match).
func (x *Exchange) SetCaptures(groups [][]byte) { x.captures = append(x.captures[:0], groups...) }

// Capture returns group i, nil when there is none.
func (x *Exchange) Capture(i int) []byte {
	if i < 0 || i >= len(x.captures) {
		return nil
	}
	return x.captures[i]
}

// Elapsed is the time since Start.
func (x *Exchange) Elapsed() time.Duration { return time.Since(x.Start) }

// Begin makes x ready for a new exchange.
func (x *Exchange) Begin(s *Settings) {
	x.settings = s
	x.Response.Size, x.Response.HeadLength = -1, -1
}

// Enter sets the chains that the exchange runs through: that of the global rules and that of the route, either may be nil. It may be
// called again when the route becomes known; slots keep their content.
func (x *Exchange) Enter(global, chain *Chain) {
	x.global, x.chain = global, chain
	x.reserve(global)
	x.reserve(chain)
}

// maxKept bounds the memory, in bytes, that one buffer of a resting exchange holds on to.
const maxKept = 64 << 10

// Reset gives back everything the exchange borrowed and empties it, keeping its buffers.
func (x *Exchange) Reset() {
	x.Request.Header.Reset()
	x.Response.Header.Reset()
	x.Response.Trailers.Drop()
	for i := range x.slots {
		clear(x.slots[i])
		x.slots[i] = x.slots[i][:0]
	}
	clear(x.captures[:cap(x.captures)])
	next := Exchange{
		Scratch:  x.Scratch,
		slots:    x.slots,
		arena:    emptied(x.arena),
		held:     emptied(x.held),
		captures: x.captures[:0],
		clock:    x.clock,
	}
	next.Wire.Out, next.Wire.In = emptied(x.Wire.Out), emptied(x.Wire.In)
	next.Request.Header, next.Response.Header = x.Request.Header, x.Response.Header
	next.Response.Trailers = x.Response.Trailers
	*x = next
}

// emptied returns b without content, or nothing when it has grown too large to be kept.
func emptied(b []byte) []byte {
	if cap(b) > maxKept {
		return nil
	}
	return b[:0]
}

// Sleep delays the exchange, as limits and injected faults do. Stop says that the client has left meanwhile: the exchange has ended with that.
func (x *Exchange) Sleep(d time.Duration) Verdict {
	if d <= 0 {
		return Continue
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return Continue
	case <-x.Presence.Context().Done():
		return x.Abandon(InPlugin)
	}
}

// Abandon ends an exchange whose client has left while it waited in the stage.
func (x *Exchange) Abandon(during Stage) Verdict {
	x.Stage = during
	x.Fail(fault.ClientGone)
	return Stop
}
