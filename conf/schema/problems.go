package schema

import (
	"maps"
	"slices"
)

// Problem is one of several things that are wrong with a document.
type Problem struct {
	// Path leads to what is wrong: names of members (string) and indexes of items (int, from 0). Empty: the document as a whole.
	Path []any
	// Msg is in the words of Validate, without the way that leads there.
	Msg string
	// Unknown says that Path ends in the name of a member that must not be there. Known are those that may, sorted.
	Unknown bool
	Known   []string
}

// Problems returns everything that can be told of what is wrong with doc, in the order of the names; none when Validate returns nil. What
// Validate says is among it, perhaps in another form: where several schemas could apply, Problems says what is wrong by the one that fits
// the type of the value.
func (s *Schema) Problems(doc any) []Problem {
	w := survey{run: run{steps: maxSteps, absent: doc == nil}}
	w.walk(s.root, doc, nil)
	return w.list
}

// survey collects problems.
type survey struct {
	run
	list []Problem
}

func (w *survey) add(p Problem) {
	p.Path = slices.Clone(p.Path)
	w.list = append(w.list, p)
}

// walk adds what is wrong with v, which is at path. What cannot be taken apart is one problem of v itself.
func (w *survey) walk(n *node, v any, path []any) {
	for n.ref != nil {
		n = n.ref
	}
	if w.fits(n, v) {
		return
	}
	before := len(w.list)
	if n.kinds == 0 || n.kinds.fit(v) {
		switch v := v.(type) {
		case map[string]any:
			w.members(n, v, path)
		case []any:
			w.items(n, v, path)
		}
		for _, sub := range n.allOf {
			w.walk(sub, v, path)
		}
		w.alternatives(n, v, path)
	}
	if len(w.list) == before {
		w.add(Problem{Path: path, Msg: w.check(n, v)})
	}
}

func (w *survey) members(n *node, obj map[string]any, path []any) {
	for _, name := range slices.Sorted(maps.Keys(obj)) {
		at := append(path, name)
		p, claimed := n.props[name]
		if claimed {
			w.walk(p, obj[name], at)
		}
		if n.names != nil && !w.fits(n.names, name) {
			w.add(Problem{Path: at, Msg: "property name validation failed: " + w.check(n.names, name)})
		}
		for _, p := range n.patterns {
			if p.pattern.MatchString(name) {
				claimed = true
				w.walk(p.node, obj[name], at)
			}
		}
		switch {
		case claimed:
		case n.closed:
			w.add(Problem{Path: at, Msg: "additional properties forbidden", Unknown: true, Known: slices.Sorted(maps.Keys(n.props))})
		case n.additional != nil:
			w.walk(n.additional, obj[name], at)
		}
	}
	for _, name := range n.required {
		if _, ok := obj[name]; !ok {
			w.add(Problem{Path: path, Msg: `property "` + name + `" is required`})
		}
	}
	for _, d := range n.dependencies {
		if _, ok := obj[d.prop]; !ok {
			continue
		}
		for _, name := range d.needs {
			if _, ok := obj[name]; !ok {
				w.add(Problem{Path: path, Msg: `property "` + name + `" is required when "` + d.prop + `" is set`})
			}
		}
		if d.node != nil {
			w.walk(d.node, obj, path)
		}
	}
}

func (w *survey) items(n *node, arr []any, path []any) {
	for i, v := range arr {
		sub := n.items
		if sub == nil {
			if sub = n.rest; i < len(n.tuple) {
				sub = n.tuple[i]
			}
		}
		if sub != nil {
			w.walk(sub, v, append(path, i))
		}
	}
}

// alternatives looks into the only schema of an anyOf or oneOf that is for values of v's type. A list of members of which one has to be
// there is told whatever else is wrong.
func (w *survey) alternatives(n *node, v any, path []any) {
	if n.requiredOnly != "" && !slices.ContainsFunc(n.anyOf, func(sub *node) bool { return w.fits(sub, v) }) {
		w.add(Problem{Path: path, Msg: "object matches none of the required: " + n.requiredOnly})
		return
	}
	for _, list := range [...][]*node{n.anyOf, n.oneOf} {
		var only *node
		count := 0
		for _, sub := range list {
			for sub.ref != nil {
				sub = sub.ref
			}
			if w.fits(sub, v) {
				count = 0
				break
			}
			if sub.kinds != 0 && sub.kinds.fit(v) {
				only, count = sub, count+1
			}
		}
		if count == 1 {
			w.walk(only, v, path)
		}
	}
}
