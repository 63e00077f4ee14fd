package upstream

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"headgate/conf/resource"
	"headgate/proxy/fault"
	"headgate/proxy/phase"
	"headgate/proxy/upstream/dns"
)

// DiscoveryOptions say how the nodes of upstreams with a discovery_type are found.
type DiscoveryOptions struct {
	// DNS knows the services of discovery_type "dns"; its Changed is Hub.Discovered. nil: they are not configured. The hub closes it.
	DNS *dns.Resolver
	// Store says that upstreams whose discovery is not configured are accepted; they have no nodes.
	Store bool
	// Logf gets a line when the nodes of an upstream become others; nil drops it.
	Logf func(format string, args ...any)
}

// Discover makes the upstreams that are compiled from now on find their nodes; it is called once, before the first one.
func (h *Hub) Discover(o DiscoveryOptions) {
	h.discovery, h.undiscovered = o.DNS, o.Store
	if o.Logf != nil {
		h.logf = o.Logf
	}
}

// Discovered says that a service may have other servers.
func (h *Hub) Discovered() {
	select {
	case h.news <- struct{}{}:
	default:
	}
}

// News has something to read when UpdateNodes has something to do.
func (h *Hub) News() <-chan struct{} { return h.news }

// UpdateNodes gives upstreams in force the nodes that their services have now. It must not run beside Compile, Publish or Withdraw: all of
// them are the config goroutine's.
func (h *Hub) UpdateNodes() {
	h.mu.Lock()
	services := make([]*service, 0, len(h.services))
	for s := range h.services {
		services = append(services, s)
	}
	h.mu.Unlock()
	for _, s := range services {
		s.update()
	}
}

// Services lists what is known of the services that upstreams use, sorted by name; nil without a discovery.
func (h *Hub) Services() []dns.Known {
	if h.discovery == nil {
		return nil
	}
	return h.discovery.Known()
}

// service is where the nodes of an upstream come from that are discovered. The upstream and its copies with other clocks share it.
type service struct {
	hub  *Hub
	name *dns.Name // nil when the discovery is not configured
	port int       // that the document gives to all nodes; 0: as DNS says, else that of the scheme
	doc  resource.Upstream
	as   string // the name of the upstream
	def  Defaults

	version atomic.Pointer[Upstream]
	known   chan struct{} // closed when the first question has been answered, in whatever way

	mu        sync.Mutex  // of what follows; Close does not come from the config goroutine
	shown     *dns.Answer // what version was made of
	key       string      // of the document, once it is in force
	published bool
	withdrawn bool
	closed    bool
}

// timedVersion is a version and the copy of it with other clocks.
type timedVersion struct{ of, with *Upstream }

// compileService builds an upstream whose nodes doc leaves to a service. It has those that are known already.
func compileService(hub *Hub, doc *resource.Upstream, name string, def Defaults, prev *Upstream) (*Upstream, error) {
	host, port := splitService(doc.ServiceName)
	s := &service{hub: hub, doc: *doc, as: name, def: def, port: port, known: make(chan struct{})}
	if why := hub.unknownService(doc.DiscoveryType, host); why == "" {
		s.name = hub.discovery.Name(host)
		s.shown = s.name.Answer()
	} else if !hub.undiscovered {
		return nil, errors.New(why)
	}
	if s.name == nil || s.shown != nil {
		close(s.known)
	}
	v, err := s.compile(prev)
	if err != nil {
		s.release()
		return nil, err
	}
	s.version.Store(v)
	return &Upstream{name: name, hub: hub, service: s, clocks: v.clocks}, nil
}

// unknownService says why nobody can be asked for the servers of a service, "" when somebody can.
func (h *Hub) unknownService(kind, host string) string {
	switch {
	case kind != "dns":
		return fmt.Sprintf("discovery_type %q is not supported, expected \"dns\"; or list the servers in 'nodes': host names are resolved", kind)
	case h.discovery == nil:
		return "discovery_type \"dns\" needs name servers: set servers of [discovery.dns] in the configuration file; or list the servers in 'nodes': host names are resolved"
	case host == "":
		return "service_name has no name"
	}
	return ""
}

// splitService splits "name:port"; port is 0 when there is none.
func splitService(text string) (name string, port int) {
	host, number, err := net.SplitHostPort(text)
	if err != nil {
		return text, 0
	}
	n, err := strconv.ParseUint(number, 10, 16)
	if err != nil {
		return text, 0
	}
	return host, int(n)
}

// serviceIdentity returns the name that servers of a service must prove: without port, and without the labels of an SRV record in front
// (RFC 6125 section 6.2.1).
func serviceIdentity(service string) string {
	host, _ := splitService(service)
	for strings.HasPrefix(host, "_") {
		_, rest, more := strings.Cut(host, ".")
		if !more {
			break
		}
		host = rest
	}
	return strings.TrimSuffix(host, ".")
}

// compile builds the version with the nodes of shown.
func (s *service) compile(prev *Upstream) (*Upstream, error) {
	doc := s.doc
	doc.Nodes = s.nodes()
	return compileNodes(s.hub, &doc, s.as, s.def, prev)
}

