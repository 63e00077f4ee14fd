package csrf

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"math/rand/v2"
	"strconv"
	"time"

	"headgate/proxy/phase"
	"headgate/proxy/phase/wire"
)

// signer makes and checks tokens: base64 of {"random":R,"expires":T,"sign":"S"}, where T is the second at which the token was made and S
// the SHA-256 of {expires:T,random:R,key:K} in hexadecimal. The key stands last, where nobody can lengthen the text.
type signer struct{ key []byte }

// maxToken bounds a token that is looked at, in bytes.
const maxToken = 1 << 10

type signature [2 * sha256.Size]byte

// sign returns the signature of a token. It works in the spare room of buf, which it returns, grown if need be and without the key.
func (s signer) sign(buf, expires, random []byte) ([]byte, signature) {
	start := len(buf)
	buf = append(append(buf, "{expires:"...), expires...)
	buf = append(append(buf, ",random:"...), random...)
	buf = append(append(append(buf, ",key:"...), s.key...), '}')
	sum := sha256.Sum256(buf[start:])
	clear(buf[start:])
	var out signature
	hex.Encode(out[:], sum[:])
	return buf[:start], out
}

// token makes a token in the memory of x. R has 14 digits of which neither the first nor the last is zero: whoever reads the number
// and writes it again comes to the same text.
func (s signer) token(x *phase.Exchange, now time.Time) []byte {
	digits := (1e12+rand.Uint64N(9e12))*10 + 1 + rand.Uint64N(9)
	var numbers [40]byte
	random := strconv.AppendUint(append(numbers[:0], "0."...), digits, 10)
	expires := strconv.AppendInt(random, now.Unix(), 10)[len(random):]

	b := x.Arena()
	start := len(b)
	b, sign := s.sign(b, expires, random)
	b = append(append(b, `{"random":`...), random...)
	b = append(append(b, `,"expires":`...), expires...)
	b = append(append(append(b, `,"sign":"`...), sign[:]...), `"}`...)
	end := len(b)
	b = base64.StdEncoding.AppendEncode(b, b[start:end])
	return x.Commit(b)[end-start:]
}

// valid says whether token was made with the key and, if lifetime is more than 0, at most so many seconds ago.
func (s signer) valid(x *phase.Exchange, token []byte, lifetime int64) bool {
	if len(token) > maxToken {
		return false
	}
	b, err := base64.StdEncoding.AppendDecode(x.Arena(), token)
	if err != nil {
		return false
	}
	random, expires, sign, ok := readToken(x.Commit(b))
	if !ok {
		return false
	}
	made, ok := wire.ParseLength(expires)
	if !ok || lifetime > 0 && x.Start.Unix()-made > lifetime {
		return false
	}
	b, want := s.sign(x.Arena(), expires, random)
	x.Commit(b)
	return subtle.ConstantTimeCompare(sign, want[:]) == 1
}

// readToken takes a token apart. Its members may come in any order; there is no white space, nothing is escaped, and no other members
// are known.
func readToken(b []byte) (random, expires, sign []byte, ok bool) {
	if len(b) < 2 || b[0] != '{' || b[len(b)-1] != '}' {
		return nil, nil, nil, false
	}
	for rest, more := b[1:len(b)-1], true; more; {
		var member []byte
		member, rest, more = bytes.Cut(rest, []byte(","))
		name, value, _ := bytes.Cut(member, []byte(":"))
		switch string(name) {
		case `"random"`:
			random = value
		case `"expires"`:
			expires = value
		case `"sign"`:
			if len(value) < 2 || value[0] != '"' || value[len(value)-1] != '"' {
				return nil, nil, nil, false
			}
			sign = value[1 : len(value)-1]
		default:
			return nil, nil, nil, false
		}
	}
	return random, expires, sign, isNumber(random) && len(expires) > 0 && len(sign) > 0
}

// isNumber keeps the text between the signed numbers from being moved into them.
func isNumber(b []byte) bool {
	for _, c := range b {
		if (c < '0' || c > '9') && c != '.' && c != '-' && c != '+' && c != 'e' {
			return false
		}
	}
	return len(b) > 0
}
