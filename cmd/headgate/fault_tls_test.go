package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"testing"
	"time"

	"headgate/conf"
)

// expired issues a certificate for this machine that was good until a minute ago.
func (a *authority) expired(t testing.TB) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(7), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(-time.Minute),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// TestFault11UpstreamTLS: an upstream is asked only when it has proven who it is, unless its document says otherwise. What is wrong with its TLS
// can be read from the metrics; nothing of a request has gone there, so that another node serves it whatever its method is.
func TestFault11UpstreamTLS(t *testing.T) {
	ca, file := testAuthority(t)
	stranger, _ := testAuthority(t)
	c := onLoopback(t, conf.Default())
	c.Upstream.CAFile = file
	g := startGate(t, c)
	with := func(cert *tls.Certificate) *tls.Config { return &tls.Config{Certificates: []tls.Certificate{*cert}} }
	past := ca.expired(t)
	old := with(ca.leafFor(t, "127.0.0.1"))
	old.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	good := newFaultUpstream(t, with(ca.leafFor(t, "127.0.0.1")), saying(whole("good")))

	cases := []struct {
		name     string
		config   *tls.Config
		script   func(p *faultPeer)
		status   int
		code     string
		unproven int // the status without verification
	}{
		{"expired", with(&past), saying(whole("x")), 502, "tls_certificate_expired", 200},
		{"wrong name", with(ca.leafFor(t, "other.example")), saying(whole("x")), 502, "tls_certificate_name", 200},
		{"unknown CA", with(stranger.leafFor(t, "127.0.0.1")), saying(whole("x")), 502, "tls_certificate_authority", 200},
		{"old version", old, saying(whole("x")), 502, "tls_version", 502},
		{"no TLS", nil, func(p *faultPeer) { p.send("220 this is no TLS\r\n"); p.gone() }, 502, "tls_failed", 502},
		{"handshake stall", nil, (*faultPeer).gone, 504, "tls_timeout", 504},
	}
	refused, served := 0, 0
	var stalled time.Duration
	for _, tt := range cases {
		u := newFaultUpstream(t, tt.config, tt.script)
		clock, both := 30.0, 30.0
		if tt.code == "tls_timeout" {
			clock, both = 0.5, 3 // the other node needs some of it, too
		}
		for _, verify := range []bool{true, false} {
			more, want := "", tt.status
			if !verify {
				more, want = `,"tls":{"verify":false}`, tt.unproven
			}
			before := g.faults(tt.code)
			g.configure("PUT", "/routes/t", fmt.Sprintf(`{"uri":"/t","upstream":{"scheme":"https","pass_host":"node","nodes":{%q:1},
				"timeout":{"connect":%g,"send":30,"read":30}%s}}`, u.addr, clock, more))
			begun := time.Now()
			a := g.send("POST", "http://"+g.addr+"/t", "data")
			if tt.code == "tls_timeout" {
				stalled = max(stalled, time.Since(begun))
			}
			counted := g.faults(tt.code) - before
			if a.status != want || want != 200 && counted != 1 {
				t.Errorf("%s, verified: %t: %v, %s was counted %d times, want status %d", tt.name, verify, a, tt.code, counted, want)
			} else if verify {
				refused++
			}
		}
		if n := u.arrived(); n > 1 {
			t.Errorf("%s: %d requests arrived, with verification there is none", tt.name, n)
		}
		g.configure("PUT", "/routes/two", fmt.Sprintf(`{"uri":"/two","upstream":{"scheme":"https","pass_host":"node",
			"timeout":{"connect":%g,"send":30,"read":30},"nodes":[{"host":"127.0.0.1","port":%s,"weight":1,"priority":1},
			{"host":"127.0.0.1","port":%s,"weight":1}]}}`, both, portOf(u.addr), portOf(good.addr)))
		if a := g.send("POST", "http://"+g.addr+"/two", "data"); a.status != http.StatusOK || a.body != "good" {
			t.Errorf("%s, with another node: %v", tt.name, a)
		} else {
			served++
		}
	}

	// Anybody on the way can end a TCP stream: without the alert that closes a connection in order, what only its end delimits is cut.
	const answer = "HTTP/1.1 200 OK\r\n\r\npart of it"
	for _, tt := range []struct {
		name, answer string
		finish       func(p *faultPeer)
		cut          bool
	}{
		{"closed with an alert", answer, func(*faultPeer) {}, false},
		{"closed without", answer, (*faultPeer).cut, true},
		{"closed without, of known length", whole("all of it"), (*faultPeer).cut, false},
	} {
		before := g.faults("body_cut")
		u := newFaultUpstream(t, with(ca.leafFor(t, "127.0.0.1")), func(p *faultPeer) {
			if p.next() != nil {
				p.send(tt.answer)
				tt.finish(p)
			}
		})
		g.configure("PUT", "/routes/t", fmt.Sprintf(`{"uri":"/t","upstream":{"scheme":"https","pass_host":"node","nodes":{%q:1}}}`, u.addr))
		a, err := trySend(g.client, "GET", "http://"+g.addr+"/t", "")
		if cut := err != nil; cut != tt.cut || a.status != http.StatusOK || (g.faults("body_cut") > before) != tt.cut {
			t.Errorf("%s: %v, %v", tt.name, a, err)
		}
	}
	t.Logf("F11: verification is on by default: %d of %d kinds of bad TLS refused, each with its fault code, %d of %d served by another node; "+
		"a stalled handshake took %v with a connect clock of 500ms; an answer without close_notify is cut for the client",
		refused, len(cases), served, len(cases), stalled.Round(time.Millisecond))
}
