package seal

import (
	"regexp"
	"strings"

	"headgate/conf/resource"
	"headgate/conf/schema"
)

// masked stands where a secret is not shown.
const masked = "***"

// Masker hides the secrets of documents that are shown to whoever asks. It is immutable and safe for concurrent use.
type Masker struct{ secrets Sealer }

// NewMasker returns a masker. fields must be safe for concurrent use.
func NewMasker(fields Fields) *Masker { return &Masker{Sealer{fields: fields}} }

// MaskDocument returns raw, the JSON text under key, with "***" in the place of its secrets, sealed or not; references to secrets kept
// elsewhere stay. What has none, or cannot be decoded, is returned as it is: the same bytes.
func (m *Masker) MaskDocument(key string, raw []byte) []byte {
	v, err := schema.DecodeJSON(raw)
	doc, ok := v.(map[string]any)
	if err != nil || !ok {
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
	if maskCarried(doc["plugins"], false) {
		found = true
	}
	if !found {
		return raw
	}
	out, err := resource.Encode(doc)
	if err != nil {
		return []byte(`"` + masked + `"`) // never what could not be masked
	}
	return out
}

// userinfo is a password in a URL.
var userinfo = regexp.MustCompile(`(://[^/?#@:\s]*:)[^/?#@\s]+@`)

// maskCarried masks what no schema calls secret and what yet is: values of header lines that carry credentials, and passwords in URLs. It
// returns whether there were any. inHeaders says that v is below a member with header lines.
func maskCarried(v any, inHeaders bool) (found bool) {
	mask := func(name, text string) (string, bool) {
		switch {
		case isReference(text):
			return text, false
		case inHeaders && carriesSecret(name):
			return masked, true
		case userinfo.MatchString(text):
			return userinfo.ReplaceAllString(text, "${1}"+masked+"@"), true
		}
		return text, false
	}
	switch v := v.(type) {
	case map[string]any:
		for name, member := range v {
			if text, ok := member.(string); ok {
				if shown, secret := mask(name, text); secret {
					v[name], found = shown, true
				}
				continue
			}
			if maskCarried(member, inHeaders || strings.Contains(name, "headers")) {
				found = true
			}
		}
	case []any:
		for i, member := range v {
			text, ok := member.(string)
			if !ok {
				found = maskCarried(member, inHeaders) || found
				continue
			}
			name, _, line := strings.Cut(text, ":") // "Name: value"; a name alone is no secret
			if !line {
				name = ""
			}
			if shown, secret := mask(name, text); secret {
				v[i], found = shown, true
			}
		}
	}
	return found
}

// carriesSecret tells header lines by their names.
func carriesSecret(name string) bool {
	name = strings.ToLower(name)
	for _, part := range [...]string{"authorization", "cookie", "key", "token", "secret", "password", "credential"} {
		if strings.Contains(name, part) {
			return true
		}
	}
	return false
}
