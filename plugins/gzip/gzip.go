// Package gzip is the gzip plugin: it compresses answers for the clients that take it (contract section 4.4). How it decides is in
// package compress.
package gzip

import (
	"bytes"
	_ "embed"
	"io"

	"github.com/klauspost/compress/gzip"

	"headgate/conf/resource/split"
	"headgate/proxy/phase"
	"headgate/proxy/phase/compress"
)

//go:embed schema.json
var schemaJSON []byte

// atOnce bounds how many answers are compressed at a time; one takes about 1 MiB. Those beyond it leave uncompressed.
const atOnce = 1024

// Kind declares the plugin. The plugins that it builds share their encoders.
func Kind() phase.Kind {
	encoders := compress.NewEncoders(atOnce)
	return phase.Kind{
		Name:     "gzip",
		Priority: 995,
		Schema:   bytes.Clone(schemaJSON),
		Build:    func(conf []byte, env phase.Env) (any, error) { return build(conf, env, encoders) },
	}
}

func build(conf []byte, env phase.Env, encoders *compress.Encoders) (any, error) {
	rules, doc, err := compress.Read(conf)
	if err != nil {
		return nil, err
	}
	level := 1
	if n, ok := split.Integer(doc["comp_level"]); ok {
		level = int(n)
	}
	if _, err := gzip.NewWriterLevel(io.Discard, level); err != nil {
		return nil, err
	}
	fresh := func() compress.Encoder {
		z, _ := gzip.NewWriterLevel(io.Discard, level) // the level was tried above
		return z
	}
	return compress.New(compress.Gzip, rules, env, encoders, level, fresh), nil
}
