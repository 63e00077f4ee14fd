package trafficsplit

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"headgate/balancer"
	"headgate/conf/resource"
	"headgate/proxy/fault"
	"headgate/proxy/phase"
)

// fakeUpstream is known by its name and the part that it was compiled for.
type fakeUpstream struct{ name, part string }

func (u *fakeUpstream) Name() string                           { return u.name }
func (u *fakeUpstream) Forward(x *phase.Exchange) *fault.Fault { return nil }

type counter struct{ n int }

func (c *counter) Inc(*phase.Exchange) { c.n++ }

// fakeEnv is what a compiler offers, kept in maps. The state of one build is the state of before of the next.
type fakeEnv struct {
	phase.Env
	stored   map[string]*fakeUpstream
	inline   []*fakeUpstream
	state    map[string]any
	counters map[string]*counter
	gates    *balancer.Gates
}

func newEnv(stored ...string) *fakeEnv {
	e := &fakeEnv{stored: map[string]*fakeUpstream{}, state: map[string]any{}, counters: map[string]*counter{}, gates: balancer.NewGates(nil)}
	for _, id := range stored {
		e.stored[id] = &fakeUpstream{name: id, part: "stored"}
	}
	return e
}

func (e *fakeEnv) Upstream(doc []byte, part, name string) (phase.Upstream, error) {
	d, err := resource.DecodeUpstream(doc)
	if err != nil {
		return nil, err
	}
	if len(d.Nodes) == 0 {
		return nil, errors.New("no nodes")
	}
	if d.Name != "" {
		name = d.Name
	}
	u := &fakeUpstream{name, part}
	e.inline = append(e.inline, u)
	return u, nil
}

func (e *fakeEnv) UpstreamByID(id string) (phase.Upstream, bool) {
	if u := e.stored[id]; u != nil {
		return u, true
	}
	return nil, false
}

func (e *fakeEnv) Shared(part string, make func(before any) any) any {
	e.state[part] = make(e.state[part])
	return e.state[part]
}

func (e *fakeEnv) BranchCounter(branch string) phase.Counter {
	if e.counters[branch] == nil {
		e.counters[branch] = &counter{}
	}
	return e.counters[branch]
}

func (e *fakeEnv) BranchGate(branch string) *balancer.Gate {
	return e.gates.Acquire(balancer.Target{Scope: balancer.OfBranch, Owner: "routes/1", Name: branch})
}

func (e *fakeEnv) CompileExpr(raw any) (phase.Predicate, error) { return phase.CompilePredicate(raw) }

// own is the route's own upstream, under the name that the engine gives it.
var own = &fakeUpstream{name: "default"}

// visit sends one request through the plugin and says what became of it: the branch, and the upstream where it isn't called the same;
// or the answer.
func visit(p *plugin, target string, lines ...string) string {
	x := &phase.Exchange{}
	prepare(x, target, lines...)
	if p.Access(x) == phase.Stop {
		return fmt.Sprintf("%d %s", x.Response.Status, x.Response.Body)
	}
	out := x.Branch
	if n := x.Upstream.Name(); n != x.Branch {
		out += "@" + n
	}
	if len(x.Request.OutTarget) > 0 {
		out += " " + string(x.Request.OutTarget)
	}
	return out
}

func prepare(x *phase.Exchange, target string, lines ...string) {
	path, query, _ := strings.Cut(target, "?")
	q := &x.Request
	q.Method, q.RawPath, q.Path, q.Query = []byte("GET"), []byte(path), []byte(path), []byte(query)
	for _, l := range lines {
		name, value, _ := strings.Cut(l, ": ")
		q.Header.Add([]byte(name), []byte(value))
	}
	x.Upstream, x.Branch = own, own.Name()
}

func built(t testing.TB, e *fakeEnv, conf string) *plugin {
	t.Helper()
	p, err := Kind().Build([]byte(conf), e)
	if err != nil {
		t.Fatalf("%s: %v", conf, err)
	}
	return p.(*plugin)
}

// tally sends n requests and counts what visit says of them.
func tally(p *plugin, n int) map[string]int {
	got := map[string]int{}
	for range n {
		got[visit(p, "/a")]++
	}
	return got
}
