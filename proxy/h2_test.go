package proxy

//lint:file-ignore SA1019 frames are sent here that net/http would not send

import (
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"headgate/proxy/fault"
	"headgate/proxy/meter"
	"headgate/proxy/phase"
)

func TestHTTP2(t *testing.T) {
	up := newBackend(t, func(c net.Conn, m message) bool {
		answer := "HTTP/1.1 200 OK\r\nX-Up: 1\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\nhello"
		switch {
		case m.method == "HEAD":
			answer = strings.TrimSuffix(answer, "hello")
		case m.target == "/chunked":
			answer = "HTTP/1.1 200 OK\r\nContent-Type: text/x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
		case m.target == "/none":
			answer = "HTTP/1.1 204 No Content\r\n\r\n"
		}
		_, err := io.WriteString(c, answer)
		return err == nil
	})
	o := defaults()
	o.Server, o.MaxBody = "gate", 100_000
	r := newH2Gate(t, o, up)
	c := r.speaker(t)
	large := strings.Repeat("b", 100_000)
	for _, tt := range []struct {
		method, path, body string
		lines              []string
		status             int
		answer             string
		sent               int // of the body, that the upstream must have got; -1: it must not have been asked
	}{
		{method: "GET", path: "/a?x=1", status: 200, answer: "hello"},
		{method: "HEAD", path: "/a", status: 200},
		{method: "POST", path: "/a", body: "abc", status: 200, answer: "hello", sent: 3},
		{method: "PUT", path: "/a", body: large, status: 200, answer: "hello", sent: len(large)},
		{method: "PUT", path: "/a", body: large + "x", status: 413, answer: "*", sent: -1},
		{method: "GET", path: "/chunked", status: 200, answer: "abcde"},
		{method: "GET", path: "/none", status: 204},
		{method: "GET", path: "/a%2e%2e", status: 200, answer: "hello"},
		{method: "TRACE", path: "/a", status: 405, answer: "*", sent: -1},
		{method: "get", path: "/a", status: 400, answer: "*", sent: -1},
		{method: "GET", path: "/a", lines: []string{"Host: b.test"}, status: 200, answer: "hello"},
		{method: "GET", path: "/a", lines: []string{"X-Consumer-Username: me", "X-Own: 1", "Cookie: a=1", "Cookie: b=2", "Te: trailers"}, status: 200, answer: "hello"},
	} {
		t.Run(tt.method+tt.path, func(t *testing.T) {
			var body io.Reader
			if tt.body != "" {
				body = strings.NewReader(tt.body)
			}
			res, got, err := ask(t, c, tt.method, tt.path, body, tt.lines...)
			if err != nil {
				t.Fatal(err)
			}
			if res.ProtoMajor != 2 || res.StatusCode != tt.status || tt.answer != "*" && got != tt.answer || res.Header.Get("Server") != "gate" {
				t.Errorf("answer %s %d %v %q", res.Proto, res.StatusCode, res.Header, got)
			}
			if tt.answer == "hello" && (res.ContentLength != 5 || len(res.Header["Set-Cookie"]) != 2 || res.Header["Connection"] != nil || res.Header["Content-Type"] != nil) {
				t.Errorf("length %d, lines %v", res.ContentLength, res.Header)
			}
			if tt.method == "HEAD" && res.ContentLength != 5 {
				t.Errorf("length %d", res.ContentLength)
			}
			asked := up.take()
			if len(asked) != min(tt.sent+1, 1) {
				t.Fatalf("the upstream was asked %d times", len(asked))
			}
			if len(asked) == 0 {
				return
			}
			m := asked[0]
			host := "a.test"
			if len(tt.lines) == 1 {
				host = "b.test"
			}
			if m.bad != "" || m.method != tt.method || len(m.body) != tt.sent || m.has("host")[0] != host || m.has("x-forwarded-proto")[0] != "https" {
				t.Errorf("the upstream got %s (%s)", m.head, m.bad)
			}
			if len(tt.lines) > 1 && (m.has("x-consumer-username") != nil || len(m.has("x-own")) != 1 || strings.Join(m.has("te"), "|") != "trailers" || strings.Join(m.has("cookie"), "|") != "a=1; b=2") {
				t.Errorf("the upstream got %s", m.head)
			}
		})
	}
	if line := r.lines(12)[0]; !strings.Contains(line, `"GET /a?x=1 HTTP/2.0" 200 5`) {
		t.Errorf("log line %s", line)
	}
	if n := r.handshakes("full"); n != 1 {
		t.Errorf("%v connections", n)
	}
}

