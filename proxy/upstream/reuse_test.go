package upstream

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"headgate/conf/resource"
	"headgate/proxy/fault"
)

// overBoth runs f on plain connections and on TLS.
func overBoth(t *testing.T, f func(t *testing.T, r *rig, start func(script func(p *peer)) *Upstream)) {
	t.Run("plain", func(t *testing.T) {
		r := newRig(t)
		f(t, r, func(script func(p *peer)) *Upstream { return r.upstream(nil, serve(t, script)) })
	})
	t.Run("tls", func(t *testing.T) {
		r := newRig(t)
		ca := newAuthority(t)
		f(t, r, func(script func(p *peer)) *Upstream { return r.secure(ca, nil, ca.server("upstream.test"), script) })
	})
}

// arrives returns when the gateway's next request has begun to arrive, without reading any of it.
func (p *peer) arrives() {
	raw, err := p.tcp.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Read(func(fd uintptr) bool {
		_, _, err := unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_PEEK)
		return err != unix.EAGAIN
	})
}

func TestUnsolicitedBytesOnIdleConnection(t *testing.T) {
	const poison = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nPOISON"
	overBoth(t, func(t *testing.T, r *rig, start func(func(p *peer)) *Upstream) {
		idle, poisoned := make(chan struct{}), make(chan struct{})
		u := start(func(p *peer) {
			p.next()
			p.send(ok2)
			if p.conn == 0 {
				<-idle
				p.send(poison)
				close(poisoned)
			}
			p.gone()
		})
		get(u).want(t, 200, "ok")
		r.connections(1, 1)
		close(idle)
		<-poisoned
		post(u).want(t, 200, "ok")
		r.connections(1, 1)
	})
}

func TestDoubledAnswers(t *testing.T) {
	for name, parts := range map[string][]string{
		"one write":   {ok2 + ok2},
		"two writes":  {ok2, ok2}, // two TLS records
		"one byte":    {ok2 + "x"},
		"empty lines": {ok2, "\r\n\r\n"},
		"chunked":     {chunkedHead + "2\r\nok\r\n0\r\n\r\n" + ok2},
		"interim":     {"HTTP/1.1 100 Continue\r\n\r\n" + ok2 + "HTTP/1.1 100 Continue\r\n\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			overBoth(t, func(t *testing.T, r *rig, start func(func(p *peer)) *Upstream) {
				u := start(func(p *peer) {
					for i := 0; ; i++ {
						q, ok := p.next()
						if !ok {
							return
						}
						if i > 0 { // never, unless the second part came late
							p.send("HTTP/1.1 500 Reused\r\nContent-Length: 0\r\n\r\n")
							return
						}
						_ = q
						for _, part := range parts {
							p.send(part)
						}
					}
				})
				get(u).want(t, 200, "ok")
				eventually(t, "the second answer is seen", func() bool { // by release, or by the next look into the socket
					for _, p := range u.nodes {
						p.pool.sweep(time.Now())
					}
					open, _ := r.hub.Connections()
					return open == 0
				})
				get(u).want(t, 200, "ok")
			})
		})
	}
}

// TestLeftoverInsideARecord: bytes that crypto/tls has decrypted and not yet handed out belong to nobody either.
func TestLeftoverInsideARecord(t *testing.T) {
	r := newRig(t)
	ca := newAuthority(t)
	whole := "HTTP/1.1 200 OK\r\nContent-Length: " + strconv.Itoa(firstRead)
	fill := firstRead - len(whole) - len("\r\nX: \r\n\r\n")
	// The first read takes exactly the space that there is: head, and a body that ends where the space ends.
	head := "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", fill) + "\r\nContent-Length: 000\r\n\r\n"
	body := firstRead - len(head)
	head = strings.Replace(head, "000", fmt.Sprintf("%03d", body), 1)
	reply := head + strings.Repeat("b", body)
	if len(reply) != firstRead {
		t.Fatalf("the reply has %d bytes", len(reply))
	}
	u := r.secure(ca, nil, ca.server("upstream.test"), func(p *peer) {
		for _, ok := p.next(); ok; _, ok = p.next() {
			p.send(reply + ok2) // one record
		}
	})
	for range 3 {
		get(u).want(t, 200, strings.Repeat("b", body))
	}
	r.connections(0, 0)
}

