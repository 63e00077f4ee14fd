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

//go:embed metadata_schema.json
var metadataSchemaJSON []byte

// Config is what the operator writes.
type Config struct {
	// PreferName labels series with the names of route and service instead of their ids. The default is false.
	PreferName bool `json:"prefer_name"`
}

// Metadata is the plugin's plugin_metadata document.
type Metadata struct {
	// DisabledLabels names, by metric without its prefix, labels whose value is left empty. The default is none.
	DisabledLabels map[string][]string `json:"disabled_labels"`
}

// Kind declares the plugin. A route's own instance takes the place of the one in a global rule, so that nothing counts twice.
func Kind() phase.Kind {
	return phase.Kind{
		Name:           "prometheus",
		Priority:       500,
		Schema:         bytes.Clone(schemaJSON),
		MetadataSchema: bytes.Clone(metadataSchemaJSON),
		Build:          build,
		PreferRoute:    true,
	}
}

func build(conf []byte, env phase.Env) (any, error) {
	var c Config
	if err := json.Unmarshal(conf, &c); err != nil {
		return nil, err
	}
	var m Metadata
	if doc := env.Metadata(); doc != nil {
		if err := json.Unmarshal(doc, &m); err != nil {
			return nil, err
		}
	}
	return &plugin{env.Recorder(phase.RecorderOptions{PreferName: c.PreferName, DisabledLabels: m.DisabledLabels})}, nil
}

type plugin struct{ recorder phase.Recorder }

// Done implements phase.Finisher.
func (p *plugin) Done(x *phase.Exchange) { p.recorder.Record(x) }

var _ phase.Finisher = (*plugin)(nil)
