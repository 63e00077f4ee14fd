package snapshot

import (
	"encoding/json"
	"errors"
	"maps"
	"os"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"headgate/balancer"
	"headgate/proxy/meter"
	"headgate/proxy/phase"
	"headgate/proxy/route"
	"headgate/proxy/upstream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is a compiler with plugins that can be watched, and the documents it works on.
type rig struct {
	t    testing.TB
	live *Live
	c    *Compiler
	hub  *upstream.Hub
	met  *meter.Registry
	docs map[string]string
	// born says when each document was put first, by a clock that counts.
	born  map[string]uint64
	clock uint64
	told  map[string]string // the latest versions that have arrived

	mu     sync.Mutex
	closed []string // instances of the plugins, in the order in which they were closed
	built  int
	seen   []string     // instances whose access phase ran
	misuse atomic.Int64 // closings of what was closed already, or while its goroutine was running
}

// watched is the instance of the rig's plugins.
type watched struct {
	rig    *rig
	name   string
	closed atomic.Bool
	conf   watchedConf
	state  any
	ended  atomic.Bool // its goroutine, if it has one
	up     phase.Upstream
	upOK   bool
	owner  string
	raw    string
	gate   *balancer.Gate
}

type watchedConf struct {
	ID         string          `json:"id"`
	Fail       bool            `json:"fail"`
	State      string          `json:"state"`
	Upstream   json.RawMessage `json:"upstream"`
	UpstreamID string          `json:"upstream_id"`
	Go         bool            `json:"go"`
	Branch     string          `json:"branch"`
}

func (w *watched) Access(*phase.Exchange) phase.Verdict {
	w.rig.mu.Lock()
	defer w.rig.mu.Unlock()
	w.rig.seen = append(w.rig.seen, w.name+":"+w.conf.ID)
	return phase.Continue
}

func (w *watched) Close() {
	if w.closed.Swap(true) || w.conf.Go && w.conf.ID != "refused" && !w.ended.Load() {
		w.rig.misuse.Add(1)
	}
	w.rig.mu.Lock()
	defer w.rig.mu.Unlock()
	w.rig.closed = append(w.rig.closed, w.name+":"+w.conf.ID)
}

// counter is state that is kept by identity; it knows what it came from.
type counter struct {
	name   string
	before *counter
}

func (r *rig) kind(name string, priority int) phase.Kind {
	return phase.Kind{
		Name: name, Priority: priority,
		Schema: []byte(`{"type":"object","properties":{"id":{"type":"string"},"fail":{"type":"boolean"},"state":{"type":"string"},` +
			`"upstream":{"type":"object"},"upstream_id":{"type":"string"},"branch":{"type":"string"},"go":{"type":"boolean"}},"additionalProperties":false}`),
		Validate: func(conf []byte) error {
			if strings.Contains(string(conf), "_meta") {
				return errors.New("_meta reached the plugin")
			}
			if strings.Contains(string(conf), `"id":"invalid"`) {
				return errors.New("not this id")
			}
			return nil
		},
		Build: func(conf []byte, env phase.Env) (any, error) {
			w := &watched{rig: r, name: name, owner: env.Owner(), raw: string(conf)}
			if err := json.Unmarshal(conf, &w.conf); err != nil {
				return nil, err
			}
			if w.conf.Upstream != nil {
				var err error
				if w.up, err = env.Upstream(w.conf.Upstream, "own", "inline"); err != nil {
					return nil, err
				}
			}
			if w.conf.UpstreamID != "" {
				w.up, w.upOK = env.UpstreamByID(w.conf.UpstreamID)
			}
			if w.conf.State != "" {
				w.state = env.Shared("count", func(before any) any {
					b, _ := before.(*counter)
					return &counter{w.conf.State, b}
				})
			}
			if w.conf.Branch != "" {
				w.gate = env.BranchGate(w.conf.Branch)
			}
			if w.conf.Go {
				env.Go(func(done <-chan struct{}) {
					<-done
					time.Sleep(time.Millisecond) // as if there was something to bring to an end
					w.ended.Store(true)
				})
			}
			if w.conf.Fail {
				return nil, errors.New("told to fail")
			}
			r.built++
			return w, nil
		},
	}
}

func newRig(t testing.TB) *rig {
	t.Helper()
	r := &rig{t: t, live: &Live{}, met: meter.New(""), docs: map[string]string{}, born: map[string]uint64{}, told: map[string]string{}}
	r.hub = upstream.NewHub(upstream.NewResolver(time.Minute), nil)
	prometheus := phase.Kind{
		Name: recorderPlugin, Priority: 500, Schema: []byte(`{"type":"object"}`),
		Build: func(_ []byte, env phase.Env) (any, error) {
			return recording{env.Recorder(phase.RecorderOptions{PreferName: true})}, nil
		},
	}
	auth := phase.Kind{
		Name: "auth", Priority: 2500, Schema: []byte(`{"type":"object"}`),
		Build: func(_ []byte, env phase.Env) (any, error) { return authentication{env.Directory()}, nil },
		Consumer: &phase.ConsumerKind{
			Schema: []byte(`{"type":"object","properties":{"key":{"type":"string"}},"required":["key"]}`), Identity: "key",
			Build: func(conf []byte) (any, error) {
				if strings.Contains(string(conf), "unusable") {
					return nil, errors.New("told to fail")
				}
				return string(conf), nil
			},
		},
	}
	basic := auth
	basic.Name = "basic"
	var err error
	r.c, err = NewCompiler(r.live, Options{
		LookupEnv: os.LookupEnv,
		Kinds:     []phase.Kind{auth, r.kind("high", 30), r.kind("mid", 20), r.kind("low", 10), prometheus, basic}, Hub: r.hub, Meter: r.met,
		Defaults: upstream.Defaults{Connect: time.Second, Send: time.Second, Read: time.Second, Pool: upstream.PoolOptions{Size: 1, MaxRequests: 10}, MaxHead: 8 << 10},
	})
	if err != nil {
		t.Fatal(err)
	}
	r.c.OrderBy(func(key string) uint64 { return r.born[key] })
	t.Cleanup(func() {
		r.c.Close()
		if refs := r.refs(); len(refs) != 0 {
			t.Errorf("after Close the hub still has %v", refs)
		}
		if refs := r.gateRefs(); len(refs) != 0 {
			t.Errorf("after Close there still are the gates of %v", refs)
		}
		r.hub.Close()
		if r.built != len(r.closed) || r.misuse.Load() != 0 {
			t.Errorf("%d instances were built and %d closed, %d of them wrongly", r.built, len(r.closed), r.misuse.Load())
		}
	})
	return r
}

// authentication is the rig's authentication plugin: it takes the header line Key.
type authentication struct{ phase.Directory }

func (a authentication) Rewrite(x *phase.Exchange) phase.Verdict {
	id, _ := x.Request.Header.Get("Key")
	if c := a.Credential(x, id); c != nil {
		x.Attach(c)
	}
	return phase.Continue
}

// recording is the rig's prometheus.
type recording struct{ phase.Recorder }

func (r recording) Done(x *phase.Exchange) { r.Record(x) }

// edits turns "key", "value" pairs into edits; the value "" deletes.
func edits(pairs []string) []Edit {
	var list []Edit
	for i := 0; i < len(pairs); i += 2 {
		e := Edit{Key: pairs[i]}
		if pairs[i+1] != "" {
			e.Value = []byte(pairs[i+1])
		}
		list = append(list, e)
	}
	return list
}

// edits are those of pairs, with the moments at which their documents were put first.
func (r *rig) edits(pairs []string) []Edit {
	list := edits(pairs)
	for i := range list {
		if list[i].Since = r.born[list[i].Key]; list[i].Since == 0 {
			r.clock++
			list[i].Since = r.clock
			r.born[list[i].Key] = list[i].Since
		}
	}
	return list
}

func (r *rig) lookup(key string) []byte {
	if d, ok := r.docs[key]; ok {
		return []byte(d)
	}
	return nil
}

// stage compiles edits strictly and must succeed.
func (r *rig) put(pairs ...string) {
	r.t.Helper()
	st, err := r.c.Stage(r.lookup, r.edits(pairs), false)
	if err != nil {
		r.t.Fatalf("%v: %v", pairs, err)
	}
	r.commit(st, pairs)
}

// offer compiles edits leniently, and returns the keys that were left out.
func (r *rig) offer(pairs ...string) (left []string) {
	r.t.Helper()
	st, err := r.c.Stage(r.lookup, r.edits(pairs), true)
	if err != nil {
		r.t.Fatalf("%v: %v", pairs, err)
	}
	for _, p := range st.Problems {
		left = append(left, p.Key)
	}
	r.commit(st, pairs)
	return left
}

func (r *rig) commit(st *Stage, pairs []string) {
	st.Commit(1)
	bad := map[string]bool{}
	for _, p := range st.Problems {
		bad[p.Key] = !strings.HasPrefix(p.Key, "routes/")
	}
	for _, key := range st.Dropped {
		delete(r.docs, key)
	}
	for _, e := range edits(pairs) {
		switch {
		case bad[e.Key]:
		case e.Value == nil:
			delete(r.docs, e.Key)
			delete(r.born, e.Key)
		default:
			r.docs[e.Key] = string(e.Value)
		}
	}
	r.collect()
}

func (r *rig) collect() int { return r.c.Collect(func(f func()) { f() }) }

// refuse compiles edits strictly, must fail, and checks that nothing has happened.
func (r *rig) refuse(want string, pairs ...string) {
	r.t.Helper()
	gates := r.gateRefs()
	refs, snap, routes, state := r.refs(), r.live.Current(), maps.Clone(r.c.routes), len(r.c.state)
	users := len(r.c.users)
	list := edits(pairs)
	for i := range list {
		if list[i].Since = r.born[list[i].Key]; list[i].Since == 0 {
			list[i].Since = ^uint64(0)
		}
	}
	_, err := r.c.Stage(r.lookup, list, false)
	if err == nil {
		r.t.Fatalf("%v: was taken", pairs)
	}
	if !strings.Contains(err.Error(), want) {
		r.t.Errorf("refused with %q, want %q", err, want)
	}
	if after := r.refs(); !maps.Equal(refs, after) {
		r.t.Errorf("%s: the hub has %v, had %v", want, after, refs)
	}
	if after := r.gateRefs(); !maps.Equal(gates, after) {
		r.t.Errorf("%s: there are the gates of %v, were of %v", want, after, gates)
	}
	if r.live.Current() != snap || !maps.Equal(r.c.routes, routes) || len(r.c.state) != state || len(r.c.users) != users {
		r.t.Errorf("%s: something was changed", want)
	}
}

// refs returns how often each pool of the hub is used.
func (r *rig) refs() map[string]int {
	refs := map[string]int{}
	for it := reflect.ValueOf(r.hub).Elem().FieldByName("pools").MapRange(); it.Next(); {
		refs[it.Key().String()] = int(it.Value().Elem().FieldByName("refs").Int())
	}
	return refs
}

// gateRefs returns how often each gate of the hub is used.
func (r *rig) gateRefs() map[string]int {
	refs := map[string]int{}
	for it := reflect.ValueOf(r.hub.Gates()).Elem().FieldByName("gates").MapRange(); it.Next(); {
		t := it.Key()
		name := balancer.Target{Scope: balancer.Scope(t.Field(0).Uint()), Owner: t.Field(1).String(), Name: t.Field(2).String()}
		refs[name.String()] = int(it.Value().Elem().FieldByName("refs").Int())
	}
	return refs
}

// find returns the route for a GET, nil when none matches.
func (r *rig) find(host, path string) *Route {
	var m route.Match
	s := r.live.Pin(0)
	defer s.Unpin(0)
	got, _ := s.Find(&route.Query{Host: []byte(host), Path: []byte(path), Method: route.GET}, nil, &m)
	return got
}

func (r *rig) must(path string) *Route {
	r.t.Helper()
	got := r.find("h", path)
	if got == nil {
		r.t.Fatalf("no route for %s", path)
	}
	return got
}

// plugin returns an instance of a route.
func (r *rig) plugin(path, name string) *watched {
	r.t.Helper()
	for _, c := range r.must(path).Chain.Closers {
		if w := c.(*watched); w.name == name {
			return w
		}
	}
	r.t.Fatalf("%s has no plugin %s", path, name)
	return nil
}

// clock reads a timeout of an upstream.
func clock(u phase.Upstream, name string) time.Duration {
	return time.Duration(reflect.ValueOf(u).Elem().FieldByName(name).Int())
}

func names(r *Route) string {
	if r.Chain == nil {
		return ""
	}
	return strings.Join(r.Chain.Names, " ")
}

// up is an upstream document with one node.
func up(port, more string) string { return `{"nodes":{"127.0.0.1:` + port + `":1}` + more + `}` }
