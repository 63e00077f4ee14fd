package jwtauth

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rsa"
	_ "crypto/sha256" // the hashes of all algorithms
	_ "crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"sync"

	"github.com/golang-jwt/jwt/v5"

	"headgate/conf/schema"
)

// family is a kind of algorithm.
type family uint8

const (
	familyHMAC family = iota
	familyRSA
	familyPSS
	familyECDSA
	familyEdDSA
)

// key is what the tokens of one consumer are verified with. It is safe for concurrent use.
type key struct {
	algorithm string
	family    family
	// grace is by how many seconds exp and nbf may be off.
	grace float64

	hash   crypto.Hash
	states sync.Pool // of *state
	rsa    *rsa.PublicKey
	pss    rsa.PSSOptions
	ecdsa  *ecdsa.PublicKey
	// size is that of one half of an ECDSA signature, in bytes.
	size    int
	ed25519 ed25519.PublicKey
}

// state is the memory of one verification.
type state struct {
	hash hash.Hash // keyed, for the HS algorithms; nil for EdDSA
	sum  [64]byte
	der  [160]byte
}

// verify says whether the token is signed with k. What the token says of the algorithm must be the key's own (RFC 8725 section 3.1).
//
// It allocates nothing for the HS algorithms and EdDSA. What RSA and ECDSA allocate, they allocate inside package crypto.
func (k *key) verify(t *token) bool {
	if string(t.algorithm) != k.algorithm {
		return false
	}
	st := k.states.Get().(*state)
	ok := false
	switch k.family {
	case familyHMAC:
		ok = hmac.Equal(st.digest(t), t.signature)
	case familyRSA:
		ok = rsa.VerifyPKCS1v15(k.rsa, k.hash, st.digest(t), t.signature) == nil
	case familyPSS:
		ok = rsa.VerifyPSS(k.rsa, k.hash, st.digest(t), t.signature, &k.pss) == nil
	case familyECDSA:
		ok = k.verifyECDSA(st, t)
	case familyEdDSA:
		ok = ed25519.Verify(k.ed25519, t.signed, t.signature)
	}
	k.states.Put(st)
	return ok
}

// digest returns the hash of what was signed.
func (st *state) digest(t *token) []byte {
	st.hash.Reset()
	st.hash.Write(t.signed)
	return st.hash.Sum(st.sum[:0])
}

// verifyECDSA brings the two halves of the signature (RFC 7518 section 3.4) into the form that package ecdsa reads.
func (k *key) verifyECDSA(st *state, t *token) bool {
	if len(t.signature) != 2*k.size {
		return false
	}
	const header = 3 // tag and length of the sequence, the length in one byte or two
	der := appendInteger(st.der[:header], t.signature[:k.size])
	der = appendInteger(der, t.signature[k.size:])
	const sequence, long = 0x30, 0x80
	n := len(der) - header
	if n < long {
		der = der[1:]
	} else {
		der[1] = long | 1
	}
	der[0], der[len(der)-n-1] = sequence, byte(n)
	return ecdsa.VerifyASN1(k.ecdsa, st.digest(t), der)
}

// appendInteger appends a number of at most 127 bytes as ASN.1 DER.
func appendInteger(dst, number []byte) []byte {
	for len(number) > 1 && number[0] == 0 {
		number = number[1:]
	}
	sign := int(number[0] >> 7) // a zero in front keeps the number positive
	dst = append(dst, 0x02, byte(len(number)+sign))
	if sign > 0 {
		dst = append(dst, 0)
	}
	return append(dst, number...)
}

var (
	errNoSecret = errors.New(`property "secret" is required when using HS based algorithms`)
	errBase64   = errors.New("base64_secret required but the secret is not in base64 format")
	errNoKey    = errors.New(`property "public_key" is required`)
	// What names a secret must have been replaced by it: taken literally it would be a key that can be guessed.
	errReference = errors.New("key, secret, public_key: the secret that one of them names is not known")
)

// minRSA is the least size of an RSA key in bits (RFC 7518 section 3.3).
const minRSA = 2048

