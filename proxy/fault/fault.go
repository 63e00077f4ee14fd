// Package fault is the error type of the request path: whose fault it was, what the client is told, and whether another attempt
// is allowed. Faults are package constants, so that raising one allocates nothing; what differs per occurrence (the endpoint,
// the system's error text) is kept by the exchange.
package fault

// Side says who broke the exchange.
type Side uint8

const (
	Client Side = iota
	Gateway
	Upstream
)

func (s Side) String() string {
	switch s {
	case Client:
		return "client"
	case Gateway:
		return "gateway"
	default:
		return "upstream"
	}
}

// Retry is the class that decides whether the attempt loop may go on (contract section 3.2).
type Retry uint8

const (
	// Never: the answer has begun, or another attempt cannot help.
	Never Retry = iota
	// Unsent: no byte of the request has left, so any method may be tried on another endpoint.
	Unsent
	// Sent: the request may have been executed; only methods that are safe to repeat go to another endpoint.
	Sent
)

// Fault is one kind of failure. Values are compared by pointer and never modified.
type Fault struct {
	Code   string // stable name: metrics label, log field
	Side   Side
	Status int // what the client gets when no attempt succeeds
	Retry  Retry
}

func (f *Fault) Error() string { return f.Side.String() + ": " + f.Code }

// Faults of the edge: what the client sent cannot be forwarded.
var (
	BadRequest       = &Fault{"bad_request", Client, 400, Never}
	BadPath          = &Fault{"bad_path", Client, 400, Never}
	BadHost          = &Fault{"bad_host", Client, 400, Never}
	BadFraming       = &Fault{"bad_framing", Client, 400, Never}
	BadVersion       = &Fault{"bad_version", Client, 505, Never}
	MethodNotAllowed = &Fault{"method_not_allowed", Client, 405, Never}
	HeadTooLarge     = &Fault{"head_too_large", Client, 431, Never}
	BodyTooLarge     = &Fault{"body_too_large", Client, 413, Never}
	RequestTimeout   = &Fault{"request_timeout", Client, 408, Never}
	ClientGone       = &Fault{"client_gone", Client, 499, Never}
)

// Faults of the gateway itself.
var (
	NoRoute         = &Fault{"no_route", Gateway, 404, Never}
	NoUpstream      = &Fault{"no_upstream", Gateway, 503, Never}
	NoEndpoint      = &Fault{"no_endpoint", Gateway, 503, Never}
	MissingUpstream = &Fault{"missing_upstream", Gateway, 502, Never}
	MissingService  = &Fault{"missing_service", Gateway, 404, Never}
	// MissingPluginConfig and MissingGroup: without its plugins a route would let through more than its author meant.
	MissingPluginConfig = &Fault{"missing_plugin_config", Gateway, 503, Never}
	MissingGroup        = &Fault{"missing_consumer_group", Gateway, 503, Never}
	UnknownNode         = &Fault{"unknown_node_address", Gateway, 503, Unsent}
	// RefusedNode: the node has no address that may be dialled.
	RefusedNode   = &Fault{"refused_node_address", Gateway, 503, Unsent}
	AllTried      = &Fault{"all_endpoints_tried", Gateway, 502, Never}
	RetryDeadline = &Fault{"retry_deadline", Gateway, 502, Never}
	// Quarantined: an operator has shut the route, or all that it could send to.
	Quarantined = &Fault{"quarantined", Gateway, 503, Never}
	Panic       = &Fault{"panic", Gateway, 500, Never}
	// EndpointsBusy: every endpoint has as much under way as it may, and the queue is full or was waited in for too long.
	EndpointsBusy    = &Fault{"endpoints_busy", Gateway, 503, Never}
	NoUpstreamSocket = &Fault{"no_upstream_socket", Gateway, 503, Never}
)

// Faults of an attempt.
var (
	ConnectFailed  = &Fault{"connect_failed", Upstream, 502, Unsent}
	ConnectTimeout = &Fault{"connect_timeout", Upstream, 504, Unsent}
	TLSTimeout     = &Fault{"tls_timeout", Upstream, 504, Unsent}
	// TLSFailed is every failed handshake but those of the faults behind it, whose causes operators mend in different places.
	TLSFailed    = &Fault{"tls_failed", Upstream, 502, Unsent}
	TLSExpired   = &Fault{"tls_certificate_expired", Upstream, 502, Unsent} // or not valid yet
	TLSWrongName = &Fault{"tls_certificate_name", Upstream, 502, Unsent}
	TLSUntrusted = &Fault{"tls_certificate_authority", Upstream, 502, Unsent} // signed by nobody who is trusted
	TLSVersion   = &Fault{"tls_version", Upstream, 502, Unsent}
	SendFailed   = &Fault{"send_failed", Upstream, 502, Sent}
	SendTimeout  = &Fault{"send_timeout", Upstream, 504, Sent}
	// ClosedBeforeHead: the upstream closed or reset the connection before a single response byte.
	ClosedBeforeHead = &Fault{"closed_before_head", Upstream, 502, Sent}
	HeadTimeout      = &Fault{"head_timeout", Upstream, 504, Sent}
	BadHead          = &Fault{"bad_head", Upstream, 502, Never}
	HeadCut          = &Fault{"head_cut", Upstream, 502, Sent}
	// BodyCut: the body ended before its framing said so. The client must see a broken answer, never a complete one.
	BodyCut     = &Fault{"body_cut", Upstream, 502, Never}
	BadBody     = &Fault{"bad_body", Upstream, 502, Never}
	ReadTimeout = &Fault{"read_timeout", Upstream, 504, Never}
	// FirstContentTimeout: a head, and perhaps signs of life, but nothing of the answer.
	FirstContentTimeout = &Fault{"first_content_timeout", Upstream, 504, Never}
	// TotalTimeout: the exchange as a whole took longer than its upstream may.
	TotalTimeout = &Fault{"total_timeout", Upstream, 504, Never}
)

// All returns every fault, for tables made at start.
func All() []*Fault {
	return []*Fault{
		BadRequest, BadPath, BadHost, BadFraming, BadVersion, MethodNotAllowed, HeadTooLarge, BodyTooLarge, RequestTimeout, ClientGone,
		NoRoute, NoUpstream, NoEndpoint, MissingUpstream, MissingService, MissingPluginConfig, MissingGroup, UnknownNode, RefusedNode, AllTried, RetryDeadline,
		Quarantined, Panic, EndpointsBusy, NoUpstreamSocket,
		ConnectFailed, ConnectTimeout, TLSTimeout, TLSFailed, TLSExpired, TLSWrongName, TLSUntrusted, TLSVersion,
		SendFailed, SendTimeout, ClosedBeforeHead, HeadTimeout, BadHead, HeadCut, BodyCut,
		BadBody, ReadTimeout, FirstContentTimeout, TotalTimeout,
	}
}
