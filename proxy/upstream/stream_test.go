package upstream

import (
	"io"
	"strings"
	"testing"

	"headgate/proxy/fault"
)

// TestPieces: what the upstream has flushed can be read before it sends more.
func TestPieces(t *testing.T) {
	for name, c := range map[string]struct {
		head   string
		frame  func(piece string) string
		end    string
		size   int64
		reused bool
	}{
		"chunked": {chunkedHead, func(p string) string { return "3\r\n" + p + "\r\n" }, "0\r\n\r\n", -1, true},
		"length":  {"HTTP/1.1 200 OK\r\nContent-Length: 9006\r\n\r\n" + strings.Repeat("x", 9000), func(p string) string { return p }, "", 9006, true},
		"close":   {"HTTP/1.1 200 OK\r\n\r\n", func(p string) string { return p }, "", -1, false},
	} {
		t.Run(name, func(t *testing.T) {
			overBoth(t, func(t *testing.T, r *rig, start func(func(p *peer)) *Upstream) {
				step := make(chan struct{})
				defer close(step)
				u := start(func(p *peer) {
					p.next()
					p.send(c.head)
					for _, piece := range []string{"one", "two"} {
						<-step
						p.send(c.frame(piece))
					}
					<-step
					p.send(c.end)
					if c.reused {
						p.gone()
					}
				})
				x := request("GET", "/", "")
				if f := u.Forward(x); f != nil {
					t.Fatal(f)
				}
				s := x.Response.Stream
				if s == nil || x.Response.Size != c.size || x.Response.Status != 200 {
					t.Fatalf("stream %v, size %d, status %d", s, x.Response.Size, x.Response.Status)
				}
				if c.size > 0 {
					got := 0
					for got < 9000 {
						p, err := s.Next()
						if err != nil {
							t.Fatal(err)
						}
						got += len(p)
					}
				}
				for _, want := range []string{"one", "two"} {
					step <- struct{}{}
					p, err := s.Next()
					if err != nil || string(p) != want {
						t.Fatalf("piece %q, %v; want %q", p, err, want)
					}
				}
				step <- struct{}{}
				for range 2 {
					if p, err := s.Next(); err != io.EOF || len(p) > 0 {
						t.Fatalf("end: %q, %v", p, err)
					}
				}
				if x.Attempts.End != 0 {
					t.Fatal("ended before Close")
				}
				s.Close()
				if x.Attempts.End == 0 {
					t.Fatal("no end")
				}
				if c.reused {
					r.connections(1, 1)
				} else {
					r.connections(0, 0)
				}
				r.idleNodes(u)
			})
		})
	}
}

// TestCloseBeforeTheEnd gives the connection up, and the upstream notices.
func TestCloseBeforeTheEnd(t *testing.T) {
	overBoth(t, func(t *testing.T, r *rig, start func(func(p *peer)) *Upstream) {
		gone := make(chan struct{})
		u := start(func(p *peer) {
			p.next()
			p.send(chunkedHead, "3\r\none\r\n")
			p.gone()
			close(gone)
		})
		x := request("GET", "/", "")
		if f := u.Forward(x); f != nil {
			t.Fatal(f)
		}
		if p, err := x.Response.Stream.Next(); err != nil || string(p) != "one" {
			t.Fatalf("%q, %v", p, err)
		}
		x.Response.Stream.Close()
		<-gone
		r.connections(0, 0)
		r.idleNodes(u)
	})
}

// TestCloseAfterTheLastByte: who knows the length need not ask for the end.
func TestCloseAfterTheLastByte(t *testing.T) {
	r := newRig(t)
	u := r.upstream(nil, serve(t, answers("HTTP/1.1 200 OK\r\nContent-Length: 20000\r\n\r\n"+strings.Repeat("x", 20000))))
	for range 2 {
		x := request("GET", "/", "")
		if f := u.Forward(x); f != nil {
			t.Fatal(f)
		}
		for got := 0; got < 20000; {
			p, err := x.Response.Stream.Next()
			if err != nil {
				t.Fatal(err)
			}
			got += len(p)
		}
		x.Response.Stream.Close()
		r.connections(1, 1)
	}
}

// TestFaultSticks: a body that has failed stays failed.
func TestFaultSticks(t *testing.T) {
	r := newRig(t)
	u := r.upstream(nil, serve(t, once(chunkedHead+"3\r\none\r\n")))
	x := request("GET", "/", "")
	if f := u.Forward(x); f != nil {
		t.Fatal(f)
	}
	s := x.Response.Stream
	if _, err := s.Next(); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if p, err := s.Next(); err != fault.BodyCut || p != nil {
			t.Fatalf("%q, %v", p, err)
		}
	}
	s.Close()
	r.connections(0, 0)
}

// TestExtraBytesBehindAStream keep the connection out of the pool.
func TestExtraBytesBehindAStream(t *testing.T) {
	body := strings.Repeat("x", 20000)
	for name, reply := range map[string]string{
		"length":  "HTTP/1.1 200 OK\r\nContent-Length: 20000\r\n\r\n" + body,
		"chunked": chunkedHead + "4e20\r\n" + body + "\r\n0\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			overBoth(t, func(t *testing.T, r *rig, start func(func(p *peer)) *Upstream) {
				u := start(func(p *peer) {
					p.next()
					p.send(reply + "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nPOISON")
					p.gone()
				})
				for range 2 {
					get(u).want(t, 200, body)
				}
			})
		})
	}
}
