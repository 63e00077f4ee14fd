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
		p, err := CompilePattern(c.text, false)
		if (err == nil) != (c.linear || c.backtrack) {
			t.Errorf("%q: %v", c.text, err)
		}
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
			p, err := CompilePattern(c.text, fold)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := p.Match([]byte(c.value)); got != c.want || err != nil {
				t.Errorf("%q on %q: %v (fold %v)", c.text, c.value, got, fold)
			}
		}
	}
}

// Both engines find the same groups where both could run.
func TestFind(t *testing.T) {
	for _, c := range []struct {
		text, subject string
		start, end    int
		groups        []string // "-" for one that took no part
	}{
		{"^/a/(.*)", "/a/b", 0, 4, []string{"/a/b", "b"}},
		{"^/a/(.*)", "/a/b\nc", 0, 4, []string{"/a/b", "b"}},
		{"^/a/(.*)", "/b", 0, 0, nil},
		{"b(c)?(d)", "abd", 1, 3, []string{"bd", "-", "d"}},
		{"(a)(x$)?b$", "ab\n", 0, 2, []string{"ab", "a", "-"}},
		{"^/a/(.*)$", "/a/b\n", 0, 4, []string{"/a/b", "b"}},
		{"a(b$)", "ab\n", 0, 2, []string{"ab", "b"}},
		{"^a(\\s*)$", "a\n", 0, 2, []string{"a\n", "\n"}},
		{"é(.)", "/é\xffx", 1, 4, []string{"é\xff", "\xff"}},
		{"(?P<n>a)(b)", "ab", 0, 2, []string{"ab", "a", "b"}},
		{strings.Repeat("(a)", MaxGroups), strings.Repeat("a", MaxGroups), 0, MaxGroups,
			append([]string{strings.Repeat("a", MaxGroups)}, strings.Split(strings.Repeat("a", MaxGroups-1), "")...)},
	} {
		for _, ahead := range []string{"", "(?=)"} { // only one engine has look-ahead
			p, err := CompilePattern(c.text+ahead, false)
			if err != nil || (p.linear == nil) != (ahead != "") {
				t.Fatalf("%q: %v", c.text+ahead, err)
			}
			if want := len(c.groups); want > 0 && want < MaxGroups && p.Groups() != want {
				t.Errorf("%q: %d groups, want %d", c.text+ahead, p.Groups(), want)
			}
			var groups [MaxGroups][]byte
			n, start, end, err := p.Find([]byte(c.subject), &groups)
			if n != len(c.groups) || start != c.start || end != c.end || err != nil {
				t.Errorf("%q on %q: %d groups, %d to %d (%v)", c.text+ahead, c.subject, n, start, end, err)
				continue
			}
			for i, want := range c.groups {
				if got := groups[i]; want == "-" && got != nil || want != "-" && (got == nil || string(got) != want) {
					t.Errorf("%q on %q: group %d is %q, want %q", c.text+ahead, c.subject, i, got, want)
				}
			}
		}
	}
}

// A search that takes too long finds nothing and says so, unless another pattern settles it.
func TestSlowSearch(t *testing.T) {
	defer regexp2.StopTimeoutClock()
	evil := []byte(strings.Repeat("a", 64) + "!")
	list, err := CompilePatterns([]string{"^(?!b)(\\w+\\s?)*$", "!$"}, false)
	if err != nil {
		t.Fatal(err)
	}
	var groups [MaxGroups][]byte
	if n, _, _, err := list[0].Find(evil, &groups); n != 0 || err == nil {
		t.Errorf("Find: %d groups, %v", n, err)
	}
	if ok, err := list[:1].Match(evil); ok || err == nil {
		t.Errorf("the slow one: %v, %v", ok, err)
	}
	if ok, err := list.Match(evil); !ok || err != nil {
		t.Errorf("with one that matches: %v, %v", ok, err)
	}
	if ok, err := list.Match([]byte("-")); ok || err != nil {
		t.Errorf("harmless: %v, %v", ok, err)
	}
	if _, err := CompilePatterns([]string{"a", "(["}, true); err == nil || !strings.HasSuffix(err.Error(), "`[`") {
		t.Errorf("broken: %v", err)
	}
}

func TestPrefixIsRecognised(t *testing.T) {
	for pattern, want := range map[string]string{
		"^/a/(.*)": "/a/", "^/a/(.*)$": "/a/", "^/a/(?P<rest>.*)": "/a/", "^/v1\\.0/(.*)": "/v1.0/",
		"/a/(.*)": "", "^/a/(.*?)": "", "^/a/(.+)": "", "(?i)^/a/(.*)": "", "(?s)^/a/(.*)": "", "^/a/(.*)/b": "", "^/a/(.*)(.*)": "",
		"^(.*)": "", "^/a/.*": "", "(?m)^/a/(.*)": "", "^/a|b(.*)": "", "^/[ab]/(.*)": "", "(": "",
	} {
		if got := string(literalPrefix(pattern)); got != want {
			t.Errorf("%s: got %q, want %q", pattern, got, want)
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
		p, ends, failed := compileLinear(text, false)
		if (err == nil) != (failed == nil) || (err == nil) != (p != nil) {
			t.Fatalf("%q: regexp says %v, not %v", text, err, failed)
		}
		if p != nil && p.MatchString(value) != plain.MatchString(value) {
			t.Fatalf("%q as %q differs on %q", text, p, value)
		}
		if p == nil {
			return
		}
		var groups [MaxGroups][]byte
		n, start, end, _ := (&Pattern{linear: p, ends: ends, prefix: literalPrefix(text)}).Find([]byte(value), &groups)
		at := plain.FindStringSubmatchIndex(value)
		if n != min(len(at)/2, MaxGroups) || n > 0 && (start != at[0] || end != at[1]) {
			t.Fatalf("%q as %q on %q: %d groups, %d to %d; regexp says %v", text, p, value, n, start, end, at)
		}
		for i := range n {
			if got := groups[i]; (got != nil) != (at[2*i] >= 0) || got != nil && string(got) != value[at[2*i]:at[2*i+1]] {
				t.Fatalf("%q as %q on %q: group %d is %q; regexp says %v", text, p, value, i, got, at)
			}
		}
	})
}
