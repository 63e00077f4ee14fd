package conf

import (
	"fmt"
	"math"
	"reflect"
	"sort"
	"strconv"
	"strings"
	"time"
)

// decoder moves a TOML tree into a Config and goes on after every problem, so that the operator sees all of them at once; that is
// why the TOML library's own struct decoding, which stops at the first, is not used.
type decoder struct {
	source   source
	getenv   func(string) (string, bool)
	readFile func(string) ([]byte, error)
	problems Problems
	reported map[string]struct{} // keys in problems
}

// add records a problem. The first one at a key wins: what check finds there afterwards follows from it.
func (d *decoder) add(key, msg string) {
	if _, seen := d.reported[key]; seen {
		return
	}
	d.reported[key] = struct{}{}
	d.problems = append(d.problems, Problem{File: d.source.name, Line: d.source.line(key), Key: key, Msg: msg})
}

func (d *decoder) config(c *Config, tree map[string]any) {
	d.table("", tree, reflect.ValueOf(c).Elem())
}

// table fills the fields of dst, a struct, from src.
func (d *decoder) table(path string, src map[string]any, dst reflect.Value) {
	for _, name := range sortedNames(src) {
		field, ok := fieldByName(dst.Type(), name)
		if !ok {
			d.add(childKey(path, name), unknownKey(path, name, dst.Type()))
			continue
		}
		d.value(childKey(path, name), src[name], dst.FieldByIndex(field.Index), field.Tag.Get("conf") == "template")
	}
}

func sortedNames(m map[string]any) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

func fieldByName(t reflect.Type, name string) (reflect.StructField, bool) {
	for i := range t.NumField() {
		if f := t.Field(i); f.IsExported() && f.Tag.Get("toml") == name {
			return f, true
		}
	}
	return reflect.StructField{}, false
}

// value stores v in dst or reports what dst needs. Strings are expanded unless they are templates.
func (d *decoder) value(path string, v any, dst reflect.Value, template bool) {
	switch p := dst.Addr().Interface().(type) {
	case *Duration:
		d.duration(path, v, p)
	case *Size:
		d.size(path, v, p)
	case *Secret:
		d.secret(path, v, p)
	case *time.Time:
		d.expiry(path, v, p)
	case *[]map[string]any:
		d.resources(path, v, p)
	case *[]AdminKey:
		d.adminKeys(path, v, p)
	case *[]CacheZone:
		d.cacheZones(path, v, p)
	case *[]string:
		d.strings(path, v, p)
	case *[]Secret:
		d.secrets(path, v, p)
	case *Toggle:
		if b, ok := v.(bool); !ok {
			d.wrongType(path, "true or false", v)
		} else if *p = ToggleOff; b {
			*p = ToggleOn
		}
	case *string:
		if s, ok := d.str(path, v, template); ok {
			*p = s
		}
	case *bool:
		if b, ok := v.(bool); ok {
			*p = b
		} else {
			d.wrongType(path, "true or false", v)
		}
	case *int:
		if n, ok := v.(int64); ok && n >= math.MinInt && n <= math.MaxInt {
			*p = int(n)
		} else {
			d.wrongType(path, "a whole number", v)
		}
	default: // the sections
		if t, ok := v.(map[string]any); ok {
			d.table(path, t, dst)
		} else {
			d.wrongType(path, "a table ["+path+"]", v)
		}
	}
}

// wrongType names the kind of what was found, never its value.
func (d *decoder) wrongType(path, expected string, v any) {
	d.add(path, "expected "+expected+", got "+kindOf(v))
}

func kindOf(v any) string {
	switch v.(type) {
	case string:
		return "a string"
	case bool:
		return "a boolean"
	case int64:
		return "a whole number"
	case float64:
		return "a floating-point number"
	case time.Time:
		return "a date or time"
	case []any, []map[string]any:
		return "an array"
	case map[string]any:
		return "a table"
	}
	return fmt.Sprintf("a %T", v)
}

func (d *decoder) str(path string, v any, template bool) (string, bool) {
	s, ok := v.(string)
	if !ok {
		d.wrongType(path, "a string", v)
		return "", false
	}
	if template {
		return s, true
	}
	s, err := expand(s, d.getenv)
	if err != nil {
		d.add(path, err.Error())
		return "", false
	}
	return s, true
}

func (d *decoder) strings(path string, v any, dst *[]string) {
	elements, ok := v.([]any)
	if !ok {
		d.wrongType(path, "an array of strings", v)
		return
	}
	out := make([]string, 0, len(elements))
	for i, e := range elements {
		s, ok := d.str(indexKey(path, i), e, false)
		if !ok {
			return
		}
		out = append(out, s)
	}
	*dst = out
}

func (d *decoder) duration(path string, v any, dst *Duration) {
	switch v.(type) {
	case int64, float64:
		d.add(path, `expected a duration with its unit such as "60s" or "200ms", got a bare number`)
		return
	}
	s, ok := d.str(path, v, false)
	if !ok {
		return
	}
	n, err := ParseDuration(s)
	if err != nil {
		d.add(path, err.Error())
		return
	}
	*dst = n
}

