// Package proxycontrol is the proxy-control plugin (the contract's list of plugins, section 4.1): whether a short request body is collected
// before the upstream gets any of it, so that another attempt can have it.
package proxycontrol

import (
	"bytes"
	_ "embed"

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
		Build:    build,
	}
}

func build(conf []byte, _ phase.Env) (any, error) {
	v, err := schema.DecodeJSON(conf)
	if err != nil {
		return nil, err
	}
	doc, _ := v.(map[string]any) // the empty array is also the empty object
	buffering, set := doc["request_buffering"].(bool)
	return plugin{streams: set && !buffering}, nil
}

type plugin struct{ streams bool }

// Rewrite implements phase.Rewriter.
func (p plugin) Rewrite(x *phase.Exchange) phase.Verdict {
	x.Request.Unbuffered = p.streams
	return phase.Continue
}

var _ phase.Rewriter = plugin{}
