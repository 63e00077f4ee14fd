package apisix

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/big"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"

	"headgate/conf"
	"headgate/conf/schema"
)

// Bounds of a YAML text.
const (
	// MaxSize is the largest text that DecodeYAML takes, in bytes.
	MaxSize = 64 * conf.MiB
	// maxAliased is how much text and structure aliases may add, in bytes. It ends texts that multiply themselves.
	maxAliased = 64 * conf.MiB
	// nodeCost is what one aliased node counts besides its text.
	nodeCost = 64
	// maxLineTokens bounds the tokens of one line outside of brackets: the parser's work grows with their square.
	maxLineTokens = 4 * schema.MaxDepth
)

// Tree is a decoded YAML text. Values are nil, bool, string, json.Number, []any and map[string]any, none of them shared.
type Tree struct {
	Root map[string]any
	// lines holds the lines of the root's members ("routes") and of the elements of those that are lists ("routes[0]").
	lines map[string]int
}

// Line returns the line of a member of the root or of an element of it ("routes[3]"), from 1; 0 when there is none.
func (t *Tree) Line(at string) int { return t.lines[at] }

// DecodeYAML reads one YAML document (YAML 1.2, core schema) whose root is a mapping; an empty text is an empty mapping. Anchors,
// aliases and merge keys work. Refused are keys that stand twice in a mapping, tags other than those of the core schema, numbers that
// JSON does not have, nesting beyond schema.MaxDepth, and texts that are larger or grow by more through aliases than 64 MiB.
//
// With a getenv, ${{NAME}} and ${{NAME:=default}} in scalars are replaced as APISIX does it (contract section 6): a variable that is
// not set is an error unless there is a default, and a value that becomes a number, true or false is one.
//
// name is that of the file for errors, which are conf.Problems and quote no values. text is not kept.
func DecodeYAML(name string, text []byte, getenv func(string) (string, bool)) (*Tree, error) {
	return decode(name, text, getenv, maxAliased)
}

// decode is DecodeYAML with another bound for what aliases may add.
func decode(name string, text []byte, getenv func(string) (string, bool), aliased conf.Size) (*Tree, error) {
	d := decoder{getenv: getenv, anchors: map[string]ast.Node{}, lines: map[string]int{}, budget: aliased}
	root, err := d.document(text)
	if err == nil {
		return &Tree{Root: root, lines: d.lines}, nil
	}
	p := conf.Problem{File: name, Msg: err.Error()}
	if at := (*positioned)(nil); errors.As(err, &at) {
		p.Line, p.Msg = at.line, at.msg
	}
	return nil, conf.Problems{p}
}

// positioned is an error at a line.
type positioned struct {
	line int
	msg  string
}

func (e *positioned) Error() string { return e.msg }

func errAt(tk *token.Token, format string, args ...any) error {
	e := &positioned{msg: fmt.Sprintf(format, args...)}
	if tk != nil && tk.Position != nil {
		e.line = tk.Position.Line
	}
	return e
}

type decoder struct {
	getenv  func(string) (string, bool)
	anchors map[string]ast.Node
	open    []string  // anchors whose value is being read
	aliases int       // aliases on the way to the present node
	budget  conf.Size // what aliases may still add
	lines   map[string]int
}

func (d *decoder) document(text []byte) (root map[string]any, err error) {
	if conf.Size(len(text)) > MaxSize {
		return nil, fmt.Errorf("expected at most %s of text", MaxSize)
	}
	text = bytes.TrimPrefix(text, []byte("\xef\xbb\xbf"))
	if i := bytes.IndexByte(text, 0); i >= 0 {
		return nil, &positioned{1 + bytes.Count(text[:i], []byte("\n")), "not valid YAML: a zero byte"}
	}
	if !utf8.Valid(text) {
		return nil, errors.New("not valid YAML: the text is not UTF-8")
	}
	file, err := parse(string(text))
	if err != nil {
		return nil, err
	}
	var body ast.Node
	for _, doc := range file.Docs {
		switch {
		case doc.Body == nil:
		case body != nil:
			return nil, errAt(doc.Body.GetToken(), "expected one document, a second one begins here")
		default:
			body = doc.Body
		}
	}
	if body == nil {
		return map[string]any{}, nil
	}
	if _, comment := body.(*ast.CommentGroupNode); comment {
		return map[string]any{}, nil
	}
	v, err := d.value(body, "", 1)
	if err != nil {
		return nil, err
	}
	switch root := v.(type) {
	case map[string]any:
		return root, nil
	case nil:
		return map[string]any{}, nil
	}
	return nil, errAt(body.GetToken(), "expected a mapping")
}

