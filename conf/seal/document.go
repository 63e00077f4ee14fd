package seal

import (
	"bytes"
	"fmt"
	"strings"

	"headgate/conf/resource"
	"headgate/conf/schema"
)

// SealDocument returns raw, the JSON text under key, with its secrets sealed. What has none, or cannot be decoded, is returned as it
// is: the same bytes. Otherwise the result is in the form of resource.Encode. With an error (ErrForeign) nothing may be stored.
func (s *Sealer) SealDocument(key string, raw []byte) ([]byte, error) {
	doc := s.decode(key, raw)
	if doc == nil {
		return raw, nil
	}
	if sealed, err := s.seal(key, doc); err != nil || !sealed {
		return raw, err
	}
	out, err := resource.Encode(doc)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	return out, nil
}

// OpenDocument returns raw, the JSON text under key, with its secrets in clear text. What has none that could be opened is returned
// as it is: the same bytes.
func (s *Sealer) OpenDocument(key string, raw []byte) []byte {
	doc := s.decode(key, raw)
	if doc == nil || !s.Open(key, doc) {
		return raw
	}
	out, err := resource.Encode(doc)
	if err != nil {
		return raw
	}
	return out
}

// decode returns the object in raw, or nil when there is none or nothing in it can be a secret.
func (s *Sealer) decode(key string, raw []byte) map[string]any {
	if !s.mayHaveSecrets(key, raw) {
		return nil
	}
	v, err := schema.DecodeJSON(raw)
	if err != nil {
		return nil
	}
	doc, _ := v.(map[string]any)
	return doc
}

// mayHaveSecrets looks for the names that matter without decoding, because a hundred thousand documents are opened at start and few
// of them have secrets. It may err on the side of yes only.
func (s *Sealer) mayHaveSecrets(key string, raw []byte) bool {
	if strings.HasPrefix(key, "ssls/") || strings.HasPrefix(key, "plugin_metadata/") {
		return true
	}
	for {
		start := bytes.IndexByte(raw, '"')
		if start < 0 {
			return false
		}
		raw = raw[start+1:]
		end := bytes.IndexAny(raw, `"\`)
		if end < 0 {
			return false
		}
		if raw[end] == '\\' {
			// A name could be written with escapes. Most texts with escapes are values, and those are rare in documents.
			return true
		}
		name := raw[:end]
		raw = raw[end+1:]
		if string(name) == "client_key" {
			return true
		}
		// The name of a plugin is followed by an object.
		if next := bytes.TrimLeft(raw, " \t\r\n:"); len(next) == 0 || next[0] != '{' || len(next) == len(raw) {
			continue
		}
		if route, consumer := s.fields(string(name)); len(route) > 0 || len(consumer) > 0 {
			return true
		}
	}
}
