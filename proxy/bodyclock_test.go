package proxy

import (
	"math"
	"strings"
	"testing"
	"time"
)

// TestBodyPause: a client may take longer than the body's clock as long as it does not pause for that long.
func TestBodyPause(t *testing.T) {
	up := newBackend(t, says(ok200))
	o := defaults()
	o.BodyTimeout = 400 * time.Millisecond
	r := newGate(t, o).to(up.addr)
	rest := strings.Repeat("a", 4<<10) // the body as a whole gets four seconds more
	for _, tt := range []struct{ name, head, piece, end string }{
		{"length", "Content-Length: 4100\r\n\r\n", "a", rest},
		{"chunked", "Transfer-Encoding: chunked\r\n\r\n", "1\r\na\r\n", "0\r\n\r\n"},
		{"invited", "Expect: 100-continue\r\nContent-Length: 4100\r\n\r\n", "a", rest},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := r.dial(t).say("POST / HTTP/1.1\r\nHost: a\r\n" + tt.head)
			if tt.name == "invited" {
				c.want("POST", 100, "")
			}
			for range 4 {
				c.say(tt.piece)
				time.Sleep(o.BodyTimeout / 3)
			}
			c.say(tt.end).want("POST", 200, "ok")
			time.Sleep(o.BodyTimeout + 50*time.Millisecond) // between requests another clock runs
			c.say(get).want("GET", 200, "ok")
		})
	}
}

// TestBodyRate: a client that drips for ever does not keep its slot.
func TestBodyRate(t *testing.T) {
	up := newBackend(t, says(ok200))
	for name, head := range map[string]string{
		"length":  "Content-Length: 200\r\n\r\n",
		"chunked": "Transfer-Encoding: chunked\r\n\r\nc8\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			o := defaults()
			o.BodyTimeout, o.MaxBody = 200*time.Millisecond, 256
			r := newGate(t, o).to(up.addr)
			c := r.dial(t).say("POST / HTTP/1.1\r\nHost: a\r\n" + head)
			refused := make(chan struct{})
			dripped := make(chan int)
			go func() {
				n, drip := 0, time.NewTicker(20*time.Millisecond)
				defer drip.Stop()
				for n < 199 {
					select {
					case <-drip.C:
						n++
						_, _ = c.Write([]byte("a"))
						continue
					case <-refused:
					}
					break
				}
				dripped <- n
			}()
			res, _, err := c.reply("POST")
			close(refused)
			if n := <-dripped; err != nil || res.StatusCode != 408 || n < 2 || n == 199 { // all of them: it was the end of the drip that was noticed
				t.Fatalf("%v, %v after %d bytes", res, err, n)
			}
			if r.faults("request_body_timeout") != 1 || len(up.take()) != 0 {
				t.Error("it was not counted, or forwarded")
			}
		})
	}
}

func TestBodyTime(t *testing.T) {
	for _, tt := range []struct {
		pause time.Duration
		n     int64
		want  time.Duration
	}{
		{2 * time.Second, 0, 2 * time.Second},
		{2 * time.Second, 512, 2500 * time.Millisecond},
		{time.Minute, 64 << 20, time.Minute + 65536*time.Second},
		{math.MaxInt64, math.MaxInt, 10*time.Hour + 8<<20*time.Second},
	} {
		if got := bodyTime(tt.pause, tt.n); got != tt.want {
			t.Errorf("%v, %d: %v, want %v", tt.pause, tt.n, got, tt.want)
		}
	}
}

// TestRefusedLine: the log line of a refusal names the client's agent as far as the head could be read.
func TestRefusedLine(t *testing.T) {
	r := newGate(t, defaults())
	const head = " HTTP/1.1\r\nHost: a\r\nUser-Agent: curl/8\r\n"
	for _, raw := range []string{"TRACE /" + head, "get /" + head, "GET /%zz" + head, "POST /" + head + "Content-Length: 99999999\r\n"} {
		r.once(t, raw+"\r\n")
	}
	for _, line := range r.lines(4) {
		if !strings.HasSuffix(line, ` "curl/8"`) {
			t.Errorf("log: %s", line)
		}
	}
}
