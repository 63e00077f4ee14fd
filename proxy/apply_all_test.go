package proxy

import (
	"context"
	"errors"
	"strings"
	"testing"

	"headgate/conf/resource"
	"headgate/conf/store"
)

// changes turns "key", "document" pairs into a list; the document "" deletes.
func changes(pairs ...string) []Change {
	var list []Change
	for i := 0; i < len(pairs); i += 2 {
		doc := pairs[i+1]
		list = append(list, Change{Key: pairs[i], Edit: func(*store.Item) ([]byte, error) {
			if doc == "" {
				return nil, nil
			}
			return []byte(doc), nil
		}})
	}
	return list
}

const oneNode = `{"nodes":{"127.0.0.1:1":1}}`

// What is written together may refer to each other in any order, and is in force at one revision.
func TestApplyAllIsOneChange(t *testing.T) {
	r := startRig(t, openMem(t), nil)
	results, err := r.ApplyAll(context.Background(), changes(
		"routes/1", `{"uri":"/a","service_id":"s"}`, "services/s", `{"upstream_id":"u"}`, "upstreams/u", oneNode, "headgate/note", `{"any":"thing"}`))
	if err != nil {
		t.Fatal(err)
	}
	for i, got := range results {
		if got.Item.ModRevision != results[0].Revision || got.Old != nil || got.Revision != results[0].Revision {
			t.Errorf("result %d is %+v", i, got)
		}
	}
	if got := r.find("/a"); got == nil || got.Upstream == nil {
		t.Fatal("the route is not in force, or without its upstream")
	}
	if note, ok := r.Get("headgate/note"); !ok || string(note.Value) != `{"any":"thing"}` {
		t.Errorf("the note is %s", note.Value)
	}
	// What is in use may go together with what uses it, and not without.
	var refusal *resource.Error
	var of *ChangeError
	_, err = r.ApplyAll(context.Background(), changes("routes/2", `{"uri":"/b","upstream_id":"u"}`, "upstreams/u", ""))
	if !errors.As(err, &refusal) || !errors.As(err, &of) || of.Key != "routes/2" {
		t.Errorf("a route that refers to what goes with it: %v", err)
	}
	_, err = r.ApplyAll(context.Background(), changes("upstreams/u", "", "routes/1", ""))
	if !errors.As(err, &of) || of.Key != "upstreams/u" || !strings.Contains(err.Error(), "service [s] is still using it now") {
		t.Errorf("an upstream goes that a service uses: %v", err)
	}
	if _, err = r.ApplyAll(context.Background(), changes("upstreams/u", "", "services/s", "", "routes/1", "")); err != nil || r.find("/a") != nil {
		t.Errorf("all of it: %v", err)
	}
}

func TestApplyAllIsAllOrNothing(t *testing.T) {
	r := startRig(t, openMem(t), nil)
	r.must("routes/1", tagged("/x", "kept"))
	before := r.shown()
	for want, list := range map[string][]Change{
		"routes/2: failed to check the configuration of plugin tag err: not this id":  changes("routes/1", tagged("/x", "new"), "routes/2", tagged("/y", "invalid")),
		"routes/2: failed to check the configuration of plugin tag err: told to fail": changes("routes/1", tagged("/x", "new"), "routes/2", tagged("/y", "broken")),
		"routes/9: Key not found":              changes("routes/1", tagged("/x", "new"), "routes/9", ""),
		"routes/1: is changed twice at a time": changes("routes/1", tagged("/x", "new"), "routes/1", tagged("/x", "newer")),
		`things/1: unknown key "things/1"`:     changes("routes/1", tagged("/x", "new"), "things/1", `{}`),
		"routes/2: failed to fetch upstream info by upstream id [u], response code: 404": changes("routes/1", "", "routes/2", `{"uri":"/y","upstream_id":"u"}`),
	} {
		_, err := r.ApplyAll(context.Background(), list)
		if err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
		if r.shown() != before || r.serves("/x") != "kept" || r.serves("/y") != "" {
			t.Errorf("%s: something has changed: %s", want, r.shown())
		}
	}
	items, _, err := r.store.List(context.Background())
	if err != nil || len(items) != 1 {
		t.Errorf("the store holds %v", items)
	}
}

// Events that the store marks as one change come into force together: a reader never sees the half of it.
func TestEventsOfOneChangeAreAppliedTogether(t *testing.T) {
	s := &spyStore{Store: openMem(t), events: make(chan store.Event)}
	r := startRig(t, s, nil)
	event := func(key, doc string, revision uint64, more bool) {
		s.events <- store.Event{Item: store.Item{Key: key, Value: []byte(doc), ModRevision: revision, CreateRevision: revision}, More: more}
		r.sync()
	}
	event("routes/1", tagged("/x", "a"), 5, true)
	if r.serves("/x") != "" {
		t.Error("half of a change is in force")
	}
	snap := r.live.Current()
	event("routes/2", tagged("/y", "b"), 5, false)
	if r.serves("/x") != "a" || r.serves("/y") != "b" || r.Revision() != 5 || r.live.Current() == snap {
		t.Errorf("in force: %q and %q at %d", r.serves("/x"), r.serves("/y"), r.Revision())
	}
}
