// Package mocking is the mocking plugin: it answers in the place of an upstream that isn't there yet, with an example or with something
// made up from a schema (contract section 4.4).
package mocking

import (
	"bytes"
	_ "embed"
	"errors"
	"strings"
	"time"

	"headgate/conf/resource/split"
	"headgate/conf/schema"
	"headgate/proxy/phase"
	"headgate/proxy/phase/headerline"
	"headgate/proxy/phase/wire"
	"headgate/proxy/vars"
)

//go:embed schema.json
var schemaJSON []byte

// Config is what the operator writes.
type Config struct {
	// Delay is how long the answer takes, in whole seconds and an hour at most.
	Delay time.Duration
	// Status is that of the answer.
	Status int
	// ContentType is one of JSON, XML, plain text and HTML, with or without parameters.
	ContentType string
	// Example is a template for the body; nil: the body is made up from Schema.
	Example *string
	Schema  map[string]any
	// WithMockHeader adds x-mock-by.
	WithMockHeader bool
	// Headers are lines by their names; values are templates.
	Headers map[string]string
}

// Kind declares the plugin.
func Kind() phase.Kind {
	return phase.Kind{
		Name:     "mocking",
		Priority: 10900,
		Schema:   bytes.Clone(schemaJSON),
		Validate: validate,
		Build:    build,
	}
}

// maxDelay is longer than any client waits, in seconds.
const maxDelay = 3600

var (
	//lint:ignore ST1005 the contract's text
	errType = errors.New("unsupported content type!")
	// An interim answer (RFC 9110 section 15.2) is never the last one.
	errInterim = errors.New(`property "response_status" validation failed: a status below 200 ends no request`)
)

// read reads conf, which satisfies the schema.
func read(conf []byte) (c Config, err error) {
	v, err := schema.DecodeJSON(conf)
	if err != nil {
		return c, err
	}
	doc, _ := v.(map[string]any)
	c = Config{Status: 200, ContentType: "application/json;charset=utf8", WithMockHeader: true}
	if n, ok := split.Integer(doc["delay"]); ok {
		c.Delay = time.Duration(min(max(n, 0), maxDelay)) * time.Second
	}
	if n, ok := split.Integer(doc["response_status"]); ok {
		c.Status = int(n)
	}
	if s, ok := doc["content_type"].(string); ok {
		c.ContentType = s
	}
	if s, ok := doc["response_example"].(string); ok {
		c.Example = &s
	}
	if b, ok := doc["with_mock_header"].(bool); ok {
		c.WithMockHeader = b
	}
	c.Schema, _ = doc["response_schema"].(map[string]any)
	headers, _ := doc["response_headers"].(map[string]any)
	c.Headers = headerline.Texts(headers)
	switch {
	case !wire.ValidValue([]byte(c.ContentType)), formatOf(c.ContentType) == formatUnknown:
		err = errType
	case c.Status < 200:
		err = errInterim
	}
	return c, err
}

// format is how a body is made up.
type format uint8

const (
	formatUnknown format = iota
	formatJSON
	formatXML
	formatNone // nothing can be made up
)

// mediaType returns the type without what follows the last ";".
func mediaType(contentType string) string {
	if i := strings.LastIndexByte(contentType, ';'); i >= 0 {
		return contentType[:i]
	}
	return contentType
}

func formatOf(contentType string) format {
	switch mediaType(contentType) {
	case "application/json", "text/plain":
		return formatJSON
	case "application/xml", "text/xml":
		return formatXML
	case "text/html":
		return formatNone
	}
	return formatUnknown
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
	p := &plugin{status: c.Status, contentType: c.ContentType, delay: c.Delay, signed: c.WithMockHeader}
	switch mediaType(c.ContentType) {
	case "text/html", "text/plain", "text/xml":
		if !strings.Contains(c.ContentType, "charset=") { // as the upstream's answers of these types (apisix-observed, response)
			p.contentType += "; charset=utf-8"
		}
	}
	if p.lines, err = headerline.NewAnswer(c.Headers); err != nil {
		return nil, err
	}
	if c.Example != nil {
		p.example, err = vars.Compile(*c.Example)
		return p, err
	}
	if p.format = formatOf(c.ContentType); p.format != formatNone {
		p.made = newRoot(c.Schema, p.format)
	}
	return p, nil
}

// plugin is immutable. Without example and made the body is empty.
type plugin struct {
	status      int
	contentType string
	delay       time.Duration
	signed      bool
	lines       headerline.Answer
	example     *vars.Template
	made        *node
	format      format
}

var nameMockBy = []byte("x-mock-by")

// Access implements phase.Accessor.
func (p *plugin) Access(x *phase.Exchange) phase.Verdict {
	if p.delay > 0 && x.Sleep(p.delay) == phase.Stop {
		return phase.Stop
	}
	b := x.Arena()
	switch {
	case p.example != nil:
		b, _ = p.example.Append(b, x)
	case p.made != nil:
		b = p.made.append(b, x, p.format)
	}
	x.Answer(p.status, p.contentType, x.Commit(b))
	h := &x.Response.Header
	if p.signed {
		h.Set(nameMockBy, x.Commit(append(append(x.Arena(), "APISIX/"...), x.Settings().APIVersion...)))
	}
	p.lines.Set(x)
	return phase.Stop
}

// Foretell implements phase.Answerer.
func (p *plugin) Foretell(*phase.Exchange) *phase.Foretold {
	return &phase.Foretold{Status: p.status, Share: 1, Why: "it answers every request"}
}

var (
	_ phase.Accessor = (*plugin)(nil)
	_ phase.Answerer = (*plugin)(nil)
)
