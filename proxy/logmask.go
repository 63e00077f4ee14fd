package proxy

import (
	"bytes"
	"strings"
	"unsafe"

	"headgate/proxy/phase"
	"headgate/proxy/vars"
)

// maskedSource is a logSource in which secrets do not show: neither the values of arguments, form fields, header lines and cookies whose names
// are those of secrets, nor user information in URLs.
type maskedSource struct{ logSource }

var masked = []byte("***")

func (s maskedSource) Var(id vars.ID, dst []byte) ([]byte, bool) {
	if id == vars.Request && len(s.x.Request.Method) == 0 {
		return absent, true
	}
	v, ok := s.x.Var(id, dst)
	if ok {
		switch id {
		case vars.Args:
			v = mask(s.x, v, true)
		case vars.Request, vars.RequestURI, vars.RealRequestURI, vars.UpstreamURI:
			v = mask(s.x, v, false)
		case vars.HTTPHost:
			v = maskUser(s.x, v)
		}
	}
	return s.safe(v, ok)
}

func (s maskedSource) Header(name string, dst []byte) ([]byte, bool) {
	v, ok := s.x.Header(name, dst)
	if ok && name == "referer" {
		v = mask(s.x, v, false)
	}
	return s.named(name, v, ok)
}

func (s maskedSource) Arg(name string, dst []byte) ([]byte, bool) {
	v, ok := s.x.Arg(name, dst)
	return s.named(name, v, ok)
}

func (s maskedSource) Cookie(name string, dst []byte) ([]byte, bool) {
	v, ok := s.x.Cookie(name, dst)
	return s.named(name, v, ok)
}

func (s maskedSource) PostArg(name string, dst []byte) ([]byte, bool) {
	v, ok := s.x.PostArg(name, dst)
	return s.named(name, v, ok)
}

func (s maskedSource) ResponseHeader(name string, dst []byte) ([]byte, bool) {
	v, ok := s.x.ResponseHeader(name, dst)
	if ok && name == "location" {
		v = mask(s.x, v, false)
	}
	return s.named(name, v, ok)
}

func (s maskedSource) named(name string, v []byte, ok bool) ([]byte, bool) {
	if ok && secretName(name) {
		return masked, true
	}
	return s.safe(v, ok)
}

// secretName says whether what goes by that name in a header, a query, a form or a cookie is likely to be a secret. Percent escapes, case,
// the difference between '-', '.' and '_', and the number or emptiness of an element ("key[]", "key[0]") do not hide it; a name that is too
// long to tell is one.
func secretName(name string) bool {
	var buf [96]byte
	n := 0
	for i := 0; i < len(name); i++ {
		c := name[i]
		if c == '%' && i+2 < len(name) {
			if hi, lo := hexValue(name[i+1]), hexValue(name[i+2]); hi < 16 && lo < 16 {
				c = hi<<4 | lo
				i += 2
			}
		}
		switch {
		case c >= 'A' && c <= 'Z':
			c |= 0x20
		case c == '-', c == '.', c == '[':
			c = '_'
		case c == ']', c == ' ', c == '+':
			continue
		}
		if n == len(buf) {
			return true
		}
		buf[n] = c
		n++
	}
	text := unsafe.String(unsafe.SliceData(buf[:]), n) // read only, and only during this call
	text = strings.TrimRight(text, "_0123456789")
	switch last := text[strings.LastIndexByte(text, '_')+1:]; last {
	case "key", "sig", "sign", "auth", "pass", "pwd", "sid", "otp":
		return true
	}
	for _, word := range [...]string{
		"apikey", "api_key", "accesskey", "token", "secret", "passw", "passphrase", "passcode", "signature", "credential", "authoriz", "authentication",
		"bearer", "assertion", "samlresponse", "cookie", "session", "sessid", "jwt",
	} {
		if strings.Contains(text, word) {
			return true
		}
	}
	return false
}

func hexValue(c byte) byte {
	switch {
	case c >= '0' && c <= '9':
		return c - '0'
	case c|0x20 >= 'a' && c|0x20 <= 'f':
		return c | 0x20 - 'a' + 10
	}
	return 16
}

// mask returns v, a URL, a request target or a request line, or with query a query alone, without the user information and without the values
// of the arguments whose names are those of secrets. They may stand behind a "#" as well.
func mask(x *phase.Exchange, v []byte, query bool) []byte {
	start := 0
	if !query {
		if start = bytes.IndexAny(v, "?#"); start < 0 {
			start = len(v)
		}
	}
	user, host := userInfo(v[:start])
	if user == host && start == len(v) {
		return v
	}
	out := x.Arena()
	if user < host {
		out = append(append(append(out, v[:user]...), masked...), v[host:start]...)
	} else {
		out = append(out, v[:start]...)
	}
	for rest := v[start:]; len(rest) > 0; {
		end := len(rest)
		if i := bytes.IndexAny(rest, "?#&;"); i >= 0 {
			end = i
		}
		name, _, found := bytes.Cut(rest[:end], []byte{'='})
		switch {
		case found && secretName(unsafe.String(unsafe.SliceData(name), len(name))):
			out = append(append(append(out, name...), '='), masked...)
			if end == len(rest) {
				out = append(out, protocolBehind(rest)...)
			}
		default:
			out = append(out, rest[:end]...)
		}
		if end < len(rest) {
			out = append(out, rest[end])
			end++
		}
		rest = rest[end:]
	}
	return x.Commit(out)
}

// maskUser returns the authority v without its user information, for which the request has been refused.
func maskUser(x *phase.Exchange, v []byte) []byte {
	i := bytes.LastIndexByte(v, '@')
	if i < 0 {
		return v
	}
	return x.Commit(append(append(x.Arena(), masked...), v[i:]...))
}

// userInfo returns where the user information of a URL is, with its "@".
func userInfo(v []byte) (from, to int) {
	i := bytes.Index(v, []byte("://"))
	if i < 0 {
		return 0, 0
	}
	i += len("://")
	end := len(v)
	if n := bytes.IndexByte(v[i:], '/'); n >= 0 {
		end = i + n
	}
	at := bytes.LastIndexByte(v[i:end], '@')
	if at < 0 {
		return 0, 0
	}
	return i, i + at
}

// protocolBehind returns the " HTTP/1.1" at the end of a request line.
func protocolBehind(b []byte) []byte {
	if i := bytes.LastIndexByte(b, ' '); i >= 0 && bytes.HasPrefix(b[i:], []byte(" HTTP/")) && len(b)-i <= len(" HTTP/1.1") {
		return b[i:]
	}
	return nil
}