func TestLargeBodiesOverTLSAreReused(t *testing.T) {
	r := newRig(t)
	ca := newAuthority(t)
	body := strings.Repeat("0123456789abcdef", 16<<10) // ends with a full TLS record
	u := r.secure(ca, nil, ca.server("upstream.test"), answers("HTTP/1.1 200 OK\r\nContent-Length: "+strconv.Itoa(len(body))+"\r\n\r\n"+body))
	for range 3 {
		get(u).want(t, 200, body)
		r.connections(1, 1)
	}
}

func TestUpstreamClosesIdleConnection(t *testing.T) {
	overBoth(t, func(t *testing.T, r *rig, start func(func(p *peer)) *Upstream) {
		closed := make(chan struct{}, 3)
		u := start(func(p *peer) {
			if _, ok := p.next(); ok {
				p.send(ok2)
				_ = p.Close()
				closed <- struct{}{}
			}
		})
		for range 3 {
			post(u).want(t, 200, "ok")
			<-closed
		}
		if n := len(r.srv.seen()); n != 3 {
			t.Fatalf("%d requests arrived, 3 were made", n)
		}
	})
}

// TestClosedOnReuse: the upstream closes while the request is on its way. The request was not executed and is sent once more.
func TestClosedOnReuse(t *testing.T) {
	overBoth(t, func(t *testing.T, r *rig, start func(func(p *peer)) *Upstream) {
		u := start(func(p *peer) {
			p.next()
			p.send(ok2)
			if p.conn == 0 {
				p.arrives()
				_ = p.tcp.Close() // unread
				return
			}
			p.gone()
		})
		post(u).want(t, 200, "ok")
		x := request("POST", "/second", "data")
		do(u, x).want(t, 200, "ok")
		if n := len(r.srv.seen()); n != 2 || r.srv.connections() != 2 || x.Attempts.Count != 1 {
			t.Fatalf("%d requests executed on %d connections, %d attempts", n, r.srv.connections(), x.Attempts.Count)
		}
	})
}

// TestExecutedThenClosed: an upstream that has read the request and closes without an answer may have executed it. A POST is not
// sent again, not even when the connection had served before; a GET is.
func TestExecutedThenClosed(t *testing.T) {
	overBoth(t, func(t *testing.T, r *rig, start func(func(p *peer)) *Upstream) {
		for method, want := range map[string]int{"POST": 2, "GET": 3} {
			u := start(func(p *peer) {
				p.next()
				p.send(ok2)
				p.next() // executed
				if p.conn > 0 {
					p.send(ok2)
				}
			})
			get(u).want(t, 200, "ok")
			x := request(method, "/", "data")
			if got := do(u, x); method == "POST" {
				got.wantFault(t, fault.ClosedBeforeHead)
			} else {
				got.want(t, 200, "ok")
			}
			if n := len(r.srv.seen()); n != want {
				t.Fatalf("%s: %d requests executed, want %d", method, n, want)
			}
		}
	})
}

func TestInterimThenClosedOnReuse(t *testing.T) {
	r := newRig(t)
	s := serve(t, func(p *peer) {
		p.next()
		p.send(ok2)
		p.next()
		p.send("HTTP/1.1 100 Continue\r\n\r\n")
	})
	u := r.upstream(nil, s)
	get(u).want(t, 200, "ok")
	post(u).wantFault(t, fault.HeadCut)
	if n := len(s.seen()); n != 2 {
		t.Fatalf("%d requests executed, want 2", n)
	}
}

// TestTimeoutNoticeOnReuse: a 408 that closes a connection which had served before is about the connection, not about this request.
func TestTimeoutNoticeOnReuse(t *testing.T) {
	const notice = "HTTP/1.1 408 Request Time-out\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
	r := newRig(t)
	u := r.upstream(nil, serve(t, func(p *peer) {
		p.next()
		if p.conn == 2 {
			p.send(notice)
			return
		}
		p.send(ok2)
		p.next()
		p.send(notice)
	}))
	post(u).want(t, 200, "ok") // connection 0
	post(u).want(t, 200, "ok") // notice on 0, answered on 1
	post(u).want(t, 408, "")   // notice on 1, and again on 2, which is new
}

