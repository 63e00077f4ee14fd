// Package jwtauth is the jwt-auth plugin: a request shows a token that names its consumer and is signed with the consumer's key
// (contract section 4.2, RFC 7515, RFC 7519). The algorithm is part of the key: what a token says of it must agree, and decides nothing.
package jwtauth

import (
	"bytes"
	_ "embed"

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
		Header:            member(doc, "header", "authorization"),
		Query:             member(doc, "query", "jwt"),
		Cookie:            member(doc, "cookie", "jwt"),
		HideCredentials:   member(doc, "hide_credentials", false),
		KeyClaimName:      member(doc, "key_claim_name", "key"),
		Realm:             member(doc, "realm", "jwt"),
		AnonymousConsumer: member(doc, "anonymous_consumer", ""),
	}
	for _, claim := range member[[]any](doc, "claims_to_verify", nil) {
		c.NeedExp = c.NeedExp || claim == "exp"
		c.NeedNbf = c.NeedNbf || claim == "nbf"
	}
	return c, err
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
	return &plugin{c, env.Directory(), []byte(`Bearer realm="` + c.Realm + `"`)}, nil
}

// plugin is immutable.
type plugin struct {
	Config
	directory phase.Directory
	challenge []byte // the value of WWW-Authenticate
}

var (
	nameChallenge = []byte("WWW-Authenticate")
	nameCookie    = []byte("Cookie")

	bodyMissing    = []byte("{\"message\":\"Missing JWT token in request\"}\n")
	bodyInvalid    = []byte("{\"message\":\"JWT token invalid\"}\n")
	bodyNoKey      = []byte("{\"message\":\"missing user key in JWT token\"}\n")
	bodyUnknownKey = []byte("{\"message\":\"Invalid user key in JWT token\"}\n")
	bodyRefused    = []byte("{\"message\":\"failed to verify jwt\"}\n")
	bodyAnonymous  = []byte("{\"message\":\"Invalid user authorization\"}\n")
)

// Rewrite implements phase.Rewriter.
func (p *plugin) Rewrite(x *phase.Exchange) phase.Verdict {
	text, ok := p.find(x)
	if !ok {
		return p.refuse(x, bodyMissing)
	}
	var t token
	if !t.parse(x, text, p.KeyClaimName) {
		return p.refuse(x, bodyInvalid)
	}
	if t.key.kind == isAbsent || t.key.kind == isNull {
		return p.refuse(x, bodyNoKey)
	}
	if t.key.kind != isString || len(t.key.text) == 0 {
		return p.refuse(x, bodyUnknownKey)
	}
	c := p.directory.Credential(x, t.key.text)
	if c == nil {
		return p.refuse(x, bodyUnknownKey)
	}
	if k, _ := c.Data.(*key); k == nil || !k.verify(&t) || !p.current(&t, x.Start.Unix(), k.grace) {
		return p.refuse(x, bodyRefused)
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
		hideCookie(x, p.Cookie)
	}
}

var _ phase.Rewriter = (*plugin)(nil)
