package upstream

import (
	"io"
	"strings"
	"testing"

	"headgate/conf/resource"
	"headgate/proxy/fault"
	"headgate/proxy/phase"
)

func upgradeRequest(protocols string) *phase.Exchange {
	x := request("GET", "/ws", "")
	x.Request.Upgrade = []byte(protocols)
	return x
}

const agree = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: foo\r\nX-End: 1\r\n\r\n"

// switched performs the exchange, which must end in a tunnel.
func switched(t *testing.T, u *Upstream, x *phase.Exchange) *Tunnel {
	t.Helper()
	if f := u.Forward(x); f != nil {
		t.Fatal(f)
	}
	tunnel, ok := x.Response.Stream.(*Tunnel)
	if !ok || x.Response.Status != 101 || x.Response.Source != phase.FromUpstream {
		t.Fatalf("%d %T", x.Response.Status, x.Response.Stream)
	}
	return tunnel
}

func TestTunnel(t *testing.T) {
	for _, secure := range []bool{false, true} {
		r := newRig(t)
		script := func(p *peer) {
			head, _ := p.next()
			if !strings.Contains(head, "\r\nConnection: Upgrade\r\nUpgrade: bar, Foo\r\n") {
				t.Errorf("request %q", head)
			}
			p.send("HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 103 Early Hints\r\nUpgrade: bar\r\n\r\n", agree+"early")
			all, err := io.ReadAll(p.br)
			if err != nil {
				t.Error(err)
			}
			p.send(" and ", string(all))
		}
		edit := func(d *resource.Upstream) { d.Timeout = &resource.Timeout{Connect: 1e10, Send: 2e10, Read: 1e10} }
		var u *Upstream
		if secure {
			ca := newAuthority(t)
			u = r.secure(ca, edit, ca.server("upstream.test"), script)
		} else {
			u = r.upstream(edit, serve(t, script))
		}
		x := upgradeRequest("bar, Foo")
		tunnel := switched(t, u, x)
		if got := string(tunnel.Protocol()); got != "foo" {
			t.Errorf("protocol %q", got)
		}
		if got := tunnel.Idle(); got != 2e10 {
			t.Errorf("idle for %v", got)
		}
		if got := u.nodes[0].Inflight.Load(); got != 1 {
			t.Errorf("%d attempts under way", got)
		}
		if h := x.Response.Header.Fields(); len(h) != 1 || string(h[0].Name) != "X-End" {
			t.Errorf("lines %q", h)
		}
		r.connections(1, 0)
		if _, err := io.WriteString(tunnel, "more"); err != nil {
			t.Fatal(err)
		}
		if err := tunnel.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		var got strings.Builder
		for {
			p, err := tunnel.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			got.Write(p)
		}
		if got.String() != "early and more" {
			t.Errorf("TLS %t: read %q", secure, got.String())
		}
		tunnel.Close()
		if got := u.nodes[0].Inflight.Load(); got != 0 {
			t.Errorf("%d attempts under way", got)
		}
		r.connections(0, 0)
		tunnel.Cut() // comes too late, and does no harm
	}
}

// TestTunnelCut gets a reader out, and whoever reads later sees the same.
func TestTunnelCut(t *testing.T) {
	r := newRig(t)
	tunnel := switched(t, r.upstream(nil, serve(t, func(p *peer) { p.next(); p.send(agree); p.gone() })), upgradeRequest("foo"))
	ended := make(chan error, 1)
	go func() {
		_, err := tunnel.Next()
		ended <- err
	}()
	tunnel.Cut()
	if err := <-ended; err != fault.BodyCut {
		t.Errorf("Next: %v", err)
	}
	if _, err := tunnel.Next(); err != fault.BodyCut {
		t.Errorf("Next: %v", err)
	}
	if _, err := tunnel.Write([]byte("x")); err == nil {
		t.Error("a write came through")
	}
	tunnel.Close()
	r.connections(0, 0)
}

// TestUpgradeIsSentOnce: on a connection of its own, and never again, whatever became of it; other requests share one meanwhile.
func TestUpgradeIsSentOnce(t *testing.T) {
	for name, end := range map[string]func(p *peer){
		"closes": func(*peer) {},
		"resets": func(p *peer) { p.reset() },
		"request old": func(p *peer) {
			p.send("HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
		},
	} {
		t.Run(name, func(t *testing.T) {
			script := func(p *peer) {
				for {
					head, ok := p.next()
					if !ok {
						return
					}
					if strings.Contains(head, "Upgrade: ") {
						end(p)
						return
					}
					p.send(ok2)
				}
			}
			r, a, b := newRig(t), serve(t, script), serve(t, script)
			u := r.upstream(retries(3), a, b)
			for range 4 {
				get(u).want(t, 200, "ok")
			}
			r.connections(2, 2)
			res := do(u, upgradeRequest("foo"))
			if name == "request old" {
				res.want(t, 408, "")
			} else {
				res.wantFault(t, fault.ClosedBeforeHead)
			}
			asked := 0
			for _, head := range append(a.seen(), b.seen()...) {
				asked += strings.Count(head, "Upgrade: ")
			}
			if asked != 1 || a.connections()+b.connections() != 3 {
				t.Errorf("sent %d times, over %d connections", asked, a.connections()+b.connections())
			}
			r.connections(2, 2)
		})
	}
}

// TestRefusedUpgradeGivesItsConnectionBack as any answer does.
func TestRefusedUpgradeGivesItsConnectionBack(t *testing.T) {
	r := newRig(t)
	u := r.upstream(nil, serve(t, answers(ok2)))
	do(u, upgradeRequest("foo")).want(t, 200, "ok")
	r.connections(1, 1)
}

func FuzzChosen(f *testing.F) {
	f.Add(agree, "foo")
	f.Add("HTTP/1.1 101 x\r\nconnection: a, upgrade\r\nupgrade: b/1 , A\r\n\r\n", "a, b/1")
	f.Add("HTTP/1.0 101 x\r\nConnection: upgrade\r\nUpgrade: a\r\n\r\n", "a")
	f.Add("HTTP/1.1 101 x\r\nConnection: upgrade\r\nUpgrade: a,,\r\nContent-Length: 0\r\n\r\n", "a")
	f.Fuzz(func(t *testing.T, raw, offered string) {
		var h phase.Header
		head, bad := parseHead([]byte(raw), false, &h, AnswerLines{})
		got := string(chosen([]byte(raw), []byte(offered)))
		if bad != nil || head.status != switching || got == "" {
			return
		}
		for p := range strings.SplitSeq(got, ",") {
			found := false
			for o := range strings.SplitSeq(offered, ",") {
				found = found || strings.EqualFold(strings.Trim(p, " \t"), strings.Trim(o, " \t"))
			}
			if !found {
				t.Errorf("%q was never offered in %q", p, offered)
			}
		}
	})
}
