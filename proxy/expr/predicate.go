package expr

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
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
	literalOther  literalKind = iota // a bool, an array, an object: equal to no value
	literalNull                      // equal to the absent value
	literalString                    // equal byte for byte
	literalNumber                    // equal to a value that reads as the same number
)

// predicate is an operator with its literal, prepared for comparing.
type predicate struct {
	op      operator
	literal literalKind
	str     string
	num     float64 // NaN compares false with everything, which is what a literal that is no number does
	pattern pattern
	members []string
	// set replaces a long list of members.
	set      map[string]struct{}
	prefixes []netip.Prefix
}

// linearMembers is how long a list may be before a set is faster.
const linearMembers = 8

func newPredicate(opText string, literal any) (predicate, error) {
	p := predicate{op: operatorOf(opText)}
	switch p.op {
	case opNone:
		return p, fmt.Errorf("invalid operator '%s'", strings.ToLower(opText))
	case opEqual, opNotEqual:
		if num, ok := number(literal); ok {
			p.literal, p.num = literalNumber, num
		} else if s, ok := literal.(string); ok {
			p.literal, p.str = literalString, s
		} else if literal == nil {
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
			p.pattern = newPattern(s, p.op == opMatchFold)
		}
	case opIn:
		p.setMembers(literal)
	case opIPMatch:
		return p, p.setPrefixes(literal)
	}
	return p, nil
}

// setMembers keeps the strings of an array. Values are text and compare strictly, so that no other element can be equal to one.
func (p *predicate) setMembers(literal any) {
	elements, _ := list(literal)
	for _, element := range elements {
		if s, ok := element.(string); ok {
			p.members = append(p.members, s)
		}
	}
	if len(p.members) <= linearMembers {
		return
	}
	p.set = make(map[string]struct{}, len(p.members))
	for _, s := range p.members {
		p.set[s] = struct{}{}
	}
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

// holds compares a value with the literal. ok is false for the absent value.
func (p *predicate) holds(value []byte, ok bool) bool {
	switch p.op {
	case opEqual:
		return p.equal(value, ok)
	case opNotEqual:
		return !p.equal(value, ok)
	case opGreater, opGreaterEqual, opLess, opLessEqual:
		if !ok {
			return false
		}
		num, ok := parseNumber(value)
		return ok && p.ordered(num)
	case opMatch, opMatchFold:
		return ok && p.pattern.match(value)
	case opIn:
		return ok && p.isMember(value)
	case opIPMatch:
		return ok && p.contains(value)
	default: // has: a single value has no elements
		return false
	}
}

func (p *predicate) equal(value []byte, ok bool) bool {
	switch p.literal {
	case literalString:
		return ok && string(value) == p.str
	case literalNumber:
		if !ok {
			return false
		}
		num, ok := parseNumber(value)
		return ok && num == p.num
	case literalNull:
		return !ok
	default:
		return false
	}
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

func (p *predicate) isMember(value []byte) bool {
	if p.set != nil {
		_, ok := p.set[string(value)]
		return ok
	}
	for _, s := range p.members {
		if string(value) == s {
			return true
		}
	}
	return false
}

func (p *predicate) contains(value []byte) bool {
	addr, ok := parseAddr(value)
	return ok && slices.ContainsFunc(p.prefixes, func(prefix netip.Prefix) bool { return prefix.Contains(addr) })
}
