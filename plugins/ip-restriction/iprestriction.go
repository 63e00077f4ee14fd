// Package iprestriction is the ip-restriction plugin: it lets clients pass by their address (contract section 4.4). The address is the one
// that real-ip rules have settled.
package iprestriction

import (
	"bytes"
	_ "embed"
	"errors"

	"headgate/conf/resource/split"
	"headgate/conf/schema"
	"headgate/proxy/phase"
)

//go:embed schema.json
var schemaJSON []byte

// Config is what the operator writes: one of the two lists.
type Config struct {
	// Whitelist and Blacklist hold addresses and networks in CIDR form, IPv4 and IPv6.
	Whitelist, Blacklist []string
	// Message goes to those who are refused.
	Message string
	// ResponseCode is their status, 403 or 404.
	ResponseCode int
}

// Kind declares the plugin.
func Kind() phase.Kind {
	return phase.Kind{
		Name:     "ip-restriction",
		Priority: 3000,
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
	c.Whitelist, c.Blacklist = schema.Texts(doc, "whitelist"), schema.Texts(doc, "blacklist")
	c.Message, c.ResponseCode = "Your IP address is not allowed", 403
	if s, ok := doc["message"].(string); ok {
		c.Message = s
	}
	if n, ok := split.Integer(doc["response_code"]); ok {
		c.ResponseCode = int(n)
	}
	return c, nil
}

func validate(conf []byte) error {
	c, err := read(conf)
	if err == nil {
		_, err = compile(c)
	}
	return err
}

func build(conf []byte, _ phase.Env) (any, error) {
	c, err := read(conf)
	if err != nil {
		return nil, err
	}
	return compile(c)
}

var errNoList = errors.New("neither whitelist nor blacklist has an address")

func compile(c Config) (*plugin, error) {
	p := &plugin{status: c.ResponseCode, deny: len(c.Whitelist) == 0}
	list := c.Whitelist
	if p.deny {
		list = c.Blacklist
	}
	if len(list) == 0 {
		return nil, errNoList
	}
	var err error
	if p.listed, err = newNetworks(list); err != nil {
		return nil, err
	}
	p.body = phase.MessageBody("message", c.Message)
	return p, nil
}

// plugin is immutable.
type plugin struct {
	listed networks
	// deny says that the listed clients are refused; otherwise only they pass.
	deny   bool
	status int
	body   []byte
}

// Access implements phase.Accessor. A client without an address never passes.
func (p *plugin) Access(x *phase.Exchange) phase.Verdict {
	if p.passes(x) {
		return phase.Continue
	}
	x.Answer(p.status, phase.TypeText, p.body)
	return phase.Stop
}

func (p *plugin) passes(x *phase.Exchange) bool {
	a := x.Client.Addr
	return a.IsValid() && p.listed.contains(a) != p.deny
}

// Foretell implements phase.Answerer.
func (p *plugin) Foretell(x *phase.Exchange) *phase.Foretold {
	if p.passes(x) {
		return nil
	}
	return &phase.Foretold{Status: p.status, Share: 1, Why: "the address of the client is refused"}
}

var (
	_ phase.Accessor = (*plugin)(nil)
	_ phase.Answerer = (*plugin)(nil)
)
