package dns

import (
	"bufio"
	"bytes"
	"context"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// SystemOptions say how names of the machine are looked up. The zero value does it as the system is configured.
type SystemOptions struct {
	// Servers, "host:port", are asked in the place of those of resolv.conf; the search domains stay.
	Servers []string
	// Refresh is how long an answer holds that has no TTL: from the hosts file, or from another service of the system. Required.
	Refresh time.Duration
	// Hosts and ResolvConf are paths, for tests; default /etc/hosts and /etc/resolv.conf.
	Hosts, ResolvConf string
	// Ask asks the system for what DNS does not know, or cannot be asked for; nil: its resolver. Not used with Servers.
	Ask func(ctx context.Context, name string) ([]netip.Addr, error)
}

// system is a Source for names as programs on this machine use them.
type system struct {
	opt   SystemOptions
	hosts file[map[string][]netip.Addr]
	conf  file[*resolvConf]
}

// System returns a Source that reads the hosts file, asks DNS, with the search domains of the system, and at last whatever else the
// system has (nsswitch.conf). Changed files count from the next question on.
func System(opt SystemOptions) Source {
	s := &system{opt: opt}
	s.hosts = file[map[string][]netip.Addr]{path: opt.Hosts, parse: parseHosts}
	s.conf = file[*resolvConf]{path: opt.ResolvConf, parse: parseResolvConf}
	if s.hosts.path == "" {
		s.hosts.path = "/etc/hosts"
	}
	if s.conf.path == "" {
		s.conf.path = "/etc/resolv.conf"
	}
	if opt.Ask == nil {
		s.opt.Ask = func(ctx context.Context, name string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", name)
		}
	}
	return s.find
}

func (s *system) find(ctx context.Context, name string, known bool) (Finding, error) {
	key := strings.ToLower(strings.TrimSuffix(name, "."))
	if addrs := s.hosts.get()[key]; len(addrs) > 0 {
		return s.local(addrs), nil
	}
	if key == "localhost" || strings.HasSuffix(key, ".localhost") { // RFC 6761 section 6.3
		return s.local([]netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}), nil
	}
	conf := s.conf.get()
	client := conf.client
	if len(s.opt.Servers) > 0 {
		client = conf.clientOf(s.opt.Servers)
	}
	var f Finding
	var err, failure error
	for _, candidate := range conf.candidates(name) {
		f, err = client.addresses(ctx, candidate, known)
		if err == nil {
			return f, nil
		}
		if !NotFound(err) {
			failure = err
			if known { // another candidate could be somebody else
				return f, err
			}
		}
	}
	if len(s.opt.Servers) == 0 {
		if addrs, e := s.opt.Ask(ctx, name); e == nil && len(addrs) > 0 {
			return s.local(addrs), nil
		}
	}
	if failure != nil {
		return f, failure
	}
	return f, err
}

// local is an answer without a TTL.
func (s *system) local(addrs []netip.Addr) Finding {
	f := Finding{TTL: s.opt.Refresh, Exact: true}
	for _, a := range addrs {
		f.Records = append(f.Records, Record{Addr: a.Unmap(), Weight: 1})
	}
	return f
}

// file is the meaning of a file, read again when the file has changed. What cannot be read is empty.
type file[T any] struct {
	path  string
	parse func([]byte) T

	mu    sync.Mutex
	read  bool
	stamp fileStamp
	value T
}

type fileStamp struct {
	changed time.Time
	size    int64
}

// maxFile bounds how much of a file counts.
const maxFile = 4 << 20

func (f *file[T]) get() T {
	f.mu.Lock()
	defer f.mu.Unlock()
	var stamp fileStamp
	if info, err := os.Stat(f.path); err == nil {
		stamp = fileStamp{info.ModTime(), info.Size()}
	}
	if !f.read || stamp != f.stamp {
		text, err := os.ReadFile(f.path)
		if err != nil {
			text = nil
		}
		f.read, f.stamp, f.value = true, stamp, f.parse(text[:min(len(text), maxFile)])
	}
	return f.value
}

