package proxy

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"headgate/proxy/meter"
)

func (r *secureRig) handshakes(result string) float64 {
	return r.count(meter.Handshakes, meter.Label{Name: "result", Value: result})
}

func TestNames(t *testing.T) {
	o := defaults()
	o.TLS.FallbackSNI = "A.test"
	up := newBackend(t, says(ok200))
	r := newSecureGate(t, o)
	r.to(up.addr)
	r.put("ssls/a", r.ca.ssl("a.test"), "ssls/w", r.ca.ssl("*.w.test"), "ssls/n", r.ca.ssl("1.w.test"))
	for name, want := range map[string]string{"a.test": "a.test", "A.TEST": "a.test", "1.w.test": "1.w.test", "2.w.test": "*.w.test"} {
		c := r.open(t, r.config(name))
		if got := c.state().PeerCertificates[0].DNSNames[0]; got != want {
			t.Errorf("%s got the certificate of %s", name, got)
		}
		c.sayTo(name, "/").want("GET", 200, "ok")
	}
	anonymous := r.config("")
	anonymous.InsecureSkipVerify = true
	if got := r.open(t, anonymous).state().PeerCertificates[0].DNSNames[0]; got != "a.test" {
		t.Errorf("a client that names nobody got the certificate of %s", got)
	}
	for _, name := range []string{"w.test", "a.b.w.test", "b.test"} {
		_, err := r.try(r.config(name))
		if err == nil || !strings.HasSuffix(err.Error(), "tls: unrecognized name") { // RFC 6066 section 3
			t.Errorf("%s: %v", name, err)
		}
	}
	r.eventually("handshakes are counted", func() bool { return r.handshakes("full") == 5 && r.handshakes("failed") == 3 })
	r.lines(4) // handshakes that fail are no requests
}

// While one certificate is replaced a thousand times, no handshake and no request fails, and connections stay as they were made.
func TestCertificatesAreSwapped(t *testing.T) {
	up := newBackend(t, says(ok200))
	r := newSecureGate(t, defaults())
	r.to(up.addr)
	docs := []string{r.ca.ssl("a.test"), r.ca.ssl("a.test"), r.ca.ssl("a.test")}
	r.put("ssls/1", docs[0], "ssls/2", r.ca.ssl("b.test"))
	steady := r.open(t, r.config("a.test"))
	first := steady.got()
	var stop atomic.Bool
	var clients sync.WaitGroup
	var asked, made atomic.Int64
	fail := func(err error) bool {
		if err != nil {
			t.Error(err)
			stop.Store(true)
		}
		return err != nil
	}
	ask := func(c io.ReadWriter) bool {
		if _, err := io.WriteString(c, get); fail(err) {
			return false
		}
		answer := make([]byte, 512)
		n, err := c.Read(answer)
		if err == nil && !strings.HasPrefix(string(answer[:n]), "HTTP/1.1 200 OK\r\n") {
			err = fmt.Errorf("answer %q", answer[:n])
		}
		asked.Add(1)
		return !fail(err)
	}
	for i := range 3 {
		name := []string{"a.test", "a.test", "b.test"}[i]
		clients.Go(func() {
			for !stop.Load() {
				c, err := r.try(r.config(name))
				if fail(err) {
					return
				}
				made.Add(1)
				for range 3 {
					if !ask(c) {
						break
					}
				}
				_ = c.Close()
			}
		})
	}
	for i := range 1000 {
		r.put("ssls/1", docs[i%len(docs)])
		if i%100 == 0 {
			steady.say(get).want("GET", 200, "ok")
		}
	}
	r.eventually("the clients have seen some of it", func() bool { return made.Load() >= 20 || stop.Load() })
	stop.Store(true)
	clients.Wait()
	steady.say(get).want("GET", 200, "ok")
	r.put("ssls/1", docs[1])
	if got := r.open(t, r.config("a.test")).got(); got.Cmp(first) == 0 {
		t.Error("a new handshake shows the old certificate")
	}
	if r.handshakes("failed") != 0 {
		t.Errorf("%v handshakes failed", r.handshakes("failed"))
	}
	t.Logf("%d handshakes and %d requests during 1000 changes", made.Load(), asked.Load())
}

