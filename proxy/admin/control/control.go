// Package control answers on the control listener, without a key: views of what is in force (contract sections 1.9, 1.10), and quarantines, by
// which an operator shuts a target for a while. Documents it cannot change.
package control

import (
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/valyala/fasthttp"

	"headgate/conf/resource"
	"headgate/conf/schema"
	"headgate/conf/store"
	"headgate/proxy"
	"headgate/proxy/admin"
	"headgate/proxy/admin/catalog"
	"headgate/proxy/admin/status"
	"headgate/proxy/phase"
)

// Options of Handler.
type Options struct {
	// Plane shows the documents that are in force. Required.
	Plane proxy.Reader
	// Ready returns why the gateway should get no traffic yet, or any more; nil while it should. A nil Ready is always ready.
	Ready func() error
	// LeftOut returns the documents of the store that are not in force, by key, with the reasons. May be nil.
	LeftOut func() map[string]error
	// Plugins are described in /v1/schema, and give plugin_metadata its defaults. May be nil.
	Plugins catalog.Plugins
	// Health returns the upstreams that have health checks. May be nil.
	Health func() []Checked
	// Explain says what the gateway would do with the request that a JSON text describes; what it returns goes out as JSON. A
	// *resource.Error has its own status, every other error is the client's. Nil: /v1/explain does not exist.
	Explain func(request []byte) (any, error)
	// Breakers are what /v1/breakers and /v1/quarantine show and change. Nil: they do not exist.
	Breakers Breakers
	// Discovery shows what is known of services, by the discovery_type of the upstreams that use them. May be nil.
	Discovery map[string]func() any
	// Mask hides the secrets of a document, the text under key, because this listener asks nobody who they are. Nil: nothing is hidden.
	Mask func(key string, text []byte) []byte
	// Server is the value of the Server header, "APISIX/3.18.0"; empty for none.
	Server string
	// Prefix stands before the keys in answers; default "/apisix".
	Prefix string
	// Logf gets what goes wrong; nil drops it.
	Logf admin.Logf
}

// maxBody bounds the body of /v1/explain in bytes: a request that may hold a prompt.
const maxBody = 1 << 20

type views struct {
	Options
	endpoints []endpoint
}

// Handler answers what contract section 1.9 lists (routes, services, upstreams, plugin_metadatas, schema, healthcheck, gc,
// plugins/reload, discovery), GET /v1/left_out, POST /v1/explain, /v1/breakers and /v1/quarantine, and the paths of the status listener;
// everything else gets a 404 that lists what there is, or the page. Requests that a web page makes are refused, because nothing else protects this listener.
func Handler(o Options) fasthttp.RequestHandler {
	if o.Logf == nil {
		o.Logf = func(string, ...any) {}
	}
	if o.Mask == nil {
		o.Mask = func(_ string, text []byte) []byte { return text }
	}
	if o.Prefix == "" {
		o.Prefix = "/apisix"
	}
	v := &views{Options: o}
	v.endpoints = v.all()
	return admin.Guard(v.serve, o.Logf)
}

// NewServer returns a server for Handler.
func NewServer(o Options) *fasthttp.Server {
	return admin.NewServer(admin.ServerOptions{Handler: Handler(o), Name: o.Server, MaxBody: maxBody, Logf: o.Logf})
}

func (v *views) serve(ctx *fasthttp.RequestCtx) {
	if v.Server != "" {
		ctx.Response.Header.SetServer(v.Server)
	}
	if ctx.IsGet() && status.Answer(ctx, v.Ready) {
		return
	}
	e, rest := v.find(string(ctx.Method()), string(ctx.Path()))
	switch {
	case e == nil:
		v.unknown(ctx)
	case admin.CrossSite(ctx):
		replyError(ctx, fasthttp.StatusForbidden, "requests from web pages of other origins are refused: this listener asks for no key")
	default:
		e.answer(ctx, rest)
	}
}

func (v *views) explain(ctx *fasthttp.RequestCtx) {
	answer, err := v.Explain(ctx.PostBody())
	if err != nil {
		replyRefusal(ctx, err)
		return
	}
	v.replyValue(ctx, answer)
}

