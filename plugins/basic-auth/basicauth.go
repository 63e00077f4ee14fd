// Package basicauth is the basic-auth plugin: a request shows the username and the password of a consumer in its Authorization line
// (contract section 4.4, RFC 7617).
package basicauth

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
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
		Name:     "basic-auth",
		Priority: 2520,
		Schema:   bytes.Clone(schemaJSON),
		Build:    build,
		Consumer: &phase.ConsumerKind{
			Schema:    bytes.Clone(consumerSchemaJSON),
			Identity:  "username",
			Build:     buildConsumer,
			Encrypted: []string{"password"},
		},
	}
}

// Config is what the operator writes for a route.
type Config struct {
	// HideCredentials takes the Authorization line out of what the upstream sees. The default is false.
	HideCredentials bool
	// Realm is what WWW-Authenticate names; the default is "basic".
	Realm string
	// AnonymousConsumer names the consumer that requests without valid credentials are taken for; the default is none.
	AnonymousConsumer string
}

// read reads conf, which satisfies the schema.
func read(conf []byte) (Config, error) {
	v, err := schema.DecodeJSON(conf)
	doc, _ := v.(map[string]any) // the empty array is also the empty object
	return Config{
		HideCredentials:   schema.Member(doc, "hide_credentials", false),
		Realm:             schema.Member(doc, "realm", "basic"),
		AnonymousConsumer: schema.Member(doc, "anonymous_consumer", ""),
	}, err
}

func build(conf []byte, env phase.Env) (any, error) {
	c, err := read(conf)
	if err != nil {
		return nil, err
	}
	return &plugin{c, env.Directory(), auth.NewRefusal(env.Directory(), "Basic", c.Realm, c.AnonymousConsumer)}, nil
}

// secret is what a password is compared by. All digests are of one size, so that a comparison does not tell how long the password is.
type secret [sha256.Size]byte

// What names a secret must have been replaced by it: taken literally it would be a password that can be guessed.
var errReference = errors.New("username, password: the secret that one of them names is not known")

func buildConsumer(conf []byte) (any, error) {
	v, err := schema.DecodeJSON(conf)
	if err != nil {
		return nil, err
	}
	doc, _ := v.(map[string]any)
	password := schema.Member(doc, "password", "")
	if schema.IsReference(password) || schema.IsReference(schema.Member(doc, "username", "")) {
		return nil, errReference
	}
	s := secret(sha256.Sum256([]byte(password)))
	return &s, nil
}

// plugin is immutable.
type plugin struct {
	Config
	directory phase.Directory
	refusal   auth.Refusal
}

var (
	bodyMissing = []byte("{\"message\":\"Missing authorization in request\"}\n")
	bodyInvalid = []byte("{\"message\":\"Invalid authorization in request\"}\n")
	bodyRefused = []byte("{\"message\":\"Invalid user authorization\"}\n")
)

// Rewrite implements phase.Rewriter.
func (p *plugin) Rewrite(x *phase.Exchange) phase.Verdict {
	line, ok := x.Request.Header.Get("Authorization")
	if !ok {
		return p.refusal.Refuse(x, bodyMissing, p.hide)
	}
	text, ok := appendCredentials(x.Arena(), line)
	if !ok || auth.Ambiguous(x, "Authorization") {
		return p.refusal.Refuse(x, bodyInvalid, p.hide)
	}
	username, password, ok := bytes.Cut(x.Commit(text), []byte{':'})
	if !ok {
		return p.refusal.Refuse(x, bodyInvalid, p.hide)
	}
	c := p.directory.Credential(x, username)
	if !matches(c, password) {
		return p.refusal.Refuse(x, bodyRefused, p.hide)
	}
	p.hide(x)
	x.Attach(c)
	return phase.Continue
}

// matches says whether password is c's. It takes the same time for a username that nobody has, for which c is nil.
func matches(c *phase.Credential, password []byte) bool {
	var nobody secret
	want := &nobody
	if c != nil {
		want, _ = c.Data.(*secret)
	}
	got := sha256.Sum256(password)
	return subtle.ConstantTimeCompare(got[:], want[:]) == 1 && c != nil
}

func (p *plugin) hide(x *phase.Exchange) {
	if p.HideCredentials {
		x.Request.Header.Del("Authorization")
	}
}

var _ phase.Rewriter = (*plugin)(nil)
