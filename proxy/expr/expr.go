// Package expr is the vars language (contract section 2.4): conditions on a request, written as JSON arrays. An expression is compiled
// once, when a configuration is applied, and evaluated on the request path without allocating.
package expr

// Getter returns the value of one variable of src. dst is an empty slice that may have room to spare; the value is either appended to
// it or borrowed memory that nobody changes before Eval returns. A value of kind None is not looked at.
type Getter[S any] func(dst []byte, src S) (value []byte, kind Kind)

// Expr is a compiled expression. It is immutable and safe for concurrent use.
type Expr[S any] struct {
	root *node[S] // nil holds always
}

// Scratch is the memory that evaluation works in. The zero value is ready; it serves one evaluation at a time and is worth keeping.
type Scratch struct {
	buf []byte
}

// maxScratch bounds what a Scratch keeps between evaluations, in bytes.
const maxScratch = 64 << 10

type logic uint8

const (
	leaf logic = iota
	and
	or
)

// node is a leaf (get and test) or joins others. negate turns the outcome round.
type node[S any] struct {
	logic  logic
	negate bool
	nodes  []node[S]
	get    Getter[S] // nil: never a value
	test   predicate
}

// Eval says whether the expression holds for src. scratch must not be nil. Nothing is allocated once scratch has grown to the longest
// value, except by patterns that only a backtracking engine understands.
func (e *Expr[S]) Eval(src S, scratch *Scratch) bool {
	return e.root == nil || e.root.eval(src, scratch)
}

// Always says that the expression holds for everything, so that it needn't be evaluated.
func (e *Expr[S]) Always() bool { return e.root == nil }

func (n *node[S]) eval(src S, scratch *Scratch) bool {
	switch n.logic {
	case and:
		for i := range n.nodes {
			if !n.nodes[i].eval(src, scratch) {
				return n.negate
			}
		}
		return !n.negate
	case or:
		for i := range n.nodes {
			if n.nodes[i].eval(src, scratch) {
				return !n.negate
			}
		}
		return n.negate
	default:
		var value []byte
		kind := None
		if n.get != nil {
			value, kind = n.get(scratch.buf[:0], src)
			scratch.grow(len(value))
		}
		return n.test.holds(value, kind) != n.negate
	}
}

// grow makes room for a value as long as the one just seen. The value itself is not kept: it may be borrowed.
func (s *Scratch) grow(n int) {
	if n > cap(s.buf) && n <= maxScratch {
		s.buf = make([]byte, 0, max(256, 2*n))
	}
}
