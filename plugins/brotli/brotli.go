// Package brotli is the brotli plugin: it compresses answers for the clients that take it (the contract's list of plugins, section 4.1).
// How it decides is in package compress. Where gzip is configured too, brotli compresses for the clients that like it no less.
package brotli

import (
	"bytes"
	_ "embed"
	"io"

	"github.com/andybalholm/brotli"

	"headgate/conf/resource/split"
	"headgate/conf/schema"
	"headgate/proxy/phase"
	"headgate/proxy/phase/compress"
)

//go:embed schema.json
var schemaJSON []byte

// budget bounds the memory in bytes for answers that are compressed at a time. Those beyond it leave uncompressed.
const budget = 1 << 30

// sizeOf is about what an encoder takes in bytes once a large body has passed it: measured were 7 MiB at the defaults, 70 MiB with the
// largest window and 200 MiB with that and the highest level.
func sizeOf(o brotli.WriterOptions) int64 {
	window, windows := o.LGWin, int64(6)
	if window == 0 {
		window = 22
	}
	if o.Quality >= 10 {
		windows = 12
	}
	return int64(1+o.Quality/2)<<20 + windows<<window
}

// Kind declares the plugin. The plugins that it builds share their encoders.
func Kind() phase.Kind {
	encoders := compress.NewEncoders(budget)
	return phase.Kind{
		Name:     "brotli",
		Priority: 996,
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
	options := brotli.WriterOptions{Quality: 6, LGWin: 19}
	if n, ok := split.Integer(doc["comp_level"]); ok {
		options.Quality = int(n)
	}
	if n, ok := split.Integer(doc["lgwin"]); ok {
		options.LGWin = int(n)
	}
	fresh := func() compress.Encoder { return brotli.NewWriterOptions(io.Discard, options) }
	made := compress.Make{Settings: options, Size: sizeOf(options), Fresh: fresh}
	return compress.New(compress.Brotli, compress.Read(doc), env, encoders, made), nil
}
