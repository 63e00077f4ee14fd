// Package gzip is the gzip plugin: it compresses answers for the clients that take it (contract section 4.4). How it decides is in
// package compress.
package gzip

import (
	"bytes"
	_ "embed"
	"io"

	"github.com/klauspost/compress/gzip"

	"headgate/conf/resource/split"
	"headgate/conf/schema"
	"headgate/proxy/phase"
	"headgate/proxy/phase/compress"
)

//go:embed schema.json
var schemaJSON []byte

const (
	// budget bounds the memory in bytes for answers that are compressed at a time. Those beyond it leave uncompressed.
	budget = 1 << 30
	// size is what an encoder takes: 0.8 MiB at level 1, 1.4 MiB at level 9.
	size = 5 << 18
)

// Kind declares the plugin. The plugins that it builds share their encoders.
func Kind() phase.Kind {
	encoders := compress.NewEncoders(budget)
	return phase.Kind{
		Name:     "gzip",
		Priority: 995,
		Schema:   bytes.Clone(schemaJSON),
		Build:    func(conf []byte, env phase.Env) (any, error) { return build(conf, env, encoders) },
	}
}

func build(conf []byte, env phase.Env, encoders *compress.Encoders) (any, error) {
	v, err := schema.DecodeJSON(conf)
	if err != nil {
		return nil, err
	}
	doc, _ := v.(map[string]any) // the empty array is also the empty object
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
	made := compress.Make{Settings: level, Size: size, Fresh: fresh}
	return compress.New(compress.Gzip, compress.Read(doc), env, encoders, made), nil
}
