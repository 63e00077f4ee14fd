package resource

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

func upstreamFrom(doc map[string]any) (*Upstream, error) {
	f := fields{doc: doc}
	u := &Upstream{
		ID: f.id("id"), Name: f.text("name"), Desc: f.text("desc"), Labels: f.labels(),
		Type:          f.textOr("type", "roundrobin"),
		HashOn:        f.textOr("hash_on", "vars"),
		Key:           f.text("key"),
		Nodes:         f.nodes(),
		Scheme:        f.textOr("scheme", "http"),
		PassHost:      f.textOr("pass_host", "pass"),
		UpstreamHost:  f.text("upstream_host"),
		RetryTimeout:  f.seconds("retry_timeout", 0),
		Timeout:       f.timeout(),
		KeepalivePool: f.keepalivePool(),
		TLS:           f.tls(),
		ServiceName:   f.text("service_name"), DiscoveryType: f.text("discovery_type"),
	}
	if _, ok := doc["retries"]; ok {
		n := f.integer("retries", 0)
		u.Retries = &n
	}
	u.Retry, u.Limits = f.retry(), f.limits()
	u.Checks = f.checks()
	return u, f.err
}

func (f *fields) retry() *Retry {
	sub := f.object("retry")
	if sub == nil {
		return nil
	}
	r := &Retry{}
	for _, v := range sub.list("statuses") {
		status, ok := toInt(v)
		if !ok {
			sub.fail("statuses", "an array of statuses")
		}
		r.Statuses = append(r.Statuses, int(status))
	}
	slices.Sort(r.Statuses)
	if _, ok := sub.doc["budget"]; ok {
		n := sub.integer("budget", 0)
		r.Budget = &n
	}
	if v := sub.boolean("non_idempotent"); v != nil {
		r.NonIdempotent = *v
	}
	f.adopt(sub)
	return r
}

func (f *fields) limits() *Limits {
	sub := f.object("limits")
	if sub == nil {
		return nil
	}
	l := &Limits{
		Inflight: sub.integer("inflight", 0), Queue: sub.integer("queue", 0), QueueTimeout: duration(sub.seconds("queue_timeout", 1)),
	}
	f.adopt(sub)
	return l
}

func (f *fields) keepalivePool() *KeepalivePool {
	sub := f.object("keepalive_pool")
	if sub == nil {
		return nil
	}
	k := &KeepalivePool{
		Size:        sub.integer("size", 320),
		IdleTimeout: duration(sub.seconds("idle_timeout", 60)),
		Requests:    sub.integer("requests", 1000),
	}
	f.adopt(sub)
	return k
}

func (f *fields) tls() *TLS {
	sub := f.object("tls")
	if sub == nil {
		return nil
	}
	t := &TLS{
		ClientCert: sub.text("client_cert"), ClientKey: sub.text("client_key"),
		ClientCertID: sub.id("client_cert_id"),
		Verify:       sub.boolean("verify"),
	}
	f.adopt(sub)
	return t
}

func (f *fields) nodes() []Node {
	v, ok := f.doc["nodes"]
	if !ok {
		return nil
	}
	var nodes []Node
	var err error
	switch v := v.(type) {
	case map[string]any:
		nodes, err = nodesFromMap(v)
	case []any:
		nodes, err = nodesFromList(v)
	default:
		f.fail("nodes", "an object or an array")
	}
	if err != nil && f.err == nil {
		f.err = fmt.Errorf("%snodes: %w", f.path, err)
	}
	return nodes
}

func nodesFromMap(m map[string]any) ([]Node, error) {
	nodes := make([]Node, 0, len(m))
	for _, addr := range sortedKeys(m) {
		host, port, err := splitNode(addr)
		if err != nil {
			return nil, err
		}
		weight, ok := nodeWeight(m[addr])
		if !ok {
			return nil, fmt.Errorf("the weight of %q must be an integer of 0 to 2^53", addr)
		}
		nodes = append(nodes, Node{Host: host, Port: port, Weight: weight})
	}
	return nodes, nil
}

