// Package headerline is header lines as operators write them: the value is a template (contract section 2.5), or a number.
package headerline

import (
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strconv"

	"headgate/proxy/phase"
	"headgate/proxy/phase/wire"
	"headgate/proxy/vars"
)

// Text returns a string as it is and writes a number as the contract's "%.14g" does; false for anything else, and for a number that is
// too large.
func Text(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case json.Number:
		if f, err := v.Float64(); err == nil {
			return strconv.FormatFloat(f, 'g', 14, 64), true
		}
	}
	return "", false
}

// Texts returns the members of a document that have a Text.
func Texts(m map[string]any) map[string]string {
	texts := make(map[string]string, len(m))
	for name, v := range m {
		if s, ok := Text(v); ok {
			texts[name] = s
		}
	}
	return texts
}

// ErrValue says that a value has a control byte in it.
var ErrValue = errors.New("invalid value character in header")

// Value is a compiled value. It is immutable.
type Value struct {
	static   []byte
	template *vars.Template // nil for a static value
}

// NewValue compiles a template.
func NewValue(text string) (Value, error) {
	if !wire.ValidValue([]byte(text)) {
		return Value{}, ErrValue
	}
	if vars.Literal(text) {
		return Value{static: []byte(text)}, nil
	}
	t, err := vars.Compile(text)
	if err != nil {
		return Value{}, err
	}
	if static, ok := t.Static(); ok {
		return Value{static: []byte(static)}, nil
	}
	return Value{template: t}, nil
}

// Text returns the value for x, which stays valid until Done. Control bytes, which a decoded variable may bring along, are
// percent-encoded: they must not begin a header line of their own. It allocates nothing.
func (v *Value) Text(x *phase.Exchange) []byte {
	if v.template == nil {
		return v.static
	}
	b, _ := v.template.Append(x.Arena(), x)
	out := x.Commit(b)
	if wire.ValidValue(out) {
		return out
	}
	const hex = "0123456789ABCDEF"
	b = x.Arena()
	for _, c := range out {
		if c < ' ' && c != '\t' || c == 0x7f {
			b = append(b, '%', hex[c>>4], hex[c&15])
		} else {
			b = append(b, c)
		}
	}
	return x.Commit(b)
}

// Answer is the lines of an answer that the gateway makes by itself. It is immutable.
type Answer []answerLine

type answerLine struct {
	name  []byte
	value Value
}

// ErrLine says that a name is none, or that a value has a control byte in it.
var ErrLine = errors.New("invalid character in header")

// NewAnswer compiles lines, by their names, in the order of these: objects have none. Those that say where an answer ends, which only the
// gateway knows, are checked and left out.
func NewAnswer(texts map[string]string) (Answer, error) {
	var a Answer
	for _, name := range slices.Sorted(maps.Keys(texts)) {
		l := answerLine{name: []byte(name)}
		if !wire.ValidName(l.name) {
			return nil, ErrLine
		}
		var err error
		if l.value, err = NewValue(texts[name]); errors.Is(err, ErrValue) {
			return nil, ErrLine
		} else if err != nil {
			return nil, err
		}
		if !framing(l.name) {
			a = append(a, l)
		}
	}
	return a, nil
}

func framing(name []byte) bool {
	for _, r := range [...]string{"content-length", "transfer-encoding", "connection", "keep-alive", "trailer", "upgrade"} {
		if phase.EqualName(name, r) {
			return true
		}
	}
	return false
}

// Set puts the lines into the answer of x, in the place of others with the same names.
func (a Answer) Set(x *phase.Exchange) {
	for i := range a {
		x.Response.Header.Set(a[i].name, a[i].value.Text(x))
	}
}
