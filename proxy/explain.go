package proxy

import (
	"context"
	"errors"
	"time"

	"headgate/conf/resource"
	"headgate/proxy/fault"
	"headgate/proxy/phase"
	"headgate/proxy/route"
	"headgate/proxy/snapshot"
	"headgate/proxy/upstream"
)

// Explanation is what the gateway would do with a request, in the form in which the control API shows it. The plugins have not been run:
// one of them may answer, find a consumer, or change what the others and the upstream see.
type Explanation struct {
	// Revision is that of the configuration that was asked.
	Revision uint64           `json:"revision"`
	Request  ExplainedRequest `json:"request"`
	// Fault is why the request would not be served, as far as that is known without sending it.
	Fault *ExplainedFault `json:"fault,omitempty"`
	Route *ExplainedRoute `json:"route"`
	// PassedOver are routes whose host and path fit, and that the router would have tried before, in its order. Without a route that
	// matches, those follow whose path fits under other hosts. More is how many were left off.
	PassedOver []ExplainedPass `json:"passed_over"`
	More       int             `json:"more,omitempty"`
	// Behind are routes that match too, and that the router would have come to later, in its order.
	Behind     []ExplainedPass            `json:"behind,omitempty"`
	MoreBehind int                        `json:"more_behind,omitempty"`
	Plugins    []snapshot.ExplainedPlugin `json:"plugins"`
	// Answer is what a plugin answers in the place of an upstream, unless one that runs before it answers. MayAnswer are the plugins before
	// it, or before the upstream, that answer a part of such requests.
	Answer    *phase.Foretold  `json:"answer,omitempty"`
	MayAnswer []phase.Foretold `json:"may_answer,omitempty"`
	// Split is the last decision of a plugin about where the request goes.
	Split    *phase.Choice         `json:"split,omitempty"`
	Upstream *upstream.Explanation `json:"upstream"`
}

// ExplainedRequest is the request as the router sees it.
type ExplainedRequest struct {
	Method   string `json:"method"`
	Host     string `json:"host"`
	Path     string `json:"path"` // canonical
	Query    string `json:"query"`
	Client   string `json:"client"` // after the rules about trusted addresses
	Consumer string `json:"consumer,omitempty"`
	TLS      bool   `json:"tls,omitempty"`
}

// ExplainedFault is a fault.Fault.
type ExplainedFault struct {
	Code   string `json:"code"`
	Status int    `json:"status"`
	Side   string `json:"side"`
}

// ExplainedRoute is the route that matches.
type ExplainedRoute struct {
	Key  string `json:"key"`
	ID   string `json:"id"`
	Name string `json:"name,omitempty"`
	// URI and Host are the patterns that fit; Host is "" when the route takes any.
	URI          string `json:"uri"`
	Host         string `json:"host"`
	Service      string `json:"service,omitempty"`       // key
	PluginConfig string `json:"plugin_config,omitempty"` // key
	Priority     int    `json:"priority"`
}

// ExplainedPass is a route that does not serve, with the reason.
type ExplainedPass struct {
	Key  string `json:"key"`
	URI  string `json:"uri"`
	Host string `json:"host"`
	Why  string `json:"why"`
}

const (
	// maxExplainedRoutes bounds each list of routes.
	maxExplainedRoutes = 20
	// explainTries is how often an explanation begins anew because what it looks at was edited meanwhile.
	explainTries = 5
	// explainPatience bounds the wait for a turn.
	explainPatience = 10 * time.Second
)

// Explainer answers what the gateway would do with a request, without doing any of it.
type Explainer struct {
	s    *Server
	a    *Applier
	turn chan struct{} // one at a time: a look at every route is work
}

// NewExplainer returns an explainer of what a has put into force and s serves.
func NewExplainer(s *Server, a *Applier) *Explainer {
	return &Explainer{s, a, make(chan struct{}, 1)}
}

// Explain reads a request from its JSON description (see ExplainRequest) and explains it. A *resource.Error says what is wrong with the
// description, with status 400, or that there was no quiet moment to look, with status 503.
func (e *Explainer) Explain(description []byte) (*Explanation, error) {
	in, err := readExplainRequest(description)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), explainPatience)
	defer cancel()
	select {
	case e.turn <- struct{}{}:
		defer func() { <-e.turn }()
	case <-ctx.Done():
		return nil, &resource.Error{Status: 503, Msg: "another request is being explained; try again"}
	}
	for range explainTries {
		out, err := e.try(ctx, in)
		if !errors.Is(err, errEdited) {
			return out, err
		}
	}
	return nil, &resource.Error{Status: 503, Msg: "the configuration keeps changing; try again"}
}

