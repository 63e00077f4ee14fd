package proxy

//lint:file-ignore SA1019 frames are sent here that net/http would not send

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"headgate/proxy/meter"
	"headgate/proxy/phase"
	"headgate/proxy/upstream/dialtest"
)

// stages are where a request is when its client leaves, by the first part of its path.
var stages = [...]string{"plugin", "queue", "dial", "handshake", "request", "head", "first", "stream"}

// aborted is the phase by which the metric counts a client that leaves in the stage.
func aborted(stage string) string {
	switch stage {
	case "dial", "handshake":
		return "connect"
	case "head":
		return "wait"
	case "first", "stream":
		return "answer"
	}
	return stage
}

// byPeer says that the upstream sees the end of a request in the stage; of the others, the gateway's word is all there is.
func byPeer(stage string) bool { return slices.Contains(stages[4:], stage) }

// departures is a gateway with a route for each stage, over plain connections, TLS and HTTP/2.
type departures struct {
	*secureRig
	arrived chan string // a request has got to its stage
	ended   chan ending // and has come to its end
}

// ending is when a request was over, by the id that is its query.
type ending struct {
	id string
	at time.Time
}

func newDepartures(t testing.TB) *departures {
	o := defaults()
	o.TLS.HTTP2 = true
	d := &departures{secureRig: newSecureGate(t, o), arrived: make(chan string, 1000), ended: make(chan ending, 1000)}
	d.put("ssls/1", d.ca.ssl("a.test"))
	patient := rawServer(t, d.patient)
	mute := rawServer(t, func(c net.Conn, in *bufio.Reader) { // never says a word of its handshake
		_, _ = in.Peek(1)
		d.arrived <- "handshake"
		_, _ = io.Copy(io.Discard, in)
	})
	hole := dialtest.Blackhole(t, netip.MustParseAddrPort("127.0.0.1:0"))
	for _, stage := range stages {
		scheme, addr, more := "http", patient, ""
		switch stage {
		case "queue":
			more = `,"limits":{"inflight":1,"queue":100000,"queue_timeout":3600}`
		case "dial":
			addr = hole.String()
		case "handshake":
			scheme, addr = "https", mute
		}
		d.route(stage, `{"uri":"/`+stage+`/*","plugins":{"probe":{}},"upstream":{"scheme":"`+scheme+`","nodes":{"`+addr+`":1},"retries":0,
			"timeout":{"connect":3600,"send":3600,"read":3600}`+more+`}}`)
	}
	stage := func(x *phase.Exchange) string { return strings.Split(string(x.Request.Path), "/")[1] }
	arrives := func(at string) func(x *phase.Exchange) phase.Verdict {
		return func(x *phase.Exchange) phase.Verdict {
			if stage(x) == at && len(x.Request.Query) > 0 {
				d.arrived <- at
			}
			return phase.Continue
		}
	}
	d.access, d.send = arrives("queue"), arrives("dial")
	d.rewrite = func(x *phase.Exchange) phase.Verdict {
		if stage(x) != "plugin" {
			return phase.Continue
		}
		d.arrived <- "plugin"
		return x.Sleep(time.Hour)
	}
	d.done = func(x *phase.Exchange) {
		if !byPeer(stage(x)) && len(x.Request.Query) > 0 {
			d.ended <- ending{string(x.Request.Query), time.Now()}
		}
	}
	return d
}

// patient is an upstream that never answers, never begins the body of its answer or never ends it, as the path says, and reads all it is sent.
func (d *departures) patient(c net.Conn, in *bufio.Reader) {
	for {
		lines, err := head(in)
		if err != nil {
			return
		}
		target := strings.Fields(lines[0])[1]
		if strings.HasSuffix(target, "/quick") {
			_, _ = io.WriteString(c, ok200)
			continue
		}
		const begun = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
		switch strings.Split(target, "/")[1] {
		case "first":
			_, _ = io.WriteString(c, begun)
		case "stream":
			_, _ = io.WriteString(c, begun+"5\r\nfirst\r\n")
		case "request":
			_, _ = in.Peek(1)
		}
		d.arrived <- target
		_, _ = io.Copy(io.Discard, in)
		if _, id, ok := strings.Cut(target, "?"); ok {
			d.ended <- ending{id, time.Now()}
		}
		return
	}
}

// descriptors returns how many this process has.
func descriptors(t testing.TB) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// guest is a client that is about to leave.
type guest struct {
	id    string
	sees  func() // waits for what the client gets in its stage
	leave func() time.Time
	gone  func() // closes what is left of it
}

