package proxy

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"

	"headgate/proxy/phase"
	"headgate/proxy/phase/wire"
)

// trailing reads an answer in chunks: its body, and the lines behind it. err says that there is no end to be seen.
func (c *client) trailing() (body string, lines []string, err error) {
	var b strings.Builder
	for {
		line, err := c.in.ReadString('\n')
		if err != nil {
			return b.String(), nil, err
		}
		var n int64
		if _, err := fmt.Sscanf(line, "%x\r\n", &n); err != nil {
			return b.String(), nil, err
		}
		if n == 0 {
			break
		}
		if _, err := io.CopyN(&b, c.in, n); err != nil {
			return b.String(), nil, err
		}
		if _, err := c.in.Discard(2); err != nil {
			return b.String(), nil, err
		}
	}
	for {
		line, err := c.in.ReadString('\n')
		if err != nil {
			return b.String(), lines, err
		}
		if line == "\r\n" {
			return b.String(), lines, nil
		}
		lines = append(lines, strings.TrimSuffix(line, "\r\n"))
	}
}

// announced returns the names of a head's Trailer lines.
func announcedIn(head string) (names []string) {
	for l := range strings.SplitSeq(head, "\r\n") {
		if list, ok := strings.CutPrefix(l, "Trailer: "); ok {
			names = append(names, strings.Split(list, ", ")...)
		}
	}
	return names
}

// forbiddenTrailers are lines that never pass behind a body.
var forbiddenTrailers = []string{
	"Content-Length: 9", "content_length: 9", "Transfer-Encoding: chunked", "Content-Type: text/html", "Content-Encoding: gzip", "Host: evil", "Connection: close",
	"Keep-Alive: 1", "TE: trailers", "Trailer: X", "Upgrade: h2c", "Authorization: Basic x", "Proxy-Authorization: x", "WWW-Authenticate: x", "Cookie: a=b",
	"Set-Cookie: a=b", "X-Consumer-Username: admin", "X_Consumer_Username: admin", "x-credential-identifier: 1", "X-Forwarded-For: 1.2.3.4", "X-Real-IP: 1.2.3.4",
	"X_Real_IP: 1.2.3.4", "Forwarded: for=a", "X-Userinfo: e30=", "Cache-Control: no-store", "Location: /", "Age: 1", "If-Match: x", "Range: bytes=0-", "Expect: 100-continue",
	"Server: evil", "Date: now", "X-API-Key: k", "apikey: k", "Access-Control-Allow-Origin: *", "X-Headgate-Split: a", "X-APISIX-Upstream-Status: 200", "Vary: *",
}

