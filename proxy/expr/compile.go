package expr

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// maxDepth bounds the nesting of an expression.
const maxDepth = 64

// The contract's texts (section 2.4), without the prefix that most callers put before them.
var (
	errMissing   = errors.New("missing argument rule")
	errUnwrapped = errors.New("rule should be wrapped inside brackets")
	errTooShort  = errors.New("rule too short")
	errInvalid   = errors.New("invalid expression")
	errBadNot    = errors.New("bad 'not' expression")
	errTooDeep   = errors.New("rule nested too deeply")
)

// Compile understands an expression as encoding/json decodes it: []any of []any, string, float64 or json.Number, bool and nil; integers
// are taken too, and an empty map for an empty array. resolve gives the getter of a variable; a nil getter, or a nil resolve, stands for
// a variable without value. Errors carry the contract's texts. A pattern that doesn't compile is no error: it never matches.
func Compile[S any](raw any, resolve func(name string) Getter[S]) (*Expr[S], error) {
	if raw == nil {
		return nil, errMissing
	}
	rule, ok := list(raw)
	if !ok {
		return nil, errUnwrapped
	}
	if len(rule) == 0 {
		return &Expr[S]{}, nil
	}
	if _, nested := list(rule[0]); !nested {
		if _, _, ok := logicOf(rule[0]); !ok {
			return nil, errUnwrapped
		}
	}
	if resolve == nil {
		resolve = func(string) Getter[S] { return nil }
	}
	root, err := compileRule(rule, resolve, 0)
	if err != nil {
		return nil, err
	}
	return &Expr[S]{root: &root}, nil
}

// Validate returns the error that Compile would.
func Validate(raw any) error {
	_, err := Compile[struct{}](raw, nil)
	return err
}

func compileRule[S any](raw any, resolve func(string) Getter[S], depth int) (node[S], error) {
	rule, ok := list(raw)
	switch {
	case !ok:
		return node[S]{}, errInvalid
	case len(rule) == 0:
		return node[S]{}, errTooShort
	case depth > maxDepth:
		return node[S]{}, errTooDeep
	}
	n := node[S]{logic: and}
	if _, nested := list(rule[0]); !nested {
		if n.logic, n.negate, ok = logicOf(rule[0]); !ok {
			return compileLeaf(rule, resolve)
		}
		if len(rule) <= 2 {
			return node[S]{}, errTooShort
		}
		rule = rule[1:]
	}
	n.nodes = make([]node[S], len(rule))
	for i := range rule {
		var err error
		if n.nodes[i], err = compileRule(rule[i], resolve, depth+1); err != nil {
			return node[S]{}, err
		}
	}
	return n, nil
}

// compileLeaf understands [var, op, literal], [var, "!", op, literal] and the old [var, literal]. Elements beyond those are ignored,
// and an operator that ends the rule compares with null.
func compileLeaf[S any](rule []any, resolve func(string) Getter[S]) (node[S], error) {
	name, ok := text(rule[0])
	if !ok || len(rule) == 1 {
		return node[S]{}, errInvalid
	}
	n := node[S]{}
	var literal any
	op := rule[1]
	switch len(rule) {
	case 2:
		if s, ok := op.(string); !ok || operatorOf(s) == opNone {
			op, literal = "==", rule[1]
			if _, ok := text(literal); !ok {
				return n, errInvalid
			}
		}
	case 4:
		if op != "!" {
			return n, errBadNot
		}
		n.negate = true
		op, literal = rule[2], rule[3]
	default:
		literal = rule[2]
	}
	opText, ok := text(op)
	if !ok {
		return n, errInvalid
	}
	var err error
	if n.test, err = newPredicate(opText, literal); err != nil {
		return n, err
	}
	n.get = resolve(name)
	return n, nil
}

// logicOf understands AND, OR and their negations.
func logicOf(v any) (l logic, negate, ok bool) {
	s, ok := v.(string)
	if !ok {
		return leaf, false, false
	}
	s, negate = strings.CutPrefix(s, "!")
	switch {
	case strings.EqualFold(s, "AND"):
		return and, negate, true
	case strings.EqualFold(s, "OR"):
		return or, negate, true
	default:
		return leaf, false, false
	}
}

// list returns v as an array. The contract doesn't tell {} from [].
func list(v any) ([]any, bool) {
	switch v := v.(type) {
	case []any:
		return v, true
	case map[string]any:
		return nil, len(v) == 0
	default:
		return nil, false
	}
}

// number returns v as a number.
func number(v any) (float64, bool) {
	switch v := v.(type) {
	case float64:
		return v, true
	case int64:
		return float64(v), true
	case int:
		return float64(v), true
	case json.Number:
		f, err := strconv.ParseFloat(string(v), 64)
		return f, err == nil || errors.Is(err, strconv.ErrRange)
	default:
		return 0, false
	}
}

// text returns a scalar as it would be written; not null, arrays and objects.
func text(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case json.Number:
		return string(v), true
	case float64:
		return strconv.FormatFloat(v, 'g', 14, 64), true
	case int64, int, bool:
		return fmt.Sprint(v), true
	default:
		return "", false
	}
}
