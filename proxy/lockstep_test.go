package proxy

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"headgate/proxy/phase"
)

// TestLockStep: whatever frames the answer, whoever asks, and whether a plugin sees it or not: the client has each piece before the upstream
// sends the next one, and the head before the first. A gateway that waits for more would wait for ever.
func TestLockStep(t *testing.T) {
	pieces := []string{"data: 1\n\n", ": ping\n\n", "d", "ata: {\"a\":\"caf\xc3", "\xa9\"}\n", "\n", "\x00\xff\r\n0\r\n\r\n", strings.Repeat("x", 40_000), "data: [DONE]\n\n"}
	total := len(strings.Join(pieces, ""))
	plain := func(s string) string { return s }
	inChunks := func(s string) string { return fmt.Sprintf("%x\r\n%s\r\n", len(s), s) }
	framings := []struct {
		name, head, end string
		piece           func(string) string
	}{
		{"chunks", "Transfer-Encoding: chunked", "0\r\n\r\n", inChunks},
		{"events", "Content-Type: text/event-stream\r\nTransfer-Encoding: chunked", "0\r\n\r\n", inChunks},
		{"events until close", "Content-Type: text/event-stream", "", plain},
		{"length", fmt.Sprintf("Content-Length: %d", total), "", plain},
		{"until close", "X: y", "", plain},
	}
	clients := []struct {
		name string
		ask  func(t *testing.T, r *secureRig) io.ReadCloser
	}{
		{"plain", func(t *testing.T, r *secureRig) io.ReadCloser {
			return answerOf(t, r.dial(t).say("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").in)
		}},
		{"TLS", func(t *testing.T, r *secureRig) io.ReadCloser {
			return answerOf(t, r.open(t, r.config("a.test")).sayTo("a.test", "/").in)
		}},
		{"HTTP/1.0", func(t *testing.T, r *secureRig) io.ReadCloser {
			return answerOf(t, r.dial(t).say("GET / HTTP/1.0\r\nHost: a.test\r\n\r\n").in)
		}},
		{"HTTP/2", func(t *testing.T, r *secureRig) io.ReadCloser {
			res, err := r.speaker(t).Get("https://a.test/")
			if err != nil {
				t.Fatal(err)
			}
			return res.Body
		}},
	}
	for _, f := range framings {
		for _, c := range clients {
			for _, plugin := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, %s, plugin %t", f.name, c.name, plugin), func(t *testing.T) {
					up := newPaced(t, "HTTP/1.1 200 OK\r\n"+f.head+"\r\n\r\n")
					r := newH2Gate(t, defaults(), up.backend)
					if plugin {
						r.to(up.addr, "chunker")
						r.chunk = func(_ *phase.Exchange, p []byte, _ bool) ([]byte, error) { return p, nil }
					}
					body := c.ask(t, r)
					defer body.Close()
					for i, p := range pieces {
						up.pieces <- f.piece(p)
						got := make([]byte, len(p))
						if n, err := io.ReadFull(body, got); err != nil || string(got) != p {
							t.Fatalf("piece %d: %.40q, %v", i, got[:n], err)
						}
					}
					if f.end != "" {
						up.pieces <- f.end
					}
					close(up.pieces)
					if rest, err := io.ReadAll(body); err != nil || len(rest) > 0 {
						t.Errorf("behind the last piece: %q, %v", rest, err)
					}
				})
			}
		}
	}
}

// answerOf reads an answer's head.
func answerOf(t *testing.T, in *bufio.Reader) io.ReadCloser {
	t.Helper()
	res, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	return res.Body
}

// TestCutStreams: an upstream that ends in the middle is seen to have, over TLS and HTTP/2 as well, and an event stream says so before.
func TestCutStreams(t *testing.T) {
	const lament = `data: {"error":{"message":"the upstream has broken off its answer","type":"server_error","param":null,"code":"body_cut"}}` + "\n\n"
	for _, tt := range []struct{ name, head, piece, want string }{
		{"chunks", "Transfer-Encoding: chunked", "5\r\nhello\r\n", "hello"},
		{"inside a chunk", "Transfer-Encoding: chunked", "9\r\nhello", "hello"},
		{"length", "Content-Length: 20000", "hello", "hello"},
		{"events", "Content-Type: text/event-stream\r\nTransfer-Encoding: chunked", "9\r\ndata: 1\n\n\r\n", "data: 1\n\n" + lament},
		{"events of known length", "Content-Type: text/event-stream\r\nContent-Length: 20000", "data: 1\n\n", "data: 1\n\n"},
	} {
		for _, version := range []string{"http/1.1", "h2"} {
			t.Run(tt.name+", "+version, func(t *testing.T) {
				up := newPaced(t, "HTTP/1.1 200 OK\r\n"+tt.head+"\r\n\r\n")
				r := newH2Gate(t, defaults(), up.backend)
				var body io.ReadCloser
				if version == "h2" {
					res, err := r.speaker(t).Get("https://a.test/chat/completions")
					if err != nil {
						t.Fatal(err)
					}
					body = res.Body
				} else {
					body = answerOf(t, r.open(t, &tls.Config{RootCAs: r.ca.pool, ServerName: "a.test", NextProtos: []string{version}}).sayTo("a.test", "/chat/completions").in)
				}
				defer body.Close()
				up.pieces <- tt.piece
				close(up.pieces)
				got, err := io.ReadAll(body)
				if err == nil || !bytes.Equal(got, []byte(tt.want)) {
					t.Errorf("%q, %v", got, err)
				}
				r.eventually("it is counted", func() bool { return r.faults("body_cut") == 1 })
			})
		}
	}
}
