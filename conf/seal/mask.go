package seal

import "headgate/conf/resource"

// masked stands where a secret is not shown.
const masked = "***"

// Masker hides the secrets of documents that are shown to whoever asks. It is immutable and safe for concurrent use.
type Masker struct{ secrets Sealer }

// NewMasker returns a masker. fields must be safe for concurrent use.
func NewMasker(fields Fields) *Masker { return &Masker{Sealer{fields: fields}} }

// MaskDocument returns raw, the JSON text under key, with "***" in the place of its secrets, sealed or not; references to secrets kept
// elsewhere stay. What has none, or cannot be decoded, is returned as it is: the same bytes.
func (m *Masker) MaskDocument(key string, raw []byte) []byte {
	doc := m.secrets.decode(key, raw)
	if doc == nil {
		return raw
	}
	found := false
	m.secrets.walk(key, doc, func(text string, _ bool) string {
		if isReference(text) {
			return text
		}
		found = true
		return masked
	})
	if !found {
		return raw
	}
	out, err := resource.Encode(doc)
	if err != nil {
		return []byte(`"` + masked + `"`) // never what could not be masked
	}
	return out
}
