package health

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"headgate/conf/resource"
)

// upstream is a server for probes: it hands the head of every request to heard and answers with reply; with silent set it does not answer
// before the other end gives up.
type upstream struct {
	addr   *net.TCPAddr
	heard  chan string
	sni    chan string
	silent bool
	reply  string
}

func serve(t *testing.T, u *upstream, config *tls.Config) *upstream {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	u.addr, u.heard, u.sni = ln.Addr().(*net.TCPAddr), make(chan string, 100), make(chan string, 100)
	var running sync.WaitGroup
	running.Go(func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			running.Go(func() { u.answer(nc, config) })
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		running.Wait()
	})
	return u
}

func (u *upstream) answer(nc net.Conn, config *tls.Config) {
	defer nc.Close()
	if config != nil {
		tc := tls.Server(nc, config)
		if tc.Handshake() == nil {
			u.sni <- tc.ConnectionState().ServerName
		}
		nc = tc
	}
	var head strings.Builder
	for r := bufio.NewReader(nc); !strings.HasSuffix(head.String(), "\r\n\r\n"); {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		head.WriteString(line)
	}
	u.heard <- head.String()
	if u.silent {
		_, _ = io.Copy(io.Discard, nc)
		return
	}
	_, _ = io.WriteString(nc, u.reply)
}

// authority returns a certificate for 127.0.0.1 and probe.test, and the pool that trusts it.
func authority(t *testing.T) (*tls.Config, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		DNSNames: []string{"probe.test"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}, pool
}

// once probes 127.0.0.1:port one time by the checks that edit has changed.
func once(t *testing.T, port int, pool *x509.CertPool, edit func(s *Spec)) (observation, *Target) {
	t.Helper()
	m := New(Options{Dial: func(ctx context.Context, host string, port int) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(port)))
	}})
	t.Cleanup(m.Close)
	s := spec(edit)
	s.Nodes = []Node{{"127.0.0.1", port, 1}}
	s.TLS = func(name string, verify bool) *tls.Config {
		return &tls.Config{ServerName: name, InsecureSkipVerify: !verify, RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	c := m.Prepare(s, nil)
	return m.run(context.Background(), &c.plans[0], c.targets[0]), c.targets[0]
}

const okHead = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"

// TestProbeHTTP: what an answer's first line says is what counts.
func TestProbeHTTP(t *testing.T) {
	for name, c := range map[string]struct {
		reply   string
		outcome Outcome
		status  int
	}{
		"good":                    {okHead, Success, 200},
		"HTTP/1.0":                {"HTTP/1.0 200 OK\r\n\r\n", Success, 200},
		"only a line":             {"HTTP/1.1 200\n", Success, 200},
		"bad":                     {"HTTP/1.1 500 Oh\r\n\r\n", HTTPFailure, 500},
		"in neither list":         {"HTTP/1.1 404 Not Found\r\n\r\n", Ignored, 404},
		"no status line":          {"SSH-2.0-OpenSSH_9.6\r\n", HTTPFailure, 0},
		"no number":               {"HTTP/1.1 OK\r\n", HTTPFailure, 0},
		"a line without an end":   {strings.Repeat("x", maxStatusLine), HTTPFailure, 0},
		"closed within the line":  {"HTTP/1.1 200 OK", TCPFailure, 0},
		"closed without a byte":   {"", TCPFailure, 0},
		"a number that is no one": {"HTTP/1.1 20000 OK\r\n", Ignored, 2000},
	} {
		t.Run(name, func(t *testing.T) {
			u := serve(t, &upstream{reply: c.reply}, nil)
			o, target := once(t, u.addr.Port, nil, nil)
			if o.outcome != c.outcome || o.status != c.status {
				t.Errorf("%s with status %d (%s), want %s with %d", o.outcome, o.status, o.detail, c.outcome, c.status)
			}
			if seen := target.seen.Load(); seen == nil || *seen != "127.0.0.1" {
				t.Errorf("the address seen is %v", seen)
			}
		})
	}
}

// TestProbeRequest: the bytes on the wire, for each way to the Host.
func TestProbeRequest(t *testing.T) {
	for name, c := range map[string]struct {
		edit func(s *Spec)
		want string
	}{
		"plain": {nil, "GET / HTTP/1.1\r\nConnection: close\r\nHost: 127.0.0.1\r\n\r\n"},
		"path and lines": {func(s *Spec) {
			s.Checks.Active.Path, s.Checks.Active.Headers = "/hc/probe?a=b", []string{"X-Probe: yes", "User-Agent:me", "content-length: 5", "CONNECTION: keep-alive"}
		}, "GET /hc/probe?a=b HTTP/1.1\r\nConnection: close\r\nX-Probe: yes\r\nUser-Agent:me\r\nHost: 127.0.0.1\r\n\r\n"},
		"host of the checks": {func(s *Spec) { s.Checks.Active.Host = "probe.test" }, "GET / HTTP/1.1\r\nConnection: close\r\nHost: probe.test\r\n\r\n"},
		"rewrite": {func(s *Spec) {
			s.PassHost, s.UpstreamHost, s.Checks.Active.Host = "rewrite", "up.test:81", "probe.test"
		},
			"GET / HTTP/1.1\r\nConnection: close\r\nHost: up.test:81\r\n\r\n"},
		"a line of one's own": {func(s *Spec) {
			s.Checks.Active.Host, s.Checks.Active.Headers = "probe.test", []string{"host: own.test"}
		},
			"GET / HTTP/1.1\r\nConnection: close\r\nHost: own.test\r\n\r\n"},
		"GET whatever the document says of a port": {func(s *Spec) { s.PassHost = "node" }, "GET / HTTP/1.1\r\nConnection: close\r\nHost: 127.0.0.1\r\n\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			u := serve(t, &upstream{reply: okHead}, nil)
			if o, _ := once(t, u.addr.Port, nil, c.edit); o.outcome != Success {
				t.Fatalf("%s: %s", o.outcome, o.detail)
			}
			if got := <-u.heard; got != c.want {
				t.Errorf("got  %q\nwant %q", got, c.want)
			}
		})
	}
	for _, c := range []struct{ passHost, host, node, want string }{
		{"node", "probe.test", "web.test", "web.test"},
		{"pass", "probe.test", "web.test", "probe.test"},
		{"pass", "", "web.test", "web.test"},
		{"node", "probe.test", "10.0.0.1", "probe.test"},
		{"pass", "", "::1", "[::1]"},
	} {
		s := spec(func(s *Spec) { s.PassHost, s.Checks.Active.Host = c.passHost, c.host })
		if got := probeHost(&s, c.node); got != c.want {
			t.Errorf("%+v: Host is %s", c, got)
		}
	}
}

