package proxy

import (
	"io"
	"net"
	"strings"
	"testing"
)

// Interim answers reach the client before the upstream has made up its mind, stripped of what is between it and the gateway.
func TestInterimAnswers(t *testing.T) {
	told := make(chan struct{})
	up := newBackend(t, func(c net.Conn, m message) bool {
		_, _ = io.WriteString(c, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 x\r\nLink: </a>\r\nServer: up\r\nConnection: x-hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nLink: </b>\r\n\r\n")
		<-told
		_, err := io.WriteString(c, ok200)
		return err == nil
	})
	o := defaults()
	o.Server = "gate"
	r := newH2Gate(t, o, up)
	t.Run("HTTP/1.1", func(t *testing.T) {
		c := r.dial(t)
		for range 2 {
			const want = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nLink: </b>\r\n\r\n"
			c.say(get).expect(want)
			told <- struct{}{}
			if res := c.want("GET", 200, "ok"); res.Header.Get("Link") != "" {
				t.Errorf("the answer has %v", res.Header)
			}
		}
	})
	t.Run("HTTP/1.0", func(t *testing.T) {
		go func() { told <- struct{}{} }()
		if got := r.once(t, "GET / HTTP/1.0\r\nHost: a.test\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 200") || strings.Contains(got, "Link") {
			t.Errorf("got %q", got)
		}
	})
	t.Run("HTTP/2", func(t *testing.T) {
		f := r.frames(t)
		for id := uint32(1); id < 5; id += 2 {
			if err := f.open(id, true, ":method", "GET", ":scheme", "https", ":authority", "a.test", ":path", "/"); err != nil {
				t.Fatal(err)
			}
			if got := f.answer(id); got != "103" {
				t.Fatalf("first %s", got)
			}
			told <- struct{}{}
			if got := f.answer(id); got != "200" {
				t.Errorf("then %s", got)
			}
		}
	})
}

// Of many only the first few reach the client, and none that is out of proportion.
func TestInterimAnswersAreBounded(t *testing.T) {
	const hint = "HTTP/1.1 103 Early Hints\r\nA: b\r\n\r\n"
	for sent, want := range map[string]int{strings.Repeat(hint, 10): 4, strings.Replace(hint, "b", strings.Repeat("b", 17<<10), 1): 0} {
		up := newBackend(t, says(sent+ok200))
		r := newGate(t, defaults()).to(up.addr)
		got := r.once(t, get)
		if n := strings.Count(got, "HTTP/1.1 103"); n != want || !strings.HasSuffix(got, "\r\n\r\nok") {
			t.Errorf("%d interim answers, want %d: %.300q", n, want, got)
		}
	}
}
