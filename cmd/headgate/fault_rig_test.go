package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// faultPeer is one connection as a programmable upstream sees it.
type faultPeer struct {
	net.Conn          // with the TLS of the upstream, if it has any
	tcp      net.Conn // without
	index    int      // of the connection, from 0
	of       *faultUpstream
	in       *bufio.Reader
}

// faultUpstream is a programmable upstream on a real socket: its script runs for every connection, which is closed when the script returns.
type faultUpstream struct {
	addr string

	mu       sync.Mutex
	conns    []net.Conn
	requests []string // in the form "GET /target"
	ids      map[string]int
}

// newFaultUpstream starts an upstream, over TLS when there is a config.
func newFaultUpstream(t testing.TB, config *tls.Config, script func(p *faultPeer)) *faultUpstream {
	t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	u := &faultUpstream{addr: l.Addr().String(), ids: map[string]int{}}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			tcp, err := l.Accept()
			if err != nil {
				return
			}
			u.mu.Lock()
			p := &faultPeer{Conn: tcp, tcp: tcp, index: len(u.conns), of: u}
			u.conns = append(u.conns, tcp)
			u.mu.Unlock()
			if config != nil {
				p.Conn = tls.Server(tcp, config)
			}
			p.in = bufio.NewReader(p.Conn)
			running.Go(func() {
				script(p)
				_ = p.Close()
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		u.mu.Lock()
		for _, c := range u.conns {
			_ = c.Close()
		}
		u.mu.Unlock()
		running.Wait()
	})
	return u
}

// connections returns how many there were.
func (u *faultUpstream) connections() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.conns)
}

// arrived returns how many requests came whole.
func (u *faultUpstream) arrived() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.requests)
}

// copies returns how often each request with an X-Id came.
func (u *faultUpstream) copies() map[string]int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return maps.Clone(u.ids)
}

// next reads a request to the end of its body; nil when there is none any more.
func (p *faultPeer) next() *http.Request {
	req, err := http.ReadRequest(p.in)
	if err != nil {
		return nil
	}
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return nil
	}
	req.Body = io.NopCloser(bytes.NewReader(body))
	p.of.mu.Lock()
	defer p.of.mu.Unlock()
	p.of.requests = append(p.of.requests, req.Method+" "+req.RequestURI)
	if id := req.Header.Get("X-Id"); id != "" {
		p.of.ids[id]++
	}
	return req
}

// send writes text and says whether the gateway took it.
func (p *faultPeer) send(text string) bool {
	_, err := io.WriteString(p, text)
	return err == nil
}

// reset ends the connection with a RST.
func (p *faultPeer) reset() {
	_ = p.tcp.(*net.TCPConn).SetLinger(0)
	_ = p.tcp.Close()
}

// cut ends the connection with a FIN; over TLS without the alert that closes it in order.
func (p *faultPeer) cut() { _ = p.tcp.Close() }

// gone waits until the gateway has closed the connection, and passes over what it sends until then.
func (p *faultPeer) gone() { _, _ = io.Copy(io.Discard, p.in) }

// saying answers every request with text.
func saying(text string) func(p *faultPeer) {
	return func(p *faultPeer) {
		for p.next() != nil && p.send(text) {
		}
	}
}

// whole is an answer with its length.
func whole(body string) string {
	return fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
}

// silentSocket is an address that is taken by a socket: connections to it are refused, or, when it listens with a queue that is full, never
// answered.
func silentSocket(t testing.TB, listens bool) (addr string) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	if err = unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err == nil && listens {
		err = unix.Listen(fd, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", name.(*unix.SockaddrInet4).Port)
}

// refusingAddr is an address that refuses connections, and stays so as long as the test runs.
func refusingAddr(t testing.TB) string { return silentSocket(t, false) }

// blackHole is an address that drops everything: a listener whose queue is full and stays so.
func blackHole(t testing.TB) string {
	t.Helper()
	addr := silentSocket(t, true)
	for range 16 { // until the kernel drops them
		c, err := net.DialTimeout("tcp", addr, 500*time.Millisecond)
		if err != nil {
			return addr
		}
		t.Cleanup(func() { c.Close() })
	}
	t.Fatal("the queue of the listener does not fill up")
	return ""
}

// volley is what came of many requests.
type volley struct {
	served int64
	failed []string // what was wrong with the others, the first of each client
	took   []time.Duration
}

// quantile returns the time within which that share of the requests was served.
func (l *volley) quantile(q float64) time.Duration {
	slices.Sort(l.took)
	if len(l.took) == 0 {
		return 0
	}
	return l.took[min(int(q*float64(len(l.took))), len(l.took)-1)].Round(10 * time.Microsecond)
}

// drive sends n requests over as many connections as there are clients, each as soon as the one before is answered. Every answer has to be
// good, which says what is wrong with it, "" for nothing.
func drive(t testing.TB, addr string, clients, n int, request func(i int) string, good func(i int, res *http.Response, body string) string) *volley {
	t.Helper()
	l := &volley{}
	var mu sync.Mutex
	var next atomic.Int64
	var working sync.WaitGroup
	for range clients {
		c := dialWire(t, addr)
		working.Go(func() {
			var took []time.Duration
			wrong := ""
			for i := int(next.Add(1)); i <= n && wrong == ""; i = int(next.Add(1)) {
				begun := time.Now()
				_ = c.SetDeadline(begun.Add(patience))
				res, body, err := c.exchange(request(i))
				took = append(took, time.Since(begun))
				switch {
				case err != nil:
					wrong = err.Error()
				case res.Close:
					wrong = fmt.Sprintf("%d closes the connection: %s", res.StatusCode, body)
				default:
					wrong = good(i, res, body)
				}
			}
			mu.Lock()
			defer mu.Unlock()
			l.took = append(l.took, took...)
			l.served += int64(len(took))
			if wrong != "" {
				l.served--
				l.failed = append(l.failed, wrong)
			}
		})
	}
	working.Wait()
	return l
}

// is200 is good for answers with that status.
func is200(_ int, res *http.Response, body string) string {
	if res.StatusCode != http.StatusOK {
		return fmt.Sprintf("%d %s", res.StatusCode, body)
	}
	return ""
}

// perAttempt is the access log of tests that look at the attempts of a request.
const perAttempt = "$request_uri|$upstream_addr|$upstream_status"

// attempts returns for each request to target, in the order in which they ended, which nodes were tried. The log is waited for until it has n of
// them.
func (g *gate) attempts(target string, n int) (nodes [][]string) {
	g.t.Helper()
	eventually(g.t, fmt.Sprintf("%d lines of %s", n, target), func() bool {
		nodes = nil
		for line := range strings.Lines(string(g.readLog())) {
			uri, rest, _ := strings.Cut(line, "|")
			addrs, _, _ := strings.Cut(rest, "|")
			if uri == target {
				nodes = append(nodes, strings.Split(addrs, ", "))
			}
		}
		return len(nodes) >= n
	})
	return nodes
}

// faults returns how often a fault has been counted.
func (g *gate) faults(code string) int {
	g.t.Helper()
	return max(0, g.metric(fmt.Sprintf(`headgate_faults_total{side="upstream",code=%q}`, code)))
}

// serverTLS is what an upstream of that scheme needs: for https a certificate of ca for this machine.
func serverTLS(t testing.TB, ca *authority, scheme string) *tls.Config {
	t.Helper()
	if scheme != "https" {
		return nil
	}
	return &tls.Config{Certificates: []tls.Certificate{*ca.leafFor(t, "127.0.0.1")}}
}
