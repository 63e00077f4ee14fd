package resource

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"
)

func newPair(t *testing.T) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	rawKey, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: rawKey}))
}

func TestUpstreamClientCertificate(t *testing.T) {
	cert, key := newPair(t)
	_, otherKey := newPair(t)
	notACert := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: make([]byte, 128)}))
	for _, c := range []struct{ cert, key, want string }{
		{cert, key, ""},
		{cert, otherKey, "failed to parse key: "},
		{cert, strings.Repeat("s", 64), "failed to decrypt previous encrypted key"},
		{notACert, key, "failed to parse cert: "},
	} {
		doc := object(t, `{`+nodes+`}`)
		doc["tls"] = map[string]any{"client_cert": c.cert, "client_key": c.key}
		err := ValidateUpstream(doc)
		switch {
		case c.want == "" && err != nil:
			t.Error(err)
		case c.want != "" && (err == nil || !strings.HasPrefix(err.Msg, c.want)):
			t.Errorf("got %v, want %s", err, c.want)
		case err != nil && strings.Contains(err.Msg, c.key[:32]):
			t.Errorf("the refusal shows the key: %s", err.Msg)
		}
	}
}
