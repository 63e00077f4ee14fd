package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"headgate/proxy/phase"
)

// TestServerWeaknesses goes through what the server's library lets through (reliability section 3.1, by its numbers), over raw sockets. S16
// is TestRefusalsArrive, S31 TestUpgradeEarlyBytes.
func TestServerWeaknesses(t *testing.T) {
	const host = "Host: a\r\n"
	post, chunks := "POST /p HTTP/1.1\r\n"+host, "Transfer-Encoding: chunked\r\n\r\n"
	for _, tt := range []struct {
		name, raw string
		status    int    // of the last answer; 0 = the connection ends without one
		target    string // at the upstream, "" = nothing came
		body      string
	}{
		{"S1 space in a name", "GET / HTTP/1.1\r\n" + host + "Transfer-Encoding x: chunked\r\n\r\n", 400, "", ""},
		{"S1 space in a known name", post + "Content Length: 5\r\n\r\nhello", 400, "", ""},
		{"S2 identity", post + "Transfer-Encoding: identity\r\n\r\n", 400, "", ""},
		{"S2 length and coding", post + "Content-Length: 3\r\n" + chunks + "0\r\n\r\n", 400, "", ""},
		{"S3 LF behind a line", "GET / HTTP/1.1\r\nHost: a\nA: b\r\n\r\n", 400, "", ""},
		{"S3 LF behind the request line", "GET / HTTP/1.1\n" + host + "\r\n", 400, "", ""},
		{"S3 LF behind the head", "GET / HTTP/1.1\r\n" + host + "\n", 400, "", ""},
		{"S3 fold", "GET / HTTP/1.1\r\n" + host + "A: b\r\n c\r\n\r\n", 400, "", ""},
		{"S4 HTTP/0.9", "GET / HTTP/0.9\r\n" + host + "\r\n", 505, "", ""},
		{"S4 HTTP/2.0", "GET / HTTP/2.0\r\n" + host + "\r\n", 505, "", ""},
		{"S4 HTTP/9.9", "GET / HTTP/9.9\r\n" + host + "\r\n", 505, "", ""},
		{"S4 HTTP/1.0", "GET /v HTTP/1.0\r\n" + host + "\r\n", 200, "/v", ""}, // readMessage wants HTTP/1.1
		{"S5 user", "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 400, "", ""},
		{"S5 brackets", "GET / HTTP/1.1\r\nHost: <a>\r\n\r\n", 400, "", ""},
		{"S5 quotes", "GET / HTTP/1.1\r\nHost: \"a\"\r\n\r\n", 400, "", ""},
		{"S5 above 0x7f", "GET / HTTP/1.1\r\nHost: \xe4\r\n\r\n", 400, "", ""},
		{"S5 port alone", "GET / HTTP/1.1\r\nHost: :80\r\n\r\n", 400, "", ""},
		{"S6 absolute form", "GET http://b/x?y HTTP/1.1\r\n" + host + "\r\n", 200, "/x?y", ""},
		{"S6 absolute form, https", "GET https://b/x HTTP/1.1\r\n" + host + "\r\n", 200, "/x", ""},
		{"S7 one path", "GET /a%2f..//%62/./c HTTP/1.1\r\n" + host + "\r\n", 200, "/b/c", ""},
		{"S7 NUL", "GET /a%00 HTTP/1.1\r\n" + host + "\r\n", 400, "", ""},
		{"S8 space behind a size", post + chunks + "5 \r\nhello\r\n0\r\n\r\n", 400, "", ""},
		{"S8 space before an extension", post + chunks + "5 ;a\r\nhello\r\n0\r\n\r\n", 200, "/p", "hello"},
		{"S8 NUL in an extension", post + chunks + "5;\x00\r\nhello\r\n0\r\n\r\n", 400, "", ""},
		{"S8 long extension", post + chunks + "5;" + strings.Repeat("a", 1<<10) + "\r\nhello\r\n0\r\n\r\n", 400, "", ""},
		{"S8 many extensions", post + chunks + strings.Repeat("1;"+strings.Repeat("a", 1000)+"\r\nx\r\n", 20) + "0\r\n\r\n", 400, "", ""},
		{"S9 data end", post + chunks + "5\r\nhello\n0\r\n\r\n", 400, "", ""},
		{"S9 data too long", post + chunks + "5\r\nhelloX\r\n0\r\n\r\n", 400, "", ""},
		{"S10 between chunks", post + chunks + "5\r\nhello\r\n", 400, "", ""},
		{"S10 behind the last chunk", post + chunks + "5\r\nhello\r\n0\r\n", 400, "", ""},
		{"S10 length", post + "Content-Length: 6\r\n\r\nhello", 400, "", ""},
		{"S11 announced", post + "Content-Length: 1048577\r\n\r\n", 413, "", ""},
		{"S11 counted", post + chunks + chunked(strings.Repeat("x", 1<<20+1), 60_000), 413, "", ""},
		{"S13 many lines", "GET / HTTP/1.1\r\n" + host + strings.Repeat("a:\r\n", 128) + "\r\n", 431, "", ""},
		{"S13 a bomb", "GET / HTTP/1.1\r\n" + host + strings.Repeat("a:\r\n", 4000) + "\r\n", 431, "", ""},
		{"S14 name of a trailer", post + chunks + "1\r\nx\r\n0\r\nA b: c\r\n\r\n", 400, "", ""},
		{"S14 trailers too long", post + chunks + "1\r\nx\r\n0\r\nA: " + strings.Repeat("a", 5<<10) + "\r\n\r\n", 400, "", ""},
		{"S29 CONNECT", "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", 405, "", ""},
		{"S29 CONNECT of a path", "CONNECT / HTTP/1.1\r\n" + host + "\r\n", 405, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			up := newBackend(t, says(ok200))
			r := newGate(t, defaults()).to(up.addr)
			reply := r.once(t, tt.raw)
			got := slices.DeleteFunc(up.take(), func(m message) bool { return m.bad == "cut" }) // which no upstream takes for whole
			if last := strings.LastIndex(reply, "HTTP/1.1 "); !strings.HasPrefix(reply[max(last, 0):], fmt.Sprintf("HTTP/1.1 %d ", tt.status)) && (tt.status != 0 || reply != "") {
				if tt.status != 400 || reply != "" || !strings.HasPrefix(tt.name, "S10") { // the client has left
					t.Errorf("the answer is %q, want %d", reply, tt.status)
				}
			}
			if tt.target == "" && len(got) > 0 || tt.target != "" && (len(got) != 1 || got[0].bad != "" || got[0].target != tt.target || got[0].body != tt.body) {
				t.Errorf("the upstream saw %q", got)
			}
		})
	}
}

