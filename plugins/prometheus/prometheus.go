// Package prometheus is the prometheus plugin: it asks for the metrics of a route (contract section 5). Where and how they are exposed
// is not its business.
package prometheus

import (
	"bytes"
	_ "embed"

	"headgate/conf/schema"
	"headgate/proxy/phase"
)

//go:embed schema.json
var schemaJSON []byte

//go:embed metadata_schema.json
var metadataSchemaJSON []byte

// Config is what the operator writes.
type Config struct {
	// PreferName labels series with the names of route and service instead of their ids. The default is false.
	PreferName bool
}

// Metadata is the plugin's plugin_metadata document.
type Metadata struct {
	// DisabledLabels names, by metric without its prefix, labels whose value is left empty. The default is none.
	DisabledLabels map[string][]string
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
	doc, err := decode(conf)
	if err != nil {
		return nil, err
	}
	c := Config{PreferName: schema.Member(doc, "prefer_name", false)}
	var m Metadata
	if text := env.Metadata(); text != nil {
		if doc, err = decode(text); err != nil {
			return nil, err
		}
		m = metadata(doc)
	}
	return &plugin{env.Recorder(phase.RecorderOptions{PreferName: c.PreferName, DisabledLabels: m.DisabledLabels})}, nil
}

// decode returns the members of a document that satisfies its schema. The empty array is also the empty object.
func decode(text []byte) (map[string]any, error) {
	v, err := schema.DecodeJSON(text)
	doc, _ := v.(map[string]any)
	return doc, err
}

func metadata(doc map[string]any) Metadata {
	metrics := schema.Member[map[string]any](doc, "disabled_labels", nil)
	m := Metadata{DisabledLabels: make(map[string][]string, len(metrics))}
	for metric := range metrics {
		m.DisabledLabels[metric] = schema.Texts(metrics, metric)
	}
	return m
}

type plugin struct{ recorder phase.Recorder }

// Done implements phase.Finisher.
func (p *plugin) Done(x *phase.Exchange) { p.recorder.Record(x) }

var _ phase.Finisher = (*plugin)(nil)