// manyEnv overrides how many requests the tests make that look for what happens once in many.
const manyEnv = "HEADGATE_MANY_REQUESTS"

func many(t *testing.T) int {
	n, err := strconv.Atoi(os.Getenv(manyEnv))
	if err != nil && os.Getenv(manyEnv) != "" {
		t.Fatalf("%s: %v", manyEnv, err)
	}
	return max(n, 2000)
}

// TestFault04ClosesOnReuse: no request is lost and none is executed twice, however the closing of a connection after every third answer and the
// next request meet.
func TestFault04ClosesOnReuse(t *testing.T) {
	r := newRig(t)
	const workers = 4
	each := many(t) / workers
	s := serve(t, func(p *peer) {
		for i := 0; ; i++ {
			if _, ok := p.next(); !ok {
				return
			}
			p.send(ok2)
			if i == 2 {
				return
			}
		}
	})
	u := r.upstream(nil, s)
	var wg sync.WaitGroup
	var failed atomic.Int64
	for w := range workers {
		wg.Go(func() {
			for i := range each {
				if got := do(u, request("POST", "/", fmt.Sprintf("id=%d.%d;", w, i))); got.code() != "" || got.body != "ok" {
					failed.Add(1)
					t.Errorf("request %d.%d: %s %q", w, i, got.code(), got.body)
				}
			}
		})
	}
	wg.Wait()
	seen := map[string]int{}
	for _, q := range s.seen() {
		seen[q[strings.Index(q, "id="):]]++
	}
	twice := 0
	for id, n := range seen {
		if n != 1 {
			twice++
			t.Errorf("%s executed %d times", id, n)
		}
	}
	if len(seen) != workers*each {
		t.Errorf("%d of %d requests executed", len(seen), workers*each)
	}
	t.Logf("F4: %d POSTs over %d connections that close after every third answer: %d errors, %d executed twice", workers*each, s.connections(),
		failed.Load(), twice)
}

// TestFault10ForeignAnswers: whatever an upstream sends beside its answers, no client gets what was meant for another one.
func TestFault10ForeignAnswers(t *testing.T) {
	r := newRig(t)
	answer := func(tenant string) string {
		return fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(tenant), tenant)
	}
	s := serve(t, func(p *peer) {
		for i := p.conn; ; i++ {
			q, ok := p.next()
			if !ok {
				return
			}
			tenant := q[strings.Index(q, "id="):]
			switch i % 8 {
			case 1:
				p.send(answer(tenant) + answer(tenant))
			case 3:
				p.send(answer(tenant) + "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + tenant)
			case 5:
				p.send(answer(tenant) + "\r\n")
			case 7:
				p.send("HTTP/1.1 103 Early Hints\r\nLink: </" + tenant + ">\r\n\r\n" + answer(tenant) + "HTTP/1.1 100 Continue\r\n\r\n")
			default:
				p.send(answer(tenant))
			}
		}
	})
	u := r.upstream(nil, s)
	const workers = 4
	each := many(t) / workers
	var wg sync.WaitGroup
	var foreign, failed atomic.Int64
	for w := range workers {
		wg.Go(func() {
			for i := range each {
				id := fmt.Sprintf("id=%d.%d;", w, i)
				switch got := do(u, request("POST", "/", id)); {
				case got.code() != "":
					failed.Add(1)
					t.Errorf("%s got %s", id, got.code())
				case got.body != id:
					foreign.Add(1)
					t.Errorf("%s got %q", id, got.body)
				}
			}
		})
	}
	wg.Wait()
	t.Logf("F10: %d requests of as many tenants over %d connections with unsolicited bytes: %d foreign answers, %d errors", workers*each, s.connections(),
		foreign.Load(), failed.Load())
}

