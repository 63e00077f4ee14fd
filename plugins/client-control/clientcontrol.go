// Package clientcontrol is the client-control plugin: it refuses requests with a large body (contract section 4.4).
package clientcontrol

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

// Config is what the operator writes.
type Config struct {
	// MaxBodySize is the largest request body in bytes. 0, the default, sets no limit beyond the listener's.
	MaxBodySize int64
}

// Kind declares the plugin.
func Kind() phase.Kind {
	return phase.Kind{
		Name:     "client-control",
		Priority: 22000,
		Schema:   bytes.Clone(schemaJSON),
		Validate: validate,
		Build:    build,
	}
}

var errSize = errors.New(`property "max_body_size" validation failed: the number is too large`)

// read reads conf, which satisfies the schema.
func read(conf []byte) (c Config, err error) {
	v, err := schema.DecodeJSON(conf)
	if err != nil {
		return c, err
	}
	doc, _ := v.(map[string]any) // the empty array is also the empty object
	if size, ok := doc["max_body_size"]; ok {
		if c.MaxBodySize, ok = split.Integer(size); !ok {
			err = errSize
		}
	}
	return c, err
}

func validate(conf []byte) error {
	_, err := read(conf)
	return err
}

func build(conf []byte, _ phase.Env) (any, error) {
	c, err := read(conf)
	if err != nil {
		return nil, err
	}
	return &plugin{c.MaxBodySize}, nil
}

// plugin is immutable.
type plugin struct{ max int64 }

// Rewrite implements phase.Rewriter.
func (p *plugin) Rewrite(x *phase.Exchange) phase.Verdict {
	size := x.Request.BodySize()
	if p.max > 0 && size < 0 { // counted as it comes
		x.Request.Incoming.Limit(p.max)
	}
	if p.max == 0 || size <= p.max {
		return phase.Continue
	}
	x.AnswerPage(413)
	return phase.Stop
}

var _ phase.Rewriter = (*plugin)(nil)
