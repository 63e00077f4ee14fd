package upstream

import (
	"bytes"
	"context"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"headgate/conf/resource"
	"headgate/proxy/fault"
	"headgate/proxy/phase"
	"headgate/proxy/upstream/dialtest"
)

// blackhole is an address that does not answer.
func blackhole(t testing.TB) *server {
	t.Helper()
	at := dialtest.Blackhole(t, netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 0))
	return &server{host: at.Addr().String(), port: int(at.Port())}
}

func TestConnectTimeout(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.def.Connect = 50 * time.Millisecond
	hole := blackhole(t)
	post(r.upstream(nil, hole)).wantFault(t, fault.ConnectTimeout)
	u := r.upstream(nil, hole, serve(t, answers(ok2)))
	for range 2 {
		post(u).want(t, 200, "ok")
	}
	if r.faults[0] != "connect_timeout" {
		t.Fatalf("reported %q", r.faults)
	}
}

// TestBlackholeAmongAddresses: an address that does not answer leaves time for the others.
func TestBlackholeAmongAddresses(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.def.Connect = time.Second
	r.def.Pool.Size = 0 // dial each time
	s := serve(t, answers(ok2))
	hole := netip.MustParseAddr("127.0.0.77")
	dialtest.Blackhole(t, netip.AddrPortFrom(hole, uint16(s.port))) // the same port on another address
	r.names = func(context.Context, string) ([]netip.Addr, error) {
		return []netip.Addr{hole, netip.MustParseAddr("127.0.0.1")}, nil
	}
	s.host = "two.test"
	u := r.upstream(nil, s)
	for range 2 {
		post(u).want(t, 200, "ok")
	}
}

func TestSocketShortage(t *testing.T) {
	for _, err := range []error{syscall.EMFILE, syscall.EADDRNOTAVAIL} {
		if !isSocketShortage(&net.OpError{Op: "dial", Err: os.NewSyscallError("socket", err)}) {
			t.Errorf("%v is a shortage", err)
		}
	}
	if isSocketShortage(syscall.ECONNREFUSED) {
		t.Error("refused is none")
	}
}

func TestReadTimeouts(t *testing.T) {
	t.Parallel()
	const head = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"
	for name, c := range map[string]struct {
		reply, code string
	}{
		"before the head":     {"", "head_timeout"},
		"in the head":         {"HTTP/1.1 200 OK\r\nContent-Le", "head_timeout"},
		"after interim":       {"HTTP/1.1 102 Processing\r\n\r\n", "head_timeout"},
		"in a short body":     {head + "part", "stream: read_timeout"},
		"in a long body":      {"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\npart", "stream: read_timeout"},
		"between chunks":      {chunkedHead + "2\r\nok\r\n", "stream: read_timeout"},
		"inside a chunk line": {chunkedHead + "2\r\nok\r\n1", "stream: read_timeout"},
		"before the close":    {"HTTP/1.1 200 OK\r\n\r\npart", "stream: read_timeout"},
	} {
		t.Run(name, func(t *testing.T) {
			overBoth(t, func(t *testing.T, r *rig, start func(func(p *peer)) *Upstream) {
				r.def.Read = 50 * time.Millisecond
				u := start(func(p *peer) {
					p.next()
					p.send(c.reply)
					p.gone()
				})
				got := post(u)
				if got.code() != c.code {
					t.Fatalf("got %q, want %q", got.code(), c.code)
				}
				if got.fault != nil && got.fault.Status != 504 {
					t.Fatalf("status %d", got.fault.Status)
				}
				r.connections(0, 0)
			})
		})
	}
}

