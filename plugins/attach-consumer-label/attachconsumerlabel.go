// Package attachconsumerlabel is the attach-consumer-label plugin: it shows labels of the consumer to the upstream in header lines (the
// contract's list of plugins, section 4.1). These lines say who the client is, so they come from nowhere else: what the client sends under
// their names is taken away, also when nobody was authenticated.
package attachconsumerlabel

import (
	"bytes"
	_ "embed"
	"fmt"
	"maps"
	"slices"

	"headgate/conf/schema"
	"headgate/proxy/phase"
	"headgate/proxy/phase/wire"
)

//go:embed schema.json
var schemaJSON []byte

// Kind declares the plugin.
func Kind() phase.Kind {
	return phase.Kind{
		Name:     "attach-consumer-label",
		Priority: 2399,
		Schema:   bytes.Clone(schemaJSON),
		Validate: validate,
		Build:    build,
	}
}

// plugin is immutable.
type plugin struct{ lines []line }

// line shows a label.
type line struct {
	name  []byte
	label string
}

func validate(conf []byte) error {
	_, err := build(conf, nil)
	return err
}

func build(conf []byte, _ phase.Env) (any, error) {
	v, err := schema.DecodeJSON(conf)
	if err != nil {
		return nil, err
	}
	doc, _ := v.(map[string]any)
	headers, _ := doc["headers"].(map[string]any)
	p := &plugin{}
	for _, name := range slices.Sorted(maps.Keys(headers)) {
		label, _ := headers[name].(string)
		if !wire.ValidName([]byte(name)) || label == "" {
			return nil, fmt.Errorf(`property "headers" validation failed: %q is not the name of a header line`, name)
		}
		p.lines = append(p.lines, line{[]byte(name), label[1:]})
	}
	return p, nil
}

// Send implements phase.Sender.
func (p *plugin) Send(x *phase.Exchange) phase.Verdict {
	h := &x.Request.Header
	for i := range p.lines {
		l := &p.lines[i]
		value := x.Consumer.Labels[l.label]
		v := x.Commit(append(x.Arena(), value...))
		if len(v) == 0 || !wire.ValidValue(v) {
			h.DelBytes(l.name)
		} else {
			h.Set(l.name, v)
		}
	}
	return phase.Continue
}

var _ phase.Sender = (*plugin)(nil)
