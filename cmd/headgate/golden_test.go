package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// golden is one file of testdata: a few words, then sections that begin with "-- name --".
//
//	config    TOML, as in the configuration file
//	admin     calls of the Admin API, an empty line between two: "METHOD /path", the body on the lines below
//	upstream  what the upstreams answer, one message after the other; without it a short 200
//	request   what the client sends, in one write
//	saw       what the upstreams got
//	reply     what the client got
//	log       the lines of the access log, sorted: their order is not promised
//
// The last three are expectations, which -update rewrites; log is compared where the file has it. A line "replies: 2" among the words
// says how many answers the client waits for, if not one.
//
// Wire text is written line by line: the ends of lines do not count, and \r, \n, \t, \\ and \xNN stand for bytes. A line in double
// braces is a direction and not text: {{next}} ends a message; {{close}} and {{reset}} make the upstream end the connection, {{silence}}
// makes it wait until the gateway does; {{until TEXT}} makes it wait until the client has got TEXT; {{open}} and {{closed}} say what
// became of the client's connection. {{upstream}}, {{upstream2}}, {{dead}}, {{port}} and {{date}} inside of text stand for addresses,
// the gateway's port and a date, {{upstream port}} and so on for the port of an address.
type golden struct {
	file     string
	words    string
	names    []string
	sections map[string]string
	replies  int
}

var sectionLine = regexp.MustCompile(`^-- (config|admin|upstream|request|saw|reply|log) --$`)

func readGolden(t *testing.T, file string) *golden {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	g := &golden{file: file, sections: map[string]string{}, replies: 1}
	section := ""
	var content strings.Builder
	end := func() {
		if section == "" {
			g.words = content.String()
		} else {
			g.sections[section] = content.String()
		}
		content.Reset()
	}
	for line := range strings.Lines(string(text)) {
		m := sectionLine.FindStringSubmatch(strings.TrimSuffix(line, "\n"))
		if m == nil {
			content.WriteString(line)
			continue
		}
		end()
		section = m[1]
		g.names = append(g.names, section)
	}
	end()
	if m := regexp.MustCompile(`(?m)^replies: (\d+)$`).FindStringSubmatch(g.words); m != nil {
		g.replies, _ = strconv.Atoi(m[1])
	}
	if g.words == "" || g.sections["request"] == "" {
		t.Fatalf("%s: every file says what it is about and has a request", file)
	}
	return g
}

// save writes the file with got in the place of the expectations.
func (g *golden) save(t *testing.T, got map[string]string) {
	t.Helper()
	for _, name := range []string{"saw", "reply"} {
		if !slices.Contains(g.names, name) {
			g.names = append(g.names, name)
		}
	}
	var b strings.Builder
	b.WriteString(g.words)
	for _, name := range g.names {
		text, expectation := got[name]
		if !expectation {
			text = g.sections[name]
		}
		fmt.Fprintf(&b, "-- %s --\n%s", name, text)
	}
	if err := os.WriteFile(g.file, []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

// compare reports every expectation that got does not meet.
func (g *golden) compare(t *testing.T, got map[string]string) {
	t.Helper()
	for _, name := range []string{"saw", "reply", "log"} {
		want, ok := g.sections[name]
		if !ok && name == "log" {
			continue
		}
		if got[name] != want {
			t.Errorf("%s\n-- %s, got --\n%s-- want --\n%s", strings.TrimSpace(g.words), name, got[name], want)
		}
	}
}

// wireText turns written text into bytes.
func wireText(t testing.TB, text string) string {
	t.Helper()
	var b strings.Builder
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		for i := 0; i < len(line); i++ {
			if line[i] != '\\' {
				b.WriteByte(line[i])
				continue
			}
			i++
			switch {
			case i == len(line):
				t.Fatalf("a line ends in a backslash: %s", line)
			case line[i] == 'r':
				b.WriteByte('\r')
			case line[i] == 'n':
				b.WriteByte('\n')
			case line[i] == 't':
				b.WriteByte('\t')
			case line[i] == '\\':
				b.WriteByte('\\')
			case line[i] == 'x' && i+2 < len(line):
				n, err := strconv.ParseUint(line[i+1:i+3], 16, 8)
				if err != nil {
					t.Fatalf("%s: %v", line, err)
				}
				b.WriteByte(byte(n))
				i += 2
			default:
				t.Fatalf("unknown escape in %s", line)
			}
		}
	}
	return b.String()
}

// writtenText is the opposite of wireText.
func writtenText(raw string) string {
	var b strings.Builder
	start := true
	for i := range len(raw) {
		c := raw[i]
		switch {
		case c == '\n':
			b.WriteString("\\n\n")
			start = true
			continue
		case c == '\r':
			b.WriteString(`\r`)
		case c == '\t':
			b.WriteString(`\t`)
		case c == '\\':
			b.WriteString(`\\`)
		case c < ' ' || c >= 0x7f || start && c == '-':
			fmt.Fprintf(&b, `\x%02x`, c)
		default:
			b.WriteByte(c)
		}
		start = false
	}
	if !start {
		b.WriteByte('\n')
	}
	return b.String()
}

func TestGoldenText(t *testing.T) {
	for _, raw := range []string{"", "a", "a\r\nb\n", "\x00\xff\\r\t", "-- reply --\n", "\n\n"} {
		written := writtenText(raw)
		if back := wireText(t, written); back != raw {
			t.Errorf("%q became %q by way of %q", raw, back, written)
		}
		if strings.Contains(written, "\n-- ") || strings.HasPrefix(written, "-- ") {
			t.Errorf("%q could be taken for a section", written)
		}
	}
}

// goldenFiles lists the files of testdata in directories, which are features.
func goldenFiles(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("testdata/*/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	return files
}
