// Package phasetest is what tests of plugins share: exchanges made from request text, a stand-in for the compiler, and answers as text.
package phasetest

import (
	"errors"
	"io"
	"net/netip"
	"sort"
	"strconv"
	"strings"
	"testing"
	"time"

	"headgate/balancer"
	"headgate/proxy/fault"
	"headgate/proxy/phase"
)

// Settings are those of every exchange made here.
var settings = phase.Settings{Version: "test", APIVersion: "3.18.0", Hostname: "testhost"}

// Exchange makes an exchange out of a request: "GET /path?query", then header lines "Name: value". Host is gateway.test unless a line
// says otherwise, the client is 127.0.0.1:40000, and the listener is 127.0.0.1:9080.
func Exchange(requestLine string, lines ...string) *phase.Exchange {
	x := &phase.Exchange{}
	Fill(x, requestLine, lines...)
	return x
}

// Fill makes x, which is new or was reset, what Exchange returns.
func Fill(x *phase.Exchange, requestLine string, lines ...string) {
	x.Begin(&settings)
	method, target, _ := strings.Cut(requestLine, " ")
	path, query, _ := strings.Cut(target, "?")
	q := &x.Request
	q.Method, q.RawPath, q.Path, q.Query = []byte(method), []byte(path), []byte(path), []byte(query)
	q.Authority, q.Host = []byte("gateway.test"), []byte("gateway.test")
	for _, l := range lines {
		name, value, _ := strings.Cut(l, ": ")
		switch strings.ToLower(name) {
		case "host":
			q.Authority = []byte(value)
			host, _, _ := strings.Cut(strings.ToLower(value), ":")
			q.Host = []byte(host)
			continue
		case "content-type":
			q.ContentType = []byte(value)
		}
		q.Header.Add([]byte(name), []byte(value))
	}
	c := &x.Client
	c.Addr, c.Text, c.Port = netip.MustParseAddr("127.0.0.1"), []byte("127.0.0.1"), 40000
	c.Peer, c.PeerText = c.Addr, c.Text
	c.ServerAddr, c.ServerPort = []byte("127.0.0.1"), 9080
	x.Start = time.Now()
}

// Refill makes x, which may have been used before, the request that from is, with e as its registry. Unlike Fill it allocates nothing, once
// the buffers of x have grown.
func Refill(x, from *phase.Exchange, e *Env) {
	x.Reset()
	x.Begin(&settings)
	x.Registry, x.Start, x.Client = e, from.Start, from.Client
	lines, q := x.Request.Header, &x.Request
	*q = from.Request
	q.Header = lines
	for _, f := range from.Request.Header.Fields() {
		q.Header.Add(f.Name, f.Value)
	}
}

// Answer shows what the client would get: "status", then the header lines sorted, an empty line, and the body.
func Answer(x *phase.Exchange) string {
	lines := Lines(&x.Response.Header)
	return strconv.Itoa(x.Response.Status) + "\n" + strings.Join(append(lines, "", string(x.Response.Body)), "\n")
}

// Lines returns the lines of h, sorted.
func Lines(h *phase.Header) []string {
	var lines []string
	for _, f := range h.Fields() {
		lines = append(lines, string(f.Name)+": "+string(f.Value))
	}
	sort.Strings(lines)
	return lines
}

// Upstream is an upstream of which only the name matters.
type Upstream string

// Name implements phase.Upstream.
func (u Upstream) Name() string { return string(u) }

// Forward implements phase.Upstream.
func (u Upstream) Forward(*phase.Exchange) *fault.Fault { return nil }

// Env is a compiler that knows one owner and one route. Its fields may be set before a build; state that plugins share is kept from one
// build to the next, as when their document is edited.
type Env struct {
	OwnerKey  string         // default "routes/1"
	RouteInfo *phase.Route   // default the route 1; see NoRoute
	NoRoute   bool           // as for a consumer's plugins
	Meta      string         // plugin_metadata, "" for none
	State     map[string]any // by part
	Slots     phase.SlotRange
	Kinds     []phase.Kind // what Plugin can build

	// Consumers by identity, Principals by name.
	Consumers  map[string]*phase.Credential
	Principals map[string]*phase.Principal
	Started    []func(done <-chan struct{})
	Recorded   *phase.RecorderOptions // of the latest recorder
	Counts     map[string]*Counter
	// Gates has the gates of branches; a set of its own when it is nil.
	Gates *balancer.Gates
}

