package resource

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/BurntSushi/toml"

	"headgate/conf/schema"
)

// FromTOML reads a document written in TOML. It gives what schema.DecodeJSON gives for the same document in JSON: integers and
// floats become json.Number in their shortest form (floats keep a point or an exponent), dates become RFC 3339 text. Malformed text is
// an error that names the line and the key. Numbers that JSON does not have and nesting beyond schema.MaxDepth are refused.
func FromTOML(text []byte) (map[string]any, error) {
	if err := checkTOMLDepth(text); err != nil {
		return nil, err
	}
	var table map[string]any
	if _, err := toml.Decode(string(text), &table); err != nil {
		var parse toml.ParseError
		if !errors.As(err, &parse) {
			return nil, err
		}
		where := "line " + strconv.Itoa(parse.Position.Line)
		if parse.LastKey != "" {
			where += ", key " + shorten(parse.LastKey)
		}
		message := parse.Message
		if message == "" {
			message = parse.Error()
		}
		return nil, errors.New(where + ": " + message)
	}
	doc, err := fromTOML(table, "", 1)
	if err != nil {
		return nil, err
	}
	return doc.(map[string]any), nil
}

// checkTOMLDepth bounds the work of the parser, which follows brackets and dotted keys without a limit of its own: brackets cost it
// stack, a key of 20,000 parts cost it two minutes. Counted are the brackets that are open at one time and the dots of one key,
// outside strings and comments. Text in which the count loses its way is malformed, and refused by the parser at that place.
func checkTOMLDepth(text []byte) error {
	depth, dots := 0, 0
	for i := 0; i < len(text); {
		switch c := text[i]; c {
		case '#':
			i = skipTo(text, i, "\n", false)
			continue
		case '"', '\'':
			quote := string(c)
			if triple := strings.Repeat(quote, 3); bytes.HasPrefix(text[i:], []byte(triple)) {
				quote = triple
			}
			i = skipTo(text, i+len(quote), quote, c == '"')
			continue
		case '.':
			dots++
		case '[', '{':
			depth, dots = depth+1, 0
		case ']', '}':
			depth, dots = max(depth-1, 0), 0
		case '=', ',', '\n':
			dots = 0
		}
		if depth > 2*schema.MaxDepth || dots > schema.MaxDepth { // [[header]] opens two brackets for one level
			return fmt.Errorf("line %d: nested deeper than %d levels", 1+bytes.Count(text[:i], []byte("\n")), schema.MaxDepth)
		}
		i++
	}
	return nil
}

// skipTo returns the index behind the next end at or after i. A one-line string ends with its line at the latest.
func skipTo(text []byte, i int, end string, escapes bool) int {
	for ; i < len(text); i++ {
		switch {
		case escapes && text[i] == '\\':
			i++
		case bytes.HasPrefix(text[i:], []byte(end)):
			return i + len(end)
		case len(end) == 1 && text[i] == '\n':
			return i
		}
	}
	return len(text)
}

func fromTOML(v any, path string, depth int) (any, error) {
	if depth > schema.MaxDepth {
		return nil, fmt.Errorf("key %s: nested deeper than %d levels", shorten(path), schema.MaxDepth)
	}
	switch v := v.(type) {
	case map[string]any:
		obj := make(map[string]any, len(v))
		for _, name := range sortedKeys(v) {
			item, err := fromTOML(v[name], join(path, name), depth+1)
			if err != nil {
				return nil, err
			}
			obj[name] = item
		}
		return obj, nil
	case []map[string]any:
		list := make([]any, len(v))
		for i, item := range v {
			list[i] = item
		}
		return fromTOML(list, path, depth)
	case []any:
		list := make([]any, len(v))
		for i, item := range v {
			var err error
			if list[i], err = fromTOML(item, join(path, strconv.Itoa(i)), depth+1); err != nil {
				return nil, err
			}
		}
		return list, nil
	case int64:
		return json.Number(strconv.FormatInt(v, 10)), nil
	case float64:
		if math.IsInf(v, 0) || math.IsNaN(v) {
			return nil, fmt.Errorf("key %s: JSON has no number %v", path, v)
		}
		s := strconv.FormatFloat(v, 'g', -1, 64)
		if !strings.ContainsAny(s, ".e") {
			s += ".0"
		}
		return json.Number(s), nil
	case time.Time:
		return v.Format(time.RFC3339Nano), nil
	case string, bool:
		return v, nil
	}
	return nil, fmt.Errorf("key %s: a value of type %T has no place in a document", path, v)
}

// ToTOML writes doc as TOML. Members that are null are left out, since TOML has no null; a null inside an array is an error, because
// leaving it out would move its neighbours. Integers must fit 64 bits.
func ToTOML(doc map[string]any) ([]byte, error) {
	table, err := toTOML(doc, "")
	if err != nil {
		return nil, err
	}
	var buf bytes.Buffer
	enc := toml.NewEncoder(&buf)
	enc.Indent = ""
	if err := enc.Encode(table); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

func toTOML(v any, path string) (any, error) {
	switch v := v.(type) {
	case map[string]any:
		table := make(map[string]any, len(v))
		for _, name := range sortedKeys(v) {
			if v[name] == nil {
				continue
			}
			item, err := toTOML(v[name], join(path, name))
			if err != nil {
				return nil, err
			}
			table[name] = item
		}
		return table, nil
	case []any:
		list := make([]any, len(v))
		for i, item := range v {
			var err error
			if list[i], err = toTOML(item, join(path, strconv.Itoa(i))); err != nil {
				return nil, err
			}
		}
		return list, nil
	case json.Number:
		if !strings.ContainsAny(string(v), ".eE") {
			n, err := strconv.ParseInt(string(v), 10, 64)
			if err != nil {
				return nil, fmt.Errorf("key %s: %s is out of TOML's range for integers", path, shorten(string(v)))
			}
			return n, nil
		}
		f, err := strconv.ParseFloat(string(v), 64)
		if err != nil {
			return nil, fmt.Errorf("key %s: %s is not a number", path, shorten(string(v)))
		}
		return f, nil
	case string, bool:
		return v, nil
	case nil:
		return nil, fmt.Errorf("key %s: TOML can't hold a null inside an array", path)
	}
	return nil, fmt.Errorf("key %s: a value of type %T can't be written", path, v)
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

func shorten(s string) string {
	if len(s) > 64 {
		return s[:64] + "..."
	}
	return s
}
