package proxy

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"headgate/proxy/phase"
)

// TestWebSocket: handshake, messages, control frames and the closing handshake, over every mix of plain and TLS.
func TestWebSocket(t *testing.T) {
	cert, roots := certificate(t)
	config := &tls.Config{Certificates: []tls.Certificate{cert}}
	for _, tt := range []struct {
		name             string
		client, upstream bool // over TLS
	}{{"plain", false, false}, {"TLS client", true, false}, {"TLS upstream", false, true}, {"TLS", true, true}} {
		t.Run(tt.name, func(t *testing.T) {
			var far *tls.Config
			if tt.upstream {
				far = config
			}
			s := newSwitcher(t, far, serveWebSocket)
			r := newGate(t, defaults()).upgrading(s, withProbe)
			var c *client
			if tt.client {
				c = r.dialTLS(t, config, roots)
			} else {
				c = r.dial(t)
			}
			head := c.ask()
			for _, line := range []string{"Upgrade: WebSocket", "Connection: Upgrade", "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", "Server: test", "Date: "} {
				if strings.Count(head, "\r\n"+line) != 1 {
					t.Errorf("no line %q in %q", line, head)
				}
			}
			if got := strings.Count(head, "\r\n"); got != 7 {
				t.Errorf("head %q", head)
			}
			for _, payload := range []string{"", "hello", strings.Repeat("x", 70_000), strings.Repeat("long", 100_000)} {
				go func() { _ = writeFrame(c, opText, []byte(payload), true) }()
				if op, got, err := readFrame(c.in); err != nil || op != opText || string(got) != payload {
					t.Fatalf("frame %d, %d bytes, %v; want %d bytes", op, len(got), err, len(payload))
				}
			}
			if got := r.tunnels(); got != 1 {
				t.Errorf("the gauge shows %v tunnels", got)
			}
			if r.finished() != 0 {
				t.Error("the exchange has ended before its tunnel")
			}
			_ = writeFrame(c, opPing, []byte("p"), true)
			if op, got, err := readFrame(c.in); err != nil || op != opPong || string(got) != "p" {
				t.Fatalf("frame %d %q, %v", op, got, err)
			}
			_ = writeFrame(c, opClose, []byte{3, 232}, true)
			if op, got, err := readFrame(c.in); err != nil || op != opClose || !bytes.Equal(got, []byte{3, 232}) {
				t.Fatalf("frame %d %q, %v", op, got, err)
			}
			c.closed()
			_ = c.Close()
			r.settled(s, 1)
			if m := s.seen()[0]; strings.Join(m.has("upgrade"), "|") != "websocket" || strings.Join(m.has("connection"), "|") != "Upgrade" || m.bad != "" {
				t.Errorf("the upstream saw %q", m.head)
			}
			if got := r.faults("client_gone") + r.faults("body_cut") + r.faults("upgrade_idle"); got != 0 {
				t.Errorf("%v faults", got)
			}
			// Four frames with 2, 2, 10 and 10 bytes of head each, the pong and the closing frame.
			if line := r.lines(1)[0]; !strings.Contains(line, `"GET /ws HTTP/1.1" 101 470036 `) {
				t.Errorf("log: %s", line)
			}
		})
	}
}

// TestUpgradeEarlyBytes: what is sent behind a head is not lost, on either side; and not before the upstream has agreed does it get any of it.
func TestUpgradeEarlyBytes(t *testing.T) {
	s := newSwitcher(t, nil, func(w farEnd, _ message) {
		if w.in.Buffered() > 0 {
			w.say("HTTP/1.1 500 too early\r\nContent-Length: 0\r\n\r\n")
			return
		}
		w.say(agreeWebSocket + "from upstream")
		got := make([]byte, len("from client, more"))
		_, _ = io.ReadFull(w.in, got)
		w.say(" " + string(got))
	})
	r := newGate(t, defaults()).upgrading(s, withProbe)
	c := r.dial(t)
	if head := c.say(askWebSocket + "from client").head(); !strings.Contains(head, " 101 ") {
		t.Fatal(head)
	}
	c.expect("from upstream")
	c.say(", more").expect(" from client, more")
	c.closed()
	_ = c.Close()
	r.settled(s, 1)
}

