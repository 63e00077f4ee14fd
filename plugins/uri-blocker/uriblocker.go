// Package uriblocker is the uri-blocker plugin: it refuses requests whose path and query look like an attack (contract section 4.4). It
// looks at the canonical form, so that escapes and dot segments hide nothing.
package uriblocker

import (
	"bytes"
	_ "embed"

	"headgate/conf/resource/split"
	"headgate/conf/schema"
	"headgate/proxy/expr"
	"headgate/proxy/phase"
	"headgate/proxy/vars"
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
	c.BlockRules = schema.Texts(doc, "block_rules")
	c.CaseInsensitive, _ = doc["case_insensitive"].(bool)
	c.RejectedMsg, _ = doc["rejected_msg"].(string)
	c.RejectedCode = 403
	if n, ok := split.Integer(doc["rejected_code"]); ok {
		c.RejectedCode = int(n)
	}
	return c, nil
}

func validate(conf []byte) error {
	_, err := build(conf, nil)
	return err
}

func build(conf []byte, _ phase.Env) (any, error) {
	c, err := read(conf)
	if err != nil {
		return nil, err
	}
	p := &plugin{status: c.RejectedCode}
	if p.blocked, err = expr.CompilePatterns(c.BlockRules, c.CaseInsensitive); err != nil {
		return nil, err
	}
	if c.RejectedMsg != "" {
		p.body = phase.MessageBody("error_msg", c.RejectedMsg)
	}
	return p, nil
}

// plugin is immutable.
type plugin struct {
	blocked expr.Patterns
	status  int
	body    []byte // nil: a page
}

// Rewrite implements phase.Rewriter.
func (p *plugin) Rewrite(x *phase.Exchange) phase.Verdict {
	if !p.blocks(x) {
		return phase.Continue
	}
	if p.body == nil {
		x.AnswerPage(p.status)
	} else {
		x.Answer(p.status, phase.TypeText, p.body)
	}
	return phase.Stop
}

func (p *plugin) blocks(x *phase.Exchange) bool {
	if len(p.blocked) == 0 {
		return false
	}
	target, _ := x.Var(vars.RequestURI, x.Arena())
	hit, err := p.blocked.Match(x.Commit(target))
	return hit || err != nil // what cannot be told in time is refused
}

// Foretell implements phase.Answerer.
func (p *plugin) Foretell(x *phase.Exchange) *phase.Foretold {
	if !p.blocks(x) {
		return nil
	}
	return &phase.Foretold{Status: p.status, Share: 1, Why: "the address of the request is blocked"}
}

var (
	_ phase.Rewriter = (*plugin)(nil)
	_ phase.Answerer = (*plugin)(nil)
)
