package rewrite

import (
	"headgate/proxy/phase"
	"headgate/proxy/phase/headerline"
	"headgate/proxy/phase/wire"
)

// line is one change of the header.
type line struct {
	op     lineOp
	name   []byte
	values []headerline.Value
}

type lineOp uint8

const (
	lineAdd lineOp = iota
	lineSet
	lineRemove
)

func newLines(h *Headers) ([]line, error) {
	var lines []line
	for _, group := range [...]struct {
		op     lineOp
		fields []Field
	}{{lineAdd, h.Add}, {lineSet, h.Set}} {
		for _, f := range group.fields {
			l := line{op: group.op, name: []byte(f.Name)}
			if !wire.ValidName(l.name) {
				return nil, errHeaderName
			}
			for _, text := range f.Values {
				v, err := headerline.NewValue(text)
				if err != nil {
					return nil, err
				}
				l.values = append(l.values, v)
			}
			if !reserved(l.name) {
				lines = append(lines, l)
			}
		}
	}
	for _, name := range h.Remove {
		lines = append(lines, line{op: lineRemove, name: []byte(name)})
	}
	return lines, nil
}

// reserved names the lines that are the gateway's business: Host has a field of its own and no effect here (apisix-observed,
// proxy-rewrite headers), and a line that frames the message or belongs to the connection would let an operator's typo split requests
// on the upstream's side (RFC 9112 section 6.1, RFC 9110 section 7.6.1).
func reserved(name []byte) bool {
	for _, r := range [...]string{
		"host", "content-length", "transfer-encoding", "connection", "keep-alive", "proxy-connection", "te", "trailer", "upgrade", "expect",
		"http2-settings",
	} {
		if phase.EqualName(name, r) {
			return true
		}
	}
	return false
}

func (l *line) apply(x *phase.Exchange) {
	h := &x.Request.Header
	if l.op == lineRemove {
		h.DelBytes(l.name)
		return
	}
	replace := l.op == lineSet
	for i := range l.values {
		v := l.values[i].Text(x)
		switch {
		case len(v) == 0:
		case replace:
			h.Set(l.name, v)
			replace = false
		default:
			h.Add(l.name, v)
		}
	}
	if replace {
		h.DelBytes(l.name)
	}
}