// TestUpgradeRefused: an upstream that does not switch answers like any other, and what the client has sent behind its request is the next
// request, which the gateway routes.
func TestUpgradeRefused(t *testing.T) {
	for _, tt := range []struct {
		name, answer string
		status       int
		body         string
	}{
		{"200", ok200, 200, "ok"},
		{"403", "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno", 403, "no"},
		{"426", "HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nContent-Length: 0\r\n\r\n", 426, ""},
		{"stream", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", 200, "ok"},
		{"after 103", "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + ok200, 200, "ok"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			up := newBackend(t, func(c net.Conn, m message) bool {
				if m.target != "/ws" {
					return says("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnext")(c, m)
				}
				return says(tt.answer)(c, m)
			})
			r := newGate(t, defaults()).upgrading(&switcher{addr: up.addr}, withProbe)
			c := r.dial(t).say(askWebSocket + get)
			if tt.name == "after 103" {
				c.want("GET", 103, "")
			}
			c.want("GET", tt.status, tt.body)
			c.want("GET", 200, "next")
			if got := up.take(); len(got) != 2 || len(got[0].has("upgrade")) != 1 || len(got[1].has("upgrade"))+len(got[1].has("connection")) != 0 {
				t.Errorf("the upstream saw %q", got)
			}
			if got := r.tunnels(); got != 0 {
				t.Errorf("%v tunnels", got)
			}
		})
	}
}

// TestUpgradeBadAnswers: a 101 that does not keep to what was asked is a bad answer, and the connection is not used again.
func TestUpgradeBadAnswers(t *testing.T) {
	const first = "HTTP/1.1 101 Switching Protocols\r\n"
	for _, tt := range []struct{ name, answer string }{
		{"another protocol", first + "Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n"},
		{"one more protocol", first + "Connection: Upgrade\r\nUpgrade: websocket, foo\r\n\r\n"},
		{"no protocol", first + "Connection: Upgrade\r\n\r\n"},
		{"empty protocol", first + "Connection: Upgrade\r\nUpgrade:\r\n\r\n"},
		{"two lines", first + "Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: websocket\r\n\r\n"},
		{"no Connection", first + "Upgrade: websocket\r\n\r\n"},
		{"another Connection", first + "Upgrade: websocket\r\nConnection: keep-alive\r\n\r\n"},
		{"HTTP/1.0", "HTTP/1.0 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"},
		{"a length", first + "Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 5\r\n\r\nhello"},
		{"chunks", first + "Connection: Upgrade\r\nUpgrade: websocket\r\nTransfer-Encoding: chunked\r\n\r\n"},
		{"nothing", ""},
		{"half a head", first + "Connection: Upgrade\r\nUpg"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			script := func(w farEnd, _ message) {
				w.say(tt.answer)
				if !strings.HasSuffix(tt.answer, "\r\n\r\n") {
					return
				}
				_, _ = io.Copy(io.Discard, w)
			}
			s, other := newSwitcher(t, nil, script), newSwitcher(t, nil, script)
			r := newGate(t, defaults()).route("any", `{"uri":"/*","enable_websocket":true,"plugins":{"probe":{}},"upstream":{"nodes":{"`+s.addr+`":1,"`+other.addr+`":1},"retries":3}}`)
			c := r.dial(t).say(askWebSocket)
			c.want("GET", 502, "*")
			_ = c.Close()
			r.settled(s, 1)
			if n := len(s.seen()) + len(other.seen()); n != 1 {
				t.Errorf("it was sent %d times", n)
			}
		})
	}
	t.Run("not asked for", func(t *testing.T) {
		s := newSwitcher(t, nil, func(w farEnd, _ message) { w.say(agreeWebSocket) })
		r := newGate(t, defaults()).upgrading(s, withProbe)
		c := r.dial(t).say(get)
		c.want("GET", 502, "*")
		r.to(s.addr, "probe")
		c.say(askWebSocket).want("GET", 502, "*")
		_ = c.Close()
		r.settled(s, 2)
	})
}

