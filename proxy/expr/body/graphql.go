package body

import "headgate/proxy/expr"

// MaxGraphQL is the longest GraphQL request in bytes that is looked at.
const MaxGraphQL = 1 << 20

// Operation is what is asked of the first definition of a GraphQL document.
type Operation uint8

const (
	OperationName   Operation = iota // graphql_name: Text, empty when the operation has none
	OperationType                    // graphql_operation: query, mutation or subscription; None for a fragment
	OperationFields                  // graphql_root_fields: List of the fields of its outermost selection set, by name, not by alias
)

// GraphQL answers from a request of the forms that the contract knows: a POST whose JSON body has a member query, any other POST, whose
// body is the document, and a GET with a query argument. A named fragment counts as a field by its name, as in APISIX; the
// fields of an inline fragment count themselves. A document with unbalanced brackets or a malformed first definition has no values.
func GraphQL(method, contentType, query, body []byte, what Operation, dst []byte) ([]byte, expr.Kind) {
	var text characters
	switch {
	case string(method) == "GET":
		p := pairs{rest: query}
		for p.next() && !p.named("query") {
		}
		if p.named("query") {
			text = characters{raw: p.value, form: asQuery}
		}
	case string(method) != "POST" || len(body) > MaxGraphQL:
	case !mediaTypeIs(contentType, typeJSON):
		text = characters{raw: body}
	case valid(body):
		if at, ok := lookup(body, ".query"); ok && body[at] == '"' {
			text = characters{raw: body[at+1 : skipString(body, at)-1], form: asJSON}
		}
	}
	if len(text.raw) == 0 || len(text.raw) > MaxGraphQL {
		return dst, expr.None
	}
	p := graphqlParser{text: text, what: what, dst: dst}
	return p.answer()
}

// graphqlParser reads the first definition of a document and checks the brackets of the rest.
type graphqlParser struct {
	text  characters
	what  Operation
	dst   []byte
	kind  expr.Kind
	token token
	name  [maxName]byte
	size  int // of name
}

// maxName is the longest name in bytes; a document with a longer one has no values.
const maxName = 256

// token is a punctuation byte or one of the following.
type token byte

const (
	tokenEnd    token = 0
	tokenBad    token = 1
	tokenName   token = 'a' // in name
	tokenValue  token = '0' // a number or a string
	tokenSpread token = '.'
)

func (p *graphqlParser) answer() ([]byte, expr.Kind) {
	start := len(p.dst)
	p.next()
	if !p.definition() || !p.balanced(tokenEnd) {
		return p.dst[:start], expr.None
	}
	return p.dst, p.kind
}

// definition reads up to the end of the first selection set.
func (p *graphqlParser) definition() bool {
	operation := "query"
	if p.token == tokenName {
		switch string(p.name[:p.size]) {
		case "query":
		case "mutation":
			operation = "mutation"
		case "subscription":
			operation = "subscription"
		case "fragment":
			operation = ""
		default:
			return false
		}
		p.next()
		if p.what == OperationName {
			p.kind = expr.Text
			if p.token == tokenName {
				p.dst = append(p.dst, p.name[:p.size]...)
			}
		}
		for p.token != '{' { // a name, variables, a type condition, directives
			if !p.skip() {
				return false
			}
		}
	}
	if p.token != '{' {
		return false
	}
	switch {
	case p.what == OperationName:
		p.kind = expr.Text
	case p.what == OperationFields:
		p.kind = expr.List
	case operation != "":
		p.dst, p.kind = append(p.dst, operation...), expr.Text
	}
	return p.selectionSet(0)
}

// selectionSet reads from "{" to behind the matching "}" and keeps the names of the fields.
func (p *graphqlParser) selectionSet(nesting int) bool {
	if nesting > maxNesting {
		return false
	}
	p.next()
	for p.token != '}' {
		if !p.selection(nesting) {
			return false
		}
	}
	p.next()
	return true
}

func (p *graphqlParser) selection(nesting int) bool {
	inline := false
	if p.token == tokenSpread {
		p.next()
		if inline = p.token != tokenName; !inline && string(p.name[:p.size]) == "on" {
			inline = true
			p.next() // the word
			if p.token != tokenName {
				return false
			}
			p.next() // the type
		}
	} else if p.token != tokenName {
		return false
	}
	if !inline {
		before := len(p.dst)
		p.field()
		if p.next(); p.token == ':' { // it was an alias
			if p.next(); p.token != tokenName {
				return false
			}
			p.dst = p.dst[:before]
			p.field()
			p.next()
		}
	}
	for p.token == '(' || p.token == '@' {
		if !p.skip() {
			return false
		}
	}
	switch {
	case inline:
		return p.token == '{' && p.selectionSet(nesting+1)
	case p.token == '{':
		return p.skip()
	default:
		return true
	}
}

func (p *graphqlParser) field() {
	if p.what == OperationFields {
		p.dst = expr.AppendItem(p.dst, expr.Text, p.name[:p.size])
	}
}

