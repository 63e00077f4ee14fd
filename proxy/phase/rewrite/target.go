package rewrite

import (
	"bytes"
	"strings"

	"headgate/proxy/phase"
	"headgate/proxy/phase/wire"
	"headgate/proxy/vars"
)

// target is the uri of a rewrite.
type target struct {
	// pieces are what stands between the question marks of the text: first the path, the rest is query. The text is cut so that a
	// question mark that a variable brings along is told from one that the operator wrote.
	pieces []*vars.Template
	// static is the whole, escaped, when no variable is in it.
	static []byte
}

func newTarget(text string, unsafe bool) (*target, error) {
	t := &target{}
	static := true
	for {
		piece, rest, more := cutQuestionMark(text)
		compiled, err := vars.Compile(piece)
		if err != nil {
			return nil, err
		}
		t.pieces = append(t.pieces, compiled)
		_, ok := compiled.Static()
		static = static && ok
		if !more {
			break
		}
		text = rest
	}
	if static {
		t.static = t.append(nil, nil, unsafe)
	}
	return t, nil
}

// cutQuestionMark cuts text at its first "?" that is not inside "${...}", where it is part of a default.
func cutQuestionMark(text string) (before, after string, found bool) {
	for i := 0; i < len(text); i++ {
		switch {
		case text[i] == '?':
			return text[:i], text[i+1:], true
		case text[i] == '$' && strings.HasPrefix(text[i:], "${") && (i == 0 || text[i-1] != '\\'):
			if end := strings.IndexByte(text[i:], '}'); end > 0 {
				i += end
			}
		}
	}
	return text, "", false
}

func (t *target) apply(x *phase.Exchange, unsafe bool) {
	q := &x.Request
	bare := unsafe || len(q.Query) == 0
	if t.static != nil && bare {
		q.OutTarget = t.static
		return
	}
	buf := x.Arena()
	if t.static != nil {
		buf = append(buf, t.static...)
	} else {
		buf = t.append(buf, x, unsafe)
	}
	if !bare {
		separator := byte('?')
		if len(t.pieces) > 1 {
			separator = '&'
		}
		buf = append(append(buf, separator), q.Query...)
	}
	q.OutTarget = x.Commit(buf)
}

// append appends the escaped text for src.
func (t *target) append(buf []byte, src vars.Source, unsafe bool) []byte {
	for i, piece := range t.pieces {
		if i > 0 {
			buf = append(buf, '?')
		}
		start := len(buf)
		buf, _ = piece.Append(buf, src)
		end := len(buf)
		if i == 0 && !unsafe {
			buf = appendVariablePath(buf, buf[start:end])
		} else {
			buf = appendVariableQuery(buf, buf[start:end])
		}
		buf = buf[:start+copy(buf[start:], buf[end:])]
	}
	return buf
}

// appendVariablePath escapes a path whose question marks come from variables. They are escaped twice, as in the contract: once as the
// value of a variable and once as a part of the path (apisix-observed, proxy-rewrite $request_uri).
func appendVariablePath(dst, path []byte) []byte {
	for {
		i := bytes.IndexByte(path, '?')
		if i < 0 {
			return wire.AppendPath(dst, path)
		}
		dst = append(wire.AppendPath(dst, path[:i]), "%253F"...)
		path = path[i+1:]
	}
}

// appendVariableQuery escapes what is not escaped as a path, and the question marks, which come from variables.
func appendVariableQuery(dst, b []byte) []byte {
	for {
		i := bytes.IndexByte(b, '?')
		if i < 0 {
			return appendLegal(dst, b)
		}
		dst = append(appendLegal(dst, b[:i]), "%3F"...)
		b = b[i+1:]
	}
}

// appendLegal appends b, percent-encoding only what a request target must not contain or would end at: control bytes, spaces, "#" and
// everything outside of ASCII. Without this a decoded variable could write a request of its own.
func appendLegal(dst, b []byte) []byte {
	for _, c := range b {
		if c <= ' ' || c >= 0x7f || c == '#' {
			dst = appendEscaped(dst, c)
		} else {
			dst = append(dst, c)
		}
	}
	return dst
}

func appendEscaped(dst []byte, c byte) []byte {
	const hex = "0123456789ABCDEF"
	return append(dst, '%', hex[c>>4], hex[c&15])
}
