// Package keyauth is the key-auth plugin: a request shows a key, in a header line or in a query argument, and becomes its consumer's
// (contract section 4.2).
package keyauth

import (
	"bytes"
	_ "embed"
	"errors"

	"headgate/conf/schema"
	"headgate/proxy/phase"
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
		Header:            member(doc, "header", "apikey"),
		Query:             member(doc, "query", "apikey"),
		HideCredentials:   member(doc, "hide_credentials", false),
		Realm:             member(doc, "realm", "key"),
		AnonymousConsumer: member(doc, "anonymous_consumer", ""),
	}, err
}

// member returns a member of doc, or absent when there is none. Names compare exactly, as they do in the schema.
func member[T any](doc map[string]any, name string, absent T) T {
	if v, ok := doc[name].(T); ok {
		return v
	}
	return absent
}

func build(conf []byte, env phase.Env) (any, error) {
	c, err := read(conf)
	if err != nil {
		return nil, err
	}
	return &plugin{c, env.Directory(), []byte(`apikey realm="` + c.Realm + `"`)}, nil
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
	if schema.IsReference(member(doc, "key", "")) {
		return nil, errReference
	}
	return nil, nil
}

// plugin is immutable.
type plugin struct {
	Config
	directory phase.Directory
	challenge []byte // the value of WWW-Authenticate
}

var (
	nameChallenge = []byte("WWW-Authenticate")

	bodyMissing   = []byte("{\"message\":\"Missing API key in request\"}\n")
	bodyInvalid   = []byte("{\"message\":\"Invalid API key in request\"}\n")
	bodyAnonymous = []byte("{\"message\":\"Invalid user authorization\"}\n")
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
		return p.refuse(x, bodyMissing)
	}
	if len(key) == 0 { // no proof, even if a consumer's key is empty
		return p.refuse(x, bodyInvalid)
	}
	c := p.directory.Credential(x, key)
	if c == nil {
		return p.refuse(x, bodyInvalid)
	}
	p.hide(x)
	x.Attach(c)
	return phase.Continue
}

// refuse takes the request for the anonymous consumer's where there is one, and answers 401 otherwise.
func (p *plugin) refuse(x *phase.Exchange, body []byte) phase.Verdict {
	if p.AnonymousConsumer != "" {
		if c := p.directory.Consumer(x, p.AnonymousConsumer); c != nil {
			p.hide(x)
			x.AttachPrincipal(c)
			return phase.Continue
		}
		body = bodyAnonymous
	}
	x.Response.Header.Set(nameChallenge, p.challenge)
	x.Answer(401, phase.TypeText, body)
	return phase.Stop
}

func (p *plugin) hide(x *phase.Exchange) {
	if p.HideCredentials {
		x.Request.Header.Del(p.Header)
		hideArgument(x, p.Query)
	}
}

var _ phase.Rewriter = (*plugin)(nil)
