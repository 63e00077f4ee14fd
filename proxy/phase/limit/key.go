package limit

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"strconv"
	"strings"
	"unsafe"

	"headgate/proxy/phase"
	"headgate/proxy/vars"
)

// Key is what a plugin counts requests by.
type Key struct {
	v        vars.Var
	template *vars.Template // nil: v
	constant bool
}

// NewKey understands key and key_type: "var" (a name without "$"; also for an empty type), "var_combination" (a template), "constant".
// The only error is vars.ErrTemplateTooLong.
func NewKey(kind, text string) (Key, error) {
	switch kind {
	case "constant":
		text = strings.ReplaceAll(text, "$", `\$`)
	case "var_combination":
	default:
		v, _ := vars.Parse(text) // an unknown name never has a value
		return Key{v: v}, nil
	}
	t, err := vars.Compile(text)
	return Key{template: t, constant: kind == "constant"}, err
}

// Append appends the key of x to dst. resolved is false when nothing of the request is in it: dst is as it was then.
func (k *Key) Append(dst []byte, x *phase.Exchange) (key []byte, resolved bool) {
	if k.template == nil {
		return k.v.Append(dst, x)
	}
	key, n := k.template.Append(dst, x)
	if n == 0 && !k.constant {
		return dst, false
	}
	return key, true
}

// AppendOrClient is Append with the client's address in the place of a key that does not resolve.
func (k *Key) AppendOrClient(dst []byte, x *phase.Exchange) []byte {
	key, ok := k.Append(dst, x)
	if !ok {
		return append(key, x.Client.Text...)
	}
	return key
}

// Identity tells the counters of one configuration in one document from all others. It has a fixed length, so that no key can reach into
// it.
type Identity [16]byte

// IdentityOf is the identity of the configuration conf, whose form does not matter, in the document owner. What _meta says does not
// belong to it.
func IdentityOf(owner string, conf []byte) (Identity, error) {
	stable, err := Stable(conf)
	return identity("owner", owner, stable), err
}

// IdentityOfGroup is the identity that everything in a group shares.
func IdentityOfGroup(group string) Identity { return identity("group", group, nil) }

// Part is the identity of one of several limits of a configuration.
func (i Identity) Part(n int) Identity { return identity("part", strconv.Itoa(n), i[:]) }

func identity(kind, name string, rest []byte) (i Identity) {
	b := binary.AppendUvarint([]byte(kind), uint64(len(name)))
	sum := sha256.Sum256(append(append(b, name...), rest...))
	copy(i[:], sum[:])
	return i
}

// Hash returns the hash under which the table knows the key of x: of identity and what append appends.
func (t *Table[C, P]) Hash(x *phase.Exchange, id *Identity, k *Key) uint64 {
	return t.Key(x.Commit(k.AppendOrClient(append(x.Arena(), id[:]...), x)))
}

// Number is a number that may be a template.
type Number struct {
	fixed    int64
	template *vars.Template
}

// Largest is the largest number that the contract counts exactly.
const Largest = 1<<53 - 1

// NewNumber understands a whole number or a template of one (decoded JSON). A text that never becomes a number is no error: that turns
// out with the first request.
func NewNumber(v any) (Number, error) {
	text, ok := v.(string)
	if !ok {
		n, _ := v.(json.Number)
		text = string(n)
	}
	if n, ok := parseNumber([]byte(text)); ok && vars.Literal(text) {
		return Number{fixed: n}, nil
	}
	t, err := vars.Compile(text)
	if err != nil {
		return Number{}, err
	}
	if static, ok := t.Static(); ok {
		if n, ok := parseNumber([]byte(static)); ok {
			return Number{fixed: n}, nil
		}
	}
	return Number{template: t}, nil
}

// Value returns the number for x; ok is false unless it is whole, at least lowest and at most Largest.
func (n *Number) Value(x *phase.Exchange, lowest int64) (value int64, ok bool) {
	if n.template == nil {
		return n.fixed, n.fixed >= lowest
	}
	buf, _ := n.template.Append(x.Arena(), x)
	value, ok = parseNumber(x.Commit(buf))
	return value, ok && value >= lowest
}

// parseNumber understands what a double can hold exactly: also 2.0 and 1e3. It allocates nothing for what is a number.
func parseNumber(b []byte) (int64, bool) {
	text := strings.TrimSpace(unsafe.String(unsafe.SliceData(b), len(b))) // read only, and only during this call
	if len(text) > 32 {
		return 0, false
	}
	digits := len(text) > 0 && len(text) <= 16
	n := int64(0)
	for i := range len(text) {
		digits = digits && '0' <= text[i] && text[i] <= '9'
		n = n*10 + int64(text[i]-'0')
	}
	if digits {
		return n, n <= Largest
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || f != float64(int64(f)) || f > Largest || f < -Largest {
		return 0, false
	}
	return int64(f), true
}
