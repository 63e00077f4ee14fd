package expr

import (
	"regexp"
	"regexp/syntax"
	"strings"
	"time"

	"github.com/dlclark/regexp2/v2"
)

// backtrackTimeout bounds one match of a pattern that needs backtracking; a match that takes longer is none. The engine reads a coarse
// clock and adds up to two of its ticks, which are 100 ms each unless the process shortens them with regexp2.SetTimeoutCheckPeriod
// before the first match.
const backtrackTimeout = 10 * time.Millisecond

// pattern is a regular expression in the contract's PCRE syntax. The linear engine runs what it understands; look-around and
// back-references go to a backtracking one. The zero pattern, which is also what a broken one compiles to, never matches.
type pattern struct {
	linear    *regexp.Regexp
	backtrack *regexp2.Regexp
}

func newPattern(text string, fold bool) pattern {
	if re := compileLinear(text, fold); re != nil {
		return pattern{linear: re}
	}
	options := regexp2.None
	if fold {
		options = regexp2.IgnoreCase
	}
	re, err := regexp2.Compile(text, options)
	if err != nil {
		// The engine knows one of PCRE's two spellings of a named group.
		re, err = regexp2.Compile(strings.ReplaceAll(text, "(?P<", "(?<"), options)
	}
	if err != nil {
		return pattern{}
	}
	re.MatchTimeout = backtrackTimeout
	return pattern{backtrack: re}
}

func (p pattern) match(value []byte) bool {
	switch {
	case p.linear != nil:
		return p.linear.Match(value)
	case p.backtrack != nil:
		ok, err := p.backtrack.MatchString(string(value))
		return ok && err == nil
	default:
		return false
	}
}

// compileLinear returns nil for a pattern that isn't RE2.
func compileLinear(text string, fold bool) *regexp.Regexp {
	if fold {
		text = "(?i)" + text
	}
	tree, err := syntax.Parse(text, syntax.Perl)
	if err != nil {
		return nil
	}
	if loosenDollar(tree) {
		text = tree.String()
	}
	re, err := regexp.Compile(text)
	if err != nil {
		return nil
	}
	return re
}

// loosenDollar lets "$" match before a newline that ends the text, as in PCRE; for RE2 it is the very end. It says whether there was one.
func loosenDollar(re *syntax.Regexp) bool {
	found := false
	for _, sub := range re.Sub {
		found = loosenDollar(sub) || found
	}
	if re.Op != syntax.OpEndText || re.Flags&syntax.WasDollar == 0 {
		return found
	}
	newline := &syntax.Regexp{Op: syntax.OpLiteral, Rune: []rune{'\n'}}
	*re = syntax.Regexp{Op: syntax.OpConcat, Sub: []*syntax.Regexp{
		{Op: syntax.OpQuest, Sub: []*syntax.Regexp{newline}},
		{Op: syntax.OpEndText},
	}}
	return true
}
