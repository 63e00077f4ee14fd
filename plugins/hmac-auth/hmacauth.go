// Package hmacauth is the hmac-auth plugin: a request signs its target and some of its header lines with the secret that it shares with
// its consumer (contract section 4.4).
package hmacauth

import (
	"bytes"
	_ "embed"
	"encoding/json"

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
		Name:     "hmac-auth",
		Priority: 2530,
		Schema:   bytes.Clone(schemaJSON),
		Build:    build,
		Consumer: &phase.ConsumerKind{
			Schema:    bytes.Clone(consumerSchemaJSON),
			Identity:  "key_id",
			Build:     buildConsumer,
			Encrypted: []string{"secret_key"},
		},
	}
}

// Config is what the operator writes for a route.
type Config struct {
	// AllowedAlgorithms are what requests may be signed with; the default is all of hmac-sha1, hmac-sha256, hmac-sha512.
	AllowedAlgorithms [algorithms]bool
	// ClockSkew is by how many seconds the Date line may be off, either way; the default is 300.
	ClockSkew int64
	// SignedHeaders are lines that a request must have and sign; the default is "date". "@request-target" stands for method and target.
	SignedHeaders []string
	// ValidateRequestBody asks for a Digest line, which must be that of the body. The default is false.
	ValidateRequestBody bool
	// MaxReqBodySize bounds a body that is validated, in bytes; the default is 64 MiB.
	MaxReqBodySize int64
	// HideCredentials takes the Authorization line out of what the upstream sees. The default is false.
	HideCredentials bool
	// Realm is what WWW-Authenticate names; the default is "hmac".
	Realm string
	// AnonymousConsumer names the consumer that requests without a valid signature are taken for; the default is none.
	AnonymousConsumer string
}

// read reads conf, which satisfies the schema.
func read(conf []byte) (Config, error) {
	v, err := schema.DecodeJSON(conf)
	doc, _ := v.(map[string]any) // the empty array is also the empty object
	c := Config{
		ClockSkew:           number(doc, "clock_skew", 300),
		SignedHeaders:       []string{"date"},
		ValidateRequestBody: schema.Member(doc, "validate_request_body", false),
		MaxReqBodySize:      number(doc, "max_req_body_size", 64<<20),
		HideCredentials:     schema.Member(doc, "hide_credentials", false),
		Realm:               schema.Member(doc, "realm", "hmac"),
		AnonymousConsumer:   schema.Member(doc, "anonymous_consumer", ""),
	}
	if doc["signed_headers"] != nil {
		c.SignedHeaders = schema.Texts(doc, "signed_headers")
	}
	if doc["allowed_algorithms"] == nil {
		c.AllowedAlgorithms = [algorithms]bool{true, true, true}
	}
	for _, name := range schema.Texts(doc, "allowed_algorithms") {
		if a, ok := algorithmOf([]byte(name)); ok {
			c.AllowedAlgorithms[a] = true
		}
	}
	return c, err
}

// number returns a member that the schema calls an integer, which may be written with an exponent; one that is too large is the largest.
func number(doc map[string]any, name string, absent int64) int64 {
	n, ok := doc[name].(json.Number)
	if !ok {
		return absent
	}
	if i, err := n.Int64(); err == nil {
		return i
	}
	const largest = 1 << 53
	if f, err := n.Float64(); err == nil && f < largest {
		return int64(f)
	}
	return largest
}

func build(conf []byte, env phase.Env) (any, error) {
	c, err := read(conf)
	if err != nil {
		return nil, err
	}
	return &plugin{c, env.Directory(), auth.NewRefusal(env.Directory(), "hmac", c.Realm, c.AnonymousConsumer), newSecret(nil)}, nil
}

// plugin is immutable.
type plugin struct {
	Config
	directory phase.Directory
	refusal   auth.Refusal
	nobody    *secret // what a key that nobody has is checked with, so that it takes as long as any other
}

var (
	bodyMissing = []byte("{\"message\":\"client request can't be validated: missing Authorization header\"}\n")
	bodyScheme  = []byte("{\"message\":\"client request can't be validated: Authorization header does not start with 'Signature'\"}\n")
	bodyRefused = []byte("{\"message\":\"client request can't be validated\"}\n")
)

// Rewrite implements phase.Rewriter. A refusal does not say which check failed.
func (p *plugin) Rewrite(x *phase.Exchange) phase.Verdict {
	line, ok := x.Request.Header.Get("Authorization")
	if !ok {
		return p.refusal.Refuse(x, bodyMissing, p.hide)
	}
	rest, ok := bytes.CutPrefix(line, []byte("Signature"))
	if !ok {
		return p.refusal.Refuse(x, bodyScheme, p.hide)
	}
	var s signature
	if !s.parse(rest) || auth.Ambiguous(x, "Authorization") {
		return p.refusal.Refuse(x, bodyRefused, p.hide)
	}
	c := p.verify(x, &s)
	if c == nil {
		return p.refusal.Refuse(x, bodyRefused, p.hide)
	}
	if p.ValidateRequestBody {
		if x.Request.BodySize() < 0 {
			x.Request.Incoming.Limit(p.MaxReqBodySize)
		}
		if x.Request.BodySize() > p.MaxReqBodySize {
			x.Answer(413, phase.TypeText, bodyRefused)
			return phase.Stop
		}
		if !x.HoldBody() {
			return phase.Stop
		}
		if !digestFits(x) {
			return p.refusal.Refuse(x, bodyRefused, p.hide)
		}
	}
	p.hide(x)
	x.Attach(c)
	return phase.Continue
}

func (p *plugin) hide(x *phase.Exchange) {
	if p.HideCredentials {
		x.Request.Header.Del("Authorization")
	}
}

var _ phase.Rewriter = (*plugin)(nil)
