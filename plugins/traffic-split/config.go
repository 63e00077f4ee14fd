package trafficsplit

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"headgate/conf/resource"
	"headgate/conf/resource/split"
	"headgate/conf/schema"
	"headgate/proxy/expr"
	"headgate/proxy/phase/rewrite"
)

// config is a configuration that satisfies the schema.
type config struct {
	rules []ruleConfig
	// header: the answer says how it came to its branch.
	header bool
}

// ruleConfig is one split: a rule, or all the items of rules together when they are branches themselves.
type ruleConfig struct {
	// exprs are the raw expressions of match, of which one must hold; empty: the rule is for every request.
	exprs    []any
	branches []branchConfig
	sticky   *stickyConfig // its own, or that of all rules; nil without one
}

type branchConfig struct {
	name       string
	weight     uint64
	upstream   map[string]any // nil without one
	upstreamID string         // "" without one; beats upstream, as in the contract
	rewrite    []byte         // JSON, nil without one
}

// read reads conf, which satisfies the schema, and checks what the schema cannot say about its form.
func read(conf []byte) (*config, error) {
	doc, err := decode(conf)
	if err != nil {
		return nil, err
	}
	return readDocument(doc)
}

func decode(conf []byte) (map[string]any, error) {
	v, err := schema.DecodeJSON(conf)
	doc, _ := v.(map[string]any) // the empty array is also the empty object
	return doc, err
}

func readDocument(doc map[string]any) (*config, error) {
	items, _ := doc["rules"].([]any)
	direct, err := form(items)
	if err != nil || len(items) == 0 {
		return &config{}, err
	}
	c := &config{rules: make([]ruleConfig, len(items))}
	c.header, _ = doc["decision_header"].(bool)
	if direct {
		c.rules = c.rules[:1]
	}
	all := readSticky(doc)
	for i := range c.rules {
		c.rules[i].sticky = all
	}
	for _, b := range split.Branches(doc) {
		at := b.Path[1].(int)
		entry, _ := items[at].(map[string]any)
		if len(b.Path) > 2 {
			list, _ := entry["weighted_upstreams"].([]any)
			entry = nil
			if !b.Implied {
				entry, _ = list[b.Path[3].(int)].(map[string]any)
			}
		}
		if direct {
			at = 0
		}
		branch, err := readBranch(b, entry)
		if err != nil {
			return nil, err
		}
		c.rules[at].branches = append(c.rules[at].branches, branch)
	}
	if direct {
		return c, c.rules[0].checkSum()
	}
	for i := range items {
		rule, _ := items[i].(map[string]any)
		if own := readSticky(rule); own != nil {
			c.rules[i].sticky = own
		}
		list, _ := rule["match"].([]any)
		for _, item := range list {
			item, _ := item.(map[string]any)
			c.rules[i].exprs = append(c.rules[i].exprs, item["vars"])
		}
	}
	return c, nil
}

// form tells the two forms of rules apart: direct says that its items are branches. A mixture is refused, because half of it would
// have to be ignored.
func form(items []any) (direct bool, err error) {
	branch, rule := -1, -1
	for i, item := range items {
		m, _ := item.(map[string]any)
		isBranch := has(m, "weight", "upstream", "upstream_id", "rewrite")
		if isBranch {
			branch = i
		}
		if !isBranch || has(m, "match", "weighted_upstreams") {
			rule = i
		}
	}
	if branch >= 0 && rule >= 0 {
		return false, fmt.Errorf("rules mixes two forms: item %d is a branch (weight, upstream, upstream_id, rewrite) and item %d is a rule "+
			"(match, weighted_upstreams); write branches only, or put them into weighted_upstreams", branch+1, rule+1)
	}
	return branch >= 0, nil
}

func has(m map[string]any, members ...string) bool {
	for _, name := range members {
		if _, ok := m[name]; ok {
			return true
		}
	}
	return false
}

var errWeightTooLarge = errors.New("the weight is too large: expected at most " + strconv.FormatInt(1<<63-1, 10))

func readBranch(b split.Branch, entry map[string]any) (branchConfig, error) {
	c := branchConfig{name: b.Name, weight: uint64(b.Weight)}
	if w, ok := entry["weight"]; ok {
		if _, ok := split.Integer(w); !ok {
			return c, inBranch(b.Name, errWeightTooLarge)
		}
	}
	c.upstream, _ = entry["upstream"].(map[string]any)
	switch id := entry["upstream_id"].(type) {
	case string:
		c.upstreamID = id
	case json.Number:
		n, ok := split.Integer(id)
		if !ok {
			return c, inBranch(b.Name, errors.New("upstream_id is not an id"))
		}
		c.upstreamID = strconv.FormatInt(n, 10)
	}
	if v, ok := entry["rewrite"]; ok {
		raw, err := resource.Encode(v)
		if err != nil {
			return c, inBranch(b.Name, err)
		}
		c.rewrite = raw
	}
	return c, nil
}

// whole reads a number that the schema has found to be whole; 0 without one.
func whole(v any) int64 {
	n, _ := split.Integer(v)
	return n
}

// checkSum refuses a split that nobody is served by. In the contract's own form that is legal and means the route's upstream.
func (r *ruleConfig) checkSum() error {
	for i := range r.branches {
		if r.branches[i].weight > 0 {
			return nil
		}
	}
	return errors.New("the weights of rules add up to 0: at least one branch needs a weight above 0")
}

// inBranch says which branch an error is about.
func inBranch(name string, err error) error {
	return fmt.Errorf("branch %q: %w", name, err)
}

// inVars gives an expression's error the contract's text.
func inVars(err error) error {
	return fmt.Errorf("failed to validate the 'vars' expression: %w", err)
}

// validate checks what the schema cannot say (contract section 4.2, traffic-split). Whether an upstream_id exists is no matter of
// validation: a request that needs it finds out.
func validate(conf []byte) error {
	doc, err := decode(conf)
	if err != nil {
		return err
	}
	if err := checkForm(doc); err != nil {
		return err
	}
	c, err := readDocument(doc)
	if err != nil {
		return err
	}
	for i := range c.rules {
		for _, e := range c.rules[i].exprs {
			if err := expr.Validate(e); err != nil {
				return inVars(err)
			}
		}
		if s := c.rules[i].sticky; s != nil {
			if _, err := newSticky(s, nil, nil, func() int { return 0 }); err != nil {
				return err
			}
		}
		for _, b := range c.rules[i].branches {
			if b.upstream != nil {
				if err := resource.ValidateUpstream(b.upstream); err != nil {
					return inBranch(b.name, fmt.Errorf("upstream: %w", err))
				}
			}
			if b.rewrite != nil {
				if err := rewrite.Validate(b.rewrite); err != nil {
					return inBranch(b.name, fmt.Errorf("rewrite: %w", err))
				}
			}
		}
	}
	return nil
}
