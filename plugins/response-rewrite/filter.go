package responserewrite

import (
	"fmt"
	"regexp"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dlclark/regexp2/v2"
)

// backtrackTimeout bounds one search with a pattern that needs backtracking.
const backtrackTimeout = time.Second

// filter is one replacement in the body. Patterns are PCRE: the linear engine runs what it understands as PCRE does; look-around,
// back-references, the option x and "$", which PCRE also finds before a last newline, go to a backtracking one with a time limit. A
// pattern that neither understands is accepted, as in the contract, and changes nothing.
type filter struct {
	linear    *regexp.Regexp
	backtrack *regexp2.Regexp
	global    bool
	parts     []replacement
}

// replacement is a literal, or a group where literal is nil.
type replacement struct {
	literal []byte
	group   int
}

func newFilter(m map[string]any) (*filter, error) {
	pattern, _ := m["regex"].(string)
	text, _ := m["replace"].(string)
	options, _ := m["options"].(string)
	scope, _ := m["scope"].(string)
	f := &filter{global: scope == "global"}
	if i := strings.IndexFunc(options, func(r rune) bool { return !strings.ContainsRune("adijmosuxDJU", r) }); i >= 0 {
		return nil, fmt.Errorf("regex %q validation failed: unknown option %q", pattern, options[i:i+1])
	}
	f.compile(pattern, options)
	f.parts = parseReplacement(text)
	return f, nil
}

func (f *filter) compile(pattern, options string) {
	flags, slow := "", regexp2.None
	for _, o := range [...]struct {
		letter string
		slow   regexp2.RegexOptions
	}{{"i", regexp2.IgnoreCase}, {"m", regexp2.Multiline}, {"s", regexp2.Singleline}} {
		if strings.Contains(options, o.letter) {
			flags += o.letter
			slow |= o.slow
		}
	}
	fast := pattern
	if flags != "" {
		fast = "(?" + flags + ")" + pattern
	}
	if strings.Contains(options, "a") {
		fast, pattern = `\A(?:`+fast+")", `\A(?:`+pattern+")"
	}
	if strings.Contains(options, "x") {
		slow |= regexp2.IgnorePatternWhitespace
	} else if linear(fast) {
		f.linear, _ = regexp.Compile(fast)
		return
	}
	// Every byte becomes a rune of its own, in the pattern as in the body: the contract's patterns match bytes.
	if re, err := regexp2.Compile(string(byteRunes([]byte(pattern))), slow, regexp2.OptionMaintainCaptureOrder()); err == nil {
		re.MatchTimeout = backtrackTimeout
		f.backtrack = re
	}
}

// linear says whether the linear engine gives pattern the meaning that it has in PCRE.
func linear(pattern string) bool {
	tree, err := syntax.Parse(pattern, syntax.Perl)
	return err == nil && !hasDollar(tree)
}

func hasDollar(re *syntax.Regexp) bool {
	return re.Op == syntax.OpEndText && re.Flags&syntax.WasDollar != 0 || slices.ContainsFunc(re.Sub, hasDollar)
}

// parseReplacement understands $1, ${1} and $$. A dollar sign that begins none of these stands for itself.
func parseReplacement(text string) (parts []replacement) {
	var literal []byte
	for text != "" {
		i := strings.IndexByte(text, '$')
		if i < 0 {
			literal, text = append(literal, text...), ""
			break
		}
		literal, text = append(literal, text[:i]...), text[i+1:]
		name, rest := text, ""
		if inner, braced := strings.CutPrefix(text, "{"); braced {
			name, rest, _ = strings.Cut(inner, "}")
		} else {
			rest = strings.TrimLeft(text, "0123456789")
			name = text[:len(text)-len(rest)]
		}
		group, err := strconv.ParseUint(name, 10, 16)
		if err != nil {
			literal = append(literal, '$')
			text = strings.TrimPrefix(text, "$")
			continue
		}
		if len(literal) > 0 {
			parts, literal = append(parts, replacement{literal: literal}), nil
		}
		parts, text = append(parts, replacement{group: int(group)}), rest
	}
	if len(literal) > 0 {
		parts = append(parts, replacement{literal: literal})
	}
	return parts
}

// apply appends the filtered body to dst. found is false, and nothing was appended, when the pattern does not match. An error means that
// the search took too long.
func (f *filter) apply(dst, body []byte) (out []byte, found bool, err error) {
	if f.backtrack != nil {
		return f.applyBacktracking(dst, body)
	}
	if f.linear == nil {
		return dst, false, nil
	}
	n := 1
	if f.global {
		n = -1
	}
	done := 0
	for _, at := range f.linear.FindAllSubmatchIndex(body, n) {
		dst = append(dst, body[done:at[0]]...)
		dst = f.expand(dst, func(group int) []byte {
			if 2*group+1 < len(at) && at[2*group] >= 0 {
				return body[at[2*group]:at[2*group+1]]
			}
			return nil
		})
		done, found = at[1], true
	}
	if found {
		dst = append(dst, body[done:]...)
	}
	return dst, found, nil
}

func (f *filter) applyBacktracking(dst, body []byte) (out []byte, found bool, err error) {
	m, err := f.backtrack.FindRunesMatch(byteRunes(body))
	done := 0
	for ; m != nil && err == nil; m, err = f.backtrack.FindNextMatch(m) {
		dst = append(dst, body[done:m.RuneIndex]...)
		dst = f.expand(dst, func(group int) []byte {
			if g := m.GroupByNumber(group); g != nil && len(g.Captures) > 0 {
				return body[g.RuneIndex : g.RuneIndex+g.RuneLength]
			}
			return nil
		})
		done, found = m.RuneIndex+m.RuneLength, true
		if !f.global {
			break
		}
	}
	if found {
		dst = append(dst, body[done:]...)
	}
	return dst, found, err
}

func (f *filter) expand(dst []byte, group func(int) []byte) []byte {
	for i := range f.parts {
		if p := &f.parts[i]; p.literal != nil {
			dst = append(dst, p.literal...)
		} else {
			dst = append(dst, group(p.group)...)
		}
	}
	return dst
}

// byteRunes maps every byte to the rune of its value, so that positions among runes are positions among bytes.
func byteRunes(b []byte) []rune {
	runes := make([]rune, len(b))
	for i, c := range b {
		runes[i] = rune(c)
	}
	return runes
}
