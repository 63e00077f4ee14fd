package conf

import (
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Bounds of settings. The upper ones keep a typing error from becoming an outage.
const (
	minHeader, maxHeader = KiB, MiB
	maxHeaderFields      = 10_000
	maxBody              = 16 * GiB
	maxBodyBuffer        = 16 * MiB
	maxLogBuffer         = 64 * MiB
	minMemory, maxMemory = 64 * MiB, 64 << 10 * GiB
	minConfigs           = 1536 * KiB // what every other request of the Admin API may have
	minDNSRefresh        = Duration(time.Second)
	minDNSTTL            = Duration(100 * time.Millisecond)
	maxDNSTTL            = Duration(24 * time.Hour)
	maxKeepaliveAge      = Duration(365 * 24 * time.Hour)
	maxNextNode          = Duration(time.Hour)
	maxDNSStale          = Duration(7 * 24 * time.Hour)
	maxNameServers       = 8
)

// checker collects what is wrong with the values of a decoded Config.
type checker struct {
	c   *Config
	add func(key, msg string)
}

// check calls add for everything that is wrong with c.
func check(c *Config, add func(key, msg string)) {
	k := checker{c: c, add: add}
	k.gateway()
	k.admin()
	k.listeners()
	k.rest()
	k.store()
	k.upstream()
	k.proxyCache()
	for _, l := range c.inline() {
		CheckDocuments(l.Kind, l.List, add)
	}
}

func (k checker) gateway() {
	g := &k.c.Gateway
	if len(g.Listen) == 0 {
		k.add("gateway.listen", `expected at least one address such as "0.0.0.0:9080"`)
	}
	k.oneOf("gateway.router", g.Router, RouterHostURI, RouterURI, RouterURIWithParameter)
	k.size("gateway.max_header_size", g.MaxHeaderSize, minHeader, maxHeader)
	k.number("gateway.max_headers", g.MaxHeaders, 1, maxHeaderFields)
	k.size("gateway.max_body_size", g.MaxBodySize, 1, maxBody)
	k.size("gateway.body_buffer", g.BodyBuffer, 0, maxBodyBuffer)
	k.size("gateway.max_held_body_size", g.MaxHeldBody, KiB, maxBody)
	k.number("gateway.max_connections", g.MaxConnections, 0, 1<<30)
	k.number("gateway.max_connections_per_client", g.MaxPerClient, 0, 1<<30)
	if g.MemoryLimit != 0 {
		k.size("gateway.memory_limit", g.MemoryLimit, minMemory, maxMemory)
	}
	k.positive("gateway.header_timeout", g.HeaderTimeout)
	k.positive("gateway.body_timeout", g.BodyTimeout)
	k.positive("gateway.idle_timeout", g.IdleTimeout)
	if !isHeaderValue(g.ServerHeader) {
		k.add("gateway.server_header", `expected a header value of printable ASCII characters, or "" for the upstream's`)
	}
	k.prefixes("gateway.trusted_addresses", g.TrustedAddresses)
	k.trailers("gateway.request_trailers", g.RequestTrailers)
	k.trailers("gateway.response_trailers", g.ResponseTrailers)
	k.size("gateway.max_post_args_size", g.MaxPostArgsSize, KiB, maxBody)
	k.gatewayTLS()
}

func (k checker) gatewayTLS() {
	t := &k.c.Gateway.TLS
	k.oneOf("gateway.tls.min_version", t.MinVersion, TLS12, TLS13)
	k.positive("gateway.tls.handshake_timeout", t.HandshakeTimeout)
	k.number("gateway.tls.max_handshakes", t.MaxHandshakes, 1, 1<<20)
	if t.FallbackSNI != "" && !namePattern.MatchString(t.FallbackSNI) {
		k.add("gateway.tls.fallback_sni", fmt.Sprintf(`expected the name of a server such as "www.example.com", or "" for none, got %q`, t.FallbackSNI))
	}
	switch {
	case t.CertFile != "" && t.KeyFile == "":
		k.add("gateway.tls.key_file", "expected the path of the key that belongs to gateway.tls.cert_file")
	case t.CertFile == "" && t.KeyFile != "":
		k.add("gateway.tls.cert_file", "expected the path of the certificate that belongs to gateway.tls.key_file")
	}
}

func (k checker) admin() {
	a := &k.c.Admin
	if len(a.Allow) == 0 {
		k.add("admin.allow", `expected at least one address range; write ["0.0.0.0/0", "::/0"] to admit everybody`)
	}
	k.prefixes("admin.allow", a.Allow)
	k.size("admin.max_configs_size", a.MaxConfigsSize, minConfigs, maxBody)
	if a.KeyFile == "" {
		k.add("admin.key_file", "expected the path of a file")
	}
	for i, key := range a.Keys {
		at := indexKey("admin.keys", i)
		if key.Name == "" {
			k.add(at+".name", "expected a name for the log, got none")
		}
		if msg := keyProblem(key.Key); msg != "" {
			k.add(at+".key", msg)
		}
		k.oneOf(at+".role", key.Role, RoleAdmin, RoleViewer)
		for j, other := range a.Keys[:i] {
			if key.Name != "" && key.Name == other.Name {
				k.add(at+".name", fmt.Sprintf("expected a name of its own, %q is also that of %s", key.Name, indexKey("admin.keys", j)))
			}
			if key.Key == other.Key {
				k.add(at+".key", "expected a key of its own, this is also the one of "+indexKey("admin.keys", j))
			}
		}
	}
}

type listener struct {
	key  string
	host netip.Addr // zero = every address
	port uint16
}

// overlaps reports whether the kernel would refuse to open both.
func (l listener) overlaps(o listener) bool {
	if l.port != o.port || l.port == 0 {
		return false
	}
	if !l.host.IsValid() || !o.host.IsValid() || l.host == o.host {
		return true
	}
	// A socket on [::] takes IPv4 too; one on 0.0.0.0 takes IPv4 only.
	any6 := netip.IPv6Unspecified()
	if l.host == any6 || o.host == any6 {
		return true
	}
	any4 := netip.IPv4Unspecified()
	return l.host == any4 && o.host.Is4() || o.host == any4 && l.host.Is4()
}

func (k checker) listeners() {
	var all []listener
	collect := func(enabled bool, key, address string) {
		l, err := parseListen(address)
		if err != nil {
			k.add(key, err.Error())
		}
		if err != nil || !enabled {
			return
		}
		l.key = key
		for _, other := range all {
			if l.overlaps(other) {
				k.addAtEither(l.key, other.key, "expected an address of its own, "+address+" collides with ")
				break
			}
		}
		all = append(all, l)
	}
	for i, address := range k.c.Gateway.Listen {
		collect(true, indexKey("gateway.listen", i), address)
	}
	for i, address := range k.c.Gateway.TLS.Listen {
		collect(true, indexKey("gateway.tls.listen", i), address)
	}
	collect(k.c.Admin.Enabled, "admin.listen", k.c.Admin.Listen)
	collect(k.c.Metrics.Enabled, "metrics.listen", k.c.Metrics.Listen)
	collect(k.c.Control.Enabled, "control.listen", k.c.Control.Listen)
	collect(k.c.Status.Enabled, "status.listen", k.c.Status.Listen)
}

// addAtEither reports a clash of two keys at the one that the file mentions; the other may be a default.
func (k checker) addAtEither(key, other, msg string) {
	if _, ok := k.c.source.lines[key]; !ok {
		if _, ok := k.c.source.lines[other]; ok {
			key, other = other, key
		}
	}
	k.add(key, msg+other)
}

func parseListen(address string) (listener, error) {
	expected := fmt.Errorf(`expected host:port with an IP address, localhost or no host, such as "127.0.0.1:9180" or "[::]:9080", got %q`, address)
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return listener{}, expected
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return listener{}, expected
	}
	l := listener{port: uint16(n)}
	switch host {
	case "":
	case "localhost":
		l.host = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	default:
		if l.host, err = netip.ParseAddr(host); err != nil {
			return listener{}, expected
		}
		l.host = l.host.Unmap()
	}
	return l, nil
}

