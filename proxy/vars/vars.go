// Package vars knows the $variables of a request and the templates made of them (contract section 2.5). Names are resolved when a
// configuration is compiled; looking a value up on the request path allocates nothing.
package vars

import "strings"

// Source is a request as variables see it.
//
// Every method gets dst, an empty slice that may have room to spare, and returns the value alone: either appended to dst or borrowed
// memory that stays as it is until the exchange ends. False says that the request has no such value, which is not the same as an
// empty one; the bytes are then ignored. A method may return (dst, false) for anything it doesn't know.
type Source interface {
	// Var returns a fixed variable.
	Var(id ID, dst []byte) ([]byte, bool)
	// Header returns a request header, repeated lines joined with ", ". The name is in lower case with '_' for every '-';
	// HeaderNameEqual compares it with a name from the wire.
	Header(name string, dst []byte) ([]byte, bool)
	// Arg returns the first value of a query argument, decoded; QueryArg does it.
	Arg(name string, dst []byte) ([]byte, bool)
	// Cookie returns a cookie; CookieValue does it.
	Cookie(name string, dst []byte) ([]byte, bool)
	// Param returns a path parameter of the matched route (uri_param_*).
	Param(name string, dst []byte) ([]byte, bool)
	// PostArg returns a field of the body. A name that starts with "_" goes on with that of a form field (post_arg_<name>), one that
	// starts with "." is a path into a JSON or form body (post_arg.<path>).
	PostArg(name string, dst []byte) ([]byte, bool)
	// ResponseHeader returns a header of the answer, named as for Header.
	ResponseHeader(name string, dst []byte) ([]byte, bool)
}

// Captures is what a Source may also offer: the groups of the last regular expression that matched, 0 being the whole match. A nil
// result says that there is no such group.
type Captures interface {
	Capture(i int) []byte
}

type kind uint8

const (
	kindAbsent kind = iota
	kindFixed
	kindHeader
	kindArg
	kindCookie
	kindParam
	kindPostArg
	kindResponseHeader
)

// Var is a variable whose name has been understood. The zero Var has no value on any request.
type Var struct {
	kind kind
	id   ID
	name string // as written
	key  string // what follows the prefix, ready for Source
}

// Parse understands a name without its "$". For a name that it doesn't know it returns false and a Var that keeps the name and never
// has a value; true with such a Var stands for a name of the contract's that has nothing to tell here (ssl_*, llm_*, connection, ...).
func Parse(name string) (Var, bool) {
	v := Var{name: name}
	if id, ok := lookup(name); ok {
		v.kind, v.id = kindFixed, id
		return v, true
	}
	if name == "cookie" {
		v.kind, v.key = kindHeader, name
		return v, true
	}
	if isInert(name) {
		return v, true
	}
	for _, family := range [...]struct {
		prefix string
		kind   kind
	}{
		{"arg_", kindArg},
		{"http_", kindHeader},
		{"cookie_", kindCookie},
		{"uri_param_", kindParam},
		{"post_arg", kindPostArg},
		{"sent_http_", kindResponseHeader},
		{"upstream_http_", kindResponseHeader},
	} {
		key, ok := strings.CutPrefix(name, family.prefix)
		if !ok || key == "" {
			continue
		}
		switch family.kind {
		case kindHeader, kindResponseHeader:
			key = strings.ReplaceAll(strings.ToLower(key), "-", "_")
		case kindPostArg:
			if len(key) == 1 || key[0] != '_' && key[0] != '.' {
				continue
			}
		}
		v.kind, v.key = family.kind, key
		return v, true
	}
	return v, false
}

// Name returns the name as it was written.
func (v Var) Name() string { return v.name }

// ID returns the number of a variable with a fixed name, 0 for any other.
func (v Var) ID() ID { return v.id }

// PostArg returns the name that Source.PostArg is asked for, "" when v is no field of the body.
func (v Var) PostArg() string {
	if v.kind == kindPostArg {
		return v.key
	}
	return ""
}

// Value returns the value of v on src, built in dst, which must be empty, or borrowed from src until the exchange ends.
func (v Var) Value(dst []byte, src Source) ([]byte, bool) {
	switch v.kind {
	case kindFixed:
		return src.Var(v.id, dst)
	case kindHeader:
		return src.Header(v.key, dst)
	case kindArg:
		return src.Arg(v.key, dst)
	case kindCookie:
		return src.Cookie(v.key, dst)
	case kindParam:
		return src.Param(v.key, dst)
	case kindPostArg:
		return src.PostArg(v.key, dst)
	case kindResponseHeader:
		return src.ResponseHeader(v.key, dst)
	default:
		return dst, false
	}
}

// Append appends the value of v on src to dst. Without a value it returns dst as it was, and false.
func (v Var) Append(dst []byte, src Source) ([]byte, bool) {
	value, ok := v.Value(dst[len(dst):], src)
	if !ok {
		return dst, false
	}
	// A value that was built in the spare room of dst is copied onto itself.
	return append(dst, value...), true
}
