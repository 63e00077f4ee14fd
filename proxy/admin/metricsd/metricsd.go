// Package metricsd answers on the metrics listener: the exposition, and nothing else (contract section 5).
package metricsd

import (
	"io"

	"github.com/valyala/fasthttp"

	"headgate/proxy/admin"
	"headgate/proxy/meter"
)

// defaultPath answers besides the configured one, because scrapers ask for it unless told otherwise.
const defaultPath = "/metrics"

// Options of Handler.
type Options struct {
	// Path is where the exposition is, in addition to /metrics.
	Path string
	// Write writes the exposition. It may be called by several requests at once.
	Write func(io.Writer) error
	// Logf gets what goes wrong; nil drops it.
	Logf admin.Logf
}

// Handler answers GET on the two paths with the exposition as meter writes it, everything else with the 404 page. A failing Write
// gives the 500 page, never half an exposition.
func Handler(o Options) fasthttp.RequestHandler {
	if o.Logf == nil {
		o.Logf = func(string, ...any) {}
	}
	return admin.Guard(func(ctx *fasthttp.RequestCtx) {
		path := string(ctx.Path())
		if !ctx.IsGet() || (path != o.Path && path != defaultPath) {
			admin.Page(ctx, fasthttp.StatusNotFound)
			return
		}
		ctx.SetContentType(meter.ContentType)
		if err := o.Write(ctx.Response.BodyWriter()); err != nil {
			o.Logf("metrics: %v", err)
			admin.Page(ctx, fasthttp.StatusInternalServerError)
		}
	}, o.Logf)
}

// NewServer returns a server for Handler.
func NewServer(o Options) *fasthttp.Server {
	return admin.NewServer(admin.ServerOptions{Handler: Handler(o), Logf: o.Logf})
}
