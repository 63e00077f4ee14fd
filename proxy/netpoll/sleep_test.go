package netpoll

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"
)

// TestNudge: a read that yields is nudged, now or when it comes to wait; one that does not goes on; what is sent meanwhile arrives.
func TestNudge(t *testing.T) {
	for _, deadline := range []time.Time{{}, time.Now().Add(time.Hour)} {
		near, far := sockets(t)
		_ = near.SetReadDeadline(deadline)
		buf := make([]byte, 8)
		for i := range 200 {
			near.Yields(true)
			var nudging sync.WaitGroup
			nudging.Go(near.Nudge)
			n, err := near.Read(buf)
			var temporary interface{ Temporary() bool }
			if n != 0 || err != ErrNudged || !errors.As(err, &temporary) || !temporary.Temporary() {
				t.Fatal(n, err)
			}
			nudging.Wait()
			near.Yields(false)
			nudging.Go(func() {
				near.Nudge()
				_, _ = far.Write([]byte("x"))
			})
			_ = near.SetReadDeadline(deadline)
			if n, err := near.Read(buf); n != 1 || err != nil {
				t.Fatalf("round %d: %d, %v", i, n, err)
			}
			nudging.Wait()
		}
	}
}

// TestNudgeDeadlines: a nudge takes no deadline away, and neither do deadlines an interruption.
func TestNudgeDeadlines(t *testing.T) {
	near, _ := sockets(t)
	_ = near.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	near.Nudge()
	if _, err := near.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}
	_ = near.SetReadDeadline(time.Now().Add(time.Hour))
	near.Yields(true)
	near.Nudge()
	near.Interrupt()
	if _, err := near.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}
}

// sleeper counts how often it is woken.
type sleeper chan struct{}

func (s sleeper) Wake() { s <- struct{}{} }

// TestSleep: whoever sleeps is woken once, by bytes that came before or come later and by every kind of end, and bytes do not count as leaving.
func TestSleep(t *testing.T) {
	w := newWatcher(t)
	for _, how := range []string{"bytes", "close", "end", "reset"} {
		t.Run(how, func(t *testing.T) {
			for i := range 50 {
				near, far := tcp(t)
				c, p, s := NewConn(near), &Presence{}, make(sleeper, 2)
				w.Add(c, p)
				happens := func() {
					if how != "bytes" {
						leave(far, how)
					} else if _, err := far.Write([]byte("x")); err != nil {
						t.Error(err)
					}
				}
				if i%2 == 0 {
					happens()
				}
				if !w.Sleep(c, p, s) {
					t.Fatal("it cannot sleep")
				}
				if i%2 == 1 {
					happens()
				}
				<-s
				n, err := c.Read(make([]byte, 1))
				if how == "bytes" && (n != 1 || err != nil || p.Left()) || how != "bytes" && err == nil {
					t.Fatal(n, err, p.Left())
				}
				if how == "bytes" { // and it can be noticed when it leaves
					_ = far.Close()
				}
				<-p.Context().Done()
				w.Remove(p)
				_ = near.Close()
				if len(s) > 0 {
					t.Fatal("woken twice")
				}
			}
		})
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.free) != len(w.places) {
		t.Errorf("%d of %d places are free", len(w.free), len(w.places))
	}
}

// TestSleepAgain: one goes to sleep as often as one likes, and is left alone once it has been removed.
func TestSleepAgain(t *testing.T) {
	w := newWatcher(t)
	near, far := tcp(t)
	c, p, s := NewConn(near), &Presence{}, make(sleeper, 1)
	if w.Sleep(c, p, s) || (*Watcher)(nil).Sleep(c, p, s) {
		t.Error("nobody watches it")
	}
	w.Add(c, p)
	for range 100 {
		if !w.Sleep(c, p, s) {
			t.Fatal("it cannot sleep")
		}
		if _, err := far.Write([]byte("xy")); err != nil {
			t.Fatal(err)
		}
		<-s
		if _, err := io.ReadFull(c, make([]byte, 2)); err != nil {
			t.Fatal(err)
		}
	}
	if !w.Sleep(c, p, s) {
		t.Fatal("it cannot sleep")
	}
	w.Remove(p)
	_, _ = far.Write([]byte("x"))
	other, peer := tcp(t) // has the place now
	d, q := NewConn(other), &Presence{}
	w.Add(d, q)
	if !w.Sleep(d, q, s) {
		t.Fatal("it cannot sleep")
	}
	_, _ = peer.Write([]byte("x"))
	<-s
	select {
	case <-s:
		t.Error("woken after Remove")
	case <-time.After(20 * time.Millisecond):
	}
	w.Remove(q)
	_ = other.Close()
	w.Add(d, q)
	if q.Watched() || w.Sleep(d, q, s) {
		t.Error("a closed one sleeps")
	}
}

var _ net.Error = nudge{}
