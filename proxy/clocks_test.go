package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"headgate/proxy/fault"
	"headgate/proxy/leaktest"
	"headgate/proxy/phase"
	"headgate/proxy/upstream/dialtest"
)

// lazyServer is an upstream that stops where the path says: in its TLS handshake, before it has read the request, before the head, before the first
// event that says something, or behind it.
func lazyServer(t testing.TB) (addr string) {
	over := make(chan struct{})
	addr = rawServer(t, func(c net.Conn, in *bufio.Reader) {
		first, err := in.Peek(len("POST /send"))
		if err == nil && string(first) == "POST /send" { // the rest stays where it is
			<-over
			return
		}
		if err == nil && first[0] != 0x16 { // no TLS
			lines, _ := head(in)
			const begun = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
			switch strings.Fields(lines[0])[1] {
			case "/first_content":
				_, _ = io.WriteString(c, begun+"9\r\n: alive\n\n\r\n")
			case "/read":
				_, _ = io.WriteString(c, begun+"d\r\ndata: first\n\n\r\n")
			}
		}
		_, _ = io.Copy(io.Discard, in)
	})
	t.Cleanup(func() { close(over) })
	return addr
}

// TestUpstreamClocks: each clock of an upstream, and of a route, has a fault, a status and a metric of its own when it has run out.
func TestUpstreamClocks(t *testing.T) {
	leaktest.Check(t, patience)
	lazy := lazyServer(t)
	hole := dialtest.Blackhole(t, netip.MustParseAddrPort("127.0.0.1:0")).String()
	for _, tt := range []struct {
		clock  string // its member of timeout
		fault  *fault.Fault
		status int // 504, or that of an answer which is cut
	}{
		{"connect", fault.ConnectTimeout, 504},
		{"handshake", fault.TLSTimeout, 504},
		{"send", fault.SendTimeout, 504},
		{"head", fault.HeadTimeout, 504},
		{"first_content", fault.FirstContentTimeout, 200},
		{"read", fault.ReadTimeout, 200},
		{"total", fault.TotalTimeout, 504},
	} {
		for _, of := range []string{"upstream", "route"} {
			t.Run(tt.clock+" of the "+of, func(t *testing.T) {
				t.Parallel()
				const long = `"timeout":{"connect":3600,"send":3600,"read":3600,"head":3600}`
				short := map[string]float64{"connect": 3600, "send": 3600, "read": 3600, "head": 3600}
				short[tt.clock] = 0.05
				if tt.clock == "first_content" {
					short[tt.clock] = 2 // by then there must be a head
				}
				var members []string
				for name, v := range short {
					members = append(members, fmt.Sprintf("%q:%v", name, v))
				}
				set := `"timeout":{` + strings.Join(members, ",") + `}`
				scheme, addr, inner, outer := "http", lazy, set, ""
				switch tt.clock {
				case "connect":
					addr = hole
				case "handshake":
					scheme = "https"
				}
				if of == "route" {
					inner, outer = long, set+","
				}
				o := defaults()
				o.MaxBody = 64 << 20
				r := newGate(t, o).route("r", `{"uri":"/*",`+outer+`"upstream":{"scheme":"`+scheme+`","nodes":{"`+addr+`":1},"retries":0,`+inner+`}}`)
				c := r.dial(t)
				var sending sync.WaitGroup
				if tt.clock == "send" {
					const size = 32 << 20 // more than the sockets on the way hold
					sending.Go(func() {
						_, _ = fmt.Fprintf(c, "POST /send HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n", size)
						_, _ = io.Copy(c, io.LimitReader(zeros{}, size))
					})
				} else {
					c.say("GET /" + tt.clock + " HTTP/1.1\r\nHost: a\r\n\r\n")
				}
				res, body, err := c.reply("GET")
				_ = c.Close()
				sending.Wait()
				switch {
				case res == nil:
					t.Fatalf("no answer: %v", err)
				case res.StatusCode != tt.status || (err == nil) != (tt.status == 504):
					t.Errorf("status %d, %q, %v", res.StatusCode, body, err)
				}
				r.eventually("it is counted", func() bool { return r.faults(tt.fault.Code) == 1 })
				if tt.fault.Status != 504 || tt.fault.Side != fault.Upstream {
					t.Errorf("%+v", tt.fault)
				}
			})
		}
	}
	seen := map[string]bool{}
	for _, f := range fault.All() {
		if seen[f.Code] {
			t.Errorf("two faults are called %s", f.Code)
		}
		seen[f.Code] = true
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

// TestWriteStalls: a client that takes nothing of its answer for too long is let go, however it came and however the answer is made, and that is a
// fault of its own.
func TestWriteStalls(t *testing.T) {
	endless := rawServer(t, func(c net.Conn, in *bufio.Reader) {
		_, _ = head(in)
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 100000000000\r\n\r\n")
		_, _ = io.Copy(c, zeros{})
	})
	big := make([]byte, 32<<20) // more than the sockets hold
	for _, over := range []string{"plain", "TLS", "HTTP/2"} {
		for _, kind := range []string{"stream", "whole"} {
			t.Run(over+" "+kind, func(t *testing.T) {
				t.Parallel()
				o := defaults()
				o.WriteTimeout, o.TLS.HTTP2 = 100*time.Millisecond, true
				r := newSecureGate(t, o)
				r.put("ssls/1", r.ca.ssl("a.test"))
				r.route("r", `{"uri":"/*","plugins":{"probe":{}},"upstream":{"nodes":{"`+endless+`":1}}}`)
				if kind == "whole" {
					r.rewrite = func(x *phase.Exchange) phase.Verdict {
						x.Answer(200, "", big)
						return phase.Stop
					}
				}
				switch over {
				case "plain":
					r.dial(t).sayTo("a.test", "/")
				case "TLS":
					r.open(t, r.config("a.test")).sayTo("a.test", "/")
				default: // the window of 64 KiB is never opened further
					if err := r.frames(t).open(1, true, ":method", "GET", ":scheme", "https", ":authority", "a.test", ":path", "/"); err != nil {
						t.Fatal(err)
					}
				}
				r.eventually("the gateway gives up", func() bool { return r.finished() == 1 })
				r.eventually("that is counted", func() bool { return r.faults("write_timeout") == 1 })
				if n := r.faults("client_gone"); n != 0 {
					t.Errorf("%v clients have left", n)
				}
			})
		}
	}
}

// TestIdleTimeout: a connection without requests is closed softly: nothing is said on it, and nothing has failed.
func TestIdleTimeout(t *testing.T) {
	up := newBackend(t, says(ok200))
	o := defaults()
	o.IdleTimeout = 50 * time.Millisecond
	r := newSecureGate(t, o)
	r.put("ssls/1", r.ca.ssl("a.test"))
	r.to(up.addr)
	for _, c := range []*client{r.dial(t), r.open(t, r.config("a.test"))} {
		c.sayTo("a.test", "/").want("GET", 200, "ok")
		c.closed()
	}
	r.lines(2)
	for _, f := range fault.All() {
		if n := r.faults(f.Code); n != 0 {
			t.Errorf("%s was counted", f.Code)
		}
	}
}

// TestFault07Stalls: an upstream that stops before its head, or in the midst of its answer, is waited for as long as its clocks say, and the
// client learns of it then: by a 504, or by the break of the answer.
func TestFault07Stalls(t *testing.T) {
	const each, set = 20, 300 * time.Millisecond
	leaktest.Check(t, patience)
	lazy := lazyServer(t)
	r := newSecureGate(t, defaults())
	r.put("ssls/1", r.ca.ssl("a.test"))
	for path, clocks := range map[string]string{"head": `"head":%v,"read":30`, "read": `"head":30,"read":%v`} {
		r.route(path, fmt.Sprintf(`{"uri":"/`+path+`","upstream":{"nodes":{"%s":1},"retries":0,"timeout":{"connect":30,"send":30,`+clocks+`}}}`, lazy, set.Seconds()))
	}
	stall := func(c *client, path string) (late time.Duration) {
		defer c.Close()
		begun := time.Now()
		if _, err := io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: a.test\r\n\r\n"); err != nil {
			t.Error(err)
			return 0
		}
		res, err := http.ReadResponse(c.in, nil)
		if err != nil {
			t.Error(err)
			return 0
		}
		defer res.Body.Close()
		if path == "/read" {
			if _, err := io.ReadFull(res.Body, make([]byte, len("data: first\n\n"))); err != nil || res.StatusCode != 200 {
				t.Errorf("%d, %v", res.StatusCode, err)
			}
			begun = time.Now()
		}
		_, err = io.ReadAll(res.Body)
		late = time.Since(begun) - set
		if whole := err == nil; whole != (path == "/head") || whole && res.StatusCode != 504 {
			t.Errorf("%s: status %d, the body ends with %v", path, res.StatusCode, err)
		}
		return late
	}
	var mu sync.Mutex
	var all sync.WaitGroup
	var heads, gaps []time.Duration
	for i := range 2 * each {
		c, path, list := r.dial(t), "/head", &heads
		if i%2 == 0 {
			c = r.open(t, r.config("a.test"))
		}
		if i >= each {
			path, list = "/read", &gaps
		}
		all.Go(func() {
			late := stall(c, path)
			mu.Lock()
			defer mu.Unlock()
			*list = append(*list, late)
		})
	}
	all.Wait()
	for code, want := range map[string]int{fault.HeadTimeout.Code: each, fault.ReadTimeout.Code: each} {
		r.eventually(code+" is counted", func() bool { return r.faults(code) == float64(want) })
	}
	slices.Sort(heads)
	slices.Sort(gaps)
	t.Logf("F7: %d of %d stalls before the head ended with 504, from %v to %v off the %v that were set; %d of %d in a stream with a break, from %v to %v off (goal 100 ms)",
		each, each, heads[0].Round(time.Microsecond), heads[each-1].Round(time.Microsecond), set, each, each, gaps[0].Round(time.Microsecond), gaps[each-1].Round(time.Microsecond))
}
