// Package v3 is the Admin API (contract sections 1.1 to 1.6, issue 2 part C): who may talk to it, what a request means, and the exact
// answers. What documents may contain and how they come into force is behind proxy.Plane.
package v3

import (
	"net/netip"
	"strings"
	"time"

	"github.com/valyala/fasthttp"

	"headgate/conf/resource"
	"headgate/proxy"
	"headgate/proxy/admin"
	"headgate/proxy/phase"
)

const (
	// root is the path below which the resources are.
	root = "/apisix/admin"
	// MaxBody is the largest request body in bytes (contract section 1.1).
	MaxBody = 1572864
	// readLimit is what the server reads, so that a body somewhat too large gets its answer before the connection closes.
	readLimit = 2 << 20
)

// Options of an API.
type Options struct {
	// Plane carries out the edits. Required.
	Plane proxy.Plane
	// Keys returns the keys that are valid now; it is called for every request, so that a reload can swap them. The slice is only read.
	Keys func() []Key
	// KeyRequired false lets every allowed peer do everything; requests that come from web pages are refused even then.
	KeyRequired bool
	// Allow lists the networks of the TCP peers that may connect. An empty list allows nobody.
	Allow []netip.Prefix
	// CORS answers pre-flight requests and sends the Access-Control headers of the contract.
	CORS bool
	// APIVersion is the version in the Server header, "3.18.0"; tools choose their dialect by it.
	APIVersion string
	// Prefix stands before the keys in answers; default "/apisix".
	Prefix string
	// Now is the clock; default time.Now.
	Now func() time.Time
	// Logf gets one line for every write and every refused key (never the key), and what goes wrong. Nil drops them.
	Logf admin.Logf
}

// API answers the requests of the Admin API. Its methods are safe for concurrent use.
type API struct {
	Options
	server string
	brake  brake
	ids    ids
	serve  fasthttp.RequestHandler
}

// New returns the API of o.
func New(o Options) *API {
	if o.Keys == nil {
		o.Keys = func() []Key { return nil }
	}
	if o.Prefix == "" {
		o.Prefix = "/apisix"
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logf == nil {
		o.Logf = func(string, ...any) {}
	}
	a := &API{Options: o, server: "APISIX"}
	if o.APIVersion != "" {
		a.server += "/" + o.APIVersion
	}
	a.serve = admin.Guard(a.admit, o.Logf)
	return a
}

// Handle answers one request.
func (a *API) Handle(ctx *fasthttp.RequestCtx) {
	ctx.Response.Header.SetServer(a.server)
	a.serve(ctx)
}

// NewServer returns a server for Handle, with limits that fit its body cap.
func (a *API) NewServer() *fasthttp.Server {
	return admin.NewServer(admin.ServerOptions{
		Handler: a.Handle, Name: a.server, MaxBody: readLimit, Logf: a.Logf,
		TooLarge: func(ctx *fasthttp.RequestCtx) {
			if !a.allowed(admin.Peer(ctx)) {
				admin.Page(ctx, fasthttp.StatusForbidden)
				return
			}
			a.cors(ctx)
			// Of a chunked body only the part that was read is known.
			a.replyError(ctx, tooLarge(max(ctx.Request.Header.ContentLength(), readLimit+1)))
		},
	})
}

// request is one request that was let in.
type request struct {
	ctx  *fasthttp.RequestCtx
	verb string
	kind resource.Kind
	id   string   // from the path, "" when it has none
	sub  []string // the path behind the id, without empty segments
	who  string   // name of the key, "-" when none is asked for
	peer netip.Addr
	ttl  time.Duration
	body body
	// weights is the decoded body of a PATCH of weights, nil when there was none.
	weights []weight
}

// admit does what comes before any resource, in the contract's order: peer, pre-flight, known verb, key.
func (a *API) admit(ctx *fasthttp.RequestCtx) {
	peer := admin.Peer(ctx)
	if !a.allowed(peer) {
		admin.Page(ctx, fasthttp.StatusForbidden)
		return
	}
	verb, path := string(ctx.Method()), string(ctx.Path())
	switch {
	case verb == fasthttp.MethodTrace || verb == fasthttp.MethodConnect:
		admin.Page(ctx, fasthttp.StatusMethodNotAllowed)
		return
	case verb == fasthttp.MethodOptions && a.CORS:
		a.preflight(ctx)
		return
	case verb == fasthttp.MethodHead && path == root:
		a.cors(ctx)
		ctx.SetContentType(phase.TypeJSON)
		return
	case !routed(verb) || !strings.HasPrefix(path, root+"/"):
		admin.Page(ctx, fasthttp.StatusNotFound)
		a.cors(ctx)
		return
	}
	a.cors(ctx)
	who, ok := a.authorize(ctx, peer, verb)
	if !ok {
		return
	}
	a.dispatch(ctx, &request{ctx: ctx, verb: verb, who: who, peer: peer}, strings.Split(path[len(root)+1:], "/"))
}

func routed(verb string) bool {
	switch verb {
	case fasthttp.MethodGet, fasthttp.MethodPut, fasthttp.MethodPost, fasthttp.MethodDelete, fasthttp.MethodPatch:
		return true
	}
	return false
}

// dispatch finds the resource, reads the body and the arguments, and carries the request out. segments is the path below root.
func (a *API) dispatch(ctx *fasthttp.RequestCtx, q *request, segments []string) {
	if segments[0] == "stream_routes" {
		a.replyError(ctx, resource.Invalid("stream mode is disabled, can not add stream routes"))
		return
	}
	kind, ok := resource.KindOf(segments[0])
	if !ok {
		a.replyError(ctx, &resource.Error{Status: 404, Msg: "Unsupported resource type: " + segments[0]})
		return
	}
	q.kind = kind
	if len(segments) > 1 {
		q.id = segments[1]
		for _, s := range segments[2:] {
			if s != "" {
				q.sub = append(q.sub, s)
			}
		}
	}
	weights := q.isWeights()
	readBody := a.readBody
	if weights {
		readBody = a.readWeights
	}
	if !readBody(q) || !a.readTTL(q) {
		return
	}
	ctx.Response.Header.Set("X-API-VERSION", "v3")
	switch {
	case weights:
		a.patchWeights(q)
	case q.verb == fasthttp.MethodGet && q.id == "":
		a.list(q)
	case q.verb == fasthttp.MethodGet:
		a.get(q)
	default:
		a.write(q)
	}
}

func (a *API) allowed(peer netip.Addr) bool {
	for _, network := range a.Allow {
		if network.Contains(peer) {
			return true
		}
	}
	return false
}

// cors also switches off the rewriting of header names, because the contract spells X-API-VERSION in capitals.
func (a *API) cors(ctx *fasthttp.RequestCtx) {
	h := &ctx.Response.Header
	h.DisableNormalizing()
	if !a.CORS {
		return
	}
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Access-Control-Allow-Credentials", "true")
	h.Set("Access-Control-Max-Age", "3600")
	if !ctx.IsOptions() {
		h.Set("Access-Control-Expose-Headers", "*")
	}
}

func (a *API) preflight(ctx *fasthttp.RequestCtx) {
	a.cors(ctx)
	h := &ctx.Response.Header
	h.Set("Access-Control-Allow-Methods", "POST, GET, PUT, OPTIONS, DELETE, PATCH")
	h.Set("Access-Control-Allow-Headers", "*")
	ctx.SetContentType(phase.TypeText)
}
