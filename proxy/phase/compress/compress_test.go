package compress_test

import (
	"bytes"
	"encoding/json"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/gzip"

	"headgate/proxy/phase"
	"headgate/proxy/phase/compress"
	"headgate/proxy/phase/phasetest"
)

func newGzip() compress.Encoder   { return gzip.NewWriter(io.Discard) }
func newBrotli() compress.Encoder { return brotli.NewWriter(io.Discard) }

func unpack(t testing.TB, coding, body string) string {
	t.Helper()
	var from io.Reader = strings.NewReader(body)
	switch coding {
	case "":
		return body
	case "br":
		from = brotli.NewReader(from)
	default:
		z, err := gzip.NewReader(from)
		if err != nil {
			t.Fatal(err)
		}
		from = z
	}
	plain, err := io.ReadAll(from)
	if err != nil {
		t.Fatal(err)
	}
	return string(plain)
}

// rig is a chain of plugins of this package.
type rig struct {
	e         phasetest.Env
	instances []phase.Instance
	ahead     bool // of what is read of a stream, the next piece is there already
}

func (r *rig) add(t testing.TB, coding *compress.Coding, conf string, limit int64) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(conf))
	d.UseNumber()
	var doc map[string]any
	if err := d.Decode(&doc); err != nil {
		t.Fatal(err)
	}
	fresh := newGzip
	if coding == compress.Brotli {
		fresh = newBrotli
	}
	p := compress.New(coding, compress.Read(doc), &r.e, compress.NewEncoders(limit), compress.Make{Settings: 1, Size: 1, Fresh: fresh})
	r.instances = append(r.instances, phase.Instance{Plugin: p})
}

var page = "<html>" + strings.Repeat("hello ", 50) + "</html>"

const plain = "plain"

