package netpoll

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"syscall"
	"testing"
	"time"
)

// tcp returns the two ends of a connection.
func tcp(t *testing.T) (a, b net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if a, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if b, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

// sockets returns both ends, the near one on the raw path.
func sockets(t *testing.T) (near *Conn, far *net.TCPConn) {
	t.Helper()
	a, b := tcp(t)
	near = NewConn(a)
	if direct && near.raw == nil {
		t.Fatal("a TCP connection is not read directly")
	}
	if near.raw == nil {
		rc, err := a.(syscall.Conn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		near.raw = newRaw(rc)
	}
	return near, b.(*net.TCPConn)
}

func TestRawTransfersEverything(t *testing.T) {
	near, far := sockets(t)
	sent := make([]byte, 8<<20) // far more than the kernel buffers, so that writes are interrupted and waited for
	for i := range sent {
		sent[i] = byte(rand.Uint32())
	}
	echoed := make(chan error, 1)
	go func() {
		_, err := io.Copy(far, far)
		echoed <- errors.Join(err, far.CloseWrite())
	}()
	go func() {
		if n, err := near.Write(sent); n != len(sent) || err != nil {
			t.Errorf("write: %d, %v", n, err)
		}
		_ = near.CloseWrite()
	}()
	got, err := io.ReadAll(readerOnly{near})
	if err != nil || !bytes.Equal(got, sent) {
		t.Fatalf("read %d of %d bytes, %v", len(got), len(sent), err)
	}
	if err := <-echoed; err != nil {
		t.Fatal(err)
	}
}

type readerOnly struct{ io.Reader }

func TestRawErrors(t *testing.T) {
	buf := make([]byte, 16)

	near, far := sockets(t)
	if n, err := near.Read(nil); n != 0 || err != nil {
		t.Errorf("an empty read: %d, %v", n, err)
	}
	_ = far.CloseWrite()
	if n, err := near.Read(buf); n != 0 || err != io.EOF {
		t.Errorf("after the end: %d, %v", n, err)
	}

	near, far = sockets(t)
	_ = far.SetLinger(0)
	_ = far.Close() // a reset
	if _, err := near.Read(buf); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read after a reset: %v", err)
	}
	if _, err := near.Write(buf); !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("write after a reset: %v", err)
	}

	near, _ = sockets(t)
	_ = near.Close()
	if _, err := near.Read(buf); !errors.Is(err, net.ErrClosed) {
		t.Errorf("read after close: %v", err)
	}
	if _, err := near.Write(buf); !errors.Is(err, net.ErrClosed) {
		t.Errorf("write after close: %v", err)
	}
}

func TestRawDeadlines(t *testing.T) {
	near, far := sockets(t)
	const short = 40 * time.Millisecond
	buf := make([]byte, 16)

	_ = near.SetReadDeadline(time.Now().Add(short))
	_, err := near.Read(buf)
	var timeout net.Error
	if !errors.Is(err, os.ErrDeadlineExceeded) || !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Fatalf("read: %v, want a timeout", err)
	}
	_ = near.SetReadDeadline(time.Now().Add(time.Minute))
	if _, err := far.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if n, err := near.Read(buf); n != 1 || err != nil {
		t.Fatalf("read after a timeout: %d, %v", n, err)
	}

	// A writer that nobody reads from stops at its deadline and tells how far it got.
	big := make([]byte, 64<<20)
	_ = near.SetWriteDeadline(time.Now().Add(short))
	n, err := near.Write(big)
	if !errors.Is(err, os.ErrDeadlineExceeded) || n <= 0 || n >= len(big) {
		t.Fatalf("write: %d, %v", n, err)
	}
}

func TestRawReadIsWokenByClose(t *testing.T) {
	near, _ := sockets(t)
	woken := make(chan error)
	go func() {
		_, err := near.Read(make([]byte, 1))
		woken <- err
	}()
	time.Sleep(10 * time.Millisecond) // mostly, the reader waits by now; the outcome must be the same if it doesn't
	_ = near.Close()
	if err := <-woken; !errors.Is(err, net.ErrClosed) {
		t.Fatalf("read: %v", err)
	}
}

func TestRawAllocs(t *testing.T) {
	near, far := sockets(t)
	fnear := NewConn(far)
	buf, echo := make([]byte, 64), make([]byte, 64)
	n := testing.AllocsPerRun(200, func() {
		if _, err := near.Write(buf); err != nil {
			t.Fatal(err)
		}
		if _, err := fnear.Read(echo); err != nil {
			t.Fatal(err)
		}
	})
	if n != 0 {
		t.Errorf("%v allocations for a write and a read", n)
	}
}