// TestStickyErrors is S9 and S10 for bodies that pass through: what is broken off never ends well at the upstream.
func TestStickyErrors(t *testing.T) {
	up := newBackend(t, says(ok200))
	o := defaults()
	o.BodyBuffer = 0
	r := newGate(t, o).to(up.addr)
	whole := chunked(strings.Repeat("x", 50_000), 10_000)
	whole = strings.TrimSuffix(whole, "0\r\nX-Sum: 1\r\n\r\n")
	for name, end := range map[string]string{
		"data end": "5\r\nhello\n0\r\n\r\n", "data too long": "5\r\nhelloX\r\n0\r\n\r\n", "no size": "\r\n0\r\n\r\n", "cut": "", "last chunk cut": "0\r\n", "trailer": "0\r\nA\r\n\r\n",
	} {
		r.once(t, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"+whole+end)
		r.eventually(name+": the upstream's connection ends", func() bool { return r.open.Load() == 0 })
		for _, m := range up.take() {
			if m.bad != "cut" {
				t.Errorf("%s: the upstream took %d bytes for a whole body", name, len(m.body))
			}
		}
	}
}

// TestMultipartIsJustABody is S12: it is forwarded as it is, and nothing of it gets on the disk.
func TestMultipartIsJustABody(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	up := newBackend(t, says(ok200))
	r := newGate(t, defaults()).to(up.addr)
	body := "--b\r\nContent-Disposition: form-data; name=\"f\"; filename=\"../x\"\r\n\r\n" + strings.Repeat("y", 200_000) + "\r\n--b--\r\nepilogue"
	r.once(t, fmt.Sprintf("POST / HTTP/1.1\r\nHost: a\r\nContent-Type: multipart/form-data; boundary=b\r\nContent-Length: %d\r\n\r\n%s", len(body), body))
	if got := up.take(); len(got) != 1 || got[0].body != body {
		t.Errorf("the upstream got %d requests, not the body of %d bytes", len(got), len(body))
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("on the disk: %v, %v", left, err)
	}
}

// TestHeaderBombs is S13: thousands of lines are refused before they are taken apart, which would take many times their length of memory.
func TestHeaderBombs(t *testing.T) {
	r := newGate(t, defaults()).to("", "probe")
	bomb := "GET / HTTP/1.1\r\nHost: a\r\n" + strings.Repeat("a:\r\n", 4050) + "\r\n"
	const bombs, most = 50, 200 << 10
	var before, after runtime.MemStats
	r.once(t, bomb)
	runtime.ReadMemStats(&before)
	for range bombs {
		if reply := r.once(t, bomb); !strings.HasPrefix(reply, "HTTP/1.1 431 ") {
			t.Fatalf("answer %q", reply)
		}
	}
	runtime.ReadMemStats(&after)
	each := (after.TotalAlloc - before.TotalAlloc) / bombs
	t.Logf("%d KiB of header cost %d KiB, both ends together", len(bomb)>>10, each>>10)
	if each > most && !raceEnabled {
		t.Errorf("a header of %d bytes takes %d bytes of memory", len(bomb), each)
	}
}

// TestLinesAsTheyAre is S26 and S27: every line in its place, in its letters, as often as it came, both ways, and none that nobody sent.
func TestLinesAsTheyAre(t *testing.T) {
	const lines = "user-agent: one\r\nX-B: 1\r\nUser-Agent: two\r\ncontent-type: a/b\r\nCookie: a=1;b=\"2\" ;;c\r\nContent-Type: c/d\r\nx-a: 2\r\ncookie: d = e\r\nX-B: 3\r\n"
	const answered = "server: up\r\nX-B: 1\r\nset-cookie: a=1; Path=/\r\ncontent-type: a/b\r\nSet-Cookie: b=2\r\nContent-Encoding: x\r\nx-a: 2\r\ncontent-encoding: y\r\nX-B: 3\r\n"
	for _, tt := range []struct{ name, lines, answered string }{{"many", lines, answered}, {"none", "", ""}} {
		t.Run(tt.name, func(t *testing.T) {
			up := newBackend(t, says("HTTP/1.1 200 Fine\r\n"+tt.answered+"Content-Length: 2\r\n\r\nok"))
			r := newGate(t, defaults()).to(up.addr)
			reply := r.once(t, "POST /x HTTP/1.1\r\nHost: A.example\r\n"+tt.lines+"Content-Length: 2\r\n\r\nhi")
			got := up.take()
			if len(got) != 1 {
				t.Fatalf("the upstream saw %q", got)
			}
			left := ""
			for _, l := range got[0].lines {
				name, _, _ := strings.Cut(l, ":")
				if low := strings.ToLower(name); low == "x-real-ip" || strings.HasPrefix(low, "x-forwarded-") {
					continue
				}
				left += l + "\r\n"
			}
			if want := "Host: A.example\r\n" + tt.lines + "Content-Length: 2\r\n"; left != want {
				t.Errorf("the upstream saw\n%q\nwant\n%q", left, want)
			}
			head, _, _ := strings.Cut(reply, "\r\n\r\n")
			kept := map[string][]string{}
			rest := ""
			for l := range strings.SplitSeq(head, "\r\n") {
				if name, value, ok := strings.Cut(l, ": "); ok && name != "Date" && name != "Content-Length" {
					kept[strings.ToLower(name)] = append(kept[strings.ToLower(name)], value)
					rest += l + "\r\n"
				}
			}
			answered := strings.Replace(strings.Replace(tt.answered, "Encoding: x", "Encoding: x, y", 1), "content-encoding: y\r\n", "", 1) // one list
			for l := range strings.SplitSeq(strings.TrimSuffix(answered, "\r\n"), "\r\n") {
				if name, value, ok := strings.Cut(l, ": "); ok && !slices.Contains(kept[strings.ToLower(name)], value) {
					t.Errorf("the client did not get %q: %q", l, reply)
				}
			}
			if got, want := strings.Count(rest, "\r\n"), strings.Count(answered, "\r\n"); got != want {
				t.Errorf("the client got %d lines of %d:\n%s", got, want, rest)
			}
		})
	}
}

// TestErrorTextsAreOurs is S28: what operators are told of a broken request has none of its bytes.
func TestErrorTextsAreOurs(t *testing.T) {
	r := newGate(t, defaults()).to("", "probe")
	for _, raw := range []string{
		"c4n4ry", "GET /c4n4ry\r\n\r\n", "GET / HTTP/1.1\r\nc4n4ry\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\nAuthorization c4n4ry\r\n\r\n", "c4n4ry\x00 / HTTP/1.1\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: c4n4ry\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: c4n4ry\r\n\r\n", "GET / HTTP/c4n4ry\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nA: " + strings.Repeat("c4n4ry", 4000) + "\r\n\r\n",
	} {
		if reply := r.once(t, raw); strings.Contains(reply, "c4n4ry") {
			t.Errorf("%.60q: the answer is %q", raw, reply)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.said {
		if strings.Contains(l, "c4n4ry") {
			t.Errorf("the operator was told %q", l)
		}
	}
}

// TestEventsBeforeTheNextRequest is S30: an event is not kept back because the next request is there already.
func TestEventsBeforeTheNextRequest(t *testing.T) {
	seen := make(chan struct{})
	up := newBackend(t, func(c net.Conn, m message) bool {
		if m.target == "/next" {
			return says(ok200)(c, m)
		}
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n")
		<-seen
		_, err := io.WriteString(c, "9\r\ndata: 2\n\n\r\n0\r\n\r\n")
		return err == nil
	})
	r := newGate(t, defaults()).to(up.addr)
	c := r.dial(t).say("GET /events HTTP/1.1\r\nHost: a\r\n\r\nGET /next HTTP/1.1\r\nHost: a\r\n\r\n")
	res, err := http.ReadResponse(c.in, nil)
	if err != nil {
		close(seen)
		t.Fatal(err)
	}
	events := bufio.NewReader(res.Body)
	line, err := events.ReadString('\n')
	close(seen) // only now the upstream goes on
	if err != nil || line != "data: 1\n" {
		t.Fatalf("%q, %v", line, err)
	}
	if rest, err := io.ReadAll(events); err != nil || string(rest) != "\ndata: 2\n\n" {
		t.Errorf("%q, %v", rest, err)
	}
	c.want("GET", 200, "ok")
}

// TestUnreadUploadsAreInvitedLate is S15: nobody is invited before the plugins have let the request in, and the expectation stays here.
func TestUnreadUploadsAreInvitedLate(t *testing.T) {
	up := newBackend(t, says(ok200))
	r := newGate(t, defaults()).to(up.addr, "probe")
	r.access = func(x *phase.Exchange) phase.Verdict {
		if _, ok := x.Request.Header.Get("X-Key"); ok {
			return phase.Continue
		}
		x.AnswerError(401, "unauthorized")
		return phase.Stop
	}
	const post = "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n"
	r.dial(t).say(post+"\r\n").want("POST", 401, "*")
	c := r.dial(t).say(post + "X-Key: 1\r\n\r\n")
	c.want("POST", 100, "")
	c.say("hi").want("POST", 200, "ok")
	if got := up.take(); len(got) != 1 || got[0].body != "hi" || len(got[0].has("Expect")) > 0 {
		t.Errorf("the upstream saw %q", got)
	}
}