// Clients that know no HTTP/2, or do not choose it, are served as before.
func TestHTTP1BesideHTTP2(t *testing.T) {
	up := newBackend(t, says(ok200))
	r := newH2Gate(t, defaults(), up)
	for _, offered := range [][]string{nil, {"http/1.1"}} {
		cfg := r.config("a.test")
		cfg.NextProtos = offered
		r.open(t, cfg).sayTo("a.test", "/").want("GET", 200, "ok")
	}
}

func TestHTTP2Streams(t *testing.T) {
	for name, head := range map[string]string{
		"unknown length": "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n", "known length": "HTTP/1.1 200 OK\r\nContent-Length: 20004\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			up := newPaced(t, head)
			r := newH2Gate(t, defaults(), up.backend)
			res, err := r.speaker(t).Get("https://a.test/")
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			buf := make([]byte, 10)
			for _, piece := range []string{"ab", "cd", "ef"} {
				up.pieces <- piece // each arrives before the next is sent
				if n, err := io.ReadFull(res.Body, buf[:2]); err != nil || string(buf[:n]) != piece {
					t.Fatalf("read %q, %v", buf[:n], err)
				}
			}
			rest := strings.Repeat("x", 19_998)
			up.pieces <- rest
			close(up.pieces)
			if got, err := io.ReadAll(res.Body); err != nil || string(got) != rest {
				t.Errorf("%d bytes more, %v", len(got), err)
			}
		})
	}
}

// A body that is cut must not look complete, and takes nothing else on the connection with it.
func TestHTTP2Cut(t *testing.T) {
	up := newBackend(t, func(c net.Conn, m message) bool {
		answer := ok200
		if m.target == "/cut" {
			answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"
		}
		_, _ = io.WriteString(c, answer)
		return m.target != "/cut"
	})
	r := newH2Gate(t, defaults(), up)
	c := r.speaker(t)
	if res, got, err := ask(t, c, "GET", "/cut", nil); err == nil {
		t.Errorf("the client took %d %q for all", res.StatusCode, got)
	}
	if _, got, err := ask(t, c, "GET", "/", nil); err != nil || got != "ok" {
		t.Errorf("%q, %v", got, err)
	}
	if n := r.faults(fault.BodyCut.Code); n != 1 {
		t.Errorf("counted %v", n)
	}
	if n := r.handshakes("full"); n != 1 {
		t.Errorf("%v connections", n)
	}
}

func TestHTTP2AtOnce(t *testing.T) {
	up := newBackend(t, func(c net.Conn, m message) bool {
		_, err := fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(m.target)+len(m.body), m.target+m.body)
		return err == nil
	})
	r := newH2Gate(t, defaults(), up)
	c := r.speaker(t)
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			for j := range 20 {
				path, body := fmt.Sprintf("/%d/%d", i, j), strings.Repeat("x", i*j)
				if _, got, err := ask(t, c, "POST", path, strings.NewReader(body)); err != nil || got != path+body {
					t.Errorf("%s: %q, %v", path, got, err)
				}
			}
		})
	}
	all.Wait()
	r.eventually("all requests are counted, and over", func() bool { return r.count(meter.Requests) == 400 && r.busy.Load() == 0 })
}

