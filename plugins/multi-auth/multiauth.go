// Package multiauth is the multi-auth plugin: it tries several authentication plugins, and the first that lets a request in decides who
// its consumer is (contract section 4.4).
package multiauth

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"

	"headgate/proxy/phase"
)

//go:embed schema.json
var schemaJSON []byte

// Kind declares the plugin. The configurations inside its own are checked when it is built, by their plugins.
func Kind() phase.Kind {
	return phase.Kind{
		Name:     "multi-auth",
		Priority: 2600,
		Schema:   bytes.Clone(schemaJSON),
		Build:    build,
	}
}

// Config is what the operator writes.
type Config struct {
	// AuthPlugins are tried in this order.
	AuthPlugins []Choice
}

// Choice is a plugin with its configuration.
type Choice struct {
	Name string
	Conf json.RawMessage
}

var errNone = errors.New("auth_plugins: none of the items names a plugin")

// read reads conf, which satisfies the schema. An item may have several plugins; they are tried in the order in which they are written.
func read(conf []byte) (c Config, err error) {
	var doc map[string]json.RawMessage // names compare exactly here, as they do in the schema
	if err := json.Unmarshal(conf, &doc); err != nil {
		return c, err
	}
	var items []json.RawMessage
	if err := json.Unmarshal(doc["auth_plugins"], &items); err != nil {
		return c, err
	}
	for _, item := range items {
		d := json.NewDecoder(bytes.NewReader(item))
		opening, err := d.Token()
		if err != nil {
			return c, err
		}
		for opening == json.Delim('{') && d.More() { // the empty array is also the empty object
			name, err := d.Token()
			if err != nil {
				return c, err
			}
			choice := Choice{Name: name.(string)} // a member of an object begins with its name
			if err := d.Decode(&choice.Conf); err != nil {
				return c, err
			}
			c.AuthPlugins = append(c.AuthPlugins, choice)
		}
	}
	if len(c.AuthPlugins) == 0 { // nobody would be asked
		return c, errNone
	}
	return c, nil
}

func build(conf []byte, env phase.Env) (any, error) {
	c, err := read(conf)
	if err != nil {
		return nil, err
	}
	p := &plugin{}
	for _, choice := range c.AuthPlugins {
		instance, err := env.Plugin(choice.Name, choice.Conf)
		if err != nil {
			return nil, err
		}
		r, ok := instance.(phase.Rewriter)
		if !ok {
			return nil, fmt.Errorf("%s plugin is not supported", choice.Name)
		}
		p.choices = append(p.choices, r)
	}
	return p, nil
}

// plugin is immutable.
type plugin struct{ choices []phase.Rewriter }

var bodyRefused = []byte("{\"message\":\"Authorization Failed\"}\n")

// Rewrite implements phase.Rewriter. A plugin that refuses leaves its WWW-Authenticate behind, in the place of the one before it: the
// client of a refusal gets the last, that of a request which a later plugin lets in gets it together with the upstream's answer.
func (p *plugin) Rewrite(x *phase.Exchange) phase.Verdict {
	for _, choice := range p.choices {
		if choice.Rewrite(x) == phase.Continue {
			return phase.Continue
		}
		x.Answer(0, "", nil) // what it has answered is taken back
	}
	x.Answer(401, phase.TypeText, bodyRefused)
	return phase.Stop
}

var _ phase.Rewriter = (*plugin)(nil)
