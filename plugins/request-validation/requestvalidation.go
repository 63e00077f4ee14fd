// Package requestvalidation is the request-validation plugin: it lets a request pass whose header lines and body satisfy a JSON Schema
// (contract section 4.4 and the corrections of apisix-observed). What was judged is what is forwarded: a JSON body goes on in the form in
// which it was understood, so that nothing an upstream might read in another way, such as a member written twice, gets past the schema.
package requestvalidation

import (
	"bytes"
	_ "embed"

	"headgate/conf/resource"
	"headgate/conf/resource/split"
	"headgate/conf/schema"
	"headgate/proxy/phase"
	"headgate/proxy/phase/wire"
)

//go:embed schema.json
var schemaJSON []byte

// Config is what the operator writes.
type Config struct {
	// HeaderSchema and BodySchema are JSON Schemas, nil without; one of them is there.
	HeaderSchema, BodySchema map[string]any
	// RejectedCode is the status of a rejection, RejectedMsg its body; "" says what is wrong.
	RejectedCode int
	RejectedMsg  string
}

// Kind declares the plugin.
func Kind() phase.Kind {
	return phase.Kind{
		Name:     "request-validation",
		Priority: 2800,
		Schema:   bytes.Clone(schemaJSON),
		Validate: validate,
		Build:    build,
	}
}

// read reads conf, which satisfies the schema.
func read(conf []byte) (c Config, err error) {
	v, err := schema.DecodeJSON(conf)
	if err != nil {
		return c, err
	}
	doc, _ := v.(map[string]any)
	c.HeaderSchema, c.BodySchema = object(doc, "header_schema"), object(doc, "body_schema")
	c.RejectedCode = 400
	if n, ok := split.Integer(doc["rejected_code"]); ok {
		c.RejectedCode = int(n)
	}
	c.RejectedMsg, _ = doc["rejected_msg"].(string)
	return c, nil
}

// object returns a member that is an object; the empty array is also the empty object.
func object(doc map[string]any, name string) map[string]any {
	v, ok := doc[name]
	m, _ := v.(map[string]any)
	if ok && m == nil {
		m = map[string]any{}
	}
	return m
}

func validate(conf []byte) error {
	_, err := build(conf, nil)
	return err
}

func build(conf []byte, _ phase.Env) (any, error) {
	c, err := read(conf)
	if err != nil {
		return nil, err
	}
	p := &plugin{status: c.RejectedCode, text: []byte(c.RejectedMsg)}
	if c.HeaderSchema != nil {
		if p.header, err = newJudge("header_schema", c.HeaderSchema); err != nil {
			return nil, err
		}
		p.names = oddNames(c.HeaderSchema)
	}
	if c.BodySchema != nil {
		if p.body, err = newJudge("body_schema", c.BodySchema); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// plugin is immutable.
type plugin struct {
	header, body *judge // nil without
	names        []string
	status       int
	text         []byte // of every rejection, empty: the reason
}

// judge is a schema with the values that it gives to absent members.
type judge struct {
	rule     map[string]any
	compiled *schema.Schema
}

func newJudge(name string, rule map[string]any) (*judge, error) {
	raw, err := resource.Encode(rule)
	if err != nil {
		return nil, err
	}
	compiled, err := schema.Compile(name, raw)
	return &judge{rule, compiled}, err
}

// check fills doc with defaults, in place, and returns what is wrong with it then.
func (j *judge) check(doc any) error {
	fill(j.rule, doc)
	return j.compiled.ValidateData(doc)
}

// Rewrite implements phase.Rewriter. It allocates what the decoded form of header or body takes.
func (p *plugin) Rewrite(x *phase.Exchange) phase.Verdict {
	if p.header != nil {
		if err := p.header.check(headerDocument(x, p.names)); err != nil {
			return p.reject(x, err.Error())
		}
	}
	if p.body == nil {
		return phase.Continue
	}
	if !x.HoldBody() {
		return phase.Stop
	}
	q := &x.Request
	if len(q.Body) == 0 {
		return p.reject(x, "")
	}
	if isForm(q.ContentType) {
		if err := p.body.check(formDocument(q.Body)); err != nil {
			return p.reject(x, err.Error())
		}
		return phase.Continue
	}
	doc, err := schema.DecodeJSON(q.Body)
	if err != nil {
		return p.reject(x, explain(q.Body, err))
	}
	if err := p.body.check(doc); err != nil {
		return p.reject(x, err.Error())
	}
	body, err := resource.Encode(doc)
	if err != nil {
		return p.reject(x, err.Error())
	}
	q.Body = body
	return phase.Continue
}

// reject answers with what the operator wants to be said, or else with the reason; without either it is the page of the status.
func (p *plugin) reject(x *phase.Exchange, reason string) phase.Verdict {
	switch {
	case len(p.text) > 0:
		x.Answer(p.status, phase.TypeText, p.text)
	case reason != "":
		x.Answer(p.status, phase.TypeText, []byte(reason))
	default:
		x.AnswerPage(p.status)
	}
	return phase.Stop
}

// isForm says whether the body is a form, by its media type.
func isForm(contentType []byte) bool {
	if i := bytes.IndexByte(contentType, ';'); i >= 0 {
		contentType = contentType[:i]
	}
	return phase.EqualName(wire.Trim(contentType), "application/x-www-form-urlencoded")
}

var _ phase.Rewriter = (*plugin)(nil)