func nodesFromList(list []any) ([]Node, error) {
	nodes := make([]Node, 0, len(list))
	for i, v := range list {
		obj, ok := asObject(v)
		if !ok {
			return nil, fmt.Errorf("item %d must be an object", i+1)
		}
		f := fields{doc: obj}
		host, err := nodeHost(f.text("host"))
		if err != nil {
			return nil, err
		}
		n := Node{Host: host, Port: f.integer("port", 0), Priority: f.integer("priority", 0)}
		if f.err != nil {
			return nil, fmt.Errorf("item %d: %w", i+1, f.err)
		}
		if n.Port < 0 || n.Port > math.MaxUint16 {
			return nil, fmt.Errorf("invalid port %d", n.Port)
		}
		if n.Weight, ok = nodeWeight(obj["weight"]); !ok {
			return nil, fmt.Errorf("item %d: the weight must be an integer of 0 to 2^53", i+1)
		}
		nodes = append(nodes, n)
	}
	return nodes, nil
}

func nodeWeight(v any) (int64, bool) {
	n, ok := toInt(v)
	return n, ok && n >= 0 && n <= 1<<53
}

// Errors about nodes whose texts the contract fixes (section 1.6).
var errBareIPv6 = errors.New("IPv6 address must be enclosed with '[' and ']'")

// portError is told without the prefix "invalid configuration: ".
type portError string

func (e portError) Error() string { return "invalid port " + string(e) }

// splitNode splits a key of the map form: "host:port", "host", "[v6]:port" or "[v6]". A port that is not a number counts as absent,
// as it does in the contract's gateway; a number outside 1..65535 is an error.
func splitNode(addr string) (host string, port int, err error) {
	if _, err := netip.ParseAddr(addr); err == nil && strings.Contains(addr, ":") {
		return "", 0, errBareIPv6
	}
	name, portText := addr, ""
	if end := strings.LastIndexByte(addr, ']'); strings.HasPrefix(addr, "[") && end > 0 {
		rest, ok := strings.CutPrefix(addr[end+1:], ":")
		if !ok && addr[end+1:] != "" {
			return "", 0, fmt.Errorf("invalid node address %q", addr)
		}
		name, portText = addr[:end+1], rest
	} else if colon := strings.LastIndexByte(addr, ':'); colon >= 0 {
		name, portText = addr[:colon], addr[colon+1:]
		if portText == "" {
			return "", 0, fmt.Errorf("invalid node address %q", addr)
		}
	}
	if host, err = nodeHost(name); err != nil {
		return "", 0, err
	}
	if f, err := strconv.ParseFloat(portText, 64); err == nil {
		if f != math.Trunc(f) || f < 1 || f > math.MaxUint16 {
			return "", 0, portError(strconv.FormatFloat(f, 'g', 14, 64))
		}
		port = int(f)
	}
	return host, port, nil
}

// nodeHost checks a host and strips the brackets of an IPv6 address. What passes can stand in a Host header and in a dial address.
func nodeHost(s string) (string, error) {
	if inner, ok := strings.CutPrefix(s, "["); ok {
		inner, ok = strings.CutSuffix(inner, "]")
		addr, err := netip.ParseAddr(inner)
		if !ok || err != nil || !addr.Is6() || addr.Zone() != "" {
			return "", fmt.Errorf("invalid node address %q", s)
		}
		return inner, nil
	}
	if strings.Contains(s, ":") {
		if _, err := netip.ParseAddr(s); err == nil {
			return "", errBareIPv6
		}
		return "", fmt.Errorf("invalid node address %q", s)
	}
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '.', c == '-', c == '_', c == '*':
		default:
			return "", fmt.Errorf("invalid node address %q", s)
		}
	}
	if s == "" {
		return "", errors.New("a node without a host")
	}
	return s, nil
}
