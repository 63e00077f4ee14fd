// Package uarestriction is the ua-restriction plugin: it lets clients pass by what they call themselves in User-Agent (contract section
// 4.4).
package uarestriction

import (
	"bytes"
	_ "embed"
	"errors"

	"headgate/conf/schema"
	"headgate/proxy/expr"
	"headgate/proxy/phase"
)

//go:embed schema.json
var schemaJSON []byte

// Config is what the operator writes: one of the two lists.
type Config struct {
	// Allowlist and Denylist hold PCRE patterns that are searched for in the header.
	Allowlist, Denylist []string
	// BypassMissing lets requests without the header pass.
	BypassMissing bool
	// Message goes to those who are refused.
	Message string
}

// Kind declares the plugin.
func Kind() phase.Kind {
	return phase.Kind{
		Name:     "ua-restriction",
		Priority: 2999,
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
	doc, _ := v.(map[string]any) // the empty array is also the empty object
	c.Allowlist, c.Denylist = schema.Texts(doc, "allowlist"), schema.Texts(doc, "denylist")
	c.BypassMissing, _ = doc["bypass_missing"].(bool)
	c.Message = "Not allowed"
	if s, ok := doc["message"].(string); ok {
		c.Message = s
	}
	if len(c.Allowlist) == 0 && len(c.Denylist) == 0 {
		err = errors.New("neither allowlist nor denylist has a pattern")
	}
	return c, err
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
	p := &plugin{deny: len(c.Allowlist) == 0, bypassMissing: c.BypassMissing}
	list := c.Allowlist
	if p.deny {
		list = c.Denylist
	}
	if p.listed, err = expr.CompilePatterns(list, false); err != nil {
		return nil, err
	}
	p.body = phase.MessageBody("message", c.Message)
	return p, nil
}

// plugin is immutable.
type plugin struct {
	listed expr.Patterns
	// deny says that the listed clients are refused; otherwise only they pass.
	deny, bypassMissing bool
	body                []byte
}

// Access implements phase.Accessor.
func (p *plugin) Access(x *phase.Exchange) phase.Verdict {
	if p.passes(x) {
		return phase.Continue
	}
	x.Answer(403, phase.TypeText, p.body)
	return phase.Stop
}

func (p *plugin) passes(x *phase.Exchange) bool {
	var agent []byte
	lines := 0
	for _, f := range x.Request.Header.Fields() {
		if phase.EqualName(f.Name, "user-agent") {
			agent = f.Value
			lines++
		}
	}
	switch lines {
	case 0:
		return p.bypassMissing
	case 1:
		listed, err := p.listed.Match(agent)
		return err == nil && listed != p.deny // who cannot be told in time is refused by either list
	default: // the upstream may believe another line than the one that matched
		return false
	}
}

// Foretell implements phase.Answerer.
func (p *plugin) Foretell(x *phase.Exchange) *phase.Foretold {
	if p.passes(x) {
		return nil
	}
	return &phase.Foretold{Status: 403, Share: 1, Why: "the User-Agent is refused"}
}

var (
	_ phase.Accessor = (*plugin)(nil)
	_ phase.Answerer = (*plugin)(nil)
)
