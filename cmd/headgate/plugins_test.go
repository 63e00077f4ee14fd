package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"headgate/plugins"
)

// shownElsewhere are the plugins whose answers on the wire are not the same each time, with where they are shown instead.
var shownElsewhere = map[string]string{
	"api-breaker": "what it does depends on the time that passes: plugins/api-breaker, by a clock of its own",
	"csrf":        "every answer has another token: plugins/csrf",
}

// neverRefusing are the plugins that change an exchange, or look at it, and refuse none.
var neverRefusing = map[string]bool{
	"attach-consumer-label": true, "brotli": true, "cors": true, "error-page": true, "gzip": true, "mocking": true, "prometheus": true, "proxy-buffering": true, "proxy-control": true,
	"proxy-mirror": true, "proxy-rewrite": true, "real-ip": true, "redirect": true, "request-id": true, "response-rewrite": true,
	"traffic-label": true, "traffic-split": true,
}

// neverPassing are those that answer whatever comes.
var neverPassing = map[string]bool{"public-api": true}

var (
	schemaTest = regexp.MustCompile(`(?m)^func Test(Refusals|Schemas?|Config)\(`)
	configFuzz = regexp.MustCompile(`(?m)^func Fuzz(Config|Metadata)\(`)
	statusLine = regexp.MustCompile(`(?m)HTTP/1\.1 ([1-5])\d\d `)
)

// Every plugin of the list shows on the wire how it lets pass and how it refuses (testdata/plugins/NAME.txt, or other
// goldens that configure it; TestWire plays them), and has in its own room tests of what its schema refuses and of allocations, and a fuzz
// target for its configuration.
func TestEveryPluginIsShown(t *testing.T) {
	listed := map[string]bool{}
	for _, k := range plugins.List(plugins.Options{}) {
		listed[k.Name] = true
		checkGolden(t, k.Name)
		tests := roomTests(t, k.Name)
		for what, found := range map[string]bool{
			"a test of what the schema refuses":      schemaTest.MatchString(tests),
			"an assertion that nothing is allocated": strings.Contains(tests, "testing.AllocsPerRun("),
			"a fuzz target for the configuration":    configFuzz.MatchString(tests),
		} {
			if !found {
				t.Errorf("%s: plugins/%[1]s has not %s", k.Name, what)
			}
		}
	}
	for _, names := range []map[string]bool{neverRefusing, neverPassing} {
		for name := range names {
			if !listed[name] {
				t.Errorf("%s is no plugin", name)
			}
		}
	}
	for name := range shownElsewhere {
		if !listed[name] {
			t.Errorf("%s is no plugin", name)
		}
	}
}

func checkGolden(t *testing.T, name string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "plugins", name+".txt"))
	if why := shownElsewhere[name]; why != "" {
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s has a golden (%v), and a reason to have none: %s", name, err, why)
		}
		return
	}
	replies := goldensWith(t, name)
	if err == nil {
		replies = repliesOf(text, name)
	}
	passed, refused := false, false
	for _, m := range statusLine.FindAllStringSubmatch(replies, -1) {
		passed = passed || m[1] == "2"
		refused = refused || m[1] == "4" || m[1] == "5"
	}
	if !passed && !neverPassing[name] || !refused && !neverRefusing[name] {
		t.Errorf("%s: the goldens (testdata/plugins/%[1]s.txt, or all that configure it) do not show both what passes (%v) and what is refused (%v)",
			name, passed, refused)
	}
}

// goldensWith returns the answers in all goldens that configure the plugin.
func goldensWith(t *testing.T, name string) string {
	t.Helper()
	var all strings.Builder
	for _, file := range goldenFiles(t) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all.WriteString(repliesOf(text, name))
	}
	return all.String()
}

// repliesOf returns the answers in a golden that configures the plugin, "" in any other.
func repliesOf(golden []byte, name string) string {
	text := string(golden)
	if !strings.Contains(text, "plugins."+name) && !strings.Contains(text, `"`+name+`":`) && !strings.Contains(text, `id = "`+name+`"`) {
		return ""
	}
	_, reply, _ := strings.Cut(text, "-- reply --\n")
	return reply
}

// roomTests returns the text of the tests in a plugin's room.
func roomTests(t *testing.T, name string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("..", "..", "plugins", name, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(text)
	}
	return all.String()
}
