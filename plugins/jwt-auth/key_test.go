package jwtauth

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"headgate/proxy/phase"
	"headgate/proxy/phase/phasetest"
)

// pair is a private key and the consumer that has its other half.
type pair struct {
	method   jwt.SigningMethod
	private  any
	consumer string
	// allocations is what one verification takes inside package crypto.
	allocations float64
}

func pemOf(t testing.TB, public crypto.PublicKey) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

func consumerOf(t testing.TB, algorithm, public string) string {
	t.Helper()
	conf, err := json.Marshal(map[string]string{"key": "mk", "algorithm": algorithm, "public_key": public})
	if err != nil {
		t.Fatal(err)
	}
	return string(conf)
}

// rsaKey is generated once, which takes long enough.
var rsaKey = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, minRSA) })

func pairs(t testing.TB) []pair {
	t.Helper()
	var list []pair
	add := func(allocations float64, private crypto.Signer, methods ...jwt.SigningMethod) {
		public := pemOf(t, private.Public())
		for _, m := range methods {
			list = append(list, pair{m, private, consumerOf(t, m.Alg(), public), allocations})
		}
	}
	generated := func(k crypto.Signer, err error) crypto.Signer {
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	r := generated(rsaKey())
	add(allocationsRSA, r, jwt.SigningMethodRS256, jwt.SigningMethodRS384, jwt.SigningMethodRS512)
	add(allocationsPSS, r, jwt.SigningMethodPS256, jwt.SigningMethodPS384, jwt.SigningMethodPS512)
	add(allocationsP256, generated(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)), jwt.SigningMethodES256)
	add(allocationsP384, generated(ecdsa.GenerateKey(elliptic.P384(), rand.Reader)), jwt.SigningMethodES384)
	add(allocationsP521, generated(ecdsa.GenerateKey(elliptic.P521(), rand.Reader)), jwt.SigningMethodES512)
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	add(0, generated(ed, err), jwt.SigningMethodEdDSA)
	for _, m := range []jwt.SigningMethod{jwt.SigningMethodHS256, jwt.SigningMethodHS384, jwt.SigningMethodHS512} {
		list = append(list, pair{m, []byte(secret), `{"key":"mk","algorithm":"` + m.Alg() + `","secret":"` + secret + `"}`, 0})
	}
	return list
}

// What another implementation signs is let in by its own key, and only with the algorithm of that key. A public key is no HMAC secret.
func TestAlgorithms(t *testing.T) {
	all := pairs(t)
	tokens := make([]string, len(all))
	for i, p := range all {
		tokens[i] = raw(t, p.method, p.private, `{"alg":"`+p.method.Alg()+`"}`, `{"key":"mk"}`)
	}
	for _, own := range all {
		e := newEnv(t, own.consumer)
		for i, other := range all {
			want := refusal("failed to verify jwt")
			if own.method == other.method {
				want = "?\nX-Consumer-Username: more"
			}
			if got := seen(t, e, `{"hide_credentials":true}`, "GET /a", "Authorization: "+tokens[i]); got != want {
				t.Errorf("a token of %s for a key of %s: %s", other.method.Alg(), own.method.Alg(), got)
			}
			if own.method == other.method || strings.HasSuffix(other.method.Alg(), "384") {
				continue
			}
			lie := raw(t, other.method, other.private, `{"alg":"`+own.method.Alg()+`"}`, `{"key":"mk"}`)
			if got := seen(t, e, `{}`, "GET /a", "Authorization: "+lie); got != refusal("failed to verify jwt") {
				t.Errorf("a token of %s that claims to be of %s was let in", other.method.Alg(), own.method.Alg())
			}
		}
		var c struct {
			PublicKey string `json:"public_key"`
		}
		if err := json.Unmarshal([]byte(own.consumer), &c); err != nil {
			t.Fatal(err)
		}
		forged := raw(t, jwt.SigningMethodHS256, []byte(c.PublicKey), `{"alg":"HS256"}`, `{"key":"mk"}`)
		if got := seen(t, e, `{}`, "GET /a", "Authorization: "+forged); strings.HasPrefix(got, "?") {
			t.Errorf("the public key of %s was taken for a secret", own.method.Alg())
		}
	}
}

// Halves with leading zeros, and halves that need a zero in front, are written as numbers.
func TestECDSASignatures(t *testing.T) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	data, err := Kind().Consumer.Build([]byte(consumerOf(t, "ES256", pemOf(t, private.Public()))))
	if err != nil {
		t.Fatal(err)
	}
	k, st := data.(*key), &state{}
	st.hash = k.hash.New()
	for i := range 600 { // one in 128 has a leading zero
		text := []byte{byte(i), byte(i >> 8)}
		signature, err := jwt.SigningMethodES256.Sign(string(text), private)
		if err != nil {
			t.Fatal(err)
		}
		if !k.verifyECDSA(st, &token{signed: text, signature: signature}) {
			t.Fatalf("%x was refused", signature)
		}
		signature[i%64] ^= 1
		if k.verifyECDSA(st, &token{signed: text, signature: signature}) {
			t.Fatalf("%x was let in", signature)
		}
	}
	for _, signature := range [][]byte{nil, make([]byte, 64), make([]byte, 63), make([]byte, 65)} {
		if k.verifyECDSA(st, &token{signature: signature}) {
			t.Errorf("%x was let in", signature)
		}
	}
}

// What one verification takes inside package crypto, which has no call that works in the caller's memory.
const (
	allocationsRSA  = 9
	allocationsPSS  = 13
	allocationsP256 = 10
	allocationsP384 = 17
	allocationsP521 = 17
)

func TestAllocations(t *testing.T) {
	for _, own := range pairs(t) {
		e := newEnv(t, own.consumer)
		p := e.Build(t, Kind(), `{"hide_credentials":true}`).(phase.Rewriter)
		token := raw(t, own.method, own.private, `{"alg":"`+own.method.Alg()+`"}`, `{"key":"mk","exp":1773129601,"\u0061":[1,{"b":2}]}`)
		for _, from := range []*phase.Exchange{
			phasetest.Exchange("GET /a", "Authorization: Bearer "+token),
			phasetest.Exchange("GET /a?a=1&jwt=" + token),
			phasetest.Exchange("GET /a", "Cookie: a=1; jwt="+token),
		} {
			x := &phase.Exchange{}
			n := testing.AllocsPerRun(20, func() {
				phasetest.Refill(x, from, e)
				x.Start = time.Unix(now, 0)
				if p.Rewrite(x) != phase.Continue {
					t.Fatal("refused")
				}
			})
			if n != own.allocations && !raceEnabled {
				t.Errorf("%s: %v allocations, want %v", own.method.Alg(), n, own.allocations)
			}
		}
	}
}
