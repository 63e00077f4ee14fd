package proxy

import (
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"headgate/proxy/fault"
	"headgate/proxy/meter"
	"headgate/proxy/phase"
)

// TestUpgradeClocks: a tunnel on which nothing moves ends, and one that has a lifetime ends although something does. Both sides see that it
// was cut.
func TestUpgradeClocks(t *testing.T) {
	const brief = `"timeout":{"connect":5,"send":0.1,"read":0.2}` // read is the clock of the 101, too
	for _, tt := range []struct {
		name, fault string
		lifetime    time.Duration
		members     []string
		busy        bool
	}{
		{"idle", "upgrade_idle", 0, []string{withProbe, brief}, false},
		{"expired", "upgrade_expired", 30 * time.Millisecond, []string{withProbe}, true},
		{"expired and idle", "upgrade_expired", 30 * time.Millisecond, []string{withProbe}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			heard := make(chan error, 1)
			s := newSwitcher(t, nil, func(w farEnd, _ message) {
				w.say(agreeWebSocket)
				_, err := io.Copy(w, w.in)
				heard <- err
			})
			o := defaults()
			o.UpgradeLifetime = tt.lifetime
			r := newGate(t, o).upgrading(s, tt.members...)
			c := r.dial(t)
			c.ask()
			var err error
			for err == nil {
				if tt.busy {
					_, err = io.WriteString(c, "x")
				}
				if err == nil {
					_, err = c.in.ReadByte()
				}
			}
			cut := func(err error) bool { return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) }
			if !cut(err) {
				t.Errorf("the client gets %v", err)
			}
			if err := <-heard; !cut(err) {
				t.Errorf("the upstream gets %v", err)
			}
			_ = c.Close()
			r.settled(s, 1)
			if got := r.count(meter.Faults, meter.Label{Name: "side", Value: "gateway"}, meter.Label{Name: "code", Value: tt.fault}); got != 1 {
				t.Errorf("%s was counted %v times", tt.fault, got)
			}
			if line := r.lines(1)[0]; !strings.Contains(line, " 101 ") {
				t.Errorf("log: %s", line)
			}
		})
	}
}

// TestUpgradeDue is the arithmetic of the clocks.
func TestUpgradeDue(t *testing.T) {
	const idle = time.Minute
	for _, tt := range []struct {
		name                 string
		lifetime, age, moved time.Duration
		answered             bool
		fault                *fault.Fault
		next                 time.Duration
	}{
		{"young", 0, 10 * time.Second, 0, false, nil, 50 * time.Second},
		{"something has moved", 0, 90 * time.Second, 80 * time.Second, false, nil, 50 * time.Second},
		{"idle", 0, 90 * time.Second, 30 * time.Second, false, upgradeIdle, 0},
		{"idle behind the last word", 0, 90 * time.Second, 30 * time.Second, true, hungUp, 0},
		{"lifetime to come", 2 * time.Minute, 90 * time.Second, 80 * time.Second, false, nil, 30 * time.Second},
		{"idle before its lifetime", 3 * time.Minute, 90 * time.Second, 80 * time.Second, false, nil, 50 * time.Second},
		{"lifetime over", 2 * time.Minute, 2 * time.Minute, 2 * time.Minute, false, upgradeExpired, 0},
	} {
		tn := &tunnel{idle: idle, lifetime: tt.lifetime}
		tn.moved.Store(int64(tt.moved))
		tn.answered.Store(tt.answered)
		if f, next := tn.due(tt.age); f != tt.fault || next != tt.next {
			t.Errorf("%s: %v, %v", tt.name, f, next)
		}
	}
}

// TestUpgradeLeaving: when one side goes away, the other one learns of it, and how; the exchange ends.
func TestUpgradeLeaving(t *testing.T) {
	heard := make(chan error, 1)
	for _, tt := range []struct {
		name  string
		end   func(c *client)
		want  error // what the upstream reads
		fault string
	}{
		{"closes", func(c *client) { _ = c.Close() }, nil, ""},
		{"resets", func(c *client) { reset(c.Conn) }, syscall.ECONNRESET, "client_gone"},
	} {
		t.Run("the client "+tt.name, func(t *testing.T) {
			s := newSwitcher(t, nil, func(w farEnd, _ message) {
				w.say(agreeWebSocket)
				_, err := io.Copy(io.Discard, w.in)
				heard <- err
			})
			r := newGate(t, defaults()).upgrading(s, withProbe)
			c := r.dial(t)
			c.ask()
			tt.end(c)
			if err := <-heard; !errors.Is(err, tt.want) {
				t.Errorf("the upstream reads %v, want %v", err, tt.want)
			}
			r.settled(s, 1)
			if got := r.faults("client_gone"); got != map[bool]float64{true: 1}[tt.fault != ""] {
				t.Errorf("client_gone was counted %v times", got)
			}
		})
	}
	t.Run("the upstream resets", func(t *testing.T) {
		s := newSwitcher(t, nil, func(w farEnd, _ message) {
			w.say(agreeWebSocket)
			_, _ = w.in.ReadByte()
			reset(w.Conn)
		})
		r := newGate(t, defaults()).upgrading(s, withProbe)
		c := r.dial(t)
		c.ask()
		c.say("x")
		if _, err := c.in.ReadByte(); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the client reads %v", err)
		}
		_ = c.Close()
		r.settled(s, 1)
		if got := r.faults("body_cut"); got != 1 {
			t.Errorf("body_cut was counted %v times", got)
		}
	})
}