// TestReadTimeoutIsBetweenReads: a body that keeps coming may take longer than the clock of one read.
func TestReadTimeoutIsBetweenReads(t *testing.T) {
	t.Parallel()
	for name, head := range map[string]string{"whole": "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n", "stream": "HTTP/1.1 200 OK\r\n\r\n"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.def.Read = time.Second
			u := r.upstream(nil, serve(t, func(p *peer) {
				p.next()
				p.send(head)
				for _, b := range []string{"a", "b", "c", "d", "e", "f"} {
					time.Sleep(200 * time.Millisecond)
					p.send(b)
				}
			}))
			get(u).want(t, 200, "abcdef")
		})
	}
}

var bigBody = string(bytes.Repeat([]byte("0123456789abcdef"), 1<<20)) // 16 MiB: more than socket buffers hold

func TestSendTimeout(t *testing.T) {
	t.Parallel()
	overBoth(t, func(t *testing.T, r *rig, start func(func(p *peer)) *Upstream) {
		r.def.Send = 100 * time.Millisecond
		done := make(chan struct{})
		defer close(done)
		u := start(func(p *peer) {
			if c, ok := p.Conn.(interface{ Handshake() error }); ok {
				_ = c.Handshake()
			}
			<-done
		})
		do(u, request("POST", "/", bigBody)).wantFault(t, fault.SendTimeout)
		r.connections(0, 0)
	})
}

func TestUpload(t *testing.T) {
	overBoth(t, func(t *testing.T, r *rig, start func(func(p *peer)) *Upstream) {
		u := start(func(p *peer) {
			answers(ok2)(p)
		})
		for i, size := range []int{joinLimit, joinLimit + 1, 3 << 20} {
			body := bigBody[:size]
			do(u, request("PUT", "/", body)).want(t, 200, "ok")
			if _, got, _ := strings.Cut(r.srv.seen()[i], "\r\n\r\n"); got != body {
				t.Fatalf("%d bytes arrived, or others; %d were sent", len(got), size)
			}
		}
	})
}

// TestEarlyAnswer: an upstream that answers before it has read the request is heard, and its connection is not used again.
func TestEarlyAnswer(t *testing.T) {
	const refusal = "HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig"
	for name, after := range map[string]func(p *peer){
		"stays without reading": func(p *peer) { <-p.s.closing },
		"closes":                func(*peer) {}, // unread bytes: a reset follows
	} {
		t.Run(name, func(t *testing.T) {
			overBoth(t, func(t *testing.T, r *rig, start func(func(p *peer)) *Upstream) {
				u := start(func(p *peer) {
					for line := ""; line != "\r\n"; {
						var err error
						if line, err = p.br.ReadString('\n'); err != nil {
							return
						}
					}
					p.send(refusal)
					after(p)
				})
				do(u, request("POST", "/", bigBody)).want(t, 413, "big")
				r.connections(0, 0)
			})
		})
	}
}

// dialed returns a connection that the pool of u's only node has just made.
func (u *Upstream) dialed(t *testing.T) *conn {
	t.Helper()
	c, f := u.nodes[0].pool.fresh(nil, 10*time.Second, 0)
	if f != nil {
		t.Fatal(f)
	}
	return c
}

// TestAnswerBeforeAnythingIsSent: even when not a byte of the request could be written, the answer that came before the reset is read.
func TestAnswerBeforeAnythingIsSent(t *testing.T) {
	const refusal = "HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy"
	for name, body := range map[string]string{"short": "data", "long": bigBody} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			dialed := make(chan struct{})
			u := r.upstream(nil, serve(t, func(p *peer) {
				<-dialed
				p.send(refusal)
				p.reset()
			}))
			c := u.dialed(t)
			close(dialed)
			eventually(t, "the reset arrives", c.unheard)
			x := request("POST", "/", body)
			if f := u.prepare(x, u.nodes[0]); f != nil {
				t.Fatal(f)
			}
			if _, f := u.exchange(x, u.nodes[0], c, time.Now()); f != nil || x.Response.Status != 503 || string(x.Response.Body) != "busy" {
				t.Fatalf("%v, status %d", f, x.Response.Status)
			}
			r.connections(0, 0)
		})
	}
}

