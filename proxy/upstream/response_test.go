package upstream

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"headgate/proxy/fault"
)

const chunkedHead = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

// TestResponses: what comes out of a response that an upstream sends, and whether its connection is used again.
func TestResponses(t *testing.T) {
	f := func(name, method, reply string, status int, header, body string, reused bool) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			u := r.upstream(nil, serve(t, func(p *peer) {
				if _, ok := p.next(); !ok {
					return
				}
				p.send(reply)
				if !reused && !strings.Contains(reply, "Content-Length") && !strings.Contains(reply, "chunked") {
					return // the end of the stream ends the body
				}
				p.gone()
			}))
			got := do(u, request(method, "/", ""))
			got.want(t, status, body)
			if got.header != header {
				t.Fatalf("header %q, want %q", got.header, header)
			}
			if reused {
				r.connections(1, 1)
			} else {
				r.connections(0, 0)
			}
		})
	}
	long := strings.Repeat("0123456789abcdef", 4<<10) // 64 KiB
	f("length", "GET", "HTTP/1.1 200 OK\r\nX-A: 1\r\nContent-Length: 2\r\n\r\nok", 200, "X-A: 1\n", "ok", true)
	f("empty", "GET", "HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n", 201, "", "", true)
	f("equal lengths", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\ncontent-length: 2\r\n\r\nok", 200, "", "ok", true)
	f("long", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 65536\r\n\r\n"+long, 200, "", long, true)
	f("chunked", "GET", chunkedHead+"2\r\nok\r\n0\r\n\r\n", 200, "", "ok", true)
	f("chunked with extension and trailers", "GET", chunkedHead+"02;a=\"b\"\r\nok\r\n0;x\r\nX-T: 1\r\nY: \r\n\r\n", 200, "", "ok", true)
	f("chunked, long", "GET", chunkedHead+"10000\r\n"+long+"\r\n0\r\n\r\n", 200, "", long, true)
	f("until close", "GET", "HTTP/1.1 200 OK\r\nX-A: 1\r\n\r\nall of it", 200, "X-A: 1\n", "all of it", false)
	f("HTTP/1.0", "GET", "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", 200, "", "ok", false)
	f("HTTP/1.0 keep-alive", "GET", "HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 2\r\n\r\nok", 200, "", "ok", true)
	f("HTTP/1.0 until close", "GET", "HTTP/1.0 200\r\n\r\nbody", 200, "", "body", false)
	f("close", "GET", "HTTP/1.1 200 OK\r\nConnection: Foo, CLOSE\r\nFoo: 1\r\nContent-Length: 2\r\n\r\nok", 200, "", "ok", false)
	f("204", "GET", "HTTP/1.1 204 No Content\r\nX-A: 1\r\n\r\n", 204, "X-A: 1\n", "", true)
	f("204 that announces a body", "GET", "HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\n", 204, "", "", false)
	f("304", "GET", "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 10\r\n\r\n", 304, "ETag: \"x\"\n", "", true)
	f("HEAD", "HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n", 200, "", "", true)
	f("HEAD chunked", "HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", 200, "", "", true)
	f("interim", "GET", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"+ok2, 200, "", "ok", true)
	f("no reason", "GET", "HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok", 200, "", "ok", true)
	f("hop-by-hop", "GET", "HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=9\r\nProxy-Connection: close\r\n"+
		"Upgrade: h2c\r\nTrailer: X\r\nTE: x\r\nProxy-Authenticate: Basic\r\nDate: now\r\nX-End: 2\r\nContent-Length: 2\r\n\r\nok",
		200, "X-End: 2\n", "ok", true)
	f("Connection cannot take away what describes the body", "GET",
		"HTTP/1.1 200 OK\r\nConnection: content-type, set-cookie, content-length\r\nContent-Type: a/b\r\nSet-Cookie: a=1\r\nContent-Length: 2\r\n\r\nok",
		200, "Content-Type: a/b\nSet-Cookie: a=1\n", "ok", true)
	f("repeated lines keep their order", "GET", "HTTP/1.1 200 OK\r\nSet-Cookie: a\r\nX: \t y \t\r\nset-cookie: b\r\nContent-Length: 2\r\n\r\nok",
		200, "Set-Cookie: a\nX: y\nset-cookie: b\n", "ok", true)
	f("garbage behind", "GET", ok2+"GARBAGE", 200, "", "ok", false)
	f("second answer behind chunks", "GET", chunkedHead+"2\r\nok\r\n0\r\n\r\n"+ok2, 200, "", "ok", false)
	f("body on HEAD", "HEAD", ok2, 200, "", "", false)
	f("body on 204", "GET", "HTTP/1.1 204 No Content\r\n\r\n"+ok2, 204, "", "", false)
	f("keep-alive of a second", "GET", "HTTP/1.1 200 OK\r\nKeep-Alive: max=5, timeout=1\r\nContent-Length: 2\r\n\r\nok", 200, "", "ok", false)
}

func TestHeadAnnouncesLength(t *testing.T) {
	r := newRig(t)
	u := r.upstream(nil, serve(t, answers("HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n")))
	x := request("HEAD", "/", "")
	do(u, x).want(t, 200, "")
	if x.Response.HeadLength != 500 {
		t.Fatalf("HeadLength %d", x.Response.HeadLength)
	}
}

// TestMalformedHeads: an answer that two readers could take apart differently ends in 502, whatever the method, and is not retried.
func TestMalformedHeads(t *testing.T) {
	const tail = "Content-Length: 2\r\n\r\nok"
	long := strings.Repeat("v", 40<<10)
	table := map[string]string{
		"not HTTP":                  "<html>hello</html>",
		"other protocol":            "RTSP/1.0 200 OK\r\n" + tail,
		"HTTP/0.9":                  "HTTP/0.9 200 OK\r\n" + tail,
		"HTTP/1.2":                  "HTTP/1.2 200 OK\r\n" + tail,
		"HTTP/2.0":                  "HTTP/2.0 200 OK\r\n" + tail,
		"two digits of version":     "HTTP/1.11 200 OK\r\n" + tail,
		"empty line before":         "\r\nHTTP/1.1 200 OK\r\n" + tail,
		"two spaces":                "HTTP/1.1  200 OK\r\n" + tail,
		"tab":                       "HTTP/1.1\t200 OK\r\n" + tail,
		"no status":                 "HTTP/1.1  OK\r\n" + tail,
		"short status":              "HTTP/1.1 20 OK\r\n" + tail,
		"long status":               "HTTP/1.1 2000 OK\r\n" + tail,
		"status 099":                "HTTP/1.1 099 OK\r\n" + tail,
		"status 600":                "HTTP/1.1 600 OK\r\n" + tail,
		"letters in status":         "HTTP/1.1 20x OK\r\n" + tail,
		"NUL in reason":             "HTTP/1.1 200 O\x00K\r\n" + tail,
		"CR in reason":              "HTTP/1.1 200 O\rK\r\n" + tail,
		"bare LF after status":      "HTTP/1.1 200 OK\n" + tail,
		"bare LF after line":        "HTTP/1.1 200 OK\r\nX: 1\n" + tail,
		"CR in value":               "HTTP/1.1 200 OK\r\nX: a\rSet-Cookie: b\r\n" + tail,
		"NUL in value":              "HTTP/1.1 200 OK\r\nX: a\x00\r\n" + tail,
		"DEL in value":              "HTTP/1.1 200 OK\r\nX: a\x7f\r\n" + tail,
		"no colon":                  "HTTP/1.1 200 OK\r\nFoo bar\r\n" + tail,
		"no name":                   "HTTP/1.1 200 OK\r\n: v\r\n" + tail,
		"space in name":             "HTTP/1.1 200 OK\r\nFoo Bar: v\r\n" + tail,
		"space before colon":        "HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok",
		"8-bit name":                "HTTP/1.1 200 OK\r\nF\xc3\xb6o: v\r\n" + tail,
		"folded line":               "HTTP/1.1 200 OK\r\nX: a\r\n b\r\n" + tail,
		"folded first line":         "HTTP/1.1 200 OK\r\n X: a\r\n" + tail,
		"signed length":             "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok",
		"negative length":           "HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok",
		"empty length":              "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\nok",
		"hexadecimal length":        "HTTP/1.1 200 OK\r\nContent-Length: 0x2\r\n\r\nok",
		"list of lengths":           "HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok",
		"huge length":               "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551618\r\n\r\nok",
		"two lengths":               "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
		"length and coding":         "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"two types":                 "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nX: y\r\ncontent-type: text/plain\r\n" + tail,
		"coding and length":         "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n0\r\n\r\n",
		"coding identity":           "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n" + tail,
		"coding gzip, chunked":      "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
		"coding twice":              "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"coding empty":              "HTTP/1.1 200 OK\r\nTransfer-Encoding:\r\n\r\n",
		"coding with vertical tab":  "HTTP/1.1 200 OK\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
		"coding on HTTP/1.0":        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"coding on 204":             "HTTP/1.1 204 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"101 that nobody asked for": "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
		"too long":                  "HTTP/1.1 200 OK\r\nX: " + long + "\r\n" + tail,
		"too many lines":            "HTTP/1.1 200 OK\r\n" + strings.Repeat("A: b\r\n", 600) + tail,
		"too many Connection lists": "HTTP/1.1 200 OK\r\n" + strings.Repeat("Connection: a, b\r\n", 5) + tail,
		"too many interim answers":  strings.Repeat("HTTP/1.1 102 Processing\r\n\r\n", 100000) + ok2,
		"empty line after interim":  "HTTP/1.1 100 Continue\r\n\r\n\r\n" + ok2,
	}
	for name, reply := range table {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			script := func(p *peer) {
				if _, ok := p.next(); ok {
					p.send(reply)
					p.gone() // the connection stays open: the fault is found in the bytes, not in their end
				}
			}
			s := serve(t, script)
			u := r.upstream(retries(1), s, serve(t, script))
			x := request("GET", "/", "")
			x.Response.Header.Add([]byte("X-Plugin"), []byte("1"))
			do(u, x).wantFault(t, fault.BadHead)
			r.connections(0, 0)
			if n := x.Response.Header.Len(); n != 1 || x.Attempts.Count != 1 {
				t.Fatalf("%d header lines left, %d attempts", n, x.Attempts.Count)
			}
		})
	}
}