func TestMaxRequests(t *testing.T) {
	r := newRig(t)
	r.def.Pool.MaxRequests = 3
	s := serve(t, answers(ok2))
	u := r.upstream(nil, s)
	for range 7 {
		get(u).want(t, 200, "ok")
	}
	if n := s.connections(); n != 3 {
		t.Fatalf("%d connections for 7 requests of at most 3 each", n)
	}
	r.connections(1, 1)
}

func TestIdleTimeout(t *testing.T) {
	for name, c := range map[string]struct {
		idle  time.Duration
		reply string
		after time.Duration
		kept  bool
	}{
		"within":                     {4 * time.Second, ok2, 3 * time.Second, true},
		"over":                       {4 * time.Second, ok2, 5 * time.Second, false},
		"no limit":                   {0, ok2, 24 * time.Hour, true},
		"upstream waits less":        {time.Minute, "HTTP/1.1 200 OK\r\nKeep-Alive: timeout=5, max=9\r\nContent-Length: 2\r\n\r\nok", 5 * time.Second, false},
		"upstream waits long enough": {time.Minute, "HTTP/1.1 200 OK\r\nKeep-Alive: Timeout=5\r\nContent-Length: 2\r\n\r\nok", 3 * time.Second, true},
		"upstream waits longer":      {4 * time.Second, "HTTP/1.1 200 OK\r\nKeep-Alive: timeout=60\r\nContent-Length: 2\r\n\r\nok", 5 * time.Second, false},
		"only the upstream limits":   {0, "HTTP/1.1 200 OK\r\nKeep-Alive: timeout=60\r\nContent-Length: 2\r\n\r\nok", time.Minute, false},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.def.Pool.IdleTimeout = c.idle
			u := r.upstream(nil, serve(t, answers(c.reply)))
			get(u).want(t, 200, "ok")
			r.connections(1, 1)
			pool, later := u.nodes[0].pool, time.Now().Add(c.after)
			idle := pool.slots[0].conn.Load()
			for i := range pool.slots {
				if idle == nil {
					idle = pool.slots[i].conn.Load()
				}
			}
			if got := pool.usable(idle, later); got != c.kept {
				t.Fatalf("usable after %v: %t", c.after, got)
			}
			pool.sweep(later)
			if c.kept {
				r.connections(1, 1)
			} else {
				r.connections(0, 0)
			}
		})
	}
}

func TestPoolSize(t *testing.T) {
	for _, size := range []int{0, 1, 3} {
		r := newRig(t)
		r.def.Pool.Size = size
		const n = 5
		var all sync.WaitGroup
		all.Add(n)
		u := r.upstream(nil, serve(t, func(p *peer) {
			p.next()
			all.Done()
			all.Wait() // all at once
			p.send(ok2)
			p.gone()
		}))
		var wg sync.WaitGroup
		for range n {
			wg.Go(func() {
				if got := get(u); got.body != "ok" {
					t.Errorf("%s", got.code())
				}
			})
		}
		wg.Wait()
		r.connections(size, size)
	}
}

// TestPoolsFollowTheirUsers: a pool lives as long as one compiled upstream uses it, and idle connections outlive an edit.
func TestPoolsFollowTheirUsers(t *testing.T) {
	r := newRig(t)
	s := serve(t, answers(ok2))
	doc := &resource.Upstream{Type: "roundrobin", Scheme: "http", PassHost: "pass", Nodes: []resource.Node{{Host: s.host, Port: s.port, Weight: 1}}}
	compile := func(prev *Upstream) *Upstream {
		u, err := Compile(r.hub, doc, "test", r.def, prev)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	first := compile(nil)
	get(first).want(t, 200, "ok")
	doc.PassHost = "node"
	second := compile(first)
	first.Close()
	r.connections(1, 1)
	get(second).want(t, 200, "ok")
	if n := s.connections(); n != 1 {
		t.Fatalf("%d connections, the edit should have kept the first", n)
	}
	doc.KeepalivePool = &resource.KeepalivePool{Size: 5, IdleTimeout: time.Second, Requests: 5}
	third := compile(second)
	second.Close()
	r.connections(0, 0)
	get(third).want(t, 200, "ok")
	third.Close()
	get(third).want(t, 200, "ok") // an exchange that began before
	r.connections(0, 0)
}