// nodes returns the servers of shown, each address and port once.
func (s *service) nodes() []resource.Node {
	if s.shown == nil {
		return nil
	}
	at := make(map[netip.AddrPort]int, len(s.shown.Records))
	nodes := make([]resource.Node, 0, len(s.shown.Records))
	for i := range s.shown.Records { // those of high priority come first
		r := &s.shown.Records[i]
		port := s.port
		if port == 0 {
			port = int(r.Port)
		}
		key := netip.AddrPortFrom(r.Addr, uint16(port))
		if n, twice := at[key]; twice {
			if nodes[n].Priority == r.Priority {
				nodes[n].Weight += int64(min(r.Weight, math.MaxUint32))
			}
			continue
		}
		at[key] = len(nodes)
		nodes = append(nodes, resource.Node{Host: r.Addr.String(), Port: port, Weight: int64(min(r.Weight, 1<<53)), Priority: r.Priority})
	}
	return nodes
}

// update puts the version with the present nodes in the place of the last one. Exchanges that have begun end with the nodes that they have.
func (s *service) update() {
	s.mu.Lock()
	defer s.mu.Unlock()
	answer := s.name.Answer()
	if s.closed || answer == nil || answer == s.shown {
		return
	}
	first, before := s.shown == nil, s.version.Load()
	s.shown = answer
	if first {
		defer close(s.known)
	}
	if s.withdrawn {
		defer s.forget()
	}
	if len(answer.Records) == 0 && len(before.nodes) == 0 {
		return
	}
	v, err := s.compile(before)
	if err != nil { // not for what DNS says: the document compiled before
		s.hub.logf("%s: the nodes of %s: %v", s.key, s.name, err)
		return
	}
	s.version.Store(v)
	if !s.withdrawn {
		v.Publish(s.key)
		s.hub.logf("%s: %s has %d nodes now%s", s.key, s.name, len(v.nodes), changes(before, v))
	}
	before.Close()
}

// changes is a few of the nodes that came and went, for the log.
func changes(before, after *Upstream) string {
	const most = 10
	var b strings.Builder
	n := 0
	list := func(sign string, from, without *Upstream) {
		had := make(map[string]bool, len(without.nodes))
		for _, node := range without.nodes {
			had[node.addr] = true
		}
		for _, node := range from.nodes {
			if had[node.addr] {
				continue
			}
			if n++; n <= most {
				b.WriteString(" " + sign + node.addr)
			}
		}
	}
	list("+", after, before)
	list("-", before, after)
	switch {
	case n > most:
		fmt.Fprintf(&b, " and %d more", n-most)
	case n == 0:
		return ", with other weights"
	}
	return ":" + b.String()
}

func (s *service) publish(key string) {
	s.mu.Lock()
	s.key = key
	s.version.Load().Publish(key)
	if s.name == nil || s.published {
		s.mu.Unlock()
		return
	}
	s.published = true
	s.hub.mu.Lock()
	s.hub.services[s] = struct{}{}
	s.hub.mu.Unlock()
	s.name.Watch()
	s.mu.Unlock()
	s.update() // what was learned since it was compiled
}

// withdraw ends the updates. Exchanges may still wait for the first one, so that one comes.
func (s *service) withdraw() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.withdrawn = true
	s.version.Load().Withdraw()
	if s.shown != nil {
		s.forget()
	}
}

// forget takes s out of what is updated. The lock is held.
func (s *service) forget() {
	if !s.published {
		return
	}
	s.published = false
	s.hub.mu.Lock()
	delete(s.hub.services, s)
	s.hub.mu.Unlock()
	s.name.Unwatch()
}

func (s *service) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.closed = true
	s.forget()
	s.version.Load().Close()
	s.release()
}

func (s *service) release() {
	if s.name != nil {
		s.name.Release()
	}
}

// present returns the upstream that serves now: u, or when its nodes are discovered the version of it that has them.
func (u *Upstream) present() *Upstream {
	if u.service == nil {
		return u
	}
	v := u.service.version.Load()
	if u.timed == nil {
		return v
	}
	if t := u.timed.Load(); t != nil && t.of == v {
		return t.with
	}
	with := *v
	with.clocks = u.clocks
	u.timed.Store(&timedVersion{v, &with})
	return &with
}

// settled is present, when it is known whether there are nodes. Only the exchanges of the first moments wait for that. A fault says that
// there are none.
func (u *Upstream) settled(x *phase.Exchange) (*Upstream, *fault.Fault) {
	if u.service != nil {
		select {
		case <-u.service.known:
		default:
			wait := time.NewTimer(u.left(x, u.connect))
			defer wait.Stop()
			select {
			case <-u.service.known:
			case <-wait.C:
			case <-x.Presence.Context().Done():
				x.Stage = phase.InConnect
				return nil, fault.ClientGone
			}
		}
		u = u.present()
	}
	if len(u.nodes) == 0 {
		return nil, fault.NoEndpoint
	}
	return u, nil
}

// Undiscovered says that the nodes of u are left to a discovery that is not configured, so that it has none.
func (u *Upstream) Undiscovered() bool { return u.service != nil && u.service.name == nil }