func (d *decoder) size(path string, v any, dst *Size) {
	if n, ok := v.(int64); ok {
		if n < 0 {
			d.add(path, "expected a size of 0 or more bytes, got "+strconv.FormatInt(n, 10))
			return
		}
		*dst = Size(n)
		return
	}
	s, ok := v.(string)
	if !ok {
		d.wrongType(path, `a size such as 16384 or "16KiB"`, v)
		return
	}
	if s, ok = d.str(path, s, false); !ok {
		return
	}
	n, err := ParseSize(s)
	if err != nil {
		d.add(path, err.Error())
		return
	}
	*dst = n
}

// secret takes the value itself or, for "file:PATH", the trimmed content of a file. Only a prefix that stands in the TOML text
// counts: what an environment variable contains is never taken for a file name as a whole.
func (d *decoder) secret(path string, v any, dst *Secret) {
	raw, _ := v.(string)
	s, ok := d.str(path, v, false)
	if !ok {
		return
	}
	if !strings.HasPrefix(raw, "file:") {
		*dst = Secret(s)
		return
	}
	file := strings.TrimPrefix(s, "file:")
	if d.readFile == nil {
		d.add(path, "files cannot be read here")
		return
	}
	content, err := d.readFile(file)
	if err != nil {
		d.add(path, err.Error())
		return
	}
	*dst = Secret(strings.TrimSpace(string(content)))
}

func (d *decoder) secrets(path string, v any, dst *[]Secret) {
	elements, ok := v.([]any)
	if !ok {
		d.wrongType(path, "an array of strings", v)
		return
	}
	out := make([]Secret, len(elements))
	for i, e := range elements {
		d.secret(indexKey(path, i), e, &out[i])
	}
	*dst = out
}

// expiry takes a TOML date or date-time. A date means that the key works on that day, so it ends with it; without an offset the
// clock is UTC. The TOML library tells the kinds apart by the name of the location.
func (d *decoder) expiry(path string, v any, dst *time.Time) {
	const expected = "a date such as 2027-01-31 or a date-time such as 2027-01-31T12:00:00Z, without quotes"
	t, ok := v.(time.Time)
	if !ok {
		d.wrongType(path, expected, v)
		return
	}
	year, month, day := t.Date()
	switch t.Location().String() {
	case "time-local":
		d.add(path, "expected "+expected+", got a time of day")
	case "date-local":
		*dst = time.Date(year, month, day+1, 0, 0, 0, 0, time.UTC)
	case "datetime-local":
		*dst = time.Date(year, month, day, t.Hour(), t.Minute(), t.Second(), t.Nanosecond(), time.UTC)
	default:
		*dst = t.UTC()
	}
}

func (d *decoder) adminKeys(path string, v any, dst *[]AdminKey) {
	tables, ok := tablesOf(v)
	if !ok {
		d.wrongType(path, "an array of tables [["+path+"]]", v)
		return
	}
	out := make([]AdminKey, len(tables))
	for i, t := range tables {
		out[i].Role = RoleAdmin
		d.table(indexKey(path, i), t, reflect.ValueOf(&out[i]).Elem())
	}
	*dst = out
}

// tablesOf accepts both spellings of a list of tables: [[x]] and x = [{...}].
func tablesOf(v any) ([]map[string]any, bool) {
	switch v := v.(type) {
	case []map[string]any:
		return v, true
	case []any:
		out := make([]map[string]any, len(v))
		for i, e := range v {
			t, ok := e.(map[string]any)
			if !ok {
				return nil, false
			}
			out[i] = t
		}
		return out, true
	}
	return nil, false
}

// resources takes inline resources as they are: no expansion, because ${...} is template syntax in them.
func (d *decoder) resources(path string, v any, dst *[]map[string]any) {
	tables, ok := tablesOf(v)
	if !ok {
		d.wrongType(path, "an array of tables [["+path+"]]", v)
		return
	}
	for i, t := range tables {
		at := indexKey(path, i)
		for _, name := range sortedNames(t) {
			t[name] = d.plain(childKey(at, name), t[name])
		}
	}
	*dst = tables
}

// plain returns v as JSON can say it.
func (d *decoder) plain(path string, v any) any {
	switch v := v.(type) {
	case map[string]any:
		for _, name := range sortedNames(v) {
			v[name] = d.plain(childKey(path, name), v[name])
		}
		return v
	case []map[string]any:
		out := make([]any, len(v))
		for i, e := range v {
			out[i] = d.plain(indexKey(path, i), e)
		}
		return out
	case []any:
		for i, e := range v {
			v[i] = d.plain(indexKey(path, i), e)
		}
		return v
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			d.add(path, "expected a finite number")
		}
		return v
	case time.Time:
		d.add(path, "expected a string, number, boolean, array or table, got a date or time; put it in quotes")
		return v
	}
	return v
}
