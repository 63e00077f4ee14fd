package schema

import (
	"bytes"
	"encoding/json"
	"errors"
)

// meta is what every plugin configuration may carry beside its own fields (contract section 1.7).
const meta = `{
  "type": "object",
  "properties": {
    "disable": {"type": "boolean"},
    "error_response": {"type": ["string", "object"]},
    "priority": {"type": "integer"},
    "filter": {"type": "array"},
    "pre_function": {"type": "string"}
  },
  "additionalProperties": false
}`

// WithMeta returns the schema of a plugin's configuration with the property `_meta` added: the schema that a configuration inside a
// document is checked with and that the Admin API shows. raw is not changed.
func WithMeta(raw []byte) ([]byte, error) {
	v, err := DecodeJSON(raw)
	if err != nil {
		return nil, err
	}
	doc, ok := v.(map[string]any)
	if !ok {
		return nil, errors.New("a plugin's schema must be an object")
	}
	props, ok := doc["properties"].(map[string]any)
	if !ok {
		props = make(map[string]any, 1)
		doc["properties"] = props
	}
	props["_meta"] = json.RawMessage(meta)
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(doc); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n")), nil
}
