package proxy

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// shortage marks the process in which TestListenerOutOfDescriptors may use all descriptors up.
const shortage = "HEADGATE_TEST_SHORTAGE"

// TestListenerOutOfDescriptors: with no descriptor left, clients in the queue are turned away at once instead of being left to wait, and
// when there are some again, they are served.
func TestListenerOutOfDescriptors(t *testing.T) {
	if os.Getenv(shortage) == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestListenerOutOfDescriptors$", "-test.v")
		cmd.Env = append(os.Environ(), shortage+"=1")
		if out, err := cmd.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("--- PASS: TestListenerOutOfDescriptors")) {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	l, err := Listen(context.Background(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	accepted := make(chan net.Conn)
	ended := make(chan error, 1)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				ended <- err
				return
			}
			accepted <- c
		}
	}()
	dial := func() net.Conn {
		t.Helper()
		c, err := net.DialTimeout("tcp", l.Addr().String(), patience)
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(patience))
		return c
	}
	first := dial()
	served := <-accepted

	var clients []int // made before the shortage, so that the test itself needs no descriptor during it
	for range 5 {
		fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &syscall.Timeval{Sec: int64(patience / time.Second)}); err != nil {
			t.Fatal(err)
		}
		clients = append(clients, fd)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 64, Max: 64}); err != nil {
		t.Fatal(err)
	}
	var hoard []*os.File
	for {
		f, err := os.Open(os.DevNull)
		if err != nil {
			break
		}
		hoard = append(hoard, f)
	}
	to := &syscall.SockaddrInet4{Port: l.Addr().(*net.TCPAddr).Port, Addr: [4]byte{127, 0, 0, 1}}
	for _, fd := range clients {
		if err := syscall.Connect(fd, to); err != nil {
			t.Fatal(err)
		}
		if n, err := syscall.Read(fd, make([]byte, 1)); n > 0 || err != nil && !errors.Is(err, syscall.ECONNRESET) {
			t.Fatalf("a client that there is no room for gets %d bytes, %v", n, err)
		}
	}
	for _, fd := range clients {
		_ = syscall.Close(fd)
	}
	for _, f := range hoard {
		_ = f.Close()
	}
	late := dial()
	late2 := <-accepted
	_, _ = late2.Write([]byte("x"))
	if n, err := late.Read(make([]byte, 1)); n != 1 || err != nil {
		t.Fatalf("after the shortage: %d, %v", n, err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept ends with %v", err)
	}
	if l.spare != nil {
		t.Error("the spare descriptor is still open")
	}
	for _, c := range []net.Conn{first, served, late, late2} {
		_ = c.Close()
	}
}

func TestListenerClose(t *testing.T) {
	l, err := Listen(context.Background(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if err := l.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a second Close: %v", err)
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept: %v", err)
	}
	if _, err := Listen(context.Background(), "127.0.0.1:x"); err == nil {
		t.Error("a port of letters was taken")
	}
}

// flaky is a listener whose errors pass.
type flaky struct {
	net.Listener
	fails int
}

func (f *flaky) Accept() (net.Conn, error) {
	if f.fails > 0 {
		f.fails--
		return nil, &net.OpError{Op: "accept", Err: syscall.ECONNABORTED}
	}
	return &scriptConn{}, nil
}

func (f *flaky) Close() error { return nil }

func TestListenerGoesOnAfterErrors(t *testing.T) {
	f := &flaky{fails: 3}
	l := &Listener{Listener: f, done: make(chan struct{})}
	if c, err := l.Accept(); err != nil || f.fails != 0 {
		t.Errorf("%v, %v", c, err)
	}
	f.fails = 1 << 30
	ended := make(chan error, 1)
	go func() {
		_, err := l.Accept()
		ended <- err
	}()
	_ = l.Close()
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept ends with %v", err)
	}
}

// A listener that is finished while it turns somebody away still comes to its end.
func TestListenerFinishDuringShortage(t *testing.T) {
	l, err := Listen(context.Background(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	l.Finish()
	l.shed() // which has a deadline of its own
	ended := make(chan error, 1)
	go func() {
		_, err := l.Accept()
		ended <- err
	}()
	select {
	case err := <-ended:
		if !errors.Is(err, net.ErrClosed) {
			t.Errorf("Accept ends with %v", err)
		}
	case <-time.After(patience):
		t.Error("Accept waits for newcomers")
	}
}

func TestConnAddresses(t *testing.T) {
	for _, tt := range []struct{ addr, text string }{{"192.0.2.1:81", "192.0.2.1"}, {"[::ffff:192.0.2.1]:81", "192.0.2.1"}, {"[2001:db8::1]:81", "2001:db8::1"}} {
		addr, port, text := address(net.TCPAddrFromAddrPort(netip.MustParseAddrPort(tt.addr)))
		if addr.String() != tt.text || string(text) != tt.text || port != 81 {
			t.Errorf("%s: %v %d %s", tt.addr, addr, port, text)
		}
	}
	if addr, port, text := address(&net.UnixAddr{Name: "x"}); addr.IsValid() || port != 0 || text != nil {
		t.Errorf("a socket in the file system: %v %d %s", addr, port, text)
	}
}

// TestListenerFinish: clients that are in the queue when the listener ends are still accepted; others are refused.
func TestListenerFinish(t *testing.T) {
	l, err := Listen(context.Background(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	const waiting = 20
	for range waiting {
		c, err := net.DialTimeout("tcp", l.Addr().String(), patience)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	l.Finish()
	for i := range waiting {
		c, err := l.Accept()
		if err != nil {
			t.Fatalf("client %d: %v", i, err)
		}
		if edge := edgeConnOf(c); edge == nil || edge.peerText == nil || edge.localPort == 0 {
			t.Errorf("client %d has no addresses: %+v", i, edge)
		}
		if _, err := c.Write([]byte("x")); err != nil {
			t.Error(err)
		}
		c.Close()
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v", err)
	}
	if _, err := net.DialTimeout("tcp", l.Addr().String(), patience); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a newcomer: %v", err)
	}
}

// Who waits in Accept while nobody comes is told of the end.
func TestListenerFinishWakes(t *testing.T) {
	l, err := Listen(context.Background(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error)
	go func() {
		_, err := l.Accept()
		ended <- err
	}()
	l.Finish()
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v", err)
	}
}
