package conf

import (
	"sort"
	"strconv"
	"strings"
)

// Problem is one thing that is wrong with the file.
type Problem struct {
	File string
	Line int    // from 1; 0 = the file as a whole
	Key  string // "admin.keys[0].key"; "" when the text could not be read as TOML
	Msg  string // what was expected, and what was found unless it is a secret
}

func (p Problem) Error() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Line > 0 {
		b.WriteByte(':')
		b.WriteString(strconv.Itoa(p.Line))
	}
	b.WriteString(": ")
	if p.Key != "" {
		b.WriteString(p.Key)
		b.WriteString(": ")
	}
	b.WriteString(p.Msg)
	return b.String()
}

// Problems is the error of Load and Parse: everything that is wrong, in the order of the file, never empty when returned.
type Problems []Problem

// Error prints one problem per line.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.Error()
	}
	return strings.Join(lines, "\n")
}

func (ps Problems) sortByLine() {
	sort.SliceStable(ps, func(i, j int) bool { return ps[i].Line < ps[j].Line })
}

// source remembers where the keys of a parsed file stand. The zero value belongs to a Config without a file.
type source struct {
	name  string
	lines map[string]int
}

// line returns the line of key, or that of the nearest enclosing table or array that the file mentions.
func (s source) line(key string) int {
	for key != "" {
		if n, ok := s.lines[key]; ok {
			return n
		}
		key = parentKey(key)
	}
	if s.lines == nil {
		return 0
	}
	return 1
}

// Lines returns a function that finds the line of a key ("routes[0].uri") in a TOML text, or that of the nearest enclosing table or
// array, from 1. text is not kept.
func Lines(text []byte) func(key string) int {
	return source{lines: locate(text)}.line
}

// parentKey cuts the last part off: "a.b[2]" -> "a.b" -> "a" -> "". Quoted parts may contain dots and brackets.
func parentKey(key string) string {
	end := 0 // start of the last part seen so far
	for i := 0; i < len(key); i++ {
		switch key[i] {
		case '.', '[':
			end = i
		case '"':
			for i++; i < len(key) && key[i] != '"'; i++ {
				if key[i] == '\\' {
					i++
				}
			}
		}
	}
	return key[:end]
}

// childKey appends a name to a key, quoted when it is not a bare TOML key.
func childKey(parent, name string) string {
	if !isBareKey(name) {
		name = strconv.Quote(name)
	}
	if parent == "" {
		return name
	}
	return parent + "." + name
}

// KeyAt returns the key of what is below parent on path: names of members (string) and indexes of items (int, from 0).
func KeyAt(parent string, path []any) string {
	for _, part := range path {
		switch part := part.(type) {
		case string:
			parent = childKey(parent, part)
		case int:
			parent = indexKey(parent, part)
		}
	}
	return parent
}

func indexKey(parent string, i int) string { return parent + "[" + strconv.Itoa(i) + "]" }

func isBareKey(s string) bool {
	for i := 0; i < len(s); i++ {
		if !isBareKeyByte(s[i]) {
			return false
		}
	}
	return s != ""
}

func isBareKeyByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_' || c == '-'
}

// At returns a Problem at key of the file that c was parsed from, for checks that other rooms make (plugin settings of an inline
// resource, say). Keys look like "routes[0].plugins.key-auth".
func (c *Config) At(key, msg string) Problem {
	return Problem{File: c.source.name, Line: c.source.line(key), Key: key, Msg: msg}
}
