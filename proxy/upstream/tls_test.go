package upstream

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"headgate/conf/resource"
	"headgate/proxy/fault"
)

// authority is a CA made for one test.
type authority struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t testing.TB) *authority {
	a := &authority{t: t}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	a.key = a.newKey()
	der, err := x509.CreateCertificate(rand.Reader, template, template, &a.key.PublicKey, a.key)
	if err == nil {
		a.cert, err = x509.ParseCertificate(der)
	}
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func (a *authority) newKey() *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	return key
}

func (a *authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

// issue makes a certificate for names that ends at end.
func (a *authority) issue(end time.Time, names ...string) tls.Certificate {
	key := a.newKey()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "leaf"}, NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: end,
		DNSNames: names, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// server is the configuration of an upstream with a good certificate.
func (a *authority) server(names ...string) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{a.issue(time.Now().Add(time.Hour), names...)}}
}

// trust makes a the authority of the rig, and every name one of this machine.
func (r *rig) trust(a *authority) {
	r.def.TLS.Roots = a.pool()
	r.names = func(context.Context, string) ([]netip.Addr, error) {
		return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
	}
}

// secure compiles an https upstream whose node is called upstream.test and trusts a.
func (r *rig) secure(a *authority, edit func(d *resource.Upstream), config *tls.Config, script func(p *peer)) *Upstream {
	r.def.TLS.Roots = a.pool()
	r.names = func(context.Context, string) ([]netip.Addr, error) {
		return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
	}
	s := serveTLS(r.t, config, script)
	s.host = "upstream.test"
	return r.upstream(func(d *resource.Upstream) {
		d.Scheme = "https"
		if edit != nil {
			edit(d)
		}
	}, s)
}

func TestServerName(t *testing.T) {
	for passHost, c := range map[string]struct{ upstreamHost, sni, host string }{
		"pass":    {"", "upstream.test", "client.example"}, // what the client says does not decide whom to trust
		"node":    {"", "upstream.test", ""},
		"rewrite": {"other.test:8443", "other.test", "other.test:8443"},
	} {
		t.Run(passHost, func(t *testing.T) {
			r := newRig(t)
			a := newAuthority(t)
			config := a.server(c.sni)
			var mu sync.Mutex
			var sni string
			config.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
				mu.Lock()
				defer mu.Unlock()
				sni = h.ServerName
				if !slices.Equal(h.SupportedProtos, []string{"http/1.1"}) {
					t.Errorf("ALPN %q", h.SupportedProtos)
				}
				return nil, nil
			}
			u := r.secure(a, func(d *resource.Upstream) { d.PassHost, d.UpstreamHost = passHost, c.upstreamHost }, config, func(p *peer) {
				answers(ok2)(p)
			})
			get(u).want(t, 200, "ok")
			mu.Lock()
			defer mu.Unlock()
			if sni != c.sni {
				t.Fatalf("SNI %q, want %q", sni, c.sni)
			}
			host := c.host
			if host == "" {
				host = string(u.nodes[0].host)
			}
			if want := "GET / HTTP/1.1\r\nHost: " + host + "\r\n\r\n"; r.srv.seen()[0] != want {
				t.Fatalf("request %q, want %q", r.srv.seen()[0], want)
			}
		})
	}
}

func TestCertificates(t *testing.T) {
	trusted := newAuthority(t)
	off, on := false, true
	old := &tls.Config{Certificates: trusted.server("upstream.test").Certificates, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}
	expired := &tls.Config{Certificates: []tls.Certificate{trusted.issue(time.Now().Add(-time.Hour), "upstream.test")}}
	for name, c := range map[string]struct {
		config *tls.Config
		verify *bool
		fault  *fault.Fault // nil: none
	}{
		"good":                         {trusted.server("upstream.test"), nil, nil},
		"good, said so":                {trusted.server("upstream.test"), &on, nil},
		"wrong name":                   {trusted.server("other.test"), nil, fault.TLSWrongName},
		"unknown authority":            {newAuthority(t).server("upstream.test"), nil, fault.TLSUntrusted},
		"expired":                      {expired, nil, fault.TLSExpired},
		"old version":                  {old, nil, fault.TLSVersion},
		"no TLS at all":                {nil, nil, fault.TLSFailed},
		"verify off":                   {newAuthority(t).server("other.test"), &off, nil},
		"verify off, but not plain":    {nil, &off, fault.TLSFailed},
		"verify off, old version even": {old, &off, fault.TLSVersion},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			u := r.secure(trusted, func(d *resource.Upstream) { d.TLS = &resource.TLS{Verify: c.verify} }, c.config, func(p *peer) {
				if c.config == nil {
					p.send("220 this is not TLS\r\n")
					p.gone()
					return
				}
				answers(ok2)(p)
			})
			got := post(u)
			if c.fault == nil {
				got.want(t, 200, "ok")
				return
			}
			got.wantFault(t, c.fault)
			r.connections(0, 0)
			r.mu.Lock()
			defer r.mu.Unlock()
			if !slices.Equal(r.faults, []string{c.fault.Code}) {
				t.Fatalf("reported %q", r.faults)
			}
		})
	}
}

