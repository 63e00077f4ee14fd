// Package jwtauth is the jwt-auth plugin: a request shows a token that names its consumer and is signed with the consumer's key
// (contract section 4.2, RFC 7515, RFC 7519). The algorithm is part of the key: what a token says of it must agree, and decides nothing.
package jwtauth

import (
	"bytes"
	_ "embed"

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
		Name:     "jwt-auth",
		Priority: 2510,
		Schema:   bytes.Clone(schemaJSON),
		Build:    build,
		Consumer: &phase.ConsumerKind{
			Schema:    bytes.Clone(consumerSchemaJSON),
			Validate:  validateConsumer,
			Identity:  "key",
			Build:     buildConsumer,
			Encrypted: []string{"secret"},
		},
	}
}

// Config is what the operator writes for a route.
type Config struct {
	// Header, Query and Cookie are where the token is looked for, in this order; the defaults are "authorization", "jwt" and "jwt". The
	// first that is present counts, even if it is empty. In the header line "Bearer " may stand before the token.
	Header, Query, Cookie string
	// HideCredentials takes all three, with every repetition, out of what the upstream and the log see. The default is false.
	HideCredentials bool
	// KeyClaimName is the claim that has the consumer's key; the default is "key".
	KeyClaimName string
	// NeedExp and NeedNbf refuse tokens without these claims (claims_to_verify). A token that has them is held to them in any case.
	NeedExp, NeedNbf bool
	// Realm is what WWW-Authenticate names; the default is "jwt".
	Realm string
	// AnonymousConsumer names the consumer that requests without a valid token are taken for; the default is none.
	AnonymousConsumer string
}

// read reads conf, which satisfies the schema.
func read(conf []byte) (Config, error) {
	v, err := schema.DecodeJSON(conf)
	doc, _ := v.(map[string]any) // the empty array is also the empty object
	c := Config{
		Header:            schema.Member(doc, "header", "authorization"),
		Query:             schema.Member(doc, "query", "jwt"),
		Cookie:            schema.Member(doc, "cookie", "jwt"),
		HideCredentials:   schema.Member(doc, "hide_credentials", false),
		KeyClaimName:      schema.Member(doc, "key_claim_name", "key"),
		Realm:             schema.Member(doc, "realm", "jwt"),
		AnonymousConsumer: schema.Member(doc, "anonymous_consumer", ""),
	}
	for _, claim := range schema.Member[[]any](doc, "claims_to_verify", nil) {
		c.NeedExp = c.NeedExp || claim == "exp"
		c.NeedNbf = c.NeedNbf || claim == "nbf"
	}
	return c, err
}

func build(conf []byte, env phase.Env) (any, error) {
	c, err := read(conf)
	if err != nil {
		return nil, err
	}
	return &plugin{c, env.Directory(), auth.NewRefusal(env.Directory(), "Bearer", c.Realm, c.AnonymousConsumer)}, nil
}

// plugin is immutable.
type plugin struct {
	Config
	directory phase.Directory
	refusal   auth.Refusal
}

var (
	nameCookie = []byte("Cookie")

	bodyMissing    = []byte("{\"message\":\"Missing JWT token in request\"}\n")
	bodyInvalid    = []byte("{\"message\":\"JWT token invalid\"}\n")
	bodyNoKey      = []byte("{\"message\":\"missing user key in JWT token\"}\n")
	bodyUnknownKey = []byte("{\"message\":\"Invalid user key in JWT token\"}\n")
	bodyRefused    = []byte("{\"message\":\"failed to verify jwt\"}\n")
)

// Rewrite implements phase.Rewriter.
func (p *plugin) Rewrite(x *phase.Exchange) phase.Verdict {
	text, ok := p.find(x)
	if !ok {
		return p.refusal.Refuse(x, bodyMissing, p.hide)
	}
	var t token
	if !t.parse(x, text, p.KeyClaimName) || auth.Ambiguous(x, p.Header) {
		return p.refusal.Refuse(x, bodyInvalid, p.hide)
	}
	if t.key.kind == isAbsent || t.key.kind == isNull {
		return p.refusal.Refuse(x, bodyNoKey, p.hide)
	}
	if t.key.kind != isString || len(t.key.text) == 0 {
		return p.refusal.Refuse(x, bodyUnknownKey, p.hide)
	}
	c := p.directory.Credential(x, t.key.text)
	if c == nil {
		return p.refusal.Refuse(x, bodyUnknownKey, p.hide)
	}
	if k, _ := c.Data.(*key); k == nil || !k.verify(&t) || !p.current(&t, x.Start.Unix(), k.grace) {
		return p.refusal.Refuse(x, bodyRefused, p.hide)
	}
	p.hide(x)
	x.Attach(c)
	return phase.Continue
}

// current holds the token to its times, with grace seconds to spare. A time that is no number does not hold.
func (p *plugin) current(t *token, now int64, grace float64) bool {
	if t.exp.kind != isAbsent {
		if at, ok := t.exp.seconds(); !ok || float64(now) >= at+grace {
			return false
		}
	} else if p.NeedExp {
		return false
	}
	if t.nbf.kind != isAbsent {
		if at, ok := t.nbf.seconds(); !ok || float64(now) < at-grace {
			return false
		}
	} else if p.NeedNbf {
		return false
	}
	return true
}

// find returns what stands where a token is expected.
func (p *plugin) find(x *phase.Exchange) ([]byte, bool) {
	if line, ok := x.Request.Header.Get(p.Header); ok {
		for _, scheme := range [...]string{"Bearer ", "bearer "} {
			if len(line) >= len(scheme) && string(line[:len(scheme)]) == scheme {
				return line[len(scheme):], true
			}
		}
		return line, true
	}
	if decoded, ok := x.Arg(p.Query, x.Arena()); ok {
		return x.Commit(decoded), true
	}
	return x.Cookie(p.Cookie, nil)
}

func (p *plugin) hide(x *phase.Exchange) {
	if p.HideCredentials {
		x.Request.Header.Del(p.Header)
		auth.HideArgument(x, p.Query)
		hideCookie(x, p.Cookie)
	}
}

var _ phase.Rewriter = (*plugin)(nil)