// skip passes over one token, a directive's name, or everything up to the bracket that closes the one at hand.
func (p *graphqlParser) skip() bool {
	switch p.token {
	case tokenEnd, tokenBad, ')', ']', '}':
		return false
	case '@':
		if p.next(); p.token != tokenName {
			return false
		}
	case '(', '[', '{':
		closing := closer(p.token)
		p.next()
		if !p.balanced(closing) {
			return false
		}
	}
	p.next()
	return true
}

// balanced runs up to the token until, which is not inside further brackets.
func (p *graphqlParser) balanced(until token) bool {
	var stack [maxBrackets]token
	for top := 0; ; p.next() {
		if top == 0 && p.token == until {
			return true
		}
		switch p.token {
		case tokenEnd, tokenBad:
			return false
		case '(', '[', '{':
			if top == maxBrackets {
				return false
			}
			stack[top] = closer(p.token)
			top++
		case ')', ']', '}':
			if top == 0 || stack[top-1] != p.token {
				return false
			}
			top--
		}
	}
}

// maxBrackets bounds how deep brackets may lie in each other.
const maxBrackets = 256

func closer(open token) token {
	switch open {
	case '(':
		return ')'
	case '[':
		return ']'
	default:
		return '}'
	}
}

// next reads a token (October 2021 edition of the GraphQL specification, section 2.1).
func (p *graphqlParser) next() {
	for {
		c, ok := p.text.next()
		switch {
		case !ok:
			p.token = tokenEnd
			return
		case c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == ',':
			continue
		case c == '#':
			for ok && c != '\n' && c != '\r' {
				c, ok = p.text.next()
			}
		case isNameByte(c) && (c < '0' || c > '9'):
			p.readName(c)
			return
		case c == '"':
			p.token = tokenBad
			if p.readString() {
				p.token = tokenValue
			}
			return
		case c == '-' || '0' <= c && c <= '9':
			for isNumberByte(p.text.peek()) {
				p.text.next()
			}
			p.token = tokenValue
			return
		case c == '.':
			p.token = tokenBad
			if second := p.text.take('.'); second && p.text.take('.') {
				p.token = tokenSpread
			}
			return
		default:
			p.token = tokenBad
			if isPunctuator(c) {
				p.token = token(c)
			}
			return
		}
	}
}

func (p *graphqlParser) readName(c byte) {
	p.token, p.size = tokenName, 0
	for {
		if p.size == maxName {
			p.token = tokenBad
			return
		}
		p.name[p.size] = c
		p.size++
		if !isNameByte(p.text.peek()) {
			return
		}
		c, _ = p.text.next()
	}
}

// readString reads a string whose opening quote has been read; three quotes open a block string.
func (p *graphqlParser) readString() bool {
	if !p.text.take('"') {
		for {
			switch c, ok := p.text.next(); {
			case !ok || c == '\n' || c == '\r':
				return false
			case c == '"':
				return true
			case c == '\\':
				p.text.next()
			}
		}
	}
	if !p.text.take('"') {
		return true // empty
	}
	for quotes := 0; quotes < 3; {
		switch c, ok := p.text.next(); {
		case !ok:
			return false
		case c == '"':
			quotes++
		case c == '\\':
			quotes = 0
			for range 3 {
				if !p.text.take('"') {
					break
				}
			}
		default:
			quotes = 0
		}
	}
	return true
}

func isNameByte(c byte) bool {
	return 'a' <= c|0x20 && c|0x20 <= 'z' || '0' <= c && c <= '9' || c == '_'
}

func isNumberByte(c byte) bool {
	return '0' <= c && c <= '9' || c == '.' || c == '-' || c == '+' || c|0x20 == 'e'
}

func isPunctuator(c byte) bool {
	switch c {
	case '!', '$', '&', '(', ')', ':', '=', '@', '[', ']', '{', '|', '}':
		return true
	}
	return false
}

// characters are the bytes of a text that may be written in another one. Outside of strings and comments GraphQL is ASCII, so that a
// longer character may stand for any byte that means nothing.
type characters struct {
	raw  []byte
	form form
}

type form uint8

const (
	asIs form = iota
	asJSON
	asQuery
)

// opaque stands for an escaped character beyond ASCII.
const opaque = 0x80

func (t *characters) decode() (c byte, size int) {
	switch c = t.raw[0]; {
	case t.form == asQuery:
		return percent(t.raw)
	case t.form == asJSON && c == '\\':
		r, size := escape(t.raw)
		if r >= opaque {
			r = opaque
		}
		return byte(r), size
	default:
		return c, 1
	}
}

func (t *characters) next() (c byte, ok bool) {
	if len(t.raw) == 0 {
		return 0, false
	}
	c, size := t.decode()
	t.raw = t.raw[max(size, 1):]
	return c, true
}

// peek returns the next byte, 0 at the end.
func (t *characters) peek() byte {
	if len(t.raw) == 0 {
		return 0
	}
	c, _ := t.decode()
	return c
}

// take passes over the next byte if it is c.
func (t *characters) take(c byte) bool {
	if t.peek() != c {
		return false
	}
	t.next()
	return true
}