func TestClientCertificates(t *testing.T) {
	up := newBackend(t, says(ok200))
	r := newSecureGate(t, defaults())
	r.to(up.addr)
	clients, others := newAuthority(t), newAuthority(t)
	r.put("ssls/open", r.ca.ssl("open.test"), "ssls/closed", r.ca.ssl("closed.test *.closed.test", clients.asks("")),
		"ssls/partly", r.ca.ssl("partly.test", clients.asks(`,"skip_mtls_uri_regex":["^/free/","/pub$"]`)))
	for _, tt := range []struct {
		name   string
		sni    string
		show   []tls.Certificate
		host   string
		path   string
		status int // 0: no handshake
	}{
		{"shown", "closed.test", clients.client(), "closed.test", "/", 200},
		{"shown, host with port and capitals", "closed.test", clients.client(), "Closed.Test:443", "/", 200},
		{"none", "closed.test", nil, "closed.test", "/", 0},
		{"of somebody else", "closed.test", others.client(), "closed.test", "/", 0},
		{"made for another host", "open.test", nil, "closed.test", "/", 421},
		{"made for another host with a good certificate", "open.test", clients.client(), "closed.test", "/", 421},
		{"another name of the same document", "a.closed.test", clients.client(), "b.closed.test", "/", 421},
		{"proved, for a host that asks nobody", "closed.test", clients.client(), "open.test", "/", 200},
		{"proved, for a host that has no certificate", "closed.test", clients.client(), "nobody.test", "/", 200},
		{"skipped", "partly.test", nil, "partly.test", "/free/x", 200},
		{"skipped by the second", "partly.test", nil, "partly.test", "/x/pub", 200},
		{"not skipped", "partly.test", nil, "partly.test", "/x", 400},
		{"dots do not skip", "partly.test", nil, "partly.test", "/free/../x", 400},
		{"a query does not skip", "partly.test", nil, "partly.test", "/x?/pub", 400},
		{"shown where it can be skipped", "partly.test", clients.client(), "partly.test", "/x", 200},
		{"a wrong one where it can be skipped", "partly.test", others.client(), "partly.test", "/free/x", 0},
		{"skipped, made for another host", "open.test", nil, "partly.test", "/free/x", 421},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := r.config(tt.sni)
			cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				if tt.show == nil {
					return &tls.Certificate{}, nil
				}
				return &tt.show[0], nil // whatever authorities are asked for
			}
			c, err := r.try(cfg)
			if err == nil && tt.status == 0 {
				_, err = c.Read(make([]byte, 1)) // TLS 1.3 tells the client of it behind its own end of the handshake
				_ = c.Close()
			}
			if tt.status == 0 {
				if err == nil || errors.Is(err, io.EOF) {
					t.Errorf("the handshake was let through: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			in := newClient(r.gateRig, t, c)
			in.sayTo(tt.host, tt.path).want("GET", tt.status, "*")
			in.sayTo("open.test", "/").want("GET", 200, "ok") // the connection is as good as before
		})
	}
	for _, m := range up.take() {
		if m.target != "/" && m.target != "/free/x" && m.target != "/x/pub" && m.target != "/x" {
			t.Errorf("the upstream got %s", m.head)
		}
	}
	if a, b := r.faults(misdirected.Code), r.faults(unproved.Code); a != 4 || b != 3 {
		t.Errorf("counted %v misdirected and %v without proof", a, b)
	}
}

// shredder sends the first TLS record in pieces, each a record of its own, as RFC 8446 section 5.1 allows it.
type shredder struct {
	net.Conn
	size int
	done bool
}

func (s *shredder) Write(p []byte) (int, error) {
	if s.done || len(p) < 5 {
		return s.Conn.Write(p)
	}
	s.done = true
	var out []byte
	for body := p[5:]; len(body) > 0; {
		n := min(s.size, len(body))
		out = append(out, p[0], p[1], p[2], byte(n>>8), byte(n))
		out, body = append(out, body[:n]...), body[n:]
	}
	if _, err := s.Conn.Write(out); err != nil {
		return 0, err
	}
	return len(p), nil
}

// A ClientHello in pieces names its server like any other: nobody gets past what the name asks of clients.
func TestShreddedHello(t *testing.T) {
	r := newSecureGate(t, defaults())
	r.to(newBackend(t, says(ok200)).addr)
	clients := newAuthority(t)
	r.put("ssls/open", r.ca.ssl("open.test"), "ssls/closed", r.ca.ssl("closed.test", clients.asks("")))
	for _, size := range []int{16, 100, 1 << 14} {
		for _, known := range []bool{false, true} {
			nc, err := net.DialTimeout("tcp", r.addr, patience)
			if err != nil {
				t.Fatal(err)
			}
			_ = nc.SetDeadline(time.Now().Add(patience))
			cfg := r.config("closed.test")
			if known {
				cfg.Certificates = clients.client()
			}
			c := tls.Client(&shredder{Conn: nc, size: size}, cfg)
			_, err = io.WriteString(c, "GET / HTTP/1.1\r\nHost: closed.test\r\n\r\n")
			got := make([]byte, 12)
			if err == nil {
				_, err = io.ReadFull(c, got)
			}
			if known != (err == nil && string(got) == "HTTP/1.1 200") {
				t.Errorf("pieces of %d bytes, known %t: %q, %v", size, known, got, err)
			}
			_ = nc.Close()
		}
	}
}