// over opens clients that have sent their requests.
func (d *departures) over(t testing.TB, what, stage string, size, round int) []guest {
	id := func(i int) string { return fmt.Sprintf("id=%s-%s-%d-%d", what, stage, round, i) }
	if what == "HTTP/2" {
		return d.streams(t, stage, size, round%2 == 1, id)
	}
	guests := make([]guest, size)
	for i := range guests {
		var c net.Conn
		var err error
		if what == "TLS" {
			c, err = d.try(d.config("a.test"))
		} else {
			c, err = net.Dial("tcp", d.gateRig.addr)
		}
		if err != nil {
			t.Fatal(err)
		}
		raw := "GET /" + stage + "/x?" + id(i) + " HTTP/1.1\r\nHost: a.test\r\n\r\n"
		if stage == "request" {
			raw = "POST" + strings.TrimPrefix(strings.TrimSuffix(raw, "\r\n"), "GET") + "Content-Length: 500000\r\n\r\n" + strings.Repeat("x", 100_000)
		}
		if _, err = io.WriteString(c, raw); err != nil {
			t.Fatal(err)
		}
		guests[i] = guest{id(i), func() { sees(t, c, stage) }, func() time.Time { return leave(c, i) }, func() { _ = c.Close() }}
	}
	return guests
}

// sees reads up to what the client gets in the stage.
func sees(t testing.TB, c net.Conn, stage string) {
	want := map[string]string{"first": "\r\n\r\n", "stream": "first"}[stage]
	buf := make([]byte, 1024)
	for got := ""; !strings.Contains(got, want); {
		n, err := c.Read(buf)
		if got += string(buf[:n]); err != nil {
			t.Errorf("%q, %v", got, err)
			return
		}
	}
}

// leave ends c in one of the ways that there are, and says when that was.
func leave(c net.Conn, how int) time.Time {
	below := c
	if s, ok := c.(*tls.Conn); ok {
		below = s.NetConn()
	}
	at := time.Now()
	switch how % 3 {
	case 0:
		_ = c.Close()
	case 1:
		reset(below)
	case 2:
		_ = below.(*net.TCPConn).CloseWrite()
	}
	return at
}

// streams opens one HTTP/2 connection. Its clients leave by resetting their streams, or all at once with the connection.
func (d *departures) streams(t testing.TB, stage string, size int, together bool, id func(i int) string) []guest {
	f := d.frames(t)
	seen := make(chan struct{}, size)
	read := make(chan struct{})
	go func() {
		defer close(read)
		for {
			frame, err := f.ReadFrame()
			if err != nil {
				return
			}
			_, begun := frame.(*http2.MetaHeadersFrame)
			_, more := frame.(*http2.DataFrame)
			if begun && stage == "first" || more && stage == "stream" {
				seen <- struct{}{}
			}
		}
	}()
	var once sync.Once
	var at time.Time
	guests := make([]guest, size)
	for i := range guests {
		stream := uint32(2*i + 1)
		pairs := []string{":method", "GET", ":scheme", "https", ":authority", "a.test", ":path", "/" + stage + "/x?" + id(i)}
		if stage == "request" {
			pairs = append(pairs, "content-length", "500000") // too long to be collected first
			pairs[1] = "POST"
		}
		err := f.open(stream, stage != "request", pairs...)
		if err == nil && stage == "request" {
			err = f.WriteData(stream, false, make([]byte, 1000)) // there is room for 64 KiB on the connection
		}
		if err != nil {
			t.Fatal(err)
		}
		g := guest{id: id(i), sees: func() {}}
		if stage == "first" || stage == "stream" {
			g.sees = func() { <-seen }
		}
		g.leave = func() time.Time {
			if together {
				once.Do(func() { at = leave(f.conn, i) })
				return at
			}
			at := time.Now()
			_ = f.WriteRSTStream(stream, http2.ErrCodeCancel)
			return at
		}
		g.gone = func() {
			_ = f.conn.Close()
			<-read
		}
		guests[i] = g
	}
	return guests
}

// wave has clients come and leave, and returns how long it took until nothing was done for them any more.
func (d *departures) wave(t testing.TB, what, stage string, size, round int) (took []time.Duration) {
	guests := d.over(t, what, stage, size, round)
	late := time.After(patience)
	for i := range guests {
		select {
		case <-d.arrived:
		case <-late:
			t.Fatalf("%s %s: %d of %d requests have arrived", what, stage, i, size)
		}
	}
	left := make(map[string]time.Time, size)
	for _, g := range guests {
		g.sees()
	}
	for _, g := range guests {
		left[g.id] = g.leave()
	}
	late = time.After(patience)
	for range guests {
		select {
		case e := <-d.ended:
			took = append(took, e.at.Sub(left[e.id]))
			delete(left, e.id)
		case <-late:
			t.Fatalf("%s %s: %d of %d requests go on", what, stage, len(left), size)
		}
	}
	for _, g := range guests {
		g.gone()
	}
	return took
}