// replyRefusal: a *resource.Error has its own status, every other error is the client's.
func replyRefusal(ctx *fasthttp.RequestCtx, err error) {
	status := fasthttp.StatusBadRequest
	var refused *resource.Error
	if errors.As(err, &refused) {
		status = refused.Status
	}
	replyError(ctx, status, err.Error())
}

const metadataKind = "plugin_metadata"

func (v *views) metadata(ctx *fasthttp.RequestCtx, name string) {
	item, ok := v.Plane.Get(metadataKind + "/" + name)
	if !ok {
		replyError(ctx, fasthttp.StatusNotFound, "plugin metadata["+name+"] not found")
		return
	}
	v.replyValue(ctx, v.asRead(item))
}

func (v *views) allMetadata(ctx *fasthttp.RequestCtx) {
	items := v.Plane.List(metadataKind)
	if len(items) == 0 {
		reply(ctx, fasthttp.StatusOK, []byte("{}\n"))
		return
	}
	all := make([]any, len(items))
	for i, item := range items {
		all[i] = v.asRead(item)
	}
	v.replyValue(ctx, all)
}

// asRead returns a metadata document with its defaults.
func (v *views) asRead(item store.Item) any {
	decoded, err := schema.DecodeJSON(v.Mask(item.Key, item.Value))
	doc, ok := decoded.(map[string]any)
	if err != nil || !ok {
		return struct{}{}
	}
	return catalog.Metadata(v.Plugins, strings.TrimPrefix(item.Key, metadataKind+"/"), doc)
}

// leftOut answers an array of {"key","error"}, sorted by key.
func (v *views) leftOut(ctx *fasthttp.RequestCtx) {
	var left map[string]error
	if v.LeftOut != nil {
		left = v.LeftOut()
	}
	b := []byte{'['}
	for i, key := range slices.Sorted(maps.Keys(left)) {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendText(append(b, `{"key":`...), key)
		b = append(appendText(append(b, `,"error":`...), left[key].Error()), '}')
	}
	reply(ctx, fasthttp.StatusOK, append(b, "]\n"...))
}

func (v *views) item(ctx *fasthttp.RequestCtx, k resource.Kind, id string) {
	item, ok := v.Plane.Get(k.Key(id))
	if !ok {
		replyError(ctx, fasthttp.StatusNotFound, k.Word+"["+id+"] not found")
		return
	}
	reply(ctx, fasthttp.StatusOK, append(v.appendItem(nil, item), '\n'))
}

// list writes "{}" for no items, as the contract's tables come out.
func (v *views) list(ctx *fasthttp.RequestCtx, k resource.Kind) {
	items := v.Plane.List(k.Segment)
	if len(items) == 0 {
		reply(ctx, fasthttp.StatusOK, []byte("{}\n"))
		return
	}
	size := 16
	for _, item := range items {
		size += len(item.Value) + 160
	}
	b := append(make([]byte, 0, size), '[')
	for i, item := range items {
		if i > 0 {
			b = append(b, ',')
		}
		b = v.appendItem(b, item)
	}
	reply(ctx, fasthttp.StatusOK, append(b, "]\n"...))
}

func (v *views) appendItem(b []byte, item store.Item) []byte {
	b = appendText(append(b, `{"key":`...), v.Prefix+"/"+item.Key)
	b = append(append(b, `,"value":`...), v.Mask(item.Key, item.Value)...)
	b = strconv.AppendUint(append(b, `,"createdIndex":`...), item.CreateRevision, 10)
	b = strconv.AppendUint(append(b, `,"modifiedIndex":`...), item.ModRevision, 10)
	b = strconv.AppendUint(append(b, `,"orig_modifiedIndex":`...), item.ModRevision, 10)
	return append(b, '}')
}

func reply(ctx *fasthttp.RequestCtx, status int, body []byte) {
	ctx.SetStatusCode(status)
	ctx.SetContentType(phase.TypeJSON)
	ctx.Response.SetBodyRaw(body)
}

func replyText(ctx *fasthttp.RequestCtx, text string) {
	ctx.SetContentType(phase.TypeText)
	ctx.Response.SetBodyString(text)
}

func appendText(b []byte, s string) []byte {
	text, err := resource.Encode(s)
	if err != nil { // a string always encodes
		return append(b, `""`...)
	}
	return append(b, text...)
}
