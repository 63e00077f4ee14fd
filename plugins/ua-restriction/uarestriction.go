// Package uarestriction is the ua-restriction plugin: it lets clients pass by what they call themselves in User-Agent (contract section
// 4.4).
package uarestriction

import (
	"bytes"
	_ "embed"
	"errors"
	"regexp"
	"strings"

	"github.com/dlclark/regexp2/v2"

	"headgate/conf/resource"
	"headgate/conf/schema"
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
	c.Allowlist, c.Denylist = texts(doc["allowlist"]), texts(doc["denylist"])
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

func texts(v any) (list []string) {
	items, _ := v.([]any)
	for _, item := range items {
		s, _ := item.(string)
		list = append(list, s)
	}
	return list
}

func validate(conf []byte) error {
	c, err := read(conf)
	if err != nil {
		return err
	}
	for _, list := range [][]string{c.Allowlist, c.Denylist} {
		for _, text := range list {
			if err := checkPattern(text); err != nil {
				return err
			}
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
	p := &plugin{deny: len(c.Allowlist) == 0, bypassMissing: c.BypassMissing}
	list := c.Allowlist
	if p.deny {
		list = c.Denylist
	}
	anyOf := make([]any, len(list))
	for i, text := range list {
		anyOf[i] = []any{"http_user_agent", "~~", text}
	}
	if len(anyOf) > 1 { // a single operand has no OR
		anyOf = append([]any{"OR"}, anyOf...)
	}
	if p.listed, err = env.CompileExpr(anyOf); err != nil {
		return nil, err
	}
	p.body, err = resource.Encode(map[string]any{"message": c.Message})
	p.body = append(p.body, '\n')
	return p, err
}

// plugin is immutable.
type plugin struct {
	listed phase.Predicate
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
	lines := 0
	for _, f := range x.Request.Header.Fields() {
		if phase.EqualName(f.Name, "user-agent") {
			lines++
		}
	}
	switch lines {
	case 0:
		return p.bypassMissing
	case 1:
		return p.listed.True(x) != p.deny
	default: // the upstream may believe another line than the one that matched
		return false
	}
}

var _ phase.Accessor = (*plugin)(nil)
