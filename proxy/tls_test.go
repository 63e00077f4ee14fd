package proxy

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"headgate/proxy/phase"
)

func certificate(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"gate.test"}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

// TestBehindTLS: addresses, counts, streams and the drain are the same where TLS lies over the connection.
func TestBehindTLS(t *testing.T) {
	cert, roots := certificate(t)
	up := newPaced(t, "HTTP/1.1 200 OK\r\nContent-Length: 20000\r\n\r\n")
	r := newGate(t, defaults()).to(up.addr, "probe")
	var client phase.Client
	var secure bool
	r.rewrite = func(x *phase.Exchange) phase.Verdict {
		client, secure = x.Client, x.Request.TLS
		return phase.Continue
	}
	l, err := Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	r.tls.base = &tls.Config{Certificates: []tls.Certificate{cert}}
	go func() { served <- r.ServeTLS(l) }()
	t.Cleanup(func() {
		_ = l.Close()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	nc, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{RootCAs: roots, ServerName: "gate.test"})
	if err != nil {
		t.Fatal(err)
	}
	_ = nc.SetDeadline(time.Now().Add(patience))
	c := newClient(r, t, nc)
	c.say("GET /# HTTP/1.1\r\nHost: a\r\nConnection: x\r\n\r\n").want("GET", 400, "*")

	nc, err = tls.Dial("tcp", l.Addr().String(), &tls.Config{RootCAs: roots, ServerName: "gate.test"})
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(patience))
	c = newClient(r, t, nc)
	c.say(get).head()
	up.pieces <- "abc"
	c.expect("abc")
	r.eventually("one busy connection", func() bool { return r.open.Load() == 1 && r.busy.Load() == 1 })
	up.pieces <- strings.Repeat("d", 19_997)
	c.expect(strings.Repeat("d", 19_997))
	r.fence()
	if string(client.Text) != "127.0.0.1" || client.ServerPort == 0 || !secure {
		t.Errorf("%+v, over TLS %t", client, secure)
	}
	if got := up.take()[0].has("x-forwarded-proto"); got[0] != "https" {
		t.Errorf("the upstream is told %q", got)
	}
}

func newClient(r *gateRig, t testing.TB, c net.Conn) *client {
	return &client{c, r, t, bufio.NewReader(c)}
}
