package v3

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
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

	"github.com/valyala/fasthttp/fasthttputil"

	"headgate/conf"
	"headgate/conf/store"
	"headgate/proxy"
)

const (
	adminKey   = "an-admin-key-of-at-least-32-chars"
	viewerKey  = "a-viewer-key-of-at-least-32-chars"
	expiredKey = "an-expired-key-of-at-least-32-char"
)

// memory is a config path without a data plane: documents in a map, judged by the rules for documents.
type memory struct {
	mu       sync.Mutex
	now      func() time.Time
	docs     map[string]store.Item
	revision uint64
	readOnly map[string]string
	// fail, when set, is asked before every Apply.
	fail func(c proxy.Change) error
}

func (m *memory) Apply(_ context.Context, c proxy.Change) (proxy.Result, error) {
	if m.fail != nil {
		if err := m.fail(c); err != nil {
			return proxy.Result{}, err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.apply(c)
}

func (m *memory) live(key string) (store.Item, bool) {
	item, ok := m.docs[key]
	if !ok || !item.Expires.IsZero() && !m.now().Before(item.Expires) {
		return store.Item{}, false
	}
	return item, true
}

func (m *memory) Get(key string) (store.Item, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.live(key)
}

func (m *memory) List(kind string) []store.Item {
	m.mu.Lock()
	defer m.mu.Unlock()
	var items []store.Item
	for key := range m.docs {
		if item, ok := m.live(key); ok && strings.HasPrefix(key, kind+"/") {
			items = append(items, item)
		}
	}
	slices.SortFunc(items, func(a, b store.Item) int { return strings.Compare(a.Key, b.Key) })
	return items
}

func (m *memory) ReadOnly(key string) string { return m.readOnly[key] }

// harness is a running Admin API.
type harness struct {
	t     testing.TB
	plane *memory
	api   *API
	ln    *fasthttputil.InmemoryListener
	// peer is the address that the next connection comes from.
	peer netip.AddrPort
	// key goes along with every request that has no X-API-KEY header of its own; none when it is empty.
	key string

	mu   sync.Mutex
	time time.Time
	keys []Key
	log  []string
}

func (h *harness) now() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.time
}

func (h *harness) advance(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.time = h.time.Add(d)
}

func (h *harness) logged() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return strings.Join(h.log, "\n")
}

func testKey(name, key, role string) Key {
	return Key{Name: name, Digest: sha256.Sum256([]byte(key)), Role: role}
}

