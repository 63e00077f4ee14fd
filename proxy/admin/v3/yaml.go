package v3

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"

	"headgate/conf/resource"
	"headgate/conf/schema"
)

const (
	typeYAML = "application/yaml"
	// maxYAMLNodes bounds what aliases can make of a document.
	maxYAMLNodes = 4 << 20
)

// fromYAML reads one YAML document into the types of schema.DecodeJSON. Numbers keep their text where JSON could have written them.
// Aliases and merge keys are followed; a document that they blow up, and one that is nested too deeply, is refused.
func fromYAML(raw []byte) (any, error) {
	file, err := parser.ParseBytes(raw, 0)
	if err != nil {
		return nil, errors.New(yaml.FormatError(err, false, false))
	}
	var body ast.Node
	for _, doc := range file.Docs {
		if doc.Body == nil {
			continue
		}
		if body != nil {
			return nil, errors.New("expected one document")
		}
		body = doc.Body
	}
	r := yamlReader{anchors: map[string]ast.Node{}, nodes: maxYAMLNodes}
	return r.value(body, 0)
}

type yamlReader struct {
	anchors map[string]ast.Node
	nodes   int // still allowed
}

func (r *yamlReader) value(n ast.Node, depth int) (any, error) {
	if r.nodes--; r.nodes < 0 {
		return nil, errors.New("the document is too large once its aliases are followed")
	}
	if depth > schema.MaxDepth {
		return nil, fmt.Errorf("nested deeper than %d levels", schema.MaxDepth)
	}
	switch n := n.(type) {
	case nil, *ast.NullNode:
		return nil, nil
	case *ast.StringNode:
		if n.GetToken().Type == token.StringType && isNumber(n.Value) { // 1e30, which the parser takes for text
			return yamlNumber(n.Value, n.Value)
		}
		return n.Value, nil
	case *ast.LiteralNode:
		return n.Value.Value, nil
	case *ast.BoolNode:
		return n.Value, nil
	case *ast.IntegerNode:
		return yamlNumber(n.GetToken().Value, fmt.Sprint(n.Value))
	case *ast.FloatNode:
		return yamlNumber(n.GetToken().Value, strconv.FormatFloat(n.Value, 'g', -1, 64))
	case *ast.SequenceNode:
		list := make([]any, 0, len(n.Values))
		for _, item := range n.Values {
			v, err := r.value(item, depth+1)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		return list, nil
	case *ast.MappingNode:
		return r.object(n.Values, depth)
	case *ast.MappingValueNode:
		return r.object([]*ast.MappingValueNode{n}, depth)
	case *ast.AnchorNode:
		r.anchors[n.Name.GetToken().Value] = n.Value
		return r.value(n.Value, depth)
	case *ast.AliasNode:
		name := n.Value.GetToken().Value
		target, ok := r.anchors[name]
		if !ok {
			return nil, errors.New("unknown alias " + strconv.Quote(name))
		}
		return r.value(target, depth+1)
	}
	return nil, fmt.Errorf("line %d: %s has no meaning in JSON", n.GetToken().Position.Line, n.Type())
}

// object reads members. What a merge key brings in does not replace what is written out.
func (r *yamlReader) object(members []*ast.MappingValueNode, depth int) (any, error) {
	obj := make(map[string]any, len(members))
	written := make(map[string]bool, len(members))
	for _, m := range members {
		v, err := r.value(m.Value, depth+1)
		if err != nil {
			return nil, err
		}
		if m.Key.IsMergeKey() {
			if err := mergeInto(obj, v); err != nil {
				return nil, err
			}
			continue
		}
		key, err := r.value(m.Key, depth+1)
		if err != nil {
			return nil, err
		}
		name := yamlName(key)
		if written[name] {
			return nil, fmt.Errorf("line %d: %q is given twice", m.Key.GetToken().Position.Line, name)
		}
		written[name] = true
		obj[name] = v
	}
	return obj, nil
}

func mergeInto(obj map[string]any, v any) error {
	switch v := v.(type) {
	case map[string]any:
		for name, member := range v {
			if _, has := obj[name]; !has {
				obj[name] = member
			}
		}
		return nil
	case []any:
		for _, item := range v {
			if err := mergeInto(obj, item); err != nil {
				return err
			}
		}
		return nil
	}
	return errors.New("a merge key takes an object")
}

func yamlName(key any) string {
	if s, ok := key.(string); ok {
		return s
	}
	text, err := resource.Encode(key)
	if err != nil {
		return ""
	}
	return string(text)
}

func isNumber(text string) bool {
	return text != "" && (text[0] == '-' || text[0] >= '0' && text[0] <= '9') && json.Valid([]byte(text))
}

// yamlNumber takes the text as it was written when it is a number of JSON too.
func yamlNumber(written, canonical string) (any, error) {
	text := written
	if !json.Valid([]byte(text)) {
		text = canonical
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsInf(f, 0) || !json.Valid([]byte(text)) {
		return nil, errors.New("number out of range: " + strconv.Quote(written))
	}
	return json.Number(text), nil
}
