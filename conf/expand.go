package conf

import (
	"errors"
	"fmt"
	"strings"
)

// expand replaces ${NAME} by the environment variable NAME and ${NAME:-text} by text when NAME is not set; $${ stands for a literal
// ${. What a variable contains is not expanded again. Errors never quote a value.
func expand(s string, getenv func(string) (string, bool)) (string, error) {
	if !strings.Contains(s, "${") {
		return s, nil
	}
	var b strings.Builder
	for {
		i := strings.Index(s, "${")
		if i < 0 {
			b.WriteString(s)
			return b.String(), nil
		}
		if i > 0 && s[i-1] == '$' {
			b.WriteString(s[:i-1])
			b.WriteString("${")
			s = s[i+2:]
			continue
		}
		b.WriteString(s[:i])
		rest := s[i+2:]
		end := strings.IndexByte(rest, '}')
		if end < 0 {
			return "", errors.New("expected } after ${; write $${ for a literal ${")
		}
		name, fallback, hasFallback := strings.Cut(rest[:end], ":-")
		if !isEnvName(name) {
			return "", errors.New("expected ${NAME} or ${NAME:-default} with the name of an environment variable; write $${ for a literal ${")
		}
		value, ok := "", false
		if getenv != nil {
			value, ok = getenv(name)
		}
		switch {
		case ok:
			b.WriteString(value)
		case hasFallback:
			b.WriteString(fallback)
		default:
			return "", fmt.Errorf("environment variable %s is not set", name)
		}
		s = rest[end+1:]
	}
}

func isEnvName(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c == '_'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return s != ""
}
