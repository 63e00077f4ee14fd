// Package consumerrestriction is the consumer-restriction plugin: it refuses requests by who sends them, or by where they go (contract
// section 4.4).
package consumerrestriction

import (
	"bytes"
	_ "embed"
	"encoding/json"

	"headgate/conf/schema"
	"headgate/proxy/phase"
)

//go:embed schema.json
var schemaJSON []byte

// Kind declares the plugin.
func Kind() phase.Kind {
	return phase.Kind{
		Name:     "consumer-restriction",
		Priority: 2400,
		Schema:   bytes.Clone(schemaJSON),
		Build:    build,
	}
}

// Config is what the operator writes.
type Config struct {
	// Type says what the lists are about: consumer_name (the default), consumer_group_id, route_id, service_id.
	Type string
	// Blacklist is refused, whatever the other lists say. Whitelist, when there is one, is let in with every method, and nobody else is.
	Blacklist, Whitelist map[string]struct{}
	// Methods are those that a user is left with (allowed_by_methods); who is not in it has all. Of several entries of one user the
	// first counts.
	Methods map[string][]string
	// RejectedCode is the status of a refusal; the default is 403.
	RejectedCode int
	// RejectedMsg is the message of a refusal; the default is "The <type> is forbidden.".
	RejectedMsg string
}

// read reads conf, which satisfies the schema.
func read(conf []byte) (Config, error) {
	v, err := schema.DecodeJSON(conf)
	doc, _ := v.(map[string]any)
	c := Config{
		Type:      schema.Member(doc, "type", "consumer_name"),
		Blacklist: set(doc, "blacklist"),
		Whitelist: set(doc, "whitelist"),
	}
	code, numberErr := schema.Member(doc, "rejected_code", json.Number("403")).Float64() // 4.03e2 is an integer too
	if err == nil {
		err = numberErr
	}
	c.RejectedCode = int(code)
	c.RejectedMsg = schema.Member(doc, "rejected_msg", "The "+c.Type+" is forbidden.")
	for _, item := range schema.Member[[]any](doc, "allowed_by_methods", nil) {
		entry, _ := item.(map[string]any)
		user, ok := entry["user"].(string)
		if _, known := c.Methods[user]; !ok || known {
			continue
		}
		if c.Methods == nil {
			c.Methods = map[string][]string{}
		}
		c.Methods[user] = schema.Texts(entry, "methods")
	}
	return c, err
}

func set(doc map[string]any, name string) map[string]struct{} {
	var s map[string]struct{}
	for _, text := range schema.Texts(doc, name) {
		if s == nil {
			s = map[string]struct{}{}
		}
		s[text] = struct{}{}
	}
	return s
}

func build(conf []byte, _ phase.Env) (any, error) {
	c, err := read(conf)
	if err != nil {
		return nil, err
	}
	return &plugin{
		Config:  c,
		refusal: phase.MessageBody("message", c.RejectedMsg),
		unknown: phase.MessageBody("message", "The request is rejected, please check the "+c.Type+" for this request"),
	}, nil
}

// plugin is immutable.
type plugin struct {
	Config
	refusal, unknown []byte // bodies
}

// Access implements phase.Accessor.
func (p *plugin) Access(x *phase.Exchange) phase.Verdict {
	name := p.subject(x)
	if name == "" {
		x.Answer(401, phase.TypeText, p.unknown)
		return phase.Stop
	}
	if !p.allows(name, x.Request.Method) {
		x.Answer(p.RejectedCode, phase.TypeText, p.refusal)
		return phase.Stop
	}
	return phase.Continue
}

func (p *plugin) allows(name string, method []byte) bool {
	if _, listed := p.Blacklist[name]; listed {
		return false
	}
	if p.Whitelist != nil {
		_, listed := p.Whitelist[name]
		return listed
	}
	methods, limited := p.Methods[name]
	for _, m := range methods {
		if m == string(method) {
			return true
		}
	}
	return !limited
}

// subject returns what the lists are about, "" when the exchange has none.
func (p *plugin) subject(x *phase.Exchange) string {
	switch p.Type {
	case "consumer_name":
		return x.Consumer.Name
	case "consumer_group_id":
		return x.Consumer.Group
	}
	if x.Route == nil {
		return ""
	}
	if p.Type == "service_id" {
		return x.Route.ServiceID
	}
	return x.Route.ID
}

var _ phase.Accessor = (*plugin)(nil)
