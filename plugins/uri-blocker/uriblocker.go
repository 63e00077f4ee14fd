// Package uriblocker is the uri-blocker plugin: it refuses requests whose path and query look like an attack (contract section 4.4). It
// looks at the canonical form, so that escapes and dot segments hide nothing.
package uriblocker

import (
	"bytes"
	_ "embed"
	"regexp"
	"strings"

	"github.com/dlclark/regexp2/v2"

	"headgate/conf/resource"
	"headgate/conf/resource/split"
	"headgate/conf/schema"
	"headgate/proxy/phase"
)

//go:embed schema.json
var schemaJSON []byte

// Config is what the operator writes.
type Config struct {
	// BlockRules are PCRE patterns that are searched for in path and query; CaseInsensitive makes letters of both cases equal.
	BlockRules      []string
	CaseInsensitive bool
	// RejectedCode is the status of those who are refused; RejectedMsg goes to them, empty: the status's page.
	RejectedCode int
	RejectedMsg  string
}

// Kind declares the plugin.
func Kind() phase.Kind {
	return phase.Kind{
		Name:     "uri-blocker",
		Priority: 2900,
		Schema:   bytes.Clone(schemaJSON),
		Validate: validate,
		Build:    build,
	}
}

// read reads conf, which satisfies the schema.
func read(conf []byte) (c Config, err error) {
	v, err := schema.DecodeJSON(conf)
	if err != nil {
		return c, err
	}
	doc, _ := v.(map[string]any)
	rules, _ := doc["block_rules"].([]any)
	for _, item := range rules {
		s, _ := item.(string)
		c.BlockRules = append(c.BlockRules, s)
	}
	c.CaseInsensitive, _ = doc["case_insensitive"].(bool)
	c.RejectedMsg, _ = doc["rejected_msg"].(string)
	c.RejectedCode = 403
	if n, ok := split.Integer(doc["rejected_code"]); ok {
		c.RejectedCode = int(n)
	}
	return c, nil
}

func validate(conf []byte) error {
	c, err := read(conf)
	if err != nil {
		return err
	}
	for _, text := range c.BlockRules {
		if err := checkPattern(text); err != nil {
			return err
		}
	}
	return nil
}

// checkPattern refuses what neither engine of the vars language understands: there, such a pattern silently never matches.
func checkPattern(text string) error {
	_, err := regexp.Compile(text)
	if err == nil {
		return nil
	}
	if _, e := regexp2.Compile(strings.ReplaceAll(text, "(?P<", "(?<")); e != nil {
		return err
	}
	return nil
}

func build(conf []byte, env phase.Env) (any, error) {
	c, err := read(conf)
	if err != nil {
		return nil, err
	}
	p := &plugin{status: c.RejectedCode}
	if p.blocked, err = compile(c, env); err != nil {
		return nil, err
	}
	if c.RejectedMsg != "" {
		p.body, err = resource.Encode(map[string]any{"error_msg": c.RejectedMsg})
		p.body = append(p.body, '\n')
	}
	return p, err
}

// compile returns nil when there are no rules.
func compile(c Config, env phase.Env) (phase.Predicate, error) {
	operator := "~~"
	if c.CaseInsensitive {
		operator = "~*"
	}
	anyOf := make([]any, len(c.BlockRules))
	for i, text := range c.BlockRules {
		anyOf[i] = []any{"request_uri", operator, text}
	}
	switch len(anyOf) {
	case 0:
		return nil, nil
	case 1: // a single operand has no OR
	default:
		anyOf = append([]any{"OR"}, anyOf...)
	}
	return env.CompileExpr(anyOf)
}

// plugin is immutable.
type plugin struct {
	blocked phase.Predicate // nil: nothing is
	status  int
	body    []byte // nil: a page
}

// Rewrite implements phase.Rewriter.
func (p *plugin) Rewrite(x *phase.Exchange) phase.Verdict {
	if p.blocked == nil || !p.blocked.True(x) {
		return phase.Continue
	}
	if p.body == nil {
		x.AnswerPage(p.status)
	} else {
		x.Answer(p.status, phase.TypeText, p.body)
	}
	return phase.Stop
}

var _ phase.Rewriter = (*plugin)(nil)
