package resource

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"strings"
	"unicode/utf8"

	"headgate/conf/schema"
)

// checkProto judges the content of a proto document: either the text of a .proto file, whose form is checked and nothing it refers to,
// or a compiled descriptor set in base64.
func checkProto(doc map[string]any) *Error {
	content, _ := doc["content"].(string)
	if isDescriptorSet(content) {
		return nil
	}
	p := protoText{text: content, line: 1}
	p.next()
	if err := p.file(); err != nil {
		return Invalid("invalid content: " + err.Error())
	}
	return nil
}

// isDescriptorSet says whether text is base64 of a google.protobuf.FileDescriptorSet, judged by its outermost level: nothing but field 1,
// each time with a length that fits.
func isDescriptorSet(text string) bool {
	raw, err := base64.StdEncoding.DecodeString(strings.TrimSpace(text))
	if err != nil || len(raw) == 0 {
		return false
	}
	for len(raw) > 0 {
		size, n := binary.Uvarint(raw[1:])
		if raw[0] != 0x0a || n <= 0 || size > uint64(len(raw)-1-n) {
			return false
		}
		raw = raw[1+n+int(size):]
	}
	return true
}

// protoText reads the text of a .proto file token by token.
type protoText struct {
	text  string
	at    int // behind tok
	line  int
	depth int
	tok   string // a word, a number, a string with its quotes or one sign; "" at the end
	bad   error  // the first thing that is no token
}

func (p *protoText) next() {
	for p.at < len(p.text) {
		c := p.text[p.at]
		switch {
		case c == '\n':
			p.line++
			p.at++
		case c == ' ' || c == '\t' || c == '\r' || c == '\f' || c == '\v':
			p.at++
		case strings.HasPrefix(p.text[p.at:], "//"):
			p.skipBehind("\n", 0)
		case strings.HasPrefix(p.text[p.at:], "/*"):
			if !p.skipBehind("*/", 2) {
				p.fail("a comment has no end")
				return
			}
		default:
			p.token(c)
			return
		}
	}
	p.tok = ""
}

// skipBehind moves to the end text, and behind it unless it is the end of a line.
func (p *protoText) skipBehind(end string, behind int) bool {
	n := strings.Index(p.text[p.at:], end)
	if n < 0 {
		p.at = len(p.text)
		return false
	}
	p.line += strings.Count(p.text[p.at:p.at+n], "\n")
	p.at += n + behind
	return true
}

func (p *protoText) token(c byte) {
	start := p.at
	switch {
	case c == '"' || c == '\'':
		for p.at++; p.at < len(p.text) && p.text[p.at] != c && p.text[p.at] != '\n'; p.at++ {
			if p.text[p.at] == '\\' {
				p.at++
			}
		}
		if p.at >= len(p.text) || p.text[p.at] != c {
			p.at = min(p.at, len(p.text))
			p.fail("a string has no end")
			return
		}
		p.at++
	case isWordByte(c):
		for p.at < len(p.text) && isWordByte(p.text[p.at]) {
			p.at++
		}
	case strings.IndexByte("{}[]()<>=;,:-+/", c) >= 0:
		p.at++
	default:
		char, _ := utf8.DecodeRuneInString(p.text[p.at:])
		p.fail(fmt.Sprintf("unexpected character %q", char))
		return
	}
	p.tok = p.text[start:p.at]
}

// isWordByte takes qualified names and numbers as one word.
func isWordByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_' || c == '.'
}

func (p *protoText) fail(text string) {
	if p.bad == nil {
		p.bad = fmt.Errorf("line %d: %s", p.line, text)
	}
	p.tok, p.at = "", len(p.text)
}

func (p *protoText) unexpected() error {
	if p.bad != nil {
		return p.bad
	}
	if p.tok == "" {
		return fmt.Errorf("line %d: unexpected end", p.line)
	}
	return fmt.Errorf("line %d: unexpected %s", p.line, shorten(p.tok))
}