// parse guards the parser, which follows nesting by recursion and for some malformed texts panics.
func parse(text string) (file *ast.File, err error) {
	defer func() {
		if r := recover(); r != nil {
			file, err = nil, errors.New("not valid YAML")
		}
	}()
	tokens := lexer.Tokenize(text)
	if err := checkTokens(tokens); err != nil {
		return nil, err
	}
	file, err = parser.Parse(tokens, 0, parser.AllowDuplicateMapKey()) // duplicates are found below, by name and not by path
	if err == nil {
		return file, nil
	}
	// Its own text would quote the lines around the place, and some messages quote what stands there.
	if y := yaml.Error(nil); errors.As(err, &y) {
		msg, _, _ := strings.Cut(y.GetMessage(), `"`)
		return nil, errAt(y.GetToken(), "not valid YAML: %s", strings.TrimRight(msg, ": "))
	}
	return nil, errors.New("not valid YAML")
}

// checkTokens refuses what would cost the parser its stack or more than linear time.
func checkTokens(tokens token.Tokens) error {
	flow, row := 0, 0 // open brackets; tokens since a separator
	line, onLine := 0, 0
	for _, tk := range tokens {
		if tk.Position.Line != line {
			line, onLine = tk.Position.Line, 0
		}
		row++
		switch tk.Type {
		case token.SequenceStartType, token.MappingStartType:
			flow, row = flow+1, 0
		case token.SequenceEndType, token.MappingEndType:
			flow, row = flow-1, 0
		case token.SequenceEntryType, token.MappingKeyType:
			row = 0
			if tk.Position.Column > maxLineTokens {
				return errAt(tk, "nested deeper than %d levels", schema.MaxDepth)
			}
		case token.CollectEntryType, token.MappingValueType, token.CommentType:
			row = 0
		}
		if flow <= 0 {
			onLine++
		}
		switch {
		case flow > schema.MaxDepth:
			return errAt(tk, "nested deeper than %d levels", schema.MaxDepth)
		case onLine > maxLineTokens:
			return errAt(tk, "not valid YAML: expected fewer things in one line")
		case row > maxLineTokens:
			return errAt(tk, "not valid YAML: expected a separator")
		}
	}
	return nil
}

// value returns what node says; at is its place as in Tree.lines, "" below those.
func (d *decoder) value(node ast.Node, at string, depth int) (any, error) {
	if depth > schema.MaxDepth {
		return nil, errAt(node.GetToken(), "nested deeper than %d levels", schema.MaxDepth)
	}
	if err := d.charge(node); err != nil {
		return nil, err
	}
	switch n := node.(type) {
	case *ast.MappingNode:
		return d.mapping(n.Values, at, depth)
	case *ast.MappingValueNode:
		return d.mapping([]*ast.MappingValueNode{n}, at, depth)
	case *ast.SequenceNode:
		list := make([]any, len(n.Values))
		for i, e := range n.Values {
			place := ""
			if at != "" {
				place = at + "[" + strconv.Itoa(i) + "]"
				d.mark(place, e.GetToken())
			}
			var err error
			if list[i], err = d.value(e, "", depth+1); err != nil {
				return nil, err
			}
		}
		return list, nil
	case *ast.AnchorNode:
		return d.anchor(n, at, depth)
	case *ast.AliasNode:
		target, err := d.alias(n)
		if err != nil {
			return nil, err
		}
		d.aliases++
		defer func() { d.aliases-- }()
		return d.value(target, "", depth+1)
	case *ast.TagNode:
		return d.tagged(n, at, depth)
	case *ast.LiteralNode:
		return d.text(n.Value.Value, n.GetToken())
	case *ast.StringNode:
		if tk := n.Token; tk.Type == token.SingleQuoteType || tk.Type == token.DoubleQuoteType {
			return d.text(n.Value, tk)
		}
		return d.plain(n.Value, n.Token)
	case *ast.NullNode:
		return nil, nil
	case ast.ScalarNode:
		return d.plain(n.GetToken().Value, n.GetToken())
	}
	return nil, errAt(node.GetToken(), "not valid YAML: a value is expected here")
}

