package proxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/valyala/fasthttp"

	"headgate/conf/store"
	"headgate/conf/store/mem"
	faultinjection "headgate/plugins/fault-injection"
	keyauth "headgate/plugins/key-auth"
	"headgate/plugins/mocking"
	"headgate/plugins/redirect"
	trafficsplit "headgate/plugins/traffic-split"
	"headgate/proxy/meter"
	"headgate/proxy/offload"
	"headgate/proxy/phase"
	"headgate/proxy/route"
	"headgate/proxy/snapshot"
	"headgate/proxy/upstream"
)

// explainRig is a gateway without listeners: requests are handed to it, and explained.
type explainRig struct {
	*Explainer
	t     testing.TB
	store store.Store
	meter *meter.Registry
}

// stamp is a plugin that takes part in several phases and does nothing.
type stamp struct{}

func (stamp) Rewrite(*phase.Exchange) phase.Verdict { return phase.Continue }
func (stamp) Access(*phase.Exchange) phase.Verdict  { return phase.Continue }
func (stamp) Response(*phase.Exchange)              {}

// answering answers instead of the upstream: with the route and the branch that the exchange came to.
type answering struct{}

func (answering) Access(x *phase.Exchange) phase.Verdict {
	x.Answer(200, phase.TypeText, []byte(x.Route.Key+" "+x.Branch))
	return phase.Stop
}

func newExplainRig(t testing.TB, o ServerOptions, mode route.Mode, docs map[string]string) *explainRig {
	t.Helper()
	r := &explainRig{t: t, store: mem.Open(), meter: meter.New("")}
	for _, key := range slices.Sorted(maps.Keys(docs)) {
		r.put(key, docs[key])
	}
	kind := func(name string, priority int, instance any) phase.Kind {
		return phase.Kind{Name: name, Priority: priority, Schema: []byte(`{"type":"object"}`), Build: func([]byte, phase.Env) (any, error) { return instance, nil }}
	}
	prefer := kind("prefer", 800, stamp{})
	prefer.PreferRoute = true
	live := &snapshot.Live{}
	hub := upstream.NewHub(upstream.NewResolver(time.Minute), nil)
	c, err := snapshot.NewCompiler(live, snapshot.Options{
		Kinds: []phase.Kind{keyauth.Kind(), kind("stamp", 1000, stamp{}), trafficsplit.Kind(), mocking.Kind(), redirect.Kind(), faultinjection.Kind(), prefer, kind("answer", 1, answering{})},
		Hub:   hub, Meter: r.meter, Mode: mode, Inert: []string{"zipkin"},
		Defaults: upstream.Defaults{Connect: patience, Send: patience, Read: patience, Pool: upstream.PoolOptions{Size: 1, MaxRequests: 1}, MaxHead: 4096},
	})
	if err != nil {
		t.Fatal(err)
	}
	pool, err := offload.New(4, func(p any) { t.Errorf("background task: %v", p) })
	if err != nil {
		t.Fatal(err)
	}
	a, err := StartApplier(context.Background(), ApplierOptions{
		Compiler: c, Store: r.store, Offload: pool, Meter: r.meter, Logf: func(string, ...any) {},
	})
	if err != nil {
		t.Fatal(err)
	}
	if a.left.count > 0 {
		t.Fatalf("left out: %v", a.LeftOut())
	}
	if o.Meter = r.meter; o.MaxHead == 0 {
		o.MaxHead, o.MaxLines, o.MaxBody = 16<<10, 128, 1<<20
	}
	r.Explainer = NewExplainer(NewServer(live, o), a)
	t.Cleanup(func() {
		a.Close()
		c.Close()
		hub.Close()
		if err := errors.Join(pool.Close(patience), r.store.Close()); err != nil {
			t.Error(err)
		}
	})
	return r
}

func (r *explainRig) put(key, doc string) {
	r.t.Helper()
	if _, err := r.store.Put(context.Background(), key, []byte(doc), store.AnyRevision, time.Time{}); err != nil {
		r.t.Fatal(err)
	}
}

func (r *explainRig) explain(request string) *Explanation {
	r.t.Helper()
	e, err := r.Explain([]byte(request))
	if err != nil {
		r.t.Fatalf("%s: %v", request, err)
	}
	return e
}

// handle sends a request through the gateway and returns the body of the answer.
func (r *explainRig) handle(line string, lines ...string) string {
	r.t.Helper()
	ctx := &fasthttp.RequestCtx{}
	local := netip.MustParseAddr("127.0.0.1")
	ctx.Init2(&edgeConn{peer: local, peerText: []byte("127.0.0.1"), localText: []byte("127.0.0.1")}, nil, true)
	ctx.Request.Header.DisableNormalizing()
	text := line + " HTTP/1.1\r\nHost: h\r\n" + strings.Join(append(lines, "", ""), "\r\n")
	if err := ctx.Request.Header.Read(bufio.NewReader(strings.NewReader(text))); err != nil {
		r.t.Fatal(err)
	}
	r.s.g.Handle(ctx)
	body := string(ctx.Response.Body())
	if err := ctx.UserValue(exchangeKey).(io.Closer).Close(); err != nil {
		r.t.Fatal(err)
	}
	return body
}

// explainedText is what an explanation says, line by line.
func explainedText(e *Explanation) string {
	var b strings.Builder
	if e.Fault != nil {
		fmt.Fprintf(&b, "fault %s %d\n", e.Fault.Code, e.Fault.Status)
	}
	if e.Route != nil {
		fmt.Fprintf(&b, "route %s by %s %s\n", e.Route.Key, e.Route.Host, e.Route.URI)
	}
	for _, p := range e.PassedOver {
		fmt.Fprintf(&b, "not %s: %s\n", p.Key, p.Why)
	}
	for _, p := range e.Behind {
		fmt.Fprintf(&b, "behind %s: %s\n", p.Key, p.Why)
	}
	for _, p := range e.Plugins {
		fmt.Fprintf(&b, "%s %s %d from %s %v: %s\n", p.Chain, p.Name, p.Priority, p.From, p.Phases, p.State)
	}
	for _, f := range e.MayAnswer {
		fmt.Fprintf(&b, "may answer: %s from %s in %s, %d, %v\n", f.Plugin, f.From, f.Phase, f.Status, f.Share)
	}
	if f := e.Answer; f != nil {
		fmt.Fprintf(&b, "answers: %s from %s in %s, %d\n", f.Plugin, f.From, f.Phase, f.Status)
	}
	if s := e.Split; s != nil {
		fmt.Fprintf(&b, "split rule %d next %q: %s", s.Rule, s.Next, s.Why)
		for _, c := range s.Branches {
			fmt.Fprintf(&b, "; %s %d %v", c.Name, c.Weight, c.Share)
		}
		fmt.Fprintln(&b)
	}
	if u := e.Upstream; u != nil {
		fmt.Fprintf(&b, "upstream %s of %s, %s, next %s\n", u.Name, u.From, u.Type, u.Next)
	}
	return b.String()
}