// TestProbeFailures: who is not there, and who is slow.
func TestProbeFailures(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead := ln.Addr().(*net.TCPAddr).Port
	if err = ln.Close(); err != nil {
		t.Fatal(err)
	}
	short := func(kind string) func(s *Spec) {
		return func(s *Spec) { s.Checks.Active.Type, s.Checks.Active.Timeout = kind, 30*time.Millisecond }
	}
	for _, kind := range []string{"http", "https", "tcp"} {
		if o, _ := once(t, dead, nil, func(s *Spec) { s.Checks.Active.Type = kind }); o.outcome != TCPFailure || !strings.Contains(o.detail, "refused") {
			t.Errorf("%s, refused: %s, %s", kind, o.outcome, o.detail)
		}
	}
	u := serve(t, &upstream{silent: true}, nil)
	for _, kind := range []string{"http", "https"} { // https: it does not shake hands
		if o, _ := once(t, u.addr.Port, nil, short(kind)); o.outcome != Timeout {
			t.Errorf("%s, silent: %s, %s", kind, o.outcome, o.detail)
		}
	}
	if o, _ := once(t, u.addr.Port, nil, short("tcp")); o.outcome != Success {
		t.Errorf("tcp, silent: %s, %s", o.outcome, o.detail)
	}
	plain := serve(t, &upstream{reply: okHead}, nil)
	if o, _ := once(t, dead, nil, func(s *Spec) { s.Checks.Active.Port = plain.addr.Port }); o.outcome != Success {
		t.Errorf("a port of its own: %s, %s", o.outcome, o.detail)
	}
}

func TestProbeHTTPS(t *testing.T) {
	config, pool := authority(t)
	u := serve(t, &upstream{reply: okHead}, config)
	for name, c := range map[string]struct {
		pool    *x509.CertPool
		edit    func(a *resource.ActiveChecks)
		outcome Outcome
		sni     string
	}{
		"trusted, by address":        {pool, func(*resource.ActiveChecks) {}, Success, ""},
		"trusted, by name":           {pool, func(a *resource.ActiveChecks) { a.Host = "probe.test:443" }, Success, "probe.test"},
		"another name":               {pool, func(a *resource.ActiveChecks) { a.Host = "other.test" }, TCPFailure, ""},
		"nobody trusts it":           {x509.NewCertPool(), func(*resource.ActiveChecks) {}, TCPFailure, ""},
		"nobody asks who trusts it":  {x509.NewCertPool(), func(a *resource.ActiveChecks) { a.Verify = false }, Success, ""},
		"nobody asks for whose name": {nil, func(a *resource.ActiveChecks) { a.Verify, a.Host = false, "other.test" }, Success, "other.test"},
	} {
		t.Run(name, func(t *testing.T) {
			o, _ := once(t, u.addr.Port, c.pool, func(s *Spec) {
				s.Checks.Active.Type = "https"
				c.edit(s.Checks.Active)
			})
			if o.outcome != c.outcome {
				t.Fatalf("%s (%s), want %s", o.outcome, o.detail, c.outcome)
			}
			if c.outcome == Success {
				if sni := <-u.sni; sni != c.sni {
					t.Errorf("SNI %q, want %q", sni, c.sni)
				}
				<-u.heard
			}
		})
	}
}

// TestProbeBrokenOff: the end of the monitor ends a probe that hangs, with nothing left behind.
func TestProbeBrokenOff(t *testing.T) {
	u := serve(t, &upstream{silent: true}, nil)
	m := New(Options{Dial: func(ctx context.Context, host string, port int) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(port)))
	}})
	m.mu.Lock()
	m.jitter = func() float64 { return 0 }
	m.mu.Unlock()
	c := m.Prepare(spec(func(s *Spec) {
		s.Checks.Active.Timeout = time.Hour
		s.Nodes = []Node{{"127.0.0.1", u.addr.Port, 1}}
	}), nil)
	m.Start(c, "routes/1")
	<-u.heard
	m.Close()
	if s := m.Checked()[0].Nodes[0].Status; s != "healthy" {
		t.Errorf("what was broken off made it %s", s)
	}
}

func FuzzStatusLine(f *testing.F) {
	for _, s := range []string{"HTTP/1.1 200 OK\r", "http/1.1\t301", "HTTP/1.", "HTTP/1.1200", "HTTP/11.22  99999999999999999999", "HTTP/.1 200", "\xff"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		n := parseStatus(line)
		if n < 0 || n > 9999 {
			t.Fatalf("%q has status %d", line, n)
		}
		if n > 0 && !strings.Contains(string(line), strconv.Itoa(n)) {
			t.Fatalf("%q has status %d", line, n)
		}
	})
}
