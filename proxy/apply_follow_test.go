package proxy

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"headgate/conf/store"
	"headgate/proxy/route"
)

// Two gateways on one store, written to through both at once, end up alike.
func TestTwoGatewaysConverge(t *testing.T) {
	s := openMem(t)
	gateways := []*applierRig{startRig(t, s, nil), startRig(t, s, nil)}
	done := make(chan struct{})
	for n, r := range gateways {
		go func() {
			defer func() { done <- struct{}{} }()
			rnd := rand.New(rand.NewPCG(uint64(n), 1))
			for i := range 300 {
				id := rnd.IntN(8)
				key, doc := fmt.Sprintf("routes/%d", id), tagged(fmt.Sprintf("/%d", id), fmt.Sprintf("%d.%d", n, i))
				if rnd.IntN(3) == 0 {
					doc = ""
				}
				// Lost races and deletions of what is gone are part of the game.
				_ = r.write(key, doc)
			}
		}()
	}
	<-done
	<-done
	items, revision, err := s.List(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	var want strings.Builder
	for _, item := range items {
		fmt.Fprintf(&want, "%s %s\n", item.Key, item.Value)
	}
	for n, r := range gateways {
		eventually(t, fmt.Sprintf("gateway %d is where the store is", n), func() bool { return r.Revision() == revision && r.shown() == want.String() })
		for _, item := range items {
			path := "/" + strings.TrimPrefix(item.Key, "routes/")
			if got := r.serves(path); !strings.Contains(string(item.Value), `"`+got+`"`) {
				t.Errorf("gateway %d serves %q for %s", n, got, item.Value)
			}
		}
		if r.live.Current().Routes() != len(items) {
			t.Errorf("gateway %d has %d routes of %d", n, r.live.Current().Routes(), len(items))
		}
	}
}

// The watch also shows what was written here, late. It must not be applied again, and must not bring back what was deleted since.
func TestOwnEventsAreNotAppliedAgain(t *testing.T) {
	s := &spyStore{Store: openMem(t), events: make(chan store.Event)}
	r := startRig(t, s, nil)
	r.must("routes/1", tagged("/x", "a")) // 1
	r.must("routes/1", tagged("/x", "b")) // 2
	r.must("routes/1", "")                // 3
	r.must("routes/2", tagged("/y", "a")) // 4
	r.must("routes/2", "")                // 5
	r.must("routes/2", tagged("/y", "b")) // 6
	snap := r.live.Current()
	put := func(key, doc string, revision uint64) store.Event {
		return store.Event{Item: store.Item{Key: key, Value: []byte(doc), CreateRevision: revision, ModRevision: revision}}
	}
	gone := func(key string, revision uint64) store.Event {
		return store.Event{Deleted: true, Item: store.Item{Key: key, ModRevision: revision}}
	}
	for i, e := range []store.Event{
		put("routes/1", tagged("/x", "a"), 1), put("routes/1", tagged("/x", "b"), 2), gone("routes/1", 3),
		put("routes/2", tagged("/y", "a"), 4), gone("routes/2", 5), put("routes/2", tagged("/y", "b"), 6),
	} {
		s.events <- e
		if r.sync(); r.live.Current() != snap {
			t.Fatalf("event %d was applied again", i+1)
		}
	}
	if len(r.deleted) != 0 {
		t.Errorf("still remembers the deletions %v", r.deleted)
	}
	s.events <- put("routes/1", tagged("/x", "theirs"), 7)
	s.events <- gone("routes/2", 8)
	if r.sync(); r.serves("/x") != "theirs" || r.serves("/y") != "" || r.Revision() != 8 {
		t.Errorf("others' events: %q and %q at %d", r.serves("/x"), r.serves("/y"), r.Revision())
	}
}

// bad are documents that cannot be used, for several reasons.
var bad = map[string]string{
	"not JSON":       `{`,
	"schema":         `{"uri":7,"plugins":{}}`,
	"unknown plugin": `{"uri":"/x","plugins":{"none":{}}}`,
	"plugin schema":  `{"uri":"/x","plugins":{"tag":{"what":1}}}`,
	"plugin":         tagged("/x", "invalid"),
	"compile":        tagged("/x", "broken"),
	"Lua":            `{"uri":"/x","filter_func":"function(vars) return true end","plugins":{}}`,
	"not here yet":   `{"uri":"/x","plugins":{"grpc-transcode":{}}}`,
	"host":           `{"uri":"/x","hosts":["a*b"],"plugins":{}}`,
}

func TestUnusableDocumentsAreLeftOut(t *testing.T) {
	for name, doc := range bad {
		t.Run(name, func(t *testing.T) {
			s := openMem(t)
			foreign(t, s, "routes/early", doc)
			foreign(t, s, "routes/good", tagged("/good", "g"))
			foreign(t, s, "things/1", `{}`)
			r := startRig(t, s, nil)
			r.must("routes/1", tagged("/x", "mine"))
			foreign(t, s, "routes/1", doc)
			foreign(t, s, "routes/never", doc)
			last := foreign(t, s, "routes/good", tagged("/good", "h"))
			eventually(t, "the events arrive", func() bool { return r.Revision() == last.ModRevision })

			if want := "routes/1 " + tagged("/x", "mine") + "\nroutes/good " + tagged("/good", "h") + "\n"; r.shown() != want {
				t.Errorf("shown:\n%s", r.shown())
			}
			if r.serves("/x") != "mine" || r.serves("/good") != "h" || r.live.Current().Routes() != 2 {
				t.Errorf("in force: %q and %q", r.serves("/x"), r.serves("/good"))
			}
			left := r.LeftOut()
			if len(left) != 3 || left["routes/early"] == nil || left["routes/1"] == nil || left["routes/never"] == nil {
				t.Errorf("left out: %v", left)
			}
			// The operator can repair and delete them.
			r.must("routes/1", tagged("/x", "repaired"))
			r.must("routes/early", "")
			foreign(t, s, "routes/never", tagged("/n", "now"))
			eventually(t, "the repair arrives", func() bool { return r.serves("/n") == "now" })
			if r.serves("/x") != "repaired" || len(r.LeftOut()) != 0 {
				t.Errorf("in force %q, left out %v", r.serves("/x"), r.LeftOut())
			}
			foreign(t, s, "routes/1", doc)
			foreign(t, s, "routes/1", "")
			eventually(t, "the deletion arrives", func() bool { return r.serves("/x") == "" && len(r.LeftOut()) == 0 })
		})
	}
}

// What only lacked something else comes into force with it, whoever brings it.
func TestLeftOutRouteComesIntoForceLater(t *testing.T) {
	s := openMem(t)
	needy := tagged("/x", "needs u")
	foreign(t, s, "routes/1", needy)
	r := startRig(t, s, nil)
	if r.serves("/x") != "" || r.shown() != "" || len(r.LeftOut()) != 1 {
		t.Fatalf("in force too early: %s", r.shown())
	}
	r.must("upstreams/u", `{"nodes":{"127.0.0.1:1":1}}`)
	if r.serves("/x") != "needs u" || len(r.LeftOut()) != 0 || !strings.HasPrefix(r.shown(), "routes/1 "+needy) {
		t.Errorf("in force %q, left out %v", r.serves("/x"), r.LeftOut())
	}
	// The other way round: what it needs is taken away elsewhere. The route in force stays.
	foreign(t, s, "upstreams/u", "")
	eventually(t, "the route is reported", func() bool { return len(r.LeftOut()) == 1 })
	if r.serves("/x") != "needs u" {
		t.Errorf("in force %q", r.serves("/x"))
	}
}

// A version that was never valid must not come into force because something that the version before uses is edited.
func TestInvalidVersionIsNotTriedAgain(t *testing.T) {
	s := openMem(t)
	r := startRig(t, s, nil)
	r.must("upstreams/u", `{"nodes":{"127.0.0.1:1":1}}`)
	r.must("routes/1", `{"uri":"/x","upstream_id":"u","plugins":{"tag":{"id":"a"}}}`)
	foreign(t, s, "routes/1", `{"uri":"/x","upstream_id":"u","plugins":{"tag":{"id":"invalid"}}}`)
	eventually(t, "it is left out", func() bool { return len(r.LeftOut()) == 1 })
	r.must("upstreams/u", `{"nodes":{"127.0.0.1:2":1}}`)
	if r.serves("/x") != "a" || len(r.LeftOut()) != 1 {
		t.Errorf("in force %q, left out %v", r.serves("/x"), r.LeftOut())
	}
}

// Nor must an older version that only did not compile, once a newer one has taken its place.
func TestOvertakenVersionIsNotTriedAgain(t *testing.T) {
	s := openMem(t)
	r := startRig(t, s, nil)
	r.must("routes/1", tagged("/x", "a"))
	foreign(t, s, "routes/1", tagged("/x", "needs u"))
	last := foreign(t, s, "routes/1", tagged("/x", "invalid"))
	eventually(t, "both are left out", func() bool { return r.Revision() == last.ModRevision })
	r.must("upstreams/u", `{"nodes":{"127.0.0.1:1":1}}`)
	if r.serves("/x") != "a" || len(r.LeftOut()) != 1 {
		t.Errorf("in force %q, left out %v", r.serves("/x"), r.LeftOut())
	}
}

// When events are lost, the gateway compares with the whole store.
func TestLostEvents(t *testing.T) {
	s := &spyStore{Store: openMem(t), events: make(chan store.Event)}
	r := startRig(t, s, nil)
	for _, id := range []string{"stays", "changes", "goes"} {
		r.must("routes/"+id, tagged("/"+id, "a"))
	}
	stays := r.find("/stays")
	s.events <- store.Event{Item: foreign(t, s, "routes/never", tagged("/never", "broken"))}
	if r.sync(); r.LeftOut()["routes/never"] == nil {
		t.Fatalf("left out: %v", r.LeftOut())
	}
	foreign(t, s, "routes/never", "")
	foreign(t, s, "routes/changes", tagged("/changes", "b"))
	foreign(t, s, "routes/goes", "")
	foreign(t, s, "routes/comes", tagged("/comes", "b"))
	foreign(t, s, "routes/wrong", tagged("/wrong", "broken"))
	events := s.events
	s.set(func() { s.events, s.listErr = nil, fmt.Errorf("%w: no disk", store.ErrUnavailable) })
	close(events)
	eventually(t, "it says why it cannot follow", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return strings.Contains(strings.Join(r.logs, "\n"), "no disk")
	})
	if r.serves("/goes") != "a" {
		t.Error("a store that cannot be read took a route away")
	}
	s.set(func() { s.listErr = nil })
	want := "routes/changes " + tagged("/changes", "b") + "\nroutes/comes " + tagged("/comes", "b") + "\nroutes/stays " + tagged("/stays", "a") + "\n"
	eventually(t, "it catches up", func() bool { return r.shown() == want })
	if r.serves("/changes") != "b" || r.serves("/comes") != "b" || r.serves("/goes") != "" || r.find("/stays") != stays ||
		len(r.LeftOut()) != 1 || r.LeftOut()["routes/wrong"] == nil {
		t.Errorf("in force: %q %q %q; left out %v", r.serves("/changes"), r.serves("/comes"), r.serves("/goes"), r.LeftOut())
	}
	foreign(t, s, "routes/goes", tagged("/goes", "c")) // and follows again
	eventually(t, "it follows", func() bool { return r.serves("/goes") == "c" })
}

