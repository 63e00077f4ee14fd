package resource

import "headgate/conf/schema"

// FillDefaults returns doc with the defaults of its JSON Schema in the places of absent members, at every depth that doc has objects
// and arrays in, as the control API shows plugin metadata (apisix-observed on 1.9). Defaults inside combining keywords (allOf, if, ...)
// are not looked for. doc is not changed; the result shares parts with it. A schema that is no JSON object fills in nothing.
func FillDefaults(schemaJSON []byte, doc map[string]any) map[string]any {
	rule, err := schema.DecodeJSON(schemaJSON)
	if err != nil {
		return doc
	}
	filled, _ := fillDefaults(rule, doc).(map[string]any)
	return filled
}

func fillDefaults(rule, v any) any {
	keywords, _ := rule.(map[string]any)
	switch v := v.(type) {
	case map[string]any:
		props, _ := keywords["properties"].(map[string]any)
		if len(props) == 0 {
			return v
		}
		filled := make(map[string]any, len(v)+len(props))
		for name, member := range v {
			filled[name] = fillDefaults(props[name], member)
		}
		for name, sub := range props {
			if _, ok := v[name]; ok {
				continue
			}
			if sub, _ := sub.(map[string]any); has(sub, "default") {
				filled[name] = fillDefaults(sub, sub["default"])
			}
		}
		return filled
	case []any:
		items, ok := keywords["items"].(map[string]any)
		if !ok {
			return v
		}
		filled := make([]any, len(v))
		for i, item := range v {
			filled[i] = fillDefaults(items, item)
		}
		return filled
	}
	return v
}
