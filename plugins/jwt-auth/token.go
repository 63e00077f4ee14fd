package jwtauth

import (
	"bytes"
	"encoding/base64"
	"slices"

	"headgate/proxy/phase"
)

// maxToken bounds a token in bytes.
const maxToken = 16 << 10

// token is a signed token in the compact form (RFC 7515 section 7.1). Its bytes belong to the exchange.
type token struct {
	// signed is what the signature is about: the first two parts as they were sent.
	signed    []byte
	signature []byte
	algorithm []byte

	key, exp, nbf value
}

// parse reads text, in which keyClaim names the consumer, and says whether it is a token. The form is taken strictly, so that no two
// readers can see different tokens in one text: base64url without padding or spare bits, valid JSON in UTF-8, no member twice. A token
// with critical extensions, of which none is known here, is not one (RFC 7515 section 4.1.11).
func (t *token) parse(x *phase.Exchange, text []byte, keyClaim string) bool {
	if len(text) > maxToken {
		return false
	}
	header, rest, _ := bytes.Cut(text, []byte{'.'})
	payload, signature, ok := bytes.Cut(rest, []byte{'.'})
	if !ok {
		return false
	}
	t.signed = text[:len(header)+1+len(payload)]
	first, ok1 := decode(x, header)
	second, ok2 := decode(x, payload)
	third, ok3 := decode(x, signature)
	if !ok1 || !ok2 || !ok3 {
		return false
	}
	t.signature = third

	head := [...]field{{name: "alg"}, {name: "crit"}}
	if !scan(first, head[:]) || head[0].kind != isString || head[1].kind != isAbsent {
		return false
	}
	t.algorithm = head[0].text
	claims := [...]field{{name: keyClaim}, {name: "exp"}, {name: "nbf"}}
	if !scan(second, claims[:]) {
		return false
	}
	t.key, t.exp, t.nbf = claims[0].value, claims[1].value, claims[2].value
	return true
}

// encoding refuses bits that are left over, so that every text has one form.
var encoding = base64.RawURLEncoding.Strict()

// decode returns the bytes that part, in base64url, stands for.
func decode(x *phase.Exchange, part []byte) ([]byte, bool) {
	for _, c := range part { // package base64 passes over line ends
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_') {
			return nil, false
		}
	}
	buf := slices.Grow(x.Arena(), encoding.DecodedLen(len(part)))
	start := len(buf)
	n, err := encoding.Decode(buf[start:cap(buf)], part)
	if err != nil {
		return nil, false
	}
	return x.Commit(buf[:start+n]), true
}