func inlineDocs(pairs ...string) map[string][]byte {
	docs := map[string][]byte{}
	for i := 0; i < len(pairs); i += 2 {
		docs[pairs[i]] = []byte(pairs[i+1])
	}
	return docs
}

func TestInlineResources(t *testing.T) {
	const node = `{"nodes":{"127.0.0.1:1":1}}`
	s := openMem(t)
	r := startRig(t, s, inlineDocs("routes/1", tagged("/1", "a"), "routes/2", tagged("/2", "a"), "upstreams/u", node))
	kept := r.find("/1")
	for _, doc := range []string{tagged("/1", "b"), ""} {
		if err := r.write("routes/1", doc); err == nil || !strings.Contains(err.Error(), "configuration file") {
			t.Errorf("an inline resource was written to: %v", err)
		}
	}
	if r.ReadOnly("routes/1") == "" || r.ReadOnly("routes/9") != "" {
		t.Error("ReadOnly is wrong")
	}
	r.must("routes/9", `{"uri":"/9","upstream_id":"u"}`) // stored documents may refer to inline ones

	reload := func(pairs ...string) error { return r.Reload(context.Background(), inlineDocs(pairs...)) }
	if err := reload("routes/1", tagged("/1", "a"), "routes/2", tagged("/2", "b"), "routes/3", tagged("/3", "b"), "upstreams/u", node); err != nil {
		t.Fatal(err)
	}
	if r.find("/1") != kept || r.serves("/2") != "b" || r.serves("/3") != "b" || r.ReadOnly("routes/3") == "" {
		t.Errorf("after the reload: %q %q, the unchanged one is the same: %v", r.serves("/2"), r.serves("/3"), r.find("/1") == kept)
	}
	snap, shown := r.live.Current(), r.shown()
	for name, pairs := range map[string][]string{
		"plugin":        {"routes/1", tagged("/1", "new"), "routes/2", tagged("/2", "invalid"), "upstreams/u", node},
		"compile":       {"routes/1", tagged("/1", "new"), "routes/2", tagged("/2", "broken"), "upstreams/u", node},
		"reference":     {"routes/1", `{"uri":"/1","upstream_id":"none"}`, "upstreams/u", node},
		"stored":        {"routes/9", tagged("/9", "new"), "upstreams/u", node},
		"unknown kind":  {"things/1", `{}`, "upstreams/u", node},
		"still in use":  {"routes/1", tagged("/1", "a")},
		"used by a new": {"routes/1", `{"uri":"/1","upstream_id":"u"}`},
	} {
		if err := reload(pairs...); err == nil {
			t.Errorf("%s: the reload was taken", name)
		}
		if r.live.Current() != snap || r.shown() != shown || r.ReadOnly("routes/2") == "" {
			t.Errorf("%s: a refused reload changed something", name)
		}
	}
	r.must("routes/9", "")
	if err := reload("routes/2", tagged("/2", "b")); err != nil {
		t.Fatal(err)
	}
	if r.shown() != "routes/2 "+tagged("/2", "b")+"\n" || r.serves("/1") != "" || r.ReadOnly("routes/1") != "" {
		t.Errorf("after the last reload:\n%s", r.shown())
	}
	r.must("routes/1", tagged("/1", "through the API"))
}

