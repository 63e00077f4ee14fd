package compress

import (
	"bytes"
	"encoding/json"

	"headgate/proxy/phase"
	"headgate/proxy/phase/wire"
)

// Rules say which answers to compress.
type Rules struct {
	// Types are media types; AnyType takes them all.
	Types   []string
	AnyType bool
	// MinLength is the shortest body in bytes that is worth it. A body of unknown length is.
	MinLength int64
	// HTTP10 compresses for clients that speak HTTP/1.0, too.
	HTTP10 bool
	// Vary tells caches that the answer depends on Accept-Encoding. Without it, answers to other proxies are left alone.
	Vary bool
}

// Read reads what both plugins are configured with. doc satisfies their schemas; its numbers are json.Number.
func Read(doc map[string]any) Rules {
	r := Rules{Types: []string{"text/html"}, MinLength: 20}
	switch types := doc["types"].(type) {
	case string:
		r.Types, r.AnyType = nil, true
	case []any:
		r.Types = nil
		for _, item := range types {
			t, _ := item.(string)
			r.Types = append(r.Types, t)
		}
	}
	if n, ok := number(doc["min_length"]); ok {
		r.MinLength = int64(min(n, 1<<62))
	}
	version, _ := number(doc["http_version"])
	r.HTTP10 = version == 1
	r.Vary, _ = doc["vary"].(bool)
	return r
}

func number(v any) (float64, bool) {
	n, _ := v.(json.Number)
	f, err := n.Float64()
	return f, err == nil
}

// fits says whether the answer may be compressed, whatever the client takes.
func (p *Plugin) fits(x *phase.Exchange) bool {
	q, r := &x.Request, &x.Response
	if !p.coding.status(r.Status) || string(q.Method) == "HEAD" || q.HTTP10 && !p.rules.HTTP10 {
		return false
	}
	size := r.Size
	if r.Stream == nil {
		size = int64(len(r.Body))
	}
	if size >= 0 && size < p.rules.MinLength {
		return false
	}
	h := &r.Header
	if v, ok := h.Get("Content-Encoding"); ok && len(v) > 0 && ours(h) == nil {
		return false
	}
	if _, part := h.Get("Content-Range"); part {
		return false
	}
	if v, ok := h.Get("Cache-Control"); ok && wire.HasToken(v, "no-transform") { // RFC 9111 section 5.2.2.6
		return false
	}
	if _, proxied := q.Header.Get("Via"); proxied && !p.rules.Vary {
		return false
	}
	return p.rules.hasType(h)
}

func (r *Rules) hasType(h *phase.Header) bool {
	media := mediaType(h)
	if len(media) == 0 || r.AnyType {
		return len(media) > 0
	}
	for _, t := range r.Types {
		if phase.EqualName(media, t) {
			return true
		}
	}
	return false
}

// mediaType is the answer's, without parameters.
func mediaType(h *phase.Header) []byte {
	v, _ := h.Get("Content-Type")
	if i := bytes.IndexByte(v, ';'); i >= 0 {
		v = v[:i]
	}
	return wire.Trim(v)
}

// isSequence says whether the answer is a sequence of messages, each of which somebody may be waiting for.
func isSequence(x *phase.Exchange) bool {
	media := mediaType(&x.Response.Header)
	for _, t := range [...]string{"text/event-stream", "application/x-ndjson", "application/jsonl", "application/json-seq"} {
		if phase.EqualName(media, t) {
			return true
		}
	}
	return false
}

// weight is how much the client wants the coding, in thousandths (RFC 9110 section 12.5.3). Without Accept-Encoding it is 0: such clients
// seldom mean that they take everything.
func (c *Coding) weight(h *phase.Header) int {
	named, any := -1, 0
	for _, f := range h.Fields() {
		if !phase.EqualName(f.Name, "accept-encoding") {
			continue
		}
		for list := f.Value; len(list) > 0; {
			var e []byte
			e, list = wire.NextElement(list)
			name, q := cutWeight(e)
			switch {
			case len(name) == 1 && name[0] == '*':
				any = q
			case phase.EqualName(name, string(c.token)) || c.alias != "" && phase.EqualName(name, c.alias):
				named = max(named, q)
			}
		}
	}
	if named >= 0 {
		return named
	}
	return any
}

// cutWeight splits "gzip;q=0.5" into name and thousandths. A weight that cannot be read is 0: the client did not mean to ask for it.
func cutWeight(e []byte) (name []byte, thousandths int) {
	i := bytes.IndexByte(e, ';')
	if i < 0 {
		return e, 1000
	}
	name, parameter := wire.Trim(e[:i]), wire.Trim(e[i+1:])
	if len(parameter) < 3 || parameter[0]|0x20 != 'q' || parameter[1] != '=' {
		return name, 0
	}
	return name, parseWeight(parameter[2:])
}

// parseWeight reads 0 to 1 with at most three decimals.
func parseWeight(v []byte) int {
	if v[0] != '0' && v[0] != '1' || len(v) > 5 || len(v) > 1 && v[1] != '.' {
		return 0
	}
	n, unit := int(v[0]-'0')*1000, 100
	for i := 2; i < len(v); i++ {
		if v[i] < '0' || v[i] > '9' {
			return 0
		}
		n += int(v[i]-'0') * unit
		unit /= 10
	}
	if n > 1000 {
		return 0
	}
	return n
}

var nameVary, valueVary = []byte("Vary"), []byte("Accept-Encoding")

func addVary(h *phase.Header) {
	for _, f := range h.Fields() {
		if phase.EqualName(f.Name, "vary") && (wire.HasToken(f.Value, "accept-encoding") || wire.HasToken(f.Value, "*")) {
			return
		}
	}
	h.Add(nameVary, valueVary)
}

var nameETag = []byte("ETag")

// weakenETag: the bytes are no longer those that a strong validator stands for (RFC 9110 section 8.8.1).
func weakenETag(x *phase.Exchange) {
	v, ok := x.Response.Header.Get("ETag")
	switch {
	case !ok, len(v) >= 2 && v[0] == 'W' && v[1] == '/':
	case len(v) >= 2 && v[0] == '"':
		x.Response.Header.Set(nameETag, x.Commit(append(append(x.Arena(), "W/"...), v...)))
	default: // no validator at all
		x.Response.Header.Del("ETag")
	}
}
