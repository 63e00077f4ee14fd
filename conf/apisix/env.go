package apisix

import (
	"encoding/json"
	"regexp"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/token"
)

// reference is ${{NAME}} or ${{NAME:=default}}.
var reference = regexp.MustCompile(`\$\{\{\s*([A-Za-z0-9_]+)\s*(:=(.*?))?\s*\}\}`)

// text returns a string scalar with the references to the environment replaced.
func (d *decoder) text(s string, tk *token.Token) (any, error) {
	if d.getenv == nil || !strings.Contains(s, "${{") {
		return s, nil
	}
	missing, replaced := "", false
	s = reference.ReplaceAllStringFunc(s, func(ref string) string {
		m := reference.FindStringSubmatch(ref)
		value, ok := d.getenv(m[1])
		switch {
		case ok:
		case m[2] != "":
			value = strings.TrimSpace(m[3])
		case missing == "":
			missing = m[1]
		}
		replaced = true
		return value
	})
	if missing != "" {
		return nil, errAt(tk, "environment variable %s is not set", missing)
	}
	if !replaced {
		return s, nil
	}
	switch {
	case s == "true" || s == "false":
		return s == "true", nil
	case json.Valid([]byte(s)) && floatPattern.MatchString(s):
		if _, err := strconv.ParseFloat(s, 64); err == nil {
			return json.Number(s), nil
		}
	}
	return s, nil
}