// TestLineSaidTwice: a Content-Type that an upstream says twice it has said once; lines that are lists (RFC 9110 section 5.3) stay.
func TestLineSaidTwice(t *testing.T) {
	r := newRig(t)
	got := get(r.upstream(nil, serve(t, answers("HTTP/1.1 200 OK\r\nContent-Type: a/b\r\nX: 1\r\ncontent-type: a/b\r\nContent-Encoding: gzip\r\nContent-Encoding: br\r\nX: 1\r\nContent-Length: 2\r\n\r\nok"))))
	got.want(t, 200, "ok")
	if want := "Content-Type: a/b\nX: 1\nContent-Encoding: gzip\nContent-Encoding: br\nX: 1\n"; got.header != want {
		t.Errorf("lines %q, want %q", got.header, want)
	}
}

// TestConnectionNamesOnlyTheUpstreamsOwnLines: an upstream cannot take away what a plugin has set, nor bring back what is gone.
func TestConnectionNamesOnlyTheUpstreamsOwnLines(t *testing.T) {
	r := newRig(t)
	u := r.upstream(nil, serve(t, answers("HTTP/1.1 103 Early Hints\r\nConnection: X-Plugin\r\nX-Early: 1\r\n\r\n"+
		"HTTP/1.1 200 OK\r\nConnection: X-Plugin, X-Mine\r\nX-Mine: 1\r\nX-Plugin: theirs\r\nX-Rest: 1\r\nContent-Length: 2\r\n\r\nok")))
	x := request("GET", "/", "")
	x.Response.Header.Add([]byte("X-Plugin"), []byte("ours"))
	x.Response.Header.Add([]byte("X-Other"), []byte("ours"))
	got := do(u, x)
	got.want(t, 200, "ok")
	if want := "X-Plugin: ours\nX-Other: ours\nX-Rest: 1\n"; got.header != want {
		t.Fatalf("header %q, want %q", got.header, want)
	}
}

