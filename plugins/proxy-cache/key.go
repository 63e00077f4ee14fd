package proxycache

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"slices"

	"headgate/proxy/phase"
)

// digest names an answer, or all answers to one cache_key. Different inputs have different digests, as far as SHA-256 tells them apart.
type digest [sha256.Size]byte

// keyVersion changes when the form of keys does, so that what an earlier version has left on disk is not found.
const keyVersion = 1

// What stands before a part of a key, so that no part can be taken for another one.
const (
	partText byte = iota
	partAbsent
	partValue
	partPath
	partConsumer
	partEnd
)

// appendKey appends the tuple that tells the answers of p apart: the route, the consumer, and what cache_key says. Each part has its kind
// and its length before it, so that no two tuples look the same.
//
// The contract's key has neither route nor consumer in it, and the path of $request_uri is decoded: "/a%3Fb" and "/a?b" would be one
// answer, and whoever asks first would choose what the other gets. So a path counts as it was sent, too, when that is not its canonical form.
func (p *plugin) appendKey(dst []byte, x *phase.Exchange, scratch []byte) []byte {
	dst = append(dst, keyVersion)
	route := ""
	if x.Route != nil {
		route = x.Route.ID
	}
	dst = appendText(dst, route)
	if p.isolate && x.Consumer.Name != "" {
		dst = appendText(append(dst, partConsumer), x.Consumer.Name)
		// Below the consumer there may be users of its own.
		for _, f := range x.Request.Header.Fields() {
			if phase.EqualName(f.Name, "authorization") {
				dst = appendPart(append(dst, partValue), f.Value)
			}
		}
	}
	dst = append(dst, partEnd)
	for i := range p.key {
		k := &p.key[i]
		switch {
		case k.text != "":
			dst = appendText(append(dst, partText), k.text)
		case k.path:
			q := &x.Request
			dst = appendPart(append(dst, partPath), q.Path)
			raw := q.RawPath
			if bytes.Equal(raw, q.Path) {
				raw = nil
			}
			dst = appendPart(dst, raw)
			if k.query && q.Query != nil {
				dst = appendPart(append(dst, partValue), q.Query)
			} else {
				dst = append(dst, partAbsent)
			}
		default:
			value, ok := k.v.Value(scratch[:0], x)
			if !ok {
				dst = append(dst, partAbsent)
				continue
			}
			dst = appendPart(append(dst, partValue), value)
		}
	}
	return dst
}

func appendPart(dst, b []byte) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(b))), b...)
}

func appendText(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

// variant tells the answers to one key apart: what the operator does not name in cache_key, and PURGE must reach nevertheless.
type variant struct {
	class byte
	tls   bool
	// body is the digest of what was sent, zero for nothing.
	body digest
}

// Classes of methods. An answer to GET serves HEAD, too.
const (
	classGet byte = iota
	classHead
	classPost
)

// describe fills v in for x. scratch is used.
func (v *variant) describe(x *phase.Exchange, scratch []byte) {
	q := &x.Request
	*v = variant{tls: q.TLS}
	switch string(q.Method) {
	case "HEAD":
		v.class = classHead
	case "POST":
		v.class = classPost
	}
	if len(q.Body) > 0 { // of a GET, too: an upstream may heed it
		sum := sha256.Sum256(q.Body)
		v.body = sha256.Sum256(append(appendPart(scratch[:0], q.ContentType), sum[:]...))
	}
}

// maxVary bounds the names in the Vary lines of an answer that is kept.
const maxVary = 16

// varyNames returns the names in the Vary lines in lower case, sorted, without duplicates. False says that the answer is for this request
// alone (RFC 9111 section 4.1), or that there are too many.
func varyNames(lines []phase.Field) (names []string, ok bool) {
	for _, f := range lines {
		if !phase.EqualName(f.Name, "vary") {
			continue
		}
		for list := f.Value; len(list) > 0; {
			var name []byte
			if name, list = nextElement(list); len(name) == 0 {
				continue
			}
			if string(name) == "*" {
				return nil, false
			}
			names = append(names, string(bytes.ToLower(name)))
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	return names, len(names) <= maxVary
}

// appendHeader appends the value of the request's lines called name, joined. A request without such a line and one with an empty value are
// different ones.
func appendHeader(dst []byte, q *phase.Request, name string) (value []byte, found bool) {
	if name == "host" { // no line of Header
		return append(dst, q.Authority...), true
	}
	for _, f := range q.Header.Fields() {
		if phase.EqualName(f.Name, name) {
			if found {
				dst = append(dst, ", "...)
			}
			dst, found = append(dst, f.Value...), true
		}
	}
	return dst, found
}

// sameHeader says whether appendHeader would say the same for q, without writing it down.
func sameHeader(q *phase.Request, name string, value []byte, present bool) bool {
	if name == "host" {
		return present && bytes.Equal(q.Authority, value)
	}
	found := false
	for _, f := range q.Header.Fields() {
		if !phase.EqualName(f.Name, name) {
			continue
		}
		if found {
			if !bytes.HasPrefix(value, []byte(", ")) {
				return false
			}
			value = value[len(", "):]
		}
		if !bytes.HasPrefix(value, f.Value) {
			return false
		}
		value, found = value[len(f.Value):], true
	}
	return found == present && len(value) == 0
}

func digestOf(tuple []byte) digest { return sha256.Sum256(tuple) }
