package requestvalidation

import (
	"bytes"
	"maps"
	"slices"
	"strconv"
	"strings"

	"headgate/proxy/phase"
)

// headerDocument is the header as a schema sees it: strings by name in lower case, a list of them where a name has several lines. names
// are those that the schema writes in another way.
func headerDocument(x *phase.Exchange, names []string) map[string]any {
	q := &x.Request
	doc := make(map[string]any, q.Header.Len()+2)
	doc["host"] = string(q.Authority)
	if size := q.BodySize(); size > 0 {
		doc["content-length"] = strconv.FormatInt(size, 10)
	}
	for _, f := range q.Header.Fields() {
		add(doc, string(bytes.ToLower(f.Name)), string(f.Value))
	}
	for _, name := range names {
		if v, ok := doc[lineName(name)]; ok {
			doc[name] = v
		}
	}
	return doc
}

// add makes a list of what is there more than once.
func add(doc map[string]any, name string, value any) {
	switch before := doc[name].(type) {
	case nil:
		doc[name] = value
	case []any:
		doc[name] = append(before, value)
	default:
		doc[name] = []any{before, value}
	}
}

// lineName is the name of the line that a schema means: operators write X_Name and X-Name for it, too.
func lineName(name string) string { return strings.ReplaceAll(strings.ToLower(name), "_", "-") }

// oddNames are the names of header lines in a schema that the document does not have in this form, sorted.
func oddNames(rule map[string]any) []string {
	found := map[string]bool{}
	collect(rule, found)
	return slices.Sorted(maps.Keys(found))
}

func collect(rule map[string]any, found map[string]bool) {
	note := func(name string) {
		if lineName(name) != name {
			found[name] = true
		}
	}
	properties, _ := rule["properties"].(map[string]any)
	for name := range properties {
		note(name)
	}
	required, _ := rule["required"].([]any)
	for _, v := range required {
		if name, ok := v.(string); ok {
			note(name)
		}
	}
	for _, combined := range [...]string{"allOf", "anyOf", "oneOf"} {
		list, _ := rule[combined].([]any)
		for _, v := range list {
			sub, _ := v.(map[string]any)
			collect(sub, found)
		}
	}
	for _, word := range [...]string{"not", "if", "then", "else"} {
		if sub, ok := rule[word].(map[string]any); ok {
			collect(sub, found)
		}
	}
}

// formDocument is a form as a schema sees it: decoded strings by name, true for a name without "=", a list where a name is there more than
// once.
func formDocument(body []byte) map[string]any {
	doc := map[string]any{}
	for len(body) > 0 {
		var pair []byte
		pair, body, _ = bytes.Cut(body, []byte{'&'})
		name, value, assigned := bytes.Cut(pair, []byte{'='})
		if len(name) == 0 {
			continue
		}
		if assigned {
			add(doc, unescape(name), unescape(value))
		} else {
			add(doc, unescape(name), true)
		}
	}
	return doc
}

// unescape decodes what browsers encode in forms; a percent sign that begins no byte stands for itself.
func unescape(b []byte) string {
	out := make([]byte, 0, len(b))
	for i := 0; i < len(b); i++ {
		c := b[i]
		switch {
		case c == '+':
			c = ' '
		case c == '%' && i+2 < len(b):
			if n, err := strconv.ParseUint(string(b[i+1:i+3]), 16, 8); err == nil {
				c = byte(n)
				i += 2
			}
		}
		out = append(out, c)
	}
	return string(out)
}

// fill puts the defaults of rule in the places of absent members of doc, in place. Those inside combining keywords are not looked for:
// which of them would apply is known only afterwards.
func fill(rule, doc any) {
	keywords, _ := rule.(map[string]any)
	if len(keywords) == 0 {
		return
	}
	switch doc := doc.(type) {
	case map[string]any:
		properties, _ := keywords["properties"].(map[string]any)
		for name, sub := range properties {
			if _, ok := doc[name]; !ok {
				sub, _ := sub.(map[string]any)
				value, ok := sub["default"]
				if !ok {
					continue
				}
				doc[name] = copied(value)
			}
			fill(sub, doc[name])
		}
	case []any:
		for _, item := range doc {
			fill(keywords["items"], item)
		}
	}
}

// copied is v for a document that may be changed.
func copied(v any) any {
	switch v := v.(type) {
	case map[string]any:
		c := make(map[string]any, len(v))
		for name, member := range v {
			c[name] = copied(member)
		}
		return c
	case []any:
		c := make([]any, len(v))
		for i, item := range v {
			c[i] = copied(item)
		}
		return c
	}
	return v
}