// TestTruncated: a response that ends before its framing says so is never taken for a whole one, at whatever byte it is cut.
func TestTruncated(t *testing.T) {
	for name, whole := range map[string]string{
		"length":  "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
		"chunked": chunkedHead + "5\r\nhello\r\n3;x\r\nabc\r\n0\r\nX-T: 1\r\n\r\n",
		"interim": "HTTP/1.1 100 Continue\r\n\r\n" + ok2,
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			var at atomic.Int64
			u := r.upstream(retries(0), serve(t, func(p *peer) {
				if _, ok := p.next(); ok {
					p.send(whole[:at.Load()])
				}
			}))
			for cut := range len(whole) {
				at.Store(int64(cut))
				if got := get(u); got.code() == "" {
					t.Fatalf("cut at %d (%q): taken for whole, body %q", cut, whole[:cut], got.body)
				}
			}
			r.connections(0, 0)
			at.Store(int64(len(whole)))
			if got := get(u); got.code() != "" {
				t.Fatalf("whole: %s", got.code())
			}
		})
	}
}

// TestSplit: where the network cuts a response into segments does not matter.
func TestSplit(t *testing.T) {
	const head = "HTTP/1.1 200 OK\r\nX-A: 1\r\n"
	for name, whole := range map[string]string{
		"length":  head + "Content-Length: 8\r\n\r\nhelloabc",
		"chunked": head + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n3;x=y\r\nabc\r\n0\r\nX-T: 1\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			var at atomic.Int64
			s := serve(t, func(p *peer) {
				for _, ok := p.next(); ok; _, ok = p.next() {
					p.send(whole[:at.Load()])
					time.Sleep(time.Millisecond) // enough, mostly, for the first part to be read alone
					p.send(whole[at.Load():])
				}
			})
			u := r.upstream(nil, s)
			for cut := 1; cut < len(whole); cut++ {
				at.Store(int64(cut))
				got := get(u)
				got.want(t, 200, "helloabc")
				if got.header != "X-A: 1\n" {
					t.Fatalf("cut at %d: header %q", cut, got.header)
				}
			}
			if n := s.connections(); n != 1 {
				t.Fatalf("%d connections for %d whole answers", n, len(whole)-1)
			}
		})
	}
}

