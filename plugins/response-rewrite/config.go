package responserewrite

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"

	"headgate/conf/resource/split"
	"headgate/conf/schema"
	"headgate/proxy/expr"
	"headgate/proxy/phase/headerline"
)

// config is what the operator writes (contract section 4.4, response-rewrite). The zero config changes nothing.
type config struct {
	// status is 200 to 598; 0 leaves it.
	status int
	// body replaces the answer's body when replaces is set. It is decoded.
	body     []byte
	replaces bool
	// lines are in the order in which they apply: added, set, removed.
	lines []line
	// vars is the raw condition, nil without one.
	vars any
	// filters change the body; not together with body.
	filters []*filter
	// maxBody is the longest body in bytes that filters work on.
	maxBody int64
}

// defaultMaxBody is 64 MiB.
const defaultMaxBody = 64 << 20

// Contract section 4.4, and 4.2 for the characters.
var (
	errBase64      = errors.New("invalid base64 content")
	errHeaderName  = errors.New("invalid field character in header")
	errHeaderValue = errors.New("invalid value character in header")
)

func inVars(err error) error { return fmt.Errorf("failed to validate the 'vars' expression: %w", err) }

func validate(conf []byte) error {
	c, err := read(conf)
	if err == nil && c.vars != nil {
		if err = expr.Validate(c.vars); err != nil {
			return inVars(err)
		}
	}
	return err
}

// read reads conf, which satisfies the schema, and checks what the schema cannot say.
func read(conf []byte) (*config, error) {
	v, err := schema.DecodeJSON(conf)
	if err != nil {
		return nil, err
	}
	doc, _ := v.(map[string]any) // the empty array is also the empty object
	c := &config{maxBody: defaultMaxBody, vars: doc["vars"]}
	if n, ok := split.Integer(doc["status_code"]); ok {
		c.status = int(n)
	}
	if n, ok := split.Integer(doc["max_resp_body_size"]); ok {
		c.maxBody = n
	}
	if h, ok := doc["headers"].(map[string]any); ok {
		if c.lines, err = readLines(h); err != nil {
			return nil, err
		}
	}
	text, replaces := doc["body"].(string)
	c.body, c.replaces = []byte(text), replaces
	if encoded, _ := doc["body_base64"].(bool); encoded {
		if c.body, err = base64.RawStdEncoding.DecodeString(strings.TrimRight(text, "=")); err != nil || text == "" {
			return nil, errBase64
		}
	}
	list, _ := doc["filters"].([]any)
	for _, item := range list {
		m, _ := item.(map[string]any)
		f, err := newFilter(m)
		if err != nil {
			return nil, err
		}
		c.filters = append(c.filters, f)
	}
	return c, nil
}

// readLines understands both forms: add, set and remove, and the old one, whose members are the lines to set. Objects have no order: they
// go by name.
func readLines(h map[string]any) (lines []line, err error) {
	add, added := h["add"].([]any)
	set, isSet := h["set"].(map[string]any)
	remove, removed := h["remove"].([]any)
	if !added && !isSet && !removed {
		set = h
	}
	lines = make([]line, 0, len(add)+len(set)+len(remove))
	keep := func(op lineOp, name, value string) {
		l, failed := newLine(op, name, value)
		if failed != nil && err == nil {
			err = failed
		}
		lines = append(lines, l)
	}
	for _, v := range add {
		text, _ := v.(string)
		name, value, _ := strings.Cut(text, ":")
		keep(lineAdd, strings.TrimSpace(name), strings.TrimLeft(value, " \t"))
	}
	names := make([]string, 0, len(set))
	for name := range set {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		text, _ := headerline.Text(set[name])
		keep(lineSet, name, text)
	}
	for _, v := range remove {
		name, _ := v.(string)
		keep(lineRemove, name, "")
	}
	return lines, err
}
