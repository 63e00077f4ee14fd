// Package publicapi is the public-api plugin: it answers requests of a route with an internal API of the gateway, behind the plugins that
// the route has (the contract's list of plugins, section 4.1; section 5 for the metrics).
package publicapi

import (
	"bytes"
	_ "embed"
	"maps"

	"headgate/conf/schema"
	"headgate/proxy/phase"
)

//go:embed schema.json
var schemaJSON []byte

// Handler answers a request with Exchange.Answer or one of its forms. It looks at the method itself.
type Handler func(x *phase.Exchange)

// Kind declares the plugin. apis are the internal APIs by path; what is not among them is not found.
func Kind(apis map[string]Handler) phase.Kind {
	apis = maps.Clone(apis)
	return phase.Kind{
		Name:     "public-api",
		Priority: 501,
		Schema:   bytes.Clone(schemaJSON),
		Build:    func(conf []byte, _ phase.Env) (any, error) { return build(conf, apis) },
	}
}

func build(conf []byte, apis map[string]Handler) (any, error) {
	v, err := schema.DecodeJSON(conf)
	if err != nil {
		return nil, err
	}
	doc, _ := v.(map[string]any) // the empty array is also the empty object
	p := &plugin{apis: apis}
	p.uri, p.fixed = doc["uri"].(string)
	return p, nil
}

// plugin is immutable.
type plugin struct {
	apis  map[string]Handler
	uri   string // of the API, when it is fixed; else the client's path
	fixed bool
}

// api is what answers x, nil for nothing.
func (p *plugin) api(x *phase.Exchange) Handler {
	if p.fixed {
		return p.apis[p.uri]
	}
	return p.apis[string(x.Request.Path)]
}

// Access implements phase.Accessor.
func (p *plugin) Access(x *phase.Exchange) phase.Verdict {
	if api := p.api(x); api == nil {
		x.AnswerPage(404)
	} else {
		api(x)
	}
	return phase.Stop
}

// Foretell implements phase.Answerer.
func (p *plugin) Foretell(x *phase.Exchange) *phase.Foretold {
	if p.api(x) == nil {
		return &phase.Foretold{Status: 404, Share: 1, Why: "there is no such internal API"}
	}
	return &phase.Foretold{Share: 1, Why: "an internal API of the gateway answers"}
}

var (
	_ phase.Accessor = (*plugin)(nil)
	_ phase.Answerer = (*plugin)(nil)
)
