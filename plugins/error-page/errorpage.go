// Package errorpage is the error-page plugin: it puts the operator's pages in the places of the gateway's and the plugins' own (the
// contract's list of plugins, section 4.1). What an upstream answers stays as it is. The pages are the plugin's metadata: one set for the
// whole gateway.
package errorpage

import (
	"bytes"
	_ "embed"
	"fmt"

	"headgate/conf/resource"
	"headgate/conf/schema"
	"headgate/proxy/phase"
	"headgate/proxy/phase/wire"
)

//go:embed schema.json
var schemaJSON []byte

//go:embed metadata.json
var metadataJSON []byte

// Kind declares the plugin.
func Kind() phase.Kind {
	return phase.Kind{
		Name:           "error-page",
		Priority:       450,
		Schema:         bytes.Clone(schemaJSON),
		MetadataSchema: bytes.Clone(metadataJSON),
		Build:          build,
	}
}

// statuses are those that can have a page.
var statuses = [...]int{404, 500, 502, 503}

// plugin is immutable.
type plugin struct{ pages [len(statuses)]page }

// page is used when it has a body.
type page struct{ kind, body []byte }

func build(_ []byte, env phase.Env) (any, error) {
	p := &plugin{}
	raw := env.Metadata()
	if raw == nil {
		return p, nil
	}
	v, err := schema.DecodeJSON(raw)
	if err != nil {
		return nil, err
	}
	doc, _ := v.(map[string]any) // the empty array is also the empty object
	doc = resource.FillDefaults(metadataJSON, doc)
	if on, _ := doc["enable"].(bool); !on {
		return p, nil
	}
	for i, status := range statuses {
		text, _ := doc[fmt.Sprintf("error_%d", status)].(map[string]any)
		body, _ := text["body"].(string)
		kind, _ := text["content_type"].(string)
		if !wire.ValidValue([]byte(kind)) {
			return nil, fmt.Errorf("the metadata's content_type for status %d cannot be in a header line", status)
		}
		p.pages[i] = page{[]byte(kind), []byte(body)}
	}
	return p, nil
}

var nameContentType = []byte("Content-Type")

// Response implements phase.Responder.
func (p *plugin) Response(x *phase.Exchange) {
	r := &x.Response
	if r.Source == phase.FromUpstream {
		return
	}
	for i, status := range statuses {
		if with := &p.pages[i]; status == r.Status && len(with.body) > 0 {
			source := r.Source
			x.Answer(status, "", with.body)
			r.Source = source // whose fault it is stays as it was
			r.Header.Del("Content-Encoding")
			if len(with.kind) > 0 {
				r.Header.Add(nameContentType, with.kind)
			}
			return
		}
	}
}

var _ phase.Responder = (*plugin)(nil)