// TestAnswerTrailers: what follows the body of an upstream's answer follows that of ours, whether it was all there at once or not.
func TestAnswerTrailers(t *testing.T) {
	many := func(n int) (lines []string) {
		for i := range n {
			lines = append(lines, fmt.Sprintf("X-%d: %d", i, i))
		}
		return lines
	}
	const te = "GET / HTTP/1.1\r\nHost: a\r\nConnection: TE\r\nTE: trailers\r\n\r\n"
	for _, tt := range []struct {
		name, request   string
		allowed         []string // nil: all
		head            string   // lines of the upstream's
		trailers        []string
		want, announced []string
		plain           bool // the answer goes out with a length when it is there at once
	}{
		{name: "one", request: get, trailers: []string{"Server-Timing: db;dur=5"}, want: []string{"Server-Timing: db;dur=5"}, announced: []string{"Server-Timing"}},
		{name: "one, asked for", request: te, trailers: []string{"X-Sum:1"}, want: []string{"X-Sum: 1"}, announced: []string{"X-Sum"}},
		{name: "announced", request: get, head: "Trailer: X-Sum, Content-Length\r\ntrailer: X-B\r\n", trailers: []string{"X-Sum: 1", "X-B: \t2 "}, want: []string{"X-Sum: 1", "X-B: 2"}, announced: []string{"X-Sum", "X-B"}},
		{name: "announced and not sent", request: get, head: "Trailer: X-Sum\r\n", plain: true},
		{name: "not announced as well", request: get, head: "Trailer: X-A\r\n", trailers: []string{"X-A: 1", "X-B: 2"}, want: []string{"X-A: 1", "X-B: 2"}, announced: []string{"X-A", "X-B"}},
		{name: "two of one name", request: get, trailers: []string{"X-A: 1", "x-a: 2", "X-A: 3"}, want: []string{"X-A: 1", "x-a: 2", "X-A: 3"}},
		{name: "of a header line's name", request: get, head: "X-A: head\r\nTrailer: X-A\r\n", trailers: []string{"X-A: 1", "x-a: 2"}, want: []string{"X-A: 1", "x-a: 2"}, announced: []string{}},
		{name: "forbidden ones", request: get, trailers: forbiddenTrailers[:15], plain: true},
		{name: "more of them", request: get, trailers: forbiddenTrailers[15:30], plain: true},
		{name: "the rest of them", request: get, trailers: append(slices.Clone(forbiddenTrailers[30:]), "X-Ok: 1"), want: []string{"X-Ok: 1"}},
		{name: "digest", request: get, trailers: []string{"Content-Digest: sha-256=:a:", "Repr-Digest: b"}, want: []string{"Content-Digest: sha-256=:a:", "Repr-Digest: b"}},
		{name: "empty value", request: get, trailers: []string{"X-A:"}, want: []string{"X-A: "}},
		{name: "as many as may be", request: get, trailers: many(16), want: many(16)},
		{name: "too many", request: get, trailers: many(17), plain: true},
		{name: "by name", request: get, allowed: []string{"x-1", "X-3", "Host"}, trailers: append(many(5), "Host: evil"), want: []string{"X-1: 1", "X-3: 3"}, announced: []string{"X-1", "X-3"}},
		{name: "none allowed", request: te, allowed: []string{}, head: "Trailer: X-1\r\n", trailers: many(2), plain: true},
	} {
		for _, streamed := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, streamed %t", tt.name, streamed), func(t *testing.T) {
				end := "0\r\n" + strings.Join(append(slices.Clone(tt.trailers), "", ""), "\r\n")
				up := newPaced(t, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"+tt.head+"\r\n5\r\nhello\r\n"+map[bool]string{false: end}[streamed])
				o := defaults()
				if o.ResponseTrailers = tt.allowed; tt.allowed == nil {
					o.ResponseTrailers = []string{"*"}
				}
				r := newGate(t, o).to(up.addr)
				c := r.dial(t).say(tt.request)
				head := c.head()
				if streamed { // the end comes when the client has the beginning, one byte at a time
					c.expect("5\r\nhello\r\n")
					go func() {
						for i := range end {
							up.pieces <- end[i : i+1]
						}
					}()
				} else if tt.plain {
					if !strings.Contains(head, "\r\nContent-Length: 5\r\n") || announcedIn(head) != nil {
						t.Errorf("head %q", head)
					}
					c.expect("hello")
					c.say("GET /# HTTP/1.1\r\nHost: a\r\n\r\n").want("GET", 400, "*")
					return
				}
				body, lines, err := c.trailing()
				if err != nil || !streamed && body != "hello" || streamed && body != "" || !slices.Equal(lines, tt.want) {
					t.Errorf("body %q, %v, behind it %q", body, err, lines)
				}
				if strings.Contains(head, "Content-Length") || strings.Contains(head, "X-Ok: ") || strings.Count(head, "X-A: ") != strings.Count(tt.head, "X-A: ") {
					t.Errorf("head %q", head)
				}
				if got := announcedIn(head); !streamed && tt.announced != nil && !slices.Equal(got, tt.announced) || streamed && len(got) > 0 && !strings.Contains(tt.head, got[0]) {
					t.Errorf("announced %q", got)
				}
				if saw := up.take()[0]; (len(saw.has("TE")) == 1 && saw.has("TE")[0] == "trailers") != (tt.request == te && len(o.ResponseTrailers) > 0) {
					t.Errorf("the upstream saw %s", saw.head)
				}
				c.say("GET /# HTTP/1.1\r\nHost: a\r\n\r\n").want("GET", 400, "*") // nothing is left over
			})
		}
	}
}