// TestUpgradeDrain: tunnels go on while a server drains, and are cut when its time is up.
func TestUpgradeDrain(t *testing.T) {
	start := func(t *testing.T) (*gateRig, *switcher, *client) {
		s := newSwitcher(t, nil, func(w farEnd, _ message) {
			w.say(agreeWebSocket)
			_, _ = io.Copy(w, w.in)
		})
		r := newGate(t, defaults()).upgrading(s, withProbe)
		c := r.dial(t)
		c.ask()
		return r, s, c
	}
	t.Run("in time", func(t *testing.T) {
		r, s, c := start(t)
		_ = r.listener.Close()
		cut := r.drain(patience, 0)
		c.say("still").expect("still")
		_ = c.Close()
		if n := <-cut; n != 0 {
			t.Errorf("%d were cut", n)
		}
		r.settled(s, 1)
	})
	t.Run("out of time", func(t *testing.T) {
		r, s, c := start(t)
		_ = r.listener.Close()
		if n := <-r.drain(20*time.Millisecond, 0); n != 1 {
			t.Errorf("%d were cut", n)
		}
		if _, err := c.in.ReadByte(); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the client reads %v", err)
		}
		r.settled(s, 1)
		if got := r.faults("client_gone") + r.faults("body_cut"); got != 0 {
			t.Errorf("%v faults were counted", got)
		}
	})
	t.Run("asked for while draining", func(t *testing.T) {
		r, s, c := start(t)
		late := r.dial(t)
		r.eventually("both are connected", func() bool { return r.open.Load() == 2 })
		_ = r.listener.Close()
		cut := r.drain(patience, patience)
		if head := late.ask(); strings.Contains(head, "close") || !strings.Contains(head, "\r\nConnection: Upgrade\r\n") {
			t.Errorf("head %q", head)
		}
		late.say("x").expect("x")
		_ = late.Close()
		_ = c.Close()
		if n := <-cut; n != 0 {
			t.Errorf("%d were cut", n)
		}
		r.settled(s, 2)
	})
}

// TestUpgradeKeepsItsPlace: a tunnel counts against the connections that the server may have.
func TestUpgradeKeepsItsPlace(t *testing.T) {
	s := newSwitcher(t, nil, serveWebSocket)
	o := defaults()
	o.MaxConnections = 1
	r := newGate(t, o).upgrading(s, withProbe)
	c := r.dial(t)
	c.ask()
	other := r.dial(t)
	if res, _, err := other.reply("GET"); err != nil || res.StatusCode != 503 {
		t.Errorf("%v, %v", res, err)
	}
	other.closed()
	_ = c.Close()
	r.settled(s, 1)
	r.eventually("there is room again", func() bool {
		c := r.dial(t)
		defer c.Close()
		res, _, err := c.say(get).reply("GET")
		return err == nil && res.StatusCode == 400 // of the WebSocket server
	})
}

// TestUpgradeBehindAnswers: answers to requests before the one that switches are sent first; when they cannot be, nothing is left.
func TestUpgradeBehindAnswers(t *testing.T) {
	s := newSwitcher(t, nil, func(w farEnd, m message) {
		if m.target != "/ws" {
			w.say("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")
			return
		}
		w.say(agreeWebSocket + "hello")
		_, _ = io.Copy(io.Discard, w.in)
	})
	t.Run("sent", func(t *testing.T) {
		r := newGate(t, defaults()).upgrading(s, withProbe)
		c := r.dial(t).say(get + askWebSocket)
		c.want("GET", 200, "ok")
		if head := c.head(); !strings.Contains(head, " 101 ") {
			t.Error(head)
		}
		c.expect("hello")
		_ = c.Close()
		r.settled(s, 2)
	})
	t.Run("not sent", func(t *testing.T) { // nobody asks for an upgrade any more
		r := newGate(t, defaults()).upgrading(s, withProbe)
		r.serveConn(&scriptConn{in: strings.NewReader(get + askWebSocket), closed: true})
		r.settled(s, 1)
	})
	t.Run("the head not sent", func(t *testing.T) {
		r := newGate(t, defaults()).upgrading(s, withProbe)
		r.serveConn(&scriptConn{in: strings.NewReader(askWebSocket), closed: true})
		r.settled(s, 1)
	})
}

// TestUpgradeNotOverOtherConnections: where nobody keeps count of the connection, there is no tunnel.
func TestUpgradeNotOverOtherConnections(t *testing.T) {
	up := newBackend(t, says(ok200))
	r := newGate(t, defaults()).upgrading(&switcher{addr: up.addr}, withProbe)
	bare := &scriptConn{in: strings.NewReader(askWebSocket)}
	_ = r.http.ServeConn(bare)
	if got := bare.out.String(); !strings.HasPrefix(got, "HTTP/1.1 200 ") {
		t.Errorf("answer %q", got)
	}
	if got := up.take(); len(got) != 1 || len(got[0].has("upgrade")) != 0 {
		t.Errorf("the upstream saw %q", got)
	}
}