// A document in the store gives way to one of the file, and comes back when the file lets go.
func TestStoredBehindInline(t *testing.T) {
	s := openMem(t)
	foreign(t, s, "routes/1", tagged("/1", "stored"))
	r := startRig(t, s, inlineDocs("routes/1", tagged("/1", "file")))
	if r.serves("/1") != "file" {
		t.Fatalf("in force is %q", r.serves("/1"))
	}
	foreign(t, s, "routes/1", tagged("/1", "stored later"))
	last := foreign(t, s, "routes/2", tagged("/2", "x"))
	eventually(t, "the events arrive", func() bool { return r.Revision() == last.ModRevision })
	if r.serves("/1") != "file" {
		t.Fatalf("in force is %q", r.serves("/1"))
	}
	if err := r.Reload(context.Background(), nil); err != nil {
		t.Fatal(err)
	}
	if r.serves("/1") != "stored later" || r.ReadOnly("routes/1") != "" {
		t.Errorf("in force is %q", r.serves("/1"))
	}
	r.must("routes/1", tagged("/1", "edited"))

	// The same without an event in between.
	s = openMem(t)
	foreign(t, s, "routes/1", tagged("/1", "stored"))
	r = startRig(t, s, inlineDocs("routes/1", tagged("/1", "file")))
	if err := r.Reload(context.Background(), nil); err != nil {
		t.Fatal(err)
	}
	if r.serves("/1") != "stored" {
		t.Errorf("in force is %q", r.serves("/1"))
	}
}

