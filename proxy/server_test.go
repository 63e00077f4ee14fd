package proxy

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"headgate/proxy/fault"
	"headgate/proxy/meter"
	"headgate/proxy/phase"
)

// held is an upstream that keeps requests until the test lets them go.
func (r *gateRig) held(entered, release chan struct{}) {
	r.fake = func(x *phase.Exchange) *fault.Fault {
		entered <- struct{}{}
		<-release
		x.Response.Status, x.Response.Body = 200, []byte("late")
		return nil
	}
	r.to("", "probe", "fake")
}

// drain runs Drain and returns how many connections it cut off.
func (r *gateRig) drain(limit, grace time.Duration) chan int {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	cut := make(chan int, 1)
	go func() {
		defer cancel()
		cut <- r.Drain(ctx, grace)
	}()
	r.eventually("it drains", func() bool { return r.Ready() != nil })
	return cut
}

func TestDrain(t *testing.T) {
	t.Run("nobody there", func(t *testing.T) {
		r := newGate(t, defaults())
		if r.Ready() != nil {
			t.Error("not ready from the start")
		}
		_ = r.listener.Close()
		if cut := <-r.drain(patience, patience); cut != 0 {
			t.Errorf("%d were cut", cut)
		}
	})
	t.Run("busy", func(t *testing.T) {
		r := newGate(t, defaults())
		entered, release := make(chan struct{}), make(chan struct{})
		r.held(entered, release)
		c := r.dial(t).say(get)
		<-entered
		_ = r.listener.Close()
		cut := r.drain(patience, 0)
		close(release)
		if res := c.want("GET", 200, "late"); !res.Close {
			t.Error("the client is not told to go")
		}
		c.closed()
		if n := <-cut; n != 0 {
			t.Errorf("%d were cut", n)
		}
	})
	t.Run("idle", func(t *testing.T) {
		r := newGate(t, defaults()).to(newBackend(t, says(ok200)).addr)
		quiet, late, silent := r.dial(t), r.dial(t), r.dial(t)
		quiet.say(get).want("GET", 200, "ok")
		late.say(get).want("GET", 200, "ok")
		r.eventually("three connections", func() bool { return r.open.Load() == 3 && r.busy.Load() == 0 })
		_ = r.listener.Close()
		cut := r.drain(patience, 200*time.Millisecond)
		if res := late.say(get).want("GET", 200, "ok"); !res.Close { // within the grace
			t.Error("the client is not told to go")
		}
		late.closed()
		quiet.closed()
		silent.closed()
		if n := <-cut; n != 0 {
			t.Errorf("%d were cut", n)
		}
	})
	t.Run("out of time", func(t *testing.T) {
		r := newGate(t, defaults())
		entered, release := make(chan struct{}), make(chan struct{})
		r.held(entered, release)
		c := r.dial(t).say(get)
		<-entered
		_ = r.listener.Close()
		cut := r.drain(20*time.Millisecond, 0)
		if _, _, err := c.reply("GET"); err == nil {
			t.Error("there was an answer")
		}
		close(release)
		if n := <-cut; n != 1 {
			t.Errorf("%d were cut", n)
		}
		if got := r.finished(); got != 1 {
			t.Errorf("the done phase ran %d times", got)
		}
	})
	t.Run("streaming", func(t *testing.T) {
		up := newPaced(t, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
		r := newGate(t, defaults()).to(up.addr)
		c := r.dial(t).say(get)
		c.head()
		_ = r.listener.Close()
		cut := r.drain(patience, 0)
		up.pieces <- "1\r\na\r\n"
		c.expect("1\r\na\r\n")
		up.pieces <- "0\r\n\r\n"
		c.expect("0\r\n\r\n")
		c.closed()
		if n := <-cut; n != 0 {
			t.Errorf("%d were cut", n)
		}
	})
	t.Run("twice", func(t *testing.T) {
		r := newGate(t, defaults())
		_ = r.listener.Close()
		<-r.drain(patience, 0)
		<-r.drain(patience, 0)
	})
}

// TestConnectionCounts: what the gauges show while connections come, work, wait and go.
func TestConnectionCounts(t *testing.T) {
	r := newGate(t, defaults())
	entered, release := make(chan struct{}), make(chan struct{})
	r.held(entered, release)
	state := func(name string) float64 {
		return r.count("apisix_"+meter.Connections, meter.Label{Name: "state", Value: name})
	}
	shows := func(active, writing, waiting float64) {
		t.Helper()
		r.eventually(fmt.Sprintf("%v active, %v writing, %v waiting", active, writing, waiting), func() bool {
			return state("active") == active && state("writing") == writing && state("waiting") == waiting
		})
	}
	shows(0, 0, 0)
	a, b := r.dial(t), r.dial(t)
	shows(2, 0, 2)
	a.say(get)
	<-entered
	shows(2, 1, 1)
	release <- struct{}{}
	a.want("GET", 200, "late")
	shows(2, 0, 2)
	_ = b.Close()
	shows(1, 0, 1)
	_ = a.Close()
	shows(0, 0, 0)
}

// TestBareServer: everything that is optional is left out.
func TestBareServer(t *testing.T) {
	r := newGate(t, defaults()).to("", "probe")
	o := defaults()
	o.Meter = meter.New("")
	s := NewServer(r.live, o)
	r.rewrite = func(*phase.Exchange) phase.Verdict { panic("nobody listens") }
	conn := &scriptConn{in: strings.NewReader(get + get)}
	s.serveConn(conn)
	if got := conn.out.String(); strings.Count(got, "HTTP/1.1 500 ") != 1 {
		t.Errorf("%q", got)
	}
}

// TestRefusedBodyIsLogged: what fasthttp refuses on its own is a request like any other.
func TestRefusedBodyIsLogged(t *testing.T) {
	r := newGate(t, defaults()).to(newBackend(t, says(ok200)).addr)
	r.dial(t).say("POST /big?a=b HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n").want("POST", 413, "*")
	r.dial(t).say("GET / HTTP/1.1\r\nHost: a\r\nA: "+strings.Repeat("a", 40_000)+"\r\n\r\n").want("GET", 431, "*")
	c := r.dial(t).say("HEAD /x HTTP/1.1\r\nHost: a\r\nA\r\n\r\n")
	if res, err := http.ReadResponse(c.in, nil); err != nil || res.StatusCode != 400 {
		t.Errorf("%v, %v", res, err)
	}
	want := []string{
		`127.0.0.1 "POST /big?a=b HTTP/1.1" 413 `,
		`127.0.0.1 "-" 431 `,
		`127.0.0.1 "-" 400 `,
	}
	lines := r.lines(3)
	slices.Sort(lines) // three connections: they end in any order
	slices.Sort(want)
	for i, line := range lines {
		if !strings.HasPrefix(line, want[i]) {
			t.Errorf("log: %s, want %s", line, want[i])
		}
	}
	if got := r.count(meter.Requests); got != 3 {
		t.Errorf("%v requests were counted", got)
	}
	if _, err := io.ReadAll(c.in); err != nil && !strings.Contains(err.Error(), "reset") {
		t.Error(err)
	}
}
