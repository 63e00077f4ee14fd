package redirect

import (
	"bytes"
	"errors"
	"regexp"
	"strings"
	"time"

	"github.com/dlclark/regexp2/v2"
)

// backtrackTimeout bounds one match of a pattern that needs backtracking. The engine's clock ticks every 100 ms and adds up to two ticks.
const backtrackTimeout = 10 * time.Millisecond

// substitution is a pattern with its replacement. Patterns are PCRE: the linear engine runs what it understands, look-around and
// back-references go to a backtracking one with a time limit. The vars language decides in the same way but has no groups to offer.
type substitution struct {
	linear    *regexp.Regexp
	backtrack *regexp2.Regexp
	template  []byte // groups written as ${1}
}

func newSubstitution(pattern, replacement string) (s *substitution, err error) {
	s = &substitution{}
	if s.template, err = readReplacement(replacement); err != nil {
		return nil, err
	}
	if s.linear, err = regexp.Compile(pattern); err == nil {
		return s, nil
	}
	if s.backtrack, err = regexp2.Compile(pattern, regexp2.OptionMaintainCaptureOrder()); err != nil {
		return nil, err
	}
	s.backtrack.MatchTimeout = backtrackTimeout
	return s, nil
}

var errReplacement = errors.New("invalid capturing variable in the replacement")

// readReplacement understands $1, ${1} and $$, and writes groups with braces: "$1x" is group 1 and an x to PCRE's users, but the group
// 1x to both engines.
func readReplacement(text string) ([]byte, error) {
	var b bytes.Buffer
	for {
		before, after, found := strings.Cut(text, "$")
		b.WriteString(before)
		if !found {
			return b.Bytes(), nil
		}
		if text, found = strings.CutPrefix(after, "$"); found {
			b.WriteString("$$")
			continue
		}
		name := after
		if braced, ok := strings.CutPrefix(after, "{"); ok {
			if name, text, ok = strings.Cut(braced, "}"); !ok {
				return nil, errReplacement
			}
		} else {
			text = strings.TrimLeft(after, "0123456789")
			name = after[:len(after)-len(text)]
		}
		if name == "" || len(name) > 3 || strings.Trim(name, "0123456789") != "" {
			return nil, errReplacement
		}
		b.WriteString("${" + name + "}")
	}
}

// append appends path with the first match replaced; false when there is none, with dst as it was. A match of the linear engine allocates
// its positions, no match allocates nothing; the other engine allocates either way. An error says that the match took too long.
func (s *substitution) append(dst, path []byte) ([]byte, bool, error) {
	if s.backtrack != nil {
		return s.appendBacktracking(dst, string(path))
	}
	at := s.linear.FindSubmatchIndex(path)
	if at == nil {
		return dst, false, nil
	}
	dst = append(dst, path[:at[0]]...)
	dst = s.linear.Expand(dst, s.template, path, at)
	return append(dst, path[at[1]:]...), true, nil
}

func (s *substitution) appendBacktracking(dst []byte, path string) ([]byte, bool, error) {
	m, err := s.backtrack.FindStringMatch(path)
	if m == nil || err != nil {
		return dst, false, err
	}
	replaced, err := s.backtrack.Replace(path, string(s.template), -1, 1)
	return append(dst, replaced...), err == nil, err
}
