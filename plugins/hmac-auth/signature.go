package hmacauth

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"net/http"
	"strconv"
	"time"
	"unsafe"

	"headgate/proxy/phase"
	"headgate/proxy/vars"
)

// signature is the content of an Authorization line. Its bytes belong to the line.
type signature struct {
	keyID, algorithm, headers, mac []byte
}

// parse reads parameters, name="value" with commas between them, and says whether they are complete. Unknown ones are passed over; one
// that comes twice, or in part, leaves open what was signed.
func (s *signature) parse(text []byte) bool {
	if len(text) == 0 || text[0] != ' ' && text[0] != '\t' {
		return false
	}
	for {
		text = bytes.TrimLeft(text, " \t,")
		if len(text) == 0 {
			return len(s.keyID) > 0 && len(s.algorithm) > 0 && len(s.mac) > 0
		}
		equals := bytes.IndexByte(text, '=')
		if equals <= 0 {
			return false
		}
		name := text[:equals]
		text = text[equals+1:]
		var field *[]byte
		switch string(name) {
		case "keyId":
			field = &s.keyID
		case "algorithm":
			field = &s.algorithm
		case "headers":
			field = &s.headers
		case "signature":
			field = &s.mac
		}
		value, rest, ok := cutValue(text)
		if !ok || field != nil && *field != nil {
			return false
		}
		if field != nil {
			*field = value
		}
		text = rest
	}
}

// cutValue cuts a value in quotes, or a bare one, off text. What follows it, if anything, is a comma.
func cutValue(text []byte) (value, rest []byte, ok bool) {
	if len(text) == 0 || text[0] != '"' {
		value, rest, _ = bytes.Cut(text, []byte{','})
		value = bytes.TrimRight(value, " \t")
		return value, rest, len(value) > 0 && !bytes.ContainsAny(value, "\" \t")
	}
	end := bytes.IndexByte(text[1:], '"')
	if end < 0 {
		return nil, nil, false
	}
	value, rest = text[1:1+end:1+end], bytes.TrimLeft(text[end+2:], " \t")
	return value, rest, len(rest) == 0 || rest[0] == ','
}

// lists says whether name is among the signed lines.
func (s *signature) lists(name string) bool {
	for rest := s.headers; len(rest) > 0; {
		var listed []byte
		listed, rest, _ = bytes.Cut(rest, []byte{' '})
		if phase.EqualName(listed, name) {
			return true
		}
	}
	return false
}

const requestTarget = "@request-target"

// verify returns the credential that the request is signed with, nil when it is not signed as it must be.
func (p *plugin) verify(x *phase.Exchange, s *signature) *phase.Credential {
	a, ok := algorithmOf(s.algorithm)
	if !ok || !p.AllowedAlgorithms[a] || !p.recent(x) {
		return nil
	}
	for _, name := range p.SignedHeaders {
		if !s.lists(name) {
			return nil
		}
		if name == requestTarget {
			continue
		}
		if _, lines := line(x, []byte(name)); lines != 1 {
			return nil
		}
	}
	text, ok := s.appendText(x.Arena(), x)
	if !ok {
		return nil
	}
	text = x.Commit(text)
	var mac [sha512.Size + 3]byte
	n, ok := decodeMAC(&mac, s.mac)
	c := p.directory.Credential(x, s.keyID)
	key := p.nobody
	if c != nil {
		key, _ = c.Data.(*secret)
	}
	if !key.signed(a, text, mac[:n]) || !ok {
		return nil
	}
	return c
}

// recent says whether the Date line is at most the clock skew off.
func (p *plugin) recent(x *phase.Exchange) bool {
	value, lines := line(x, []byte("Date"))
	if lines != 1 {
		return false
	}
	at, ok := parseDate(value)
	if !ok {
		return false
	}
	off := x.Start.Unix() - at.Unix()
	return max(off, -off) <= p.ClockSkew
}

// parseDate reads the three forms of RFC 9110 section 5.6.7. Only the first, which is the only one that may be sent, is free of
// allocations.
func parseDate(value []byte) (time.Time, bool) {
	s := unsafe.String(unsafe.SliceData(value), len(value)) // read only, and only during this call
	for _, layout := range [...]string{http.TimeFormat, "Monday, 02-Jan-06 15:04:05 GMT", time.ANSIC} {
		if t, err := time.Parse(layout, s); err == nil {
			return t, true
		}
	}
	return time.Time{}, false
}

// appendText appends what the client has signed: the key's id and then, in the order that the client gives, the target and the lines,
// each with a newline behind it. Lines that the request does not have count for nothing; of those that it has several times it is not
// known which one the upstream will take, so ok is false.
func (s *signature) appendText(dst []byte, x *phase.Exchange) (text []byte, ok bool) {
	dst = append(append(dst, s.keyID...), '\n')
	for rest := s.headers; len(rest) > 0; {
		var name []byte
		name, rest, _ = bytes.Cut(rest, []byte{' '})
		if string(name) == requestTarget {
			dst = append(append(dst, x.Request.Method...), ' ')
			dst, _ = x.Var(vars.RequestURI, dst)
			dst = append(dst, '\n')
			continue
		}
		if phase.EqualName(name, "Content-Length") && x.Request.BodySize() > 0 { // framing is no part of Header
			dst = append(append(dst, name...), ": "...)
			dst = append(strconv.AppendInt(dst, x.Request.BodySize(), 10), '\n')
			continue
		}
		value, lines := line(x, name)
		if lines > 1 {
			return dst, false
		}
		if lines == 1 {
			dst = append(append(append(dst, name...), ": "...), value...)
			dst = append(dst, '\n')
		}
	}
	return dst, true
}

// line returns the value of the first line called name and how many there are.
func line(x *phase.Exchange, name []byte) (value []byte, lines int) {
	n := unsafe.String(unsafe.SliceData(name), len(name)) // read only, and only during this call
	if phase.EqualName(name, "Host") {
		return x.Request.Authority, min(len(x.Request.Authority), 1)
	}
	for _, f := range x.Request.Header.Fields() {
		if phase.EqualName(f.Name, n) {
			if lines == 0 {
				value = f.Value
			}
			lines++
		}
	}
	return value, lines
}

// decodeMAC decodes base64, whose padding may be left out, and returns the number of bytes.
func decodeMAC(dst *[sha512.Size + 3]byte, text []byte) (int, bool) {
	text = bytes.TrimRight(text, "=")
	if base64.RawStdEncoding.DecodedLen(len(text)) > sha512.Size || bytes.ContainsAny(text, "\r\n") {
		return 0, false
	}
	n, err := base64.RawStdEncoding.Decode(dst[:], text)
	return n, err == nil
}

// digestFits says whether the request has one Digest line, and it is that of the body.
func digestFits(x *phase.Exchange) bool {
	value, lines := line(x, []byte("Digest"))
	encoded, ok := bytes.CutPrefix(value, []byte("SHA-256="))
	if lines != 1 || !ok {
		return false
	}
	sum := sha256.Sum256(x.Request.Body)
	var want [(sha256.Size + 2) / 3 * 4]byte
	base64.StdEncoding.Encode(want[:], sum[:])
	return subtle.ConstantTimeCompare(want[:], encoded) == 1
}