// TestFault12ClientsThatLeave: wherever a client leaves, and however, nothing is done for it any more, it is counted, and after ten thousand
// of them no goroutine, descriptor, connection, place in a queue or count under way is left of them.
func TestFault12ClientsThatLeave(t *testing.T) {
	size, rounds := 60, 7
	if raceEnabled {
		size, rounds = 10, 2
	}
	d := newDepartures(t)
	holder := d.dial(t).say("GET /queue/hold HTTP/1.1\r\nHost: a\r\n\r\n")
	<-d.arrived
	ways := [...]string{"plain", "TLS", "HTTP/2"}
	settled := func() bool {
		open, _ := d.hub.Connections()
		return d.Server.open.Load() == 1 && d.busy.Load() == 1 && open == 1 // those of the holder
	}
	var all []time.Duration
	var before, goroutines int
	for round := range rounds + 1 {
		if round == 1 { // what is made once is there
			d.eventually("the first round is over", settled)
			before, goroutines = descriptors(t), runtime.NumGoroutine()
		}
		for _, stage := range stages {
			for _, what := range ways {
				took := d.wave(t, what, stage, size, round)
				slices.Sort(took)
				if round == rounds {
					t.Logf("%s, %s: most %v", stage, what, took[len(took)-1])
				}
				all = append(all, took...)
			}
		}
	}
	d.eventually("no connection is left", settled)
	d.eventually("no descriptor is left", func() bool { return descriptors(t) <= before })
	d.eventually("no goroutine is left", func() bool { return runtime.NumGoroutine() <= goroutines })
	want, got := map[string]float64{}, map[string]float64{}
	for _, stage := range stages {
		want[aborted(stage)] += float64(size * len(ways) * (rounds + 1))
	}
	for label := range want {
		got[label] = d.count(meter.ClientAborts, meter.Label{Name: "phase", Value: label})
	}
	// Who leaves between the queue and the dial is not counted for the latter.
	if early := got["wait"] - want["wait"]; early > 0 {
		got["wait"], got["connect"] = got["wait"]-early, got["connect"]+early
	}
	for label, n := range want {
		if got[label] != n {
			t.Errorf("%v were counted in %s, %v have left", got[label], label, n)
		}
	}
	for _, line := range d.lines(len(all)) {
		// Who has got a head has its status; a body that is cut in an orderly way is a bad request.
		answered := strings.Contains(line, " /first/") || strings.Contains(line, " /stream/") || strings.Contains(line, " /request/")
		if !answered && !strings.Contains(line, `" 499 `) {
			t.Errorf("in the log: %s", line)
			break
		}
	}
	_ = holder.Close()
	d.eventually("the place that was held is free", func() bool { return d.Server.open.Load() == 0 })
	d.dial(t).say("GET /queue/quick HTTP/1.1\r\nHost: a\r\n\r\n").want("GET", 200, "ok")
	slices.Sort(all)
	t.Logf("F12: %d clients left in %d phases, plain, TLS and HTTP/2: all noticed, until nothing is done for them p50 %v, p99 %v, most %v (goal p99 50 ms); "+
		"goroutines %d, then %d, descriptors %d, then %d, connections left 0", len(all), len(stages), all[len(all)/2].Round(time.Microsecond),
		all[len(all)*99/100].Round(time.Microsecond), all[len(all)-1].Round(time.Microsecond), goroutines, runtime.NumGoroutine(), before, descriptors(t))
}

// TestFinishWaits: where the route wants it, what is waited for is waited for to the end, and the upstream is asked, although the client has left.
func TestFinishWaits(t *testing.T) {
	up := newBackend(t, says(ok200))
	r := newGate(t, defaults()).to(up.addr, "probe")
	arrived, left := make(chan struct{}), make(chan struct{})
	r.rewrite = func(x *phase.Exchange) phase.Verdict {
		close(arrived)
		<-left
		return x.Sleep(10 * time.Millisecond)
	}
	c := r.dial(t).say(get)
	<-arrived
	reset(c.Conn)
	close(left)
	r.eventually("the exchange ends", func() bool { return r.finished() == 1 })
	if n := len(up.take()); n != 1 {
		t.Errorf("the upstream was asked %d times", n)
	}
	if n := r.count(meter.ClientAborts, meter.Label{Name: "phase", Value: "plugin"}); n != 0 {
		t.Errorf("%v aborts were counted", n)
	}
}

// TestFinishAborted: where the route wants it, the answer is read to its end for the plugins, although nobody gets it.
func TestFinishAborted(t *testing.T) {
	up := newPaced(t, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
	r := newGate(t, defaults()).to(up.addr, "chunker", "probe")
	var seen strings.Builder
	whole := false
	r.chunk = func(_ *phase.Exchange, p []byte, last bool) ([]byte, error) {
		seen.Write(p)
		whole = whole || last
		return p, nil
	}
	c := r.dial(t).say(get)
	res, err := http.ReadResponse(c.in, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(res.Body, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	reset(c.Conn)
	want := "first"
	for i := range 50 {
		piece := fmt.Sprintf("%05d", i)
		up.pieces <- "5\r\n" + piece + "\r\n"
		want += piece
	}
	up.pieces <- "0\r\n\r\n"
	r.eventually("the exchange ends", func() bool { return r.finished() == 1 })
	r.fence()
	if !whole || seen.String() != want {
		t.Errorf("the plugins saw %d of %d bytes, the end: %t", seen.Len(), len(want), whole)
	}
	if n := r.count(meter.ClientAborts, meter.Label{Name: "phase", Value: "answer"}); n != 1 {
		t.Errorf("%v aborts were counted", n)
	}
}
