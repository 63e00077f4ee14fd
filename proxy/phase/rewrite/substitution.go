package rewrite

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"strconv"
	"strings"
	"time"

	"github.com/dlclark/regexp2/v2"
)

// maxGroups bounds the groups of a pattern, the whole match included.
const maxGroups = 32

// backtrackTimeout bounds one match of a pattern that needs backtracking. The engine's clock ticks every 100 ms and adds up to two
// ticks.
const backtrackTimeout = 10 * time.Millisecond

// substitution is a pair of regex_uri. Patterns are PCRE: the linear engine runs what it understands, look-around and back-references
// go to a backtracking one with a time limit.
type substitution struct {
	// prefix, when not empty, says that the pattern is "^prefix(.*)", the usual one, which needs no engine.
	prefix    []byte
	linear    *regexp.Regexp
	backtrack *regexp2.Regexp
	parts     []replacement
	failure   []byte // the body of the answer when the match fails
}

// replacement is a literal, or a group where literal is nil.
type replacement struct {
	literal []byte
	group   int
}

var (
	errReplacement   = errors.New("failed to compile the replacement template")
	errTooManyGroups = errors.New("more than " + strconv.Itoa(maxGroups-1) + " groups")
)

func newSubstitution(pattern, text string) (*substitution, error) {
	s := &substitution{}
	groups := 0
	linear, err := regexp.Compile(pattern)
	if err == nil {
		s.linear, s.prefix = linear, literalPrefix(pattern)
		groups = linear.NumSubexp() + 1
	} else {
		// Every byte becomes a rune of its own, in the pattern as in the path: the contract's patterns match bytes.
		backtrack, err := regexp2.Compile(string(byteRunes([]byte(pattern))), regexp2.OptionMaintainCaptureOrder())
		if err != nil {
			return nil, err
		}
		backtrack.MatchTimeout = backtrackTimeout
		s.backtrack, groups = backtrack, len(backtrack.GetGroupNumbers())
	}
	if groups > maxGroups {
		return nil, errTooManyGroups
	}
	if s.parts, err = parseReplacement(text); err != nil {
		return nil, err
	}
	s.failure, err = failureBody(fmt.Sprintf("failed to substitute the uri (%s) with %s: the match took too long", pattern, text))
	return s, err
}

func failureBody(msg string) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b) // ends with a newline
	enc.SetEscapeHTML(false)
	err := enc.Encode(struct {
		Msg string `json:"error_msg"`
	}{msg})
	return b.Bytes(), err
}

// literalPrefix returns the literal of a pattern that is "^literal(.*)", with or without "$" behind it, else nil.
func literalPrefix(pattern string) []byte {
	tree, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil || tree.Op != syntax.OpConcat || len(tree.Sub) < 3 {
		return nil
	}
	sub := tree.Sub
	if len(sub) == 4 && sub[3].Op == syntax.OpEndText {
		sub = sub[:3]
	}
	if len(sub) != 3 || sub[0].Op != syntax.OpBeginText || sub[1].Op != syntax.OpLiteral || sub[1].Flags&syntax.FoldCase != 0 ||
		sub[2].Op != syntax.OpCapture {
		return nil
	}
	rest := sub[2].Sub[0]
	if rest.Op != syntax.OpStar || rest.Flags&syntax.NonGreedy != 0 || rest.Sub[0].Op != syntax.OpAnyCharNotNL {
		return nil
	}
	return []byte(string(sub[1].Rune))
}

// parseReplacement understands $1, ${1} and $$.
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
				return nil, errReplacement
			}
		} else {
			digits := strings.TrimLeft(text, "0123456789")
			name, rest = text[:len(text)-len(digits)], digits
		}
		group, err := strconv.ParseUint(name, 10, 16)
		if err != nil {
			return nil, errReplacement
		}
		parts = append(parts, replacement{group: int(group)})
		text = rest
	}
	return parts, nil
}

func (s *substitution) expand(dst []byte, groups [][]byte) []byte {
	for i := range s.parts {
		p := &s.parts[i]
		switch {
		case p.literal != nil:
			dst = append(dst, p.literal...)
		case p.group < len(groups):
			dst = append(dst, groups[p.group]...)
		}
	}
	return dst
}

// find matches subject and fills groups with parts of it, nil for a group that took no part. n is the number of groups, 0 when there is
// no match; the whole match is subject[start:end]. An error means that the match could not be carried to its end.
func (s *substitution) find(subject []byte, groups *[maxGroups][]byte) (n, start, end int, err error) {
	if s.backtrack != nil {
		return s.findBacktracking(subject, groups)
	}
	if len(s.prefix) > 0 {
		if !bytes.HasPrefix(subject, s.prefix) {
			return 0, 0, 0, nil
		}
		if bytes.IndexByte(subject, '\n') < 0 {
			groups[0], groups[1] = subject, subject[len(s.prefix):]
			return 2, 0, len(subject), nil
		}
	}
	at := s.linear.FindSubmatchIndex(subject)
	if at == nil {
		return 0, 0, 0, nil
	}
	n = len(at) / 2
	for i := range n {
		groups[i] = nil
		if at[2*i] >= 0 {
			groups[i] = subject[at[2*i]:at[2*i+1]]
		}
	}
	return n, at[0], at[1], nil
}

func (s *substitution) findBacktracking(subject []byte, groups *[maxGroups][]byte) (n, start, end int, err error) {
	m, err := s.backtrack.FindRunesMatch(byteRunes(subject))
	if m == nil || err != nil {
		return 0, 0, 0, err
	}
	n = m.GroupCount()
	for i := range n {
		groups[i] = nil
		if g := m.GroupByNumber(i); g != nil && len(g.Captures) > 0 {
			groups[i] = subject[g.RuneIndex : g.RuneIndex+g.RuneLength]
		}
	}
	return n, m.RuneIndex, m.RuneIndex + m.RuneLength, nil
}

// byteRunes maps every byte to the rune of its value, so that positions among runes are positions among bytes.
func byteRunes(b []byte) []rune {
	runes := make([]rune, len(b))
	for i, c := range b {
		runes[i] = rune(c)
	}
	return runes
}
