package proxy

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"headgate/proxy/phase"
)

// rawServer serves each connection with handle, on its own goroutine, and closes it afterwards.
func rawServer(t testing.TB, handle func(c net.Conn, in *bufio.Reader)) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	var conns sync.Map
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conns.Store(c, true)
			serving.Go(func() {
				defer c.Close()
				handle(c, bufio.NewReader(c))
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		conns.Range(func(c, _ any) bool { _ = c.(net.Conn).Close(); return true })
		serving.Wait()
	})
	return l.Addr().String()
}

// head reads up to the empty line.
func head(in *bufio.Reader) (lines []string, err error) {
	for {
		line, err := in.ReadString('\n')
		if line = strings.TrimSpace(line); err != nil || line == "" {
			return lines, err
		}
		lines = append(lines, line)
	}
}

// chunked writes body in chunks of size bytes.
func chunked(body string, size int) string {
	var b strings.Builder
	for len(body) > 0 {
		n := min(size, len(body))
		fmt.Fprintf(&b, "%x;n=v\r\n%s\r\n", n, body[:n])
		body = body[n:]
	}
	return b.String() + "0\r\nX-Sum: 1\r\n\r\n"
}

func TestLongBodies(t *testing.T) {
	up := newBackend(t, says(ok200))
	r := newGate(t, defaults()).to(up.addr)
	for _, n := range []int{1, 60_000, 64 << 10, 64<<10 + 1, 300_000} {
		body := strings.Repeat("abcdefghij", n/10+1)[:n]
		c := r.dial(t)
		for _, size := range []int{0, 1 + n/100, 100_000} {
			if size == 0 {
				go func() { _, _ = fmt.Fprintf(c, "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s", n, body) }()
			} else {
				go func() {
					_, _ = io.WriteString(c, "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"+chunked(body, size))
				}()
			}
			c.want("PUT", 200, "ok") // and the connection is used again
			got := up.take()
			if len(got) != 1 || got[0].bad != "" || got[0].body != body {
				t.Fatalf("%d bytes in chunks of %d: the upstream saw %d requests: %.300q", n, size, len(got), got)
			}
			streamed := len(got[0].has("Transfer-Encoding")) == 1
			if want := size > 0 && n > 64<<10; streamed != want {
				t.Errorf("%d bytes in chunks of %d: forwarded in chunks: %t", n, size, streamed)
			}
			if length := got[0].has("Content-Length"); !streamed && (len(length) != 1 || length[0] != fmt.Sprint(n)) {
				t.Errorf("Content-Length %q", length)
			}
			if len(got[0].has("X-Sum")) > 0 {
				t.Error("a trailer became a header line")
			}
		}
	}
}