// What a host asks of its clients counts for the next request, on connections too that are open.
func TestClientCertificatesChange(t *testing.T) {
	up := newBackend(t, says(ok200))
	r := newSecureGate(t, defaults())
	r.to(up.addr)
	first, second := newAuthority(t), newAuthority(t)
	r.put("ssls/1", r.ca.ssl("a.test"))
	bare := r.open(t, r.config("a.test"))
	bare.sayTo("a.test", "/").want("GET", 200, "ok")
	r.put("ssls/1", r.ca.ssl("a.test", first.asks("")))
	bare.sayTo("a.test", "/").want("GET", 400, "*")

	cfg := r.config("a.test")
	cfg.Certificates = first.client()
	known := r.open(t, cfg)
	known.sayTo("a.test", "/").want("GET", 200, "ok")
	r.put("ssls/1", r.ca.ssl("a.test", first.asks(`,"depth":3`)))
	known.sayTo("a.test", "/").want("GET", 200, "ok")
	r.put("ssls/1", r.ca.ssl("a.test", second.asks("")))
	known.sayTo("a.test", "/").want("GET", 400, "*")
	r.put("ssls/1", r.ca.ssl("a.test"))
	known.sayTo("a.test", "/").want("GET", 200, "ok")
	bare.sayTo("a.test", "/").want("GET", 200, "ok")
}

func TestResumption(t *testing.T) {
	up := newBackend(t, says(ok200))
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			r := newSecureGate(t, defaults())
			r.to(up.addr)
			clients := newAuthority(t)
			docA := r.ca.ssl("a.test")
			r.put("ssls/a", docA, "ssls/b", r.ca.ssl("b.test"), "ssls/m", r.ca.ssl("m.test", clients.asks("")))
			cache := tls.NewLRUClientSessionCache(8)
			resumes := func(name string, key string) bool {
				t.Helper()
				cfg := r.config(name)
				cfg.ClientSessionCache, cfg.MaxVersion, cfg.Certificates = shared{cache, key}, version, clients.client()
				c := r.open(t, cfg)
				c.sayTo(name, "/").want("GET", 200, "ok") // the ticket is behind the handshake
				_ = c.Close()
				return c.state().DidResume
			}
			for _, step := range []struct {
				name, key string
				want      bool
				before    func()
			}{
				{name: "a.test", key: "x"}, {name: "a.test", key: "x", want: true}, {name: "a.test", key: "x", want: true},
				{name: "b.test", key: "x"}, {name: "b.test", key: "x", want: true},
				{name: "m.test", key: "m"}, {name: "m.test", key: "m", want: true},
				{name: "a.test", key: "y"},
				{name: "a.test", key: "y", want: true, before: func() { r.put("ssls/a", strings.Replace(docA, "{", `{"desc":"d",`, 1)) }},
				{name: "a.test", key: "y", before: func() { r.put("ssls/a", r.ca.ssl("a.test")) }},
			} {
				if step.before != nil {
					step.before()
				}
				if got := resumes(step.name, step.key); got != step.want {
					t.Errorf("%s with what is kept as %s: resumed %t", step.name, step.key, got)
				}
			}
			if n := r.handshakes("resumed"); n != 5 {
				t.Errorf("%v resumed handshakes are counted", n)
			}
			// A session that proves nothing does not open what asks for proof.
			cfg := r.config("m.test")
			cfg.ClientSessionCache, cfg.MaxVersion = shared{cache, "y"}, version
			if c, err := r.try(cfg); err == nil {
				if _, err = c.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
					t.Errorf("it was let in: %v", err)
				}
				_ = c.Close()
			}
		})
	}
}

// shared is a client's cache that keeps sessions by what the test says, not by the name of the server.
type shared struct {
	tls.ClientSessionCache
	key string
}

func (s shared) Get(string) (*tls.ClientSessionState, bool)  { return s.ClientSessionCache.Get(s.key) }
func (s shared) Put(_ string, state *tls.ClientSessionState) { s.ClientSessionCache.Put(s.key, state) }