func TestSessionsAreResumed(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		r := newRig(t)
		r.def.Pool.MaxRequests = 1 // a new connection for every request
		a := newAuthority(t)
		config := a.server("upstream.test")
		config.MinVersion, config.MaxVersion = version, version
		resumed := make(chan bool, 4)
		u := r.secure(a, nil, config, func(p *peer) {
			if _, ok := p.next(); ok {
				resumed <- p.Conn.(*tls.Conn).ConnectionState().DidResume
				p.send(ok2)
				p.gone()
			}
		})
		for i := range 4 {
			get(u).want(t, 200, "ok")
			if did := <-resumed; did != (i > 0) {
				t.Fatalf("%s: connection %d resumed: %t", tls.VersionName(version), i, did)
			}
		}
	}
}

func TestClientCertificate(t *testing.T) {
	a := newAuthority(t)
	leaf := a.issue(time.Now().Add(time.Hour), "gateway.test")
	key, err := x509.MarshalPKCS8PrivateKey(leaf.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	options := &resource.TLS{
		ClientCert: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf.Certificate[0]})),
		ClientKey:  string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})),
	}
	config := a.server("upstream.test")
	config.ClientAuth, config.ClientCAs = tls.RequireAndVerifyClientCert, a.pool()

	r := newRig(t)
	with := r.secure(a, func(d *resource.Upstream) { d.TLS = options }, config, func(p *peer) {
		if _, ok := p.next(); ok {
			p.send("HTTP/1.1 200 OK\r\n\r\n" + p.Conn.(*tls.Conn).ConnectionState().PeerCertificates[0].DNSNames[0])
		}
	})
	get(with).want(t, 200, "gateway.test")
	if got := get(r.secure(a, nil, config, answers(ok2))); got.fault == nil || got.fault.Status != 502 {
		t.Fatalf("without a certificate: %q, status %d", got.code(), got.status)
	}
	bad := &resource.Upstream{Type: "roundrobin", Scheme: "https", TLS: &resource.TLS{ClientCert: options.ClientCert, ClientKey: "no key"}}
	if _, err := Compile(r.hub, bad, "test", r.def, nil); err == nil {
		t.Fatal("a broken key was accepted")
	}
}

func TestHandshakeStall(t *testing.T) {
	r := newRig(t)
	r.def.Connect = 50 * time.Millisecond
	u := r.secure(newAuthority(t), nil, nil, func(p *peer) { p.gone() })
	post(u).wantFault(t, fault.TLSTimeout)
	r.connections(0, 0)
}

// TestClosingAlert: over TLS the end of the stream ends a body only when the upstream says so; anybody on the way can cut a TCP stream.
func TestClosingAlert(t *testing.T) {
	const reply = "HTTP/1.1 200 OK\r\n\r\npart of it"
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		r := newRig(t)
		a := newAuthority(t)
		config := a.server("upstream.test")
		config.MaxVersion = version
		get(r.secure(a, nil, config, once(reply))).want(t, 200, "part of it")
		got := get(r.secure(a, nil, config, func(p *peer) {
			once(reply)(p)
			_ = p.tcp.Close()
		}))
		if got.code() != "stream: body_cut" {
			t.Fatalf("%s without an alert: %q", tls.VersionName(version), got.code())
		}
		r.connections(0, 0)
	}
}