// validateConsumer checks what the schema cannot say. What a reference stands for is not known yet.
func validateConsumer(conf []byte) error {
	_, err := readKey(conf, true)
	return err
}

func buildConsumer(conf []byte) (any, error) { return readKey(conf, false) }

// readKey reads conf, which satisfies the schema. With references allowed the key is nil where one is in the way.
func readKey(conf []byte, references bool) (*key, error) {
	v, err := schema.DecodeJSON(conf)
	if err != nil {
		return nil, err
	}
	doc, _ := v.(map[string]any)
	k := &key{algorithm: schema.Member(doc, "algorithm", jwt.SigningMethodHS256.Name)}
	k.grace, _ = schema.Member(doc, "lifetime_grace_period", json.Number("0")).Float64()
	secret, public := schema.Member(doc, "secret", ""), schema.Member(doc, "public_key", "")
	method := jwt.GetSigningMethod(k.algorithm)
	_, symmetric := method.(*jwt.SigningMethodHMAC)
	switch {
	case symmetric && secret == "":
		return nil, errNoSecret
	case !symmetric && public == "":
		return nil, errNoKey
	case schema.IsReference(schema.Member(doc, "key", "")), symmetric && schema.IsReference(secret),
		!symmetric && schema.IsReference(public):
		if references {
			return nil, nil
		}
		return nil, errReference
	}
	if symmetric {
		return k, k.useSecret(method.(*jwt.SigningMethodHMAC), secret, schema.Member(doc, "base64_secret", false))
	}
	if err := k.usePublic(method, []byte(public)); err != nil {
		return nil, fmt.Errorf("public_key: %w", err)
	}
	return k, nil
}

func (k *key) useSecret(m *jwt.SigningMethodHMAC, text string, encoded bool) error {
	secret := []byte(text)
	if encoded {
		encoding := base64.StdEncoding
		if len(text)%4 != 0 {
			encoding = base64.RawStdEncoding
		}
		var err error
		if secret, err = encoding.DecodeString(text); err != nil || len(secret) == 0 {
			return errBase64
		}
	}
	k.family = familyHMAC
	k.states.New = func() any { return &state{hash: hmac.New(m.Hash.New, secret)} }
	return nil
}

// usePublic reads a key in PEM: a public key or a certificate.
func (k *key) usePublic(method jwt.SigningMethod, pem []byte) (err error) {
	switch m := method.(type) {
	case *jwt.SigningMethodRSAPSS:
		k.family, k.hash = familyPSS, m.Hash
		k.pss.SaltLength = rsa.PSSSaltLengthEqualsHash // RFC 7518 section 3.5
		k.rsa, err = parseRSA(pem)
	case *jwt.SigningMethodRSA:
		k.family, k.hash = familyRSA, m.Hash
		k.rsa, err = parseRSA(pem)
	case *jwt.SigningMethodECDSA:
		k.family, k.hash, k.size = familyECDSA, m.Hash, m.KeySize
		if k.ecdsa, err = jwt.ParseECPublicKeyFromPEM(pem); err == nil && k.ecdsa.Curve.Params().BitSize != m.CurveBits {
			err = fmt.Errorf("%s wants a curve of %d bits, this has %d", k.algorithm, m.CurveBits, k.ecdsa.Curve.Params().BitSize)
		}
	case *jwt.SigningMethodEd25519:
		k.family = familyEdDSA
		var public crypto.PublicKey
		if public, err = jwt.ParseEdPublicKeyFromPEM(pem); err == nil {
			k.ed25519 = public.(ed25519.PublicKey)
		}
	default:
		err = fmt.Errorf("algorithm %s is not known", k.algorithm)
	}
	h := k.hash
	k.states.New = func() any {
		st := &state{}
		if h != 0 {
			st.hash = h.New()
		}
		return st
	}
	return err
}

func parseRSA(pem []byte) (*rsa.PublicKey, error) {
	public, err := jwt.ParseRSAPublicKeyFromPEM(pem)
	if err == nil && public.N.BitLen() < minRSA {
		err = fmt.Errorf("an RSA key of %d bits is too small, expected at least %d", public.N.BitLen(), minRSA)
	}
	return public, err
}
