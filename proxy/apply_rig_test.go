package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"headgate/conf/store"
	"headgate/conf/store/mem"
	"headgate/proxy/meter"
	"headgate/proxy/offload"
	"headgate/proxy/phase"
	"headgate/proxy/route"
	"headgate/proxy/snapshot"
	"headgate/proxy/upstream"
)

// applierRig is a config path on a store, with a plugin that can be watched.
type applierRig struct {
	*Applier
	t     *testing.T
	store store.Store
	live  *snapshot.Live
	meter *meter.Registry

	mu      sync.Mutex
	audited []string // lines of the audit
	logs    []string // what the config path said
	seen    []string // what the plugin saw
	open    int      // instances of the plugin
}

// tag is the instance of the plugin "tag".
type tag struct {
	ID  string
	rig *applierRig
}

func (p *tag) Close() {
	p.rig.mu.Lock()
	defer p.rig.mu.Unlock()
	p.rig.open--
}

func (*tag) Access(*phase.Exchange) phase.Verdict { return phase.Continue }

func (r *applierRig) note(what string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen = append(r.seen, what)
}

func (r *applierRig) kind() phase.Kind {
	return phase.Kind{
		Name: "tag", Schema: []byte(`{"type":"object","properties":{"id":{"type":"string"}},"additionalProperties":false}`),
		Validate: func(conf []byte) error {
			r.note("validate")
			if strings.Contains(string(conf), "invalid") {
				return errors.New("not this id")
			}
			return nil
		},
		Build: func(conf []byte, env phase.Env) (any, error) {
			r.note("compile")
			p := &tag{rig: r}
			if err := json.Unmarshal(conf, p); err != nil {
				return nil, err
			}
			if p.ID == "broken" {
				return nil, errors.New("told to fail")
			}
			if p.ID == "needs u" {
				if _, ok := env.UpstreamByID("u"); !ok {
					return nil, errors.New("there is no u")
				}
			}
			env.Go(func(done <-chan struct{}) { r.note("start"); <-done })
			r.mu.Lock()
			defer r.mu.Unlock()
			r.open++
			return p, nil
		},
	}
}

// startRig starts a config path on s; inline are its resources from the file.
func startRig(t *testing.T, s store.Store, inline map[string][]byte) *applierRig {
	t.Helper()
	r, err := tryRig(t, s, inline)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func tryRig(t *testing.T, s store.Store, inline map[string][]byte) (*applierRig, error) {
	t.Helper()
	r := &applierRig{t: t, store: s, live: &snapshot.Live{}, meter: meter.New("")}
	hub := upstream.NewHub(upstream.NewResolver(time.Minute), nil)
	c, err := snapshot.NewCompiler(r.live, snapshot.Options{
		Kinds: []phase.Kind{r.kind()}, Hub: hub, Meter: r.meter,
		Defaults: upstream.Defaults{Connect: time.Second, Send: time.Second, Read: time.Second, Pool: upstream.PoolOptions{Size: 1, MaxRequests: 1}, MaxHead: 4096},
	})
	if err != nil {
		t.Fatal(err)
	}
	pool, err := offload.New(4, func(p any) { t.Errorf("background task: %v", p) })
	if err != nil {
		t.Fatal(err)
	}
	r.Applier, err = StartApplier(context.Background(), ApplierOptions{
		Compiler: c, Store: s, Offload: pool, Meter: r.meter, Inline: inline,
		Logf: func(format string, args ...any) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.logs = append(r.logs, fmt.Sprintf(format, args...))
		},
		Audit: func(line string) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.audited = append(r.audited, line)
		},
	})
	t.Cleanup(func() {
		if r.Applier != nil {
			r.Close()
		}
		c.Close()
		hub.Close()
		if err := pool.Close(patience); err != nil {
			t.Error(err)
		}
		if r.open != 0 {
			t.Errorf("%d instances of the plugin were not closed", r.open)
		}
	})
	return r, err
}

// openMem opens a store that is closed after the test. Whatever was started on it must have ended by then.
func openMem(t *testing.T) *mem.Store {
	before := goleak.IgnoreCurrent()
	s := mem.Open()
	t.Cleanup(func() {
		_ = s.Close()
		goleak.VerifyNone(t, before)
	})
	return s
}