// start runs the API with the usual options, changed by adjust.
func start(t testing.TB, adjust ...func(*Options)) *harness {
	t.Helper()
	h := &harness{
		t: t, key: adminKey, time: time.Unix(1_700_000_000, 0), ln: fasthttputil.NewInmemoryListener(),
		peer: netip.MustParseAddrPort("127.0.0.1:40000"),
	}
	expired := testKey("old", expiredKey, conf.RoleAdmin)
	expired.Expires = h.time
	h.keys = []Key{testKey("ops", adminKey, conf.RoleAdmin), testKey("eyes", viewerKey, conf.RoleViewer), expired}
	h.plane = &memory{now: h.now, docs: map[string]store.Item{}}
	o := Options{
		Plane: h.plane, Plugins: standInPlugins{}, Checks: h.plane, KeyRequired: true, CORS: true, APIVersion: "3.18.0", Now: h.now,
		Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/24"), netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")},
		Keys: func() []Key {
			h.mu.Lock()
			defer h.mu.Unlock()
			return h.keys
		},
		Logf: func(format string, args ...any) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.log = append(h.log, fmt.Sprintf(format, args...))
		},
	}
	for _, f := range adjust {
		f(&o)
	}
	h.api = New(o)
	server := h.api.NewServer()
	done := make(chan error, 1)
	go func() { done <- server.Serve(peerListener{h.ln, h}) }()
	t.Cleanup(func() {
		if err := h.ln.Close(); err != nil { // every request closed its connection; Shutdown would poll for them
			t.Error(err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return h
}

// peerListener gives connections the address that the harness says.
type peerListener struct {
	net.Listener
	h *harness
}

func (l peerListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.h.mu.Lock()
	defer l.h.mu.Unlock()
	return peerConn{c, net.TCPAddrFromAddrPort(l.h.peer)}, nil
}

type peerConn struct {
	net.Conn
	peer net.Addr
}

func (c peerConn) RemoteAddr() net.Addr { return c.peer }

func (h *harness) from(peer string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.peer = netip.MustParseAddrPort(peer)
}

type answer struct {
	status int
	header http.Header
	body   string
	raw    string // the head as it was on the wire
}

// do sends one request on a connection of its own. headers are "Name: value" lines.
func (h *harness) do(method, target, body string, headers ...string) answer {
	h.t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: 127.0.0.1:9180\r\nConnection: close\r\n", method, target)
	own := false
	for _, line := range headers {
		own = own || strings.HasPrefix(strings.ToUpper(line), "X-API-KEY:")
		b.WriteString(line + "\r\n")
	}
	if h.key != "" && !own {
		b.WriteString("X-API-KEY: " + h.key + "\r\n")
	}
	if body != "" {
		fmt.Fprintf(&b, "Content-Length: %d\r\n", len(body))
	}
	b.WriteString("\r\n" + body)
	a, err := h.exchange(method, b.String())
	if err != nil {
		h.t.Fatalf("%s %s: %v", method, target, err)
	}
	return a
}

func (h *harness) exchange(method, text string) (answer, error) {
	c, err := h.ln.Dial()
	if err != nil {
		return answer{}, err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return answer{}, err
	}
	go io.WriteString(c, text) // the server may answer before it has read everything
	var raw bytes.Buffer
	resp, err := http.ReadResponse(bufio.NewReader(io.TeeReader(c, &raw)), &http.Request{Method: method})
	if err != nil {
		return answer{}, err
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return answer{}, err
	}
	head, _, _ := strings.Cut(raw.String(), "\r\n\r\n")
	return answer{resp.StatusCode, resp.Header, string(body), head}, nil
}

// want sends a request and checks the status and the whole body, in which "*" stands for anything.
func (h *harness) want(status int, wantBody, method, target, body string, headers ...string) answer {
	h.t.Helper()
	a := h.do(method, target, body, headers...)
	if a.status != status || !like(a.body, wantBody) {
		h.t.Errorf("%s %s %.200s\n got  %d %.500s\n want %d %s", method, target, body, a.status, a.body, status, wantBody)
	}
	return a
}

// must sends a request whose success the test takes for granted.
func (h *harness) must(method, target, body string) {
	h.t.Helper()
	if a := h.do(method, target, body); a.status/100 != 2 {
		h.t.Fatalf("%s %s: %d %s", method, target, a.status, a.body)
	}
}

// like compares with a pattern in which "*" stands for any text.
func like(got, pattern string) bool {
	parts := strings.Split(pattern, "*")
	if len(parts) == 1 {
		return got == pattern
	}
	if !strings.HasPrefix(got, parts[0]) {
		return false
	}
	got = got[len(parts[0]):]
	for _, part := range parts[1 : len(parts)-1] {
		_, rest, ok := strings.Cut(got, part)
		if !ok {
			return false
		}
		got = rest
	}
	return strings.HasSuffix(got, parts[len(parts)-1])
}

func (h *harness) stored(key string) string {
	item, ok := h.plane.Get(key)
	if !ok {
		return ""
	}
	return string(item.Value)
}

const (
	routeBody = `{"uri":"/a","upstream":{"nodes":{"127.0.0.1:1":1}}}`
	splitBody = `{"uri":"/a","id":"s","priority":1.50e1,"plugins":{"traffic-split":{"rules":[` +
		`{"weight":50,"upstream":{"nodes":{"127.0.0.1:1":1}},"rewrite":{"uri":"/v1/chat"}},` +
		`{"weight":50,"upstream":{"nodes":{"127.0.0.1:2":1}},"rewrite":{"uri":"/v2/chat"}}]}},` +
		`"upstream":{"nodes":{"127.0.0.1:3":1}}}`
)

var errMedium = errors.New("disk full")

// repeat is body text of exactly n bytes that is one JSON string.
func repeat(n int) string { return strconv.Quote(strings.Repeat("x", n-2)) }
