package control

import (
	"bytes"
	"encoding/json"
	"html/template"
	"slices"
	"strings"

	"github.com/valyala/fasthttp"

	"headgate/conf/resource"
	"headgate/proxy/admin"
	"headgate/proxy/phase"
	"headgate/proxy/upstream/health"
)

// Checked is an upstream whose nodes are probed or watched.
type Checked = health.Checked

// checkedAnswer is Checked as clients see it.
type checkedAnswer struct {
	Name  string              `json:"name"`
	Type  string              `json:"type"`
	Nodes []health.NodeHealth `json:"nodes"`
}

func (v *views) checked() []checkedAnswer {
	if v.Health == nil {
		return nil
	}
	var all []checkedAnswer
	for _, c := range v.Health() {
		all = append(all, checkedAnswer{v.Prefix + "/" + c.Key, c.Type, append([]health.NodeHealth{}, c.Nodes...)})
	}
	slices.SortFunc(all, func(a, b checkedAnswer) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// healthcheck answers /v1/healthcheck and what is below it; rest is the type and the id, "" for all.
func (v *views) healthcheck(ctx *fasthttp.RequestCtx, rest string) {
	if rest == "" {
		all := v.checked()
		switch {
		case wants(ctx, "text/html"):
			v.healthPage(ctx, all)
		case len(all) == 0:
			reply(ctx, fasthttp.StatusOK, []byte("{}\n"))
		default:
			v.replyValue(ctx, all)
		}
		return
	}
	kind, id, _ := strings.Cut(rest, "/")
	switch kind {
	case "routes", "services", "upstreams", "stream_routes":
	default:
		replyError(ctx, fasthttp.StatusBadRequest, "invalid src type "+kind)
		return
	}
	if id == "" {
		replyError(ctx, fasthttp.StatusNotFound, "missing src id for src type "+kind)
		return
	}
	if _, ok := v.Plane.Get(kind + "/" + id); !ok {
		replyError(ctx, fasthttp.StatusNotFound, kind+"["+id+"] not found")
		return
	}
	for _, c := range v.checked() {
		if c.Name == v.Prefix+"/"+kind+"/"+id {
			v.replyValue(ctx, c)
			return
		}
	}
	replyError(ctx, fasthttp.StatusNotFound, "no checker for "+kind+"["+id+"]")
}

// wants says that the client names the media type among those that it takes.
func wants(ctx *fasthttp.RequestCtx, mediaType string) bool {
	return bytes.Contains(ctx.Request.Header.Peek("Accept"), []byte(mediaType))
}

// pageText escapes what documents say.
const pageText = `<!DOCTYPE html>
<html><head><title>Health checks</title></head><body><h1>Health checks</h1>
<table><tr><th>Checker</th><th>Type</th><th>Node</th><th>Host</th><th>Status</th><th>Success</th><th>HTTP failures</th><th>TCP failures</th><th>Timeouts</th></tr>
{{range $c := .}}{{range .Nodes}}<tr><td>{{$c.Name}}</td><td>{{$c.Type}}</td><td>{{.IP}}:{{.Port}}</td><td>{{.Hostname}}</td><td>{{.Status}}</td>` +
	`<td>{{.Counter.Success}}</td><td>{{.Counter.HTTP}}</td><td>{{.Counter.TCP}}</td><td>{{.Counter.Timeout}}</td></tr>
{{end}}{{end}}</table></body></html>
`

func (v *views) healthPage(ctx *fasthttp.RequestCtx, all []checkedAnswer) {
	page, err := template.New("health").Parse(pageText)
	var b bytes.Buffer
	if err == nil {
		err = page.Execute(&b, all)
	}
	if err != nil {
		v.Logf("control: health page: %v", err)
		admin.Page(ctx, fasthttp.StatusInternalServerError)
		return
	}
	ctx.SetContentType(phase.TypeHTML)
	ctx.Response.SetBodyRaw(b.Bytes())
}

// replyValue answers with value as JSON and a newline.
func (v *views) replyValue(ctx *fasthttp.RequestCtx, value any) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(value); err != nil {
		v.Logf("control: %s: %v", ctx.Path(), err)
		admin.Page(ctx, fasthttp.StatusInternalServerError)
		return
	}
	reply(ctx, fasthttp.StatusOK, b.Bytes())
}

func replyError(ctx *fasthttp.RequestCtx, status int, msg string) {
	text, err := resource.Encode(msg)
	if err != nil { // a string always encodes
		text = []byte(`""`)
	}
	reply(ctx, status, append(append([]byte(`{"error_msg":`), text...), "}\n"...))
}
