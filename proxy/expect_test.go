package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"headgate/proxy/phase"
)

// TestInterimAnswersOfUploads: what an upstream says while it is being sent the body holds nobody up, and reaches the client, but for the
// invitation, which comes from here, once.
func TestInterimAnswersOfUploads(t *testing.T) {
	const size = 200_000
	addr := rawServer(t, func(c net.Conn, in *bufio.Reader) {
		for {
			lines, err := head(in)
			if err != nil {
				return
			}
			for _, l := range lines {
				if strings.HasPrefix(strings.ToLower(l), "expect") {
					_, _ = io.WriteString(c, "HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n")
					return
				}
			}
			_, _ = io.WriteString(c, "HTTP/1.1 100 Continue\r\n\r\n")
			for range 4 {
				if _, err := io.CopyN(io.Discard, in, size/4); err != nil {
					return
				}
				_, _ = io.WriteString(c, "HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
			}
			_, _ = io.WriteString(c, ok200)
		}
	})
	r := newGate(t, defaults()).to(addr)
	for _, expects := range []bool{true, false} {
		c := r.dial(t)
		for range 2 {
			line := map[bool]string{true: "Expect: 100-continue\r\n"}[expects]
			c.say(fmt.Sprintf("POST / HTTP/1.1\r\nHost: a\r\n%sContent-Length: %d\r\n\r\n", line, size))
			if expects {
				c.want("POST", 100, "")
			}
			go func() { _, _ = io.WriteString(c, strings.Repeat("x", size)) }()
			for status := 0; status < 200; {
				res, body, err := c.reply("POST")
				if err != nil {
					t.Fatal(err)
				}
				status = res.StatusCode
				if status == 100 || status >= 200 && (status != 200 || body != "ok" || res.Header.Get("Link") != "") {
					t.Fatalf("%d %q %v", status, body, res.Header)
				}
			}
		}
	}
}

// TestInvitedOverHTTP2: likewise, when it is clear who takes the body.
func TestInvitedOverHTTP2(t *testing.T) {
	up := newBackend(t, says(ok200))
	r := newH2Gate(t, defaults(), up)
	r.to(up.addr, "probe")
	r.rewrite = func(x *phase.Exchange) phase.Verdict {
		if string(x.Request.Path) == "/refused" {
			x.Answer(401, "", nil)
			return phase.Stop
		}
		return phase.Continue
	}
	f := r.frames(t)
	ask := func(id uint32, path string) {
		t.Helper()
		if err := f.open(id, false, ":method", "POST", ":scheme", "https", ":authority", "a.test", ":path", path, "expect", "100-continue"); err != nil {
			t.Fatal(err)
		}
	}
	ask(1, "/")
	if got := f.answer(1); got != "100" {
		t.Fatalf("the client was told %s", got)
	}
	if err := f.WriteData(1, true, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	if got := f.answer(1); got != "200" {
		t.Errorf("the answer is %s", got)
	}
	ask(3, "/refused")
	if got := f.answer(3); got != "401" {
		t.Errorf("who is not let in was told %s", got)
	}
	if got := up.take(); len(got) != 1 || got[0].body != "hello" || len(got[0].has("Expect")) > 0 {
		t.Errorf("the upstream saw %q", got)
	}
}
