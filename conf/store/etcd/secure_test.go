package etcd

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"headgate/conf/store"
	"headgate/conf/store/etcd/etcdtest"
)

// authority signs certificates for a test.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir()}
	a.cert, a.key = a.make(&x509.Certificate{Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, nil)
	a.write("ca.pem", "CERTIFICATE", a.cert.Raw)
	return a
}

func (a *authority) make(template, parent *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	signer := a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert, key
}

func (a *authority) write(name, kind string, der []byte) string {
	a.t.Helper()
	path := filepath.Join(a.dir, name)
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		a.t.Fatal(err)
	}
	return path
}

// pair writes a certificate for 127.0.0.1 and name, and its key.
func (a *authority) pair(name string) (cert, key string) {
	a.t.Helper()
	c, k := a.make(&x509.Certificate{
		Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, a.cert)
	der, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		a.t.Fatal(err)
	}
	return a.write(name+".pem", "CERTIFICATE", c.Raw), a.write(name+".key", "PRIVATE KEY", der)
}

func (a *authority) ca() string { return filepath.Join(a.dir, "ca.pem") }

func TestTLS(t *testing.T) {
	ours, theirs := newAuthority(t, "ours"), newAuthority(t, "theirs")
	serverCert, serverKey := ours.pair("etcd.example")
	clientCert, clientKey := ours.pair("gateway")
	strangerCert, strangerKey := theirs.pair("stranger")
	pair, err := tls.LoadX509KeyPair(clientCert, clientKey)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(ours.cert)
	server := etcdtest.Start(t, etcdtest.Options{
		TLS:    &etcdtest.Files{Cert: serverCert, Key: serverKey, ClientCA: ours.ca()},
		Client: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}},
	})
	f := func(name string, o TLS, refused string) {
		t.Helper()
		s, err := Open(t.Context(), Options{Endpoints: []string{server.Endpoint()}, TLS: &o, StartupRetry: -1})
		if refused != "" {
			if !errors.Is(err, store.ErrUnavailable) || !strings.Contains(err.Error(), refused) {
				t.Errorf("%s: got %v, want ErrUnavailable and %q", name, err, refused)
			}
			return
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			return
		}
		defer s.Close()
		_, revision := mustList(t, s)
		events := mustWatch(t, s, revision)
		it := mustPut(t, s, "routes/1", "{}")
		if e := next(t, events); e.Item.ModRevision != it.ModRevision {
			t.Errorf("%s: got %+v", name, e)
		}
	}
	f("verified both ways", TLS{CA: ours.ca(), Cert: clientCert, Key: clientKey}, "")
	f("server name", TLS{CA: ours.ca(), Cert: clientCert, Key: clientKey, ServerName: "etcd.example"}, "")
	f("not verified", TLS{SkipVerify: true, Cert: clientCert, Key: clientKey}, "")
	f("another server name", TLS{CA: ours.ca(), Cert: clientCert, Key: clientKey, ServerName: "other.example"}, "not other.example")
	f("unknown authority", TLS{CA: theirs.ca(), Cert: clientCert, Key: clientKey}, "unknown authority")
	f("the system's authorities", TLS{Cert: clientCert, Key: clientKey}, "unknown authority")
	// etcd may hang up before its reason has arrived.
	f("no client certificate", TLS{CA: ours.ca()}, server.Endpoint())
	f("a stranger's client certificate", TLS{CA: ours.ca(), Cert: strangerCert, Key: strangerKey}, server.Endpoint())
}

func TestAuth(t *testing.T) {
	server := etcdtest.Start(t, etcdtest.Options{})
	server.EnableAuth("gateway", "right", "/apisix/")
	denied := func(name, user, password, prefix string) {
		t.Helper()
		o := Options{Endpoints: []string{server.Endpoint()}, User: user, Password: password, Prefix: prefix, StartupRetry: 1000}
		_, err := Open(t.Context(), o)
		if !errors.Is(err, store.ErrUnavailable) || strings.Contains(err.Error(), "wrong") {
			t.Errorf("%s: got %v, want ErrUnavailable without the password", name, err)
		}
	}
	denied("wrong password", "gateway", "wrong", "")
	denied("nobody", "", "", "")
	denied("somebody else's prefix", "gateway", "right", "/other")

	o := quick(server.Endpoint())
	o.User, o.Password = "gateway", "right"
	s := mustOpen(t, o)
	r := follow(t, s)
	it := mustPut(t, s, "routes/1", `{"n":1}`)
	if _, err := s.Put(t.Context(), "routes/1", []byte("{}"), it.ModRevision+1, time.Time{}); !errors.Is(err, store.ErrConflict) {
		t.Errorf("got %v, want ErrConflict", err)
	}
	r.converges(t, s)
	// A restart forgets the tokens that it gave out.
	server.Restart()
	eventually(t, "a write with a new token", func() bool {
		_, err := s.Put(t.Context(), "routes/2", []byte(`{"n":2}`), store.AnyRevision, time.Now().Add(time.Hour))
		return err == nil
	})
	r.converges(t, s)
}

// TestSeveralEndpoints: one that works is enough, whichever it is.
func TestSeveralEndpoints(t *testing.T) {
	server := etcdtest.Start(t, etcdtest.Options{})
	link := newRelay(t, server.Endpoint())
	o := quick(link.Endpoint())
	o.Endpoints = []string{"http://127.0.0.1:1", link.Endpoint(), server.Endpoint()}
	s := mustOpen(t, o)
	r := follow(t, s)
	mustPut(t, s, "routes/1", `{"n":1}`)
	link.Cut()
	eventually(t, "a write past the dead endpoints", func() bool {
		_, err := s.Put(t.Context(), "routes/2", []byte(`{"n":2}`), store.AnyRevision, time.Time{})
		return err == nil
	})
	r.converges(t, s)
}
