package rewrite

import (
	"errors"
	"strconv"
	"strings"

	"headgate/proxy/expr"
)

// Substitution is a pair of regex_uri: a pattern and what its first match becomes. It is immutable.
type Substitution struct {
	pattern expr.Pattern
	parts   []replacement
}

// replacement is a literal, or a group where literal is nil.
type replacement struct {
	literal []byte
	group   int
}

// ErrReplacement says that a replacement cannot be understood.
var ErrReplacement = errors.New("failed to compile the replacement template")

var errTooManyGroups = errors.New("more than " + strconv.Itoa(expr.MaxGroups-1) + " groups")

// NewSubstitution compiles a PCRE pattern and its replacement, in which $1 and ${1} stand for groups, $0 for the whole match, and $$ for a
// dollar sign. Other dollar signs give ErrReplacement.
func NewSubstitution(pattern, text string) (*Substitution, error) {
	s := &Substitution{}
	var err error
	if s.pattern, err = expr.CompilePattern(pattern, false); err != nil {
		return nil, err
	}
	if s.pattern.Groups() > expr.MaxGroups {
		return nil, errTooManyGroups
	}
	s.parts, err = parseReplacement(text)
	return s, err
}

func parseReplacement(text string) (parts []replacement, err error) {
	for text != "" {
		i := strings.IndexByte(text, '$')
		if i < 0 {
			return append(parts, replacement{literal: []byte(text)}), nil
		}
		if i > 0 {
			parts = append(parts, replacement{literal: []byte(text[:i])})
		}
		text = text[i+1:]
		if strings.HasPrefix(text, "$") {
			parts = append(parts, replacement{literal: []byte("$")})
			text = text[1:]
			continue
		}
		name, rest, braced := text, "", strings.HasPrefix(text, "{")
		if braced {
			if name, rest, braced = strings.Cut(text[1:], "}"); !braced {
				return nil, ErrReplacement
			}
		} else {
			digits := strings.TrimLeft(text, "0123456789")
			name, rest = text[:len(text)-len(digits)], digits
		}
		group, err := strconv.ParseUint(name, 10, 16)
		if err != nil {
			return nil, ErrReplacement
		}
		parts = append(parts, replacement{group: int(group)})
		text = rest
	}
	return parts, nil
}

// Append appends subject with the first match replaced, and fills groups with those of the match, which are parts of subject; n is their
// number. Without a match n is 0 and dst as it was. Errors and allocations are those of expr.Pattern's Find.
func (s *Substitution) Append(dst, subject []byte, groups *[expr.MaxGroups][]byte) (out []byte, n int, err error) {
	n, start, end, err := s.pattern.Find(subject, groups)
	if n == 0 || err != nil {
		return dst, 0, err
	}
	dst = append(dst, subject[:start]...)
	for i := range s.parts {
		p := &s.parts[i]
		switch {
		case p.literal != nil:
			dst = append(dst, p.literal...)
		case p.group < n:
			dst = append(dst, groups[p.group]...)
		}
	}
	return append(dst, subject[end:]...), n, nil
}
