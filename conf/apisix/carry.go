package apisix

import (
	"encoding/json"
	"regexp"
	"strconv"
	"strings"
	"time"

	"headgate/conf"
)

func ignored(*importer, string, any) string { return "" }

// scalar returns the text of a string, number or boolean.
func scalar(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case json.Number:
		return v.String(), true
	case bool:
		return strconv.FormatBool(v), true
	}
	return "", false
}

// only accepts some values without a word.
func only(why string, values ...string) rule {
	return func(_ *importer, _ string, v any) string {
		s, _ := scalar(v)
		for _, ok := range values {
			if s == ok || v == nil {
				return ""
			}
		}
		return why
	}
}

func flag(key string) rule {
	return func(im *importer, at string, v any) string {
		switch v := v.(type) {
		case nil:
		case bool:
			im.set(key, at, v)
		case string:
			if reference.MatchString(v) {
				return fromEnviron
			}
			return wrongType
		default:
			return wrongType
		}
		return ""
	}
}

// number carries a whole number.
func number(key string) rule {
	return func(im *importer, at string, v any) string {
		if v == nil {
			return ""
		}
		s, _ := scalar(v)
		n, err := strconv.Atoi(s)
		switch {
		case reference.MatchString(s):
			return fromEnviron
		case err != nil:
			return wrongType
		}
		im.set(key, at, n)
		return ""
	}
}

func text(key string) rule {
	return func(im *importer, at string, v any) string {
		if v == nil {
			return ""
		}
		s, ok := scalar(v)
		if !ok {
			return wrongType
		}
		s, why := expanded(s)
		if why == "" {
			im.set(key, at, s)
		}
		return why
	}
}

// secret carries a text that headgate.toml could take for the name of a file.
func secret(key string) rule {
	return func(im *importer, at string, v any) string {
		if s, _ := scalar(v); strings.HasPrefix(s, "file:") {
			return "begins with file:, which names a file here: write it by hand, into a file"
		}
		return text(key)(im, at, v)
	}
}

// list returns the texts of a list or of a single text.
func list(v any) (out []string, why string) {
	items, ok := v.([]any)
	if !ok {
		items = []any{v}
	}
	out = make([]string, len(items))
	for i, e := range items {
		s, ok := scalar(e)
		if !ok {
			return nil, wrongType
		}
		if out[i], why = expanded(s); why != "" {
			return nil, why
		}
	}
	return out, ""
}

func texts(key string) rule {
	return func(im *importer, at string, v any) string {
		if v == nil {
			return ""
		}
		items, why := list(v)
		if why == "" {
			im.set(key, at, items)
		}
		return why
	}
}

// nginxTime is a length of time as nginx writes it: "60", "60s", "1h 30m", "500ms".
var nginxTime = regexp.MustCompile(`^\s*(\d{1,9})\s*(ms|s|m|h|d|w)?`)

func parseTime(s string) (time.Duration, bool) {
	units := map[string]time.Duration{
		"ms": time.Millisecond, "": time.Second, "s": time.Second, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour, "w": 7 * 24 * time.Hour,
	}
	var total time.Duration
	for rest := s; strings.TrimSpace(rest) != "" || rest == s; {
		m := nginxTime.FindStringSubmatch(rest)
		if m == nil {
			return 0, false
		}
		n, err := strconv.ParseInt(m[1], 10, 64)
		if err != nil || n > int64(365*24*time.Hour/units[m[2]]) {
			return 0, false
		}
		total += time.Duration(n) * units[m[2]]
		rest = rest[len(m[0]):]
		if rest == "" {
			break
		}
	}
	return total, total >= 0
}

func span(key string) rule {
	return func(im *importer, at string, v any) string {
		if v == nil {
			return ""
		}
		s, _ := scalar(v)
		if reference.MatchString(s) {
			return fromEnviron
		}
		d, ok := parseTime(s)
		if !ok {
			return "expected a length of time such as 60s"
		}
		im.set(key, at, d.String())
		return ""
	}
}

// nginxSize is a size as nginx writes it: "16384", "8k", "10m", "1g".
var nginxSize = regexp.MustCompile(`^(\d{1,12})([kKmMgG]?)$`)

func parseSize(s string) (conf.Size, bool) {
	m := nginxSize.FindStringSubmatch(s)
	if m == nil {
		return 0, false
	}
	n, err := strconv.ParseInt(m[1], 10, 64)
	unit := map[string]conf.Size{"": 1, "k": conf.KiB, "m": conf.MiB, "g": conf.GiB}[strings.ToLower(m[2])]
	if err != nil || conf.Size(n) > 1<<50/unit {
		return 0, false
	}
	return conf.Size(n) * unit, true
}

func size(key string) rule {
	return func(im *importer, at string, v any) string {
		if v == nil {
			return ""
		}
		s, _ := scalar(v)
		if reference.MatchString(s) {
			return fromEnviron
		}
		n, ok := parseSize(s)
		if !ok {
			return "expected a size such as 10m"
		}
		im.set(key, at, n.String())
		return ""
	}
}

// mebibytes carries a number of MiB, 0 for no limit.
func mebibytes(key string) rule {
	return func(im *importer, at string, v any) string {
		s, _ := scalar(v)
		if n, err := strconv.ParseUint(s, 10, 32); err == nil && n > 0 {
			im.set(key, at, (conf.Size(n) * conf.MiB).String())
			return ""
		} else if err == nil {
			return "0 lifts the limit in APISIX; here there is always one, set " + key
		}
		return fromEnviron
	}
}
