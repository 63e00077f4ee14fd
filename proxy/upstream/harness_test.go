package upstream

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"headgate/conf/resource"
	"headgate/proxy/fault"
	"headgate/proxy/phase"
	"headgate/proxy/upstream/dns"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// peer is one connection as the scripted upstream sees it.
type peer struct {
	net.Conn
	tcp  *net.TCPConn
	br   *bufio.Reader
	conn int // number of the connection, from 0
	s    *server
}

// next reads a request and returns its head with the body behind; ok is false when the gateway has closed.
func (p *peer) next() (request string, ok bool) {
	var head strings.Builder
	length := 0
	for {
		line, err := p.br.ReadString('\n')
		if err != nil {
			return "", false
		}
		head.WriteString(line)
		if v, found := strings.CutPrefix(line, "Content-Length: "); found {
			length, _ = strconv.Atoi(strings.TrimSpace(v))
		}
		if line == "\r\n" {
			break
		}
	}
	body := make([]byte, length)
	if _, err := io.ReadFull(p.br, body); err != nil {
		return "", false
	}
	request = head.String() + string(body)
	p.s.mu.Lock()
	p.s.requests = append(p.s.requests, request)
	p.s.mu.Unlock()
	return request, true
}

func (p *peer) send(parts ...string) {
	for _, s := range parts {
		_, _ = io.WriteString(p, s)
	}
}

// reset closes the connection with a RST.
func (p *peer) reset() {
	_ = p.tcp.SetLinger(0)
	_ = p.tcp.Close()
}

// gone returns when the gateway has closed the connection; what it sends until then is passed over.
func (p *peer) gone() { _, _ = io.Copy(io.Discard, p.br) }

// server is a scripted upstream: script runs for every connection, which is closed when it returns.
type server struct {
	host     string
	port     int
	closing  chan struct{}
	mu       sync.Mutex
	accepted int
	requests []string
	conns    []net.Conn
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

func serve(t testing.TB, script func(p *peer)) *server { return serveTLS(t, nil, script) }

func serveTLS(t testing.TB, config *tls.Config, script func(p *peer)) *server {
	ln := listen(t)
	s := &server{host: "127.0.0.1", port: ln.Addr().(*net.TCPAddr).Port, closing: make(chan struct{})}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			p := &peer{Conn: nc, tcp: nc.(*net.TCPConn), conn: s.accepted, s: s}
			s.accepted++
			s.conns = append(s.conns, nc)
			s.mu.Unlock()
			if config != nil {
				p.Conn = tls.Server(nc, config)
			}
			p.br = bufio.NewReader(p.Conn)
			running.Go(func() {
				script(p)
				_ = p.Close()
			})
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		close(s.closing)
		s.mu.Lock()
		for _, c := range s.conns {
			_ = c.Close()
		}
		s.mu.Unlock()
		running.Wait()
	})
	return s
}

// connections returns how many have been accepted, seen how many requests came whole.
func (s *server) connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.accepted
}

func (s *server) seen() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

// answers serves every request of a connection with the same bytes.
func answers(reply string) func(p *peer) {
	return func(p *peer) {
		for _, ok := p.next(); ok; _, ok = p.next() {
			p.send(reply)
		}
	}
}

// once answers one request with these bytes and closes.
func once(reply string) func(p *peer) {
	return func(p *peer) {
		if _, ok := p.next(); ok {
			p.send(reply)
		}
	}
}

const ok2 = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

// refused returns an address where nobody listens.
func refused(t testing.TB) *server {
	ln := listen(t)
	s := &server{host: "127.0.0.1", port: ln.Addr().(*net.TCPAddr).Port}
	_ = ln.Close()
	return s
}

// rig is a hub with its clocks set for tests: generous ones, since what is tested is never that something is fast.
type rig struct {
	t   testing.TB
	hub *Hub
	def Defaults
	res *dns.Resolver
	// names answers for names; nil: the system does.
	names func(ctx context.Context, host string) ([]netip.Addr, error)
	srv   *server // the first one of the last upstream

	mu     sync.Mutex
	faults []string // what the hub was told of failed connections
}

func newRig(t testing.TB) *rig {
	r := &rig{t: t}
	return r.open(dns.Options{Source: r.source, Stale: time.Hour})
}

// open makes the hub, with a resolver that works as o says.
func (r *rig) open(o dns.Options) *rig {
	r.res = dns.New(o)
	r.def = Defaults{
		Connect: 10 * time.Second, Send: 10 * time.Second, Read: 10 * time.Second, RetryBudget: 20, MaxHead: 32 << 10,
		Pool: PoolOptions{Size: 16, IdleTimeout: time.Minute, MaxRequests: 1000}, TLS: TLSOptions{Verify: true},
	}
	r.hub = NewHub(r.res, func(endpoint string, f *fault.Fault, err error) {
		r.mu.Lock()
		r.faults = append(r.faults, f.Code)
		r.mu.Unlock()
	})
	r.t.Cleanup(r.hub.Close)
	return r
}