func TestWhichAnswers(t *testing.T) {
	const html = "Content-Type: text/html; charset=utf-8"
	for _, tt := range []struct {
		name, conf, request, lines string
		status                     int
		answer                     string // lines of the upstream's answer, "|" between them
		want                       string // the coding, then the other lines of the answer
	}{
		{"default", `{}`, "GET /", "Accept-Encoding: gzip", 200, html, "gzip"},
		{"no Accept-Encoding", `{}`, "GET /", "", 200, html, plain},
		{"other coding", `{}`, "GET /", "Accept-Encoding: br, deflate", 200, html, plain},
		{"old name", `{}`, "GET /", "Accept-Encoding: X-GZIP", 200, html, "gzip"},
		{"anything", `{}`, "GET /", "Accept-Encoding: br;q=1, *;q=0.1", 200, html, "gzip"},
		{"anything but", `{}`, "GET /", "Accept-Encoding: *, gzip;q=0", 200, html, plain},
		{"weight 0.000", `{}`, "GET /", "Accept-Encoding: gzip; q=0.000", 200, html, plain},
		{"smallest weight", `{}`, "GET /", "Accept-Encoding: br , gzip ; Q=0.001", 200, html, "gzip"},
		{"several lines", `{}`, "GET /", "Accept-Encoding: br|Accept-Encoding: gzip", 200, html, "gzip"},
		{"not a weight", `{}`, "GET /", "Accept-Encoding: gzip;q=yes", 200, html, plain},
		{"error page", `{}`, "GET /", "Accept-Encoding: gzip", 404, html, "gzip"},
		{"other status", `{}`, "GET /", "Accept-Encoding: gzip", 500, html, plain},
		{"part", `{}`, "GET /", "Accept-Encoding: gzip", 200, html + "|Content-Range: bytes 0-9/10", plain},
		{"encoded", `{}`, "GET /", "Accept-Encoding: gzip", 200, html + "|Content-Encoding: zstd", plain},
		{"encoded like this", `{"vary":true}`, "GET /", "Accept-Encoding: gzip", 200, html + "|Content-Encoding: gzip", plain},
		{"must not change", `{}`, "GET /", "Accept-Encoding: gzip", 200, html + "|Cache-Control: public, no-transform", plain},
		{"HEAD", `{}`, "HEAD /", "Accept-Encoding: gzip", 200, html, plain},
		{"other type", `{}`, "GET /", "Accept-Encoding: gzip", 200, "Content-Type: text/plain", plain},
		{"listed type", `{"types":["text/plain","a/b"]}`, "GET /", "Accept-Encoding: gzip", 200, "Content-Type: A/B;x=y", "gzip"},
		{"any type", `{"types":"*"}`, "GET /", "Accept-Encoding: gzip", 200, "Content-Type: image/x", "gzip"},
		{"without type", `{"types":"*"}`, "GET /", "Accept-Encoding: gzip", 200, "", plain},
		{"short", `{"min_length":314}`, "GET /", "Accept-Encoding: gzip", 200, html, plain},
		{"just long enough", `{"min_length":313}`, "GET /", "Accept-Encoding: gzip", 200, html, "gzip"},
		{"endless minimum", `{"min_length":1e30}`, "GET /", "Accept-Encoding: gzip", 200, html, plain},
		{"validators", `{}`, "GET /", "Accept-Encoding: gzip", 200, html + `|ETag: "1"|Accept-Ranges: bytes`, `gzip|ETag: W/"1"`},
		{"weak validator", `{}`, "GET /", "Accept-Encoding: gzip", 200, html + `|ETag: W/"1"`, `gzip|ETag: W/"1"`},
		{"no validator", `{}`, "GET /", "Accept-Encoding: gzip", 200, html + `|ETag: 1`, `gzip`},
		{"vary", `{"vary":true}`, "GET /", "Accept-Encoding: gzip", 200, html, "gzip|Vary: Accept-Encoding"},
		{"vary for others too", `{"vary":true}`, "GET /", "", 200, html, plain + "|Vary: Accept-Encoding"},
		{"varies already", `{"vary":true}`, "GET /", "Accept-Encoding: gzip", 200, html + "|Vary: Cookie, accept-encoding", "gzip|Vary: Cookie, accept-encoding"},
		{"for a proxy", `{}`, "GET /", "Accept-Encoding: gzip|Via: 1.1 p", 200, html, plain},
		{"for a proxy that is told", `{"vary":true}`, "GET /", "Accept-Encoding: gzip|Via: 1.1 p", 200, html, "gzip|Vary: Accept-Encoding"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var r rig
			r.add(t, compress.Gzip, tt.conf, 1)
			x := phasetest.Exchange(tt.request, split(tt.lines)...)
			answer := phasetest.Run(x, &r.e, phasetest.Reply(tt.status, page, split(tt.answer)...), r.instances...)
			want := split(tt.want)
			coding := want[0]
			if coding == plain {
				coding = ""
			}
			if got := unpack(t, coding, string(x.Response.Body)); got != page {
				t.Errorf("the body is %q", got)
			}
			if x.HasChunkers() != (coding != "") { // what is not compressed keeps its length
				t.Errorf("wants the body: %v", x.HasChunkers())
			}
			for _, l := range want[1:] {
				if !strings.Contains(answer, "\n"+l+"\n") {
					t.Errorf("no %q in %q", l, answer)
				}
			}
			_, v, _ := strings.Cut(answer, "Content-Encoding: ")
			if coding != "" && !strings.HasPrefix(v, coding+"\n") || coding != "" && strings.Contains(answer, "Accept-Ranges") {
				t.Errorf("answer %q", answer)
			}
			if len(want) == 1 && (strings.Contains(answer, "ETag") || strings.Contains(answer, "Vary")) {
				t.Errorf("answer %q", answer)
			}
		})
	}
}

func split(lines string) []string {
	if lines == "" {
		return nil
	}
	return strings.Split(lines, "|")
}

func TestHTTP10(t *testing.T) {
	for conf, want := range map[string]string{`{}`: "", `{"http_version":1.0}`: "gzip", `{"http_version":1.1}`: ""} {
		var r rig
		r.add(t, compress.Gzip, conf, 1)
		x := phasetest.Exchange("GET /", "Accept-Encoding: gzip")
		x.Request.HTTP10 = true
		phasetest.Run(x, &r.e, phasetest.Reply(200, page, "Content-Type: text/html"), r.instances...)
		if got, _ := x.Response.Header.Get("Content-Encoding"); string(got) != want {
			t.Errorf("%s: %q", conf, got)
		}
	}
}

