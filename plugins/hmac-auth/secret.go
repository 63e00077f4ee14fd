package hmacauth

import (
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"hash"
	"sync"

	"headgate/conf/schema"
)

// algorithm is a way to sign.
type algorithm uint8

const (
	hmacSHA1 algorithm = iota
	hmacSHA256
	hmacSHA512
	algorithms
)

func algorithmOf(name []byte) (algorithm, bool) {
	switch string(name) {
	case "hmac-sha1":
		return hmacSHA1, true
	case "hmac-sha256":
		return hmacSHA256, true
	case "hmac-sha512":
		return hmacSHA512, true
	}
	return 0, false
}

func (a algorithm) hash() func() hash.Hash {
	switch a {
	case hmacSHA1:
		return sha1.New
	case hmacSHA256:
		return sha256.New
	}
	return sha512.New
}

// secret is the key of one consumer, with keyed hash states at rest. It is safe for concurrent use.
type secret struct {
	states [algorithms]sync.Pool // of *state
}

type state struct {
	mac hash.Hash
	sum [sha512.Size]byte
}

func newSecret(key []byte) *secret {
	s := &secret{}
	for a := range algorithms {
		s.states[a].New = func() any { return &state{mac: hmac.New(a.hash(), key)} }
	}
	return s
}

// signed says, in a time that does not depend on the key, whether mac is text's.
func (s *secret) signed(a algorithm, text, mac []byte) bool {
	st := s.states[a].Get().(*state)
	st.mac.Reset()
	st.mac.Write(text)
	ok := hmac.Equal(st.mac.Sum(st.sum[:0]), mac)
	s.states[a].Put(st)
	return ok
}

// What names a secret must have been replaced by it: taken literally it would be a key that can be guessed.
var errReference = errors.New("key_id, secret_key: the secret that one of them names is not known")

func buildConsumer(conf []byte) (any, error) {
	v, err := schema.DecodeJSON(conf)
	if err != nil {
		return nil, err
	}
	doc, _ := v.(map[string]any)
	key := schema.Member(doc, "secret_key", "")
	if schema.IsReference(key) || schema.IsReference(schema.Member(doc, "key_id", "")) {
		return nil, errReference
	}
	return newSecret([]byte(key)), nil
}