func (d *decoder) mark(place string, tk *token.Token) {
	if tk != nil && tk.Position != nil && d.aliases == 0 {
		d.lines[place] = tk.Position.Line
	}
}

// charge counts a node that an alias repeats.
func (d *decoder) charge(node ast.Node) error {
	if d.aliases == 0 {
		return nil
	}
	d.budget -= nodeCost
	if s, ok := node.(ast.ScalarNode); ok && s.GetToken() != nil {
		d.budget -= conf.Size(len(s.GetToken().Value))
	}
	if d.budget < 0 {
		return errAt(node.GetToken(), "aliases add more than %s", maxAliased)
	}
	return nil
}

func (d *decoder) anchor(n *ast.AnchorNode, at string, depth int) (any, error) {
	name := n.Name.GetToken().Value
	d.open = append(d.open, name)
	v, err := d.value(n.Value, at, depth+1)
	d.open = d.open[:len(d.open)-1]
	if d.aliases == 0 {
		d.anchors[name] = n.Value
	}
	return v, err
}

func (d *decoder) alias(n *ast.AliasNode) (ast.Node, error) {
	name := n.Value.GetToken().Value
	if slices.Contains(d.open, name) {
		return nil, errAt(n.GetToken(), "alias *%s stands inside its own anchor", name)
	}
	target, ok := d.anchors[name]
	if !ok {
		return nil, errAt(n.GetToken(), "alias *%s has no anchor before it", name)
	}
	return target, nil
}

// tagged accepts the tags that say what is there anyway, and !!str.
func (d *decoder) tagged(n *ast.TagNode, at string, depth int) (any, error) {
	tag := n.GetToken().Value
	if n.Value == nil {
		return nil, errAt(n.GetToken(), "expected a value after the tag %s", tag)
	}
	if tag == "!!str" {
		if s, ok := n.Value.(ast.ScalarNode); ok {
			if str, ok := s.(*ast.StringNode); ok {
				return d.text(str.Value, str.Token)
			}
			if literal, ok := s.(*ast.LiteralNode); ok {
				return d.text(literal.Value.Value, literal.GetToken())
			}
			return d.text(s.GetToken().Value, s.GetToken())
		}
		return nil, errAt(n.GetToken(), "expected a scalar after the tag !!str")
	}
	v, err := d.value(n.Value, at, depth+1)
	if err != nil {
		return nil, err
	}
	number, isNumber := v.(json.Number)
	fits := false
	switch tag {
	case "!!int":
		fits = isNumber && !strings.ContainsAny(number.String(), ".eE")
	case "!!float":
		fits = isNumber
	case "!!bool":
		_, fits = v.(bool)
	case "!!null":
		fits = v == nil
	case "!!map":
		_, fits = v.(map[string]any)
	case "!!seq":
		_, fits = v.([]any)
	default:
		return nil, errAt(n.GetToken(), "the tag %s is not supported", tag)
	}
	if !fits {
		return nil, errAt(n.GetToken(), "expected a value that fits the tag %s", tag)
	}
	return v, nil
}

// mapping reads the members of a mapping. Members of its own win over merged ones, and earlier merged ones over later ones.
func (d *decoder) mapping(members []*ast.MappingValueNode, at string, depth int) (map[string]any, error) {
	m := make(map[string]any, len(members))
	var merged []map[string]any
	for _, member := range members {
		if member.Key.IsMergeKey() {
			more, err := d.merge(member.Value, depth)
			if err != nil {
				return nil, err
			}
			merged = append(merged, more...)
			continue
		}
		name, err := d.key(member.Key)
		if err != nil {
			return nil, err
		}
		if _, dup := m[name]; dup {
			return nil, errAt(member.Key.GetToken(), "key %q stands twice in one mapping", shorten(name))
		}
		place := ""
		if at == "" && depth == 1 {
			place = name
			d.mark(place, member.Key.GetToken())
		}
		if m[name], err = d.value(member.Value, place, depth+1); err != nil {
			return nil, err
		}
	}
	for _, more := range merged {
		for name, v := range more {
			if _, have := m[name]; !have {
				m[name] = v
			}
		}
	}
	return m, nil
}

