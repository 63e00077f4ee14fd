package v3

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"headgate/conf/resource"
	"headgate/conf/schema"
)

// toYAML writes doc, which is made of what resource.Encode takes: block style, members sorted, numbers as they are. Text that YAML
// readers could take for something else, or fold, is quoted as JSON quotes it, which YAML understands.
func toYAML(doc map[string]any) ([]byte, error) {
	raw, err := resource.Encode(doc)
	if err != nil {
		return nil, err
	}
	decoded, err := schema.DecodeJSON(raw)
	if err != nil {
		return nil, err
	}
	if isEmpty(decoded) {
		return []byte("{}\n"), nil
	}
	return appendYAML(nil, decoded, 0, false), nil
}

// appendYAML writes v as lines that are indented by indent; open says that the indentation of the first line is there already.
func appendYAML(b []byte, v any, indent int, open bool) []byte {
	start := func() {
		if !open {
			b = append(b, strings.Repeat(" ", indent)...)
		}
		open = false
	}
	switch v := v.(type) {
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(v)) {
			start()
			b = append(appendYAMLText(b, name), ':')
			b = appendYAMLMember(b, v[name], indent+2)
		}
	case []any:
		for _, item := range v {
			start()
			b = append(b, '-')
			if isEmpty(item) || !isNested(item) {
				b = append(appendScalar(append(b, ' '), item), '\n')
				continue
			}
			b = appendYAML(append(b, ' '), item, indent+2, true)
		}
	}
	return b
}

func appendYAMLMember(b []byte, v any, indent int) []byte {
	if isNested(v) && !isEmpty(v) {
		return appendYAML(append(b, '\n'), v, indent, false)
	}
	return append(appendScalar(append(b, ' '), v), '\n')
}

func isNested(v any) bool {
	switch v.(type) {
	case map[string]any, []any:
		return true
	}
	return false
}

func isEmpty(v any) bool {
	switch v := v.(type) {
	case map[string]any:
		return len(v) == 0
	case []any:
		return len(v) == 0
	}
	return false
}

func appendScalar(b []byte, v any) []byte {
	switch v := v.(type) {
	case nil:
		return append(b, "null"...)
	case bool:
		return fmt.Append(b, v)
	case json.Number:
		return append(b, v...)
	case string:
		return appendYAMLText(b, v)
	case []any:
		return append(b, "[]"...)
	}
	return append(b, "{}"...)
}

// plainText needs no quotes in any version of YAML, unless it is one of plainWords.
var (
	plainText  = regexp.MustCompile(`^[A-Za-z_/][A-Za-z0-9_./-]*$`)
	plainWords = regexp.MustCompile(`^(?i:true|false|null|yes|no|on|off|y|n|nan|inf)$`)
)

func appendYAMLText(b []byte, s string) []byte {
	if plainText.MatchString(s) && !plainWords.MatchString(s) {
		return append(b, s...)
	}
	b = append(b, '"')
	for _, c := range s {
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', byte(c))
		case c == '\n':
			b = append(b, `\n`...)
		case c == '\t':
			b = append(b, `\t`...)
		case c > 0xFFFF && !unicode.IsPrint(c):
			b = fmt.Appendf(b, `\U%08x`, c)
		case !unicode.IsPrint(c) || c == '\uFEFF':
			b = fmt.Appendf(b, `\u%04x`, c)
		default:
			b = utf8.AppendRune(b, c)
		}
	}
	return append(b, '"')
}
