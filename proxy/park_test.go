package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"headgate/proxy/fault"
	"headgate/proxy/meter"
	"headgate/proxy/overload"
	"headgate/proxy/vars"
)

// parkGate is a gateway for plain and TLS clients of example.com.
type parkGate struct{ *secureRig }

func newParkGate(t *testing.T, o ServerOptions) parkGate {
	t.Helper()
	r := parkGate{newSecureGate(t, o)}
	r.put("ssls/1", r.ca.ssl("example.com"))
	r.to(newBackend(t, says(ok200)).addr)
	return r
}

func (r parkGate) connect(t testing.TB, secure bool) *client {
	t.Helper()
	if secure {
		return r.secureRig.open(t, r.config("example.com"))
	}
	return r.dial(t)
}

// answered connects n clients, which have had an answer each.
func (r parkGate) answered(t testing.TB, secure bool, n int) (clients []*client) {
	t.Helper()
	for range n {
		c := r.connect(t, secure)
		c.say(get).want("GET", 200, "ok")
		clients = append(clients, c)
		r.rested() // so that it has been idle for longer than the next one
	}
	return clients
}

// inLot is how many connections are parked.
func (r *gateRig) inLot() int {
	r.Server.mu.Lock()
	defer r.Server.mu.Unlock()
	return r.lot.parked.Len()
}

// parks waits until n connections are parked, as they would be by and by.
func (r *gateRig) parks(n int) {
	r.t.Helper()
	r.eventually(strconv.Itoa(n)+" are parked", func() bool {
		r.sweep(0)
		return r.inLot() == n
	})
}

// nobody waits until no connection is left, and says that the gateway counts none.
func (r *gateRig) nobody() {
	r.t.Helper()
	r.eventually("nobody is connected", func() bool {
		r.Server.mu.Lock()
		defer r.Server.mu.Unlock()
		return r.Server.open.Load() == 0 && r.busy.Load() == 0 && len(r.crowd.conns) == 0 && len(r.lot.awake) == 0 && r.lot.parked.Len() == 0 && r.crowd.going == 0
	})
}

