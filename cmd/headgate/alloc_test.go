package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"runtime/debug"
	"strings"
	"testing"

	"headgate/conf"
)

const (
	allocRequests = 2000
	// allocNoise is what timers of the process (log flush, snapshot collection, date of the answers) may allocate meanwhile. It is far
	// below one allocation in a hundred requests.
	allocNoise = 15
)

const fixedReply = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 22\r\n\r\n{\"object\":\"chat.test\"}"

// fixedUpstream answers every read with the same reply and allocates nothing while it does. With a certificate it speaks TLS.
func fixedUpstream(t testing.TB, cert *tls.Certificate) string {
	t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if cert != nil {
		l = tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{*cert}})
	}
	ended := make(chan struct{})
	t.Cleanup(func() {
		l.Close()
		<-ended
	})
	reply := []byte(fixedReply)
	go func() {
		defer close(ended)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				request := make([]byte, 16<<10)
				for {
					// The gateway sends small requests in one write, and loopback delivers that in one piece.
					if n, err := c.Read(request); err != nil || !bytes.HasSuffix(request[:n], []byte("}]}")) {
						return
					}
					if _, err := c.Write(reply); err != nil {
						return
					}
				}
			}()
		}
	}()
	return l.Addr().String()
}

// TestAllocs drives whole chains (authentication, limits, breaker, split, rewrite, metrics, access log) through real sockets: a request allocates nothing, but
// for what crypto/tls does.
func TestAllocs(t *testing.T) {
	if raceDetector {
		t.Log("the race detector allocates: requests are sent, allocations are not counted")
	}
	ca, caFile := testAuthority(t)
	upstream, secure := fixedUpstream(t, nil), fixedUpstream(t, ca.leafFor(t, "127.0.0.1"))
	split := func(scheme, addr string) string {
		branch := func(name string) string {
			return fmt.Sprintf(`{"weight":50,"upstream":{"scheme":%q,"pass_host":"node","nodes":{%q:1}},"rewrite":{"uri":"/%s/chat/completions"}}`,
				scheme, addr, name)
		}
		return fmt.Sprintf(`{"uri":"/chat/completions","methods":["POST"],"plugins":{"prometheus":{},"traffic-split":{"rules":[%s,%s]}}}`,
			branch("v1"), branch("v2"))
	}
	// Who is it, how much, a breaker, and the split; more is what the split can do beyond.
	chain := func(more string) string {
		return strings.NewReplacer(`"prometheus":{}`, `"prometheus":{},"key-auth":{"header":"Authorization"},`+
			`"limit-count":{"count":1000000,"time_window":3600,"key":"consumer_name"},`+
			`"api-breaker":{"break_response_code":503,"unhealthy":{"http_statuses":[500,503]},"healthy":{"http_statuses":[200]}}`,
			`"traffic-split":{`, `"traffic-split":{`+more).Replace(split("http", upstream))
	}
	tests := []struct {
		name, route string
		each        int // allocations that are allowed for a request
	}{
		{"plain", fmt.Sprintf(`{"uri":"/chat/completions","upstream":{"nodes":{%q:1}}}`, upstream), 0},
		{"rewrite with variables", fmt.Sprintf(`{"uri":"/chat/*","upstream":{"nodes":{%q:1}},"plugins":{"prometheus":{},"proxy-rewrite":{`+
			`"uri":"/v1$uri","headers":{"set":{"X-Client":"$remote_addr"},"add":{"X-Tag":"edge"},"remove":["User-Agent"]}}}}`, upstream), 0},
		{"split", split("http", upstream), 0},
		{"full chain", chain(""), 0},
		{"full chain, sticky", chain(`"sticky":{"key":"$consumer_name$http_accept"},"decision_header":true,`), 0},
		{"full chain, cookies", chain(`"sticky":{"cookie":{"name":"hg","ttl":60}},`), 0},
		// crypto/tls makes a small reader for every record that it reads: one in the gateway, one in the upstream.
		{"split over TLS", split("https", secure), 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			conf := onLoopback(t, conf.Default())
			conf.Upstream.CAFile = caFile
			conf.Upstream.KeepaliveRequests = 10 * allocRequests // dialling anew is not the question
			g := startGate(t, conf)
			g.configure("PUT", "/consumers", `{"username":"jack","plugins":{"key-auth":{"key":"Bearer sk-test"}}}`)
			g.configure("PUT", "/routes/allocs", tt.route)
			c := dialWire(t, g.addr)
			const body = `{"model":"m","messages":[{"role":"user","content":"hi"}]}`
			request := fmt.Appendf(nil, "POST /chat/completions HTTP/1.1\r\nHost: api.example.com\r\nAuthorization: Bearer sk-test\r\n"+
				"Content-Type: application/json\r\nAccept: application/json\r\nUser-Agent: test\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
			answer := make([]byte, 4<<10)
			wrong := 0
			round := func() {
				for range allocRequests {
					if !roundTrip(c.Conn, request, answer) {
						wrong++
						return
					}
				}
			}
			// The first request of all shows what the answers look like; the first round fills pools and makes log buffers grow.
			if !roundTrip(c.Conn, request, answer) {
				t.Fatalf("the answer is %q", bytes.TrimRight(answer, "\x00"))
			}
			defer debug.SetGCPercent(debug.SetGCPercent(-1)) // a collection would empty the pools
			n := testing.AllocsPerRun(1, round)
			if wrong > 0 {
				t.Fatalf("a request failed: %q", bytes.TrimRight(answer, "\x00"))
			}
			if n > float64(tt.each*allocRequests+allocNoise) && !raceDetector {
				t.Errorf("%v allocations in %d requests", n, allocRequests)
			}
			if lines := g.logCount("route=allocs"); lines != 2*allocRequests+1 {
				t.Errorf("the access log has %d lines of %d", lines, 2*allocRequests+1)
			}
		})
	}
}

// roundTrip sends request and reads an answer that ends with the body of the fixed reply. Of the answer, the rest of buf is zero.
func roundTrip(c net.Conn, request, buf []byte) bool {
	clear(buf)
	if _, err := c.Write(request); err != nil {
		return false
	}
	for have := 0; have < len(buf); {
		n, err := c.Read(buf[have:])
		if have += n; bytes.HasSuffix(buf[:have], []byte("chat.test\"}")) {
			return bytes.HasPrefix(buf, []byte("HTTP/1.1 200 OK\r\n"))
		}
		if err != nil {
			return false
		}
	}
	return false
}
