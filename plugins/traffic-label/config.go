package trafficlabel

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"headgate/conf/resource"
	"headgate/conf/resource/split"
	"headgate/conf/schema"
	"headgate/proxy/expr"
	"headgate/proxy/phase/rewrite"
)

// ruleConfig is one rule. Weights and lines have an element for each action.
type ruleConfig struct {
	// match is the raw condition, nil without one.
	match   any
	weights []uint64
	// lines are the header lines that an action sets, nil for an action that only has a weight.
	lines []*rewrite.Rewriter
}

var errWeight = errors.New("the weight is too large")

func validate(conf []byte) error {
	_, err := read(conf)
	return err
}

// read reads conf, which satisfies the schema, and checks what the schema cannot say.
func read(conf []byte) ([]ruleConfig, error) {
	v, err := schema.DecodeJSON(conf)
	if err != nil {
		return nil, err
	}
	doc, _ := v.(map[string]any)
	items, _ := doc["rules"].([]any)
	rules := make([]ruleConfig, 0, len(items))
	for _, item := range items {
		m, _ := item.(map[string]any)
		r := ruleConfig{match: m["match"]}
		if r.match != nil {
			if err := expr.Validate(r.match); err != nil {
				text, _ := resource.Encode(r.match)
				return nil, fmt.Errorf("failed to validate the 'match' expression: %s err: %w", text, err)
			}
		}
		actions, _ := m["actions"].([]any)
		for _, entry := range actions {
			action, _ := entry.(map[string]any)
			if err := r.addAction(action); err != nil {
				return nil, err
			}
		}
		rules = append(rules, r)
	}
	return rules, nil
}

func (r *ruleConfig) addAction(action map[string]any) error {
	weight := int64(1)
	var lines *rewrite.Rewriter
	for _, name := range slices.Sorted(maps.Keys(action)) {
		switch name {
		case "weight":
			var ok bool
			if weight, ok = split.Integer(action[name]); !ok {
				return errWeight
			}
		case "set_headers":
			var err error
			if lines, err = newLines(action[name]); err != nil {
				return fmt.Errorf("failed to validate the 'set_headers' action: %w", err)
			}
		default:
			return fmt.Errorf("not supported action: %s", name)
		}
	}
	r.weights, r.lines = append(r.weights, uint64(weight)), append(r.lines, lines)
	return nil
}

// newLines compiles set_headers by the rules of proxy-rewrite's headers, in the form that only sets.
func newLines(fields any) (*rewrite.Rewriter, error) {
	form := map[string]any{"headers": fields}
	rules, err := schema.Compile("set_headers", rewrite.Schema())
	if err != nil {
		return nil, err
	}
	if err := rules.Validate(form); err != nil {
		return nil, err
	}
	m, _ := fields.(map[string]any)
	for name, value := range m {
		switch value.(type) {
		case map[string]any, []any:
			return nil, fmt.Errorf("property %q validation failed: a value is a string or a number", name)
		}
	}
	raw, err := resource.Encode(map[string]any{"headers": map[string]any{"set": m}})
	if err != nil {
		return nil, err
	}
	return rewrite.Compile(raw)
}