// With both, the body is compressed once, in the coding that the client likes better; brotli wins a draw, whichever order they run in.
func TestBothCodings(t *testing.T) {
	for accept, want := range map[string]string{
		"gzip": "gzip", "br": "br", "gzip, br": "br", "gzip;q=0.5, br;q=0.5": "br", "gzip, br;q=0.9": "gzip", "identity": "",
	} {
		var r rig
		r.add(t, compress.Brotli, `{}`, 1) // last plugin first: gzip decides before it
		r.add(t, compress.Gzip, `{}`, 1)
		x := phasetest.Exchange("GET /", "Accept-Encoding: "+accept)
		phasetest.Run(x, &r.e, phasetest.Reply(200, page, "Content-Type: text/html"), r.instances...)
		got, _ := x.Response.Header.Get("Content-Encoding")
		if string(got) != want || unpack(t, want, string(x.Response.Body)) != page {
			t.Errorf("%s: %q", accept, got)
		}
	}
}

// A route's plugin and that of a global rule do not compress the body twice.
func TestTheSameTwice(t *testing.T) {
	var r rig
	r.add(t, compress.Gzip, `{}`, 1)
	r.add(t, compress.Gzip, `{}`, 1)
	x := phasetest.Exchange("GET /", "Accept-Encoding: gzip")
	phasetest.Run(x, &r.e, phasetest.Reply(200, page, "Content-Type: text/html"), r.instances...)
	if got := unpack(t, "gzip", string(x.Response.Body)); got != page {
		t.Errorf("the body is %q", got)
	}
}

// What takes the line away after the decision takes the compression away with it.
func TestEncodingWithdrawn(t *testing.T) {
	var r rig
	r.instances = append(r.instances, phase.Instance{Plugin: withdraw{}})
	r.add(t, compress.Gzip, `{}`, 1)
	x := phasetest.Exchange("GET /", "Accept-Encoding: gzip")
	phasetest.Run(x, &r.e, phasetest.Reply(200, page, "Content-Type: text/html"), r.instances...)
	if string(x.Response.Body) != page {
		t.Errorf("the body is %q", x.Response.Body)
	}
}

type withdraw struct{}

func (withdraw) Response(x *phase.Exchange) { x.Response.Header.Del("Content-Encoding") }

// stream is an answer in pieces that nobody reads: the test passes them itself.
type stream struct{ r *rig }

func (stream) Next() ([]byte, error) { return nil, io.EOF }
func (stream) Close()                {}
func (s stream) Waits() bool         { return !s.r.ahead }

// pass sends pieces of an answer of unknown length through p and returns what came out for each.
func pass(t testing.TB, r *rig, media string, pieces []string) (out []string) {
	t.Helper()
	x := phasetest.Exchange("GET /", "Accept-Encoding: gzip")
	x.Enter(nil, phase.NewChainOf(r.instances, nil, r.e.Slots))
	x.Response.Status, x.Response.Stream = 200, stream{r}
	x.Response.Header.Add([]byte("Content-Type"), []byte(media))
	x.Respond()
	for i, p := range pieces {
		b, err := x.Chunk([]byte(p), i == len(pieces)-1)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, string(b))
	}
	x.Finish(func(v any) { panic(v) })
	return out
}

