// Package proxycontrol is the proxy-control plugin. What it can switch off is how this gateway works: a request is read to its end before
// any of it is forwarded, because attempts on other endpoints, signatures and vars expressions need its body. So the plugin takes the
// setting that says so, and refuses the other one (the contract's list of plugins, section 4.1).
package proxycontrol

import (
	"bytes"
	_ "embed"
	"errors"

	"headgate/conf/schema"
	"headgate/proxy/phase"
)

//go:embed schema.json
var schemaJSON []byte

// Kind declares the plugin.
func Kind() phase.Kind {
	return phase.Kind{
		Name:     "proxy-control",
		Priority: 21990,
		Schema:   bytes.Clone(schemaJSON),
		Validate: validate,
		Build:    build,
	}
}

var errStreaming = errors.New("request_buffering cannot be false: this gateway reads a request to its end before it forwards any of it")

func validate(conf []byte) error {
	v, err := schema.DecodeJSON(conf)
	if err != nil {
		return err
	}
	doc, _ := v.(map[string]any) // the empty array is also the empty object
	if buffering, ok := doc["request_buffering"].(bool); ok && !buffering {
		return errStreaming
	}
	return nil
}

func build(conf []byte, _ phase.Env) (any, error) {
	if err := validate(conf); err != nil {
		return nil, err
	}
	return plugin{}, nil
}

type plugin struct{}

// Rewrite implements phase.Rewriter: there is nothing to do.
func (plugin) Rewrite(*phase.Exchange) phase.Verdict { return phase.Continue }

var _ phase.Rewriter = plugin{}