// TestUpgradeRetries: an endpoint that nothing was sent to is no reason to give up.
func TestUpgradeRetries(t *testing.T) {
	s := newSwitcher(t, nil, serveWebSocket)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead := l.Addr().String()
	_ = l.Close()
	r := newGate(t, defaults()).route("any", `{"uri":"/*","enable_websocket":true,"plugins":{"probe":{}},"upstream":{"nodes":{"`+s.addr+`":1,"`+dead+`":1}}}`)
	for range 4 {
		c := r.dial(t)
		c.ask()
		_ = c.Close()
	}
	r.settled(s, 4)
}

// TestUpgradeOffers: what the upstream is asked for.
func TestUpgradeOffers(t *testing.T) {
	up := newBackend(t, says(ok200))
	r := newGate(t, defaults())
	r.docs["services/on"] = `{"enable_websocket":true}`
	r.docs["services/off"] = `{"enable_websocket":false}`
	upstream := `"plugins":{"probe":{}},"upstream":{"nodes":{"` + up.addr + `":1}}}`
	for id, switches := range map[string]string{
		"on": `"enable_websocket":true`, "off": `"enable_websocket":false`, "unset": `"priority":1`,
		"service-on": `"service_id":"on"`, "service-off": `"service_id":"off"`,
		"on-over-off": `"service_id":"off","enable_websocket":true`, "off-over-on": `"service_id":"on","enable_websocket":false`,
	} {
		r.route(id, `{"uri":"/`+id+`",`+switches+`,`+upstream)
	}
	long := strings.Repeat("p,", 8)
	for _, tt := range []struct{ name, method, path, lines, want string }{
		{"asked", "GET", "/on", "Connection: Upgrade\r\nUpgrade: websocket", "websocket"},
		{"off", "GET", "/off", "Connection: Upgrade\r\nUpgrade: websocket", ""},
		{"unset", "GET", "/unset", "Connection: Upgrade\r\nUpgrade: websocket", ""},
		{"of the service", "GET", "/service-on", "Connection: Upgrade\r\nUpgrade: websocket", "websocket"},
		{"not of the service", "GET", "/service-off", "Connection: Upgrade\r\nUpgrade: websocket", ""},
		{"route over service, on", "GET", "/on-over-off", "Connection: Upgrade\r\nUpgrade: websocket", "websocket"},
		{"route over service, off", "GET", "/off-over-on", "Connection: Upgrade\r\nUpgrade: websocket", ""},
		{"in a list", "GET", "/on", "Connection: keep-alive,  uPGRADE\r\nupgrade: WebSocket", "WebSocket"},
		{"in two lines", "GET", "/on", "Connection: keep-alive\r\nConnection: Upgrade\r\nUpgrade: websocket", "websocket"},
		{"several protocols", "GET", "/on", "Connection: Upgrade\r\nUpgrade: foo/1.2, bar", "foo/1.2, bar"},
		{"no Connection", "GET", "/on", "Upgrade: websocket", ""},
		{"another Connection", "GET", "/on", "Connection: keep-alive\r\nUpgrade: websocket", ""},
		{"no Upgrade", "GET", "/on", "Connection: Upgrade", ""},
		{"empty Upgrade", "GET", "/on", "Connection: Upgrade\r\nUpgrade:", ""},
		{"two Upgrades", "GET", "/on", "Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: websocket", ""},
		{"no token", "GET", "/on", "Connection: Upgrade\r\nUpgrade: web socket", ""},
		{"no version", "GET", "/on", "Connection: Upgrade\r\nUpgrade: websocket/", ""},
		{"empty element", "GET", "/on", "Connection: Upgrade\r\nUpgrade: ,websocket", ""},
		{"eight", "GET", "/on", "Connection: Upgrade\r\nUpgrade: " + long[:len(long)-1], long[:len(long)-1]},
		{"nine", "GET", "/on", "Connection: Upgrade\r\nUpgrade: " + long + "p", ""},
		{"h2c", "GET", "/on", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk", ""},
		{"h2c in a list", "GET", "/on", "Connection: Upgrade\r\nUpgrade: websocket, H2C", ""},
		{"TLS", "GET", "/on", "Connection: Upgrade\r\nUpgrade: TLS/1.0", ""},
		{"HTTP", "GET", "/on", "Connection: Upgrade\r\nUpgrade: HTTP/2.0", ""},
		{"POST", "POST", "/on", "Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 1", ""},
		{"a body", "GET", "/on", "Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 1", ""},
		{"HTTP/1.0", "GET", "/on", "Connection: keep-alive, Upgrade\r\nUpgrade: websocket", ""},
		{"made POST", "GET", "/on?post", "Connection: Upgrade\r\nUpgrade: websocket", ""},
		{"given a body", "GET", "/on?body", "Connection: Upgrade\r\nUpgrade: websocket", ""},
		{"asked by a plugin", "GET", "/unset?upgrade", "A: b", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r.access = func(x *phase.Exchange) phase.Verdict {
				switch string(x.Request.Query) {
				case "post":
					x.Request.OutMethod = []byte("POST")
				case "body":
					x.Request.Body = []byte("x")
				case "upgrade":
					x.Request.Header.Add([]byte("Upgrade"), []byte("websocket"))
					x.Request.Header.Add([]byte("Connection"), []byte("Upgrade"))
				}
				return phase.Continue
			}
			raw := tt.method + " " + tt.path + " HTTP/1.1\r\nHost: a\r\n" + tt.lines + "\r\n\r\n"
			if strings.Contains(tt.lines, "Length: 1") {
				raw += "x"
			}
			if tt.name == "HTTP/1.0" {
				raw = strings.Replace(raw, " HTTP/1.1", " HTTP/1.0", 1)
			}
			r.dial(t).say(raw).want(tt.method, 200, "ok")
			m := up.take()[0]
			connection := ""
			if tt.want != "" {
				connection = "Upgrade"
			}
			if got := strings.Join(m.has("upgrade"), "|"); got != tt.want {
				t.Errorf("Upgrade %q, want %q", got, tt.want)
			}
			if got := strings.Join(m.has("connection"), "|"); got != connection {
				t.Errorf("Connection %q, want %q", got, connection)
			}
			if m.bad != "" || len(m.has("http2-settings")) > 0 {
				t.Errorf("the upstream saw %q: %s", m.head, m.bad)
			}
		})
	}
}

