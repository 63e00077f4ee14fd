// Package brotli is the brotli plugin: it compresses answers for the clients that take it (the contract's list of plugins, section 4.1).
// How it decides is in package compress. Where gzip is configured too, brotli compresses for the clients that like it no less.
package brotli

import (
	"bytes"
	_ "embed"
	"io"

	"github.com/andybalholm/brotli"

	"headgate/conf/resource/split"
	"headgate/proxy/phase"
	"headgate/proxy/phase/compress"
)

//go:embed schema.json
var schemaJSON []byte

// atOnce bounds how many answers are compressed at a time; at the default level one takes a few MiB. Those beyond it leave uncompressed.
const atOnce = 256

// Kind declares the plugin. The plugins that it builds share their encoders.
func Kind() phase.Kind {
	encoders := compress.NewEncoders(atOnce)
	return phase.Kind{
		Name:     "brotli",
		Priority: 996,
		Schema:   bytes.Clone(schemaJSON),
		Build:    func(conf []byte, env phase.Env) (any, error) { return build(conf, env, encoders) },
	}
}

func build(conf []byte, env phase.Env, encoders *compress.Encoders) (any, error) {
	rules, doc, err := compress.Read(conf)
	if err != nil {
		return nil, err
	}
	options := brotli.WriterOptions{Quality: 6, LGWin: 19}
	if n, ok := split.Integer(doc["comp_level"]); ok {
		options.Quality = int(n)
	}
	if n, ok := split.Integer(doc["lgwin"]); ok {
		options.LGWin = int(n)
	}
	fresh := func() compress.Encoder { return brotli.NewWriterOptions(io.Discard, options) }
	return compress.New(compress.Brotli, rules, env, encoders, options, fresh), nil
}
