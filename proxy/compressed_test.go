package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/gzip"

	"headgate/proxy/phase"
	"headgate/proxy/phase/compress"
)

// zipper is a plugin that compresses whatever it may, as the client likes it: the two of the house in one.
func zipper() phase.Kind {
	return phase.Kind{
		Name: "zipper", Priority: 5, Schema: []byte(`{"type":"object"}`),
		Build: func(_ []byte, env phase.Env) (any, error) {
			rules := compress.Rules{AnyType: true}
			made := func(settings any, fresh func() compress.Encoder) compress.Make {
				return compress.Make{Settings: settings, Size: 1, Fresh: fresh}
			}
			return &both{
				compress.New(compress.Gzip, rules, env, compress.NewEncoders(10), made("gzip", func() compress.Encoder { return gzip.NewWriter(io.Discard) })),
				compress.New(compress.Brotli, rules, env, compress.NewEncoders(10), made("br", func() compress.Encoder { return brotli.NewWriter(io.Discard) })),
			}, nil
		},
	}
}

type both struct{ gzip, brotli *compress.Plugin }

func (b *both) Response(x *phase.Exchange) {
	b.gzip.Response(x)
	b.brotli.Response(x)
}

func (b *both) Wants(x *phase.Exchange) bool { return b.gzip.Wants(x) || b.brotli.Wants(x) }

func (b *both) Chunk(x *phase.Exchange, p []byte, last bool) ([]byte, error) {
	p, err := b.gzip.Chunk(x, p, last)
	if err != nil {
		return nil, err
	}
	return b.brotli.Chunk(x, p, last)
}

func (b *both) Done(x *phase.Exchange) {
	b.gzip.Done(x)
	b.brotli.Done(x)
}

// plain asks for an answer in the coding and returns it as text that can be read as far as it has come.
func (c *client) plain(path, coding string) io.Reader {
	c.t.Helper()
	c.say("POST " + path + " HTTP/1.1\r\nHost: a\r\nAccept-Encoding: " + coding + "\r\nContent-Length: 0\r\n\r\n")
	res, err := http.ReadResponse(c.in, &http.Request{Method: "POST"})
	if err != nil {
		c.t.Fatal(err)
	}
	if got := res.Header.Get("Content-Encoding"); got != coding {
		c.t.Fatalf("the answer is encoded as %q", got)
	}
	if coding == "br" {
		return brotli.NewReader(res.Body)
	}
	z, err := gzip.NewReader(bufio.NewReader(res.Body))
	if err != nil {
		c.t.Fatal(err)
	}
	return z
}

// Compression holds nothing back that a client could be waiting for, whatever the type of the answer and however it is framed.
func TestCompressedAsItComes(t *testing.T) {
	for _, coding := range []string{"gzip", "br"} {
		for name, head := range map[string]string{
			"page": "Content-Type: text/html\r\n", "of known length": "Content-Type: text/html\r\nContent-Length: 30000\r\n", "events": "Content-Type: text/event-stream\r\n",
		} {
			t.Run(coding+", "+name, func(t *testing.T) {
				up := newPaced(t, "HTTP/1.1 200 OK\r\n"+head+"\r\n")
				r := newGate(t, defaults()).to(up.addr, "zipper")
				c := r.dial(t)
				go func() { up.pieces <- "data: 0\n\n" }() // the reader of gzip wants a beginning
				body := c.plain("/", coding)
				got := make([]byte, len("data: 0\n\n"))
				for i := range 5 {
					if _, err := io.ReadFull(body, got); err != nil || string(got) != fmt.Sprintf("data: %d\n\n", i) {
						t.Fatalf("piece %d: %q, %v", i, got, err)
					}
					up.pieces <- fmt.Sprintf("data: %d\n\n", i+1)
				}
				close(up.pieces)
			})
		}
	}
}

// An event stream that is cut says so also when it is the gateway that compresses it.
func TestCutEventsCompressed(t *testing.T) {
	const failed = `data: {"error":{"message":"the upstream has broken off its answer","type":"server_error","param":null,"code":"body_cut"}}` + "\n\n"
	for _, coding := range []string{"gzip", "br"} {
		for sent, want := range map[string]string{"data: 1\n\n": "data: 1\n\n" + failed, "data: 1\n\ndata: {": "data: 1\n\ndata: {\nevent: error\n" + failed} {
			up := newPaced(t, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
			r := newGate(t, defaults()).to(up.addr, "zipper")
			c := r.dial(t)
			go func() {
				up.pieces <- chunkOf(sent)
				close(up.pieces)
			}()
			got, err := io.ReadAll(c.plain("/v1/chat/completions", coding))
			if string(got) != want || err == nil || !strings.Contains(err.Error(), "EOF") {
				t.Errorf("%s: %q, %v", coding, got, err)
			}
			if n := r.faults("body_cut"); n != 1 {
				t.Errorf("body_cut was counted %v times", n)
			}
		}
	}
}
