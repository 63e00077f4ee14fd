package upstream

import (
	"crypto/tls"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"headgate/balancer"
	"headgate/conf/resource"
	"headgate/proxy/fault"
	"headgate/proxy/phase"
	"headgate/proxy/upstream/dns"
	"headgate/proxy/upstream/health"
)

// Defaults fill in what an upstream document leaves open.
type Defaults struct {
	Connect, Send, Read time.Duration
	// NextNode is how long connecting may take while another node is left to ask, for upstreams that set no time of their own. 0: as long as
	// Connect, and a node that cannot be connected is asked again by the next request.
	NextNode time.Duration
	Pool     PoolOptions
	TLS      TLSOptions
	// RetryBudget is how many of 100 requests may be repeated after an endpoint had got them.
	RetryBudget int
	// MaxHead bounds a response head in bytes.
	MaxHead int
	// Lines says which header lines of answers go on.
	Lines AnswerLines
	// NoteUnmade shows an attempt for which there was no node or no time left (phase.Attempts.Unmade).
	NoteUnmade bool
	// KeepUnknownTypes accepts documents of a type that there is not: where there is a choice of nodes, Forward fails. KeepUnservedSchemes
	// accepts schemes other than http and https: Forward fails.
	KeepUnknownTypes, KeepUnservedSchemes bool
	// BareNodeHost leaves the port out of the Host of pass_host "node", but for https.
	BareNodeHost bool
}

// Upstream is a compiled upstream document: endpoints with their pools, the picking rule, the clocks. It is immutable but for the
// counters inside its parts, and serves until Close. One whose nodes are discovered stands for another Upstream at each time (see present).
type Upstream struct {
	name  string
	hub   *Hub
	nodes []*node
	pick  balancer.Picker
	// observer is pick when it learns from response times, else nil.
	observer balancer.Observer
	// hash makes the key of consistent hashing, nil for the other rules.
	hash *hashKey
	// checks are the health checks, nil without any.
	checks *health.Checker

	// limiter bounds what is under way at the nodes, nil without limits. again has the statuses that make another node be asked, nil for none.
	limiter *limiter
	again   *statusSet
	budget  budget
	// resting says that one of the nodes may be away (see rest).
	resting *atomic.Bool
	// anyMethod: what is not safe to repeat is repeated, too.
	anyMethod bool

	clocks
	look         time.Duration // see inviteAfter
	passHost     string
	rewriteHost  []byte
	retries      int
	retryTimeout time.Duration
	maxHead      int
	hasty        time.Duration // Defaults.NextNode
	lines        AnswerLines
	noteUnmade   bool
	// refused is what Forward fails with, nil when it does not; flaw says why, and is set also where it does not matter.
	refused *fault.Fault
	flaw    string

	// names are those of the nodes, each once. watching says that they are kept fresh; nil without names.
	names    []*dns.Name
	watching *atomic.Bool
	// service is where the nodes come from when they are discovered: then the upstream has none of its own, and present has. nil else.
	service *service
	// timed is present with the clocks of this copy; nil unless they are its own.
	timed *atomic.Pointer[timedVersion]
}

type node struct {
	*balancer.Endpoint
	index   int      // in the upstream
	limiter *limiter // of the upstream
	rest
	pool   *Pool
	target *health.Target // nil without health checks
	gate   *balancer.Gate
	addr   string // "host:port" for logs
	host   []byte // the Host of pass_host node
}

// Compile builds doc. prev is the upstream that it replaces, nil if none: picking goes on where prev is. It does no IO; the pools come
// from hub by identity. A document that cannot work is refused with the reason.
func Compile(hub *Hub, doc *resource.Upstream, name string, def Defaults, prev *Upstream) (*Upstream, error) {
	if prev != nil {
		prev = prev.present()
	}
	if doc.ServiceName != "" {
		return compileService(hub, doc, name, def, prev)
	}
	if err := hub.filter.admits(doc.Nodes); err != nil {
		return nil, err
	}
	return compileNodes(hub, doc, name, def, prev)
}