var (
	versionPattern  = regexp.MustCompile(`^[0-9]+\.[0-9]+\.[0-9]+$`)
	idPattern       = regexp.MustCompile(`^[a-zA-Z0-9_.-]{1,64}$`) // contract section 1.7
	namePattern     = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9_.-]{0,252}[a-zA-Z0-9])?$`)
	fieldPattern    = regexp.MustCompile("^[-!#$%&'*+.^_`|~0-9a-zA-Z]{1,256}$") // RFC 9110 section 5.6.2
	usernamePattern = regexp.MustCompile(`^[a-zA-Z0-9_-]{1,256}$`)              // the same
)

func (k checker) rest() {
	c := k.c
	k.urlPath("metrics.path", c.Metrics.Path)
	k.oneOf("compat.mode", c.Compat.Mode, CompatSafe, CompatAPISIX)
	if !versionPattern.MatchString(c.Compat.APIVersion) {
		k.add("compat.api_version", fmt.Sprintf(`expected a version such as "3.18.0", got %q`, c.Compat.APIVersion))
	}
	k.pluginNames("compat.accept_inert", c.Compat.AcceptInert)
	if c.Audit.Path == "" {
		k.add("audit.path", `expected "stderr", "off" or the path of a file`)
	}
	if c.AccessLog.Path == "" {
		k.add("access_log.path", `expected "stdout", "off" or the path of a file`)
	}
	if c.AccessLog.Format == "" || strings.ContainsAny(c.AccessLog.Format, "\r\n") {
		k.add("access_log.format", "expected a template of one line; the line end is added")
	}
	k.size("access_log.buffer_size", c.AccessLog.BufferSize, KiB, maxLogBuffer)
	k.positive("access_log.flush_interval", c.AccessLog.FlushInterval)
}

