package v3

import (
	"github.com/valyala/fasthttp"

	"headgate/conf/resource"
	"headgate/proxy/admin/catalog"
	"headgate/proxy/phase"
)

// plugins answers what is below /plugins (contract section 1.2). path is what stands behind it.
func (a *API) plugins(q *request, path []string) {
	name := segment(path, 0)
	get := q.verb == fasthttp.MethodGet
	switch {
	case name == "reload" && q.verb == fasthttp.MethodPut: // plugins are part of the program
		reply(q.ctx, fasthttp.StatusOK, []byte("done"))
	case name == "reload":
		a.replyError(q.ctx, &resource.Error{Status: fasthttp.StatusMethodNotAllowed,
			Msg: "please use PUT method to reload the plugins, " + q.verb + " method is not allowed."})
	case !get:
		a.replyError(q.ctx, &resource.Error{Status: fasthttp.StatusNotFound, Msg: "not found"})
	case name == "list":
		a.pluginNames(q)
	case name == "" && string(q.ctx.QueryArgs().Peek("all")) == "true":
		a.pluginFacts(q)
	default:
		a.pluginSchema(q, name)
	}
}

func segment(path []string, i int) string {
	if i < len(path) {
		return path[i]
	}
	return ""
}

const streamSubsystem = "stream"

// subsystem is the one that the request asks about; ok is false when there is no such.
func subsystem(ctx *fasthttp.RequestCtx) (name string, ok bool) {
	if !ctx.QueryArgs().Has("subsystem") {
		return "http", true
	}
	name = string(ctx.QueryArgs().Peek("subsystem"))
	return name, name == "http" || name == streamSubsystem
}

func (a *API) pluginNames(q *request) {
	of, ok := subsystem(q.ctx)
	if !ok {
		reply(q.ctx, fasthttp.StatusBadRequest, []byte("invalid subsystem passed"))
		return
	}
	names := []any{}
	if of != streamSubsystem && a.Plugins != nil {
		for _, name := range a.Plugins.Names() {
			names = append(names, name)
		}
	}
	a.replyValue(q.ctx, names)
}

func (a *API) pluginFacts(q *request) {
	setVersion(q.ctx)
	of, ok := subsystem(q.ctx)
	switch {
	case !ok:
		a.replyError(q.ctx, resource.Invalid("unsupported subsystem: "+of))
	case of == streamSubsystem:
		a.replyValue(q.ctx, map[string]any{})
	default:
		a.replyValue(q.ctx, catalog.Facts(a.Plugins))
	}
}

func (a *API) pluginSchema(q *request, name string) {
	setVersion(q.ctx)
	of, ok := subsystem(q.ctx)
	if !ok {
		a.replyError(q.ctx, resource.Invalid("unsupported subsystem: "+of))
		return
	}
	if of == streamSubsystem || !catalog.Has(a.Plugins, name) {
		a.replyError(q.ctx, &resource.Error{Status: fasthttp.StatusNotFound, Msg: "plugin not found in subsystem " + of})
		return
	}
	var doc any
	switch string(q.ctx.QueryArgs().Peek("schema_type")) {
	case "consumer":
		doc, ok = catalog.PluginSchema(a.Plugins, name, catalog.OfConsumer)
	case "metadata":
		doc, ok = catalog.PluginSchema(a.Plugins, name, catalog.OfMetadata)
	default:
		doc, ok = catalog.PluginSchema(a.Plugins, name, catalog.OfRoute)
	}
	if !ok {
		a.replyError(q.ctx, resource.Invalid("not found schema"))
		return
	}
	a.replyValue(q.ctx, doc)
}

// schema answers what is below /schema: the schemas of documents and plugins, and schema/validate. path is what stands behind it.
func (a *API) schema(q *request, path []string) {
	name := segment(path, 0)
	switch {
	case q.verb == fasthttp.MethodPost && name == "validate":
		a.validateSchema(q, segment(path, 1))
	case q.verb != fasthttp.MethodGet:
		a.replyError(q.ctx, &resource.Error{Status: fasthttp.StatusNotFound, Msg: "not found"})
	case name == "":
		a.replyCrash(q.ctx, resource.Invalid("missing schema name"))
	case name == "plugins" && segment(path, 1) != "":
		a.pluginSchema(q, path[1])
	default:
		setVersion(q.ctx)
		doc, ok := catalog.Document(name)
		if !ok {
			a.replyError(q.ctx, resource.Invalid("not found schema: "+name))
			return
		}
		a.replyValue(q.ctx, doc)
	}
}

// validateSchema judges the body by the schema of a kind alone: neither plugins nor references are looked at.
func (a *API) validateSchema(q *request, name string) {
	kind, ok := resource.KindOf(name)
	switch {
	case name == "plugins":
		a.replyCrash(q.ctx, &resource.Error{Status: fasthttp.StatusNotFound, Msg: "Unsupported resource type: plugins"})
		return
	case name != streamsSegment && (!ok || kind.Parent != ""):
		a.replyError(q.ctx, &resource.Error{Status: fasthttp.StatusNotFound, Msg: "Unsupported resource type: " + name})
		return
	}
	if !a.readBody(q) {
		return
	}
	var err error
	if name == streamsSegment {
		err = resource.CheckStreamRouteSchema(q.body.doc)
	} else {
		err = resource.CheckSchema(kind, q.body.doc)
	}
	if err != nil {
		a.replyError(q.ctx, resource.Invalid(err.Error()))
		return
	}
	reply(q.ctx, fasthttp.StatusOK, nil)
}

// replyValue answers 200 with value, which is made of what resource.Encode takes, and a newline.
func (a *API) replyValue(ctx *fasthttp.RequestCtx, value any) {
	body, err := resource.Encode(value)
	if err != nil {
		a.fail(ctx, err)
		return
	}
	ctx.SetContentType(phase.TypeJSON)
	ctx.Response.SetBodyRaw(append(body, '\n'))
}
