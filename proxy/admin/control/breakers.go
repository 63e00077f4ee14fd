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

func (v *views) impose(ctx *fasthttp.RequestCtx) {
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

func (v *views) lift(ctx *fasthttp.RequestCtx, id string) {
	q, err := v.Breakers.Lift(id, admin.Peer(ctx).String())
	if err != nil {
		replyRefusal(ctx, err)
		return
	}
	v.replyValue(ctx, q)
}