// Owner implements phase.Env.
func (e *Env) Owner() string {
	if e.OwnerKey == "" {
		return "routes/1"
	}
	return e.OwnerKey
}

// Route implements phase.Env.
func (e *Env) Route() *phase.Route {
	switch {
	case e.NoRoute:
		return nil
	case e.RouteInfo == nil:
		return &phase.Route{ID: "1", Key: "routes/1"}
	}
	return e.RouteInfo
}

// Metadata implements phase.Env.
func (e *Env) Metadata() []byte {
	if e.Meta == "" {
		return nil
	}
	return []byte(e.Meta)
}

// Directory implements phase.Env. What it finds is e's as long as the exchange's Registry is e, which Run sees to when e is given to it.
func (e *Env) Directory() phase.Directory { return phase.DirectoryOf(0) }

// Credential implements phase.Registry.
func (e *Env) Credential(_ uint8, id []byte) *phase.Credential { return e.Consumers[string(id)] }

// Principal implements phase.Registry.
func (e *Env) Principal(name string) *phase.Principal { return e.Principals[name] }

// Plugin implements phase.Env: Kinds are the other plugins.
func (e *Env) Plugin(name string, conf []byte) (any, error) {
	for _, k := range e.Kinds {
		if k.Name == name {
			return k.Build(conf, e)
		}
	}
	return nil, errors.New("unknown plugin [" + name + "]")
}

// Number implements phase.Env: the place in Kinds, from 1, since instances have the number 0 unless they say otherwise.
func (e *Env) Number(name string) (uint8, bool) {
	for i, k := range e.Kinds {
		if k.Name == name {
			return uint8(i) + 1, true
		}
	}
	return 0, false
}

// AddConsumer lets k's plugins find a consumer called name by conf, which k compiles.
func (e *Env) AddConsumer(t testing.TB, k phase.Kind, name, identity, conf string) *phase.Credential {
	t.Helper()
	data, err := k.Consumer.Build([]byte(conf))
	if err != nil {
		t.Fatalf("consumer %s: %v", name, err)
	}
	c := &phase.Credential{Principal: &phase.Principal{Consumer: phase.Consumer{Name: name}}, Data: data}
	if e.Consumers == nil {
		e.Consumers, e.Principals = map[string]*phase.Credential{}, map[string]*phase.Principal{}
	}
	e.Consumers[identity], e.Principals[name] = c, c.Principal
	return c
}

// Slot implements phase.Env.
func (e *Env) Slot() int { return e.Slots.Reserve() }

// Upstream implements phase.Env.
func (e *Env) Upstream(_ []byte, _, name string) (phase.Upstream, error) { return Upstream(name), nil }

// UpstreamByID implements phase.Env.
func (e *Env) UpstreamByID(id string) (phase.Upstream, bool) { return Upstream(id), true }

// Shared implements phase.Env.
func (e *Env) Shared(part string, make func(before any) any) any {
	if e.State == nil {
		e.State = map[string]any{}
	}
	e.State[part] = make(e.State[part])
	return e.State[part]
}

// Counter counts in an int.
type Counter struct{ N int }

// Inc implements phase.Counter.
func (c *Counter) Inc(*phase.Exchange) { c.N++ }

// BranchCounter implements phase.Env.
func (e *Env) BranchCounter(branch string) phase.Counter {
	if e.Counts == nil {
		e.Counts = map[string]*Counter{}
	}
	if e.Counts[branch] == nil {
		e.Counts[branch] = &Counter{}
	}
	return e.Counts[branch]
}

// BranchGate implements phase.Env.
func (e *Env) BranchGate(branch string) *balancer.Gate {
	if e.Gates == nil {
		e.Gates = balancer.NewGates(nil)
	}
	return e.Gates.Acquire(balancer.Target{Scope: balancer.OfBranch, Owner: e.Owner(), Name: branch})
}

// Recorder implements phase.Env.
func (e *Env) Recorder(o phase.RecorderOptions) phase.Recorder { e.Recorded = &o; return recorder{} }

