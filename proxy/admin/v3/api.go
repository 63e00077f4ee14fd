// Package v3 is the Admin API (contract sections 1.1 to 1.6, issue 2 part C): who may talk to it, what a request means, and the exact
// answers. What documents may contain and how they come into force is behind proxy.Plane.
package v3

import (
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/valyala/fasthttp"

	"headgate/conf/resource"
	"headgate/conf/seal"
	"headgate/proxy"
	"headgate/proxy/admin"
	"headgate/proxy/admin/catalog"
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
	// Plugins are what plugins/ and schema/ show. May be nil: no plugin.
	Plugins catalog.Plugins
	// Checks judges the plugin configurations of configs/validate and of PUT configs. Nil: the former does not exist, and the latter leaves
	// every check to Plane.
	Checks Checks
	// Lenient says whether a compat switch is on, see resource.Env. Nil: none is.
	Lenient func(switchName string) bool
	// Sealer encrypts the secret members of the documents in the answers to writes. Nil: those answers show no more than GET does.
	Sealer *seal.Sealer
	// HTMLErrors answers with the contract's 500 page where its gateway is known to fail, instead of saying what is wrong with the
	// request.
	HTMLErrors bool
	// ConfigsMaxBody is the largest body of PUT configs in bytes; default 64 MiB.
	ConfigsMaxBody int
	// Audit gets one line for every document that was changed: what, by whom, from where (see diff). Nil: Logf gets them.
	Audit func(line string)
	// Logf gets a line for every refused write and every refused key (never the key), and what goes wrong. Nil drops them.
	Logf admin.Logf
}

// API answers the requests of the Admin API. Its methods are safe for concurrent use.
type API struct {
	Options
	server string
	brake  brake
	ids    ids
	// replacing is held by the PUT of configs that is under way.
	replacing sync.Mutex
	serve     fasthttp.RequestHandler
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
	if o.ConfigsMaxBody < 1 {
		o.ConfigsMaxBody = defaultConfigsMaxBody
	}
	if o.Audit == nil {
		o.Audit = func(line string) { o.Logf("admin audit: %s", line) }
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
		Handler: a.Handle, Name: a.server, MaxBody: readLimit, BodyLimit: a.bodyLimit, Logf: a.Logf,
		TooLarge: func(ctx *fasthttp.RequestCtx) {
			if !a.allowed(admin.Peer(ctx)) {
				admin.Page(ctx, fasthttp.StatusForbidden)
				return
			}
			a.cors(ctx)
			limit := MaxBody
			if a.bodyLimit(&ctx.Request.Header) > 0 {
				limit = a.ConfigsMaxBody
			}
			// Of a chunked body only the part that was read is known.
			a.replyError(ctx, tooLarge(max(ctx.Request.Header.ContentLength(), max(limit, readLimit)+1), limit))
		},
	})
}

// request is one request that was let in.
type request struct {
	ctx  *fasthttp.RequestCtx
	verb string
	kind resource.Kind
	// within is what the path has between kind and id: "jack/credentials", "vault"; "" for most kinds.
	within string
	id     string   // from the path, "" when it has none
	sub    []string // the path behind the id, without empty segments
	who    string   // name of the key, "-" when none is asked for
	peer   netip.Addr
	ttl    time.Duration
	body   body
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
	case verb == fasthttp.MethodHead && path == root+"/configs": // with a key, like everything below
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

// dispatch finds what the path names and hands the request over. segments is the path below root.
func (a *API) dispatch(ctx *fasthttp.RequestCtx, q *request, segments []string) {
	switch segments[0] {
	case streamsSegment:
		a.replyError(ctx, resource.Invalid(streamsOff))
	case "plugins":
		a.plugins(q, segments[1:])
	case "schema":
		a.schema(q, segments[1:])
	case "configs":
		a.configs(q, segments[1:])
	default:
		if q.locate(segments) {
			a.resource(q)
			return
		}
		a.unsupported(ctx, segments[0])
	}
}

func (a *API) unsupported(ctx *fasthttp.RequestCtx, segment string) {
	refused := &resource.Error{Status: fasthttp.StatusNotFound, Msg: "Unsupported resource type: " + segment}
	if segment == "" {
		a.replyCrash(ctx, refused)
		return
	}
	a.replyError(ctx, refused)
}

// resource reads the body and the arguments of a request for documents of a kind, and carries it out.
func (a *API) resource(q *request) {
	weights := q.isWeights()
	readBody := a.readBody
	if weights {
		readBody = a.readWeights
	}
	if !readBody(q) || !a.readTTL(q) {
		return
	}
	setVersion(q.ctx)
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

func setVersion(ctx *fasthttp.RequestCtx) { ctx.Response.Header.Set("X-API-VERSION", "v3") }

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
