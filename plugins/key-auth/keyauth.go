// Package keyauth is the key-auth plugin: a request shows a key, in a header line or in a query argument, and becomes its consumer's
// (contract section 4.2).
package keyauth

import (
	"bytes"
	_ "embed"
	"errors"

	"headgate/conf/schema"
	"headgate/proxy/phase"
	"headgate/proxy/phase/auth"
)

//go:embed schema.json
var schemaJSON []byte

//go:embed consumer_schema.json
var consumerSchemaJSON []byte

// Kind declares the plugin.
func Kind() phase.Kind {
	return phase.Kind{
		Name:     "key-auth",
		Priority: 2500,
		Schema:   bytes.Clone(schemaJSON),
		Build:    build,
		Consumer: &phase.ConsumerKind{
			Schema:    bytes.Clone(consumerSchemaJSON),
			Identity:  "key",
			Build:     buildConsumer,
			Encrypted: []string{"key"},
		},
	}
}

// Config is what the operator writes for a route.
type Config struct {
	// Header is the line that carries the key; the default is "apikey". Where it is present, even empty, Query is not looked at.
	Header string
	// Query is the argument that carries the key; the default is "apikey".
	Query string
	// HideCredentials takes both, with every repetition, out of what the upstream and the log see. The default is false.
	HideCredentials bool
	// Realm is what WWW-Authenticate names; the default is "key".
	Realm string
	// AnonymousConsumer names the consumer that requests without a valid key are taken for; the default is none.
	AnonymousConsumer string
}

// read reads conf, which satisfies the schema.
func read(conf []byte) (Config, error) {
	v, err := schema.DecodeJSON(conf)
	doc, _ := v.(map[string]any) // the empty array is also the empty object
	return Config{
		Header:            schema.Member(doc, "header", "apikey"),
		Query:             schema.Member(doc, "query", "apikey"),
		HideCredentials:   schema.Member(doc, "hide_credentials", false),
		Realm:             schema.Member(doc, "realm", "key"),
		AnonymousConsumer: schema.Member(doc, "anonymous_consumer", ""),
	}, err
}

func build(conf []byte, env phase.Env) (any, error) {
	c, err := read(conf)
	if err != nil {
		return nil, err
	}
	return &plugin{c, env.Directory(), auth.NewRefusal(env.Directory(), "apikey", c.Realm, c.AnonymousConsumer)}, nil
}

// A key that names a secret must have been replaced by it: taken literally it would be a password that can be guessed.
var errReference = errors.New("key: the secret that it names is not known")

// buildConsumer keeps nothing: that the directory knows the key is all the proof there is.
func buildConsumer(conf []byte) (any, error) {
	v, err := schema.DecodeJSON(conf)
	if err != nil {
		return nil, err
	}
	doc, _ := v.(map[string]any)
	if schema.IsReference(schema.Member(doc, "key", "")) {
		return nil, errReference
	}
	return nil, nil
}

// plugin is immutable.
type plugin struct {
	Config
	directory phase.Directory
	refusal   auth.Refusal
}

var (
	bodyMissing = []byte("{\"message\":\"Missing API key in request\"}\n")
	bodyInvalid = []byte("{\"message\":\"Invalid API key in request\"}\n")
)

// Rewrite implements phase.Rewriter.
func (p *plugin) Rewrite(x *phase.Exchange) phase.Verdict {
	key, ok := x.Request.Header.Get(p.Header)
	if !ok {
		var decoded []byte
		if decoded, ok = x.Arg(p.Query, x.Arena()); ok {
			key = x.Commit(decoded)
		}
	}
	if !ok {
		return p.refusal.Refuse(x, bodyMissing, p.hide)
	}
	if len(key) == 0 || auth.Ambiguous(x, p.Header) { // an empty one is no proof, even if a consumer's key is empty
		return p.refusal.Refuse(x, bodyInvalid, p.hide)
	}
	c := p.directory.Credential(x, key)
	if c == nil {
		return p.refusal.Refuse(x, bodyInvalid, p.hide)
	}
	p.hide(x)
	x.Attach(c)
	return phase.Continue
}

func (p *plugin) hide(x *phase.Exchange) {
	if p.HideCredentials {
		x.Request.Header.Del(p.Header)
		auth.HideArgument(x, p.Query)
	}
}

var _ phase.Rewriter = (*plugin)(nil)