// TestAnswersWithoutTrailers: clients and answers that cannot have any.
func TestAnswersWithoutTrailers(t *testing.T) {
	const chunks = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-A\r\n\r\n"
	for _, long := range []bool{false, true} {
		text := map[bool]string{false: "hello", true: strings.Repeat("hello", 20_000)}[long]
		up := newBackend(t, func(c net.Conn, m message) bool {
			answer := chunks
			if m.method != "HEAD" {
				answer += fmt.Sprintf("%x\r\n%s\r\n0\r\nX-A: 1\r\n\r\n", len(text), text)
			}
			_, err := io.WriteString(c, answer)
			return err == nil
		})
		r := newGate(t, defaults()).to(up.addr, "probe")
		if _, body, err := r.dial(t).say("GET / HTTP/1.0\r\nHost: a\r\n\r\n").reply("GET"); err != nil || body != text {
			t.Errorf("HTTP/1.0: %.40q, %v", body, err)
		}
		c := r.dial(t).say("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
		if head := c.head(); announcedIn(head) != nil {
			t.Errorf("HEAD: %q", head)
		}
		r.response = func(x *phase.Exchange) { x.Answer(200, "", []byte("mine")) }
		res := c.say(get).want("GET", 200, "mine")
		if res.ContentLength != 4 || res.Trailer != nil {
			t.Errorf("a plugin's own answer: %v", res)
		}
	}
}

// TestTrailersAndChunkPlugins: a plugin that changes the body takes from it what is true of the bytes that it has replaced, and no more.
func TestTrailersAndChunkPlugins(t *testing.T) {
	for _, long := range []bool{false, true} {
		text := map[bool]string{false: "hello", true: strings.Repeat("hello", 20_000)}[long]
		up := newBackend(t, func(c net.Conn, _ message) bool {
			_, err := fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\nContent-Digest: a\r\nX-A: 1\r\nETag: \"b\"\r\n\r\n", len(text), text)
			return err == nil
		})
		o := defaults()
		r := newGate(t, o).to(up.addr, "chunker")
		c := r.dial(t)
		r.chunk = func(_ *phase.Exchange, p []byte, _ bool) ([]byte, error) { return p, nil }
		c.say(get).head()
		if body, lines, err := c.trailing(); body != text || err != nil || len(lines) != 3 {
			t.Errorf("a plugin that looks: %.40q, %v, %q", body, err, lines)
		}
		r.chunk = func(_ *phase.Exchange, p []byte, last bool) ([]byte, error) {
			if last {
				return append(slices.Clone(p), '!'), nil
			}
			return p, nil
		}
		c.say(get).head()
		if body, lines, err := c.trailing(); body != text+"!" || err != nil || !slices.Equal(lines, []string{"X-A: 1"}) {
			t.Errorf("a plugin that adds: %.40q, %v, %q", body, err, lines)
		}
	}
}

// TestTrailersOfAttempts: those of an answer that nobody gets are not those of the one that is given.
func TestTrailersOfAttempts(t *testing.T) {
	for _, long := range []int{1, 100_000} {
		bad := newBackend(t, func(c net.Conn, _ message) bool {
			_, err := fmt.Fprintf(c, "HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\nTrailer: X-Bad\r\n\r\n%x\r\n%s\r\n0\r\nX-Bad: 1\r\n\r\n", long, strings.Repeat("x", long))
			return err == nil
		})
		good := newBackend(t, says("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Good: 1\r\n\r\n"))
		r := newGate(t, defaults()).route("r", fmt.Sprintf(`{"uri":"/*","upstream":{"retry":{"statuses":[503],"budget":100},"nodes":[{"host":"127.0.0.1","port":%s,"weight":1,"priority":1},{"host":"127.0.0.1","port":%s,"weight":1}]}}`,
			portText(bad.addr), portText(good.addr)))
		c := r.dial(t).say(get)
		head := c.head()
		if body, lines, err := c.trailing(); body != "ok" || err != nil || !slices.Equal(lines, []string{"X-Good: 1"}) || strings.Contains(head, "X-Bad") {
			t.Errorf("%d bytes: %q, %v, %q behind %q", long, body, err, lines, head)
		}
	}
}