// errEdited says that what was looked at is not in force any more.
var errEdited = errors.New("edited meanwhile")

func (e *Explainer) try(ctx context.Context, in *ExplainRequest) (*Explanation, error) {
	x, f := e.s.g.imagine(in, e.s.http.ReadBufferSize, int(e.s.g.edge.maxBody))
	v := &explaining{x: x, out: &Explanation{
		Request: x.explained(in), PassedOver: []ExplainedPass{}, Plugins: []snapshot.ExplainedPlugin{},
	}}
	if e := e.a.submit(ctx, func() { v.Sight = e.a.compiler.Look() }); e != nil {
		return nil, &resource.Error{Status: 503, Msg: e.Error()}
	}
	defer v.Release()
	v.out.Revision = v.Sight.Revision
	if f != nil {
		v.fail(f)
		return v.out, nil
	}
	x.g.edge.vouch(x)
	v.out.Request = x.explained(in)
	if in.Consumer != "" {
		if v.who = v.Principal(in.Consumer); v.who == nil {
			return nil, resource.Invalid("consumer: there is no consumer " + quoted(in.Consumer))
		}
	}
	v.search()
	current := false
	if e := e.a.submit(ctx, func() { v.papers, current = v.Papers(e.a.inForce, v.route, v.who, v.doubtful()) }); e != nil {
		return nil, &resource.Error{Status: 503, Msg: e.Error()}
	}
	if !current {
		return nil, errEdited
	}
	if err := v.explain(); err != nil {
		return nil, err
	}
	return v.out, nil
}

// explaining is one explanation under way.
type explaining struct {
	*snapshot.Sight
	x   *exchange
	out *Explanation

	who        *phase.Principal // nil for nobody
	route      *snapshot.Route  // nil when none matches
	match      route.Match
	candidates []snapshot.Candidate
	papers     *snapshot.Papers
	holder     string // key of the document that has the upstream, if that is no document of its own
}

func (v *explaining) fail(f *fault.Fault) {
	if v.out.Fault == nil {
		v.out.Fault = &ExplainedFault{f.Code, f.Status, f.Side.String()}
	}
}

// search finds the route, as exchange.request does, and all that fit by host and path.
func (v *explaining) search() {
	x := v.x
	q := &x.query
	q.Host, q.HostPort, q.Path = x.Request.Host, x.hostport, x.Request.Path
	q.Method, q.Remote = route.MethodBit(x.Request.Method), x.Client.Addr
	x.Registry = v.Sight
	if r, ok := v.Find(q, x, &v.match); ok { // x.Match stays empty, as it is while the router asks for vars
		v.route = r
	}
	v.candidates = v.Candidates(q)
}

// doubtful are the routes about which the documents may have to be asked.
func (v *explaining) doubtful() (list []*snapshot.Route) {
	for _, c := range v.candidates[:min(len(v.candidates), maxExplainedRoutes)] {
		list = append(list, c.Route)
	}
	return list
}

// explain fills in everything that is known once the papers are there.
func (v *explaining) explain() error {
	x, r := v.x, v.route
	v.others()
	var chain *phase.Chain
	if r != nil {
		chain = r.Chain
		v.matched()
	}
	x.Enter(v.Global(), chain)
	var group *phase.Chain
	if v.who != nil && v.who.Group != "" {
		var ok bool
		if group, ok = v.Group(v.who.Group); !ok {
			v.fail(fault.MissingGroup)
		}
	}
	x.Preview(v.who, group)
	var err error
	if v.out.Plugins, err = v.Plugins(v.papers, r, &x.Exchange); err != nil {
		return err
	}
	if v.out.Fault == nil && v.decided() {
		return nil
	}
	switch {
	case r == nil:
		v.fail(fault.NoRoute)
	case r.Incomplete != nil:
		v.fail(r.Incomplete)
	case quarantined(r):
		v.fail(fault.Quarantined)
	case v.out.Fault == nil:
		v.destination()
	}
	return nil
}