type recorder struct{}

func (recorder) Record(*phase.Exchange) {}

// CompileExpr implements phase.Env.
func (e *Env) CompileExpr(raw any) (phase.Predicate, error) { return phase.CompilePredicate(raw) }

// Go implements phase.Env: the goroutines are kept in Started.
func (e *Env) Go(run func(done <-chan struct{})) { e.Started = append(e.Started, run) }

// Build builds an instance of k and makes the slots of x fit it.
func (e *Env) Build(t testing.TB, k phase.Kind, conf string) any {
	t.Helper()
	if k.Validate != nil {
		if err := k.Validate([]byte(conf)); err != nil {
			t.Fatalf("%s: %v", conf, err)
		}
	}
	p, err := k.Build([]byte(conf), e)
	if err != nil {
		t.Fatalf("%s: %v", conf, err)
	}
	return p
}

// Run passes x through the chain of instances as the gateway does: request phases, then, unless one of them answered, serve (which may
// be nil) in the place of the upstream, then receive, response and done phase. It returns the answer. The instances were built with e.
func Run(x *phase.Exchange, e *Env, serve func(x *phase.Exchange), instances ...phase.Instance) string {
	x.Registry = e
	x.Enter(nil, phase.NewChainOf(instances, nil, e.Slots))
	if x.Rewrite() == phase.Continue && x.Access() == phase.Continue && serve != nil {
		mine := x.Response.Header.Len()
		serve(x)
		x.Settle()
		if x.Response.Source == phase.FromUpstream {
			x.Receive(mine)
		}
	}
	x.Respond()
	if err := pass(x); err != nil {
		if f, ok := err.(*fault.Fault); ok {
			x.Fault = f
		}
		x.Finish(func(r any) { panic(r) })
		return "broken off: " + err.Error()
	}
	answer := Answer(x) // what it is made of may be used again once the exchange has ended
	x.Finish(func(r any) { panic(r) })
	return answer
}

// pass takes the body through the chunk phase and leaves it in Response.Body.
func pass(x *phase.Exchange) (err error) {
	r := &x.Response
	if r.Stream == nil {
		if x.HasChunkers() {
			var body []byte
			body, err = x.Chunk(r.Body, true)
			r.Body = append([]byte(nil), body...)
		}
		return err
	}
	s, body := r.Stream, []byte(nil)
	r.Stream = nil
	defer s.Close()
	for {
		piece, end := s.Next()
		if end != nil && end != io.EOF {
			return end
		}
		if x.HasChunkers() {
			if piece, err = x.Chunk(piece, end == io.EOF); err != nil {
				return err
			}
		}
		if body = append(body, piece...); end == io.EOF {
			r.Body = body
			return nil
		}
	}
}

// Reply is a serve for Run: the upstream's answer.
func Reply(status int, body string, lines ...string) func(x *phase.Exchange) {
	return func(x *phase.Exchange) {
		r := &x.Response
		r.Status, r.Body, r.Source = status, []byte(body), phase.FromUpstream
		for _, l := range lines {
			name, value, _ := strings.Cut(l, ": ")
			r.Header.Add([]byte(name), []byte(value))
		}
	}
}

// Pieces is a serve for Run: an upstream's answer whose body arrives piece by piece and ends with end, which is io.EOF when it is complete.
// The buffer that the pieces come in is used again for each. size is the announced length, -1 for none.
func Pieces(status int, pieces []string, end error, size int64, lines ...string) func(x *phase.Exchange) {
	return func(x *phase.Exchange) {
		Reply(status, "", lines...)(x)
		x.Response.Stream, x.Response.Size = &stream{pieces: pieces, end: end}, size
	}
}

type stream struct {
	pieces []string
	end    error
	buf    []byte
}

func (s *stream) Next() ([]byte, error) {
	clear(s.buf)
	if len(s.pieces) == 0 {
		return nil, s.end
	}
	s.buf = append(s.buf[:0], s.pieces[0]...)
	s.pieces = s.pieces[1:]
	return s.buf, nil
}

func (s *stream) Close() {}

var (
	_ phase.Env      = (*Env)(nil)
	_ phase.Registry = (*Env)(nil)
)
