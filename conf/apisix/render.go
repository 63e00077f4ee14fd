package apisix

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"headgate/conf"
	"headgate/conf/resource"
)

// kindOf returns the kind of the document with a store key.
func kindOf(key string) string {
	kind, rest, _ := strings.Cut(key, "/")
	if kind == "consumers" && strings.Contains(rest, "/credentials/") {
		return "credentials"
	}
	return kind
}

// render writes everything gathered as TOML: settings in the order of headgate.toml, then the resources.
func (im *importer) render() ([]byte, error) {
	var b bytes.Buffer
	b.WriteString("# Made by headgate import from the configuration of an APISIX.\n# What is not mentioned here has its default; conf/headgate.toml describes every setting.\n")
	for _, section := range sections("", reflect.TypeFor[conf.Config]()) {
		head := "\n[" + section + "]\n"
		for _, s := range im.settings {
			name, ok := strings.CutPrefix(s.key, section+".")
			if !ok || strings.Contains(name, ".") {
				continue
			}
			b.WriteString(head + name + " = " + literal(s.value) + "\n")
			head = ""
		}
		switch section {
		case "admin":
			for _, k := range im.keys {
				fmt.Fprintf(&b, "\n[[admin.keys]]\nname = %s\nkey = %s\nrole = %s\n", quote(k.name), quote(k.key), quote(k.role))
			}
		case "proxy_cache":
			for _, z := range im.zones {
				z.render(&b)
			}
		}
	}
	for _, kind := range conf.DocumentKinds() {
		for _, d := range im.documents {
			if kindOf(d.Key) != kind {
				continue
			}
			doc := d.Value
			if kind == "credentials" {
				doc = maps.Clone(doc)
				doc["consumer"] = strings.Split(d.Key, "/")[1]
			}
			text, err := resource.ToTOML(map[string]any{kind: []any{doc}})
			if err != nil {
				return nil, fmt.Errorf("%s: %w", d.Key, err)
			}
			b.WriteByte('\n')
			b.Write(text)
		}
	}
	return b.Bytes(), nil
}

// sections lists the tables of the file in their order: "gateway", ..., "store", "store.etcd", ...
func sections(parent string, table reflect.Type) (out []string) {
	for i := range table.NumField() {
		f := table.Field(i)
		if name := f.Tag.Get("toml"); name != "" && f.Type.Kind() == reflect.Struct {
			if parent != "" {
				name = parent + "." + name
			}
			out = append(append(out, name), sections(name, f.Type)...)
		}
	}
	return out
}

func literal(v any) string {
	switch v := v.(type) {
	case string:
		return quote(v)
	case template:
		return quote(string(v))
	case bool:
		return strconv.FormatBool(v)
	case int:
		return strconv.Itoa(v)
	case []string:
		parts := make([]string, len(v))
		for i, s := range v {
			parts[i] = quote(s)
		}
		return "[" + strings.Join(parts, ", ") + "]"
	}
	panic(fmt.Sprintf("no literal for a %T", v))
}

// quote writes a basic string. Every escape of JSON is one of TOML; the one control character that JSON lets through is not allowed.
func quote(s string) string {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(s) // a string has an encoding, and the buffer takes it
	return strings.ReplaceAll(strings.TrimSuffix(b.String(), "\n"), "\x7f", `\u007f`)
}

// expanded turns a text of APISIX into one of headgate.toml, in which ${...} is the environment's: ${{NAME}} becomes ${NAME}. The reason
// is given when that is not possible.
func expanded(s string) (text, why string) {
	var b strings.Builder
	for {
		m := reference.FindStringSubmatchIndex(s)
		end := len(s)
		if m != nil {
			end = m[0]
		}
		b.WriteString(strings.ReplaceAll(s[:end], "${", "$${"))
		if m == nil {
			return b.String(), ""
		}
		if end > 0 && s[end-1] == '$' {
			return "", "a $ stands before ${{, which has a meaning of its own here"
		}
		name, fallback := s[m[2]:m[3]], ""
		if m[4] >= 0 {
			fallback = ":-" + strings.TrimSpace(s[m[6]:m[7]])
		}
		if name[0] <= '9' || strings.ContainsAny(fallback, "}$") {
			return "", "the reference to the environment cannot be written here"
		}
		b.WriteString("${" + name + fallback + "}")
		s = s[m[1]:]
	}
}

// refers reports whether a text that expanded returned depends on the environment.
func refers(s string) bool { return strings.Contains(strings.ReplaceAll(s, "$${", ""), "${") }

// uniqueName adds a number to a name that a key has already: every key has a name of its own here.
func uniqueName(name string, keys []adminKey) string {
	taken := func(n string) bool { return slices.ContainsFunc(keys, func(k adminKey) bool { return k.name == n }) }
	out := name
	for i := 2; taken(out); i++ {
		out = name + "-" + strconv.Itoa(i)
	}
	return out
}
