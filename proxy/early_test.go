package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
)

// TestFault09EarlyAnswers: an upstream that does not want the body says so, reading on or not, and the client gets to know although it is
// still sending. What carries the rest of a request never carries another one.
func TestFault09EarlyAnswers(t *testing.T) {
	const size, workers = 16 << 20, 4
	tries := 250 // of each kind
	if raceEnabled {
		tries = 25
	}
	got, all, reused := 0, 0, 0
	for _, tt := range []struct {
		name, answer string
		after        int64 // bytes of the body
		stays        bool  // and reads no more; otherwise it hangs up over what is unread
	}{
		{"413, hangs up", "413 Too Large\r\nConnection: close", 0, false},
		{"429, hangs up in the middle", "429 Slow Down", 1 << 20, false},
		{"413, stays", "413 Too Large", 0, true},
		{"429, stays in the middle", "429 Slow Down\r\nRetry-After: 1", 1 << 20, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			end := make(chan struct{})
			var opened atomic.Int64
			addr := rawServer(t, func(c net.Conn, in *bufio.Reader) {
				opened.Add(1)
				if _, err := head(in); err != nil {
					return
				}
				_, _ = io.CopyN(io.Discard, in, tt.after)
				_, _ = io.WriteString(c, "HTTP/1.1 "+tt.answer+"\r\nContent-Length: 4\r\n\r\nmuch")
				if tt.stays {
					<-end
				}
			})
			defer close(end)
			o := defaults()
			o.MaxBody = size
			r := newGate(t, o).to(addr)
			body := make([]byte, size)
			var arrived atomic.Int64
			upload := func(chunked bool) {
				c := r.dial(t)
				sent := make(chan struct{})
				go func() {
					defer close(sent)
					if chunked {
						_, _ = fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n", size)
					} else {
						_, _ = fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n", size)
					}
					_, _ = c.Write(body)
				}()
				res, text, err := c.reply("POST")
				if err == nil && text == "much" && fmt.Sprint(res.StatusCode) == tt.answer[:3] && res.Close {
					arrived.Add(1)
				} else {
					t.Logf("%v, %q, %v", res, text, err)
				}
				<-sent
				_ = c.Close()
			}
			var all sync.WaitGroup
			for w := range workers {
				all.Go(func() {
					for i := w; i < tries; i += workers {
						upload(i%2 == 0)
					}
				})
			}
			all.Wait()
			if n := opened.Load(); n != int64(tries) {
				t.Errorf("%d connections for %d requests", n, tries)
			}
			reused += tries - int(opened.Load())
			r.eventually("nothing is left", func() bool {
				open, _ := r.hub.Connections()
				return open == 0 && r.open.Load() == 0
			})
			got += int(arrived.Load())
		})
		all += tries
	}
	if got*1000 < all*999 {
		t.Errorf("%d of %d answers are lost", all-got, all)
	}
	t.Logf("F9: %d of %d clients that were sending %d MiB got the upstream's 413 or 429, %d connections were used again", got, all, size>>20, reused)
}
