package resource

import (
	"encoding/json"
	"time"
)

// Route is a route with its defaults applied (contract section 1.7). Absent strings are empty, absent lists and maps are nil.
type Route struct {
	ID, Name, Desc string
	Labels         map[string]string
	URIs           []string // uri or uris
	Hosts          []string // host or hosts
	Methods        []string // empty: every method
	RemoteAddrs    []string // addresses and networks; remote_addr or remote_addrs
	Priority       int      // higher wins; default 0
	Vars           json.RawMessage
	Status         int      // 1 serves (default), 0 does not
	Plugins        []Plugin // sorted by name
	Upstream       *Upstream
	// References; empty when absent. Numbers are given as their decimal text.
	UpstreamID, ServiceID, PluginConfigID string
	Timeout                               *Timeout
	EnableWebsocket                       *bool // nil: as the service says
	// Headgate's own: on_client_abort is "finish". What was asked of the upstream is read to its end although the client has left.
	FinishAborted bool
	// Lua, which Validate refuses; set only on documents that were never validated.
	FilterFunc, Script string
}

// Service is a service with its defaults applied (contract section 1.7).
type Service struct {
	ID, Name, Desc  string
	Labels          map[string]string
	Hosts           []string
	Plugins         []Plugin // sorted by name
	Upstream        *Upstream
	UpstreamID      string
	EnableWebsocket *bool
	Script          string // see Route.Script
}

// Plugin is the configuration of one plugin, as compact JSON with sorted keys: equal configurations have equal bytes.
type Plugin struct {
	Name string
	Conf json.RawMessage
	// Value is Conf decoded. It is not to be changed.
	Value map[string]any
}

// Upstream is an upstream with its defaults applied (contract section 3.1).
type Upstream struct {
	ID, Name, Desc string
	Labels         map[string]string
	Type           string // default "roundrobin"; any other word is possible
	HashOn         string // default "vars"
	Key            string
	Nodes          []Node // in the order of the list; of the map form, sorted by address
	Scheme         string // default "http"
	PassHost       string // "pass" (default), "node", "rewrite"
	UpstreamHost   string
	Retries        *int           // nil: one try per other node
	RetryTimeout   float64        // seconds; 0: no limit
	Timeout        *Timeout       // nil: the gateway's default
	Retry          *Retry         // nil when absent
	Limits         *Limits        // nil: none
	KeepalivePool  *KeepalivePool // nil: the gateway's default
	TLS            *TLS
	Checks         *Checks // nil when absent
	// ServiceName stands in the place of Nodes: the name by which DiscoveryType knows them. Without it DiscoveryType has no meaning.
	ServiceName, DiscoveryType string
}

// Node is one server of an upstream.
type Node struct {
	Host     string // name or address; IPv6 without brackets
	Port     int    // 0: the default port of the scheme
	Weight   int64  // 0 to 2^53
	Priority int    // higher groups are used first; default 0
}

// Timeout holds the clocks of an attempt, each at least a millisecond. The last four are Headgate's own, and 0 when they are not set.
type Timeout struct {
	Connect, Send, Read time.Duration
	Handshake           time.Duration // of TLS; 0: Connect has to do for both
	Head                time.Duration // until the head of the answer is there; 0: as Read
	FirstContent        time.Duration // until the first byte of the body, or the first event with content; 0: as Read
	Total               time.Duration // of all attempts together, until the last byte of the answer; 0: no limit
}

// Retry says what else than a failure is tried at another node, and how often. It is Headgate's own.
type Retry struct {
	Statuses []int // of answers, sorted
	Budget   *int  // percent of the requests; nil: the gateway's default
	// NonIdempotent: a request whose method is not safe to repeat is tried at another node as well after one had got it and failed.
	NonIdempotent bool
}

// Limits bound what each node of an upstream is given at a time. They are Headgate's own.
type Limits struct {
	Inflight     int // requests
	Queue        int // requests that wait when no node can take them; default 0
	QueueTimeout time.Duration
}

// KeepalivePool sizes the pool of idle connections to an upstream.
type KeepalivePool struct {
	Size        int           // default 320
	IdleTimeout time.Duration // default 60 s; 0: never closed for idleness
	Requests    int           // per connection, default 1000
}

// TLS is the client side of connections to an upstream. ClientKey is a secret: never log it.
type TLS struct {
	ClientCert, ClientKey string // PEM
	ClientCertID          string
	Verify                *bool // nil: not said
}

// Checks are the health checks of an upstream (contract section 3.4).
type Checks struct {
	Active  *ActiveChecks  // nil only on documents that were never validated
	Passive *PassiveChecks // nil when absent
	// SlowStart is how long the share of a server that has recovered grows to the whole of its weight; default 0, at once. It is
	// Headgate's own: checks.slow_start, in seconds.
	SlowStart time.Duration
}

// ActiveChecks say how the servers are probed. http_method and http_req_body are accepted and have no effect: every probe is a GET.
type ActiveChecks struct {
	Type        string        // "http" (default), "https", "tcp"
	Timeout     time.Duration // of a whole probe, default 1 s
	Concurrency int           // probes at a time, 1 to 1000, default 10
	Host        string        // for Host and SNI
	Port        int           // 0: the server's own
	Path        string        // default "/"; visible ASCII
	Verify      bool          // https_verify_certificate, default true
	Headers     []string      // "Name: value", each one valid line
	Healthy     Report        // default: 200 and 302, 2 successes, every second
	Unhealthy   Report        // default: 429, 404 and 500 to 505, 5 HTTP failures, 2 TCP failures, 3 timeouts, every second
}

// PassiveChecks say what is concluded from the answers to requests. A direction that is nil is not watched.
type PassiveChecks struct {
	Healthy   *Report // default: 200 to 208, 226 and 300 to 308, 5 successes
	Unhealthy *Report // default: 429, 500 and 503, 5 HTTP failures, 2 TCP failures, 7 timeouts
}

// Report is one direction of the checks: what counts, and how often it has to be seen before the verdict changes. A limit of 0 switches
// its counter off.
type Report struct {
	Interval                            time.Duration // between two probes; active only
	Statuses                            []int
	Successes                           int // of the healthy direction
	HTTPFailures, TCPFailures, Timeouts int // of the unhealthy direction
}
