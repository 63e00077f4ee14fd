package expr

import (
	"regexp"
	"strings"
	"testing"

	"github.com/dlclark/regexp2/v2"
)

// Everything that RE2 understands runs in linear time; the rest is bounded.
func TestPatternEngine(t *testing.T) {
	for _, c := range []struct {
		text              string
		linear, backtrack bool
	}{
		{"^[a-z]+$", true, false},
		{"(a+)+$", true, false},
		{"^/(?!b)", false, true},
		{`(a)\1`, false, true},
		{"(?P<n>a)(?=b)", false, true},
		{"([", false, false},
		{"(?|", false, false},
	} {
		p := newPattern(c.text, false)
		if (p.linear != nil) != c.linear || (p.backtrack != nil) != c.backtrack {
			t.Errorf("%q: linear %v, backtracking %v", c.text, p.linear != nil, p.backtrack != nil)
		}
		if p.backtrack != nil && p.backtrack.MatchTimeout != backtrackTimeout {
			t.Errorf("%q may run for %v", c.text, p.backtrack.MatchTimeout)
		}
	}
}

// Without a bound this match takes longer than anybody waits: every further letter doubles it.
func TestCatastrophicPatternIsBounded(t *testing.T) {
	defer regexp2.StopTimeoutClock()
	e := mustCompile(t, `[["arg_k","~~","^(?!b)(\\w+\\s?)*$"]]`)
	evil := strings.Repeat("a", 64) + "!"
	if _, err := e.root.nodes[0].test.pattern.backtrack.MatchString(evil); err == nil {
		t.Fatal("the pattern is harmless, so that the test shows nothing")
	}
	var scratch Scratch
	if e.Eval(request{"arg_k": evil}, &scratch) {
		t.Error("a match that ran out of time counts")
	}
	if !e.Eval(request{"arg_k": "a b"}, &scratch) {
		t.Error("after a match that ran out of time a good one fails")
	}
}

func TestDollar(t *testing.T) {
	for _, c := range []struct {
		text, value string
		want        bool
	}{
		{"^a$", "a", true},
		{"^a$", "a\n", true},
		{"^a$", "a\nb", false},
		{"^a$", "a\n\n", false},
		{`^a\z`, "a\n", false},
		{`a\$`, "a$", true},
		{"(?m)^a$", "b\na\nb", true},
		{"^(a|b$)", "b\n", true},
		{"^(a$)+", "a", true},
		{"^$", "", true},
		{"^$", "\n", true},
	} {
		for _, fold := range []bool{false, true} {
			if got := newPattern(c.text, fold).match([]byte(c.value)); got != c.want {
				t.Errorf("%q on %q: %v (fold %v)", c.text, c.value, got, fold)
			}
		}
	}
}

// Loosening "$" changes nothing on texts without a newline.
func FuzzPattern(f *testing.F) {
	for _, seed := range []string{"^[a-z]+$", "(?i:A|b$)+", "a$b|$", "(?U)x*?$", "[$]\\$\\z", "(?s-m).$", "(?=x", "(a*)*$"} {
		f.Add(seed, "abc")
	}
	f.Fuzz(func(t *testing.T, text, value string) {
		if len(text) > 100 || strings.Contains(value, "\n") {
			return
		}
		plain, err := regexp.Compile(text)
		p := compileLinear(text, false)
		if (err == nil) != (p != nil) {
			t.Fatalf("%q: regexp says %v", text, err)
		}
		if p != nil && p.MatchString(value) != plain.MatchString(value) {
			t.Fatalf("%q as %q differs on %q", text, p, value)
		}
	})
}
