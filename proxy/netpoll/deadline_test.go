package netpoll

import (
	"errors"
	"net"
	"os"
	"testing"
	"time"
)

// counted counts what reaches the poller.
type counted struct {
	net.Conn
	sets int
}

func (c *counted) SetReadDeadline(t time.Time) error {
	c.sets++
	return c.Conn.SetReadDeadline(t)
}

func pair(t *testing.T) (near *Conn, inner *counted, far net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	inner = &counted{Conn: a}
	return NewConn(inner), inner, b
}

func TestLaterDeadlineCostsNothing(t *testing.T) {
	c, inner, _ := pair(t)
	now := time.Now()
	for i := range 100 {
		for _, d := range []time.Duration{time.Minute, 10 * time.Second} { // as an idle timeout and a head timeout take turns
			if err := c.SetReadDeadline(now.Add(d + time.Duration(i)*time.Millisecond)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if inner.sets != 2 { // one minute, then ten seconds; everything later is later than that
		t.Errorf("the poller's timer was set %d times, want 2", inner.sets)
	}
}

func TestDeadlineHolds(t *testing.T) {
	c, _, far := pair(t)
	buf := make([]byte, 8)
	short, long := 30*time.Millisecond, 150*time.Millisecond

	// An extended deadline is not missed by the timer that was armed before, and holds in the end.
	start := time.Now()
	_ = c.SetReadDeadline(start.Add(short))
	_ = c.SetReadDeadline(start.Add(long))
	if _, err := c.Read(buf); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("read: %v, want a timeout", err)
	}
	if took := time.Since(start); took < long {
		t.Errorf("timed out after %v, before the %v that was asked for", took, long)
	}

	// Data in the extended time arrives.
	start = time.Now()
	_ = c.SetReadDeadline(start.Add(short))
	_ = c.SetReadDeadline(start.Add(time.Minute))
	time.AfterFunc(2*short, func() { _, _ = far.Write([]byte("x")) })
	if n, err := c.Read(buf); n != 1 || err != nil {
		t.Fatalf("read: %d, %v", n, err)
	}

	// A nearer one takes effect.
	start = time.Now()
	_ = c.SetReadDeadline(start.Add(short))
	if _, err := c.Read(buf); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("read: %v, want a timeout", err)
	}

	// None at all is none, even right after one has passed.
	_ = c.SetReadDeadline(time.Time{})
	time.AfterFunc(short, func() { _, _ = far.Write([]byte("z")) })
	if n, err := c.Read(buf); n != 1 || err != nil {
		t.Fatalf("read after a deadline that has passed: %d, %v", n, err)
	}
	_ = c.SetReadDeadline(time.Now().Add(short))
	_ = c.SetReadDeadline(time.Time{})
	time.AfterFunc(3*short, func() { _, _ = far.Write([]byte("y")) })
	if n, err := c.Read(buf); n != 1 || err != nil {
		t.Fatalf("read without a deadline: %d, %v", n, err)
	}
}

func TestWriteGoesOnAfterEarlyTimer(t *testing.T) {
	c, _, far := pair(t)
	big := make([]byte, 8<<20)
	_ = c.SetWriteDeadline(time.Now().Add(20 * time.Millisecond))
	_ = c.SetWriteDeadline(time.Now().Add(time.Minute))
	got := make(chan int64)
	go func() {
		time.Sleep(60 * time.Millisecond) // the early timer fires while the writer is stuck
		var n int64
		buf := make([]byte, 64<<10)
		for n < int64(len(big)) {
			k, err := far.Read(buf)
			n += int64(k)
			if err != nil {
				break
			}
		}
		got <- n
	}()
	if n, err := c.Write(big); n != len(big) || err != nil {
		t.Fatalf("write: %d of %d, %v", n, len(big), err)
	}
	if n := <-got; n != int64(len(big)) {
		t.Fatalf("%d of %d bytes arrived", n, len(big))
	}
}
