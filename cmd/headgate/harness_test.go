package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"headgate/conf"
	"headgate/proxy/leaktest"
)

const (
	adminKey  = "an-admin-key-of-at-least-32-characters"
	viewerKey = "a-viewer-key-of-at-least-32-characters"

	// patience bounds every wait of the suite; nothing is expected to take anywhere near as long.
	patience = 30 * time.Second
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		append(leaktest.Foreign(), goleak.IgnoreCurrent(), goleak.Cleanup(func(status int) {
			removeBinary()
			os.Exit(status)
		}))...)
}

// eventually polls until ok holds.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("in vain waited for %s", what)
		}
	}
}

// logLines collects what a process logs.
type logLines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logLines) printf(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fmt.Fprintf(&l.text, format+"\n", args...)
}

func (l *logLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logLines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// onLoopback moves c to free ports and to files of this test, and gives it keys.
func onLoopback(t testing.TB, c *conf.Config) *conf.Config {
	t.Helper()
	c.Gateway.Listen = []string{"127.0.0.1:0"}
	c.Gateway.DrainTimeout = conf.Duration(2 * time.Second)
	c.Admin.Listen, c.Metrics.Listen, c.Control.Listen = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"
	c.Admin.Keys = append(c.Admin.Keys,
		conf.AdminKey{Name: "deploy", Key: adminKey, Role: conf.RoleAdmin},
		conf.AdminKey{Name: "dashboard", Key: viewerKey, Role: conf.RoleViewer})
	c.Store.Provider = conf.StoreMem
	c.Upstream.NextNode = conf.Duration(10 * time.Second) // a busy machine is no reason to ask another node
	c.AccessLog.Path = filepath.Join(t.TempDir(), "access.log")
	c.AccessLog.FlushInterval = conf.Duration(10 * time.Millisecond)
	for i := range c.ProxyCache.Zones {
		if z := &c.ProxyCache.Zones[i]; z.DiskPath != "" && !filepath.IsAbs(z.DiskPath) {
			z.DiskPath = filepath.Join(t.TempDir(), z.Name)
		}
	}
	return c
}

// gate is a gateway in this process.
type gate struct {
	*process
	t       testing.TB
	addr    string // of the gateway, host:port
	client  *http.Client
	logged  *logLines
	stopped bool
}

// startGate starts a gateway that ends with the test. When it has ended nothing of it, its clients and its upstreams may be left.
func startGate(t testing.TB, c *conf.Config) *gate {
	t.Helper()
	leaktest.Check(t, patience)
	g := &gate{t: t, client: newClient(t), logged: &logLines{}}
	var err error
	if g.process, err = start(context.Background(), c, &inheritance{}, g.logged.printf); err != nil {
		t.Fatalf("start: %v\n%s", err, g.logged)
	}
	g.addr = g.gateways[0].Addr().String()
	t.Cleanup(g.end)
	return g
}

// end stops the gateway. What its clients keep open is cut.
func (g *gate) end() {
	if g.stopped {
		return
	}
	g.stopped = true
	closeIdle()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	g.stop(ctx)
	if g.t.Failed() {
		g.t.Logf("the gateway logged:\n%s", g.logged)
	}
}

// idle has the transports of all clients: one that is older than a gateway must not keep connections to it beyond its end.
var idle sync.Map // *http.Transport

func closeIdle() {
	idle.Range(func(transport, _ any) bool {
		transport.(*http.Transport).CloseIdleConnections()
		return true
	})
}

// newClient never follows redirects and asks for no compression, so that what the gateway says is seen as it is.
func newClient(t testing.TB) *http.Client {
	transport := &http.Transport{DisableCompression: true}
	idle.Store(transport, nil)
	t.Cleanup(func() {
		idle.Delete(transport)
		transport.CloseIdleConnections()
	})
	return &http.Client{
		Transport: transport, Timeout: patience,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// answer is a response that was read to its end.
type answer struct {
	status int
	header http.Header
	body   string
}

func (a answer) String() string { return fmt.Sprintf("%d %s", a.status, a.body) }

// send sends one request; fields are header lines "Name: value".
func (g *gate) send(method, url, body string, fields ...string) answer {
	g.t.Helper()
	return send(g.t, g.client, method, url, body, fields...)
}

func send(t testing.TB, client *http.Client, method, url, body string, fields ...string) answer {
	t.Helper()
	a, err := trySend(client, method, url, body, fields...)
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	return a
}

func trySend(client *http.Client, method, url, body string, fields ...string) (answer, error) {
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	for _, f := range fields {
		name, value, _ := strings.Cut(f, ": ")
		if name == "Host" {
			req.Host = value
		}
		req.Header.Add(name, value)
	}
	res, err := client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return answer{res.StatusCode, res.Header, string(b)}, err
}

// admin calls the Admin API with the admin key; path is what follows /apisix/admin.
func (g *gate) admin(method, path, body string, fields ...string) answer {
	g.t.Helper()
	return g.send(method, "http://"+g.process.addr("admin")+"/apisix/admin"+path, body, append([]string{"X-API-KEY: " + adminKey}, fields...)...)
}

// configure makes a write that has to succeed.
func (g *gate) configure(method, path, body string) answer {
	g.t.Helper()
	a := g.admin(method, path, body)
	if a.status != http.StatusOK && a.status != http.StatusCreated {
		g.t.Fatalf("%s %s: %v", method, path, a)
	}
	return a
}

// requests returns apisix_http_requests_total of a branch, -1 when there is no such series.
func (g *gate) requests(route, branch string) int {
	g.t.Helper()
	return g.metric(fmt.Sprintf(`apisix_http_requests_total{route=%q,upstream=%q}`, route, branch))
}

// metric returns the value of a series, -1 when it is not there.
func (g *gate) metric(series string) int {
	g.t.Helper()
	return g.sum(series + " ")
}

// sum adds up all series that begin with prefix; -1 when there is none.
func (g *gate) sum(prefix string) int {
	g.t.Helper()
	total, found := 0.0, false
	for line := range strings.Lines(g.send("GET", "http://"+g.process.addr("metrics")+"/apisix/prometheus/metrics", "").body) {
		if !strings.HasPrefix(line, prefix) {
			continue
		}
		f, err := strconv.ParseFloat(strings.TrimSpace(line[strings.LastIndexByte(line, ' '):]), 64)
		if err != nil {
			g.t.Fatalf("%s: %v", line, err)
		}
		total, found = total+f, true
	}
	if !found {
		return -1
	}
	return int(total)
}

// logCount is grep -c text on the access log.
func (g *gate) logCount(text string) (n int) {
	g.t.Helper()
	for line := range bytes.Lines(g.readLog()) {
		if bytes.Contains(line, []byte(text)) {
			n++
		}
	}
	return n
}

func (g *gate) readLog() []byte {
	g.t.Helper()
	if err := g.log.Flush(); err != nil {
		g.t.Fatal(err)
	}
	text, err := os.ReadFile(g.conf.Load().AccessLog.Path)
	if err != nil {
		g.t.Fatal(err)
	}
	return text
}

// seen is a request as an upstream saw it.
type seen struct {
	method, target, host string
	header               http.Header
	body                 string
}

// upstreamServer is an HTTP upstream that remembers what it was asked.
type upstreamServer struct {
	*httptest.Server
	addr string
	mu   sync.Mutex
	seen []seen
}

// newUpstream answers every request with 200 and its name. With a certificate it speaks TLS.
func newUpstream(t testing.TB, name string, cert *tls.Certificate) *upstreamServer {
	t.Helper()
	u := &upstreamServer{}
	u.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		u.mu.Lock()
		u.seen = append(u.seen, seen{r.Method, r.RequestURI, r.Host, r.Header, string(body)})
		u.mu.Unlock()
		fmt.Fprintln(w, name)
	}))
	u.addr = u.Listener.Addr().String()
	u.Config.ErrorLog = log.New(io.Discard, "", 0)
	if cert != nil {
		u.TLS = &tls.Config{Certificates: []tls.Certificate{*cert}}
		u.StartTLS()
	} else {
		u.Start()
	}
	t.Cleanup(u.Close)
	return u
}

