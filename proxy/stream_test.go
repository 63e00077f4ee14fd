package proxy

import (
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"headgate/proxy/phase"
)

// paced is an upstream whose answer the test dictates: what goes into the channel is sent, in as many pieces.
type paced struct {
	*backend
	pieces chan string
	gone   chan struct{} // closed when the gateway has let go of the connection
}

func newPaced(t *testing.T, head string) *paced {
	p := &paced{pieces: make(chan string), gone: make(chan struct{})}
	p.backend = newBackend(t, func(c net.Conn, _ message) bool {
		_, _ = io.WriteString(c, head)
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_, _ = io.Copy(io.Discard, c)
		}()
		for {
			select {
			case piece, more := <-p.pieces:
				if !more {
					return false
				}
				_, _ = io.WriteString(c, piece)
			case <-ended:
				close(p.gone)
				return false
			}
		}
	})
	t.Cleanup(func() {
		select {
		case <-p.gone:
		default:
			defer func() { _ = recover() }() // closed by the test
			close(p.pieces)
		}
	})
	return p
}

func (c *client) expect(what string) {
	c.t.Helper()
	got := make([]byte, len(what))
	if n, err := io.ReadFull(c.in, got); err != nil || string(got) != what {
		c.t.Fatalf("read %q, %v; want %q", got[:n], err, what)
	}
}

// head reads an answer's head and leaves its body.
func (c *client) head() string {
	c.t.Helper()
	var head strings.Builder
	for {
		line, err := c.in.ReadString('\n')
		if err != nil {
			c.t.Fatal(err)
		}
		if head.WriteString(line); line == "\r\n" {
			return head.String()
		}
	}
}

// TestPiecesLeaveAsTheyCome: a client gets every piece, and the head before the first of them, although the answer goes on.
func TestPiecesLeaveAsTheyCome(t *testing.T) {
	tests := []struct {
		name, request, head string
		send, want          []string // piece by piece
		end                 string   // what the upstream sends last; "" closes
		tail                string   // of the answer
		framing             string   // a line of the answer's head
	}{
		{"chunks", get, "Transfer-Encoding: chunked", []string{"1\r\na\r\n", "2\r\nbc\r\n"}, []string{"1\r\na\r\n", "2\r\nbc\r\n"}, "0\r\n\r\n", "0\r\n\r\n", "Transfer-Encoding: chunked"},
		{"length", get, "Content-Length: 20000", []string{"a", "bc", strings.Repeat("d", 9_997)}, []string{"a", "bc", strings.Repeat("d", 9_997)}, strings.Repeat("e", 10_000), strings.Repeat("e", 10_000), "Content-Length: 20000"},
		{"until close", get, "X: y", []string{"a", "bc"}, []string{"1\r\na\r\n", "2\r\nbc\r\n"}, "", "0\r\n\r\n", "Transfer-Encoding: chunked"},
		{"chunks for HTTP/1.0", "GET / HTTP/1.0\r\nConnection: keep-alive\r\nHost: a\r\n\r\n", "Transfer-Encoding: chunked", []string{"1\r\na\r\n", "2\r\nbc\r\n"}, []string{"a", "bc"}, "0\r\n\r\n", "", "Connection: close"},
		{"length for HTTP/1.0", "GET / HTTP/1.0\r\nHost: a\r\n\r\n", "Content-Length: 20000", []string{"a"}, []string{"a"}, strings.Repeat("e", 19_999), strings.Repeat("e", 19_999), "Content-Length: 20000"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			up := newPaced(t, "HTTP/1.1 200 OK\r\n"+tt.head+"\r\n\r\n")
			r := newGate(t, defaults()).to(up.addr)
			c := r.dial(t).say(tt.request)
			if head := c.head(); !strings.Contains(head, "\r\n"+tt.framing+"\r\n") || strings.Count(head, "Content-Length:")+strings.Count(head, "chunked")+strings.Count(head, "Connection: close") != 1 && tt.name != "length for HTTP/1.0" {
				t.Errorf("head %q", head)
			}
			for i, piece := range tt.send {
				up.pieces <- piece
				c.expect(tt.want[i])
			}
			if tt.end != "" {
				up.pieces <- tt.end
			} else {
				close(up.pieces)
			}
			c.expect(tt.tail)
			if strings.Contains(tt.request, "HTTP/1.0") {
				c.closed()
			} else {
				c.say("GET /# HTTP/1.1\r\nHost: a\r\n\r\n").want("GET", 400, "*")
			}
			lines := r.lines(map[bool]int{true: 1, false: 2}[strings.Contains(tt.request, "HTTP/1.0")])
			line := lines[slices.IndexFunc(lines, func(l string) bool { return !strings.Contains(l, " 400 ") })]
			if sent := strings.Fields(line)[5]; sent != map[bool]string{true: "20000", false: "3"}[strings.HasPrefix(tt.name, "length")] {
				t.Errorf("log: %s", line)
			}
		})
	}
}

