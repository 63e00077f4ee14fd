package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"headgate/conf"
)

// scripted is an upstream that a test plays by hand.
type scripted struct {
	addr     string
	requests chan *servedRequest
}

// servedRequest is a request that waits for what the test answers.
type servedRequest struct {
	net.Conn
	head string
}

// newScripted starts an upstream; every connection carries as many requests as the test answers on it.
func newScripted(t testing.TB) *scripted {
	t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &scripted{addr: l.Addr().String(), requests: make(chan *servedRequest, 16)}
	ended := make(chan struct{})
	t.Cleanup(func() {
		l.Close()
		<-ended
	})
	go func() {
		defer close(ended)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { c.Close() })
			go s.read(c)
		}
	}()
	return s
}

// read hands every request head over. Bodies are left to net/http to skip.
func (s *scripted) read(c net.Conn) {
	in := bufio.NewReader(c)
	for {
		req, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		if _, err := io.Copy(io.Discard, req.Body); err != nil {
			return
		}
		s.requests <- &servedRequest{c, req.Method + " " + req.RequestURI}
	}
}

func (s *scripted) next(t testing.TB) *servedRequest {
	t.Helper()
	select {
	case r := <-s.requests:
		return r
	case <-time.After(patience):
		t.Fatal("no request arrived at the upstream")
		return nil
	}
}

func (r *servedRequest) send(t testing.TB, text string) {
	t.Helper()
	if err := r.SetWriteDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(r, text); err != nil {
		t.Fatalf("the upstream's write: %v", err)
	}
}

func chunk(s string) string { return fmt.Sprintf("%x\r\n%s\r\n", len(s), s) }

const sseHead = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"

// TestEventStream: the upstream sends an event only when the client has the one before, so an event that was held back would hang.
func TestEventStream(t *testing.T) {
	g := startGate(t, onLoopback(t, conf.Default()))
	u := newScripted(t)
	g.configure("PUT", "/routes/sse", fmt.Sprintf(`{"uri":"/sse","upstream":{"nodes":{%q:1}}}`, u.addr))
	events := []string{"data: 1\n\n", "data: {\"token\":\"caf\u00e9\"}\n\n", ": ping\n\n", "data: [DONE]\n\n", "data: " + strings.Repeat("x", 64<<10) + "\n\n"}
	length := len(strings.Join(events, ""))
	plain := func(s string) string { return s }
	for _, tt := range []struct {
		framing, head, end string
		piece              func(string) string
	}{
		{"chunked", sseHead, "0\r\n\r\n", chunk},
		{"length", fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: %d\r\n\r\n", length), "", plain},
		{"until close", "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n", "", plain},
	} {
		t.Run(tt.framing, func(t *testing.T) {
			c := dialWire(t, g.addr)
			if _, err := io.WriteString(c, "GET /sse HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			served := u.next(t)
			served.send(t, tt.head)
			// The head alone arrives, before there is any event.
			res, err := http.ReadResponse(c.in, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			if res.StatusCode != http.StatusOK || res.Header.Get("Content-Type") != "text/event-stream" {
				t.Errorf("head: %+v", res)
			}
			for i, e := range events {
				served.send(t, tt.piece(e))
				got := make([]byte, len(e))
				if _, err := io.ReadFull(res.Body, got); err != nil || string(got) != e {
					t.Fatalf("event %d: %q, %v", i, got, err)
				}
			}
			served.send(t, tt.end)
			if tt.framing == "until close" {
				served.Close()
			}
			if rest, err := io.ReadAll(res.Body); err != nil || len(rest) > 0 {
				t.Errorf("behind the last event: %q, %v", rest, err)
			}
		})
	}
}

// TestClientGone: when the client leaves in the middle of a stream, the upstream's connection is closed and the line is logged.
func TestClientGone(t *testing.T) {
	g := startGate(t, onLoopback(t, conf.Default()))
	u := newScripted(t)
	g.configure("PUT", "/routes/sse", fmt.Sprintf(`{"uri":"/sse","upstream":{"nodes":{%q:1}}}`, u.addr))
	c := dialWire(t, g.addr)
	if _, err := io.WriteString(c, "GET /sse HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	served := u.next(t)
	served.send(t, sseHead+chunk("data: 1\n\n"))
	if _, err := http.ReadResponse(c.in, nil); err != nil {
		t.Fatal(err)
	}
	if err := c.Conn.(*net.TCPConn).SetLinger(0); err != nil {
		t.Fatal(err)
	}
	c.Close()
	// The gateway learns of it when it writes.
	eventually(t, "the upstream's connection to be closed", func() bool {
		_, err := io.WriteString(served, chunk("data: more\n\n"))
		return err != nil
	})
	eventually(t, "the line in the access log", func() bool { return g.logCount("route=sse") == 1 })
}
