package schema

import (
	"cmp"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// node is one schema, laid out in the order in which its keywords are told to the operator.
type node struct {
	never bool  // the schema false
	ref   *node // set: nothing else counts (draft 7)

	types []string // empty: any type
	kinds kinds    // the same

	// objects
	props        map[string]*node
	required     []string          // in the schema's order
	dependencies []dependency      // sorted by property
	patterns     []patternProperty // sorted by pattern
	closed       bool              // additionalProperties is false
	additional   *node
	names        *node
	minProps     int
	maxProps     int // -1: no limit, as all limits below

	// arrays
	minItems   int
	maxItems   int
	unique     bool
	items      *node
	tuple      []*node
	endOfTuple bool // additionalItems is false
	rest       *node
	contains   *node

	// strings
	minLength int
	maxLength int
	pattern   jsonschema.Regexp
	format    string

	// numbers; nil: no limit
	minimum, maximum, above, below, multipleOf *float64

	enum     []string // canonical forms; nil: no enum
	constant *string  // canonical form

	allOf, anyOf, oneOf []*node
	requiredOnly        string // anyOf whose branches are all a bare "required": the list of them, as told to the operator
	not                 *node
	cond, then, orElse  *node
}

// dependency says what else must hold when prop is present: either the names in needs, or node for the whole object.
type dependency struct {
	prop  string
	needs []string
	node  *node
}

type patternProperty struct {
	pattern jsonschema.Regexp
	node    *node
}

type builder struct {
	known map[*jsonschema.Schema]*node
}

// build translates a compiled schema. Schemas may be shared and recursive, hence the memo.
func (b *builder) build(s *jsonschema.Schema) (*node, error) {
	if s == nil {
		return nil, nil
	}
	if n, ok := b.known[s]; ok {
		return n, nil
	}
	n := &node{maxProps: -1, maxItems: -1, maxLength: -1}
	b.known[s] = n
	if s.DraftVersion > 7 {
		return nil, fmt.Errorf("draft %d is not supported, use draft 7", s.DraftVersion)
	}
	if s.Bool != nil {
		n.never = !*s.Bool
		return n, nil
	}
	var err error
	if s.Ref != nil {
		n.ref, err = b.build(s.Ref)
		return n, err
	}
	if s.Types != nil {
		n.types = s.Types.ToStrings()
		n.kinds = kindsOf(n.types)
	}
	if s.Enum != nil {
		n.enum = make([]string, 0, len(s.Enum.Values))
		for _, v := range s.Enum.Values {
			n.enum = append(n.enum, canonical(v))
		}
	}
	if s.Const != nil {
		c := canonical(*s.Const)
		n.constant = &c
	}
	if err := b.object(n, s); err != nil {
		return nil, err
	}
	if err := b.array(n, s); err != nil {
		return nil, err
	}
	scalars(n, s)
	return n, b.combine(n, s)
}

func (b *builder) object(n *node, s *jsonschema.Schema) error {
	n.required = s.Required
	limit(&n.minProps, s.MinProperties)
	limit(&n.maxProps, s.MaxProperties)
	n.props = make(map[string]*node, len(s.Properties))
	for name, sub := range s.Properties {
		p, err := b.build(sub)
		if err != nil {
			return err
		}
		n.props[name] = p
	}
	for re, sub := range s.PatternProperties {
		p, err := b.build(sub)
		if err != nil {
			return err
		}
		n.patterns = append(n.patterns, patternProperty{re, p})
	}
	slices.SortFunc(n.patterns, func(a, b patternProperty) int { return cmp.Compare(a.pattern.String(), b.pattern.String()) })
	for prop, dep := range s.Dependencies {
		d := dependency{prop: prop}
		switch dep := dep.(type) {
		case []string:
			d.needs = dep
		case *jsonschema.Schema:
			p, err := b.build(dep)
			if err != nil {
				return err
			}
			d.node = p
		}
		n.dependencies = append(n.dependencies, d)
	}
	slices.SortFunc(n.dependencies, func(a, b dependency) int { return cmp.Compare(a.prop, b.prop) })
	var err error
	switch a := s.AdditionalProperties.(type) {
	case bool:
		n.closed = !a
	case *jsonschema.Schema:
		if n.additional, err = b.build(a); err != nil {
			return err
		}
	}
	n.names, err = b.build(s.PropertyNames)
	return err
}

func (b *builder) array(n *node, s *jsonschema.Schema) error {
	limit(&n.minItems, s.MinItems)
	limit(&n.maxItems, s.MaxItems)
	n.unique = s.UniqueItems
	var err error
	switch items := s.Items.(type) {
	case *jsonschema.Schema:
		if n.items, err = b.build(items); err != nil {
			return err
		}
	case []*jsonschema.Schema:
		if n.tuple, err = b.list(items); err != nil {
			return err
		}
		switch a := s.AdditionalItems.(type) {
		case bool:
			n.endOfTuple = !a
		case *jsonschema.Schema:
			if n.rest, err = b.build(a); err != nil {
				return err
			}
		}
	}
	n.contains, err = b.build(s.Contains)
	return err
}

func scalars(n *node, s *jsonschema.Schema) {
	limit(&n.minLength, s.MinLength)
	limit(&n.maxLength, s.MaxLength)
	n.pattern = s.Pattern
	if s.Format != nil {
		n.format = s.Format.Name
	}
	n.minimum = float(s.Minimum)
	n.maximum = float(s.Maximum)
	n.above = float(s.ExclusiveMinimum)
	n.below = float(s.ExclusiveMaximum)
	n.multipleOf = float(s.MultipleOf)
}

func (b *builder) combine(n *node, s *jsonschema.Schema) (err error) {
	if n.allOf, err = b.list(s.AllOf); err != nil {
		return err
	}
	if n.anyOf, err = b.list(s.AnyOf); err != nil {
		return err
	}
	if n.oneOf, err = b.list(s.OneOf); err != nil {
		return err
	}
	n.requiredOnly = requiredOnly(s.AnyOf)
	for _, x := range []struct {
		to   **node
		from *jsonschema.Schema
	}{{&n.not, s.Not}, {&n.cond, s.If}, {&n.then, s.Then}, {&n.orElse, s.Else}} {
		if *x.to, err = b.build(x.from); err != nil {
			return err
		}
	}
	return nil
}

func (b *builder) list(from []*jsonschema.Schema) ([]*node, error) {
	var to []*node
	for _, s := range from {
		n, err := b.build(s)
		if err != nil {
			return nil, err
		}
		to = append(to, n)
	}
	return to, nil
}

// requiredOnly renders the alternatives of an anyOf when each of them says nothing but "required".
func requiredOnly(anyOf []*jsonschema.Schema) string {
	var sb strings.Builder
	for i, s := range anyOf {
		if len(s.Required) == 0 || s.Types != nil || len(s.Properties) > 0 || s.Not != nil || len(s.AnyOf) > 0 || len(s.AllOf) > 0 ||
			len(s.OneOf) > 0 || s.Ref != nil {
			return ""
		}
		if i > 0 {
			sb.WriteString(" or ")
		}
		sb.WriteByte('[')
		for j, name := range s.Required {
			if j > 0 {
				sb.WriteByte(',')
			}
			sb.WriteString(canonical(name))
		}
		sb.WriteByte(']')
	}
	return sb.String()
}

func limit(to *int, from *int) {
	if from != nil {
		*to = *from
	}
}

func float(r *big.Rat) *float64 {
	if r == nil {
		return nil
	}
	f, _ := r.Float64()
	return &f
}

// refuseCycles finds schemas that apply themselves to the same value again and would therefore never come to an end.
func refuseCycles(root *node) error {
	const open, done = 1, 2
	state := make(map[*node]int)
	var visit func(n *node) error
	visit = func(n *node) error {
		if n == nil || state[n] == done {
			return nil
		}
		if state[n] == open {
			return errors.New("a schema refers to itself for the same value")
		}
		state[n] = open
		for _, next := range n.samePlace() {
			if err := visit(next); err != nil {
				return err
			}
		}
		state[n] = done
		return nil
	}
	// Every node must be a starting point, not only those that the root applies to its own value.
	seen := make(map[*node]struct{})
	var walk func(n *node) error
	walk = func(n *node) error {
		if n == nil {
			return nil
		}
		if _, ok := seen[n]; ok {
			return nil
		}
		seen[n] = struct{}{}
		if err := visit(n); err != nil {
			return err
		}
		for _, next := range append(n.samePlace(), n.deeper()...) {
			if err := walk(next); err != nil {
				return err
			}
		}
		return nil
	}
	return walk(root)
}

// looksAtNames says that n has to do with what the members of an object are called, limitsNames that it has a word on those that it does
// not name.
func (n *node) looksAtNames() bool { return len(n.props) > 0 || n.limitsNames() }

func (n *node) limitsNames() bool {
	return len(n.patterns) > 0 || n.closed || n.additional != nil || n.names != nil
}

// samePlace lists the schemas that n applies to the value that it is applied to itself.
func (n *node) samePlace() []*node {
	list := []*node{n.ref, n.not, n.cond, n.then, n.orElse}
	list = append(list, n.allOf...)
	list = append(list, n.anyOf...)
	list = append(list, n.oneOf...)
	for _, d := range n.dependencies {
		list = append(list, d.node)
	}
	return list
}

// deeper lists the schemas that n applies to parts of the value.
func (n *node) deeper() []*node {
	list := []*node{n.additional, n.names, n.items, n.rest, n.contains}
	list = append(list, n.tuple...)
	for _, p := range n.props {
		list = append(list, p)
	}
	for _, p := range n.patterns {
		list = append(list, p.node)
	}
	return list
}