// TestBodyPassesAsItComes: the upstream has the beginning of a long body before the client has sent its end, and the client may have the
// beginning of the answer by then.
func TestBodyPassesAsItComes(t *testing.T) {
	seen := make(chan string)
	addr := rawServer(t, func(c net.Conn, in *bufio.Reader) {
		if _, err := head(in); err != nil {
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
		buf := make([]byte, 5)
		for {
			if _, err := io.ReadFull(in, buf); err != nil {
				return
			}
			if seen <- string(buf); string(buf) == "end.." {
				_, _ = io.WriteString(c, "0\r\n\r\n")
				return
			}
			_, _ = fmt.Fprintf(c, "5\r\n%s\r\n", buf)
		}
	})
	r := newGate(t, defaults()).to(addr)
	c := r.dial(t).say("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 65540\r\n\r\n")
	res, err := http.ReadResponse(c.in, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	buf := make([]byte, 5)
	for i := range 3 {
		piece := fmt.Sprintf("p%04d", i)
		c.say(piece)
		if got := <-seen; got != piece {
			t.Fatalf("the upstream saw %q", got)
		}
		if _, err := io.ReadFull(res.Body, buf); err != nil || string(buf) != piece {
			t.Fatalf("the client got %q, %v", buf, err)
		}
	}
	c.say("end..")
	<-seen
	if rest, err := io.ReadAll(res.Body); err != nil || len(rest) > 0 || !res.Close {
		t.Errorf("%q, %v, closes %t", rest, err, res.Close)
	}
	c.closed() // most of the body was announced and never came
}

// TestBrokenUploads: the upstream never sees a body that has failed as a whole one, and the client learns why.
func TestBrokenUploads(t *testing.T) {
	long := strings.Repeat("x", 100_000)
	for _, tt := range []struct {
		name, head, body string
		status           int
		code             string
		hangUp           bool
	}{
		{"chunk", "Transfer-Encoding: chunked", "186a0\r\n" + long + "X\r\n0\r\n\r\n", 400, "bad_framing", false},
		{"size", "Transfer-Encoding: chunked", "186a0\r\n" + long + "\r\n5 \r\nhello\r\n0\r\n\r\n", 400, "bad_framing", false},
		{"trailer", "Transfer-Encoding: chunked", "186a0\r\n" + long + "\r\n0\r\nA B: c\r\n\r\n", 400, "bad_framing", false},
		{"too much", "Transfer-Encoding: chunked", strings.Repeat("186a0\r\n"+long+"\r\n", 11), 413, "body_too_large", false},
		{"too much in one", "Transfer-Encoding: chunked", "186a0\r\n" + long + "\r\nfffff\r\n", 413, "body_too_large", false},
		{"cut", "Content-Length: 100001", long, 400, "bad_request", true},
		{"cut chunks", "Transfer-Encoding: chunked", "186a0\r\n" + long + "\r\n", 400, "bad_request", true},
		{"pause", "Content-Length: 100001", long, 408, "request_body_timeout", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			up := newBackend(t, says(ok200))
			o := defaults()
			if tt.name == "pause" {
				o.BodyTimeout = 100 * time.Millisecond
			}
			r := newGate(t, o).to(up.addr)
			c := r.dial(t)
			go func() {
				_, _ = io.WriteString(c, "POST / HTTP/1.1\r\nHost: a\r\n"+tt.head+"\r\n\r\n"+tt.body)
				if tt.hangUp {
					_ = c.Conn.(*net.TCPConn).CloseWrite()
				}
			}()
			if res := c.want("POST", tt.status, "*"); !res.Close {
				t.Error("the connection is kept")
			}
			c.closed()
			r.eventually("the upstream's connection ends", func() bool {
				up.mu.Lock()
				defer up.mu.Unlock()
				return up.open == 0
			})
			for _, m := range up.take() {
				if m.bad == "" {
					t.Errorf("it has passed for a whole one of %d bytes", len(m.body))
				}
			}
			if n := r.faults(tt.code); n != 1 {
				t.Errorf("%s was counted %v times", tt.code, n)
			}
		})
	}
}

// TestRefusedBeforeTheBody: who is not let in is told so before the body has come, and nobody invites it.
func TestRefusedBeforeTheBody(t *testing.T) {
	up := newBackend(t, says(ok200))
	r := newGate(t, defaults()).to(up.addr, "probe")
	r.rewrite = func(x *phase.Exchange) phase.Verdict {
		if _, ok := x.Request.Header.Get("X-Key"); ok {
			return phase.Continue
		}
		x.Answer(401, phase.TypeText, []byte("who?"))
		return phase.Stop
	}
	const post = "POST / HTTP/1.1\r\nHost: a\r\n"
	t.Run("waiting", func(t *testing.T) {
		c := r.dial(t).say(post + "Expect: 100-continue\r\nContent-Length: 5\r\n\r\n")
		if res := c.want("POST", 401, "who?"); !res.Close {
			t.Error("the body may or may not come, and the connection is kept")
		}
		c.closed()
	})
	t.Run("short", func(t *testing.T) {
		c := r.dial(t).say(post + "Content-Length: 5\r\n\r\n")
		c.want("POST", 401, "who?")
		c.say("hello" + post + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n") // all of it is here
		c.want("POST", 401, "who?")
		c.say(post + "X-Key: 1\r\nContent-Length: 2\r\n\r\nhi")
		c.want("POST", 200, "ok")
	})
	t.Run("of unknown length", func(t *testing.T) {
		c := r.dial(t).say(post + "Transfer-Encoding: chunked\r\n\r\n5\r\nhe")
		if res := c.want("POST", 401, "who?"); !res.Close {
			t.Error("nobody knows how much of the body is to come, and the connection is kept")
		}
	})
	t.Run("long", func(t *testing.T) {
		c := r.dial(t).say(post + "Content-Length: 1000000\r\n\r\n")
		if res := c.want("POST", 401, "who?"); !res.Close {
			t.Error("nobody will read that body, and the connection is kept")
		}
	})
	if got := up.take(); len(got) != 1 || got[0].body != "hi" {
		t.Errorf("the upstream saw %q", got)
	}
}

// TestInvitedUploads: a client that waits is invited once, when it is clear who takes its body.
func TestInvitedUploads(t *testing.T) {
	up := newBackend(t, says(ok200))
	r := newGate(t, defaults()).to(up.addr)
	body := strings.Repeat("x", 100_000)
	for _, framing := range []string{"Content-Length: 100000\r\n\r\n" + body, "Transfer-Encoding: chunked\r\n\r\n" + chunked(body, 3000)} {
		lines, rest, _ := strings.Cut(framing, "\r\n\r\n")
		c := r.dial(t)
		for range 2 {
			c.say("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n" + lines + "\r\n\r\n")
			c.want("POST", 100, "")
			c.say(rest).want("POST", 200, "ok")
		}
		for _, m := range up.take() {
			if m.bad != "" || m.body != body || len(m.has("Expect")) > 0 {
				t.Errorf("the upstream saw %.200q", m.head)
			}
		}
	}
	// One that does not wait although it has said so is not told what it does not need to know.
	c := r.dial(t).say("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi")
	c.want("POST", 200, "ok")
}

func TestHoldBody(t *testing.T) {
	up := newBackend(t, says(ok200))
	o := defaults()
	o.Settings.MaxHeldBody = 200_000
	r := newGate(t, o).to(up.addr, "probe")
	held := -1
	r.rewrite = func(x *phase.Exchange) phase.Verdict {
		if !x.HoldBody() {
			return phase.Stop
		}
		held = len(x.Request.Body)
		return phase.Continue
	}
	for _, n := range []int{0, 10, 100_000, 200_000, 200_001, 250_000} {
		body := strings.Repeat("x", n)
		for name, raw := range map[string]string{
			"length": fmt.Sprintf("Content-Length: %d\r\n\r\n%s", n, body), "chunks": "Transfer-Encoding: chunked\r\n\r\n" + chunked(body, 5000),
		} {
			c := r.dial(t)
			go func() { _, _ = io.WriteString(c, "POST / HTTP/1.1\r\nHost: a\r\n"+raw) }()
			want, answer := 200, "ok"
			if n > 200_000 {
				want, answer = 413, "*"
			}
			c.want("POST", want, answer)
			got := up.take()
			if want == 413 && len(got) > 0 || want == 200 && (len(got) != 1 || got[0].body != body || held != n) {
				t.Errorf("%s %d: held %d, the upstream saw %.200q", name, n, held, got)
			}
		}
	}
}

// TestUploadRetries: what was collected goes to the next endpoint; what has passed through already cannot.
func TestUploadRetries(t *testing.T) {
	dead := rawServer(t, func(c net.Conn, in *bufio.Reader) {
		_, _ = head(in)
		_ = c.(*net.TCPConn).SetLinger(0)
	})
	up := newBackend(t, says(ok200))
	for n, want := range map[int]int{50_000: 200, 100_000: 502} {
		r := newGate(t, defaults()).route("r", fmt.Sprintf(`{"uri":"/*","upstream":{"nodes":[{"host":"127.0.0.1","port":%s,"weight":1,"priority":1},{"host":"127.0.0.1","port":%s,"weight":1}]}}`,
			portText(dead), portText(up.addr)))
		c := r.dial(t)
		go func() {
			_, _ = fmt.Fprintf(c, "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s", n, strings.Repeat("x", n))
		}()
		res, _, err := c.reply("PUT")
		if err != nil || res.StatusCode != want {
			t.Errorf("%d bytes: %v, %v", n, res, err)
		}
		for _, m := range up.take() {
			if len(m.body) != n {
				t.Errorf("the second endpoint got %d of %d bytes", len(m.body), n)
			}
		}
	}
}

func portText(addr string) string {
	_, port, _ := net.SplitHostPort(addr)
	return port
}

// TestUploadOverHTTP2 passes a long body through and ends it when the client resets the stream.
func TestUploadOverHTTP2(t *testing.T) {
	up := newBackend(t, says(ok200))
	r := newH2Gate(t, defaults(), up)
	c := r.speaker(t)
	body := strings.Repeat("x", 900_000)
	if _, got, err := ask(t, c, "POST", "/", strings.NewReader(body)); err != nil || got != "ok" {
		t.Fatalf("%q, %v", got, err)
	}
	if _, got, err := ask(t, c, "POST", "/", io.MultiReader(strings.NewReader(body))); err != nil || got != "ok" { // of unknown length
		t.Fatalf("%q, %v", got, err)
	}
	for _, m := range up.take() {
		if m.bad != "" || m.body != body {
			t.Errorf("the upstream saw %d bytes, %s", len(m.body), m.bad)
		}
	}
	broken := errors.New("broken")
	if _, _, err := ask(t, c, "POST", "/", io.MultiReader(strings.NewReader(body), failing{broken})); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
	r.eventually("all is over", func() bool { return r.busy.Load() == 0 })
	for _, m := range up.take() {
		if m.bad == "" {
			t.Error("a body that was cut has passed for a whole one")
		}
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// TestRefusalsArrive: a client that sends more than it may gets to know it, although it does not look before it has sent all.
func TestRefusalsArrive(t *testing.T) {
	r := newGate(t, defaults()).to("", "probe")
	const size = 8 << 20
	for raw, want := range map[string]int{
		fmt.Sprintf("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n", size): 413,
		fmt.Sprintf("POST / HTTP/1.1\r\nHost: @\r\nContent-Length: %d\r\n\r\n", size): 400,
		"GET /" + strings.Repeat("a", 32<<10):                                         431,
		fmt.Sprintf("POST / HTTP/2.0\r\nHost: a\r\nContent-Length: %d\r\n\r\n", size): 505,
	} {
		c := r.dial(t)
		if _, err := io.WriteString(c, raw+strings.Repeat("x", size)); err != nil {
			t.Fatalf("%.40q: cut while it sent: %v", raw, err)
		}
		c.want("POST", want, "*")
		_ = c.Close()
	}
	r.eventually("nobody lingers", func() bool { return r.linger.Load() == 0 && r.open.Load() == 0 })
}

// TestUnbufferedBodies: a short body passes as it comes when nobody wants it collected.
func TestUnbufferedBodies(t *testing.T) {
	seen := make(chan string)
	addr := rawServer(t, func(c net.Conn, in *bufio.Reader) {
		lines, err := head(in)
		if err != nil {
			return
		}
		seen <- "head"
		body := io.Reader(in)
		if slices.Contains(lines, "Transfer-Encoding: chunked") {
			body = httputil.NewChunkedReader(in)
		}
		buf := make([]byte, 3)
		for range 2 {
			if _, err := io.ReadFull(body, buf); err != nil {
				return
			}
			seen <- string(buf)
		}
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")
	})
	r := newGate(t, defaults()).to(addr, "probe")
	r.rewrite = func(x *phase.Exchange) phase.Verdict {
		if x.Request.Unbuffered = x.Request.Path[1] == 'u'; !x.Request.Unbuffered {
			x.HoldBody() // in memory that the next exchange may come upon
			x.Answer(204, "", nil)
			return phase.Stop
		}
		return phase.Continue
	}
	for framing, pieces := range map[string][2]string{
		"Content-Length: 6": {"abc", "def"}, "Transfer-Encoding: chunked": {"3\r\nabc\r\n", "3\r\ndef\r\n0\r\n\r\n"},
	} {
		c := r.dial(t)
		for range 3 {
			c.say("POST /held HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n").say("0\r\n\r\n").want("POST", 204, "")
		}
		c.say("POST /u HTTP/1.1\r\nHost: a\r\n" + framing + "\r\n\r\n")
		select {
		case got := <-seen:
			if got != "head" {
				t.Errorf("%s: the upstream saw %q", framing, got)
			}
		case <-time.After(30 * time.Second):
			t.Fatalf("%s: the upstream has not seen the head", framing)
		}
		for i, want := range []string{"abc", "def"} {
			c.say(pieces[i])
			if got := <-seen; got != want {
				t.Errorf("%s: the upstream saw %q", framing, got)
			}
		}
		c.want("POST", 200, "ok")
	}
}