func (k checker) upstream() {
	u := &k.c.Upstream
	k.positive("upstream.connect_timeout", u.ConnectTimeout)
	k.duration("upstream.next_node", u.NextNode, 0, maxNextNode)
	k.positive("upstream.send_timeout", u.SendTimeout)
	k.positive("upstream.read_timeout", u.ReadTimeout)
	k.number("upstream.keepalive_size", u.KeepaliveSize, 0, 1<<20)
	k.positive("upstream.keepalive_idle", u.KeepaliveIdle)
	k.number("upstream.keepalive_requests", u.KeepaliveRequests, 1, 1<<30)
	k.duration("upstream.keepalive_age", u.KeepaliveAge, 0, maxKeepaliveAge)
	k.number("upstream.retry_budget", u.RetryBudget, 0, 100)
	k.size("upstream.max_response_header", u.MaxResponseHeader, minHeader, maxHeader)
	if u.DNSRefresh < minDNSRefresh {
		k.add("upstream.dns_refresh", fmt.Sprintf("expected at least %s, got %s", minDNSRefresh, u.DNSRefresh))
	}
	k.nameServers("upstream.dns_servers", u.DNSServers)
	k.duration("upstream.dns_min_ttl", u.DNSMinTTL, minDNSTTL, maxDNSTTL)
	k.duration("upstream.dns_max_ttl", u.DNSMaxTTL, u.DNSMinTTL, maxDNSTTL)
	k.duration("upstream.dns_stale", u.DNSStale, 0, maxDNSStale)
	k.prefixes("upstream.allow_addresses", u.AllowAddresses)
	k.nameServers("discovery.dns.servers", k.c.Discovery.DNS.Servers)
}

