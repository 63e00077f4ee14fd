package rewrite

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"headgate/proxy/phase/headerline"
	"headgate/proxy/phase/wire"
)

//go:embed schema.json
var schemaJSON []byte

// Schema returns the JSON Schema of a rewrite, for the plugins that contain one. The caller owns the bytes.
func Schema() []byte { return bytes.Clone(schemaJSON) }

// Members returns the names of the members that a rewrite has, sorted. The schema lets others pass, as the contract does; this is for
// plugins that don't. The caller owns the slice.
func Members() []string {
	return []string{"headers", "host", "method", "regex_uri", "uri", "use_real_request_uri_unsafe"}
}

// Config is what the operator writes (contract section 4.2, proxy-rewrite). The zero Config changes nothing.
type Config struct {
	// URI is a template for the path and, behind its first "?", the query. It starts with "/" and beats RegexURI.
	URI string
	// RegexURI holds pairs of a pattern and a replacement; the first pattern that matches the client's path counts.
	RegexURI []string
	// Method and Host replace the client's; empty leaves them.
	Method, Host string
	Headers      Headers
	// UseRealRequestURIUnsafe starts from the target as the client sent it and escapes nothing that a request line can carry.
	UseRealRequestURIUnsafe bool
}

// Headers are changes of the header lines, done in this order.
type Headers struct {
	Add, Set []Field
	Remove   []string
}

// Field is a header line whose values are templates. A value that comes out empty means no line: Set takes away what was there.
type Field struct {
	Name   string
	Values []string
}

// Contract section 4.2.
var (
	//lint:ignore ST1005 the contract's text
	errOddPairs   = errors.New("The length of regex_uri should be an even number")
	errHeaderName = errors.New("invalid field character in header")
)

// Validate checks what the schema cannot say, with the contract's texts. raw must satisfy the schema.
func Validate(raw []byte) error {
	_, err := Compile(raw)
	return err
}

// read reads a document that satisfies the schema. Of the strings, those that refer to a secret pass any schema, so whatever must
// not reach a request line is checked here again.
func read(m map[string]any) (c Config, err error) {
	c.URI, _ = m["uri"].(string)
	c.Method, _ = m["method"].(string)
	c.Host, _ = m["host"].(string)
	c.UseRealRequestURIUnsafe, _ = m["use_real_request_uri_unsafe"].(bool)
	pairs, _ := m["regex_uri"].([]any)
	for _, p := range pairs {
		text, _ := p.(string)
		c.RegexURI = append(c.RegexURI, text)
	}
	if headers, ok := m["headers"].(map[string]any); ok {
		c.Headers = decodeHeaders(headers)
	}
	switch {
	case c.URI != "" && c.URI[0] != '/':
		err = errors.New(`property "uri" validation failed: a path starts with "/"`)
	case c.Method != "" && !wire.ValidName([]byte(c.Method)):
		err = errors.New(`property "method" validation failed: not the name of a method`)
	case strings.ContainsFunc(c.Host, func(r rune) bool { return !hostRune(r) }):
		err = errors.New(`property "host" validation failed: not a host name`)
	case len(c.RegexURI)%2 != 0:
		err = errOddPairs
	}
	return c, err
}

func hostRune(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '-' || r == '.' || r == ':'
}

// decodeHeaders understands both forms: add, set and remove, and the old one, whose members are the lines to set.
func decodeHeaders(m map[string]any) (h Headers) {
	add, added := m["add"].(map[string]any)
	set, isSet := m["set"].(map[string]any)
	remove, removed := m["remove"].([]any)
	if !added && !isSet && !removed {
		return Headers{Set: decodeFields(m)}
	}
	h.Add, h.Set = decodeFields(add), decodeFields(set)
	for _, v := range remove {
		name, _ := v.(string)
		h.Remove = append(h.Remove, name)
	}
	return h
}

// decodeFields goes by name: objects have no order.
func decodeFields(m map[string]any) (fields []Field) {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		f := Field{Name: name}
		if list, ok := m[name].([]any); ok {
			for _, v := range list {
				text, _ := headerline.Text(v)
				f.Values = append(f.Values, text)
			}
		} else {
			text, _ := headerline.Text(m[name])
			f.Values = []string{text}
		}
		fields = append(fields, f)
	}
	return fields
}

// Compile makes the Rewriter of a document that satisfies the schema. Errors carry the contract's texts. raw is not kept.
func Compile(raw []byte) (*Rewriter, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var doc any
	if err := d.Decode(&doc); err != nil {
		return nil, err
	}
	m, _ := doc.(map[string]any) // the empty array is also the empty object
	return CompileDecoded(m)
}

// CompileDecoded is Compile for a document that is decoded already, with json.Number for numbers.
func CompileDecoded(doc map[string]any) (*Rewriter, error) {
	c, err := read(doc)
	if err != nil {
		return nil, err
	}
	r := &Rewriter{unsafe: c.UseRealRequestURIUnsafe, host: []byte(c.Host), method: []byte(c.Method)}
	for i := 0; i < len(c.RegexURI); i += 2 {
		s, err := newSubstitution(c.RegexURI[i], c.RegexURI[i+1])
		if err != nil {
			return nil, fmt.Errorf("invalid regex_uri(%s, %s): %w", c.RegexURI[i], c.RegexURI[i+1], err)
		}
		r.substitutions = append(r.substitutions, s)
	}
	if c.URI != "" {
		r.substitutions = nil
		if r.uri, err = newTarget(c.URI, r.unsafe); err != nil {
			return nil, err
		}
	}
	r.lines, err = newLines(&c.Headers)
	return r, err
}