// take returns what came since the last call.
func (u *upstreamServer) take() []seen {
	u.mu.Lock()
	defer u.mu.Unlock()
	s := u.seen
	u.seen = nil
	return s
}

func (u *upstreamServer) hits() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.seen)
}

// testAuthority is a certificate authority whose certificate is in a file.
func testAuthority(t testing.TB) (*authority, string) {
	t.Helper()
	ca, err := newAuthority()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, ca.pem, 0o600); err != nil {
		t.Fatal(err)
	}
	return ca, file
}

func (a *authority) leafFor(t testing.TB, names ...string) *tls.Certificate {
	t.Helper()
	cert, err := a.leaf(names...)
	if err != nil {
		t.Fatal(err)
	}
	return &cert
}

// deadAddr returns an address of this machine at which nobody listens.
func deadAddr(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// wireConn is a client's connection on which bytes are sent as they are.
type wireConn struct {
	net.Conn
	in *bufio.Reader
}

func dialWire(t testing.TB, addr string) *wireConn {
	t.Helper()
	c, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return newWireConn(c)
}

func newWireConn(c net.Conn) *wireConn { return &wireConn{c, bufio.NewReader(c)} }

// exchange sends request and reads one answer to its end.
func (c *wireConn) exchange(request string) (*http.Response, string, error) {
	if _, err := io.WriteString(c, request); err != nil {
		return nil, "", err
	}
	return c.read()
}

func (c *wireConn) read() (*http.Response, string, error) {
	res, err := http.ReadResponse(c.in, nil)
	if err != nil {
		return nil, "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	return res, string(body), err
}