func (p *protoText) file() error {
	for p.tok != "" {
		var err error
		switch p.tok {
		case ";":
			p.next()
		case "syntax", "edition":
			err = p.sequence("=", `"`, ";")
		case "package":
			err = p.sequence("a", ";")
		case "import":
			err = p.imported()
		case "option":
			_, err = p.statement()
		case "message", "enum", "service", "extend":
			err = p.definition()
		default:
			err = p.unexpected()
		}
		if err != nil {
			return err
		}
	}
	return p.bad
}

func (p *protoText) imported() error {
	p.next()
	if p.tok != "" && isWordByte(p.tok[0]) { // public, weak
		p.next()
	}
	if p.tok == "" || p.tok[0] != '"' && p.tok[0] != '\'' {
		return p.unexpected()
	}
	return p.sequence(";")
}

// sequence expects tokens behind the present one and moves behind them: "a" stands for a word, `"` for a string.
func (p *protoText) sequence(want ...string) error {
	for _, w := range want {
		p.next()
		ok := p.tok == w
		switch {
		case p.tok == "":
		case w == "a":
			ok = isWordByte(p.tok[0])
		case w == `"`:
			ok = p.tok[0] == '"' || p.tok[0] == '\''
		}
		if !ok {
			return p.unexpected()
		}
	}
	p.next()
	return nil
}

// definition reads a message, enum, service, oneof or extend with its body.
func (p *protoText) definition() error {
	kind := p.tok
	if err := p.sequence("a"); err != nil {
		return err
	}
	if p.tok != "{" {
		return p.unexpected()
	}
	if p.depth++; p.depth > schema.MaxDepth {
		return fmt.Errorf("line %d: nested deeper than %d levels", p.line, schema.MaxDepth)
	}
	p.next()
	for p.tok != "}" {
		if err := p.member(kind); err != nil {
			return err
		}
	}
	p.depth--
	p.next()
	return nil
}

func (p *protoText) member(of string) error {
	switch word := p.tok; {
	case word == ";":
		p.next()
		return nil
	case word == "" || !isWordByte(word[0]):
		return p.unexpected()
	case of == "service":
		if word != "rpc" && word != "option" {
			return p.unexpected()
		}
	case of == "message" && (word == "message" || word == "enum" || word == "extend" || word == "oneof"):
		return p.definition()
	}
	free := p.tok == "option" || p.tok == "reserved" || p.tok == "extensions" || p.tok == "rpc"
	line := p.line
	number, err := p.statement()
	if err == nil && !free && !number {
		return fmt.Errorf("line %d: a field without a number", line)
	}
	return err
}

// statement reads to the ";" or over the "{...}" that ends it, brackets balanced. number says that it holds "= <number>".
func (p *protoText) statement() (number bool, err error) {
	var open []byte
	for {
		before := p.tok
		if p.next(); p.tok == "" {
			return number, p.unexpected()
		}
		switch c := p.tok[0]; c {
		case '{', '[', '(', '<':
			if open = append(open, c); len(open) > schema.MaxDepth {
				return number, fmt.Errorf("line %d: nested deeper than %d levels", p.line, schema.MaxDepth)
			}
		case '}', ']', ')', '>':
			if len(open) == 0 || strings.IndexByte("{}[]()<>", open[len(open)-1])+1 != strings.IndexByte("{}[]()<>", c) {
				return number, p.unexpected()
			}
			if open = open[:len(open)-1]; len(open) == 0 && c == '}' {
				p.next()
				if p.tok == ";" {
					p.next()
				}
				return number, p.bad
			}
		case ';':
			if len(open) == 0 {
				p.next()
				return number, p.bad
			}
			if open[len(open)-1] != '{' {
				return number, p.unexpected()
			}
		default:
			if (before == "=" || before == "-") && '0' <= c && c <= '9' {
				number = true
			}
		}
	}
}
