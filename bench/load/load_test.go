package load

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// tinyServer answers the n-th request (from 0, over all connections) with the
// bytes of answer(n), and closes the connection when those are empty.
func tinyServer(t *testing.T, answer func(n uint64) string) (addr string, served *atomic.Uint64) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	served = new(atomic.Uint64)
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				r := bufio.NewReader(c)
				for {
					req, err := http.ReadRequest(r)
					if err != nil {
						return
					}
					body, _ := io.ReadAll(req.Body)
					if req.URL.Path != "/chat/completions" || req.Header.Get("Authorization") != "Bearer tok" || string(body) != `{"a":1}` {
						t.Errorf("server saw %s %s %q", req.URL.Path, req.Header, body)
					}
					a := answer(served.Add(1) - 1)
					io.WriteString(c, a)
					if a == "" || strings.Contains(a, "Connection: close") {
						return
					}
				}
			}()
		}
	}()
	return ln.Addr().String(), served
}

func text(status int, body string) string {
	return fmt.Sprintf("HTTP/1.1 %d X\r\ncontent-LENGTH: %d\r\nServer: t\r\n\r\n%s", status, len(body), body)
}

// runUntil loads addr until the server has seen n requests.
func runUntil(t *testing.T, addr string, conns int, served *atomic.Uint64, n uint64) (Counts, *Histogram) {
	t.Helper()
	g := Start(t.Context(), Config{
		Addr: addr, Conns: conns, WantBody: 5, Timeout: 5 * time.Second,
		Request: PostJSON("example.com", "/chat/completions", "tok", []byte(`{"a":1}`)),
	})
	g.Measure(true)
	for served.Load() < n {
		time.Sleep(time.Millisecond)
	}
	return g.Stop()
}

// Whatever the mix of answers, every request the server saw is counted once,
// under the name of what happened to it.
func TestCountsEveryAnswerOnce(t *testing.T) {
	good, n := text(200, "hello"), uint64(400)
	tests := map[string]struct {
		bad string
		of  func(Counts) uint64
	}{
		"good":              {good, nil},
		"closing":           {strings.Replace(good, "Server: t", "Connection: close", 1), nil},
		"status 503":        {text(503, "hello"), func(c Counts) uint64 { return c.Status }},
		"status 201":        {text(201, "hello"), func(c Counts) uint64 { return c.Status }},
		"short body":        {text(200, "hell"), func(c Counts) uint64 { return c.Body }},
		"long body":         {text(200, strings.Repeat("x", 9000)), func(c Counts) uint64 { return c.Body }},
		"no answer":         {"", func(c Counts) uint64 { return c.Reset }},
		"cut answer":        {strings.Replace(good, "Server: t\r\n\r\nhello", "Connection: close\r\n\r\nhel", 1), func(c Counts) uint64 { return c.Reset }},
		"not HTTP":          {"220 smtp ready, go ahead\r\n\r\n", func(c Counts) uint64 { return c.Framing }},
		"chunked":           {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", func(c Counts) uint64 { return c.Framing }},
		"answer and a half": {good + "HTTP/1.1", func(c Counts) uint64 { return c.Framing }},
		"no length":         {"HTTP/1.1 200 OK\r\n\r\nhello", func(c Counts) uint64 { return c.Framing }},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			addr, served := tinyServer(t, func(n uint64) string {
				if n%20 == 7 {
					return tt.bad
				}
				return good
			})
			counts, latency := runUntil(t, addr, 4, served, n)
			saw := served.Load()
			wantBad := (saw + 12) / 20
			if tt.of == nil {
				wantBad = 0
			}
			if counts.Done != saw-wantBad || counts.Errors() != wantBad {
				t.Errorf("server saw %d requests, %d to go wrong; counted %+v", saw, wantBad, counts)
			}
			if tt.of != nil && tt.of(counts) != wantBad {
				t.Errorf("%d errors counted under another name: %+v", wantBad, counts)
			}
			if latency.Count() == 0 || latency.Count() > counts.Done {
				t.Errorf("%d latencies of %d good answers", latency.Count(), counts.Done)
			}
		})
	}
}

