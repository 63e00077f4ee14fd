package responserewrite

import (
	"headgate/proxy/phase"
	"headgate/proxy/phase/wire"
	"headgate/proxy/vars"
)

// line is one change of the answer's header.
type line struct {
	op       lineOp
	name     []byte
	static   []byte         // the value without variables
	template *vars.Template // nil: static
}

type lineOp uint8

const (
	lineAdd lineOp = iota
	lineSet
	lineRemove
)

func newLine(op lineOp, name, value string) (line, error) {
	l := line{op: op, name: []byte(name)}
	switch {
	case !wire.ValidName(l.name):
		return l, errHeaderName
	case !wire.ValidValue([]byte(value)):
		return l, errHeaderValue
	case vars.Literal(value):
		l.static = []byte(value)
		return l, nil
	}
	t, err := vars.Compile(value)
	if err != nil {
		return l, err
	}
	if text, ok := t.Static(); ok {
		l.static = []byte(text)
	} else {
		l.template = t
	}
	return l, nil
}

// apply does the change. A value that comes out empty means no line: setting it takes away what was there.
func (l *line) apply(x *phase.Exchange) {
	h := &x.Response.Header
	if l.op == lineRemove {
		h.DelBytes(l.name)
		return
	}
	v := l.value(x)
	switch {
	case len(v) == 0 && l.op == lineSet:
		h.DelBytes(l.name)
	case len(v) == 0:
	case l.op == lineSet:
		h.Set(l.name, v)
	default:
		h.Add(l.name, v)
	}
}

// value returns the value for x. Control bytes, which a decoded variable may bring along, become spaces: they must not begin a header
// line of their own.
func (l *line) value(x *phase.Exchange) []byte {
	if l.template == nil {
		return l.static
	}
	buf, _ := l.template.Append(x.Arena(), x)
	out := x.Commit(buf) // our own copy
	for i, c := range out {
		if c < ' ' && c != '\t' || c == 0x7f {
			out[i] = ' '
		}
	}
	return out
}
