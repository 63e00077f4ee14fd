package netpoll

import (
	"errors"
	"io"
	"math/rand/v2"
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
	a, b := tcp(t)
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

// TestAlternatingDeadlines asks for deadlines at random, in the past, none, nearer and farther, and compares what a read says with what
// the last wish alone would have made it say.
func TestAlternatingDeadlines(t *testing.T) {
	c, _, far := pair(t)
	rnd := rand.New(rand.NewPCG(1, 2))
	buf := make([]byte, 8)
	for step := range 150 {
		kind := 0
		for range 1 + rnd.IntN(4) { // only the last counts
			at := time.Now()
			switch kind = rnd.IntN(4); kind {
			case 0:
				at = time.Time{}
			case 1:
				at = at.Add(-time.Duration(rnd.IntN(int(time.Hour))))
			case 2:
				at = at.Add(time.Minute)
			default:
				at = at.Add(time.Duration(1+rnd.IntN(4)) * time.Millisecond)
			}
			if err := c.SetReadDeadline(at); err != nil {
				t.Fatal(err)
			}
		}
		if kind == 0 || kind == 2 {
			if _, err := far.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			if n, err := c.Read(buf); n != 1 || err != nil {
				t.Fatalf("step %d: with time left: %d, %v", step, n, err)
			}
			continue
		}
		if n, err := c.Read(buf); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("step %d: past the deadline: %d, %v", step, n, err)
		}
	}
}

// A deadline that has passed fails a read even when there is something to read, as with any net.Conn.
func TestPassedDeadlineBeatsData(t *testing.T) {
	c, _, far := pair(t)
	if _, err := far.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(time.Hour))
	_ = c.SetReadDeadline(time.Now().Add(-time.Hour))
	buf := make([]byte, 8)
	for range 2 {
		if n, err := c.Read(buf); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("%d, %v", n, err)
		}
	}
	_ = c.SetReadDeadline(time.Time{})
	if n, err := c.Read(buf); n != 1 || err != nil {
		t.Fatalf("the byte is lost: %d, %v", n, err)
	}
}

func TestNoDeadlineCostsNothing(t *testing.T) {
	c, inner, _ := pair(t)
	for range 10 {
		if err := c.SetDeadline(time.Time{}); err != nil {
			t.Fatal(err)
		}
	}
	if inner.sets != 0 {
		t.Errorf("the poller's timer was set %d times", inner.sets)
	}
}

// TestBothDirectionsAtOnce has one goroutine read and one write, each with its own clock; the race detector watches.
func TestBothDirectionsAtOnce(t *testing.T) {
	c, _, far := pair(t)
	go func() { _, _ = io.Copy(far, far) }() // echo
	const total = 1 << 20
	sent := make(chan error, 1)
	go func() {
		piece := make([]byte, 1000)
		for n := 0; n < total; {
			_ = c.SetWriteDeadline(time.Now().Add(time.Duration(1+n%2) * time.Minute))
			k, err := c.Write(piece[:min(len(piece), total-n)])
			if n += k; err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	buf := make([]byte, 4096)
	for got := 0; got < total; {
		_ = c.SetReadDeadline(time.Now().Add(time.Duration(1+got%2) * time.Minute))
		n, err := c.Read(buf)
		if got += n; err != nil {
			t.Fatalf("after %d bytes: %v", got, err)
		}
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
}

func TestCloseWriteEndsOneDirection(t *testing.T) {
	c, inner, far := pair(t)
	if err := NewConn(inner.Conn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := far.Read(make([]byte, 1)); err != io.EOF {
		t.Fatalf("the far end reads %v, want EOF", err)
	}
	if _, err := far.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(make([]byte, 1)); n != 1 || err != nil {
		t.Fatalf("the other direction: %d, %v", n, err)
	}
}

func BenchmarkSetReadDeadline(b *testing.B) {
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	for name, c := range map[string]net.Conn{"lazy": NewConn(near), "bare": near} {
		b.Run(name, func(b *testing.B) {
			at := time.Now().Add(time.Minute)
			for b.Loop() {
				at = at.Add(time.Millisecond)
				_ = c.SetReadDeadline(at)
			}
		})
	}
}

// TestInterrupt: whoever reads gets out, whenever the interruption comes, and whatever deadlines it sets meanwhile.
func TestInterrupt(t *testing.T) {
	for range 200 {
		_, inner, _ := pair(t)
		c := NewConn(inner.Conn)
		out := make(chan error)
		go func() {
			for {
				_ = c.SetReadDeadline(time.Now().Add(time.Hour))
				if _, err := c.Read(make([]byte, 1)); err != nil {
					out <- err
					return
				}
			}
		}()
		c.Interrupt()
		if err := <-out; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		_ = c.Close()
	}
}

// TestLinger: the far end goes on sending after the near one has said its last word, and gets that word.
func TestLinger(t *testing.T) {
	c, _, far := pair(t)
	if _, err := c.Write([]byte("enough")); err != nil {
		t.Fatal(err)
	}
	sent := make(chan error)
	go func() {
		_, err := far.Write(make([]byte, 8<<20))
		_ = far.(*net.TCPConn).CloseWrite()
		sent <- err
	}()
	Linger(c.Conn.(*counted).Conn)
	_ = c.Close()
	if err := <-sent; err != nil {
		t.Error(err)
	}
	if got, err := io.ReadAll(far); string(got) != "enough" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}
