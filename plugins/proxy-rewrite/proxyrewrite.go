// Package proxyrewrite is the proxy-rewrite plugin: it changes target, method, Host and header lines of the request that goes to the
// upstream (contract section 4.2). Routing is over by then and not repeated. Its fields and its schema are those of package rewrite.
package proxyrewrite

import (
	"headgate/conf/schema"
	"headgate/proxy/phase"
	"headgate/proxy/phase/rewrite"
)

// Kind declares the plugin.
func Kind() phase.Kind {
	return phase.Kind{
		Name:     "proxy-rewrite",
		Priority: 1008,
		Schema:   rewrite.Schema(),
		Validate: validate,
		Build:    build,
	}
}

func validate(conf []byte) error {
	_, err := compile(conf)
	return err
}

func compile(conf []byte) (*rewrite.Rewriter, error) {
	v, err := schema.DecodeJSON(conf)
	if err != nil {
		return nil, err
	}
	doc, _ := v.(map[string]any) // the empty array is also the empty object
	return rewrite.CompileDecoded(doc)
}

func build(conf []byte, _ phase.Env) (any, error) {
	r, err := compile(conf)
	if err != nil {
		return nil, err
	}
	return &plugin{r}, nil
}

type plugin struct{ rewriter *rewrite.Rewriter }

// Rewrite implements phase.Rewriter.
func (p *plugin) Rewrite(x *phase.Exchange) phase.Verdict { return p.rewriter.Apply(x) }

var _ phase.Rewriter = (*plugin)(nil)