// TestShortBodyInPieces: that a body would fit behind its head does not make it wait for its end.
func TestShortBodyInPieces(t *testing.T) {
	for name, request := range map[string]string{"HTTP/1.1": get, "HTTP/1.0": "GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n"} {
		t.Run(name, func(t *testing.T) {
			up := newPaced(t, "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n")
			r := newGate(t, defaults()).to(up.addr)
			c := r.dial(t).say(request)
			if head := c.head(); !strings.Contains(head, "\r\nContent-Length: 6\r\n") || strings.Contains(head, "chunked") {
				t.Errorf("head %q", head)
			}
			for _, piece := range []string{"ab", "c", "def"} {
				up.pieces <- piece
				c.expect(piece)
			}
			if line := r.lines(1)[0]; !strings.Contains(line, " 200 6 ") {
				t.Errorf("log: %s", line)
			}
			c.say("GET /# HTTP/1.1\r\nHost: a\r\n\r\n").want("GET", 400, "*")
		})
	}
}

// TestShortBodyBehindItsHead: a body that has come while the answer was being prepared leaves with the head, and the connection is used again.
func TestShortBodyBehindItsHead(t *testing.T) {
	sent := make(chan struct{})
	up := newBackend(t, func(c net.Conn, _ message) bool {
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
		<-sent // the head has been read
		_, _ = io.WriteString(c, "ok")
		sent <- struct{}{}
		return true
	})
	r := newGate(t, defaults())
	r.response = func(x *phase.Exchange) {
		sent <- struct{}{}
		<-sent
		if w, ok := x.Response.Stream.(phase.Waiter); !ok || x.Response.Size != 2 {
			t.Errorf("the body is %T, %d bytes", x.Response.Stream, x.Response.Size)
		} else {
			r.eventually("the body has come", func() bool { return !w.Waits() })
		}
	}
	r.to(up.addr, "probe")
	c := r.dial(t)
	for range 3 {
		buf := make([]byte, 4096)
		n, err := c.say(get).Read(buf)
		if got := string(buf[:n]); err != nil || !strings.HasPrefix(got, "HTTP/1.1 200 OK\r\n") || !strings.HasSuffix(got, "\r\n\r\nok") {
			t.Fatalf("the first read brings %q, %v", got, err)
		}
	}
	r.eventually("one connection has served them all", func() bool { open, idle := r.hub.Connections(); return open == 1 && idle == 1 })
	for _, line := range r.lines(3) {
		if !strings.Contains(line, " 200 2 ") {
			t.Errorf("log: %s", line)
		}
	}
}

// TestCutAnswers: what the upstream cuts never looks complete.
func TestCutAnswers(t *testing.T) {
	for _, tt := range []struct{ name, request, head, piece string }{
		{"chunks", get, "Transfer-Encoding: chunked", "5\r\nhello\r\n"},
		{"inside a chunk", get, "Transfer-Encoding: chunked", "5\r\nhel"},
		{"broken chunk", get, "Transfer-Encoding: chunked", "5\r\nhelloX"},
		{"length", get, "Content-Length: 20000", "hello"},
		{"short length", get, "Content-Length: 20", "hello"},
		{"chunks for HTTP/1.0", "GET / HTTP/1.0\r\nHost: a\r\n\r\n", "Transfer-Encoding: chunked", "5\r\nhello\r\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			up := newPaced(t, "HTTP/1.1 200 OK\r\n"+tt.head+"\r\n\r\n")
			r := newGate(t, defaults()).to(up.addr, "probe")
			c := r.dial(t).say(tt.request)
			head := c.head()
			up.pieces <- tt.piece
			close(up.pieces)
			rest, err := io.ReadAll(c.in)
			switch {
			case strings.Contains(head, "chunked") && strings.HasSuffix(string(rest), "0\r\n\r\n"):
				t.Errorf("the answer looks complete: %q", rest)
			case strings.Contains(tt.request, "HTTP/1.0") && !errors.Is(err, syscall.ECONNRESET):
				t.Errorf("the answer looks complete: %q, %v", rest, err)
			}
			r.eventually("the done phase", func() bool { return r.finished() == 1 })
			if got := r.faults("body_cut") + r.faults("bad_body"); got != 1 {
				t.Errorf("it was counted %v times", got)
			}
		})
	}
}

// TestClientLeaves: when the client has gone, the upstream's connection is closed, the exchange ends, and nothing is pinned any more.
func TestClientLeaves(t *testing.T) {
	for name, head := range map[string]string{"chunks": "Transfer-Encoding: chunked", "length": "Content-Length: 1000000000"} {
		t.Run(name, func(t *testing.T) {
			up := newPaced(t, "HTTP/1.1 200 OK\r\n"+head+"\r\n\r\n")
			r := newGate(t, defaults()).to(up.addr, "probe")
			c := r.dial(t).say(get)
			c.head()
			_ = c.Close()
			piece := strings.Repeat("a", 4096)
			if name == "chunks" {
				piece = fmt.Sprintf("%x\r\n%s\r\n", len(piece), piece)
			}
			for gone := false; !gone; {
				select {
				case up.pieces <- piece:
				case <-up.gone:
					gone = true
				}
			}
			r.eventually("the done phase", func() bool { return r.finished() == 1 })
			r.unpinned()
			r.eventually("the counts return", func() bool { return r.open.Load() == 0 && r.busy.Load() == 0 })
			if got := r.faults("client_gone"); got != 1 {
				t.Errorf("client_gone was counted %v times", got)
			}
		})
	}
}