// pluginNames checks a list of names of plugins; which plugins there are is known to others.
func (k checker) pluginNames(key string, list []string) {
	for i, name := range list {
		if !idPattern.MatchString(name) {
			k.add(indexKey(key, i), fmt.Sprintf(`expected the name of a plugin such as "opentelemetry", got %q`, name))
		}
	}
}

// ParsePrefix reads a CIDR, or an IP address as the range of that address alone. IPv4 in IPv6 notation becomes IPv4; host bits are
// cleared.
func ParsePrefix(s string) (netip.Prefix, error) {
	if ip, err := netip.ParseAddr(s); err == nil && ip.Zone() == "" {
		ip = ip.Unmap()
		return netip.PrefixFrom(ip, ip.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf(`expected an address range such as "10.0.0.0/8" or an IP address, got %q`, s)
	}
	if ip := p.Addr(); ip.Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(ip.Unmap(), p.Bits()-96)
	}
	return p.Masked(), nil
}

// ParsePrefixes reads a list that Load accepted (admin.allow, gateway.trusted_addresses).
func ParsePrefixes(list []string) ([]netip.Prefix, error) {
	out := make([]netip.Prefix, len(list))
	for i, s := range list {
		p, err := ParsePrefix(s)
		if err != nil {
			return nil, err
		}
		out[i] = p
	}
	return out, nil
}

// ParseNameServer reads an address of a name server; its port is 53 unless the text has one.
func ParseNameServer(s string) (netip.AddrPort, error) {
	if ip, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(s, "["), "]")); err == nil {
		return netip.AddrPortFrom(ip, 53), nil
	}
	if at, err := netip.ParseAddrPort(s); err == nil && at.Port() > 0 {
		return at, nil
	}
	return netip.AddrPort{}, fmt.Errorf(`expected the address of a name server such as "10.0.0.2" or "127.0.0.1:8600", got %q`, s)
}

func (k checker) nameServers(key string, list []string) {
	if len(list) > maxNameServers {
		k.add(key, fmt.Sprintf("expected at most %d name servers, got %d", maxNameServers, len(list)))
	}
	for i, s := range list {
		if _, err := ParseNameServer(s); err != nil {
			k.add(indexKey(key, i), err.Error())
		}
	}
}

func (k checker) duration(key string, d, low, high Duration) {
	if d < low || d > high {
		k.add(key, fmt.Sprintf("expected %s to %s, got %s", low, high, d))
	}
}

func (k checker) prefixes(key string, list []string) {
	for i, s := range list {
		if _, err := ParsePrefix(s); err != nil {
			k.add(indexKey(key, i), err.Error())
		}
	}
}

// trailers: each is the name of a field, or all of them.
func (k checker) trailers(key string, list []string) {
	for i, s := range list {
		if s != "*" && !fieldPattern.MatchString(s) {
			k.add(indexKey(key, i), fmt.Sprintf(`expected the name of a field such as "Server-Timing", or "*" for all, got %q`, s))
		}
	}
}

func (k checker) oneOf(key, value string, options ...string) {
	if !slices.Contains(options, value) {
		k.add(key, fmt.Sprintf(`expected "%s", got %q`, strings.Join(options, `" or "`), value))
	}
}

func (k checker) positive(key string, d Duration) {
	if d <= 0 {
		k.add(key, fmt.Sprintf("expected more than 0s, got %s", d))
	}
}

func (k checker) number(key string, n, low, high int) {
	if n < low || n > high {
		k.add(key, fmt.Sprintf("expected %d to %d, got %d", low, high, n))
	}
}

func (k checker) size(key string, n, low, high Size) {
	if n < low || n > high {
		k.add(key, fmt.Sprintf("expected %s to %s, got %s", low, high, n))
	}
}

func (k checker) urlPath(key, path string) {
	if !strings.HasPrefix(path, "/") || strings.ContainsAny(path, " ?#") || !isHeaderValue(path) {
		k.add(key, fmt.Sprintf(`expected a path such as "/metrics", got %q`, path))
	}
}

func isHeaderValue(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return strings.TrimSpace(s) == s
}
