package seal

import (
	"fmt"
	"strings"
)

// replace returns what takes the place of a secret; private says that it is a private key, which shows whether it is sealed.
type replace func(text string, private bool) string

// walk replaces every secret of doc, the document under key.
func (s *Sealer) walk(key string, doc map[string]any, f replace) {
	segment, rest, _ := strings.Cut(key, "/")
	switch segment {
	case "ssls", "upstreams", "routes", "services":
		walkPrivateKeys(segment, doc, f)
	}
	plugins, _ := doc["plugins"].(map[string]any)
	switch segment {
	case "routes", "services", "plugin_configs", "consumer_groups", "global_rules":
		for name, conf := range plugins {
			fields, _ := s.fields(name)
			walkFields(conf, fields, f)
		}
		walkBranches(plugins["traffic-split"], f)
	case "consumers": // and their credentials
		for name, conf := range plugins {
			fields, consumer := s.fields(name)
			if consumer != nil {
				fields = consumer
			}
			walkFields(conf, fields, f)
		}
	case "plugin_metadata":
		fields, _ := s.fields(rest)
		walkFields(doc, fields, f)
	}
}

func walkPrivateKeys(segment string, doc map[string]any, f replace) {
	private := func(text string) string { return f(text, true) }
	switch segment {
	case "ssls":
		replaceText(doc, "key", private)
		replaceText(doc, "keys", private)
	case "upstreams":
		walkClientKey(doc, private)
	default:
		walkClientKey(doc["upstream"], private)
	}
}

func walkClientKey(upstream any, f func(string) string) {
	if upstream, ok := upstream.(map[string]any); ok {
		if tls, ok := upstream["tls"].(map[string]any); ok {
			replaceText(tls, "client_key", f)
		}
	}
}

// walkBranches finds the inline upstreams of traffic-split.
func walkBranches(conf any, f replace) {
	object, _ := conf.(map[string]any)
	rules, _ := object["rules"].([]any)
	for _, rule := range rules {
		rule, _ := rule.(map[string]any)
		walkClientKey(rule["upstream"], func(text string) string { return f(text, true) }) // it is a branch itself
		branches, _ := rule["weighted_upstreams"].([]any)
		for _, branch := range branches {
			if branch, ok := branch.(map[string]any); ok {
				walkClientKey(branch["upstream"], func(text string) string { return f(text, true) })
			}
		}
	}
}

func walkFields(conf any, fields []string, f replace) {
	for _, path := range fields {
		walkPath(conf, path, func(text string) string { return f(text, false) })
	}
}

// walkPath follows a dotted path. An array on the way stands for each of its items; an array or object at the end for all texts in
// it (ai-proxy's auth.header is an object of headers).
func walkPath(v any, path string, f func(string) string) {
	switch v := v.(type) {
	case []any:
		for _, item := range v {
			walkPath(item, path, f)
		}
	case map[string]any:
		name, rest, more := strings.Cut(path, ".")
		if more {
			walkPath(v[name], rest, f)
			return
		}
		replaceText(v, name, f)
	}
}

// replaceText replaces the text under name in object, or all texts in what stands there.
func replaceText(object map[string]any, name string, f func(string) string) {
	if v, ok := object[name]; ok {
		object[name] = replaced(v, f)
	}
}

func replaced(v any, f func(string) string) any {
	switch v := v.(type) {
	case string:
		return f(v)
	case []any:
		for i, item := range v {
			v[i] = replaced(item, f)
		}
	case map[string]any:
		for name, item := range v {
			v[name] = replaced(item, f)
		}
	}
	return v
}

// checkPrivateKeys refuses private keys that nobody with this keyring could use.
func (s *Sealer) checkPrivateKeys(key string, doc map[string]any) error {
	var err error
	s.walk(key, doc, func(text string, private bool) string {
		if private && !isReference(text) && !strings.HasPrefix(text, pemStart) {
			if _, ok := s.OpenText(text); !ok && err == nil {
				err = fmt.Errorf("%s: %w", key, ErrForeign)
			}
		}
		return text
	})
	return err
}
