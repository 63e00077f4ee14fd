// Package responserewrite is the response-rewrite plugin: it changes status, header lines and body of the answer on its way to the client,
// whoever made it (contract section 4.4).
package responserewrite

import (
	_ "embed"

	"headgate/proxy/phase"
)

//go:embed schema.json
var schemaJSON []byte

// Kind declares the plugin.
func Kind() phase.Kind {
	return phase.Kind{
		Name:     "response-rewrite",
		Priority: 899,
		Schema:   schemaJSON,
		Validate: validate,
		Build:    build,
	}
}

// build makes the plugin with as few phases as the configuration needs.
func build(conf []byte, env phase.Env) (any, error) {
	c, err := read(conf)
	if err != nil {
		return nil, err
	}
	p := plugin{status: c.status, body: c.body, replaces: c.replaces, lines: c.lines}
	if c.vars != nil {
		if p.when, err = env.CompileExpr(c.vars); err != nil {
			return nil, inVars(err)
		}
	}
	if len(c.filters) == 0 {
		return &p, nil
	}
	return &filtering{plugin: p, filters: c.filters, limit: c.maxBody, slot: env.Slot()}, nil
}

// plugin is immutable.
type plugin struct {
	when     phase.Predicate // nil: always
	status   int             // 0: as it is
	replaces bool            // body is the body for the client
	body     []byte
	lines    []line
}

// Response implements phase.Responder.
func (p *plugin) Response(x *phase.Exchange) {
	if p.when != nil && !p.when.True(x) {
		return
	}
	p.rewrite(x)
	if p.replaces {
		forgetBody(x)
		r := &x.Response
		if r.Stream != nil {
			r.Stream.Close()
			r.Stream = nil
		}
		r.Body, r.Size = p.body, -1
		r.Trailers.Drop()
	}
	p.rewriteLines(x)
}

// rewrite changes the status, which templates of header lines see.
func (p *plugin) rewrite(x *phase.Exchange) {
	if p.status != 0 {
		x.Response.Status = p.status
	}
}

func (p *plugin) rewriteLines(x *phase.Exchange) {
	for i := range p.lines {
		p.lines[i].apply(x)
	}
}

// forgetBody takes away what describes the body that the answer had.
func forgetBody(x *phase.Exchange) {
	h := &x.Response.Header
	h.Del("Content-Length")
	h.Del("Content-Encoding")
	h.Del("ETag")
	h.Del("Last-Modified")
	x.Response.HeadLength = -1
}

var _ phase.Responder = (*plugin)(nil)
