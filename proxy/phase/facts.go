package phase

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"math/rand/v2"
	"time"
)

// localTime is a moment as access logs write it. It is formatted once a second for each exchange of the pool, which costs a tenth
// of doing it for every request.
type localTime struct {
	second int64
	zone   *time.Location
	size   int
	text   [32]byte
}

func (l *localTime) at(t time.Time) []byte {
	if s := t.Unix(); s != l.second || l.zone != t.Location() || l.size == 0 {
		l.second, l.zone = s, t.Location()
		l.size = len(t.AppendFormat(l.text[:0], "02/Jan/2006:15:04:05 -0700"))
	}
	return l.text[:l.size]
}

// requestID is 16 random bytes, drawn when they are first asked for. It identifies a request in logs and is no secret.
type requestID struct {
	drawn       bool
	left, right uint64
}

// append appends the 32 hexadecimal digits.
func (r *requestID) append(dst []byte) []byte {
	if !r.drawn {
		*r = requestID{true, rand.Uint64(), rand.Uint64()}
	}
	var raw [16]byte
	for i := range 8 {
		raw[i], raw[8+i] = byte(r.left>>(8*i)), byte(r.right>>(8*i))
	}
	return hex.AppendEncode(dst, raw[:])
}

// maxBasic bounds the encoded credentials that are looked at, in bytes.
const maxBasic = 8 << 10

// appendRemoteUser appends the user name of basic authentication (RFC 7617 section 2), whether or not it was checked.
func (x *Exchange) appendRemoteUser(dst []byte) ([]byte, bool) {
	const scheme = "Basic "
	v, ok := x.Request.Header.Get("Authorization")
	if !ok || len(v) < len(scheme) || len(v) > maxBasic || !EqualName(v[:len(scheme)], scheme) {
		return dst, false
	}
	start := len(dst)
	dst, err := base64.StdEncoding.AppendDecode(dst, bytes.Trim(v[len(scheme):], " "))
	if err != nil {
		return dst[:start], false
	}
	colon := bytes.IndexByte(dst[start:], ':')
	if colon < 0 {
		return dst[:start], false
	}
	clear(dst[start+colon:]) // the password does not stay behind the end of a shared buffer
	return dst[:start+colon], true
}
