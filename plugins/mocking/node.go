package mocking

import (
	"encoding/json"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"

	"headgate/conf/resource"
	"headgate/proxy/phase"
	"headgate/proxy/vars"
)

// node is a part of a response_schema from which a value can be made up. A part with an example is that example, every time; of the
// rest, each answer has other values.
type node struct {
	kind    nodeKind
	name    []byte         // as a member of an object, or a tag
	example *vars.Template // of a scalar, ready for the format; nil: random
	members []*node        // of an object, in the order of their names
	item    *node          // of an array
}

type nodeKind uint8

const (
	kindObject nodeKind = iota
	kindArray
	kindString
	kindNumber
	kindInteger
	kindBoolean
)

// maxMade is the size of a body, in bytes, from which on arrays get no further items: nested arrays multiply.
const maxMade = 64 << 10

// maxItems is how many items an array has at most; it has one at least.
const maxItems = 3

// rootTag is the tag around an XML body.
const rootTag = "data"

// newRoot compiles a response_schema, which describes an object whatever its type says.
func newRoot(schema map[string]any, f format) *node {
	return newObject(schema, rootTag, f)
}

func newObject(schema map[string]any, name string, f format) *node {
	n := &node{kind: kindObject, name: nameText(name, f)}
	properties, _ := schema["properties"].(map[string]any)
	for _, name := range slices.Sorted(maps.Keys(properties)) {
		property, _ := properties[name].(map[string]any)
		if member := newNode(property, name, f); member != nil {
			n.members = append(n.members, member)
		}
	}
	return n
}

// newNode returns nil for a type that it doesn't know: there is no such value then.
func newNode(schema map[string]any, name string, f format) *node {
	kind, _ := schema["type"].(string)
	n := &node{name: nameText(name, f)}
	switch example := schema["example"]; strings.ToLower(kind) {
	case "object":
		return newObject(schema, name, f)
	case "array":
		items, _ := schema["items"].(map[string]any)
		n.kind = kindArray
		if n.item = newNode(items, name, f); n.item == nil {
			return nil
		}
	case "string":
		n.kind = kindString
		if s, ok := example.(string); ok {
			n.example = scalar(s, f)
		}
	case "number", "integer":
		n.kind = kindNumber
		whole := strings.EqualFold(kind, "integer")
		if whole {
			n.kind = kindInteger
		}
		if e, ok := example.(json.Number); ok {
			number, _ := e.Float64()
			if whole {
				number = math.Floor(number)
			}
			n.example = scalar(number, f)
		}
	case "boolean":
		n.kind = kindBoolean
		if b, ok := example.(bool); ok {
			n.example = scalar(b, f)
		}
	default:
		return nil
	}
	return n
}

// nameText writes a name for the format: a JSON string, or a tag.
func nameText(name string, f format) []byte {
	if f == formatJSON {
		return encoded(name)
	}
	for i, c := range []byte(name) {
		letter := c == '_' || 'a' <= c|0x20 && c|0x20 <= 'z'
		if !letter && (i == 0 || c != '-' && c != '.' && (c < '0' || c > '9')) { // such a tag could not be read
			return []byte("_")
		}
	}
	if name == "" {
		return []byte("_")
	}
	return []byte(name)
}

// scalar writes a string, number or bool for the format. Variables in it are filled in when an answer is made.
func scalar(v any, f format) *vars.Template {
	var text string
	switch v := v.(type) {
	case float64:
		text = strconv.FormatFloat(v, 'g', 14, 64)
	case bool:
		text = strconv.FormatBool(v)
	case string:
		if text = v; f == formatJSON {
			text = string(encoded(v))
		} else {
			text = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(v)
		}
	}
	t, err := vars.Compile(text)
	if err != nil { // too long to be an example
		return nil
	}
	return t
}

func encoded(s string) []byte {
	b, err := resource.Encode(s)
	if err != nil { // no string fails
		return []byte(`""`)
	}
	return b
}

// append appends a value for the format of the tree, of which n is the root.
func (n *node) append(dst []byte, x *phase.Exchange, f format) []byte {
	limit := len(dst) + maxMade
	if f == formatJSON {
		return n.appendJSON(dst, x, limit)
	}
	top := n
	if len(n.members) == 1 { // the root's tag takes the place of an only member's
		top = n.members[0]
	}
	dst = top.appendXML(dst, x, n.name, 0, limit)
	return dst[:len(dst)-1] // the last line has no end
}

func (n *node) appendJSON(dst []byte, x *phase.Exchange, limit int) []byte {
	switch n.kind {
	case kindObject:
		dst = append(dst, '{')
		for i, m := range n.members {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = append(append(dst, m.name...), ':')
			dst = m.appendJSON(dst, x, limit)
		}
		return append(dst, '}')
	case kindArray:
		dst = n.item.appendJSON(append(dst, '['), x, limit)
		for more := rand.IntN(maxItems); more > 0 && len(dst) < limit; more-- {
			dst = n.item.appendJSON(append(dst, ','), x, limit)
		}
		return append(dst, ']')
	case kindString:
		if n.example == nil {
			return append(n.appendScalar(append(dst, '"'), x), '"')
		}
	}
	return n.appendScalar(dst, x)
}

// appendXML appends lines, each with its end. An array is its items, one behind the other.
func (n *node) appendXML(dst []byte, x *phase.Exchange, tag []byte, level, limit int) []byte {
	switch n.kind {
	case kindArray:
		dst = n.item.appendXML(dst, x, tag, level, limit)
		for more := rand.IntN(maxItems); more > 0 && len(dst) < limit; more-- {
			dst = n.item.appendXML(dst, x, tag, level, limit)
		}
		return dst
	case kindObject:
		if len(n.members) == 0 {
			break
		}
		dst = append(appendTag(dst, tag, level), ">\n"...)
		for _, m := range n.members {
			dst = m.appendXML(dst, x, m.name, level+1, limit)
		}
		return appendEnd(appendSpaces(dst, level), tag)
	}
	dst = appendTag(dst, tag, level)
	start := len(dst)
	dst = n.appendScalar(append(dst, '>'), x)
	if len(dst) == start+1 { // nothing is in it
		return append(dst[:start], "/>\n"...)
	}
	return appendEnd(dst, tag)
}

func appendSpaces(dst []byte, level int) []byte {
	for range level {
		dst = append(dst, "  "...)
	}
	return dst
}

func appendTag(dst, tag []byte, level int) []byte {
	return append(append(appendSpaces(dst, level), '<'), tag...)
}

func appendEnd(dst, tag []byte) []byte {
	return append(append(append(dst, "</"...), tag...), ">\n"...)
}

// appendScalar appends the example or, without one, something of the kind. Objects have none.
func (n *node) appendScalar(dst []byte, x *phase.Exchange) []byte {
	if n.example != nil {
		dst, _ = n.example.Append(dst, x)
		return dst
	}
	switch n.kind {
	case kindString:
		for range 1 + rand.IntN(10) {
			dst = append(dst, byte('a'+rand.IntN(26)))
		}
	case kindNumber:
		dst = strconv.AppendFloat(dst, rand.Float64()*10000, 'g', 14, 64)
	case kindInteger:
		dst = strconv.AppendInt(dst, 1+rand.Int64N(10000), 10)
	case kindBoolean:
		dst = strconv.AppendBool(dst, rand.IntN(2) == 0)
	}
	return dst
}