// compileNodes builds an upstream with the nodes of doc.
func compileNodes(hub *Hub, doc *resource.Upstream, name string, def Defaults, prev *Upstream) (*Upstream, error) {
	u := &Upstream{
		name: name, hub: hub, passHost: doc.PassHost, rewriteHost: []byte(doc.UpstreamHost),
		clocks:  clocks{connect: def.Connect, defaultConnect: true, send: def.Send, head: def.Read, read: def.Read}.with(doc.Timeout),
		maxHead: def.MaxHead, hasty: def.NextNode, resting: &atomic.Bool{}, lines: def.Lines, noteUnmade: def.NoteUnmade, look: inviteAfter,
		limiter:      newLimiter(doc.Limits, prev),
		retryTimeout: time.Duration(doc.RetryTimeout * float64(time.Second)),
	}
	https := doc.Scheme == "https"
	if !https && doc.Scheme != "http" {
		err := fmt.Errorf("scheme %s is not supported, expected http or https", doc.Scheme)
		if !def.KeepUnservedSchemes {
			return nil, err
		}
		u.refused, u.flaw = fault.UnservedScheme, err.Error()
	}
	pool := def.Pool
	if k := doc.KeepalivePool; k != nil {
		pool = PoolOptions{Size: k.Size, IdleTimeout: k.IdleTimeout, MaxRequests: k.Requests, MaxAge: pool.MaxAge}
	}
	security := def.TLS
	if t := doc.TLS; t != nil {
		if t.Verify != nil {
			security.Verify = *t.Verify
		}
		if t.ClientCert != "" {
			cert, err := tls.X509KeyPair([]byte(t.ClientCert), []byte(t.ClientKey))
			if err != nil {
				return nil, fmt.Errorf("tls.client_cert: %w", err)
			}
			security.Certificates = []tls.Certificate{cert}
		}
	}
	endpoints := make([]*balancer.Endpoint, 0, len(doc.Nodes))
	for _, n := range doc.Nodes {
		nd := u.newNode(n, https, doc, pool, security)
		if def.BareNodeHost && !https {
			nd.host = []byte(strings.TrimSuffix(nd.addr, ":"+portText(int(nd.Port))))
		}
		nd.index, nd.limiter = len(u.nodes), u.limiter
		endpoints = append(endpoints, nd.Endpoint)
		u.nodes = append(u.nodes, nd)
		if n := nd.pool.dial.name; n != nil && !slices.Contains(u.names, n) {
			u.names = append(u.names, n)
			u.watching = &atomic.Bool{}
		}
	}
	u.inherit(prev)
	u.check(doc, security, prev)
	u.retryRules(doc, def, prev)
	var before balancer.Picker
	if prev != nil {
		before = prev.pick
	}
	var err error
	if u.pick, err = balancer.New(doc.Type, endpoints, before); err != nil && def.KeepUnknownTypes {
		u.flaw = err.Error()
		if u.refused == nil && len(u.nodes) > 1 {
			u.refused = fault.UnknownBalancer
		}
		u.pick, err = balancer.New(balancer.RoundRobin, endpoints, before)
	}
	if err != nil {
		u.Close()
		return nil, err
	}
	u.observer, _ = u.pick.(balancer.Observer)
	if doc.Type == balancer.ConsistHash {
		if u.hash, err = newHashKey(doc.HashOn, doc.Key); err != nil {
			u.Close()
			return nil, err
		}
	}
	return u, nil
}

func (u *Upstream) newNode(n resource.Node, https bool, doc *resource.Upstream, pool PoolOptions, security TLSOptions) *node {
	port, standard := n.Port, 80
	if https {
		standard = 443
	}
	if port == 0 {
		port = standard
	}
	host := n.Host
	nd := &node{
		Endpoint: balancer.NewEndpoint(host, uint16(port), uint64(n.Weight), n.Priority),
		addr:     net.JoinHostPort(host, portText(port)),
	}
	nd.gate = u.hub.gates.Acquire(balancer.Target{Scope: balancer.OfEndpoint, Name: nd.addr})
	nd.Guard(nd.gate)
	nd.host = []byte(strings.TrimSuffix(nd.addr, ":"+portText(standard)))
	// The key tells everything that makes connections differ, so that equal keys may share them.
	key := fmt.Sprintf("%s|%d|%d|%d|%d", nd.addr, pool.Size, pool.IdleTimeout, pool.MaxRequests, pool.MaxAge)
	if https {
		security.ServerName = serverName(doc, host)
		cert := ""
		if doc.TLS != nil {
			cert = doc.TLS.ClientCert
		}
		key = fmt.Sprintf("%s|tls|%q|%t|%s", key, security.ServerName, security.Verify, cert)
	}
	nd.pool = u.hub.acquire(key, func() *Pool {
		d := &dialer{place: u.hub.placeOf(host), host: host, port: portText(port), failed: u.hub.failed}
		if https {
			d.tls = security.config()
		}
		return newPool(key, d, pool)
	})
	return nd
}

// serverName is the name that the endpoint must prove: the Host that the operator has set, else the node's own; of a node that was
// discovered it is the name of the service, as DNS proves nothing. It is never the client's to choose, so that pass_host "pass" counts as
// "node" here.
func serverName(doc *resource.Upstream, node string) string {
	if doc.PassHost != "rewrite" {
		if doc.ServiceName != "" {
			return serviceIdentity(doc.ServiceName)
		}
		return node
	}
	if h, _, err := net.SplitHostPort(doc.UpstreamHost); err == nil {
		return h
	}
	return strings.Trim(doc.UpstreamHost, "[]")
}

// WithTimeout returns a copy of u that shares its endpoints and uses the clocks of t, as a route may set its own. The copy is
// closed with u.
func (u *Upstream) WithTimeout(t *resource.Timeout) *Upstream {
	if t == nil {
		return u
	}
	c := *u
	c.clocks = u.clocks.with(t)
	if u.service != nil {
		c.timed = &atomic.Pointer[timedVersion]{}
	}
	return &c
}

// Close ends the health checks and gives the pools back. Exchanges that are still running keep their connections until they end.
func (u *Upstream) Close() {
	if u.service != nil {
		u.service.close()
		return
	}
	u.Withdraw()
	for _, n := range u.nodes {
		u.hub.release(n.pool)
		n.gate.Release()
	}
}

// Flaw says what in the document is not there to be had, "" when nothing is. It was accepted nevertheless.
func (u *Upstream) Flaw() string { return u.flaw }

// Name implements phase.Upstream.
func (u *Upstream) Name() string { return u.name }

// host returns the Host that the upstream is to see (contract section 3.1, pass_host).
func (u *Upstream) host(x *phase.Exchange, n *node) []byte {
	switch {
	case len(x.Request.OutHost) > 0:
		return x.Request.OutHost
	case u.passHost == "node":
		return n.host
	case u.passHost == "rewrite":
		return u.rewriteHost
	}
	return x.Request.Authority
}
