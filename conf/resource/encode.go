package resource

import (
	"bytes"
	"encoding/json"
)

// Encode writes doc as compact JSON: keys sorted, numbers as they were written, neither slashes nor <, >, & escaped, no newline at
// the end. Equal documents give equal bytes. doc is made of the types that schema.DecodeJSON returns.
func Encode(doc any) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(doc); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n")), nil
}