// matched describes the route, and makes x one of its exchanges.
func (v *explaining) matched() {
	x, r := v.x, v.route
	x.route, x.Route, x.Branch, x.Match = r, &r.Route, r.Branch, v.match
	if r.Upstream != nil { // an interface that holds a nil pointer would not be nil
		x.Upstream = r.Upstream
	}
	v.out.Route = &ExplainedRoute{
		Key: r.Key, ID: r.ID, Name: r.Name, URI: x.Match.URI, Host: x.Match.Host, Service: r.ServiceKey, Priority: r.Priority(),
	}
	if doc, err := resource.DecodeRoute(v.papers.Get(r.Key)); err == nil && doc.PluginConfigID != "" {
		v.out.Route.PluginConfig = "plugin_configs/" + doc.PluginConfigID
	}
}

// others says why the routes do not serve that might have.
func (v *explaining) others() {
	x, q := v.x, &v.x.query
	won := -1
	for i, c := range v.candidates {
		if c.Route == v.route {
			won = i
		}
	}
	for i, c := range v.candidates {
		switch {
		case i == won:
		case won >= 0 && i > won:
			if c.Refusal(q, &x.Exchange, v.papers) != "" {
				continue
			}
			if len(v.out.Behind) == maxExplainedRoutes {
				v.out.MoreBehind++
				continue
			}
			v.out.Behind = append(v.out.Behind, ExplainedPass{c.Route.Key, c.URI, c.Host, v.Behind(&v.candidates[won], &c)})
		case len(v.out.PassedOver) == maxExplainedRoutes:
			v.out.More++
		default:
			why := c.Refusal(q, &x.Exchange, v.papers)
			if why == "" {
				why = "did not fit when it was asked"
			}
			v.out.PassedOver = append(v.out.PassedOver, ExplainedPass{c.Route.Key, c.URI, c.Host, why})
		}
	}
	if won >= 0 {
		return
	}
	elsewhere, more := v.Elsewhere(q, maxExplainedRoutes-len(v.out.PassedOver))
	v.out.More += more
	for _, c := range elsewhere {
		v.out.PassedOver = append(v.out.PassedOver, ExplainedPass{c.Route.Key, c.URI, c.Host, c.OtherHosts(q)})
	}
}

func quarantined(r *snapshot.Route) bool {
	g := r.Guard()
	return g != nil && g.Quarantined() > 0
}

// decided asks the plugins that answer, and those that choose where requests go, and reports whether nothing is left to ask: one of them
// answers for certain, or leaves open where the request goes.
func (v *explaining) decided() bool {
	x, r := v.x, v.route
	asked := x.Decision
	if r != nil {
		v.holder = r.Key
	}
	shut := r != nil && (r.Incomplete != nil || quarantined(r))
	for d := range x.Deciders() {
		if shut && !(d.Global && d.Phase == "rewrite") { // as exchange.request has it
			return false
		}
		name := v.Plugin(d.Kind)
		if d.Answerer != nil {
			if f := d.Foretell(&x.Exchange); f != nil {
				f.Plugin, f.From, f.Phase = name, v.configuring(name, d.Global), d.Phase
				if f.Share >= 1 {
					v.out.Answer = f
					return true
				}
				v.out.MayAnswer = append(v.out.MayAnswer, *f)
			}
		}
		if d.Explainer == nil || r == nil {
			continue
		}
		before := x.Upstream
		x.Decision = asked
		c := d.Explain(&x.Exchange)
		if c == nil {
			continue
		}
		c.Plugin = name
		v.out.Split = c
		if x.Upstream != before {
			v.holder = v.configuring(c.Plugin, d.Global)
		}
		if c.Status == fault.Quarantined.Status {
			v.fail(fault.Quarantined)
		}
		if c.Status != 0 || c.Open {
			return true
		}
	}
	return false
}

// destination says where the request would go.
func (v *explaining) destination() {
	x, holder := v.x, v.holder
	u, ok := x.Upstream.(*upstream.Upstream)
	switch {
	case x.Upstream == nil:
		v.fail(firstFault(v.route.Missing, fault.NoUpstream))
		return
	case !ok: // a plugin's own kind of upstream
		v.out.Upstream = &upstream.Explanation{Name: x.Upstream.Name(), From: holder, Nodes: []upstream.ExplainedNode{}}
		return
	}
	found, f := u.Explain(&x.Exchange)
	if found.From = v.papers.Holder(u); found.From == "" {
		found.From = holder
	}
	v.out.Upstream = &found
	if f != nil {
		v.fail(f)
	}
}

// configuring returns the key of the document from which the plugin runs.
func (v *explaining) configuring(plugin string, global bool) string {
	for _, p := range v.out.Plugins {
		if p.Name == plugin && p.Runs() && p.Global() == global {
			return p.From
		}
	}
	return ""
}