// tagged is a route at path with the plugin "tag".
func tagged(path, id string) string {
	return `{"uri":"` + path + `","plugins":{"tag":{"id":"` + id + `"}}}`
}

// write puts doc under key through the config path; "" deletes.
func (r *applierRig) write(key, doc string) error {
	_, err := r.Apply(context.Background(), Change{Key: key, Edit: func(*store.Item) ([]byte, error) {
		if doc == "" {
			return nil, nil
		}
		return []byte(doc), nil
	}})
	return err
}

func (r *applierRig) must(key, doc string) {
	r.t.Helper()
	if err := r.write(key, doc); err != nil {
		r.t.Fatalf("%s: %v", key, err)
	}
}

// serves returns the id of the tag that a request for path meets, "" when there is no route.
func (r *applierRig) serves(path string) string {
	if got := r.find(path); got != nil && got.Chain != nil {
		return got.Chain.Accessors[0].(*tag).ID
	} else if got != nil {
		return "untagged"
	}
	return ""
}

func (r *applierRig) find(path string) *snapshot.Route {
	s := r.live.Pin(0)
	defer s.Unpin(0)
	var m route.Match
	got, _ := s.Find(&route.Query{Host: []byte("h"), Path: []byte(path), Method: route.GET}, nil, &m)
	return got
}

// shown returns the documents that are in force, as "key value" lines, and complains when Get and List disagree. They are two calls, so a
// change may come in between: only a disagreement that stays is one.
func (r *applierRig) shown() string {
	r.t.Helper()
	for try := 0; ; try++ {
		var b strings.Builder
		differs := ""
		for _, kind := range []string{"routes", "services", "upstreams"} {
			for _, item := range r.InForce().List(kind) {
				if got, ok := r.InForce().Get(item.Key); !ok || string(got.Value) != string(item.Value) {
					differs = item.Key
				}
				fmt.Fprintf(&b, "%s %s\n", item.Key, item.Value)
			}
		}
		if differs == "" {
			return b.String()
		}
		if try == 100 {
			r.t.Errorf("List shows %s, Get does not", differs)
			return b.String()
		}
		time.Sleep(time.Millisecond)
	}
}

// sync waits until the config goroutine has done what it was given before.
func (r *applierRig) sync() {
	r.t.Helper()
	if err := r.submit(context.Background(), func() {}); err != nil {
		r.t.Fatal(err)
	}
}

// eventually waits for what happens on another goroutine.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

// spyStore is a mem store that can fail, whose writes can be watched, and whose events the test sends.
type spyStore struct {
	*mem.Store
	mu      sync.Mutex
	putErr  error
	listErr error
	onPut   func()
	events  chan store.Event // what the next Watch returns; nil: the true ones
}

func (s *spyStore) set(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

func (s *spyStore) Put(ctx context.Context, key string, value []byte, ifRevision uint64, expires time.Time) (store.Item, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.onPut != nil {
		s.onPut()
	}
	if s.putErr != nil {
		return store.Item{}, s.putErr
	}
	return s.Store.Put(ctx, key, value, ifRevision, expires)
}

func (s *spyStore) Delete(ctx context.Context, key string, ifRevision uint64) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.putErr != nil {
		return 0, s.putErr
	}
	return s.Store.Delete(ctx, key, ifRevision)
}

func (s *spyStore) List(ctx context.Context) ([]store.Item, uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listErr != nil {
		return nil, 0, s.listErr
	}
	return s.Store.List(ctx)
}

func (s *spyStore) Watch(ctx context.Context, from uint64) (<-chan store.Event, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.events != nil {
		return s.events, nil
	}
	return s.Store.Watch(ctx, from)
}

// foreign writes to the store as another gateway would.
func foreign(t *testing.T, s store.Store, key, doc string) store.Item {
	t.Helper()
	if doc == "" {
		revision, err := s.Delete(context.Background(), key, store.AnyRevision)
		if err != nil {
			t.Fatal(err)
		}
		return store.Item{Key: key, ModRevision: revision}
	}
	item, err := s.Put(context.Background(), key, []byte(doc), store.AnyRevision, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	return item
}
