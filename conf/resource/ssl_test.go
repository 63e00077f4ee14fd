package resource

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"
)

// newRSAPair returns a certificate and its key in PKCS #1.
func newRSAPair(t *testing.T) (cert, key string) {
	t.Helper()
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "rsa"}, NotAfter: time.Unix(1<<32, 0)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(private)}))
}

func TestValidateSSL(t *testing.T) {
	cert, key := newPair(t)
	cert2, key2 := newPair(t)
	rsaCert, rsaKey := newRSAPair(t)
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	sec1, err := x509.MarshalECPrivateKey(ec)
	if err != nil {
		t.Fatal(err)
	}
	ecKey := string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: sec1}))
	withParameters := string(pem.EncodeToMemory(&pem.Block{Type: "EC PARAMETERS", Bytes: []byte{6, 8}})) + ecKey
	broken := string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte(strings.Repeat("secret", 20))}))
	locked := string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Headers: map[string]string{"Proc-Type": "4,ENCRYPTED"}, Bytes: make([]byte, 64)}))
	text := strings.Repeat("x", 128)
	const mismatch = "failed to parse key: the key does not belong to the certificate"
	type doc = map[string]any
	for _, c := range []struct {
		name string
		doc  doc
		want string // refusal
		lax  string // refusal with ssl_key_mismatch; "=": the same
	}{
		{"pair", doc{"sni": "a.com", "cert": cert, "key": key}, "", "="},
		{"chain", doc{"sni": "a.com", "cert": cert + cert2, "key": "\n" + key}, "", "="},
		{"PKCS #1", doc{"snis": []any{"a.com", "*.b.com"}, "cert": rsaCert, "key": rsaKey}, "", "="},
		{"other key", doc{"sni": "a.com", "cert": cert, "key": key2}, mismatch, ""},
		{"other sort of key", doc{"sni": "a.com", "cert": rsaCert, "key": ecKey}, mismatch, ""},
		{"SEC 1", doc{"sni": "a.com", "cert": cert, "key": withParameters}, mismatch, ""},
		{"no key", doc{"sni": "a.com", "cert": cert, "key": text}, "failed to decrypt previous encrypted key", "="},
		{"key without PEM", doc{"sni": "a.com", "cert": cert, "key": "---" + text}, "failed to parse key: no PEM private key found", "="},
		{"broken key", doc{"sni": "a.com", "cert": cert, "key": broken}, "failed to parse key: not a private key in PKCS #8, PKCS #1 or SEC 1", "="},
		{"locked key", doc{"sni": "a.com", "cert": cert, "key": locked}, "failed to parse key: the key is protected by a passphrase", "="},
		{"no cert", doc{"sni": "a.com", "cert": text, "key": key}, "failed to parse cert: PEM_read_bio_X509_AUX() failed", "="},
		{"key as cert", doc{"sni": "a.com", "cert": key, "key": key}, "failed to parse cert: PEM_read_bio_X509_AUX() failed", "="},
		{"references", doc{"sni": "a.com", "cert": "$secret://vault/1/cert", "key": "$ENV://KEY"}, "", "="},
		{"reference and cert", doc{"sni": "a.com", "cert": cert, "key": "$env://KEY"}, "", "="},
		{"reference and text", doc{"sni": "a.com", "cert": text, "key": "$env://KEY"}, "failed to parse cert: PEM_read_bio_X509_AUX() failed", "="},
		{"reference as name", doc{"sni": "$env://NAME", "cert": cert, "key": key}, "invalid configuration: sni: a reference can't be a server name", "="},
		{"two pairs", doc{"sni": "a.com", "cert": cert, "key": key, "certs": []any{rsaCert}, "keys": []any{rsaKey}}, "", "="},
		{"second mismatch", doc{"sni": "a.com", "cert": cert, "key": key, "certs": []any{cert, cert2}, "keys": []any{key, key}},
			"failed to handle cert-key pair[2]: " + mismatch, ""},
		{"counts", doc{"sni": "a.com", "cert": cert, "key": key, "certs": []any{cert2}}, "mismatched number of certs and keys", "="},
		{"client", doc{"type": "client", "cert": cert, "key": key}, "", "="},
		{"client without key", doc{"type": "client", "cert": cert}, "invalid configuration: else clause did not match", "="},
		{"mtls", doc{"sni": "a.com", "cert": cert, "key": key, "client": doc{"ca": cert2 + rsaCert}}, "", "="},
		{"mtls without ca", doc{"sni": "a.com", "cert": cert, "key": key, "client": doc{"ca": text}},
			"failed to validate client_cert: failed to parse cert: PEM_read_bio_X509_AUX() failed", "="},
	} {
		if c.lax == "=" {
			c.lax = c.want
		}
		for lenient, want := range map[bool]string{false: c.want, true: c.lax} {
			got := ""
			if err := Validate(kind(t, "ssls"), "1", c.doc, fakeEnv{lenient: lenient}); err != nil {
				got = err.Msg
			}
			if got != want {
				t.Errorf("%s, lenient %v:\n got  %s\n want %s", c.name, lenient, got, want)
			}
			if strings.Contains(got, "secret") {
				t.Errorf("%s: the refusal shows the key: %s", c.name, got)
			}
		}
	}
}

func TestDecodeSSL(t *testing.T) {
	s, err := DecodeSSL([]byte(`{"id":1,"snis":["a","*.b"],"cert":"c","key":"k","certs":["c2"],"keys":["k2"],"client":{"ca":"x",
		"skip_mtls_uri_regex":["/h.*"]},"ssl_protocols":["TLSv1.3"]}`))
	if err != nil {
		t.Fatal(err)
	}
	if s.ID != "1" || s.Type != "server" || s.Status != 1 || len(s.SNIs) != 2 || len(s.Pairs) != 2 || s.Pairs[1] != (KeyPair{"c2", "k2"}) ||
		s.Client.Depth != 1 || s.Client.SkipURIs[0] != "/h.*" || s.Protocols[0] != "TLSv1.3" {
		t.Errorf("%+v", s)
	}
	for raw, want := range map[string]string{
		`{"certs":["c"]}`:               "keys: expected as many as certs",
		`{"client":{"depth":"1"}}`:      "client.depth: expected an integer of at most 53 bits",
		`{"status":true}`:               "status: expected an integer of at most 53 bits",
		`{"cert":1}`:                    "cert: expected a string",
		`{"ssl_protocols":"TLSv1.2"}`:   "ssl_protocols: expected an array",
		`{"client":"ca","sni":["a"]}`:   "sni: expected a string",
		`[1]`:                           "the document is not an object",
		`{"type":"client","snis":[""],`: "unexpected end of the document",
	} {
		if _, err := DecodeSSL([]byte(raw)); err == nil || err.Error() != want {
			t.Errorf("%s: %v", raw, err)
		}
	}
}
