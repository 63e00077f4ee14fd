package schema

import (
	"bytes"
	"encoding/json"
	"unicode/utf8"
)

// parser reads what nearly every document is: correct JSON. It gives up on anything else, and the library then says what is wrong. What
// it accepts it takes for what the library does, for a fifth of the cost: documents are decoded by the hundred thousand.
type parser struct {
	raw []byte
	pos int
}

// parse returns the one document in raw. It is not ok when the library has to judge.
func parse(raw []byte) (doc any, ok bool) {
	p := parser{raw: raw}
	if doc, ok = p.value(MaxDepth); !ok {
		return nil, false
	}
	p.space()
	return doc, p.pos == len(raw)
}

// peek skips white space and returns the next byte, 0 at the end.
func (p *parser) peek() byte {
	p.space()
	if p.pos == len(p.raw) {
		return 0
	}
	return p.raw[p.pos]
}

func (p *parser) space() {
	for p.pos < len(p.raw) {
		switch p.raw[p.pos] {
		case ' ', '\t', '\r', '\n':
			p.pos++
		default:
			return
		}
	}
}

// value reads a value that may contain depth levels of arrays and objects.
func (p *parser) value(depth int) (any, bool) {
	switch c := p.peek(); c {
	case '{':
		return p.object(depth - 1)
	case '[':
		return p.array(depth - 1)
	case '"':
		return p.text()
	case 't':
		return true, p.word("true")
	case 'f':
		return false, p.word("false")
	case 'n':
		return nil, p.word("null")
	default:
		return p.number()
	}
}

func (p *parser) word(w string) bool {
	if !bytes.HasPrefix(p.raw[p.pos:], []byte(w)) {
		return false
	}
	p.pos += len(w)
	return true
}

func (p *parser) object(depth int) (any, bool) {
	m := make(map[string]any)
	p.pos++
	if p.peek() == '}' {
		p.pos++
		return m, depth >= 0
	}
	for depth >= 0 && p.peek() == '"' {
		name, ok := p.name()
		if !ok || p.peek() != ':' {
			break
		}
		p.pos++
		if m[name], ok = p.value(depth); !ok {
			break
		}
		switch p.peek() {
		case ',':
			p.pos++
		case '}':
			p.pos++
			return m, true
		default:
			return nil, false
		}
	}
	return nil, false
}

func (p *parser) array(depth int) (any, bool) {
	list := []any{}
	p.pos++
	if p.peek() == ']' {
		p.pos++
		return list, depth >= 0
	}
	for depth >= 0 {
		v, ok := p.value(depth)
		if !ok {
			break
		}
		list = append(list, v)
		switch p.peek() {
		case ',':
			p.pos++
		case ']':
			p.pos++
			return list, true
		default:
			return nil, false
		}
	}
	return nil, false
}

// token returns the string that begins at the next byte, quotes included. plain says that it means what it says: ASCII without escapes.
func (p *parser) token() (b []byte, plain, ok bool) {
	plain = true
	for i := p.pos + 1; i < len(p.raw); i++ {
		switch c := p.raw[i]; {
		case c == '"':
			b = p.raw[p.pos : i+1]
			p.pos = i + 1
			return b, plain, true
		case c == '\\':
			plain = false
			i++
		case c < ' ':
			return nil, false, false
		case c >= utf8.RuneSelf:
			plain = false
		}
	}
	return nil, false, false
}

func (p *parser) text() (string, bool) {
	b, plain, ok := p.token()
	if !ok || plain {
		return string(inner(b)), ok
	}
	return unquote(b)
}

// name is text for the name of a member: those that many documents have are not copied again and again.
func (p *parser) name() (string, bool) {
	b, plain, ok := p.token()
	switch {
	case !ok:
		return "", false
	case !plain:
		return unquote(b)
	}
	b = inner(b)
	if name := frequent(b); name != "" {
		return name, true
	}
	return string(b), true
}

func inner(quoted []byte) []byte {
	if len(quoted) < 2 {
		return nil
	}
	return quoted[1 : len(quoted)-1]
}

func unquote(b []byte) (s string, ok bool) { return s, json.Unmarshal(b, &s) == nil }

// longNumber is as many bytes as a number without an exponent may have to be sure that a double can hold it.
const longNumber = 300

// number leaves exponents and endless digits to the library.
func (p *parser) number() (any, bool) {
	start := p.pos
	digits := func() int {
		from := p.pos
		for p.pos < len(p.raw) && '0' <= p.raw[p.pos] && p.raw[p.pos] <= '9' {
			p.pos++
		}
		return p.pos - from
	}
	at := func(c byte) bool { return p.pos < len(p.raw) && p.raw[p.pos] == c }
	if at('-') {
		p.pos++
	}
	zero := at('0')
	if n := digits(); n == 0 || zero && n > 1 {
		return nil, false
	}
	if at('.') {
		p.pos++
		if digits() == 0 {
			return nil, false
		}
	}
	if at('e') || at('E') || p.pos-start > longNumber {
		return nil, false
	}
	return json.Number(p.raw[start:p.pos]), true
}

// frequent returns b when it is one of the names that documents have again and again, else "".
func frequent(b []byte) string {
	switch string(b) {
	case "id":
		return "id"
	case "uri":
		return "uri"
	case "uris":
		return "uris"
	case "host":
		return "host"
	case "hosts":
		return "hosts"
	case "name":
		return "name"
	case "desc":
		return "desc"
	case "labels":
		return "labels"
	case "plugins":
		return "plugins"
	case "upstream":
		return "upstream"
	case "upstream_id":
		return "upstream_id"
	case "service_id":
		return "service_id"
	case "plugin_config_id":
		return "plugin_config_id"
	case "methods":
		return "methods"
	case "priority":
		return "priority"
	case "status":
		return "status"
	case "vars":
		return "vars"
	case "timeout":
		return "timeout"
	case "create_time":
		return "create_time"
	case "update_time":
		return "update_time"
	case "type":
		return "type"
	case "nodes":
		return "nodes"
	case "weight":
		return "weight"
	case "port":
		return "port"
	case "scheme":
		return "scheme"
	case "key":
		return "key"
	case "hash_on":
		return "hash_on"
	case "pass_host":
		return "pass_host"
	case "retries":
		return "retries"
	case "username":
		return "username"
	case "_meta":
		return "_meta"
	case "disable":
		return "disable"
	case "filter":
		return "filter"
	case "headers":
		return "headers"
	case "set":
		return "set"
	case "add":
		return "add"
	case "remove":
		return "remove"
	case "regex_uri":
		return "regex_uri"
	case "count":
		return "count"
	case "time_window":
		return "time_window"
	case "rejected_code":
		return "rejected_code"
	case "policy":
		return "policy"
	case "key_type":
		return "key_type"
	case "rate":
		return "rate"
	case "burst":
		return "burst"
	case "rules":
		return "rules"
	case "weighted_upstreams":
		return "weighted_upstreams"
	case "limit-count":
		return "limit-count"
	case "limit-req":
		return "limit-req"
	case "limit-conn":
		return "limit-conn"
	case "proxy-rewrite":
		return "proxy-rewrite"
	case "response-rewrite":
		return "response-rewrite"
	case "traffic-split":
		return "traffic-split"
	case "prometheus":
		return "prometheus"
	case "key-auth":
		return "key-auth"
	case "jwt-auth":
		return "jwt-auth"
	case "basic-auth":
		return "basic-auth"
	case "cors":
		return "cors"
	}
	return ""
}
