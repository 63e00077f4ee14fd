package proxy

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"headgate/proxy/snapshot"
)

// authority issues certificates.
type authority struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  string
	pool *x509.CertPool
}

var serials atomic.Int64

func newAuthority(t testing.TB) *authority {
	t.Helper()
	a := &authority{t: t, pool: x509.NewCertPool()}
	a.cert, a.key, a.pem = a.sign(&x509.Certificate{IsCA: true, BasicConstraintsValid: true, Subject: pkix.Name{CommonName: "authority"}})
	a.pool.AddCert(a.cert)
	return a
}

func (a *authority) sign(tpl *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey, string) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	tpl.SerialNumber = big.NewInt(serials.Add(1))
	tpl.NotBefore, tpl.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, by := tpl, key
	if a.cert != nil {
		parent, by = a.cert, a.key
	}
	der, err := x509.CreateCertificate(rand.Reader, tpl, parent, key.Public(), by)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert, key, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// ssl is a document with a new certificate for names, and whatever more says.
func (a *authority) ssl(names string, more ...string) string {
	a.t.Helper()
	_, key, cert := a.sign(&x509.Certificate{DNSNames: strings.Fields(names), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	doc, _ := json.Marshal(map[string]any{
		"cert": cert, "key": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw})), "snis": strings.Fields(names),
	})
	return strings.Join(append([]string{strings.TrimSuffix(string(doc), "}")}, more...), ",") + "}"
}

// client issues a certificate for a client.
func (a *authority) client() []tls.Certificate {
	cert, key, _ := a.sign(&x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	return []tls.Certificate{{Certificate: [][]byte{cert.Raw}, PrivateKey: key}}
}

// asks is the member client of a document.
func (a *authority) asks(more string) string {
	ca, _ := json.Marshal(a.pem)
	return `"client":{"ca":` + string(ca) + more + `}`
}

// secureRig is a gateway with a TLS listener.
type secureRig struct {
	*gateRig
	ca   *authority
	addr string
}

func newSecureGate(t testing.TB, o ServerOptions) *secureRig {
	t.Helper()
	r := &secureRig{gateRig: newGate(t, o), ca: newAuthority(t)}
	l, err := Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.addr = l.Addr().String()
	served := make(chan error, 1)
	go func() { served <- r.ServeTLS(l) }()
	t.Cleanup(func() {
		_ = l.Close()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return r
}

// put puts documents in force: key, document, key, document, ... "" deletes.
func (r *gateRig) put(pairs ...string) {
	r.t.Helper()
	var edits []snapshot.Edit
	for i := 0; i < len(pairs); i += 2 {
		e := snapshot.Edit{Key: pairs[i]}
		if pairs[i+1] != "" {
			e.Value = []byte(pairs[i+1])
		}
		edits = append(edits, e)
	}
	st, err := r.compiler.Stage(func(key string) []byte {
		if d, ok := r.docs[key]; ok {
			return []byte(d)
		}
		return nil
	}, edits, false)
	if err != nil {
		r.t.Fatal(err)
	}
	st.Commit(1)
	for i := 0; i < len(pairs); i += 2 {
		if r.docs[pairs[i]] = pairs[i+1]; pairs[i+1] == "" {
			delete(r.docs, pairs[i])
		}
	}
	r.compiler.Collect(func(f func()) { f() })
}

// config is a client's that asks for name.
func (r *secureRig) config(name string) *tls.Config {
	return &tls.Config{RootCAs: r.ca.pool, ServerName: name}
}

// open connects a client.
func (r *secureRig) open(t testing.TB, cfg *tls.Config) *client {
	t.Helper()
	c, err := r.try(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return &client{c, r.gateRig, t, bufio.NewReader(c)}
}

func (r *secureRig) try(cfg *tls.Config) (*tls.Conn, error) {
	c, err := tls.Dial("tcp", r.addr, cfg)
	if err != nil {
		return nil, err
	}
	return c, c.SetDeadline(time.Now().Add(patience))
}

// state is how the client's connection was made.
func (c *client) state() tls.ConnectionState { return c.Conn.(*tls.Conn).ConnectionState() }

// got is which certificate the gateway has shown.
func (c *client) got() *big.Int { return c.state().PeerCertificates[0].SerialNumber }

// sayTo asks for path of host.
func (c *client) sayTo(host, path string) *client {
	c.t.Helper()
	return c.say("GET " + path + " HTTP/1.1\r\nHost: " + host + "\r\n\r\n")
}