// source answers from names, for so long that nothing is asked twice.
func (r *rig) source(ctx context.Context, host string, known bool) (dns.Finding, error) {
	if r.names == nil {
		return dns.System(dns.SystemOptions{Refresh: time.Minute})(ctx, host, known)
	}
	addrs, err := r.names(ctx, host)
	f := dns.Finding{TTL: time.Minute}
	for _, a := range addrs {
		f.Records = append(f.Records, dns.Record{Addr: a.Unmap(), Weight: 1})
	}
	return f, err
}

// upstream compiles a document over the servers; edit changes it before.
func (r *rig) upstream(edit func(d *resource.Upstream), servers ...*server) *Upstream {
	r.t.Helper()
	doc := &resource.Upstream{Type: "roundrobin", HashOn: "vars", Scheme: "http", PassHost: "pass"}
	for i, s := range servers {
		if i == 0 {
			r.srv = s
		}
		doc.Nodes = append(doc.Nodes, resource.Node{Host: s.host, Port: s.port, Weight: 1})
	}
	if edit != nil {
		edit(doc)
	}
	u, err := Compile(r.hub, doc, "test", r.def, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(u.Close)
	return u
}

func retries(n int) func(d *resource.Upstream) {
	return func(d *resource.Upstream) { d.Retries = &n }
}

// request makes an exchange as the edge would.
func request(method, target, body string) *phase.Exchange {
	x := &phase.Exchange{Start: time.Now()}
	x.Begin(&phase.Settings{})
	x.Request.Method, x.Request.Authority = []byte(method), []byte("client.example")
	x.Request.OutTarget, x.Request.RawPath, x.Request.Path = []byte(target), []byte(target), []byte(target)
	x.Request.Body = []byte(body)
	x.Client.Text = []byte("192.0.2.1")
	x.Client.Addr = netip.MustParseAddr("192.0.2.1")
	return x
}

// result is what came of an exchange: the whole of it, read to the end and closed.
type result struct {
	status int
	header string // "Name: value" lines
	body   string
	pieces []string // of a stream
	fault  *fault.Fault
	cut    error // how a stream broke off, nil when it was whole
}

// code is the fault of the exchange or of its stream, "" when the answer is whole.
func (r result) code() string {
	var f *fault.Fault
	switch {
	case r.fault != nil:
		return r.fault.Code
	case errors.As(r.cut, &f):
		return "stream: " + f.Code
	case r.cut != nil:
		return "stream: " + r.cut.Error()
	}
	return ""
}

func do(u *Upstream, x *phase.Exchange) result {
	r := result{fault: u.Forward(x)}
	if r.fault != nil {
		return r
	}
	r.status, r.body = x.Response.Status, string(x.Response.Body)
	var h strings.Builder
	for _, f := range x.Response.Header.Fields() {
		h.WriteString(string(f.Name) + ": " + string(f.Value) + "\n")
	}
	r.header = h.String()
	if s := x.Response.Stream; s != nil {
		x.Response.Stream = nil
		for {
			p, err := s.Next()
			if err != nil {
				if err != io.EOF {
					r.cut = err
				}
				break
			}
			r.pieces = append(r.pieces, string(p))
			r.body += string(p)
		}
		s.Close()
	}
	return r
}

func get(u *Upstream) result { return do(u, request(http.MethodGet, "/", "")) }

func post(u *Upstream) result { return do(u, request(http.MethodPost, "/", "data")) }

// want checks status and body of a whole answer.
func (r result) want(t testing.TB, status int, body string) {
	t.Helper()
	if r.code() != "" || r.status != status || r.body != body {
		t.Fatalf("got %q, status %d, body %.100q; want status %d, body %.100q", r.code(), r.status, r.body, status, body)
	}
}

func (r result) wantFault(t testing.TB, f *fault.Fault) {
	t.Helper()
	if r.fault != f {
		t.Fatalf("got %q, status %d, body %q; want fault %s", r.code(), r.status, r.body, f.Code)
	}
}

// eventually waits for a state that another goroutine or the kernel brings about.
func eventually(t testing.TB, what string, reached func() bool) {
	t.Helper()
	for range 2000 {
		if reached() {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatalf("never came about: %s", what)
}

// connections waits until so many are open and idle.
func (r *rig) connections(open, idle int) {
	r.t.Helper()
	var o, i int
	eventually(r.t, "connections "+strconv.Itoa(open)+"/"+strconv.Itoa(idle), func() bool {
		o, i = r.hub.Connections()
		return o == open && i == idle
	})
}
