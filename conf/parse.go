package conf

import (
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"strings"

	"github.com/BurntSushi/toml"
)

// maxFileSize bounds the configuration file; inline resources are the only thing that makes one grow.
const maxFileSize = 16 * MiB

// Load reads and checks the file at path. Environment references are looked up in the process environment and file references
// with ReadSecretFile. The error is a Problems value unless the file could not be read at all.
func Load(path string) (*Config, error) {
	c, err := Examine(path)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// Examine is Load for who wants to know everything that is wrong: when the text is TOML, there is a Config beside the Problems. Each of
// its sections that has a problem is the default one; inline resources are as they are.
func Examine(path string) (*Config, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, int64(maxFileSize)+1))
	if err != nil {
		return nil, err
	}
	if Size(len(text)) > maxFileSize {
		return nil, Problems{{File: path, Msg: "expected at most " + maxFileSize.String() + " of text"}}
	}
	return parse(path, text, os.LookupEnv, ReadSecretFile)
}

// Parse reads and checks text as the content of the file called name. Settings that text does not mention have their defaults.
// getenv looks up environment references and readFile file references; either may be nil, then such a reference is an error.
// text is not kept. A non-nil error is a Problems value; no Config is returned with it.
func Parse(name string, text []byte, getenv func(string) (string, bool), readFile func(string) ([]byte, error)) (*Config, error) {
	c, err := parse(name, text, getenv, readFile)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// parse is Parse with the Config of Examine.
func parse(name string, text []byte, getenv func(string) (string, bool), readFile func(string) ([]byte, error)) (*Config, error) {
	var tree map[string]any
	if _, err := toml.Decode(string(text), &tree); err != nil {
		return nil, Problems{syntaxProblem(name, err)}
	}
	c := Default()
	c.source = source{name: name, lines: locate(text)}
	d := decoder{source: c.source, getenv: getenv, readFile: readFile, reported: map[string]struct{}{}}
	d.config(c, tree)
	// A value that could not be decoded still has its default here, so check finds no follow-up errors of it.
	check(c, d.add)
	if len(d.problems) > 0 {
		d.problems.sortByLine()
		c.forget(d.problems)
		return c, d.problems
	}
	return c, nil
}

// forget puts the defaults in the place of sections that have problems.
func (c *Config) forget(problems Problems) {
	now, defaults := reflect.ValueOf(c).Elem(), reflect.ValueOf(Default()).Elem()
	for _, p := range problems {
		section, _, _ := strings.Cut(p.Key, ".")
		if f, ok := fieldByName(now.Type(), section); ok && f.Type.Kind() == reflect.Struct {
			now.FieldByIndex(f.Index).Set(defaults.FieldByIndex(f.Index))
		}
	}
}

// syntaxProblem keeps what the parser says except where it quotes the text: that may be a key which somebody forgot to quote.
func syntaxProblem(name string, err error) Problem {
	p := Problem{File: name, Line: 1, Msg: "not valid TOML"}
	var pe toml.ParseError
	if !errors.As(err, &pe) {
		return p
	}
	p.Line = max(1, pe.Position.Line)
	if strings.Contains(pe.Message, `"`) {
		p.Msg = fmt.Sprintf("not valid TOML after %q: expected a value; strings need quotes", pe.LastKey)
		return p
	}
	p.Msg = "not valid TOML: " + strings.TrimSuffix(pe.Message, ".")
	return p
}
