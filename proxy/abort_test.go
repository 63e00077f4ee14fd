package proxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"headgate/proxy/meter"
	"headgate/proxy/phase"
)

// patientServer is an upstream that takes its time: it never answers /wait, never ends the answer to /answer, and reads all it is sent.
type patientServer struct {
	addr  string
	asked chan string    // the target of a request that has come
	left  chan time.Time // when the connection of one has ended
	open  atomic.Int64
}

func newPatientServer(t testing.TB) *patientServer {
	p := &patientServer{asked: make(chan string, 1000), left: make(chan time.Time, 1000)}
	p.addr = rawServer(t, func(c net.Conn, in *bufio.Reader) {
		p.open.Add(1)
		defer p.open.Add(-1)
		for {
			lines, err := head(in)
			if err != nil {
				return
			}
			target := strings.Fields(lines[0])[1]
			switch target {
			case "/quick":
				_, _ = io.WriteString(c, ok200)
				continue
			case "/answer":
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
			}
			p.asked <- target
			_, _ = io.Copy(io.Discard, in)
			p.left <- time.Now()
			return
		}
	})
	return p
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

// abandon sends a request and leaves in the given phase. It returns when that was.
func abandon(t testing.TB, p *patientServer, c net.Conn, during, how string) time.Time {
	raw := "GET /" + during + " HTTP/1.1\r\nHost: a.test\r\n\r\n"
	if during == "request" {
		raw = "POST /request HTTP/1.1\r\nHost: a.test\r\nContent-Length: 500000\r\n\r\n" + strings.Repeat("x", 100_000)
	}
	if _, err := io.WriteString(c, raw); err != nil {
		t.Error(err)
	}
	if got := <-p.asked; got != "/"+during {
		t.Errorf("the upstream was asked for %s", got)
	}
	if during == "answer" {
		buf := make([]byte, 1024)
		for seen := ""; !strings.Contains(seen, "first"); {
			n, err := c.Read(buf)
			if seen += string(buf[:n]); err != nil {
				t.Errorf("%q, %v", seen, err)
				break
			}
		}
	}
	at := time.Now()
	switch raw, secure := c.(*tls.Conn); {
	case how == "reset" && secure:
		reset(raw.NetConn())
	case how == "reset":
		reset(c)
	case how == "end" && !secure:
		_ = c.(*net.TCPConn).CloseWrite()
	default:
		_ = c.Close()
	}
	return at
}

// TestClientsThatLeave: wherever a client leaves, and however, the upstream learns of it at once (reliability F12), and it is counted. The log
// has how long it took.
func TestClientsThatLeave(t *testing.T) {
	const each = 40
	p := newPatientServer(t)
	for _, over := range []string{"plain", "TLS"} {
		for _, during := range []string{"request", "wait", "answer"} {
			t.Run(over+" "+during, func(t *testing.T) {
				r := newSecureGate(t, defaults())
				r.put("ssls/1", r.ca.ssl("a.test"))
				r.route("r", `{"uri":"/*","upstream":{"nodes":{"`+p.addr+`":1}}}`)
				plain, err := Listen(t.Context(), "127.0.0.1:0")
				if err != nil {
					t.Fatal(err)
				}
				served := make(chan error, 1)
				go func() { served <- r.Serve(plain) }()
				defer func() {
					_ = plain.Close()
					if err := <-served; err != nil {
						t.Error(err)
					}
				}()
				var took []time.Duration
				for i := range each {
					how := []string{"close", "reset", "end"}[i%3]
					var c net.Conn
					if over == "TLS" {
						c = r.open(t, r.config("a.test")).Conn
					} else if c, err = net.Dial("tcp", plain.Addr().String()); err != nil {
						t.Fatal(err)
					}
					at := abandon(t, p, c, during, how)
					select {
					case left := <-p.left:
						took = append(took, left.Sub(at))
					case <-time.After(patience):
						t.Fatalf("%s: the upstream is still asked", how)
					}
					_ = c.Close()
				}
				slices.Sort(took)
				t.Logf("until the upstream is let go: median %v, p99 %v, most %v", took[len(took)/2], took[len(took)*99/100], took[len(took)-1])
				r.eventually("they are counted", func() bool {
					return r.count(meter.ClientAborts, meter.Label{Name: "phase", Value: during}) == each
				})
				r.eventually("nothing is left", func() bool {
					open, idle := r.hub.Connections()
					return open == 0 && idle == 0 && r.busy.Load() == 0
				})
			})
		}
	}
}

// TestStreamsLeave is the same for the streams of one HTTP/2 connection, which stays.
func TestStreamsLeave(t *testing.T) {
	p := newPatientServer(t)
	r := newH2Gate(t, defaults(), &backend{addr: p.addr})
	r.route("any", `{"uri":"/*","upstream":{"nodes":{"`+p.addr+`":1}}}`)
	c := r.speaker(t)
	var took []time.Duration
	for i := range 40 {
		ctx, cancel := context.WithCancel(t.Context())
		during := []string{"wait", "answer"}[i%2]
		q, err := http.NewRequestWithContext(ctx, "GET", "https://a.test/"+during, nil)
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		first := make(chan struct{})
		go func() {
			res, err := c.Do(q)
			if err == nil {
				_, _ = io.ReadFull(res.Body, make([]byte, 5))
				close(first)
				_, err = io.Copy(io.Discard, res.Body)
				_ = res.Body.Close()
			}
			ended <- err
		}()
		<-p.asked
		if during == "answer" {
			<-first
		}
		at := time.Now()
		cancel()
		select {
		case left := <-p.left:
			took = append(took, left.Sub(at))
		case <-time.After(patience):
			t.Fatal("the upstream is still asked")
		}
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
	slices.Sort(took)
	t.Logf("until the upstream is let go: median %v, most %v", took[len(took)/2], took[len(took)-1])
	if n := r.handshakes("full"); n != 1 {
		t.Errorf("%v connections", n)
	}
	if _, got, err := ask(t, c, "GET", "/quick", nil); err != nil || got != "ok" {
		t.Errorf("%q, %v", got, err)
	}
}

// TestAbortsLeaveNothing: ten thousand clients that leave, and no goroutine, descriptor, connection, place of the watcher or count under way
// is left of them.
func TestAbortsLeaveNothing(t *testing.T) {
	const size = 200
	waves := 50
	if raceEnabled {
		waves = 10
	}
	p := newPatientServer(t)
	r := newGate(t, defaults()).route("r", `{"uri":"/*","upstream":{"nodes":{"`+p.addr+`":1}}}`)
	r.dial(t).say("GET /quick HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").want("GET", 200, "ok")
	r.eventually("the client is gone", func() bool { return r.open.Load() == 0 })
	var goroutines, before int
	for wave := range waves {
		if wave == 1 { // what is made once is there
			r.eventually("the first wave is over", func() bool { return r.open.Load() == 0 && p.open.Load() <= 1 })
			goroutines, before = runtime.NumGoroutine(), descriptors(t)
		}
		var clients [size]net.Conn
		for i := range clients {
			var err error
			if clients[i], err = net.Dial("tcp", r.addr); err != nil {
				t.Fatal(err)
			}
			if _, err := fmt.Fprintf(clients[i], "GET /%s HTTP/1.1\r\nHost: a\r\n\r\n", []string{"wait", "answer"}[i%2]); err != nil {
				t.Fatal(err)
			}
		}
		for range clients {
			<-p.asked
		}
		for i, c := range clients {
			switch i % 3 {
			case 0:
				reset(c)
			case 1:
				_ = c.Close()
			default:
				_ = c.(*net.TCPConn).CloseWrite()
			}
		}
		for range clients {
			<-p.left
		}
		for _, c := range clients {
			_ = c.Close()
		}
	}
	r.eventually("no connection is left", func() bool {
		open, _ := r.hub.Connections()
		return r.open.Load() == 0 && r.busy.Load() == 0 && open <= 1 && p.open.Load() <= 1
	})
	r.eventually("no descriptor is left", func() bool { return descriptors(t) <= before })
	r.eventually("no goroutine is left", func() bool { return runtime.NumGoroutine() <= goroutines })
	wait, answer := r.count(meter.ClientAborts, meter.Label{Name: "phase", Value: "wait"}), r.count(meter.ClientAborts, meter.Label{Name: "phase", Value: "answer"})
	if wait+answer != float64(waves*size) {
		t.Errorf("%v and %v were counted", wait, answer)
	}
	r.dial(t).say("GET /quick HTTP/1.1\r\nHost: a\r\n\r\n").want("GET", 200, "ok")
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