// TestClientsThatVanish in every part of a request leave no counts behind.
func TestClientsThatVanish(t *testing.T) {
	up := newBackend(t, says(ok200))
	r := newGate(t, defaults()).to(up.addr)
	for _, raw := range []string{
		"", "G", "GET / HTTP/1.1\r\nHo", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
		get, get + get + "GET", "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 10\r\n\r\n",
	} {
		for _, reset := range []bool{false, true} {
			c := r.dial(t)
			_, _ = io.WriteString(c, raw)
			if reset {
				_ = c.Conn.(*net.TCPConn).SetLinger(0)
			}
			_ = c.Close()
		}
	}
	r.eventually("the counts return", func() bool { return r.open.Load() == 0 && r.busy.Load() == 0 })
}

// TestSilentClient: one that connects and says nothing is not answered, nor is it a request.
func TestSilentClient(t *testing.T) {
	o := defaults()
	o.HeadTimeout = 20 * time.Millisecond
	r := newGate(t, o)
	r.dial(t).closed()
	if got := r.count("headgate_requests_total"); got != 0 {
		t.Errorf("%v requests were counted", got)
	}
}

// TestWriteTimeout bounds one write that the client does not take, not the answer.
func TestWriteTimeout(t *testing.T) {
	o := defaults()
	o.WriteTimeout = 100 * time.Millisecond
	t.Run("a stream that is longer", func(t *testing.T) {
		up := newPaced(t, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
		c := newGate(t, o).to(up.addr).dial(t).say(get)
		c.head()
		for range 5 {
			time.Sleep(o.WriteTimeout / 2)
			up.pieces <- "1\r\na\r\n"
			c.expect("1\r\na\r\n")
		}
		up.pieces <- "0\r\n\r\n"
		c.expect("0\r\n\r\n")
	})
	t.Run("a client that does not read", func(t *testing.T) {
		up := newBackend(t, func(c net.Conn, _ message) bool {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
			for piece := []byte(strings.Repeat("a", 64<<10)); ; {
				if _, err := c.Write(piece); err != nil {
					return false
				}
			}
		})
		r := newGate(t, o).to(up.addr, "probe")
		r.dial(t).say(get)
		r.eventually("the gateway gives up", func() bool { return r.finished() == 1 })
		r.eventually("the upstream is let go", func() bool { up.mu.Lock(); defer up.mu.Unlock(); return up.open == 0 })
	})
	t.Run("a client that reads slowly", func(t *testing.T) {
		o := o
		o.WriteTimeout = 2 * time.Second // in all it takes longer, and no pause anywhere near as long
		big := []byte(strings.Repeat("a", 8<<20))
		r := newGate(t, o).to("", "probe")
		r.rewrite = func(x *phase.Exchange) phase.Verdict {
			x.Answer(200, "", big)
			return phase.Stop
		}
		c := r.dial(t)
		_ = c.Conn.(*net.TCPConn).SetReadBuffer(64 << 10)
		c.say(get).head()
		piece := make([]byte, 128<<10)
		for left := len(big); left > 0; left -= len(piece) {
			if _, err := io.ReadFull(c.in, piece); err != nil {
				t.Fatalf("with %d bytes to go: %v", left, err)
			}
			time.Sleep(o.WriteTimeout / 50)
		}
	})
}

// TestBodyRead is the other way in which fasthttp may read a body.
func TestBodyRead(t *testing.T) {
	g := &Gateway{errorf: t.Logf}
	x := &exchange{g: g}
	var once sync.Once
	closed := 0
	x.Response.Stream = &pieces{list: []string{"abc", "", "de"}, closed: func() { once.Do(func() { closed++ }) }}
	x.body = body{x: x, size: -1}
	var got []string
	buf := make([]byte, 2)
	for {
		n, err := x.body.Read(buf)
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, string(buf[:n]))
	}
	if s := strings.Join(got, "|"); s != "ab|c|de" || x.Response.Sent != 5 {
		t.Errorf("%s, %d bytes", s, x.Response.Sent)
	}
	if _ = x.body.Close(); closed != 1 {
		t.Error("the stream was not closed")
	}
}

// pieces is a response body out of memory.
type pieces struct {
	list   []string
	err    error // behind the last piece; io.EOF when nil
	closed func()
}

func (p *pieces) Next() ([]byte, error) {
	if len(p.list) == 0 {
		if p.err != nil {
			return nil, p.err
		}
		return nil, io.EOF
	}
	next := p.list[0]
	p.list = p.list[1:]
	return []byte(next), nil
}

func (p *pieces) Close() {
	if p.closed != nil {
		p.closed()
	}
}