// TestUpgradeLeavesNothing: many tunnels that end in every way leave no goroutine, descriptor, connection, or pin.
func TestUpgradeLeavesNothing(t *testing.T) {
	const waves, size = 4, 250
	s := newSwitcher(t, nil, func(w farEnd, _ message) {
		w.say(agreeWebSocket)
		buf := make([]byte, 1)
		for {
			if _, err := io.ReadFull(w.in, buf); err != nil || buf[0] == 'c' {
				return
			}
			if buf[0] == 'r' {
				reset(w.Conn)
				return
			}
			w.say(string(buf))
		}
	})
	r := newGate(t, defaults()).upgrading(s, withProbe)
	var bytesSent, bytesReceived atomic.Int64
	r.done = func(x *phase.Exchange) {
		bytesSent.Add(x.Response.Sent)
		bytesReceived.Add(x.Request.Length - int64(len(askWebSocket)))
	}
	var before, goroutines int
	most := 0.0
	for wave := range waves {
		if wave == 1 { // what is made once is there
			before, goroutines = descriptors(t), runtime.NumGoroutine()
		}
		clients := make([]*client, size)
		for i := range clients {
			clients[i] = r.dial(t)
			clients[i].ask()
		}
		most = max(most, r.tunnels())
		if _, idle := r.hub.Connections(); idle != 0 {
			t.Errorf("%d connections of tunnels are in the pool", idle)
		}
		var all sync.WaitGroup
		for i, c := range clients {
			all.Go(func() {
				for n := range 3 {
					msg := fmt.Sprint(n)
					if _, err := io.WriteString(c, msg); err != nil {
						t.Error(err)
					}
					if b, err := c.in.ReadByte(); err != nil || string(b) != msg {
						t.Errorf("%q, %v", b, err)
					}
				}
				switch i % 5 {
				case 0:
					reset(c.Conn)
				case 1:
					_, _ = io.WriteString(c, "c")
				case 2:
					_, _ = io.WriteString(c, "r")
				case 3:
					_ = c.Conn.(*net.TCPConn).CloseWrite()
				}
				if i%5 != 4 {
					_, _ = io.Copy(io.Discard, c.in)
				}
				_ = c.Close()
			})
		}
		all.Wait()
		r.settled(s, (wave+1)*size)
	}
	if most != size {
		t.Errorf("the gauge showed %v tunnels", most)
	}
	r.eventually("no descriptor is left", func() bool { return descriptors(t) <= before })
	r.eventually("no goroutine is left", func() bool { return runtime.NumGoroutine() <= goroutines })
	// Every client has three bytes echoed, and two of five send one more.
	if sent, received := bytesSent.Load(), bytesReceived.Load(); sent != waves*size*3 || received != waves*size*(3+2./5) {
		t.Errorf("%d bytes sent and %d received were counted", sent, received)
	}
}

// TestUpgradeKeepsOneSnapshot: a tunnel keeps the configuration that it began under, and none of those that came and went after it.
func TestUpgradeKeepsOneSnapshot(t *testing.T) {
	s := newSwitcher(t, nil, serveWebSocket)
	r := newGate(t, defaults()).upgrading(s, withProbe)
	c := r.dial(t)
	c.ask()
	for range 5 {
		r.upgrading(s, withProbe, `"labels":{"a":"b"}`).upgrading(s, withProbe)
	}
	if got := r.compiler.Collect(func(f func()) { f() }); got != 1 {
		t.Errorf("%d former snapshots are kept", got)
	}
	_ = writeFrame(c, opText, []byte("still there"), true)
	if _, got, err := readFrame(c.in); err != nil || string(got) != "still there" {
		t.Errorf("%q, %v", got, err)
	}
	_ = c.Close()
	r.settled(s, 1)
}

func FuzzAsksUpgrade(f *testing.F) {
	f.Add("websocket", "Upgrade")
	f.Add("foo/1.1 , bar", "keep-alive,upgrade")
	f.Add("websocket,H2C", "upgrade")
	f.Add(",", "upgrade,")
	f.Fuzz(func(t *testing.T, upgrade, connection string) {
		q := &phase.Request{Method: []byte("GET"), Upgrade: []byte(upgrade)}
		if !asksUpgrade(q, [][]byte{[]byte(connection)}) {
			return
		}
		if !strings.Contains(strings.ToLower(connection), "upgrade") {
			t.Errorf("asked by Connection %q", connection)
		}
		for p := range strings.SplitSeq(upgrade, ",") {
			name, _, _ := strings.Cut(strings.ToLower(strings.Trim(p, " \t")), "/")
			switch name {
			case "", "h2c", "h2", "h3", "http", "tls":
				t.Errorf("offered %q", upgrade)
			}
			if strings.ContainsAny(name, " \t\r\n\x00") {
				t.Errorf("offered %q", upgrade)
			}
		}
	})
}
