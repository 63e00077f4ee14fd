package schema

import (
	"encoding/json"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// run is the state of one Validate.
type run struct {
	steps   int  // what is left of maxSteps
	absent  bool // there is no document
	literal bool // no string of the document refers to a secret
	quiet   int  // above 0, what is wrong does not matter, only that something is
}

// say returns a complaint.
func (r *run) say(parts ...string) string {
	if r.quiet > 0 {
		return "no"
	}
	return strings.Join(parts, "")
}

// fits is check for where nobody reads the complaint.
func (r *run) fits(n *node, v any) bool {
	r.quiet++
	msg := r.check(n, v)
	r.quiet--
	return msg == ""
}

// check returns the first complaint of n about v, or "". The order is fixed: type, then the keywords of that type (properties by
// name), enum and const, then the combining keywords.
func (r *run) check(n *node, v any) string {
	if r.steps--; r.steps < 0 {
		return "too complex"
	}
	for n.ref != nil {
		n = n.ref
	}
	if n.never {
		return "expect false always"
	}
	if s, ok := v.(string); ok && n.kinds&kindString != 0 && !r.literal && IsReference(s) {
		return ""
	}
	if n.kinds != 0 && !n.kinds.fit(v) {
		want := n.types[0]
		if len(n.types) > 1 && r.quiet == 0 {
			want = "one of " + strings.Join(n.types, ", ")
		}
		return r.say("wrong type: expected ", want, ", got ", r.typeName(v))
	}
	if msg := r.checkByType(n, v); msg != "" {
		return msg
	}
	if n.enum != nil {
		var buf [64]byte
		text := appendCanonical(buf[:0], v)
		if !slices.ContainsFunc(n.enum, func(e string) bool { return e == string(text) }) {
			return "matches none of the enum values"
		}
	}
	if n.constant != nil && *n.constant != canonical(v) {
		return "failed to check const value"
	}
	return r.combined(n, v)
}

func (r *run) checkByType(n *node, v any) string {
	switch v := v.(type) {
	case map[string]any:
		if msg := r.object(n, v); msg != "" {
			return msg
		}
		if len(v) == 0 { // the empty table is an array as well
			return r.array(n, nil)
		}
	case []any:
		if len(v) == 0 {
			if msg := r.object(n, nil); msg != "" {
				return msg
			}
		}
		return r.array(n, v)
	case string:
		return r.text(n, v)
	default:
		if f, ok := number(v); ok {
			return checkNumber(n, f)
		}
	}
	return ""
}

func (r *run) object(n *node, obj map[string]any) string {
	var buf [16]string
	var names []string // sorted
	if len(obj) > 0 && n.looksAtNames() {
		names = buf[:0]
		for name := range obj {
			names = append(names, name)
		}
		slices.Sort(names)
	}
	for _, name := range names {
		p := n.props[name]
		if p == nil {
			continue
		}
		if msg := r.check(p, obj[name]); msg != "" {
			return r.say(`property "`, name, `" validation failed: `, msg)
		}
	}
	for _, name := range n.required {
		if _, ok := obj[name]; !ok {
			return r.say(`property "`, name, `" is required`)
		}
	}
	for _, d := range n.dependencies {
		if _, ok := obj[d.prop]; !ok {
			continue
		}
		for _, name := range d.needs {
			if _, ok := obj[name]; !ok {
				return r.say(`property "`, name, `" is required when "`, d.prop, `" is set`)
			}
		}
		if d.node != nil {
			if msg := r.check(d.node, obj); msg != "" {
				return r.say(`failed to validate dependent schema for "`, d.prop, `": `, msg)
			}
		}
	}
	if msg := r.otherProperties(n, obj, names); msg != "" {
		return msg
	}
	if len(obj) < n.minProps {
		return "expect object to have at least " + strconv.Itoa(n.minProps) + " properties"
	}
	if n.maxProps >= 0 && len(obj) > n.maxProps {
		return "expect object to have at most " + strconv.Itoa(n.maxProps) + " properties"
	}
	return ""
}

// otherProperties applies the keywords that depend on the names the document chose, which are names.
func (r *run) otherProperties(n *node, obj map[string]any, names []string) string {
	if !n.limitsNames() {
		return ""
	}
	for _, name := range names {
		if n.names != nil {
			if msg := r.check(n.names, name); msg != "" {
				return r.say(`property name "`, name, `" validation failed: `, msg)
			}
		}
		_, claimed := n.props[name]
		for _, p := range n.patterns {
			if !p.pattern.MatchString(name) {
				continue
			}
			claimed = true
			if msg := r.check(p.node, obj[name]); msg != "" {
				return r.say("failed to validate ", name, ` (matching "`, p.pattern.String(), `"): `, msg)
			}
		}
		switch {
		case claimed:
		case n.closed:
			return r.say("additional properties forbidden, found ", name)
		case n.additional != nil:
			if msg := r.check(n.additional, obj[name]); msg != "" {
				return r.say("failed to validate additional property ", name, ": ", msg)
			}
		}
	}
	return ""
}

func (r *run) array(n *node, arr []any) string {
	if len(arr) < n.minItems {
		return "expect array to have at least " + strconv.Itoa(n.minItems) + " items"
	}
	if n.maxItems >= 0 && len(arr) > n.maxItems {
		return "expect array to have at most " + strconv.Itoa(n.maxItems) + " items"
	}
	if n.endOfTuple && len(arr) > len(n.tuple) {
		return "expect array to have at most " + strconv.Itoa(len(n.tuple)) + " items"
	}
	for i, v := range arr {
		sub := n.items
		if sub == nil {
			if sub = n.rest; i < len(n.tuple) {
				sub = n.tuple[i]
			}
		}
		if sub == nil {
			continue
		}
		if msg := r.check(sub, v); msg != "" {
			return r.say("failed to validate item ", strconv.Itoa(i+1), ": ", msg)
		}
	}
	if n.unique && len(arr) > 1 {
		first := make(map[string]int, len(arr))
		for i, v := range arr {
			key := canonical(v)
			if j, ok := first[key]; ok {
				return "expected unique items but items " + strconv.Itoa(j+1) + " and " + strconv.Itoa(i+1) + " are equal"
			}
			first[key] = i
		}
	}
	if n.contains != nil && !slices.ContainsFunc(arr, func(v any) bool { return r.fits(n.contains, v) }) {
		return "expect array to contain a matching item"
	}
	return ""
}

func (r *run) text(n *node, s string) string {
	if n.minLength > 0 || n.maxLength >= 0 {
		length := utf8.RuneCountInString(s)
		if length < n.minLength {
			return "string too short, expected at least " + strconv.Itoa(n.minLength) + ", got " + strconv.Itoa(length)
		}
		if n.maxLength >= 0 && length > n.maxLength {
			return "string too long, expected at most " + strconv.Itoa(n.maxLength) + ", got " + strconv.Itoa(length)
		}
	}
	if n.pattern != nil && !n.pattern.MatchString(s) {
		return r.say("failed to match pattern ", quote(n.pattern.String()), " with ", quote(s))
	}
	switch n.format { // the contract knows no other formats: they are annotations
	case "ipv4", "ipv6":
		addr, err := netip.ParseAddr(s)
		if err != nil || addr.Zone() != "" || addr.Is4() != (n.format == "ipv4") {
			return "expect valid " + n.format + " format but got: " + s
		}
	}
	return ""
}

func checkNumber(n *node, f float64) string {
	switch {
	case n.minimum != nil && f < *n.minimum:
		return "expected " + formatNumber(f) + " to be at least " + formatNumber(*n.minimum)
	case n.above != nil && f <= *n.above:
		return "expected " + formatNumber(f) + " to be greater than " + formatNumber(*n.above)
	case n.maximum != nil && f > *n.maximum:
		return "expected " + formatNumber(f) + " to be at most " + formatNumber(*n.maximum)
	case n.below != nil && f >= *n.below:
		return "expected " + formatNumber(f) + " to be smaller than " + formatNumber(*n.below)
	case n.multipleOf != nil && !isMultiple(f, *n.multipleOf):
		return "expected " + formatNumber(f) + " to be a multiple of " + formatNumber(*n.multipleOf)
	}
	return ""
}

// isMultiple allows for the rounding of decimal fractions: 0.3 is a multiple of 0.1.
func isMultiple(f, of float64) bool {
	q := f / of
	return math.Abs(q-math.Round(q)) <= 1e-9*math.Max(1, math.Abs(q))
}

func (r *run) combined(n *node, v any) string {
	for i, sub := range n.allOf {
		if msg := r.check(sub, v); msg != "" {
			return r.say("allOf ", strconv.Itoa(i+1), " failed: ", msg)
		}
	}
	if len(n.anyOf) > 0 && !slices.ContainsFunc(n.anyOf, func(sub *node) bool { return r.fits(sub, v) }) {
		if n.requiredOnly != "" {
			return r.say("object matches none of the required: ", n.requiredOnly)
		}
		return "object matches none of the required"
	}
	if len(n.oneOf) > 0 {
		match := -1
		for i, sub := range n.oneOf {
			if !r.fits(sub, v) {
				continue
			}
			if match >= 0 {
				return "value should match only one schema, but matches both schemas " + strconv.Itoa(match+1) + " and " + strconv.Itoa(i+1)
			}
			match = i
		}
		if match < 0 {
			return "value should match only one schema, but matches none"
		}
	}
	if n.not != nil && r.fits(n.not, v) {
		return "value wasn't supposed to match schema"
	}
	if n.cond != nil {
		holds := r.fits(n.cond, v)
		if holds && n.then != nil && !r.fits(n.then, v) {
			return "then clause did not match"
		}
		if !holds && n.orElse != nil && !r.fits(n.orElse, v) {
			return "else clause did not match"
		}
	}
	return ""
}

// IsReference says whether s names a secret or an environment variable instead of being the value itself. The document is judged
// before such names are resolved, so no rule about the value can be applied (contract section 1.6).
func IsReference(s string) bool {
	const secret, env = "$secret://", "$env://"
	return strings.HasPrefix(s, secret) || len(s) >= len(env) && strings.EqualFold(s[:len(env)], env)
}

// kinds is a set of the types that a schema can ask for.
type kinds uint8

const (
	kindObject kinds = 1 << iota
	kindArray
	kindString
	kindBoolean
	kindNull
	kindNumber
	kindInteger
)

// kindsOf returns the set of the types with these names.
func kindsOf(names []string) (k kinds) {
	for i, name := range [...]string{"object", "array", "string", "boolean", "null", "number", "integer"} {
		if slices.Contains(names, name) {
			k |= 1 << i
		}
	}
	return k
}

// fit says whether v is of one of the types.
func (k kinds) fit(v any) bool {
	switch v := v.(type) {
	case map[string]any:
		return k&kindObject != 0 || k&kindArray != 0 && len(v) == 0
	case []any:
		return k&kindArray != 0 || k&kindObject != 0 && len(v) == 0
	case string:
		return k&kindString != 0
	case bool:
		return k&kindBoolean != 0
	case nil:
		return k&kindNull != 0
	}
	f, ok := number(v)
	return ok && (k&kindNumber != 0 || k&kindInteger != 0 && f == math.Trunc(f) && !math.IsInf(f, 0))
}

// typeName names the type of v as the contract does: in the words of Lua.
func (r *run) typeName(v any) string {
	switch v.(type) {
	case map[string]any, []any:
		return "table"
	case string:
		return "string"
	case bool:
		return "boolean"
	case nil:
		if r.absent {
			return "nil"
		}
		return "userdata"
	}
	if _, ok := number(v); ok {
		return "number"
	}
	return "userdata"
}

// number returns v as the contract sees numbers: as doubles. Numbers beyond the range become infinite.
func number(v any) (float64, bool) {
	switch v := v.(type) {
	case json.Number:
		f, err := strconv.ParseFloat(string(v), 64)
		return f, err == nil || math.IsInf(f, 0)
	case float64:
		return v, !math.IsNaN(v)
	case int:
		return float64(v), true
	case int64:
		return float64(v), true
	}
	return 0, false
}