// One connection has one large body in memory at a time. Small requests go past it.
func TestHTTP2LargeBodies(t *testing.T) {
	up := newBackend(t, func(c net.Conn, m message) bool {
		answer := fmt.Sprint(len(m.body))
		_, err := fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(answer), answer)
		return err == nil
	})
	r := newH2Gate(t, defaults(), up)
	r.rewrite = func(x *phase.Exchange) phase.Verdict {
		if !x.HoldBody() {
			return phase.Stop
		}
		return phase.Continue
	}
	c := r.speaker(t)
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			body := strings.Repeat("x", 400_000+i)
			if _, got, err := ask(t, c, "POST", "/", strings.NewReader(body)); err != nil || got != fmt.Sprint(len(body)) {
				t.Errorf("%d: %q, %v", len(body), got, err)
			}
		})
	}
	all.Wait()

	f := r.frames(t)
	piece := make([]byte, 16<<10)
	send := func(id uint32, pieces int, end bool) {
		for i := range pieces {
			if err := f.WriteData(id, end && i == pieces-1, piece); err != nil {
				t.Fatal(err)
			}
		}
	}
	post := []string{":method", "POST", ":scheme", "https", ":authority", "a.test", ":path", "/"}
	_ = f.open(1, false, post...)
	send(1, 7, false) // 112 KiB: it has the token for as long as it takes
	f.taken(1, 64<<10)
	_ = f.open(3, false, post...)
	send(3, 7, true)
	_ = f.open(5, false, post...)
	send(5, 1, true)
	if got := f.next(); got != 5 {
		t.Errorf("stream %d was answered first", got)
	}
	send(1, 1, true)
	if a, b := f.next(), f.next(); a+b != 4 {
		t.Errorf("then %d and %d", a, b)
	}
}

// A client that resets what it has begun is not worked for without bound.
func TestHTTP2RapidReset(t *testing.T) {
	release := make(chan struct{})
	up := newBackend(t, func(c net.Conn, _ message) bool {
		<-release
		_, err := io.WriteString(c, ok200)
		return err == nil
	})
	r := newH2Gate(t, defaults(), up)
	f := r.frames(t)
	refused := false
	for id := uint32(1); id < 4000 && !refused; id += 2 {
		refused = f.open(id, true, ":method", "GET", ":scheme", "https", ":authority", "a.test", ":path", "/") != nil || f.WriteRSTStream(id, http2.ErrCodeCancel) != nil
	}
	if n := r.count(meter.Requests); n > maxStreams {
		t.Errorf("%v requests are worked for", n)
	}
	code := f.goodbye()
	if code != http2.ErrCodeEnhanceYourCalm {
		t.Errorf("the connection ended with %v", code)
	}
	close(release)
}

// What HTTP/2 can say and HTTP/1.1 cannot must not become another request on the way.
func TestHTTP2CannotSmuggle(t *testing.T) {
	up := newBackend(t, says(ok200))
	r := newH2Gate(t, defaults(), up)
	base := func(over ...string) []string {
		pairs := []string{":method", "GET", ":scheme", "https", ":authority", "a.test", ":path", "/"}
		for i := 0; i < len(over); i += 2 {
			at := -1
			for j := 0; j < len(pairs); j += 2 {
				if pairs[j] == over[i] {
					at = j
				}
			}
			if at < 0 {
				pairs = append(pairs, over[i], over[i+1])
			} else {
				pairs[at+1] = over[i+1]
			}
		}
		return pairs
	}
	for _, tt := range []struct {
		name string
		over []string
		want string // "" for anything but an answer of the upstream
	}{
		{"as it should be", nil, "200"},
		{"path with a version", []string{":path", "/a HTTP/1.1"}, ""},
		{"path with a line", []string{":path", "/a HTTP/1.1\r\nX: y"}, ""},
		{"path without slash", []string{":path", "a"}, ""},
		{"method with a target", []string{":method", "GET /x HTTP/1.1"}, ""},
		{"method with a line", []string{":method", "GET\r\nX: y"}, ""},
		{"authority with a line", []string{":authority", "a\r\nX: y"}, ""},
		{"authority with a user", []string{":authority", "me@a.test"}, ""},
		{"no authority", []string{":authority", ""}, ""},
		{"another host", []string{"host", "b.test"}, ""},
		{"the same host", []string{"host", "a.test"}, "200"},
		{"value with a line", []string{"x", "a\r\nb: c"}, ""},
		{"name with a colon", []string{"x:y", "a"}, ""},
		{"name with a space", []string{"x y", "a"}, ""},
		{"coding", []string{"transfer-encoding", "chunked"}, ""},
		{"connection", []string{"connection", "close"}, ""},
		{"upgrade", []string{"upgrade", "websocket"}, ""},
		{"length without a body", []string{"content-length", "5"}, ""},
		{"length that is none", []string{"content-length", "5, 6"}, ""},
		{"unknown pseudo header", []string{":x", "y"}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := r.frames(t)
			if err := f.open(1, true, base(tt.over...)...); err != nil {
				t.Fatal(err)
			}
			got := f.answer(1)
			asked := up.take()
			if tt.want != "" && (got != tt.want || len(asked) != 1) || tt.want == "" && (got == "200" || len(asked) != 0) {
				t.Errorf("answered %s, the upstream got %v", got, asked)
			}
		})
	}
}

