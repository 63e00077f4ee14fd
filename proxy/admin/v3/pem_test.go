package v3

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/valyala/fasthttp"

	"headgate/conf/seal"
	"headgate/proxy/admin/control"
)

type pair struct{ cert, key string }

func newPair(name string) pair {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<33, 0), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		panic(err)
	}
	return pair{
		string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})),
	}
}

// pairs are two certificates with their keys, made once.
var pairs = sync.OnceValue(func() [2]pair { return [2]pair{newPair("gold.test"), newPair("other.test")} })

// testSealer seals what the contract's gateway seals by default, with its default keyring.
func testSealer(t testing.TB) *seal.Sealer {
	t.Helper()
	s, err := seal.New([]string{"qeddd145sfvddff3", "edd1c9f0985e76a2"}, func(plugin string) (route, consumer []string) {
		switch plugin {
		case "key-auth":
			return []string{}, []string{"key"}
		case "basic-auth":
			return []string{}, []string{"password"}
		case "jwt-auth":
			return []string{}, []string{"secret"}
		case "hmac-auth":
			return []string{}, []string{"secret_key"}
		}
		return nil, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// control asks the control API of the same plane.
func (h *harness) control(method, target string) answer {
	var req fasthttp.Request
	req.Header.SetMethod(method)
	req.SetRequestURI(target)
	req.Header.SetHost("127.0.0.1:9090")
	ctx := new(fasthttp.RequestCtx)
	ctx.Init(&req, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}, nil)
	control.Handler(control.Options{Plane: h.plane, Plugins: standInPlugins{}})(ctx)
	a := answer{status: ctx.Response.StatusCode(), body: string(ctx.Response.Body()), header: map[string][]string{}}
	for name, value := range ctx.Response.Header.All() {
		a.header[string(name)] = append(a.header[string(name)], string(value))
	}
	return a
}
