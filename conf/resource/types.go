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
	KeepalivePool  *KeepalivePool // nil: the gateway's default
	TLS            *TLS
	Checks         json.RawMessage // nil when absent
	// Discovery, which Validate refuses in this version.
	ServiceName, DiscoveryType string
}

// Node is one server of an upstream.
type Node struct {
	Host     string // name or address; IPv6 without brackets
	Port     int    // 0: the default port of the scheme
	Weight   int64  // 0 to 2^53
	Priority int    // higher groups are used first; default 0
}

// Timeout holds the three clocks of an attempt, each at least a millisecond.
type Timeout struct {
	Connect, Send, Read time.Duration
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
