// Package schema checks JSON documents against JSON Schema, draft 7 and older, and says what is wrong in the words of the
// Admin API contract (section 1.6).
//
// Schemas are parsed, checked against their meta schema and resolved by santhosh-tekuri/jsonschema. Documents are judged by this
// package's own walk over the compiled schema, because the contract needs three things that a conforming validator cannot do:
// the empty array is also the empty object (and the reverse), strings that refer to a secret pass every check, and exactly one
// error is told, the same one every time.
package schema

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"time"

	"github.com/dlclark/regexp2/v2"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

// base is the address that relative references between schemas are resolved against. Nothing is ever loaded from it.
const base = "schema://headgate/"

// patternTimeout bounds one match of a pattern that needs backtracking; a pattern that takes longer does not match.
const patternTimeout = 100 * time.Millisecond

// maxSteps bounds the work of one Validate: the number of (schema, value) pairs that are looked at. The largest body that the
// Admin API takes holds fewer than a million values, and the schemas of this repository look at few of them twice.
const maxSteps = 1 << 22

// Schema is a compiled schema. It is immutable and safe for concurrent use.
type Schema struct {
	root *node
}

// Ref names a schema that others may refer to with {"$ref": Name}.
type Ref struct {
	Name string
	JSON []byte
}

// Compile parses the JSON Schema raw. name appears in error texts only. References are resolved inside raw and to refs, never by
// loading a file or an address. A schema that is invalid, newer than draft 7, or that refers to itself without descending into
// the document is refused.
func Compile(name string, raw []byte, refs ...Ref) (*Schema, error) {
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft7)
	c.UseLoader(refuseLoader{})
	c.UseRegexpEngine(compilePattern)
	self := base + url.PathEscape(name)
	for _, r := range append([]Ref{{Name: name, JSON: raw}}, refs...) {
		doc, err := DecodeJSON(r.JSON)
		if err != nil {
			return nil, fmt.Errorf("schema %s: %w", r.Name, err)
		}
		if err := c.AddResource(base+url.PathEscape(r.Name), doc); err != nil {
			return nil, fmt.Errorf("schema %s: %w", r.Name, err)
		}
	}
	compiled, err := c.Compile(self)
	if err != nil {
		return nil, fmt.Errorf("schema %s: %w", name, err)
	}
	b := builder{known: make(map[*jsonschema.Schema]*node)}
	root, err := b.build(compiled)
	if err != nil {
		return nil, fmt.Errorf("schema %s: %w", name, err)
	}
	if err := refuseCycles(root); err != nil {
		return nil, fmt.Errorf("schema %s: %w", name, err)
	}
	return &Schema{root: root}, nil
}

// Validate returns nil when doc satisfies the schema, else an error with the text of contract section 1.6 and no prefix.
// doc is what DecodeJSON returns (map[string]any, []any, json.Number, string, bool, nil); Go's own int, int64 and float64 are
// taken as numbers too. A nil doc means that there is no document; nil inside a document is JSON null.
func (s *Schema) Validate(doc any) error { return s.validate(doc, maxSteps) }

// ValidateData is Validate for what a client has sent: a string means itself there, whatever it looks like, and never refers to a secret.
// A nil doc is JSON null.
func (s *Schema) ValidateData(doc any) error {
	r := run{steps: maxSteps, literal: true}
	return r.validate(s.root, doc)
}

func (s *Schema) validate(doc any, steps int) error {
	r := run{steps: steps, absent: doc == nil}
	return r.validate(s.root, doc)
}

func (r *run) validate(root *node, doc any) error {
	msg := r.check(root, doc)
	if r.steps < 0 {
		return errors.New("the document is too complex for its schema")
	}
	if msg != "" {
		return errors.New(msg)
	}
	return nil
}

// refuseLoader keeps a $ref from reading files or the network.
type refuseLoader struct{}

func (refuseLoader) Load(address string) (any, error) {
	return nil, fmt.Errorf("%s is not a known schema", address)
}

// compilePattern takes the linear-time engine whenever it understands the pattern. Look-around and back references, which
// operators use because the contract's patterns are PCRE, fall to a backtracking engine with a time limit.
func compilePattern(pattern string) (jsonschema.Regexp, error) {
	if re, err := regexp.Compile(pattern); err == nil {
		return re, nil
	}
	re, err := regexp2.Compile(pattern)
	if err != nil {
		return nil, err
	}
	re.MatchTimeout = patternTimeout
	return backtracking{re}, nil
}

type backtracking struct{ re *regexp2.Regexp }

func (b backtracking) String() string { return b.re.String() }

func (b backtracking) MatchString(s string) bool {
	ok, err := b.re.MatchString(s)
	return ok && err == nil
}
