package basicauth

import (
	"bytes"
	"encoding/base64"
	"slices"

	"headgate/proxy/phase"
)

const (
	scheme = "Basic"
	// maxEncoded bounds the credentials of one request in bytes; RFC 7617 knows no bound.
	maxEncoded = 8 << 10
)

// appendCredentials appends the "username:password" of an Authorization value to dst and says whether there is one. The scheme may be
// written in any case (RFC 9110 section 11.1), the padding of the base64 text may be left out, and nothing may stand in or behind it.
func appendCredentials(dst, value []byte) ([]byte, bool) {
	if len(value) <= len(scheme) || !phase.EqualName(value[:len(scheme)], scheme) || value[len(scheme)] != ' ' {
		return dst, false
	}
	text := bytes.TrimLeft(value[len(scheme):], " ")
	if len(text) > maxEncoded || bytes.ContainsAny(text, "\r\n") { // line ends are passed over by package base64
		return dst, false
	}
	encoding := base64.RawStdEncoding
	if bytes.HasSuffix(text, []byte{'='}) {
		encoding = base64.StdEncoding
	}
	start := len(dst)
	dst = slices.Grow(dst, encoding.DecodedLen(len(text)))
	n, err := encoding.Decode(dst[start:cap(dst)], text)
	if err != nil || n == 0 {
		return dst[:start], false
	}
	return dst[:start+n], true
}