// tooManyURIs is a route that only the router refuses.
func tooManyURIs() string {
	var many strings.Builder
	for i := range 1 << 16 {
		fmt.Fprintf(&many, `,"/many/%x"`, i)
	}
	return `{"uris":["/1"` + many.String() + `],"plugins":{"tag":{"id":"stored"}}}`
}

// onlyOneIsLeftOut: routes/1, which the router refuses, took no other document with it.
func (r *applierRig) onlyOneIsLeftOut(when string) {
	r.t.Helper()
	if left := r.LeftOut(); len(left) != 1 || !errors.Is(left["routes/1"], route.ErrBadRule) || r.serves("/1") != "" || r.serves("/2") != "stored" {
		r.t.Errorf("%s: left out %.300v, in force %q %q", when, left, r.serves("/1"), r.serves("/2"))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if logs := strings.Join(r.logs, "\n"); !strings.Contains(logs, "routes/1 from the store is left out: ") {
		r.t.Errorf("%s: logged:\n%.500s", when, logs)
	}
}

// What the router refuses comes to light only when it gets there; it takes no other document with it, wherever it comes from.
func TestRefusedByTheRouter(t *testing.T) {
	t.Run("at start and by a reload", func(t *testing.T) {
		s := openMem(t)
		foreign(t, s, "routes/1", tooManyURIs())
		foreign(t, s, "routes/2", tagged("/2", "stored"))
		startRig(t, s, nil).onlyOneIsLeftOut("at start")

		r := startRig(t, s, inlineDocs("routes/1", tagged("/1", "file"), "routes/2", tagged("/2", "file")))
		if err := r.Reload(context.Background(), nil); err != nil {
			t.Fatalf("the reload: %.200v", err)
		}
		r.onlyOneIsLeftOut("uncovered by a reload")
	})
	t.Run("by an event", func(t *testing.T) {
		s := openMem(t)
		r := startRig(t, s, nil)
		foreign(t, s, "routes/1", tooManyURIs())
		foreign(t, s, "routes/2", tagged("/2", "stored"))
		eventually(t, "it follows", func() bool { return r.serves("/2") == "stored" })
		r.onlyOneIsLeftOut("by an event")
	})
}

func TestInlineErrors(t *testing.T) {
	const node = `{"nodes":{"127.0.0.1:1":1}}`
	r := startRig(t, openMem(t), inlineDocs("routes/1", tagged("/1", "a"), "upstreams/u", node))
	r.must("routes/9", `{"uri":"/9","plugins":{"tag":{"id":"needs u"}}}`)
	reload := func(pairs ...string) (keys []string) {
		t.Helper()
		err := r.Reload(context.Background(), inlineDocs(pairs...))
		var bad InlineErrors
		if !errors.As(err, &bad) {
			t.Fatalf("no InlineErrors: %v", err)
		}
		for _, b := range bad {
			keys = append(keys, b.Key)
			if strings.HasPrefix(b.Err.Error(), b.Key) {
				t.Errorf("the key is told twice: %v", b)
			}
		}
		return keys
	}
	snap := r.live.Current()
	got := reload("routes/1", tagged("/1", "broken"), "routes/2", tagged("/2", "broken"), "routes/3", tagged("/3", "fine"),
		"upstreams/u", `{"nodes":{"127.0.0.1:1":1},"type":"x"}`)
	if want := []string{"routes/1", "routes/2", "upstreams/u"}; !slices.Equal(got, want) {
		t.Errorf("refused for %v, want %v", got, want)
	}
	// A route of the store that the file would break refuses the change, too.
	if got := reload("routes/1", tagged("/1", "a")); !slices.Equal(got, []string{"routes/9"}) {
		t.Errorf("refused for %v", got)
	}
	if r.live.Current() != snap || len(r.LeftOut()) != 0 {
		t.Error("a refused reload changed something")
	}
}

// Clients see by modifiedIndex that a resource of the file has changed.
func TestInlineRevisions(t *testing.T) {
	r := startRig(t, openMem(t), inlineDocs("routes/1", tagged("/1", "a"), "routes/2", tagged("/2", "a")))
	revisions := func(key string) [2]uint64 {
		item, _ := r.Get(key)
		return [2]uint64{item.CreateRevision, item.ModRevision}
	}
	for i, step := range []struct {
		pairs    []string
		one, two [2]uint64
	}{
		{[]string{"routes/1", tagged("/1", "a"), "routes/2", tagged("/2", "a")}, [2]uint64{1, 1}, [2]uint64{1, 1}},
		{[]string{"routes/1", tagged("/1", "b"), "routes/2", tagged("/2", "a")}, [2]uint64{1, 2}, [2]uint64{1, 1}},
		{[]string{"routes/1", tagged("/1", "c")}, [2]uint64{1, 3}, [2]uint64{}},
		{[]string{"routes/1", tagged("/1", "c"), "routes/2", tagged("/2", "a")}, [2]uint64{1, 3}, [2]uint64{4, 4}},
	} {
		if err := r.Reload(context.Background(), inlineDocs(step.pairs...)); err != nil {
			t.Fatal(err)
		}
		if one, two := revisions("routes/1"), revisions("routes/2"); one != step.one || two != step.two {
			t.Errorf("step %d: %v %v, want %v %v", i, one, two, step.one, step.two)
		}
	}
}

func TestStartThatFails(t *testing.T) {
	for name, doc := range bad {
		if _, err := tryRig(t, openMem(t), inlineDocs("routes/1", doc)); err == nil {
			t.Errorf("%s in the file: started", name)
		}
	}
	s := &spyStore{Store: openMem(t), listErr: errors.New("no list")}
	if _, err := tryRig(t, s, nil); err == nil || !strings.Contains(err.Error(), "no list") {
		t.Errorf("a store that cannot be read: %v", err)
	}
	closed := openMem(t)
	_ = closed.Close()
	if _, err := tryRig(t, closed, nil); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("a closed store: %v", err)
	}
}

