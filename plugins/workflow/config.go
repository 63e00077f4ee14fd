package workflow

import (
	"errors"
	"fmt"

	"headgate/conf/resource"
	"headgate/conf/resource/split"
	"headgate/conf/schema"
)

// ruleConfig is one rule.
type ruleConfig struct {
	// condition is a raw vars expression; always is set when there is none.
	condition any
	always    bool
	// actions has at least one, of which the first runs.
	actions []actionConfig
}

// actionConfig is what a rule does: answer with code, or, when code is 0, run the plugin name.
type actionConfig struct {
	code int
	name string
	conf []byte
}

// The plugins that actions may be.
const (
	limitCount = "limit-count"
	limitConn  = "limit-conn"
)

var errNoAction = errors.New("a rule has no action")

// returnSchema is that of the action "return".
const returnSchema = `{"type":"object","properties":{"code":{"type":"integer","minimum":100,"maximum":599}},"required":["code"]}`

func validate(conf []byte) error {
	_, err := read(conf)
	return err
}

// read reads conf, which satisfies the schema, and checks what the schema cannot say. The configurations of plugins are checked when they
// are built.
func read(conf []byte) ([]ruleConfig, error) {
	v, err := schema.DecodeJSON(conf)
	if err != nil {
		return nil, err
	}
	doc, _ := v.(map[string]any)
	items, _ := doc["rules"].([]any) // the empty object is also the empty array
	rules := make([]ruleConfig, 0, len(items))
	for i, item := range items {
		m, _ := item.(map[string]any)
		condition, conditional := m["case"]
		r := ruleConfig{condition: condition, always: !conditional}
		list, _ := m["actions"].([]any)
		if len(list) == 0 {
			return nil, errNoAction
		}
		for _, entry := range list {
			pair, _ := entry.([]any)
			a, err := readAction(pair, i)
			if err != nil {
				return nil, err
			}
			r.actions = append(r.actions, a)
		}
		rules = append(rules, r)
	}
	return rules, nil
}

func readAction(pair []any, rule int) (a actionConfig, err error) {
	if len(pair) == 0 { // the empty object is also the empty array
		return a, errNoAction
	}
	var conf any = map[string]any{}
	if len(pair) > 1 {
		conf = pair[1]
	}
	name, ok := pair[0].(string)
	switch {
	case ok && name == "return":
		s, err := schema.Compile("return", []byte(returnSchema))
		if err != nil {
			return a, err
		}
		if err := s.Validate(conf); err != nil {
			return a, inAction(name, err.Error())
		}
		m, _ := conf.(map[string]any)
		code, _ := split.Integer(m["code"])
		return actionConfig{code: int(code)}, nil
	case ok && (name == limitCount || name == limitConn):
		if m, ok := conf.(map[string]any); ok && m["group"] == nil { // a group shares on purpose
			m[counterMember] = rule + 1
		}
		a.name = name
		a.conf, err = resource.Encode(conf)
		return a, err
	}
	return a, fmt.Errorf("unsupported action: %v", pair[0])
}

// counterMember goes into the configuration of an action with the number of its rule: limits count under what their configuration says,
// and two rules that say the same have counters of their own nevertheless.
const counterMember = "_vid"

func inAction(name, complaint string) error {
	return fmt.Errorf("failed to validate the '%s' action: %s", name, complaint)
}
