package expr

import (
	"bytes"
	"regexp"
	"regexp/syntax"
	"strings"
	"time"

	"github.com/dlclark/regexp2/v2"
)

// backtrackTimeout bounds one match of a pattern that needs backtracking. The engine reads a coarse clock and adds up to two of its
// ticks, which are 100 ms each unless the process shortens them with regexp2.SetTimeoutCheckPeriod before the first match.
const backtrackTimeout = 10 * time.Millisecond

// MaxGroups is how many groups of a pattern Find tells about, the whole match included.
const MaxGroups = 32

// Pattern is a regular expression in the contract's PCRE syntax. The linear engine runs what it understands; look-around and
// back-references go to a backtracking one, whose matches are bounded in time. Both see code points, and every byte that is not part of one
// as a character of its own. A Pattern is immutable and safe for concurrent use. The zero Pattern never matches.
type Pattern struct {
	linear    *regexp.Regexp
	backtrack *regexp2.Regexp
	// ends are the groups of linear that stand in the place of "$"; see loosenDollar. They are no groups of the pattern.
	ends []int
	// prefix, when not empty, says that the pattern is "^prefix(.*)", the usual one of a rewrite, in which groups are found without an
	// engine.
	prefix []byte
}

// CompilePattern compiles a pattern; fold makes letters of both cases equal. The error is that of the linear engine.
func CompilePattern(text string, fold bool) (Pattern, error) {
	re, ends, err := compileLinear(text, fold)
	if err == nil {
		p := Pattern{linear: re, ends: ends}
		if !fold {
			p.prefix = literalPrefix(text)
		}
		return p, nil
	}
	// PCRE numbers groups from left to right, named or not.
	options := []regexp2.CompileOption{regexp2.OptionMaintainCaptureOrder()}
	if fold {
		options = append(options, regexp2.IgnoreCase)
	}
	slow, failed := regexp2.Compile(text, options...)
	if failed != nil {
		// The engine knows one of PCRE's two spellings of a named group.
		slow, failed = regexp2.Compile(strings.ReplaceAll(text, "(?P<", "(?<"), options...)
	}
	if failed != nil {
		return Pattern{}, err
	}
	slow.MatchTimeout = backtrackTimeout
	return Pattern{backtrack: slow}, nil
}

// Match says whether the pattern is found in value. An error says that the search took too long, so that nobody knows: who lets pass what
// doesn't match has to refuse. Only a backtracking pattern allocates or fails.
func (p *Pattern) Match(value []byte) (bool, error) {
	switch {
	case p.linear != nil:
		return p.linear.Match(value), nil
	case p.backtrack != nil:
		return p.backtrack.MatchString(string(value))
	default:
		return false, nil
	}
}

// Groups is the number of groups, the whole match included.
func (p *Pattern) Groups() int {
	switch {
	case p.linear != nil:
		return p.linear.NumSubexp() + 1 - len(p.ends)
	case p.backtrack != nil:
		return len(p.backtrack.GetGroupNumbers())
	default:
		return 0
	}
}

// Find finds the pattern in subject and fills groups with parts of it, nil for a group that took no part. n is the number of groups, at
// most MaxGroups, and 0 when there is no match; the whole match is subject[start:end]. Errors are those of Match. No match of the linear
// engine allocates nothing; a match allocates its positions, except of "^literal(.*)".
func (p *Pattern) Find(subject []byte, groups *[MaxGroups][]byte) (n, start, end int, err error) {
	if p.backtrack != nil {
		return p.findBacktracking(subject, groups)
	}
	if len(p.prefix) > 0 {
		if !bytes.HasPrefix(subject, p.prefix) {
			return 0, 0, 0, nil
		}
		if bytes.IndexByte(subject, '\n') < 0 {
			groups[0], groups[1] = subject, subject[len(p.prefix):]
			return 2, 0, len(subject), nil
		}
	}
	if p.linear == nil {
		return 0, 0, 0, nil
	}
	at := p.linear.FindSubmatchIndex(subject)
	if at == nil {
		return 0, 0, 0, nil
	}
	limit := len(subject)
	for _, i := range p.ends {
		if at[2*i] >= 0 {
			limit = min(limit, at[2*i]) // a newline that "$" stands before
		}
	}
	ends := p.ends
	for i := 0; i < len(at)/2 && n < MaxGroups; i++ {
		if len(ends) > 0 && ends[0] == i {
			ends = ends[1:]
			continue
		}
		groups[n] = nil
		if from, to := at[2*i], at[2*i+1]; from >= 0 {
			groups[n] = subject[min(from, limit):min(to, limit)]
		}
		n++
	}
	return n, min(at[0], limit), min(at[1], limit), nil
}