// TestUploadEndsWithItsConnection: when a connection is given up, nobody reads the request body any more, which belongs to the client's
// connection and is about to be used for something else.
func TestUploadEndsWithItsConnection(t *testing.T) {
	t.Parallel()
	overBoth(t, func(t *testing.T, r *rig, start func(func(p *peer)) *Upstream) {
		u := start(func(p *peer) {
			if c, ok := p.Conn.(interface{ Handshake() error }); ok {
				_ = c.Handshake()
			}
			<-p.s.closing
		})
		for range 8 {
			c := u.dialed(t)
			c.startUpload(&phase.Request{Body: []byte(bigBody)}, 10*time.Second)
			up := c.upload
			c.abort()
			select {
			case <-up.done:
			default:
				t.Fatal("the body is still being sent")
			}
		}
	})
}

// TestUploadFailsBeforeTheAnswer: an upload that has failed leaves a moment for the answer.
func TestUploadFailsBeforeTheAnswer(t *testing.T) {
	r := newRig(t)
	answer := make(chan struct{})
	u := r.upstream(nil, serve(t, func(p *peer) {
		<-answer
		p.send(ok2)
		<-p.s.closing
	}))
	c := u.dialed(t)
	done := make(chan struct{})
	close(done)
	c.upload = &upload{done: done, err: syscall.EPIPE}
	close(answer)
	p := make([]byte, 100)
	if n, err := u.readDuringUpload(&phase.Exchange{}, c, p); err != nil || string(p[:n]) != ok2 || c.unsent != fault.SendFailed {
		t.Fatalf("%q, %v, unsent %v", p[:n], err, c.unsent)
	}
	c.release(true, 0, time.Now())
	r.connections(0, 0)
}

// TestClosedDuringUpload: without an answer, a request that was not sent whole is a failed one.
func TestClosedDuringUpload(t *testing.T) {
	r := newRig(t)
	u := r.upstream(nil, serve(t, func(p *peer) {
		_, _ = p.br.ReadString('\n')
	}))
	got := do(u, request("POST", "/", bigBody))
	if got.fault != fault.SendFailed && got.fault != fault.ClosedBeforeHead {
		t.Fatalf("got %q", got.code())
	}
	r.connections(0, 0)
	r.idleNodes(u)
}

// TestRouteTimeouts: a route's own clocks replace those of the upstream, the endpoints stay shared.
func TestRouteTimeouts(t *testing.T) {
	r := newRig(t)
	u := r.upstream(nil, silentServer(t))
	own := u.WithTimeout(&resource.Timeout{Connect: time.Second, Send: time.Second, Read: 20 * time.Millisecond})
	post(own).wantFault(t, fault.HeadTimeout)
	if u.WithTimeout(nil) != u || own.Name() != "test" || &own.nodes[0] != &u.nodes[0] {
		t.Fatal("not the same upstream")
	}
}

// The time that an attempt has taken is known when it has failed, too.
func TestTimeOfFailures(t *testing.T) {
	mute := serve(t, func(p *peer) {
		_, _ = p.next()
		p.gone()
	})
	for _, tt := range []struct {
		name   string
		server *server
		fault  *fault.Fault
		least  time.Duration
	}{
		{"no answer", mute, fault.HeadTimeout, 50 * time.Millisecond},
		{"nobody there", refused(t), fault.ConnectFailed, 1},
		{"closed", serve(t, once("HTTP/1.1 200")), fault.HeadCut, 1},
	} {
		r := newRig(t)
		if tt.fault == fault.HeadTimeout {
			r.def.Read = tt.least
		}
		x := request("GET", "/", "")
		do(r.upstream(retries(0), tt.server), x).wantFault(t, tt.fault)
		if took := x.Attempts.Took(); took < tt.least || x.Attempts.Head != 0 {
			t.Errorf("%s: took %v, head at %v", tt.name, took, x.Attempts.Head)
		}
	}
}
