package mocking

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

// line is a header line of the answer.
type line struct {
	name  []byte
	value *vars.Template
}

var errHeader = errors.New("invalid character in header")

// readLines takes strings as they are and writes numbers as the contract's "%.14g" does.
func readLines(m map[string]any) map[string]string {
	lines := make(map[string]string, len(m))
	for name, v := range m {
		switch v := v.(type) {
		case string:
			lines[name] = v
		case json.Number:
			if f, err := v.Float64(); err == nil {
				lines[name] = strconv.FormatFloat(f, 'g', 14, 64)
			}
		}
	}
	return lines
}

// newLines compiles lines in the order of their names: objects have none.
func newLines(m map[string]string) ([]line, error) {
	var lines []line
	for _, name := range slices.Sorted(maps.Keys(m)) {
		l := line{name: []byte(name)}
		if !wire.ValidName(l.name) || !wire.ValidValue([]byte(m[name])) {
			return nil, errHeader
		}
		var err error
		if l.value, err = vars.Compile(m[name]); err != nil {
			return nil, err
		}
		if !framing(l.name) {
			lines = append(lines, l)
		}
	}
	return lines, nil
}

// framing names the lines that say where an answer ends, which only the gateway knows. An operator's line of this name does nothing.
func framing(name []byte) bool {
	for _, r := range [...]string{"content-length", "transfer-encoding", "connection", "keep-alive", "trailer", "upgrade"} {
		if phase.EqualName(name, r) {
			return true
		}
	}
	return false
}

// text returns the value for x. Control bytes, which a decoded variable may bring along, are percent-encoded: they must not begin a
// header line of their own.
func (l *line) text(x *phase.Exchange) []byte {
	b, _ := l.value.Append(x.Arena(), x)
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
