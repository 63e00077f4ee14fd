// Package proxybuffering is the proxy-buffering plugin. What it switches off elsewhere, collecting an answer before its client gets the first
// piece, does not exist here: every piece leaves as it comes, and a client that reads slowly slows its upstream down. So both values of
// the setting are taken and say the same (the contract's list of plugins, section 4.1, and section 3.5).
package proxybuffering

import (
	"bytes"
	_ "embed"

	"headgate/proxy/phase"
)

//go:embed schema.json
var schemaJSON []byte

// Kind declares the plugin.
func Kind() phase.Kind {
	return phase.Kind{
		Name:     "proxy-buffering",
		Priority: 21991,
		Schema:   bytes.Clone(schemaJSON),
		Build:    func([]byte, phase.Env) (any, error) { return plugin{}, nil },
	}
}

type plugin struct{}

// Rewrite implements phase.Rewriter: there is nothing to do.
func (plugin) Rewrite(*phase.Exchange) phase.Verdict { return phase.Continue }

var _ phase.Rewriter = plugin{}