// TestCutTrailers: an answer that ends within its trailers, or with bad ones, does not look complete.
func TestCutTrailers(t *testing.T) {
	for _, end := range []string{"0\r\n", "0\r\nX-A: 1\r\n", "0\r\nX-A: 1\r\n\r", "0\r\nX-A", "0\r\nX A: 1\r\n\r\n", "0\r\nX-A: 1\n\r\n", "0\r\n: 1\r\n\r\n", "0\r\nX-A: \x00\r\n\r\n", "0\r\n X-A: 1\r\n\r\n",
		"0\r\nX-A: " + strings.Repeat("a", wire.MaxTrailers) + "\r\n\r\n"} {
		for _, streamed := range []bool{false, true} {
			up := newPaced(t, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-A\r\n\r\n5\r\nhello\r\n"+map[bool]string{false: end}[streamed])
			r := newGate(t, defaults()).to(up.addr)
			c := r.dial(t).say(get)
			if streamed {
				c.head()
				c.expect("5\r\nhello\r\n")
				up.pieces <- end
				close(up.pieces)
				if rest, _ := io.ReadAll(c.in); len(rest) > 0 {
					t.Errorf("%.40q: the client got %q", end, rest)
				}
				continue
			}
			close(up.pieces)
			if res, body, err := c.reply("GET"); err == nil && res.StatusCode != 502 {
				t.Errorf("%.40q: %d %q", end, res.StatusCode, body)
			}
		}
	}
}

// TestRequestTrailers: they go on when the operator has said so, and with them the request goes out in chunks, however long its body is.
func TestRequestTrailers(t *testing.T) {
	up := newBackend(t, says(ok200))
	for _, tt := range []struct {
		name             string
		allowed          []string
		lines, trailers  []string
		want, announced  []string // announced: when the body passes as it comes
		waits, collected bool
	}{
		{name: "not allowed", trailers: []string{"X-A: 1"}, lines: []string{"Trailer: X-A"}},
		{name: "another name", allowed: []string{"X-B"}, trailers: []string{"X-A: 1"}, lines: []string{"Trailer: X-A"}},
		{name: "by name", allowed: []string{"x-a"}, lines: []string{"Trailer: X-A, X-B"}, trailers: []string{"X-A: 1", "X-B: 2", "x-a:3"}, want: []string{"X-A: 1", "x-a: 3"}, announced: []string{"X-A"}},
		{name: "all", allowed: []string{"*"}, lines: []string{"Trailer: X-A", "trailer: X-Consumer-Username, X-B"}, trailers: []string{"X-A: 1", "X-C: 2"}, want: []string{"X-A: 1", "X-C: 2"}, announced: []string{"X-A", "X-B"}},
		{name: "none there", allowed: []string{"*"}, lines: []string{"Trailer: X-A"}, announced: []string{"X-A"}},
		{name: "forbidden", allowed: []string{"*"}, trailers: forbiddenTrailers[:15]},
		{name: "more of them", allowed: []string{"*", "Host"}, trailers: forbiddenTrailers[15:30]},
		{name: "the rest of them", allowed: []string{"*"}, trailers: append(slices.Clone(forbiddenTrailers[30:]), "X-Ok: 1"), want: []string{"X-Ok: 1"}},
		{name: "invited", allowed: []string{"*"}, lines: []string{"Expect: 100-continue"}, trailers: []string{"X-A: 1"}, want: []string{"X-A: 1"}, waits: true},
		{name: "collected for a plugin", allowed: []string{"*"}, trailers: []string{"X-A: 1"}, want: []string{"X-A: 1"}, collected: true},
	} {
		o := defaults()
		o.RequestTrailers, o.Settings.MaxHeldBody = tt.allowed, 1<<20
		r := newGate(t, o).to(up.addr, "probe")
		if tt.collected {
			r.rewrite = func(x *phase.Exchange) phase.Verdict {
				if !x.HoldBody() {
					return phase.Stop
				}
				return phase.Continue
			}
		}
		for _, n := range []int{0, 5, 40_000, 300_000} { // in one write with the head, behind it, as it comes
			t.Run(fmt.Sprintf("%s, %d bytes", tt.name, n), func(t *testing.T) {
				c := r.dial(t)
				text := strings.Repeat("x", n)
				head := "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n" + strings.Join(append(slices.Clone(tt.lines), "", ""), "\r\n")
				body := "0\r\n" + strings.Join(append(slices.Clone(tt.trailers), "", ""), "\r\n")
				if n > 0 {
					body = chunkOf(text) + body
				}
				for range 2 { // the second on the same connections
					if tt.waits {
						c.say(head).want("POST", 100, "")
						go func() { _, _ = io.WriteString(c, body) }()
					} else {
						go func() { _, _ = io.WriteString(c, head+body) }()
					}
					c.want("POST", 200, "ok")
					m := up.take()[0]
					if m.bad != "" || m.body != text || !slices.Equal(m.trailers, tt.want) {
						t.Fatalf("the upstream saw %s%s%d bytes, behind them %q", m.head, m.bad, len(m.body), m.trailers)
					}
					passes := n > 64<<10 && !tt.collected
					announced := tt.announced
					if !passes {
						announced = nil
						for _, l := range tt.want {
							name, _, _ := strings.Cut(l, ":")
							announced = append(announced, name)
						}
					}
					if got := announcedIn(m.head); !slices.Equal(got, announced) {
						t.Errorf("announced %q, want %q", got, announced)
					}
					if chunked := len(m.has("Transfer-Encoding")) == 1; chunked != (passes || len(tt.want) > 0) {
						t.Errorf("the upstream saw %s", m.head)
					}
				}
			})
		}
	}
}

// TestRequestTrailersAgain: a request that is sent again has its trailers again.
func TestRequestTrailersAgain(t *testing.T) {
	bad := newBackend(t, says("HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"))
	good := newBackend(t, says(ok200))
	o := defaults()
	o.RequestTrailers = []string{"*"}
	r := newGate(t, o).route("r", fmt.Sprintf(`{"uri":"/*","upstream":{"retry":{"statuses":[503],"budget":100},"nodes":[{"host":"127.0.0.1","port":%s,"weight":1,"priority":1},{"host":"127.0.0.1","port":%s,"weight":1}]}}`,
		portText(bad.addr), portText(good.addr)))
	for _, n := range []int{5, 40_000} {
		text := strings.Repeat("x", n)
		r.dial(t).say("PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"+chunkOf(text)+"0\r\nX-A: 1\r\n\r\n").want("PUT", 200, "ok")
		for _, up := range []*backend{bad, good} {
			if m := up.take(); len(m) != 1 || m[0].body != text || !slices.Equal(m[0].trailers, []string{"X-A: 1"}) {
				t.Errorf("%d bytes: an upstream saw %.300q", n, m)
			}
		}
	}
}

// TestTrailersOverHTTP2 in both directions.
func TestTrailersOverHTTP2(t *testing.T) {
	for _, n := range []int{5, 100_000} {
		text := strings.Repeat("x", n)
		up := newBackend(t, func(c net.Conn, m message) bool {
			if m.target == "/cut" {
				_, _ = fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\nX-A: 1\r\n", n, text)
				return false
			}
			_, err := fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nX-B: head\r\nTrailer: X-A\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\nX-A: 1\r\nX-B: 2\r\nx-a: 3\r\nSet-Cookie: a=b\r\n\r\n", n, text)
			return err == nil
		})
		o := defaults()
		o.RequestTrailers = []string{"X-Q", "X-Consumer-Username"}
		r := newH2Gate(t, o, up)
		c := r.speaker(t)
		post := func(body io.Reader) *http.Request {
			q, err := http.NewRequest(http.MethodPost, "https://a.test/", body)
			if err != nil {
				t.Fatal(err)
			}
			return q
		}
		q := post(io.MultiReader(strings.NewReader(text)))
		q.Header.Set("TE", "trailers")
		q.Trailer = map[string][]string{"X-Q": {"1", "2"}, "X-Consumer-Username": {"admin"}, "X-R": {"3"}}
		res, err := c.Do(q)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if err != nil || string(got) != text || !slices.Equal(res.Trailer["X-A"], []string{"1", "3"}) || !slices.Equal(res.Trailer["X-B"], []string{"2"}) || len(res.Trailer) != 2 ||
			!slices.Equal(res.Header["X-B"], []string{"head"}) || len(res.Cookies()) > 0 {
			t.Errorf("%d bytes: %d back, %v, %v behind %v", n, len(got), err, res.Trailer, res.Header)
		}
		m := up.take()[0]
		if m.bad != "" || m.body != text || !slices.Equal(m.trailers, []string{"X-Q: 1", "X-Q: 2"}) || len(m.has("TE")) != 1 || m.has("X-Consumer-Username") != nil {
			t.Errorf("the upstream saw %s%s%q", m.head, m.bad, m.trailers)
		}
		if res, _, err := ask(t, c, "GET", "/cut", nil); err == nil && res.StatusCode != 502 {
			t.Errorf("an answer that is cut in its trailers: %d %v", res.StatusCode, res.Trailer)
		}
		// One that announces its length has no trailers on the way to the upstream.
		q = post(strings.NewReader(text))
		q.Trailer = map[string][]string{"X-Q": {"1"}}
		if res, err = c.Do(q); err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
	}
}

// FuzzTrailers: what may pass is a section that a strict reader takes for the same, without a field that could be more than information, and
// filtering it again changes nothing.
func FuzzTrailers(f *testing.F) {
	for _, l := range append([]string{"X-A: 1", "Content-Digest: a", "X_A:\t b ", "a:", "Server-Timing: a, b"}, forbiddenTrailers...) {
		f.Add("0\r\nX: 1\r\n"+l+"\r\n\r\n", "X-A")
	}
	all := newTrailers([]string{"*"})
	f.Fuzz(func(t *testing.T, raw, name string) {
		_, section, _, whole, ok := wire.Unchunk([]byte(raw))
		if !whole || !ok {
			return
		}
		one := newTrailers([]string{name})
		some, one1 := all.filter(section), one.filter(section)
		if again := all.filter(some); string(again) != string(some) {
			t.Errorf("%q becomes %q", some, again)
		}
		if len(some) > wire.MaxTrailers+wire.MaxTrailerLines*len(": \r\n") {
			t.Errorf("%d bytes", len(some))
		}
		lines := 0
		for rest := some; len(rest) > 0; lines++ {
			var field phase.Field
			field, rest = wire.NextField(rest)
			if requestLine(field.Name) != lineOther || !wire.ValidName(field.Name) || !wire.ValidValue(field.Value) {
				t.Errorf("%q passes", field.Name)
			}
			for _, l := range forbiddenTrailers {
				if n, _, _ := strings.Cut(l, ":"); like(field.Name, strings.ReplaceAll(strings.ToLower(n), "_", "-")) {
					t.Errorf("%q passes", field.Name)
				}
			}
		}
		if lines > wire.MaxTrailerLines {
			t.Errorf("%d lines", lines)
		}
		for rest := one1; len(rest) > 0; {
			var field phase.Field
			if field, rest = wire.NextField(rest); !phase.EqualName(field.Name, name) && name != "*" {
				t.Errorf("%q passes, allowed is %q", field.Name, name)
			}
		}
	})
}
