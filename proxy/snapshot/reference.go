package snapshot

import (
	"encoding/json"
	"fmt"
	"strings"

	"headgate/conf/schema"
)

const (
	envReference    = "$env://"
	secretReference = "$secret://"
)

// resolved returns conf with every reference to the environment replaced by what it stands for: "$env://NAME", or "$env://NAME/member"
// when the variable holds a JSON object. conf is not changed. References that lead nowhere, and those to secret managers, which this
// version does not ask, are errors: taken literally, a reference in the place of a key would be a key that everybody can guess.
func resolved(conf any, lookup func(string) (string, bool)) (any, error) {
	switch v := conf.(type) {
	case string:
		return resolvedText(v, lookup)
	case map[string]any:
		next := make(map[string]any, len(v))
		for name, member := range v {
			got, err := resolved(member, lookup)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			next[name] = got
		}
		return next, nil
	case []any:
		next := make([]any, len(v))
		for i, member := range v {
			var err error
			if next[i], err = resolved(member, lookup); err != nil {
				return nil, err
			}
		}
		return next, nil
	}
	return conf, nil
}

func resolvedText(text string, lookup func(string) (string, bool)) (any, error) {
	switch {
	case len(text) >= len(secretReference) && strings.EqualFold(text[:len(secretReference)], secretReference):
		return nil, fmt.Errorf("references to secret managers are not resolved by this version: use %sNAME", envReference)
	case len(text) < len(envReference) || !strings.EqualFold(text[:len(envReference)], envReference):
		return text, nil
	}
	name, member, inside := strings.Cut(text[len(envReference):], "/")
	value, ok := lookup(name)
	if !ok {
		return nil, fmt.Errorf("the environment variable %s is not set", name)
	}
	if !inside {
		return value, nil
	}
	doc, err := schema.DecodeJSON([]byte(value))
	if err != nil {
		return nil, fmt.Errorf("the environment variable %s: expected a JSON object", name) // its text is a secret
	}
	m, _ := doc.(map[string]any)
	switch got := m[member].(type) {
	case string:
		return got, nil
	case json.Number:
		return string(got), nil
	}
	return nil, fmt.Errorf("the environment variable %s has no member %s that is a text", name, member)
}
