package control

import (
	"github.com/valyala/fasthttp"

	"headgate/proxy"
	"headgate/proxy/admin"
)

// Breakers are the states of routes, branches and endpoints, and the quarantines. What is refused is a *resource.Error.
type Breakers interface {
	List() []proxy.BreakerView
	Quarantines() []proxy.QuarantineView
	// Impose reads a quarantine from its JSON text. by is the peer's address, for the audit.
	Impose(body []byte, by string) (*proxy.QuarantineView, error)
	Lift(id, by string) (*proxy.QuarantineView, error)
}

// breakers finds what answers below /v1/breakers and /v1/quarantine; id is what follows the second slash.
func (v *views) breakers(method, path, id string) fasthttp.RequestHandler {
	switch {
	case method == fasthttp.MethodGet && path == "breakers":
		return func(ctx *fasthttp.RequestCtx) { v.replyValue(ctx, v.Breakers.List()) }
	case method == fasthttp.MethodGet && path == "quarantine":
		return func(ctx *fasthttp.RequestCtx) { v.replyValue(ctx, v.Breakers.Quarantines()) }
	case method == fasthttp.MethodPost && path == "quarantine":
		return func(ctx *fasthttp.RequestCtx) {
			q, err := v.Breakers.Impose(ctx.PostBody(), admin.Peer(ctx).String())
			if err != nil {
				replyRefusal(ctx, err)
				return
			}
			v.replyValue(ctx, q)
			if ctx.Response.StatusCode() == fasthttp.StatusOK {
				ctx.SetStatusCode(fasthttp.StatusCreated)
			}
		}
	case method == fasthttp.MethodDelete && path == "quarantine/"+id && id != "":
		return func(ctx *fasthttp.RequestCtx) {
			q, err := v.Breakers.Lift(id, admin.Peer(ctx).String())
			if err != nil {
				replyRefusal(ctx, err)
				return
			}
			v.replyValue(ctx, q)
		}
	}
	return nil
}
