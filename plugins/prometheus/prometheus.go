// Package prometheus is the prometheus plugin: it asks for the metrics of a route (contract section 5). Where and how they are exposed
// is not its business.
package prometheus

import (
	"bytes"
	_ "embed"
	"encoding/json"

	"headgate/proxy/phase"
)

//go:embed schema.json
var schemaJSON []byte

// Config is what the operator writes.
type Config struct {
	// PreferName labels series with the names of route and service instead of their ids. The default is false.
	PreferName bool `json:"prefer_name"`
}

// Kind declares the plugin. A route's own instance takes the place of the one in a global rule, so that nothing counts twice.
func Kind() phase.Kind {
	return phase.Kind{
		Name:        "prometheus",
		Priority:    500,
		Schema:      bytes.Clone(schemaJSON),
		Build:       build,
		PreferRoute: true,
	}
}

func build(conf []byte, env phase.Env) (any, error) {
	var c Config
	if err := json.Unmarshal(conf, &c); err != nil {
		return nil, err
	}
	return &plugin{env.Recorder(c.PreferName)}, nil
}

type plugin struct{ recorder phase.Recorder }

// Done implements phase.Finisher.
func (p *plugin) Done(x *phase.Exchange) { p.recorder.Record(x) }

var _ phase.Finisher = (*plugin)(nil)
