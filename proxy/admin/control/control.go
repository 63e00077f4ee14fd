// Package control answers on the control listener: read-only views of what is in force, without a key (contract sections 1.9, 1.10).
package control

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/valyala/fasthttp"

	"headgate/conf/resource"
	"headgate/conf/store"
	"headgate/proxy"
	"headgate/proxy/admin"
	"headgate/proxy/phase"
)

// Options of Handler.
type Options struct {
	// Plane is where the documents come from. Required.
	Plane proxy.Plane
	// Ready returns why the gateway should get no traffic yet, or any more; nil while it should. A nil Ready is always ready.
	Ready func() error
	// LeftOut returns the documents of the store that are not in force, by key, with the reasons. May be nil.
	LeftOut func() map[string]error
	// Server is the value of the Server header, "APISIX/3.18.0"; empty for none.
	Server string
	// Prefix stands before the keys in answers; default "/apisix".
	Prefix string
	// Logf gets what goes wrong; nil drops it.
	Logf admin.Logf
}

type views struct{ Options }

// Handler answers GET /v1/{routes,services,upstreams}, GET /v1/{route,service,upstream}/{id}, GET /v1/left_out, GET /status and GET /status/ready;
// everything else gets the 404 page. Requests that a web page makes are refused, because nothing else protects this listener.
func Handler(o Options) fasthttp.RequestHandler {
	if o.Logf == nil {
		o.Logf = func(string, ...any) {}
	}
	if o.Prefix == "" {
		o.Prefix = "/apisix"
	}
	return admin.Guard((&views{o}).serve, o.Logf)
}

// NewServer returns a server for Handler.
func NewServer(o Options) *fasthttp.Server {
	return admin.NewServer(admin.ServerOptions{Handler: Handler(o), Name: o.Server, Logf: o.Logf})
}

func (v *views) serve(ctx *fasthttp.RequestCtx) {
	if v.Server != "" {
		ctx.Response.Header.SetServer(v.Server)
	}
	if !ctx.IsGet() {
		admin.Page(ctx, fasthttp.StatusNotFound)
		return
	}
	path := string(ctx.Path())
	switch path {
	case "/status":
		reply(ctx, fasthttp.StatusOK, []byte(`{"status":"ok"}`))
		return
	case "/status/ready":
		v.ready(ctx)
		return
	}
	if path == "/v1/left_out" {
		if admin.CrossSite(ctx) {
			admin.Page(ctx, fasthttp.StatusForbidden)
			return
		}
		v.leftOut(ctx)
		return
	}
	segment, id, one := strings.Cut(strings.TrimPrefix(path, "/v1/"), "/")
	if !strings.HasPrefix(path, "/v1/") {
		segment = ""
	}
	for _, k := range resource.Kinds() {
		if list := !one && segment == k.Segment; !list && !(one && segment == k.Word && id != "") {
			continue
		}
		if admin.CrossSite(ctx) {
			admin.Page(ctx, fasthttp.StatusForbidden)
			return
		}
		if one {
			v.item(ctx, k, id)
		} else {
			v.list(ctx, k)
		}
		return
	}
	admin.Page(ctx, fasthttp.StatusNotFound)
}

func (v *views) ready(ctx *fasthttp.RequestCtx) {
	if v.Ready != nil {
		if err := v.Ready(); err != nil {
			reply(ctx, fasthttp.StatusServiceUnavailable, append(appendText([]byte(`{"status":"error","error":`), err.Error()), '}'))
			return
		}
	}
	reply(ctx, fasthttp.StatusOK, []byte(`{"status":"ok"}`))
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
		reply(ctx, fasthttp.StatusNotFound, append(appendText([]byte(`{"error_msg":`), k.Word+"["+id+"] not found"), "}\n"...))
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
	b = append(append(b, `,"value":`...), item.Value...)
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

func appendText(b []byte, s string) []byte {
	text, err := resource.Encode(s)
	if err != nil { // a string always encodes
		return append(b, `""`...)
	}
	return append(b, text...)
}