func (p *Pattern) findBacktracking(subject []byte, groups *[MaxGroups][]byte) (n, start, end int, err error) {
	m, err := p.backtrack.FindStringMatch(string(subject))
	if m == nil || err != nil {
		return 0, 0, 0, err
	}
	n = min(m.GroupCount(), MaxGroups)
	for i := range n {
		groups[i] = nil
		if g := m.GroupByNumber(i); g != nil && len(g.Captures) > 0 {
			from, length := g.ByteRange()
			groups[i] = subject[from : from+length]
		}
	}
	start, length := m.ByteRange()
	return n, start, start + length, nil
}

// Patterns are alternatives.
type Patterns []Pattern

// CompilePatterns compiles each of texts as CompilePattern does.
func CompilePatterns(texts []string, fold bool) (Patterns, error) {
	list := make(Patterns, len(texts))
	for i, text := range texts {
		var err error
		if list[i], err = CompilePattern(text, fold); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// Match says whether one of the patterns is found in value. An error says that none was and that the search with one of them took too
// long.
func (l Patterns) Match(value []byte) (bool, error) {
	var failed error
	for i := range l {
		ok, err := l[i].Match(value)
		if ok && err == nil {
			return true, nil
		}
		if err != nil {
			failed = err
		}
	}
	return false, failed
}

// compileLinear fails for a pattern that isn't RE2. ends are as in Pattern.
func compileLinear(text string, fold bool) (re *regexp.Regexp, ends []int, err error) {
	plain := text
	if fold {
		text = "(?i)" + text
	}
	tree, err := syntax.Parse(text, syntax.Perl)
	if err != nil {
		_, err = regexp.Compile(plain) // speaks of the operator's text
		return nil, nil, err
	}
	if loosenDollar(tree) {
		text = tree.String()
		groups := 0
		ends = appendEnds(nil, tree, &groups)
	}
	re, err = regexp.Compile(text)
	return re, ends, err
}

// endGroup is the number that loosenDollar's own groups bear in the tree, where it means nothing: compiling counts anew.
const endGroup = -1

// loosenDollar lets "$" match before a newline that ends the text, as in PCRE; for RE2 it is the very end. The newline becomes a group, by
// which Find knows that it is no part of the match. It says whether there was a "$".
func loosenDollar(re *syntax.Regexp) bool {
	found := false
	for _, sub := range re.Sub {
		found = loosenDollar(sub) || found
	}
	if re.Op != syntax.OpEndText || re.Flags&syntax.WasDollar == 0 {
		return found
	}
	newline := &syntax.Regexp{Op: syntax.OpLiteral, Rune: []rune{'\n'}}
	optional := &syntax.Regexp{Op: syntax.OpQuest, Sub: []*syntax.Regexp{newline}}
	*re = syntax.Regexp{Op: syntax.OpConcat, Sub: []*syntax.Regexp{
		{Op: syntax.OpCapture, Cap: endGroup, Sub: []*syntax.Regexp{optional}},
		{Op: syntax.OpEndText},
	}}
	return true
}

// appendEnds appends the numbers of loosenDollar's groups, in order. groups counts the groups so far.
func appendEnds(dst []int, re *syntax.Regexp, groups *int) []int {
	if re.Op == syntax.OpCapture {
		*groups++
		if re.Cap == endGroup {
			dst = append(dst, *groups)
		}
	}
	for _, sub := range re.Sub {
		dst = appendEnds(dst, sub, groups)
	}
	return dst
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
