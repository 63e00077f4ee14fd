package upstream

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"

	"headgate/conf/resource"
	"headgate/proxy/fault"
	"headgate/proxy/phase"
)

var headEndMark = []byte("\r\n\r\n")

// replay answers every request without a body with reply; it allocates nothing per request.
func replay(t testing.TB, ca *authority, reply string) (host string, port int) {
	ln := listen(t)
	var config *tls.Config
	if ca != nil {
		config = ca.server("upstream.test")
	}
	answer, accepted, done := []byte(reply), make(chan net.Conn, 1), make(chan struct{})
	go func() {
		defer close(done)
		defer close(accepted)
		nc, err := ln.Accept()
		if err != nil {
			return
		}
		accepted <- nc
		if config != nil {
			nc = tls.Server(nc, config)
		}
		buf := make([]byte, 64<<10)
		for read := 0; ; {
			n, err := nc.Read(buf[read:])
			if err != nil {
				return
			}
			if read += n; bytes.HasSuffix(buf[:read], headEndMark) {
				read = 0
				if _, err = nc.Write(answer); err != nil {
					return
				}
			}
		}
	}()
	t.Cleanup(func() {
		_ = ln.Close()
		if nc, ok := <-accepted; ok {
			_ = nc.Close()
		}
		<-done
	})
	return "127.0.0.1", ln.Addr().(*net.TCPAddr).Port
}

// warm returns a function that performs one whole exchange on a pooled connection.
func warm(t testing.TB, secure bool, reply string) func() *fault.Fault {
	r := newRig(t)
	r.def.Pool.MaxRequests = 0
	var ca *authority
	var edit func(d *resource.Upstream)
	if secure {
		ca = newAuthority(t)
		r.trust(ca)
		edit = func(d *resource.Upstream) {
			d.Scheme = "https"
			d.Nodes[0].Host = "upstream.test"
		}
	}
	host, port := replay(t, ca, reply)
	u := r.upstream(edit, &server{host: host, port: port})
	x := request("GET", "/v1/models", "")
	for i := range 10 {
		x.Request.Header.Add([]byte("X-Line-"+strconv.Itoa(i)), []byte("some value that a client has sent"))
	}
	return func() *fault.Fault {
		x.Response.Header.Reset()
		x.Attempts = phase.Attempts{}
		if f := u.Forward(x); f != nil {
			return f
		}
		if s := x.Response.Stream; s != nil {
			x.Response.Stream = nil
			for {
				if _, err := s.Next(); err == io.EOF {
					break
				} else if err != nil {
					return err.(*fault.Fault)
				}
			}
			s.Close()
		}
		return nil
	}
}

const serverLines = "Server: x\r\nContent-Type: application/json\r\nX-Request-Id: 0123456789\r\nCache-Control: no-store\r\nConnection: keep-alive\r\n"

var warmReplies = map[string]string{
	"length":  "HTTP/1.1 200 OK\r\n" + serverLines + "Content-Length: 512\r\n\r\n" + strings.Repeat("x", 512),
	"chunked": "HTTP/1.1 200 OK\r\n" + serverLines + "Transfer-Encoding: chunked\r\n\r\n200\r\n" + strings.Repeat("x", 512) + "\r\n0\r\n\r\n",
	"stream":  "HTTP/1.1 200 OK\r\n" + serverLines + "Content-Length: 30000\r\n\r\n" + strings.Repeat("x", 30000),
}

// TestForwardAlloc: an exchange on a pooled plain connection allocates nothing. Over TLS, crypto/tls allocates; how much is logged,
// the gateway's side and the test upstream's together.
func TestForwardAlloc(t *testing.T) {
	for name, reply := range warmReplies {
		for _, secure := range []bool{false, true} {
			t.Run(name+", TLS "+strconv.FormatBool(secure), func(t *testing.T) {
				forward := warm(t, secure, reply)
				exchange := func() {
					if f := forward(); f != nil {
						t.Fatal(f)
					}
				}
				for range 20 {
					exchange()
				}
				got := testing.AllocsPerRun(300, exchange)
				t.Logf("%v allocations per exchange", got)
				if !raceDetector && !secure && got != 0 {
					t.Errorf("%v allocations per exchange, want none", got)
				}
			})
		}
	}
}

func TestPoolAlloc(t *testing.T) {
	forward := poolRound(t)
	if got := testing.AllocsPerRun(1000, forward); !raceDetector && got != 0 {
		t.Errorf("%v allocations per get and put", got)
	}
}