// Every event reaches the client before the next one is there, and so does everything else that the gateway would have to wait behind.
func TestEventsLeaveAtOnce(t *testing.T) {
	var r rig
	r.add(t, compress.Gzip, `{"types":"*"}`, 1)
	events := []string{"data: one\n\n", "data: two\n\n", "data: three\n\n", ""}
	for _, media := range []string{"text/event-stream; charset=utf-8", "application/x-ndjson", "text/html"} {
		r.ahead = media != "text/html"
		out := pass(t, &r, media, events)
		for i := range events {
			z, err := gzip.NewReader(strings.NewReader(strings.Join(out[:i+1], "")))
			if err != nil {
				t.Fatal(err)
			}
			want := strings.Join(events[:i+1], "")
			got := make([]byte, len(want))
			if _, err := io.ReadFull(z, got); err != nil || string(got) != want {
				t.Errorf("%s: after %d events the client has %q: %v", media, i+1, got, err)
			}
		}
	}
	r.ahead = true
	if out := pass(t, &r, "text/html", events); len(out[0])+len(out[1]) > 10 {
		t.Errorf("a page was sent in bits: %q", out)
	}
	var listed rig
	listed.add(t, compress.Gzip, `{}`, 1)
	if out := pass(t, &listed, "text/event-stream", events); strings.Join(out, "") != strings.Join(events, "") {
		t.Errorf("events were compressed although nobody asked for it: %q", out)
	}
}

func TestPiecesAreOneBody(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 15 {
		var pieces []string
		for range random.IntN(6) + 1 {
			b := make([]byte, random.IntN(40000))
			for i := range b {
				b[i] = byte(random.IntN(20))
			}
			pieces = append(pieces, string(b))
		}
		var r rig
		r.add(t, compress.Gzip, `{"types":"*"}`, 1)
		for i, media := range []string{"a/b", "text/event-stream", "a/b"} {
			r.ahead = i > 0
			for range 2 { // the second time with the encoder of the first
				if got := unpack(t, "gzip", strings.Join(pass(t, &r, media, pieces), "")); got != strings.Join(pieces, "") {
					t.Fatalf("%d bytes instead of %d", len(got), len(strings.Join(pieces, "")))
				}
			}
		}
	}
}

// Encoders at work are bounded; who gets none gets the answer as it is, and they come back when the exchange ends, however it does.
func TestEncodersAreBounded(t *testing.T) {
	var r rig
	r.add(t, compress.Gzip, `{}`, 2)
	chain := phase.NewChainOf(r.instances, nil, r.e.Slots)
	begin := func() (*phase.Exchange, bool) {
		x := phasetest.Exchange("GET /", "Accept-Encoding: gzip")
		x.Enter(nil, chain)
		phasetest.Reply(200, page, "Content-Type: text/html")(x)
		x.Respond()
		_, encoded := x.Response.Header.Get("Content-Encoding")
		return x, encoded
	}
	a, first := begin()
	b, second := begin()
	c, third := begin()
	if !first || !second || third {
		t.Errorf("compressed: %v %v %v", first, second, third)
	}
	if got, err := c.Chunk([]byte(page), true); err != nil || string(got) != page {
		t.Errorf("the third body is %q, %v", got, err)
	}
	a.Finish(func(v any) { panic(v) }) // broken off before its body
	b.Finish(func(v any) { panic(v) })
	c.Finish(func(v any) { panic(v) })
	for range 5 {
		x, encoded := begin()
		if !encoded {
			t.Error("an encoder is lost")
		}
		x.Finish(func(v any) { panic(v) })
	}
}

func FuzzAcceptEncoding(f *testing.F) {
	f.Add("gzip;q=0.5, *;q=0")
	f.Add("x-gzip ; q=1.000,,;")
	f.Fuzz(func(t *testing.T, accept string) {
		var r rig
		r.add(t, compress.Gzip, `{}`, 1)
		r.add(t, compress.Brotli, `{}`, 1)
		x := phasetest.Exchange("GET /", "Accept-Encoding: x")
		x.Request.Header.Set([]byte("Accept-Encoding"), []byte(accept))
		phasetest.Run(x, &r.e, phasetest.Reply(200, page, "Content-Type: text/html"), r.instances...)
		coding, _ := x.Response.Header.Get("Content-Encoding")
		if unpack(t, string(coding), string(x.Response.Body)) != page {
			t.Error("the body has changed")
		}
		if len(coding) > 0 && !bytes.Contains(bytes.ToLower([]byte(accept)), coding) && !strings.Contains(accept, "*") &&
			!strings.Contains(strings.ToLower(accept), "x-gzip") {
			t.Errorf("%s for a client that takes %q", coding, accept)
		}
	})
}
