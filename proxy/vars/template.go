package vars

import (
	"errors"
	"strconv"
	"strings"
)

// MaxTemplate is the longest template text in bytes.
const MaxTemplate = 1 << 20

// ErrTemplateTooLong refuses a text of more than MaxTemplate bytes.
var ErrTemplateTooLong = errors.New("template is too long")

// Template is a text with variables in it. It is immutable.
type Template struct {
	parts []part
	// captures says that some part is a numbered group.
	captures bool
}

type partKind uint8

const (
	partText partKind = iota
	partVar
	partCapture
)

type part struct {
	kind       partKind
	hasDefault bool
	group      int
	text       string // the literal, or the default
	v          Var
}

// Compile understands a template (contract section 2.5):
//
//	$name  ${name}  ${name ?? default}  $1  ${1}
//
// "\$" is a dollar sign. A "$" that starts none of these forms stands for itself. $name runs over letters, digits, "_" and "."; it
// stops before the first "." when only what precedes that is a variable, so that "$uri.html" means what it says. Numbers are groups of
// a regular expression, for sources that have Captures. Unknown names are accepted; they never have a value. The only error is
// ErrTemplateTooLong.
func Compile(text string) (*Template, error) {
	if len(text) > MaxTemplate {
		return nil, ErrTemplateTooLong
	}
	t := &Template{}
	var literal strings.Builder
	flush := func() {
		if literal.Len() > 0 {
			t.parts = append(t.parts, part{text: literal.String()})
			literal.Reset()
		}
	}
	for {
		dollar := strings.IndexByte(text, '$')
		if dollar < 0 {
			literal.WriteString(text)
			break
		}
		if dollar > 0 && text[dollar-1] == '\\' {
			literal.WriteString(text[:dollar-1])
			literal.WriteByte('$')
			text = text[dollar+1:]
			continue
		}
		literal.WriteString(text[:dollar])
		text = text[dollar+1:]
		p, n := placeholder(text)
		if n == 0 {
			literal.WriteByte('$')
			continue
		}
		flush()
		t.parts = append(t.parts, p)
		t.captures = t.captures || p.kind == partCapture
		text = text[n:]
	}
	flush()
	return t, nil
}

// placeholder reads what follows a "$" and returns how many bytes of text it takes; 0 says that it is none.
func placeholder(text string) (part, int) {
	if strings.HasPrefix(text, "{") {
		end := strings.IndexByte(text, '}')
		if end < 0 {
			return part{}, 0
		}
		inner := strings.TrimSpace(text[1:end])
		if inner == "" {
			return part{}, 0
		}
		name, rest, hasDefault := strings.Cut(inner, "??")
		value, _, _ := strings.Cut(rest, "??")
		p := reference(strings.TrimSpace(name))
		p.hasDefault, p.text = hasDefault, strings.TrimSpace(value)
		return p, end + 1
	}
	n := 0
	for n < len(text) && isDigit(text[n]) {
		n++
	}
	if n > 0 {
		return reference(text[:n]), n
	}
	for n < len(text) && isNameByte(text[n]) {
		n++
	}
	name := text[:n]
	if prefix, _, dotted := strings.Cut(name, "."); dotted {
		_, whole := Parse(name)
		if _, known := Parse(prefix); known && !whole {
			name = prefix
		}
	}
	return reference(name), len(name)
}

// reference makes the part for a name or a number.
func reference(name string) part {
	for i := range len(name) {
		if !isDigit(name[i]) {
			v, _ := Parse(name)
			return part{kind: partVar, v: v}
		}
	}
	group, err := strconv.Atoi(name)
	if err != nil {
		return part{kind: partVar} // empty, or a number no expression has groups for: no value
	}
	return part{kind: partCapture, group: group}
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

func isNameByte(c byte) bool {
	return isDigit(c) || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c == '_' || c == '.'
}

// Static returns the text of a template that is the same for every request.
func (t *Template) Static() (string, bool) {
	switch {
	case len(t.parts) == 0:
		return "", true
	case len(t.parts) == 1 && t.parts[0].kind == partText:
		return t.parts[0].text, true
	default:
		return "", false
	}
}

// Valueless returns the first reference of t, without its "$", that never has a value: an unknown name, or one that has nothing to tell
// here. Groups of an expression count among them.
func (t *Template) Valueless() (name string, found bool) {
	for i := range t.parts {
		switch p := &t.parts[i]; {
		case p.kind == partVar && p.v.kind == kindAbsent:
			return p.v.name, true
		case p.kind == partCapture:
			return strconv.Itoa(p.group), true
		}
	}
	return "", false
}

// Append appends the text for src to dst. A reference without value and default adds nothing; resolved counts the others, so that 0
// tells a caller that nothing of the request went into the text.
func (t *Template) Append(dst []byte, src Source) (out []byte, resolved int) {
	var groups Captures
	if t.captures {
		groups, _ = src.(Captures)
	}
	for i := range t.parts {
		p := &t.parts[i]
		ok := false
		switch p.kind {
		case partText:
			dst = append(dst, p.text...)
			continue
		case partVar:
			dst, ok = p.v.Append(dst, src)
		case partCapture:
			if groups != nil {
				group := groups.Capture(p.group)
				dst, ok = append(dst, group...), group != nil
			}
		}
		if !ok && p.hasDefault {
			dst, ok = append(dst, p.text...), true
		}
		if ok {
			resolved++
		}
	}
	return dst, resolved
}
