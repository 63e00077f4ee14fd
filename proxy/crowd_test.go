package proxy

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	"headgate/proxy/meter"
	"headgate/proxy/overload"
)

func (r *gateRig) shed(reason string) float64 {
	return r.count(meter.ConnectionsShed, meter.Label{Name: "reason", Value: reason})
}

// rested waits until nobody has a request under way: a client has its answer before its connection is idle.
func (r *gateRig) rested() {
	r.t.Helper()
	r.eventually("nobody is busy", func() bool { return r.busy.Load() == 0 })
}

// TestLongestIdleGoes: where there is no room for another connection, the one goes that has been idle for longest.
func TestLongestIdleGoes(t *testing.T) {
	o := defaults()
	o.MaxConnections = 3
	r := newGate(t, o).to(newBackend(t, says(ok200)).addr)
	var clients []*client
	ask := func(i int) {
		t.Helper()
		if i == len(clients) {
			clients = append(clients, r.dial(t))
		}
		clients[i].say(get).want("GET", 200, "ok")
		r.rested()
	}
	for i := range 3 {
		ask(i)
	}
	ask(0) // so that 1 has been idle for longest
	ask(3)
	clients[1].closed()
	for _, i := range []int{2, 3, 0} {
		ask(i)
	}
	ask(4)
	clients[2].closed()
	ask(5)
	clients[3].closed()
	for _, i := range []int{0, 4, 5} {
		ask(i)
	}
	r.eventually("three connections", func() bool { return r.open.Load() == 3 })
	if idle, full := r.shed("idle"), r.shed("full"); idle != 3 || full != 0 {
		t.Errorf("%v idle ones had to go, %v newcomers", idle, full)
	}
}

// TestTooManyConnections: when all are at work, a newcomer is told that there is no room, even one that has begun to send something.
func TestTooManyConnections(t *testing.T) {
	o := defaults()
	o.MaxConnections = 1
	r := newGate(t, o)
	entered, release := make(chan struct{}), make(chan struct{})
	r.held(entered, release)
	first := r.dial(t).say(get)
	<-entered
	for _, said := range []string{"", get, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n" + strings.Repeat("x", 50_000)} {
		c := r.dial(t)
		_, _ = io.WriteString(c, said)
		if res, _, err := c.reply("GET"); err != nil || res.StatusCode != http.StatusServiceUnavailable || !res.Close || res.Header.Get("Retry-After") == "" {
			t.Errorf("%v, %v", res, err)
		}
		_ = c.Close()
	}
	close(release)
	first.want("GET", 200, "late")
	r.rested()
	r.eventually("one connection", func() bool { return r.open.Load() == 1 })
	if idle, full := r.shed("idle"), r.shed("full"); idle != 0 || full != 3 {
		t.Errorf("%v idle ones had to go, %v newcomers", idle, full)
	}
}

// A client that does not come to the end of its first head, or to its beginning, does not keep others out for longer than a moment.
func TestSlowHeadsGiveWay(t *testing.T) {
	for _, said := range []string{"", "GET / HTTP/1.1\r\nHost: a\r\n"} {
		o := defaults()
		o.MaxConnections = 1
		r := newGate(t, o).to(newBackend(t, says(ok200)).addr)
		slow := r.dial(t).say(said)
		r.eventually("somebody else is served", func() bool {
			c := r.dial(t)
			defer c.Close()
			if _, err := io.WriteString(c, get); err != nil {
				return false
			}
			res, _, err := c.reply("GET")
			return err == nil && res.StatusCode == 200
		})
		if res, _, err := slow.reply("GET"); said != "" && (err != nil || res.StatusCode != http.StatusRequestTimeout) {
			t.Errorf("%v, %v", res, err)
		}
		slow.closed()
	}
}