// Clients that connect and say nothing hold no more than the places there are, and not for long when others want them.
func TestHandshakesAreBounded(t *testing.T) {
	o := defaults()
	o.TLS.MaxHandshakes = 3
	up := newBackend(t, says(ok200))
	r := newSecureGate(t, o)
	r.to(up.addr)
	r.put("ssls/1", r.ca.ssl("a.test"))
	r.open(t, r.config("a.test")).say(get).want("GET", 200, "ok")
	var silent []net.Conn
	for range 5 {
		c, err := net.Dial("tcp", r.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		silent = append(silent, c)
	}
	r.eventually("all places are taken", func() bool { return r.tls.gate.under() == 3 })
	done := make(chan struct{})
	most := make(chan int, 1)
	go func() {
		n := 0
		for {
			select {
			case <-done:
				most <- n
				return
			case <-time.After(time.Millisecond):
				n = max(n, r.tls.gate.under())
			}
		}
	}()
	var served sync.WaitGroup
	for range 6 {
		served.Go(func() {
			c, err := r.try(r.config("a.test"))
			if err != nil {
				t.Error(err)
				return
			}
			newClient(r.gateRig, t, c).say(get).want("GET", 200, "ok")
			_ = c.Close()
		})
	}
	served.Wait()
	close(done)
	if n := <-most; n > 3 {
		t.Errorf("%d handshakes were under way", n)
	}
	for _, c := range silent {
		_ = c.Close()
	}
	r.eventually("nothing is left of it", func() bool { return r.tls.gate.under() == 0 && r.gateRig.open.Load() == 1 })
}

func TestHandshakeTimesOut(t *testing.T) {
	o := defaults()
	o.TLS.HandshakeTimeout = 50 * time.Millisecond
	r := newSecureGate(t, o)
	r.put("ssls/1", r.ca.ssl("a.test"))
	for name, first := range map[string]string{"silent": "", "half a record": "\x16\x03\x01\x02\x00\x01", "not TLS": get} {
		c, err := net.Dial("tcp", r.addr)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(c, first)
		_ = c.SetReadDeadline(time.Now().Add(patience))
		got, err := io.ReadAll(c)
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() || strings.Contains(string(got), "HTTP/") {
			t.Errorf("%s: got %q, %v", name, got, err)
		}
		_ = c.Close()
	}
	r.eventually("they are counted", func() bool { return r.handshakes("timeout") == 2 && r.handshakes("failed") == 1 })
	if n := r.count(meter.Requests); n != 0 {
		t.Errorf("%v requests are counted", n)
	}
}

// A client for which there is no room is not worth a handshake, least of all one that the others wait for.
func TestNoRoomOverTLS(t *testing.T) {
	o := defaults()
	o.MaxConnections = 1
	r := newSecureGate(t, o)
	entered, release := make(chan struct{}), make(chan struct{})
	r.held(entered, release)
	r.put("ssls/1", r.ca.ssl("a.test"))
	c := r.open(t, r.config("a.test"))
	c.say(get)
	<-entered
	for range 3 {
		silent, err := net.Dial("tcp", r.addr)
		if err != nil {
			t.Fatal(err)
		}
		_ = silent.SetReadDeadline(time.Now().Add(patience))
		if got, err := io.ReadAll(silent); len(got) > 0 || errors.Is(err, net.ErrClosed) {
			t.Errorf("%q, %v", got, err)
		} else if e, ok := err.(net.Error); ok && e.Timeout() {
			t.Error("the accept loop waits for a client that says nothing")
		}
		_ = silent.Close()
	}
	close(release)
	c.want("GET", 200, "late")
	if full := r.shed("full"); full != 3 || r.handshakes("failed") != 0 {
		t.Errorf("%v were refused, %v handshakes failed", full, r.handshakes("failed"))
	}
}

// A request on a connection whose client has proved itself costs no allocation, and neither does one that is refused.
func TestAllocClientCertificates(t *testing.T) {
	ca, clients := newAuthority(t), newAuthority(t)
	for _, tt := range []struct {
		name   string
		status int
	}{{"api.example.com", 200}, {"other.example.com", 421}} {
		r := newRider(t, defaults(), browser)
		r.put("ssls/1", ca.ssl("api.example.com", clients.asks("")))
		over := &tlsConn{Conn: tls.Server(r.conn, &tls.Config{}), raw: r.conn, ready: true, name: tt.name} // #nosec G402 -- never used
		r.conn.tls = over
		over.proved.Store(r.live.Current().Certificate([]byte("api.example.com")).Client)
		r.ctx.Init2(over, nil, false)
		r.check(t, tt.status)
		noAllocs(t, tt.name, func() {
			r.serve()
			r.ctx.Response.Reset()
			r.ctx.Response.Header.DisableNormalizing()
		})
	}
}
