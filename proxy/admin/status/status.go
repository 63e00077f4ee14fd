// Package status answers on the status listener: whether the process lives, and whether it should get traffic (contract section 1.10).
package status

import (
	"github.com/valyala/fasthttp"

	"headgate/conf/resource"
	"headgate/proxy/admin"
	"headgate/proxy/phase"
)

// Options of Handler.
type Options struct {
	// Ready returns why the gateway should get no traffic yet, or any more; nil while it should. A nil Ready is always ready.
	Ready func() error
	// Server is the value of the Server header; empty for none.
	Server string
	// Logf gets what goes wrong; nil drops it.
	Logf admin.Logf
}

// Handler answers GET and HEAD of /status and /status/ready, everything else with the 404 page.
func Handler(o Options) fasthttp.RequestHandler {
	if o.Logf == nil {
		o.Logf = func(string, ...any) {}
	}
	return admin.Guard(func(ctx *fasthttp.RequestCtx) {
		if o.Server != "" {
			ctx.Response.Header.SetServer(o.Server)
		}
		if (ctx.IsGet() || ctx.IsHead()) && Answer(ctx, o.Ready) {
			return
		}
		admin.Page(ctx, fasthttp.StatusNotFound)
	}, o.Logf)
}

// NewServer returns a server for Handler.
func NewServer(o Options) *fasthttp.Server {
	return admin.NewServer(admin.ServerOptions{Handler: Handler(o), Name: o.Server, Logf: o.Logf})
}

// Answer answers a request for one of the two paths and returns true, or leaves ctx alone. Other listeners serve the paths with it.
func Answer(ctx *fasthttp.RequestCtx, ready func() error) bool {
	switch string(ctx.Path()) {
	case "/status":
	case "/status/ready":
		if ready == nil {
			break
		}
		if err := ready(); err != nil {
			text, encodeErr := resource.Encode(err.Error())
			if encodeErr != nil { // a string always encodes
				text = []byte(`""`)
			}
			reply(ctx, fasthttp.StatusServiceUnavailable, append(append([]byte(`{"status":"error","error":`), text...), '}'))
			return true
		}
	default:
		return false
	}
	reply(ctx, fasthttp.StatusOK, []byte(`{"status":"ok"}`))
	return true
}

func reply(ctx *fasthttp.RequestCtx, status int, body []byte) {
	ctx.SetStatusCode(status)
	ctx.SetContentType(phase.TypeJSON)
	ctx.Response.SetBodyRaw(body)
}