// quiet says that n requests were logged, and nothing has failed.
func (r *gateRig) quiet(n int) {
	r.t.Helper()
	r.lines(n)
	for _, f := range fault.All() {
		if got := r.faults(f.Code); got != 0 {
			r.t.Errorf("%s was counted", f.Code)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.said) > 0 {
		r.t.Errorf("operators read %q", r.said)
	}
}

// TestParked: a connection that was parked goes on as if nothing had happened, as often as that is, and whatever comes on it.
func TestParked(t *testing.T) {
	const post = "POST /x HTTP/1.1\r\nHost: example.com\r\nContent-Length: 4\r\n\r\nbody"
	for _, tt := range []struct {
		name    string
		secure  bool
		lenient Lenient
	}{
		{"plain", false, Lenient{}}, {"TLS", true, Lenient{}},
		{"plain, mended", false, Lenient{BareLF: true, LineSpaces: true}}, {"TLS, mended", true, Lenient{BareLF: true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := defaults()
			o.Lenient = tt.lenient
			var err error
			if o.Format, err = vars.Compile("$connection_requests"); err != nil {
				t.Fatal(err)
			}
			r := newParkGate(t, o)
			c := r.answered(t, tt.secure, 1)[0]
			requests := 1
			for _, round := range [][]string{
				{get}, {post}, {get + post + get}, {get[:1], get[1:]}, {get[:20], get[20:]}, {post[:len(post)-3], post[len(post)-3:]},
				{"\r\n" + get}, {"\r\n", get}, {get + get[:30], get[30:]}, {get},
			} {
				r.parks(1)
				if n := r.Server.open.Load(); n != 1 {
					t.Fatalf("%d connections are open", n)
				}
				for i, piece := range round {
					if c.say(piece); i+1 < len(round) {
						r.eventually("it is awake", func() bool { return r.inLot() == 0 })
					}
				}
				for range strings.Count(strings.Join(round, ""), "HTTP/1.1") {
					c.want("GET", 200, "ok")
					requests++
				}
			}
			r.parks(1)
			_ = c.Close()
			r.nobody()
			r.quiet(requests)
			for i, line := range r.lines(requests) {
				if want := strconv.Itoa(i + 1); line != want {
					t.Errorf("request %s of the connection is logged as %q", want, line)
				}
			}
		})
	}
}

// TestParkedThousands: when thousands wake at the same moment, each gets its answer, and goes on.
func TestParkedThousands(t *testing.T) {
	const n = 2000
	r := newParkGate(t, defaults())
	var clients [n]*client
	each := func(f func(i int)) {
		t.Helper()
		var all sync.WaitGroup
		for w := range 20 {
			all.Go(func() {
				for i := w; i < n; i += 20 {
					f(i)
				}
			})
		}
		if all.Wait(); t.Failed() {
			t.FailNow()
		}
	}
	answered := func(i int) {
		if res, body, err := clients[i].reply("GET"); err != nil || res.StatusCode != 200 || body != "ok" {
			t.Errorf("client %d: %v, %q, %v", i, res, body, err)
		}
	}
	for i := range n {
		clients[i] = r.dial(t)
	}
	each(func(i int) {
		_, _ = io.WriteString(clients[i], get)
		answered(i)
	})
	for range 2 {
		r.parks(n)
		for _, c := range clients { // all of them, before anybody reads
			_, _ = io.WriteString(c, get)
		}
		each(answered)
	}
	r.parks(n)
	for _, c := range clients {
		_ = c.Close()
	}
	r.nobody()
	r.quiet(3 * n)
}

// TestParkedEnds: a client that leaves is parked no longer, however it leaves, and nothing is made of that.
func TestParkedEnds(t *testing.T) {
	for _, secure := range []bool{false, true} {
		r := newParkGate(t, defaults())
		socket := func(c *client) *net.TCPConn {
			if s, ok := c.Conn.(*tls.Conn); ok {
				return s.NetConn().(*net.TCPConn)
			}
			return c.Conn.(*net.TCPConn)
		}
		ends := []func(*client){
			func(c *client) { _ = c.Close() },
			func(c *client) { _ = socket(c).Close() },
			func(c *client) { _ = socket(c).CloseWrite() },
			func(c *client) { _, _ = socket(c).SetLinger(0), socket(c).Close() },
		}
		clients := r.answered(t, secure, 2*len(ends))
		r.parks(len(clients))
		for i, end := range ends {
			end(clients[i])
		}
		r.parks(len(ends))
		// The other half ends while it is being parked.
		for i, end := range ends {
			clients[len(ends)+i].say(get).want("GET", 200, "ok")
			r.sweep(0)
			end(clients[len(ends)+i])
		}
		r.nobody()
		r.quiet(3 * len(ends))
		if secure {
			continue
		}
		// Half of a request is one that was broken off, as on any other connection.
		c := r.answered(t, secure, 1)[0]
		r.parks(1)
		c.say(get[:20])
		_ = socket(c).CloseWrite()
		r.nobody()
	}
}

// TestParkedTooLong: the idle time runs on, and ends as softly as elsewhere.
func TestParkedTooLong(t *testing.T) {
	r := newParkGate(t, defaults())
	later := func() {
		r.Server.mu.Lock()
		over := r.expired(time.Now().Add(2 * patience))
		r.Server.mu.Unlock()
		r.dropAll(over)
	}
	for _, secure := range []bool{false, true} {
		clients := r.answered(t, secure, 3)
		r.parks(3)
		r.sweep(0) // their time is not over yet
		if n := r.inLot(); n != 3 {
			t.Fatalf("%d are parked", n)
		}
		clients[0].say(get).want("GET", 200, "ok")
		r.rested()
		later()
		for _, c := range clients[1:] {
			if rest, err := io.ReadAll(c.in); len(rest) > 0 || err != nil { // an end, not a reset
				t.Errorf("%q, %v", rest, err)
			}
		}
		clients[0].say(get).want("GET", 200, "ok")
		_ = clients[0].Close()
		r.nobody()
	}
	r.quiet(10)

	o := defaults()
	o.IdleTimeout = parkLeast
	r = newParkGate(t, o)
	c := r.answered(t, false, 1)[0]
	r.eventually("it is not worth while to park it, and it ends", func() bool {
		r.sweep(0)
		if n := r.inLot(); n > 0 {
			t.Fatalf("%d are parked", n)
		}
		return r.Server.open.Load() == 0
	})
	c.closed()
}

// TestParkedDrain: a drain finds the parked connections idle: they may bring a request until grace has passed, and end softly.
func TestParkedDrain(t *testing.T) {
	for _, secure := range []bool{false, true} {
		r := newParkGate(t, defaults())
		clients := r.answered(t, secure, 3)
		r.parks(3)
		_ = r.listener.Close()
		ctx, end := context.WithCancel(t.Context())
		cut := make(chan int, 1)
		go func() { cut <- r.Drain(ctx, patience) }()
		r.eventually("it drains", func() bool { return r.Ready() != nil })
		if res := clients[0].say(get).want("GET", 200, "ok"); !res.Close {
			t.Error("the client is not told to go")
		}
		clients[0].closed()
		r.rested()
		if n := r.inLot(); n != 2 {
			t.Errorf("%d are still parked", n)
		}
		end()
		for _, c := range clients[1:] {
			if rest, err := io.ReadAll(c.in); len(rest) > 0 || err != nil && !(secure && errors.Is(err, io.ErrUnexpectedEOF)) {
				t.Errorf("%q, %v", rest, err)
			}
		}
		if n := <-cut; n != 0 {
			t.Errorf("%d were cut", n)
		}
		r.nobody()
	}
}

// TestParkedInTheCrowd: parked connections count, and are among those that have been idle for longest.
func TestParkedInTheCrowd(t *testing.T) {
	for _, secure := range []bool{false, true} {
		o := defaults()
		o.MaxConnections = 3
		r := newParkGate(t, o)
		state := func(name string) float64 {
			return r.count("apisix_"+meter.Connections, meter.Label{Name: "state", Value: name})
		}
		old := r.answered(t, secure, 3)
		r.parks(3)
		if active, writing, waiting := state("active"), state("writing"), state("waiting"); active != 3 || writing != 0 || waiting != 3 {
			t.Errorf("%v are active, %v writing, %v waiting", active, writing, waiting)
		}
		old[0].say(get).want("GET", 200, "ok")
		r.rested()
		r.answered(t, secure, 1)
		old[1].closed()
		old[0].say(get).want("GET", 200, "ok")
		old[2].say(get).want("GET", 200, "ok")
		r.eventually("there is room again", func() bool { return r.Server.open.Load() == 3 })
		if idle, full := r.shed("idle"), r.shed("full"); idle != 1 || full != 0 {
			t.Errorf("%v idle ones had to go, %v newcomers", idle, full)
		}
	}

	o := defaults()
	o.MaxPerClient = 2
	r := newParkGate(t, o)
	two := r.answered(t, false, 2)
	r.parks(2)
	r.dial(t).closed()
	for _, c := range two {
		_ = c.Close()
	}
	r.nobody()
	r.answered(t, false, 2)
}

func TestParkedUnderPressure(t *testing.T) {
	m := &memory{}
	o := defaults()
	o.Memory = overload.New(100, m)
	r := newParkGate(t, o)
	clients := append(r.answered(t, false, 3), r.answered(t, true, 3)...)
	r.parks(6)
	r.level(m, 90, overload.Tight)
	for _, c := range clients {
		c.closed()
	}
	r.nobody()
	if got := r.shed("memory"); got != 6 {
		t.Errorf("%v are counted", got)
	}
}

// TestNotParked: who has had no answer yet, has a request under way, or speaks HTTP/2, is not parked.
func TestNotParked(t *testing.T) {
	r := newH2Gate(t, defaults(), newBackend(t, says(ok200)))
	entered, release := make(chan struct{}), make(chan struct{})
	silent, begun := r.dial(t), r.dial(t).say(get[:20])
	two := r.speaker(t)
	if res, _, err := ask(t, two, "GET", "/", nil); err != nil || res.StatusCode != 200 {
		t.Fatal(res, err)
	}
	r.eventually("three are there", func() bool { return r.Server.open.Load() == 3 })
	for range 20 {
		r.sweep(0)
		time.Sleep(time.Millisecond)
	}
	if n := r.inLot(); n != 0 {
		t.Errorf("%d are parked", n)
	}
	for range 2 {
		begun.say(get[20:]).want("GET", 200, "ok")
		silent.say(get).want("GET", 200, "ok")
		if res, _, err := ask(t, two, "GET", "/", nil); err != nil || res.StatusCode != 200 {
			t.Fatal(res, err)
		}
		begun.say(get[:20])
	}
	r.held(entered, release)
	silent.say(get)
	<-entered
	for range 20 {
		r.sweep(0)
		time.Sleep(time.Millisecond)
	}
	if n := r.inLot(); n != 0 {
		t.Errorf("%d are parked", n)
	}
	close(release)
	silent.want("GET", 200, "late")
}

// TestParkedRace: requests come at every moment of the parking, and none is lost.
func TestParkedRace(t *testing.T) {
	const each = 300
	r := newParkGate(t, defaults())
	var over atomic.Bool
	var all, sweeper sync.WaitGroup
	var parked atomic.Int64
	sweeper.Go(func() {
		for !over.Load() {
			r.sweep(0)
			parked.Add(int64(r.inLot()))
			time.Sleep(20 * time.Microsecond) // others work, too, where there is one processor
		}
	})
	for i := range 8 {
		c := r.connect(t, i%2 == 1)
		all.Go(func() {
			defer c.Close()
			for n := range each {
				_ = c.SetDeadline(time.Now().Add(patience))
				pieces := []string{get}
				switch n % 4 {
				case 1:
					pieces = []string{get[:n%len(get)], get[n%len(get):]}
				case 2:
					pieces = []string{"POST / HTTP/1.1\r\nHost: example.com\r\nContent-Length: 3000\r\n\r\n", strings.Repeat("x", 3000)}
				case 3:
					time.Sleep(time.Duration(n) * time.Microsecond)
				}
				for _, p := range pieces {
					if _, err := io.WriteString(c, p); err != nil {
						t.Errorf("request %d: %v", n, err)
						return
					}
				}
				if res, body, err := c.reply("GET"); err != nil || res.StatusCode != 200 || body != "ok" {
					t.Errorf("request %d: %v, %q, %v", n, res, body, err)
					return
				}
			}
		})
	}
	all.Wait()
	over.Store(true)
	sweeper.Wait()
	r.nobody()
	r.quiet(8 * each)
	if parked.Load() == 0 {
		t.Error("nobody was ever parked")
	}
}

// TestParkedCrossfire: whoever ends a parked connection, and whoever wakes it at that moment, it ends once.
func TestParkedCrossfire(t *testing.T) {
	r := newParkGate(t, defaults())
	for round := range 60 {
		clients := append(r.answered(t, false, 4), r.answered(t, true, 2)...)
		r.parks(len(clients))
		var all sync.WaitGroup
		all.Go(func() {
			for _, c := range clients {
				_, _ = io.WriteString(c, get)
			}
		})
		all.Go(func() {
			r.Server.mu.Lock()
			defer r.Server.mu.Unlock()
			r.dismiss(len(clients), r.crowd.idle)
		})
		all.Go(func() {
			r.Server.mu.Lock()
			over := r.expired(time.Now().Add(2 * patience))
			r.Server.mu.Unlock()
			r.dropAll(over)
		})
		if round%2 == 0 {
			all.Go(func() { _ = clients[0].Close() })
		}
		all.Wait()
		for i, c := range clients[1:] {
			if _, _, err := c.reply("GET"); err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) &&
				!errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
				t.Fatalf("client %d: %v", i, err)
			}
			_ = c.Close()
		}
		_ = clients[0].Close()
		r.nobody()
	}
}
