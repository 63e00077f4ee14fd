// Package requestid is the request-id plugin: it gives every request an id that upstream, client and logs can name it by (contract section
// 4.4). The ids are hard to guess but no secrets.
package requestid

import (
	"bytes"
	_ "embed"
	"errors"
	"time"
	"unsafe"

	"headgate/conf/resource/split"
	"headgate/conf/schema"
	"headgate/proxy/phase"
	"headgate/proxy/phase/wire"
)

//go:embed schema.json
var schemaJSON []byte

// Config is what the operator writes.
type Config struct {
	// HeaderName is the line that carries the id, in the request and in the response.
	HeaderName string
	// IncludeInResponse adds the line to responses that have none of their own.
	IncludeInResponse bool
	// Algorithm makes the ids: uuid (version 4), uuidv7, nanoid, range_id or ksuid.
	Algorithm string
	// RangeLength and RangeSet are the number of characters of a range_id and what they are taken from.
	RangeLength int
	RangeSet    string
}

// Kind declares the plugin.
func Kind() phase.Kind {
	return phase.Kind{
		Name:     "request-id",
		Priority: 12015,
		Schema:   bytes.Clone(schemaJSON),
		Validate: validate,
		Build:    build,
	}
}

var (
	errHeaderName = errors.New(`property "header_name" validation failed: not the name of a header that can be set`)
	errCharSet    = errors.New(`property "range_id" validation failed: property "char_set" validation failed: only visible ASCII characters are allowed`)
)

// read reads conf, which satisfies the schema.
func read(conf []byte) (c Config, err error) {
	v, err := schema.DecodeJSON(conf)
	if err != nil {
		return c, err
	}
	doc, _ := v.(map[string]any) // the empty array is also the empty object
	c = Config{HeaderName: "X-Request-Id", IncludeInResponse: true, Algorithm: "uuid", RangeLength: 16, RangeSet: alphanumeric}
	set(&c.HeaderName, doc["header_name"])
	set(&c.IncludeInResponse, doc["include_in_response"])
	set(&c.Algorithm, doc["algorithm"])
	ranged, _ := doc["range_id"].(map[string]any)
	set(&c.RangeSet, ranged["char_set"])
	if n, ok := split.Integer(ranged["length"]); ok {
		c.RangeLength = int(n)
	}
	switch {
	case !wire.ValidName([]byte(c.HeaderName)) || reserved(c.HeaderName):
		err = errHeaderName
	case c.RangeSet == "" || !visible([]byte(c.RangeSet)):
		err = errCharSet
	}
	return c, err
}

func set[T any](field *T, v any) {
	if v, ok := v.(T); ok {
		*field = v
	}
}

// reserved names the lines that say where a message goes and ends: an id there would break it.
func reserved(name string) bool {
	for _, r := range [...]string{"host", "content-length", "content-type", "content-encoding", "transfer-encoding", "connection",
		"keep-alive", "proxy-connection", "te", "trailer", "upgrade", "expect", "date", "server", "authorization", "cookie", "set-cookie", "location"} {
		if phase.EqualName([]byte(name), r) {
			return true
		}
	}
	return false
}

func validate(conf []byte) error {
	_, err := read(conf)
	return err
}

func build(conf []byte, env phase.Env) (any, error) {
	c, err := read(conf)
	if err != nil {
		return nil, err
	}
	p := &plugin{name: []byte(c.HeaderName), generate: generator(c)}
	if !c.IncludeInResponse {
		return p, nil
	}
	return &answering{p, env.Slot()}, nil
}

// plugin is immutable.
type plugin struct {
	name     []byte
	generate func(dst []byte, now time.Time) []byte
}

// maxIncoming bounds an id that comes with the request, in bytes.
const maxIncoming = 256

// visible says whether b is free of white space, control bytes and what is not ASCII.
func visible(b []byte) bool {
	for _, c := range b {
		if c <= ' ' || c >= 0x7f {
			return false
		}
	}
	return true
}

// Rewrite implements phase.Rewriter.
func (p *plugin) Rewrite(x *phase.Exchange) phase.Verdict {
	p.identify(x)
	return phase.Continue
}

// identify returns the request's id. One that came with it is kept, unless it could not be told apart from what surrounds it in a log.
func (p *plugin) identify(x *phase.Exchange) []byte {
	h := &x.Request.Header
	id, ok := h.Get(unsafe.String(unsafe.SliceData(p.name), len(p.name))) // read only
	if !ok || len(id) == 0 || len(id) > maxIncoming || !visible(id) {
		id = x.Commit(p.generate(x.Arena(), x.Start))
	}
	h.Set(p.name, id) // of several lines one stays
	return id
}

// answering is a plugin that shows the id to the client.
type answering struct {
	*plugin
	// slot holds the id between the phases: first byte and length. Plugins in between may change the request's header.
	slot int
}

// Rewrite implements phase.Rewriter.
func (p *answering) Rewrite(x *phase.Exchange) phase.Verdict {
	id := p.identify(x)
	s := x.Slot(p.slot)
	s.Ptr, s.Int = unsafe.SliceData(id), int64(len(id)) // a pointer fits into an interface without memory of its own; a slice doesn't
	return phase.Continue
}

// Response implements phase.Responder. An id that the upstream gave stays.
func (p *answering) Response(x *phase.Exchange) {
	s := x.Slot(p.slot)
	first, ok := s.Ptr.(*byte)
	if !ok { // another plugin answered before this one's turn
		return
	}
	h := &x.Response.Header
	if own, _ := h.Get(unsafe.String(unsafe.SliceData(p.name), len(p.name))); len(own) == 0 {
		h.Set(p.name, unsafe.Slice(first, s.Int))
	}
}

var (
	_ phase.Rewriter  = (*plugin)(nil)
	_ phase.Rewriter  = (*answering)(nil)
	_ phase.Responder = (*answering)(nil)
)