// In an open loop the requests are numbered without a gap, and one that had to wait for its connection is as late as its wait.
func TestOpenLoop(t *testing.T) {
	const slow = 50 * time.Millisecond
	addr, served := tinyServer(t, func(n uint64) string {
		if n == 0 {
			time.Sleep(slow)
		}
		return text(200, "hello")
	})
	request := PostJSON("example.com", "/chat/completions", "tok", []byte(`{"a":1}`))
	var mu sync.Mutex
	seen := map[uint64]int{}
	g := Start(t.Context(), Config{
		Addr: addr, Conns: 1, WantBody: AnyBody, Timeout: 5 * time.Second, Rate: 1000,
		Next: func(buf []byte, n uint64) []byte {
			mu.Lock()
			seen[n]++
			mu.Unlock()
			return append(buf, request...)
		},
	})
	g.Measure(true)
	for served.Load() < 100 {
		time.Sleep(time.Millisecond)
	}
	counts, latency := g.Stop()
	if counts.Errors() != 0 || uint64(len(seen)) != counts.Done {
		t.Errorf("%d numbers for %+v", len(seen), counts)
	}
	for n := range counts.Done {
		if seen[n] != 1 {
			t.Errorf("request %d was made %d times", n, seen[n])
		}
	}
	// Those that were due in the first half of the slow answer waited at least for the other half of it.
	if late := float64(slow/2/time.Millisecond) / float64(counts.Done); latency.Quantile(1-late) < slow/2 {
		t.Errorf("latencies up to %v hide the wait", latency.Quantile(1))
	}
}

func TestNobodyListens(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	g := Start(t.Context(), Config{Addr: ln.Addr().String(), Conns: 2, Timeout: time.Second})
	time.Sleep(20 * time.Millisecond)
	if c, _ := g.Stop(); c.Dial < 2 || c.Done != 0 {
		t.Errorf("counted %+v, want one dial error or more per connection", c)
	}
}

func TestSilentPeerTimesOut(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0") // the kernel completes the handshake, nobody answers
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	g := Start(t.Context(), Config{Addr: ln.Addr().String(), Conns: 1, Request: []byte("x"), Timeout: 10 * time.Millisecond})
	time.Sleep(20 * time.Millisecond)
	if c, _ := g.Stop(); c.Timeout != 1 || c.Errors() != 1 {
		t.Errorf("counted %+v, want one time-out", c)
	}
}

// An answer that arrives byte by byte is the same answer.
func TestParseHeadIncremental(t *testing.T) {
	full := "HTTP/1.1 200 OK\r\nDate: x\r\nConnection: Close\r\nTe: x\r\nContent-Length: 1024\r\n\r\n"
	for i := range len(full) {
		if h, err := parseHead([]byte(full[:i])); err != nil || h.size != 0 {
			t.Fatalf("after %d bytes: %+v, %v", i, h, err)
		}
	}
	want := head{size: len(full), status: 200, body: 1024, close: true}
	if h, err := parseHead([]byte(full + "body")); err != nil || h != want {
		t.Errorf("got %+v, %v; want %+v", h, err, want)
	}
	if _, err := parseHead([]byte("HTTP/1.1 200 OK\r\n" + strings.Repeat("a: b\r\n", maxHeader/6))); err == nil {
		t.Error("an endless header is accepted")
	}
}

func FuzzParseHead(f *testing.F) {
	f.Add("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc")
	f.Add("HTTP/1.1 204 \r\n\r\n")
	f.Add("HTTP/1.1 99999999999999999999 \r\n:\r\n\r\n")
	f.Add("HTTP/1.1 200 OK\r\nContent-Length: -3\r\nConnection\r\n\r\n")
	f.Fuzz(func(t *testing.T, s string) {
		h, err := parseHead([]byte(s))
		if err != nil && h != (head{}) {
			t.Errorf("%q: a head besides an error: %+v", s, h)
		}
		if h.size > 0 && (h.size > len(s) || h.body < 0) {
			t.Errorf("%q: impossible head %+v", s, h)
		}
	})
}

func TestHistogram(t *testing.T) {
	var h, other Histogram
	if h.Quantile(0.5) != 0 {
		t.Error("an empty histogram has a median")
	}
	for i := 1; i <= 500; i++ {
		h.Record(time.Duration(i) * time.Microsecond)
		other.Record(time.Duration(500+i) * time.Microsecond)
	}
	h.Merge(&other)
	for q, want := range map[float64]int{0: 1, 0.1: 100, 0.5: 500, 0.99: 990, 1: 1000} {
		got := int(h.Quantile(q).Microseconds())
		if got > want || got < want-want/64 {
			t.Errorf("quantile %v = %d µs, want %d within 1/64 below", q, got, want)
		}
	}
	if h.Count() != 1000 {
		t.Errorf("count %d", h.Count())
	}
}

// Every bucket's lower bound falls into that bucket, and bounds only grow.
func TestHistogramBuckets(t *testing.T) {
	for i := range buckets {
		if b := bucket(lowerBound(i)); b != i {
			t.Fatalf("bucket %d starts at %d, which falls into bucket %d", i, lowerBound(i), b)
		}
		if i > 0 && lowerBound(i) <= lowerBound(i-1) {
			t.Fatalf("bucket %d starts at %d, not above its predecessor", i, lowerBound(i))
		}
	}
	if bucket(1<<60) != buckets-1 {
		t.Error("a huge value has no bucket")
	}
}
