package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"headgate/conf"
)

// ownPair is a certificate for name that signs itself, and its key, both PEM.
func ownPair(t testing.TB, name string) (cert, key string, roots *x509.CertPool) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tpl := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{name}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, tpl, tpl, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	cert = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	roots = x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(cert))
	return cert, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw})), roots
}

// secureClient asks addr, whatever the URL says, and trusts roots.
func secureClient(t testing.TB, addr string, roots *x509.CertPool, http2 bool) *http.Client {
	tr := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: http2,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, addr)
		},
	}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: patience}
}

// A certificate that arrives through the Admin API is served with the next handshake, over HTTP/1.1 and HTTP/2; other names get the
// one of the files.
func TestTLSListener(t *testing.T) {
	cert, key, roots := ownPair(t, "gate.test")
	otherCert, otherKey, otherRoots := ownPair(t, "other.test")
	up := newOrigin(t)
	c := onLoopback(t, conf.Default())
	dir := t.TempDir()
	c.Gateway.TLS.Listen = []string{"127.0.0.1:0"}
	c.Gateway.TLS.CertFile, c.Gateway.TLS.KeyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	writeFile(t, c.Gateway.TLS.CertFile, otherCert)
	writeFile(t, c.Gateway.TLS.KeyFile, otherKey)
	g := startGate(t, c)
	g.configure("PUT", "/routes/1", `{"uri":"/*","upstream":{"nodes":{"`+up+`":1}}}`)
	doc, _ := json.Marshal(map[string]string{"sni": "gate.test", "cert": cert, "key": key})
	g.configure("PUT", "/ssls/1", string(doc))

	addr := g.secure[0].Addr().String()
	for _, http2 := range []bool{false, true} {
		for host, pool := range map[string]*x509.CertPool{"gate.test": roots, "other.test": otherRoots} {
			res, err := secureClient(t, addr, pool, http2).Get("https://" + host + "/x")
			if err != nil {
				t.Fatalf("%s: %v", host, err)
			}
			got, _ := io.ReadAll(res.Body)
			_ = res.Body.Close()
			if res.StatusCode != 200 || string(got) != "origin" || (res.ProtoMajor == 2) != http2 || res.Header.Get("Server") != "Headgate" {
				t.Errorf("%s: %s %d %q", host, res.Proto, res.StatusCode, got)
			}
		}
	}
	if strings.Contains(g.logged.String(), "PRIVATE KEY") || strings.Contains(g.logged.String(), key[40:80]) {
		t.Errorf("the key is in the log:\n%s", g.logged)
	}
}

// newOrigin is an upstream that says who it is.
func newOrigin(t testing.TB) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "origin") })}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(l)
	}()
	t.Cleanup(func() {
		_ = s.Close()
		<-done
	})
	return l.Addr().String()
}

func TestTLSSettings(t *testing.T) {
	c := conf.Default()
	if p := httpsPort(c); p != 0 {
		t.Errorf("port %d without a listener", p)
	}
	c.Gateway.TLS.Listen = []string{"[::1]:9443", ":443"}
	if p := httpsPort(c); p != 9443 {
		t.Errorf("port %d", p)
	}
	o, err := certificateOptions(c)
	if err != nil || o.MinVersion != tls.VersionTLS12 || strings.Join(o.Protocols, " ") != "h2 http/1.1" || !o.Tickets || o.Default != nil {
		t.Errorf("%+v, %v", o, err)
	}
	c.Gateway.TLS.MinVersion, c.Gateway.TLS.HTTP2, c.Gateway.TLS.SessionTickets = conf.TLS13, false, false
	if o, _ = certificateOptions(c); o.MinVersion != tls.VersionTLS13 || strings.Join(o.Protocols, " ") != "http/1.1" || o.Tickets {
		t.Errorf("%+v", o)
	}
	dir := t.TempDir()
	c.Gateway.TLS.CertFile, c.Gateway.TLS.KeyFile = filepath.Join(dir, "none.pem"), filepath.Join(dir, "none.key")
	if problems := checkSettings(c); len(problems) != 1 || !strings.Contains(problems[0].Error(), tlsCertFile) {
		t.Errorf("%v", problems)
	}
	if _, err := os.Stat(c.Gateway.TLS.CertFile); err == nil {
		t.Error("it was made")
	}
}
