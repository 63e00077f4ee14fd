package expr

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

type operator uint8

const (
	opNone operator = iota
	opEqual
	opNotEqual
	opGreater
	opGreaterEqual
	opLess
	opLessEqual
	opMatch
	opMatchFold
	opIn
	opHas
	opIPMatch
)

// operatorOf understands an operator, in any case; opNone is none.
func operatorOf(s string) operator {
	switch strings.ToLower(s) {
	case "==":
		return opEqual
	case "~=":
		return opNotEqual
	case ">":
		return opGreater
	case ">=":
		return opGreaterEqual
	case "<":
		return opLess
	case "<=":
		return opLessEqual
	case "~~":
		return opMatch
	case "~*":
		return opMatchFold
	case "in":
		return opIn
	case "has":
		return opHas
	case "ipmatch":
		return opIPMatch
	default:
		return opNone
	}
}

// literalKind says how == and ~= compare.
type literalKind uint8

const (
	literalOther  literalKind = iota // an array, an object: equal to no value
	literalNull                      // equal to the absent value
	literalString                    // equal byte for byte
	literalNumber                    // equal to a value that reads as the same number
	literalBool                      // equal to the same truth value, not to its name
)

// predicate is an operator with its literal, prepared for comparing.
type predicate struct {
	op       operator
	literal  literalKind
	str      string  // of a bool: its name
	num      float64 // NaN compares false with everything, which is what a literal that is no number does
	pattern  Pattern
	members  members
	prefixes []netip.Prefix
}

func newPredicate(opText string, literal any) (predicate, error) {
	p := predicate{op: operatorOf(opText)}
	switch p.op {
	case opNone:
		return p, fmt.Errorf("invalid operator '%s'", strings.ToLower(opText))
	case opEqual, opNotEqual:
		if num, ok := number(literal); ok {
			p.literal, p.num = literalNumber, num
			break
		}
		switch literal := literal.(type) {
		case string:
			p.literal, p.str = literalString, literal
		case bool:
			p.literal, p.str = literalBool, strconv.FormatBool(literal)
		case nil:
			p.literal = literalNull
		}
	case opGreater, opGreaterEqual, opLess, opLessEqual:
		p.num = math.NaN()
		if num, ok := number(literal); ok {
			p.num = num
		} else if s, ok := literal.(string); ok {
			if num, ok := parseNumber([]byte(s)); ok {
				p.num = num
			}
		}
	case opMatch, opMatchFold:
		if s, ok := text(literal); ok {
			p.pattern, _ = CompilePattern(s, p.op == opMatchFold) // a broken one never matches
		}
	case opIn:
		elements, _ := list(literal)
		p.members = newMembers(elements)
	case opHas:
		p.members = newMembers([]any{literal})
	case opIPMatch:
		return p, p.setPrefixes(literal)
	}
	return p, nil
}

func (p *predicate) setPrefixes(literal any) error {
	elements, ok := list(literal)
	if !ok {
		elements = []any{literal}
	}
	for _, element := range elements {
		s, ok := text(element)
		if !ok {
			return errInvalid
		}
		prefix, ok := parsePrefix(s)
		if !ok {
			return fmt.Errorf("invalid ip address: %s", s)
		}
		p.prefixes = append(p.prefixes, prefix)
	}
	return nil
}

// holds compares a value with the literal.
func (p *predicate) holds(value []byte, kind Kind) bool {
	switch p.op {
	case opEqual:
		return p.equal(value, kind)
	case opNotEqual:
		return !p.equal(value, kind)
	case opGreater, opGreaterEqual, opLess, opLessEqual:
		num, ok := numberOf(value, kind)
		return ok && p.ordered(num)
	case opMatch, opMatchFold:
		if kind != Text && kind != Number && kind != Bool {
			return false
		}
		ok, err := p.pattern.Match(value)
		return ok && err == nil
	case opIn:
		return p.members.contain(value, kind)
	case opIPMatch:
		return kind == Text && p.contains(value)
	default: // has: only a list has elements
		if kind != List {
			return false
		}
		for kind, value := range Items(value) {
			if p.members.contain(value, kind) {
				return true
			}
		}
		return false
	}
}

func (p *predicate) equal(value []byte, kind Kind) bool {
	switch p.literal {
	case literalString:
		return kind == Text && string(value) == p.str
	case literalBool:
		return kind == Bool && string(value) == p.str
	case literalNumber:
		num, ok := numberOf(value, kind)
		return ok && num == p.num
	case literalNull:
		return kind == None
	default:
		return false
	}
}

// numberOf converts a value as comparisons with numbers do: text that reads as one counts.
func numberOf(value []byte, kind Kind) (float64, bool) {
	if kind != Text && kind != Number {
		return 0, false
	}
	return parseNumber(value)
}

func (p *predicate) ordered(num float64) bool {
	switch p.op {
	case opGreater:
		return num > p.num
	case opGreaterEqual:
		return num >= p.num
	case opLess:
		return num < p.num
	default:
		return num <= p.num
	}
}

func (p *predicate) contains(value []byte) bool {
	addr, ok := parseAddr(value)
	return ok && slices.ContainsFunc(p.prefixes, func(prefix netip.Prefix) bool { return prefix.Contains(addr) })
}
