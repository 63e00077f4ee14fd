package v3

import (
	"encoding/json"

	"github.com/valyala/fasthttp"

	"headgate/conf/resource"
	"headgate/proxy/admin"
)

// crash is a refusal where the recorded gateway fails with a 500 page (apisix-observed on section 1.1). Options.HTMLErrors says which
// of the two the client gets.
type crash struct{ refused *resource.Error }

func (c crash) Error() string { return c.refused.Error() }
func (c crash) Unwrap() error { return c.refused }

// replyCrash answers with the page, or with refused where clean answers are wanted.
func (a *API) replyCrash(ctx *fasthttp.RequestCtx, refused *resource.Error) {
	if !a.HTMLErrors {
		a.replyError(ctx, refused)
		return
	}
	admin.Page(ctx, fasthttp.StatusInternalServerError)
	a.cors(ctx)
}

// checkBody is resource.CheckBody for a whole document, and knows which bodies crash.
func checkBody(q *request) (map[string]any, error) {
	doc, refused := resource.CheckBody(q.verb, q.body.doc, q.body.present)
	if refused == nil {
		if q.kind.Segment == upstreamsSegment {
			switch doc["nodes"].(type) {
			case string, bool, json.Number:
				return nil, crash{resource.Invalid(`invalid configuration: property "nodes" validation failed: expected an object such as ` +
					`{"127.0.0.1:80":1} or an array`)}
			}
		}
		return doc, nil
	}
	if _, isArray := q.body.doc.([]any); !q.body.present || isArray {
		return nil, refused
	}
	return nil, crash{refused}
}