// TestUpgradeAndPlugins: a plugin that refuses keeps the request from the upstream, and one that makes another answer of the 101 gets
// that answer sent.
func TestUpgradeAndPlugins(t *testing.T) {
	refuse := func(x *phase.Exchange) phase.Verdict {
		x.Answer(401, phase.TypeText, []byte("who are you"))
		return phase.Stop
	}
	for _, where := range []string{"rewrite", "access", "send", "answer", "status"} {
		t.Run(where, func(t *testing.T) {
			s := newSwitcher(t, nil, serveWebSocket)
			r := newGate(t, defaults()).upgrading(s, withProbe)
			want := "who are you"
			switch where {
			case "rewrite":
				r.rewrite = refuse
			case "access":
				r.access = refuse
			case "send":
				r.send = refuse
			case "answer":
				r.response = func(x *phase.Exchange) { refuse(x) }
			case "status":
				want = ""
				r.response = func(x *phase.Exchange) { x.Response.Status = 401 }
			}
			c := r.dial(t)
			for range 2 { // the connection goes on speaking HTTP
				if res := c.say(askWebSocket).want("GET", 401, want); res.Header.Get("Upgrade")+res.Header.Get("Connection") != "" {
					t.Errorf("answer %v", res.Header)
				}
			}
			_ = c.Close()
			r.settled(s, 2)
			if asked := len(s.seen()); asked != 0 && where != "answer" && where != "status" {
				t.Errorf("the upstream was asked %d times", asked)
			}
		})
	}
	t.Run("lines", func(t *testing.T) {
		s := newSwitcher(t, nil, serveWebSocket)
		r := newGate(t, defaults()).upgrading(s, withProbe)
		r.response = func(x *phase.Exchange) {
			x.Response.Header.Add([]byte("X-Plugin"), []byte("1"))
			x.Response.Header.Add([]byte("upgrade"), []byte("h2c"))
			x.Response.Header.Add([]byte("Connection"), []byte("close"))
			x.Response.Header.Add([]byte("Content-Length"), []byte("5"))
		}
		c := r.dial(t)
		head := c.ask()
		if strings.Count(head, "X-Plugin: 1\r\n") != 1 || strings.Contains(head, "h2c") || strings.Contains(head, "close") || strings.Contains(head, "Length") {
			t.Errorf("head %q", head)
		}
		_ = c.Close()
		r.settled(s, 1)
	})
}