// Nobody is idle who has just said something, or whose HTTP/2 connection has a stream.
func TestWhoIsNotIdle(t *testing.T) {
	o := defaults()
	r := newGate(t, o)
	entered, release := make(chan struct{}), make(chan struct{})
	r.held(entered, release)
	c := r.dial(t).say(get)
	<-entered
	tell := func(n, want int) {
		t.Helper()
		r.Server.mu.Lock()
		defer r.Server.mu.Unlock()
		if got := r.dismiss(n, r.crowd.idle); got != want {
			t.Errorf("%d of %d were dismissed, want %d", got, n, want)
		}
	}
	tell(5, 0)
	c.say(get) // waits behind the first
	release <- struct{}{}
	<-entered
	tell(5, 0)
	close(release)
	c.want("GET", 200, "late")
	c.want("GET", 200, "late")
	r.rested()
	tell(5, 1)
	tell(5, 0)
	c.closed()
}

func TestIdleHTTP2Goes(t *testing.T) {
	up := newBackend(t, says(ok200))
	o := defaults()
	o.MaxConnections = 1
	r := newH2Gate(t, o, up)
	first := r.speaker(t)
	for range 2 {
		if res, body, err := ask(t, first, "GET", "/", nil); err != nil || res.StatusCode != 200 || body != "ok" {
			t.Fatal(res, body, err)
		}
	}
	r.rested()
	second := r.open(t, r.config("a.test"))
	second.sayTo("a.test", "/").want("GET", 200, "ok")
	r.rested()
	r.eventually("the first is served over another connection", func() bool { // as soon as it has noticed
		res, body, err := ask(t, first, "GET", "/", nil)
		return err == nil && res.StatusCode == 200 && body == "ok"
	})
	second.closed()
	if n := r.handshakes("full") + r.handshakes("resumed"); n < 3 {
		t.Errorf("%v handshakes", n)
	}
}

func TestClientsAreBounded(t *testing.T) {
	o := defaults()
	o.MaxPerClient = 2
	r := newGate(t, o).to(newBackend(t, says(ok200)).addr)
	a, b := r.dial(t), r.dial(t)
	a.say(get).want("GET", 200, "ok")
	b.say(get).want("GET", 200, "ok")
	third, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer third.Close()
	if got, err := io.ReadAll(third); len(got) > 0 || err != nil && !strings.Contains(err.Error(), "reset") {
		t.Errorf("%q, %v", got, err)
	}
	a.say(get).want("GET", 200, "ok")
	if many, idle := r.shed("per_client"), r.shed("idle"); many != 1 || idle != 0 {
		t.Errorf("%v of a client with too many were refused, %v idle ones", many, idle)
	}
	_ = b.Close()
	r.eventually("there is room again", func() bool {
		c := r.dial(t)
		defer c.Close()
		_, err := io.WriteString(c, get)
		res, _, readErr := c.reply("GET")
		return errors.Join(err, readErr) == nil && res.StatusCode == 200
	})
	_ = a.Close()
	r.eventually("nobody is counted who is gone", func() bool {
		r.Server.mu.Lock()
		defer r.Server.mu.Unlock()
		return len(r.crowd.clients) == 0 && r.crowd.going == 0
	})
}

func TestTrustedAreNotBounded(t *testing.T) {
	o := defaults()
	o.MaxPerClient, o.Trusted = 1, []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	r := newGate(t, o).to(newBackend(t, says(ok200)).addr)
	for range 3 {
		r.dial(t).say(get).want("GET", 200, "ok")
	}
}

func TestClientOf(t *testing.T) {
	for addr, want := range map[string]string{
		"192.0.2.1": "192.0.2.1", "2001:db8:0:1::1": "2001:db8:0:1::", "2001:db8:0:1:ffff::2": "2001:db8:0:1::", "2001:db8:0:2::1": "2001:db8:0:2::",
		"fe80::1%eth0": "fe80::",
	} {
		if got := clientOf(netip.MustParseAddr(addr)); got.String() != want {
			t.Errorf("%s: %s, want %s", addr, got, want)
		}
	}
	if got := clientOf(netip.Addr{}); got.IsValid() {
		t.Error(got)
	}
}

// memory is a Source that shows what a test wants, in percent.
type memory struct{ atomic.Int64 }

func (m *memory) Used() int64 { return m.Load() }
func (m *memory) Collect()    {}