// merge returns the mappings that <<: names, one or a list of them.
func (d *decoder) merge(node ast.Node, depth int) ([]map[string]any, error) {
	v, err := d.value(node, "", depth+1)
	if err != nil {
		return nil, err
	}
	list, ok := v.([]any)
	if !ok {
		list = []any{v}
	}
	out := make([]map[string]any, len(list))
	for i, e := range list {
		if out[i], ok = e.(map[string]any); !ok {
			return nil, errAt(node.GetToken(), "expected a mapping or a list of mappings after <<")
		}
	}
	return out, nil
}

// key returns the text of a mapping's key as it is written: 80 is "80".
func (d *decoder) key(node ast.MapKeyNode) (string, error) {
	var n ast.Node = node
	if k, explicit := n.(*ast.MappingKeyNode); explicit {
		n = k.Value
	}
	if a, anchored := n.(*ast.AnchorNode); anchored {
		d.anchors[a.Name.GetToken().Value] = a.Value
		n = a.Value
	}
	if a, aliased := n.(*ast.AliasNode); aliased {
		target, err := d.alias(a)
		if err != nil {
			return "", err
		}
		d.aliases++
		err = d.charge(target)
		d.aliases--
		if err != nil {
			return "", err
		}
		n = target
	}
	switch s := n.(type) {
	case *ast.StringNode:
		return s.Value, nil
	case *ast.LiteralNode:
		return s.Value.Value, nil
	case *ast.NullNode:
	case ast.ScalarNode:
		return s.GetToken().Value, nil
	}
	return "", errAt(node.GetToken(), "expected a text as the key")
}

var (
	integerPattern = regexp.MustCompile(`^[-+]?[0-9]+$`)
	basedPattern   = regexp.MustCompile(`^0(o[0-7]+|x[0-9a-fA-F]+)$`)
	floatPattern   = regexp.MustCompile(`^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$`)
	notFinite      = regexp.MustCompile(`^([-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$`)
)

// maxDigits bounds integers, as converting them costs the square of their length.
const maxDigits = 400

// plain resolves a scalar without quotes by YAML 1.2's core schema.
func (d *decoder) plain(s string, tk *token.Token) (any, error) {
	switch s {
	case "", "~", "null", "Null", "NULL":
		return nil, nil
	case "true", "True", "TRUE":
		return true, nil
	case "false", "False", "FALSE":
		return false, nil
	}
	switch {
	case notFinite.MatchString(s) || len(s) > maxDigits && floatPattern.MatchString(s):
		return nil, errAt(tk, "expected a number that JSON has")
	case integerPattern.MatchString(s), basedPattern.MatchString(s):
		base := 10
		if s[0] == '0' && len(s) > 2 && s[1] > '9' {
			base = map[byte]int{'o': 8, 'x': 16}[s[1]]
			s = s[2:]
		}
		n, ok := new(big.Int).SetString(strings.TrimPrefix(s, "+"), base)
		if !ok {
			return nil, errAt(tk, "expected a number")
		}
		return json.Number(n.String()), nil
	case floatPattern.MatchString(s):
		f, err := strconv.ParseFloat(s, 64)
		if err != nil || math.IsInf(f, 0) {
			return nil, errAt(tk, "expected a number that a double can hold")
		}
		if json.Valid([]byte(s)) {
			return json.Number(s), nil
		}
		text := strconv.FormatFloat(f, 'g', -1, 64)
		if !strings.ContainsAny(text, ".e") {
			text += ".0"
		}
		return json.Number(text), nil
	}
	return d.text(s, tk)
}

func shorten(s string) string {
	if len(s) > 64 {
		return s[:64] + "..."
	}
	return s
}