// TestUpgradeHalfClose: one direction ends, the other one goes on to its own end.
func TestUpgradeHalfClose(t *testing.T) {
	cert, roots := certificate(t)
	config := &tls.Config{Certificates: []tls.Certificate{cert}}
	for _, secure := range []bool{false, true} {
		name := map[bool]string{false: "plain", true: "TLS"}[secure]
		dial := func(r *gateRig) *client {
			if secure {
				return r.dialTLS(t, config, roots)
			}
			return r.dial(t)
		}
		var far *tls.Config
		if secure {
			far = config
		}
		t.Run(name+", the client first", func(t *testing.T) {
			s := newSwitcher(t, far, func(w farEnd, _ message) {
				w.say(agreeWebSocket)
				all, err := io.ReadAll(w.in)
				w.say("got " + string(all))
				if err != nil {
					w.say(err.Error())
				}
			})
			r := newGate(t, defaults()).upgrading(s, withProbe)
			c := dial(r)
			c.ask()
			c.say("one").say(" two")
			_ = closeWrite(c.Conn)
			c.expect("got one two")
			c.closed()
			_ = c.Close()
			r.settled(s, 1)
		})
		t.Run(name+", the upstream first", func(t *testing.T) {
			heard := make(chan string, 1)
			s := newSwitcher(t, far, func(w farEnd, _ message) {
				w.say(agreeWebSocket + "that was all")
				_ = closeWrite(w.Conn)
				all, _ := io.ReadAll(w.in)
				heard <- string(all)
			})
			r := newGate(t, defaults()).upgrading(s, withProbe)
			c := dial(r)
			c.ask()
			c.expect("that was all")
			c.closed()
			c.say("so it was")
			_ = c.Close()
			if got := <-heard; got != "so it was" {
				t.Errorf("the upstream heard %q", got)
			}
			r.settled(s, 1)
		})
	}
}

// TestUpgradeDeafUpstream: what an upstream has said before it closed reaches the client, although the client's words reach nobody.
func TestUpgradeDeafUpstream(t *testing.T) {
	last := strings.Repeat("x", 40_000)
	closed := make(chan struct{})
	s := newSwitcher(t, nil, func(w farEnd, _ message) {
		w.say(agreeWebSocket + last)
		_ = w.Close()
		close(closed)
	})
	r := newGate(t, defaults()).upgrading(s, withProbe)
	c := r.dial(t)
	c.ask()
	<-closed
	for range 50 {
		c.say("is anybody there")
	}
	c.expect(last)
	c.closed()
	_ = c.Close()
	r.settled(s, 1)
}

// TestUpgradeBothWaysAtOnce: neither direction waits for the other one.
func TestUpgradeBothWaysAtOnce(t *testing.T) {
	const size = 8 << 20
	piece := bytes.Repeat([]byte("0123456789abcdef"), 4096)
	pour := func(w io.Writer) {
		for range size / len(piece) {
			if _, err := w.Write(piece); err != nil {
				return
			}
		}
	}
	check := func(in io.Reader) error {
		got := make([]byte, len(piece))
		for range size / len(piece) {
			if _, err := io.ReadFull(in, got); err != nil {
				return err
			}
			if !bytes.Equal(got, piece) {
				return errors.New("other bytes")
			}
		}
		return nil
	}
	far := make(chan error, 1)
	s := newSwitcher(t, nil, func(w farEnd, _ message) {
		w.say(agreeWebSocket)
		poured := make(chan struct{})
		go func() { defer close(poured); pour(w) }()
		far <- check(w.in)
		<-poured
	})
	r := newGate(t, defaults()).upgrading(s, withProbe)
	c := r.dial(t)
	c.ask()
	poured := make(chan struct{})
	go func() { defer close(poured); pour(c) }()
	if err := errors.Join(check(c.in), <-far); err != nil {
		t.Error(err)
	}
	<-poured
	c.closed()
	_ = c.Close()
	r.settled(s, 1)
}
