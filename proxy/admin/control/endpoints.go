package control

import (
	"runtime"
	"slices"
	"strings"

	"github.com/valyala/fasthttp"

	"headgate/conf/resource"
	"headgate/proxy/admin"
	"headgate/proxy/admin/catalog"
)

// endpoint is something that this listener answers.
type endpoint struct {
	method, path string // a path may end in parameters: "/v1/route/{id}"
	answer       func(ctx *fasthttp.RequestCtx, rest string)
}

// fixed returns the part of the path before the parameters, and whether there are any.
func (e *endpoint) fixed() (part string, more bool) {
	part, _, more = strings.Cut(e.path, "{")
	return part, more
}

// find returns what answers path, and what path has where the parameters are; nil when nothing does.
func (v *views) find(method, path string) (*endpoint, string) {
	for i := range v.endpoints {
		e := &v.endpoints[i]
		part, more := e.fixed()
		rest, fits := strings.CutPrefix(path, part)
		if fits && e.method == method && more == (rest != "") {
			return e, rest
		}
	}
	return nil, ""
}

// all are the endpoints that there are with the options of v.
func (v *views) all() []endpoint {
	whole := func(answer fasthttp.RequestHandler) func(*fasthttp.RequestCtx, string) {
		return func(ctx *fasthttp.RequestCtx, _ string) { answer(ctx) }
	}
	list := []endpoint{
		{"GET", "/v1/schema", whole(func(ctx *fasthttp.RequestCtx) {
			v.replyValue(ctx, map[string]any{"main": catalog.Main(), "plugins": catalog.Facts(v.Plugins), "stream_plugins": struct{}{}})
		})},
		{"GET", "/v1/healthcheck", v.healthcheck},
		{"GET", "/v1/healthcheck/{type}/{id}", v.healthcheck},
		{"GET", "/v1/plugin_metadatas", whole(v.allMetadata)},
		{"GET", "/v1/plugin_metadata/{name}", v.metadata},
		{"GET", "/v1/left_out", whole(v.leftOut)},
		{"POST", "/v1/gc", whole(func(ctx *fasthttp.RequestCtx) { runtime.GC(); replyText(ctx, "") })},
		// Plugins are part of the program.
		{"PUT", "/v1/plugins/reload", whole(func(ctx *fasthttp.RequestCtx) { replyText(ctx, "done") })},
	}
	for _, word := range [...]string{"route", "service", "upstream"} {
		if k, ok := resource.KindOf(word + "s"); ok {
			list = append(list,
				endpoint{"GET", "/v1/" + k.Segment, whole(func(ctx *fasthttp.RequestCtx) { v.list(ctx, k) })},
				endpoint{"GET", "/v1/" + k.Word + "/{id}", func(ctx *fasthttp.RequestCtx, id string) { v.item(ctx, k, id) }})
		}
	}
	if len(v.Discovery) > 0 {
		list = append(list, endpoint{"GET", "/v1/discovery/{type}/dump", v.discovery})
	}
	if v.Explain != nil {
		list = append(list, endpoint{"POST", "/v1/explain", whole(v.explain)})
	}
	if v.Breakers != nil {
		list = append(list,
			endpoint{"GET", "/v1/breakers", whole(func(ctx *fasthttp.RequestCtx) { v.replyValue(ctx, v.Breakers.List()) })},
			endpoint{"GET", "/v1/quarantine", whole(func(ctx *fasthttp.RequestCtx) { v.replyValue(ctx, v.Breakers.Quarantines()) })},
			endpoint{"POST", "/v1/quarantine", whole(v.impose)},
			endpoint{"DELETE", "/v1/quarantine/{id}", v.lift})
	}
	return list
}

// unknown answers a path that nothing answers: with the contract's page, or with what there is, below the same word if there is such a thing. The
// page stands for the contract's paths, unless the client asks for JSON; its clients know nothing of the others.
func (v *views) unknown(ctx *fasthttp.RequestCtx) {
	subject := subjectOf(string(ctx.Path()))
	if ours := slices.Contains(ownSubjects[:], subject); ours && wants(ctx, "text/html") || !ours && !wants(ctx, "application/json") {
		admin.Page(ctx, fasthttp.StatusNotFound)
		return
	}
	var near, all []string
	for i := range v.endpoints {
		e := &v.endpoints[i]
		one := e.method + " " + e.path
		if all = append(all, one); subjectOf(e.path) == subject {
			near = append(near, one)
		}
	}
	if near == nil {
		near = append(all, "GET /status", "GET /status/ready")
	}
	v.replyValue(ctx, struct {
		Msg       string   `json:"error_msg"`
		Endpoints []string `json:"endpoints"`
	}{"there is no " + string(ctx.Method()) + " " + string(ctx.Path()), near})
	if ctx.Response.StatusCode() == fasthttp.StatusOK {
		ctx.SetStatusCode(fasthttp.StatusNotFound)
	}
}

// ownSubjects are what the contract has no paths for.
var ownSubjects = [...]string{"breaker", "explain", "left_out", "quarantine"}

// subjectOf is what a path is about: its first word below /v1/, in the singular.
func subjectOf(path string) string {
	word, _, _ := strings.Cut(strings.TrimPrefix(path, "/v1/"), "/")
	return strings.TrimSuffix(word, "s")
}

// discovery answers with what is known of the services of one discovery_type.
func (v *views) discovery(ctx *fasthttp.RequestCtx, rest string) {
	kind, dump := strings.CutSuffix(rest, "/dump")
	show := v.Discovery[kind]
	if !dump || show == nil {
		v.unknown(ctx)
		return
	}
	v.replyValue(ctx, show())
}