// TestBadChunks: a body whose chunks cannot be told apart for certain is broken off.
func TestBadChunks(t *testing.T) {
	for _, body := range []string{
		"5g\r\nhello\r\n0\r\n\r\n", "4\r\nhello\r\n0\r\n\r\n", "5\r\nhello\n0\r\n\r\n", "5\r\nhello\rX0\r\n\r\n", "5  \r\nhello\r\n0\r\n\r\n",
		"\r\n0\r\n\r\n", " 5\r\nhello\r\n0\r\n\r\n", "-1\r\n", "+5\r\nhello\r\n0\r\n\r\n", "0x5\r\nhello\r\n0\r\n\r\n", "5\nhello\r\n0\r\n\r\n",
		"fffffffffffffffff\r\nx", "5;a\x00b\r\nhello\r\n0\r\n\r\n", "5;a\nb\r\nhello\r\n0\r\n\r\n", "5 a\r\nhello\r\n0\r\n\r\n",
		"0\r\nHTTP/1.1 200 OK\r\n\r\n", "0\r\nX y: 1\r\n\r\n", "0\r\n folded\r\n\r\n", "0\r\nX: 1\n\r\n", "0\r\nX: a\rb\r\n\r\n",
		"5;" + strings.Repeat("x", 2<<10) + "\r\nhello\r\n0\r\n\r\n",
		"0\r\n" + strings.Repeat("X: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n", 200) + "\r\n",
		strings.Repeat("1;"+strings.Repeat("x", 1000)+"\r\na\r\n", 20) + "0\r\n\r\n",
	} {
		r := newRig(t)
		u := r.upstream(nil, serve(t, func(p *peer) {
			if _, ok := p.next(); ok {
				p.send(chunkedHead + body)
				p.gone()
			}
		}))
		if got := get(u); !strings.Contains(got.code(), fault.BadBody.Code) {
			t.Errorf("%.60q: %q, body %q", body, got.code(), got.body)
		}
		r.connections(0, 0)
	}
}

// TestOutMethodFramesTheAnswer: whether an answer has a body is settled by the method that the upstream saw.
func TestOutMethodFramesTheAnswer(t *testing.T) {
	r := newRig(t)
	u := r.upstream(nil, serve(t, func(p *peer) {
		for q, ok := p.next(); ok; q, ok = p.next() {
			if strings.HasPrefix(q, http.MethodHead) {
				p.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
			} else {
				p.send(ok2)
			}
		}
	}))
	for _, c := range [][3]string{{"GET", "HEAD", ""}, {"HEAD", "GET", "ok"}} {
		x := request(c[0], "/", "")
		x.Request.OutMethod = []byte(c[1])
		do(u, x).want(t, 200, c[2])
	}
	r.connections(1, 1)
}

// TestExchangeIsReused: buffers that one exchange leaves behind serve the next one.
func TestExchangeIsReused(t *testing.T) {
	r := newRig(t)
	u := r.upstream(nil, serve(t, func(p *peer) {
		for q, ok := p.next(); ok; q, ok = p.next() {
			target := strings.Fields(q)[1]
			p.send(fmt.Sprintf("HTTP/1.1 200 OK\r\nX-Target: %s\r\nContent-Length: %d\r\n\r\n%s", target, len(target), target))
		}
	}))
	x := request("GET", "/", "")
	for i := range 50 {
		target := "/" + strings.Repeat("x", i*400)
		x.Request.OutTarget = []byte(target)
		got := do(u, x)
		got.want(t, 200, target)
		if got.header != "X-Target: "+target+"\n" {
			t.Fatalf("header of %d", i)
		}
		next := request("GET", "/", "")
		x.Reset()
		next.Wire = x.Wire
		x = next
	}
	r.connections(1, 1)
}