func TestHTTP2HeadTooLarge(t *testing.T) {
	up := newBackend(t, says(ok200))
	o := defaults()
	o.MaxHead, o.MaxLines = 4096, 20
	r := newH2Gate(t, o, up)
	c := r.speaker(t)
	many := make([]string, 20)
	for i := range many {
		many[i] = fmt.Sprintf("X-%d: 1", i)
	}
	for name, lines := range map[string][]string{"bytes": {"X: " + strings.Repeat("a", 5000)}, "nearly": {"X: " + strings.Repeat("a", 4070)}, "lines": many} {
		res, _, err := ask(t, c, "GET", "/", nil, lines...)
		if err != nil || res.StatusCode != 431 {
			t.Errorf("%s: %v, %v", name, res, err)
		}
	}
	if asked := up.take(); len(asked) != 0 {
		t.Errorf("the upstream got %v", asked)
	}
}

// A client that pauses in its body, or takes nothing of its answer, loses its stream.
func TestHTTP2Stalls(t *testing.T) {
	up := newBackend(t, func(c net.Conn, _ message) bool {
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"+strings.Repeat("x", 1_000_000))
		return false
	})
	o := defaults()
	o.BodyTimeout, o.WriteTimeout = 100*time.Millisecond, 100*time.Millisecond
	r := newH2Gate(t, o, up)
	f := r.frames(t)
	_ = f.open(1, false, ":method", "POST", ":scheme", "https", ":authority", "a.test", ":path", "/")
	if got := f.answer(1); got != "408" {
		t.Errorf("a body that does not come: %s", got)
	}
	_ = f.open(3, true, ":method", "GET", ":scheme", "https", ":authority", "a.test", ":path", "/") // its window stays shut after 64 KiB
	if got := f.answer(3); got != "200" {
		t.Errorf("answer %s", got)
	}
	if got := f.answer(3); got == "200" {
		t.Errorf("an answer that is not taken: %s", got)
	}
	r.eventually("both are over", func() bool { return r.busy.Load() == 0 })
}

func TestHTTP2Misdirected(t *testing.T) {
	up := newBackend(t, says(ok200))
	r := newH2Gate(t, defaults(), up)
	r.put("ssls/m", r.ca.ssl("m.test", newAuthority(t).asks("")))
	c := r.speaker(t)
	if res, _, err := ask(t, c, "GET", "/", nil, "Host: m.test"); err != nil || res.StatusCode != 421 {
		t.Errorf("%v, %v", res, err)
	}
	if res, _, err := ask(t, c, "GET", "/", nil); err != nil || res.StatusCode != 200 {
		t.Errorf("the connection has suffered: %v, %v", res, err)
	}
}

// The drain lets streams end and tells the client to open no more.
func TestHTTP2Drains(t *testing.T) {
	up := newPaced(t, "HTTP/1.1 200 OK\r\n\r\n")
	r := newH2Gate(t, defaults(), up.backend)
	res, err := r.speaker(t).Get("https://a.test/")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	f := r.frames(t)
	if err := f.open(1, true, ":method", "TRACE", ":scheme", "https", ":authority", "a.test", ":path", "/"); err != nil || f.answer(1) != "405" {
		t.Fatalf("the other client is not served: %v", err)
	}
	ended := make(chan int, 1)
	go func() { ended <- r.Drain(t.Context(), 0) }()
	if code := f.goodbye(); code != http2.ErrCodeNo {
		t.Errorf("an idle client was told %v", code)
	}
	up.pieces <- "abc"
	close(up.pieces)
	if got, err := io.ReadAll(res.Body); err != nil || string(got) != "abc" {
		t.Errorf("%q, %v", got, err)
	}
	if cut := <-ended; cut != 0 {
		t.Errorf("%d were cut", cut)
	}
}
