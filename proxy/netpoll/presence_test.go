package netpoll

import (
	"errors"
	"net"
	"os"
	"sync"
	"testing"
	"time"
)

func newWatcher(t testing.TB) *Watcher {
	t.Helper()
	w, err := NewWatcher()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return w
}

// leave ends the far end of a connection in one of the ways there are.
func leave(c net.Conn, how string) {
	switch how {
	case "end":
		_ = c.(*net.TCPConn).CloseWrite()
	case "reset":
		_ = c.(*net.TCPConn).SetLinger(0)
		_ = c.Close()
	default:
		_ = c.Close()
	}
}

// TestPresence: a client that leaves interrupts what is awaited for it, whatever it has sent before, and whenever it leaves.
func TestPresence(t *testing.T) {
	w := newWatcher(t)
	for _, how := range []string{"close", "end", "reset"} {
		t.Run(how, func(t *testing.T) {
			for i := range 50 {
				near, far := tcp(t)
				p := &Presence{}
				w.Add(NewConn(near), p)
				up, _ := tcp(t)
				awaited := NewConn(up)
				if i%2 == 0 {
					_, _ = far.Write([]byte("not read by anybody"))
				}
				if i%3 == 0 {
					leave(far, how)
				}
				p.Await(awaited)
				if i%3 == 1 {
					leave(far, how)
				} else if i%3 == 2 {
					time.AfterFunc(time.Millisecond, func() { leave(far, how) })
				}
				_ = awaited.SetReadDeadline(time.Now().Add(time.Hour))
				if _, err := awaited.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Fatal(err)
				}
				if p.Done() || !p.Left() {
					t.Fatal("it has not left")
				}
				w.Remove(p)
				_, _ = near.Close(), up.Close()
			}
		})
	}
	if len(w.free) != len(w.places) {
		t.Errorf("%d of %d places are free", len(w.free), len(w.places))
	}
}

func TestPresenceOfOneThatStays(t *testing.T) {
	w := newWatcher(t)
	near, far := tcp(t)
	for _, p := range []*Presence{nil, {}, {}} {
		if p != nil {
			w.Add(NewConn(near), p)
		}
		_, _ = far.Write([]byte("more"))
		up, other := tcp(t)
		awaited := NewConn(up)
		p.Await(awaited)
		_, _ = other.Write([]byte("x"))
		if n, err := awaited.Read(make([]byte, 1)); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		if !p.Done() || p.Left() {
			t.Error("it has left")
		}
		if p != nil {
			w.Remove(p)
		}
		_, _ = up.Close(), other.Close()
	}
}

// TestPresenceRace: nobody interrupts a connection after Done has given it back.
func TestPresenceRace(t *testing.T) {
	up, _ := tcp(t)
	for range 2000 {
		p, c := &Presence{}, NewConn(up)
		var both sync.WaitGroup
		both.Go(p.Leave)
		p.Await(c)
		mine := p.Done()
		both.Wait()
		if mine && c.Interrupted() {
			t.Fatal("interrupted after Done")
		}
		if !mine && !c.Interrupted() {
			t.Fatal("lost, and not interrupted")
		}
	}
}

// TestPresenceContext: whenever the client leaves and whenever somebody asks, whoever waits learns of it; nobody who stays is said to have left.
func TestPresenceContext(t *testing.T) {
	for i := range 2000 {
		p := &Presence{}
		var all sync.WaitGroup
		all.Go(p.Leave)
		for range 2 {
			all.Go(func() { <-p.Context().Done() })
		}
		if i%2 == 0 {
			p.Leave() // twice is once
		}
		all.Wait()
		if p.Context() != p.Context() {
			t.Fatal("each call makes a context of its own")
		}
	}
	for _, p := range []*Presence{nil, {}} {
		if err := p.Context().Err(); err != nil {
			t.Error(err)
		}
	}
}

// TestPresencePlaces: what the kernel says of a connection that is gone does not count for the one that has its place.
func TestPresencePlaces(t *testing.T) {
	w := newWatcher(t)
	for range 200 {
		near, far := tcp(t)
		var first, second Presence
		w.Add(NewConn(near), &first)
		_ = far.Close()
		w.Remove(&first)
		_ = near.Close()
		near, _ = tcp(t)
		w.Add(NewConn(near), &second)
		if second.Left() {
			t.Fatal("the second has left")
		}
		w.Remove(&second)
		_ = near.Close()
	}
}

func TestAllocPresence(t *testing.T) {
	up, _ := tcp(t)
	p, c := &Presence{}, NewConn(up)
	if n := testing.AllocsPerRun(100, func() {
		p.Await(c)
		p.Done()
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkPresence(b *testing.B) {
	p, c := &Presence{}, &Conn{}
	for b.Loop() {
		p.Await(c)
		p.Done()
	}
}
