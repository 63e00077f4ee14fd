package schema

import (
	"math"
	"slices"
	"strconv"
)

// formatNumber writes f as C's "%.14g" does, which is how the contract's texts show numbers.
func formatNumber(f float64) string {
	if math.IsInf(f, 0) {
		if f < 0 {
			return "-inf"
		}
		return "inf"
	}
	return strconv.FormatFloat(f, 'g', 14, 64)
}

// quote writes s as Lua's "%q" does: quotation mark, backslash and newline are escaped by a backslash, other control bytes by their
// decimal number, everything else stands for itself.
func quote(s string) string {
	b := make([]byte, 0, len(s)+2)
	b = append(b, '"')
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '"' || c == '\\' || c == '\n':
			b = append(b, '\\', c)
		case c < 0x20 || c == 0x7f:
			b = append(b, '\\')
			if i+1 < len(s) && s[i+1] >= '0' && s[i+1] <= '9' && c < 100 { // keep the next digit out of the number
				b = append(b, '0')
				if c < 10 {
					b = append(b, '0')
				}
			}
			b = strconv.AppendUint(b, uint64(c), 10)
		default:
			b = append(b, c)
		}
	}
	return string(append(b, '"'))
}

// canonical writes v such that two values are equal under the contract's rules exactly when their texts are: numbers by value,
// objects without order, the empty array like the empty object.
func canonical(v any) string { return string(appendCanonical(nil, v)) }

func appendCanonical(b []byte, v any) []byte {
	switch v := v.(type) {
	case map[string]any:
		if len(v) == 0 {
			return append(b, "[]"...)
		}
		names := make([]string, 0, len(v))
		for name := range v {
			names = append(names, name)
		}
		slices.Sort(names)
		b = append(b, '{')
		for i, name := range names {
			if i > 0 {
				b = append(b, ',')
			}
			b = strconv.AppendQuote(b, name)
			b = append(b, ':')
			b = appendCanonical(b, v[name])
		}
		return append(b, '}')
	case []any:
		b = append(b, '[')
		for i, item := range v {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendCanonical(b, item)
		}
		return append(b, ']')
	case string:
		return strconv.AppendQuote(b, v)
	case bool:
		return strconv.AppendBool(b, v)
	case nil:
		return append(b, "null"...)
	}
	if f, ok := number(v); ok {
		if f == 0 {
			f = 0 // -0 equals 0
		}
		return strconv.AppendFloat(b, f, 'g', -1, 64)
	}
	return append(b, '?')
}
