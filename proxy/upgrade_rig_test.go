package proxy

import (
	"bufio"
	"context"
	"crypto/sha1"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"headgate/proxy/meter"
)

// switcher is an upstream that may switch protocols: after a request head it leaves the connection to a script, which it closes behind.
type switcher struct {
	addr   string
	secure bool
	mu     sync.Mutex
	got    []message
	open   int
}

// farEnd is a connection to a switcher; what came behind the request head is still in in.
type farEnd struct {
	net.Conn
	in *bufio.Reader
}

func newSwitcher(t testing.TB, config *tls.Config, script func(w farEnd, m message)) *switcher {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &switcher{addr: l.Addr().String(), secure: config != nil}
	var serving sync.WaitGroup
	var conns sync.Map
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conns.Store(c, true)
			s.count(1)
			serving.Go(func() {
				defer s.count(-1)
				defer conns.Delete(c)
				defer c.Close()
				if config != nil {
					c = tls.Server(c, config)
					defer c.Close()
				}
				w := farEnd{c, bufio.NewReader(c)}
				m, ok := readMessage(w.in)
				if !ok {
					return
				}
				s.mu.Lock()
				s.got = append(s.got, m)
				s.mu.Unlock()
				script(w, m)
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		conns.Range(func(c, _ any) bool { _ = c.(net.Conn).Close(); return true })
		serving.Wait()
	})
	return s
}

func (s *switcher) count(n int) {
	s.mu.Lock()
	s.open += n
	s.mu.Unlock()
}

func (s *switcher) quiet() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.open == 0
}

func (s *switcher) seen() []message {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.got
}

func (w farEnd) say(s string) { _, _ = io.WriteString(w, s) }

// reset ends a plain connection with a RST.
func reset(c net.Conn) {
	_ = c.(*net.TCPConn).SetLinger(0)
	_ = c.Close()
}

const (
	askWebSocket = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
	agreeWebSocket = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
)

// serveWebSocket is a small server of RFC 6455 that echoes messages.
func serveWebSocket(w farEnd, m message) {
	if len(m.has("sec-websocket-key")) != 1 {
		w.say("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
		return
	}
	sum := sha1.Sum([]byte(m.has("sec-websocket-key")[0] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	w.say("HTTP/1.1 101 Switching Protocols\r\nServer: test\r\nUpgrade: WebSocket\r\nConnection: upgrade\r\nSec-WebSocket-Accept: " +
		base64.StdEncoding.EncodeToString(sum[:]) + "\r\n\r\n")
	for {
		op, payload, err := readFrame(w.in)
		if err != nil {
			return
		}
		switch op {
		case opPing:
			op = opPong
		case opClose:
			_ = writeFrame(w, opClose, payload, false)
			return
		}
		if err := writeFrame(w, op, payload, false); err != nil {
			return
		}
	}
}

const (
	opText  = 1
	opClose = 8
	opPing  = 9
	opPong  = 10
)

func writeFrame(w io.Writer, op byte, payload []byte, masked bool) error {
	b := []byte{0x80 | op, 0}
	switch n := len(payload); {
	case n < 126:
		b[1] = byte(n)
	case n < 1<<16:
		b[1] = 126
		b = binary.BigEndian.AppendUint16(b, uint16(n))
	default:
		b[1] = 127
		b = binary.BigEndian.AppendUint64(b, uint64(n))
	}
	if !masked {
		_, err := w.Write(append(b, payload...))
		return err
	}
	b[1] |= 0x80
	mask := [4]byte{1, 2, 3, 4}
	b = append(b, mask[:]...)
	for i, c := range payload {
		b = append(b, c^mask[i%4])
	}
	_, err := w.Write(b)
	return err
}

func readFrame(in *bufio.Reader) (op byte, payload []byte, err error) {
	var h [14]byte
	if _, err = io.ReadFull(in, h[:2]); err != nil {
		return 0, nil, err
	}
	n := uint64(h[1] & 0x7f)
	switch n {
	case 126:
		_, err = io.ReadFull(in, h[2:4])
		n = uint64(binary.BigEndian.Uint16(h[2:]))
	case 127:
		_, err = io.ReadFull(in, h[2:10])
		n = binary.BigEndian.Uint64(h[2:])
	}
	if err != nil || n > 1<<24 {
		return 0, nil, fmt.Errorf("frame of %d bytes, %w", n, err)
	}
	var mask [4]byte
	if h[1]&0x80 != 0 {
		if _, err = io.ReadFull(in, mask[:]); err != nil {
			return 0, nil, err
		}
	}
	payload = make([]byte, n)
	_, err = io.ReadFull(in, payload)
	for i := range payload {
		payload[i] ^= mask[i%4]
	}
	return h[0] & 0xf, payload, err
}

// upgrading puts a route to s in force by which clients may switch protocols; more are members of the route.
func (r *gateRig) upgrading(s *switcher, more ...string) *gateRig {
	r.t.Helper()
	scheme := "http"
	if s.secure {
		scheme = "https"
	}
	doc := fmt.Sprintf(`{"uri":"/*","enable_websocket":true,"upstream":{"nodes":{%q:1},"scheme":%q}`, s.addr, scheme)
	return r.route("any", strings.Join(append([]string{doc}, more...), ",")+"}")
}

const withProbe = `"plugins":{"probe":{}}`

// ask makes a client's connection a tunnel and returns the head of the 101.
func (c *client) ask() string {
	c.t.Helper()
	head := c.say(askWebSocket).head()
	if !strings.HasPrefix(head, "HTTP/1.1 101 Switching Protocols\r\n") {
		c.t.Fatalf("answer %q", head)
	}
	return head
}

// dialTLS connects over a TLS listener of its own.
func (r *gateRig) dialTLS(t testing.TB, config *tls.Config, roots *x509.CertPool) *client {
	t.Helper()
	l, err := Listen(context.Background(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	r.tls.base = config
	go func() { served <- r.ServeTLS(l) }()
	t.Cleanup(func() {
		_ = l.Close()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	c, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{RootCAs: roots, ServerName: "gate.test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	return newClient(r, t, c)
}

func (r *gateRig) tunnels() float64 { return r.count(meter.UpgradedConnections) }

// settled waits until a switcher and the gateway have let go of everything, and n exchanges have ended.
func (r *gateRig) settled(s *switcher, n int) {
	r.t.Helper()
	r.eventually("every exchange ends", func() bool { return r.finished() >= n })
	r.eventually("nothing is open", func() bool {
		open, _ := r.hub.Connections()
		return r.open.Load() == 0 && r.busy.Load() == 0 && open == 0 && r.tunnels() == 0 && s.quiet()
	})
	r.unpinned()
	if got := r.finished(); got != n {
		r.t.Errorf("the done phase ran %d times, want %d", got, n)
	}
}