// pressed is a gateway with memory of which m says how much is in use.
func pressed(t *testing.T, m *memory) *gateRig {
	o := defaults()
	o.Memory, o.Server = overload.New(100, m), "gate"
	r := newGate(t, o)
	return r
}

func (r *gateRig) level(m *memory, percent int64, want overload.Level) {
	r.t.Helper()
	m.Store(percent)
	r.eventually(fmt.Sprintf("memory is %v", want), func() bool { return r.g.settings.Memory.Level() == want })
}

func TestPressure(t *testing.T) {
	m := &memory{}
	r := pressed(t, m)
	up := newPaced(t, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
	r.to(newBackend(t, says(ok200)).addr)
	r.route("stream", `{"uri":"/stream","upstream":{"nodes":{"`+up.addr+`":1}}}`)
	streaming := r.dial(t).say("GET /stream HTTP/1.1\r\nHost: a\r\n\r\n")
	streaming.head()
	var idle []*client
	for range 5 {
		c := r.dial(t)
		c.say(get).want("GET", 200, "ok")
		idle = append(idle, c)
	}
	r.level(m, 90, overload.Tight)
	for _, c := range idle {
		c.closed()
	}
	if res := r.dial(t).say(get).want("GET", 200, "ok"); !res.Close {
		t.Error("the connection is kept")
	}
	if r.Ready() != nil {
		t.Error("not ready while everybody is served")
	}
	r.level(m, 97, overload.Full)
	for _, said := range []string{get, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n"} {
		res := r.dial(t).say(said).want("GET", 503, "*")
		if !res.Close || res.Header.Get("Retry-After") != "1" || res.Header.Get("Server") != "gate" {
			t.Errorf("%+v", res)
		}
	}
	if err := r.Ready(); err == nil || err.Error() != "out of memory" {
		t.Errorf("ready while nobody is served: %v", err)
	}
	up.pieces <- "1\r\na\r\n"
	streaming.expect("1\r\na\r\n")
	r.level(m, 92, overload.Full)
	r.level(m, 10, overload.Calm)
	c := r.dial(t)
	if res := c.say(get).want("GET", 200, "ok"); res.Close {
		t.Error("the connection is not kept")
	}
	c.say(get).want("GET", 200, "ok")
	up.pieces <- "0\r\n\r\n"
	streaming.expect("0\r\n\r\n")
	streaming.say(get).want("GET", 200, "ok")
	if got := r.faults("overloaded"); got != 2 {
		t.Errorf("%v requests are counted as refused", got)
	}
	if got := r.shed("memory"); got != 5 {
		t.Errorf("%v idle connections are counted", got)
	}
	if got := r.count(meter.MemoryLimit); got != 100 {
		t.Errorf("the limit shows as %v", got)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if said := strings.Join(r.said, "\n"); strings.Count(said, "memory is ") != len(r.said) || len(r.said) < 3 {
		t.Errorf("operators read: %s", said)
	}
}

// TestBodiesUnderPressure: a body that grows meanwhile is not held any more when there is no room; its client is told when to come back.
func TestBodiesUnderPressure(t *testing.T) {
	m := &memory{}
	o := defaults()
	o.Memory = overload.New(1<<20, m)
	r := newGate(t, o).to(newBackend(t, says(ok200)).addr)
	half := "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 60000\r\n\r\n" + strings.Repeat("x", 1000)
	rest := strings.Repeat("x", 59_000)
	see := func(used int64) {
		t.Helper()
		m.Store(used)
		r.eventually("it is seen", func() bool { return r.g.settings.Memory.Used() == used })
	}
	begun := r.dial(t).say(half)
	see(970 << 10) // of 972.8
	for _, c := range []*client{begun, r.dial(t).say(half)} {
		_, _ = io.WriteString(c, rest)
		res := c.want("POST", 503, "*")
		if !res.Close || res.Header.Get("Retry-After") != "1" {
			t.Errorf("%+v", res)
		}
	}
	see(0)
	r.dial(t).say(half+rest).want("POST", 200, "ok")
	if got := r.faults("overloaded"); got != 2 {
		t.Errorf("%v requests are counted as refused", got)
	}
}