// parseHosts reads hosts(5).
func parseHosts(text []byte) map[string][]netip.Addr {
	hosts := map[string][]netip.Addr{}
	lines(text, "#", func(fields []string) {
		a, err := netip.ParseAddr(fields[0])
		if err != nil || a.Zone() != "" {
			return
		}
		for _, name := range fields[1:] {
			name = strings.ToLower(strings.TrimSuffix(name, "."))
			if !slices.Contains(hosts[name], a) {
				hosts[name] = append(hosts[name], a)
			}
		}
	})
	return hosts
}

// lines calls f with the fields of each line that has any. What follows one of the characters of comment is left out.
func lines(text []byte, comment string, f func(fields []string)) {
	s := bufio.NewScanner(bytes.NewReader(text))
	s.Buffer(nil, 64<<10)
	for s.Scan() {
		line := s.Text()
		if i := strings.IndexAny(line, comment); i >= 0 {
			line = line[:i]
		}
		if fields := strings.Fields(line); len(fields) > 0 {
			f(fields)
		}
	}
}

// resolvConf is what resolv.conf(5) says.
type resolvConf struct {
	servers []string
	search  []string
	dots    int
	timeout time.Duration
	rounds  int
	stream  bool
	client  *Client

	mu  sync.Mutex
	own *Client // with the servers of the options
}

const (
	maxServers = 3
	maxSearch  = 32
)

func parseResolvConf(text []byte) *resolvConf {
	c := &resolvConf{dots: 1}
	lines(text, "#;", func(fields []string) {
		switch fields[0] {
		case "nameserver":
			if len(fields) > 1 && len(c.servers) < maxServers {
				if _, err := netip.ParseAddr(fields[1]); err == nil {
					c.servers = append(c.servers, net.JoinHostPort(fields[1], "53"))
				}
			}
		case "domain", "search":
			c.search = nil
			for _, domain := range fields[1:min(len(fields), maxSearch+1)] {
				if domain = strings.Trim(domain, "."); domain != "" {
					c.search = append(c.search, domain)
				}
			}
		case "options":
			for _, o := range fields[1:] {
				c.option(o)
			}
		}
	})
	if len(c.servers) == 0 {
		c.servers = []string{"127.0.0.1:53", "[::1]:53"}
	}
	c.client = c.newClient(c.servers)
	return c
}

func (c *resolvConf) option(o string) {
	name, value, _ := strings.Cut(o, ":")
	n, err := strconv.Atoi(value)
	switch {
	case name == "use-vc" || name == "usevc" || name == "tcp":
		c.stream = true
	case err != nil || n < 0:
	case name == "ndots":
		c.dots = min(n, 15)
	case name == "timeout":
		c.timeout = time.Duration(min(max(n, 1), 30)) * time.Second
	case name == "attempts":
		c.rounds = min(max(n, 1), 5)
	}
}

func (c *resolvConf) newClient(servers []string) *Client {
	return &Client{Servers: servers, Timeout: c.timeout, Rounds: c.rounds, Stream: c.stream}
}

// clientOf returns the client that asks servers.
func (c *resolvConf) clientOf(servers []string) *Client {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.own == nil {
		c.own = c.newClient(servers)
	}
	return c.own
}

// candidates are the absolute names that name may stand for, in the order in which they are tried.
func (c *resolvConf) candidates(name string) []string {
	if strings.HasSuffix(name, ".") {
		return []string{name}
	}
	list := make([]string, 0, len(c.search)+1)
	plain := strings.Count(name, ".") >= c.dots
	if plain {
		list = append(list, name+".")
	}
	for _, domain := range c.search {
		list = append(list, name+"."+domain+".")
	}
	if !plain {
		list = append(list, name+".")
	}
	return list
}