// A former snapshot is waited for as long as it has readers, and no longer.
func TestCollectsFormerSnapshots(t *testing.T) {
	r := startRig(t, openMem(t), nil)
	r.must("routes/1", tagged("/1", "a"))
	held := r.live.Pin(2)
	r.must("routes/1", tagged("/1", "b"))
	pending := func() int { r.Applier.mu.RLock(); defer r.Applier.mu.RUnlock(); return r.pending }
	eventually(t, "one is waited for", func() bool { return pending() == 1 })
	time.Sleep(2 * collectEvery)
	if pending() != 1 {
		t.Error("it was given up")
	}
	held.Unpin(2)
	eventually(t, "none is", func() bool { return pending() == 0 })
}

// What changes without the Admin API is written down all the same, without values.
func TestChangesOfTheStoreAreAudited(t *testing.T) {
	s := openMem(t)
	foreign(t, s, "routes/before", tagged("/before", "secret"))
	r := startRig(t, s, map[string][]byte{"routes/file": []byte(tagged("/f", "secret"))})
	foreign(t, s, "routes/1", tagged("/x", "secret"))
	foreign(t, s, "routes/1", tagged("/y", "secret"))
	if _, err := s.Delete(t.Context(), "routes/1", store.AnyRevision); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the deletion arrives", func() bool { _, ok := r.Get("routes/1"); return !ok && r.Revision() >= 4 })
	r.must("routes/2", tagged("/z", "by the API"))
	if err := r.Reload(t.Context(), map[string][]byte{"routes/file": []byte(tagged("/g", "secret"))}); err != nil {
		t.Fatal(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	want := []string{
		"from=store routes/1: created +plugins.tag +uri, revision 0 -> 2", "from=store routes/1: changed ~uri, revision 2 -> 3",
		"from=store routes/1: deleted -plugins.tag -uri, revision 3 -> 4", "from=file routes/file: changed ~uri, revision 1 -> 2",
	}
	if !slices.Equal(r.audited, want) {
		t.Errorf("audited:\n%s", strings.Join(r.audited, "\n"))
	}
}
