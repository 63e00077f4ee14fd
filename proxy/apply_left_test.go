package proxy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"headgate/conf/resource"
	"headgate/conf/store"
)

// keysOf are the keys of a list with the revisions of their latest versions.
func keysOf(items []store.Item) string {
	var b strings.Builder
	for _, item := range items {
		fmt.Fprintf(&b, "%s@%d ", item.Key, item.ModRevision)
	}
	return b.String()
}

// Get and List show what is stored, whether or not it can be used here.
func TestWhatIsLeftOutIsShown(t *testing.T) {
	s := openMem(t)
	foreign(t, s, "routes/b", tagged("/b", "broken")) // 1
	foreign(t, s, "routes/d", tagged("/d", "fine"))   // 2
	foreign(t, s, "services/s", `{"broken`)           // 3
	foreign(t, s, "services/t", `["broken"]`)         // 4
	r := startRig(t, s, nil)
	r.must("routes/c", tagged("/c", "fine"))                 // 5
	foreign(t, s, "routes/c", `{"uri":7}`)                   // 6
	last := foreign(t, s, "routes/e", tagged("/e", "wrong")) // 7
	last = foreign(t, s, "routes/e", tagged("/e", "invalid"))
	eventually(t, "the events arrive", func() bool { return r.Revision() == last.ModRevision })
	if got := keysOf(r.List("routes")); got != "routes/b@1 routes/c@6 routes/d@2 routes/e@8 " {
		t.Errorf("stored: %s", got)
	}
	if item, ok := r.Get("routes/c"); !ok || string(item.Value) != `{"uri":7}` || item.CreateRevision != 5 || item.ModRevision != 6 {
		t.Errorf("stored: %+v", item)
	}
	if got := keysOf(r.InForce().List("routes")); got != "routes/c@5 routes/d@2 routes/e@7 " || r.serves("/c") != "fine" {
		t.Errorf("in force: %s, /c is %q", got, r.serves("/c"))
	}
	if item, ok := r.InForce().Get("routes/c"); !ok || item.ModRevision != 5 {
		t.Errorf("in force: %+v", item)
	}
	if len(r.LeftOut()) != 5 || r.CountLeftOut() != 5 {
		t.Errorf("left out: %v", r.LeftOut())
	}
	for _, item := range r.List("services") { // such an answer could not be read
		if string(item.Value) != "{}" {
			t.Errorf("%s is shown as %s", item.Key, item.Value)
		}
	}
	// An edit is of the stored version.
	_, err := r.Apply(context.Background(), Change{Key: "routes/c", Edit: func(old *store.Item) ([]byte, error) {
		if old == nil || string(old.Value) != `{"uri":7}` {
			t.Errorf("the edit saw %+v", old)
		}
		return []byte(tagged("/c", "repaired")), nil
	}})
	if err != nil || r.serves("/c") != "repaired" {
		t.Errorf("%v, in force %q", err, r.serves("/c"))
	}
	r.must("routes/b", "")
	r.must("routes/e", "")
	r.must("services/s", "")
	r.must("services/t", `{}`)
	if got := keysOf(r.List("routes")); got != "routes/c@9 routes/d@2 " || r.serves("/e") != "" || len(r.LeftOut()) != 0 {
		t.Errorf("in the end: %s, left out %v", got, r.LeftOut())
	}
}

// What a document refers to that is left out stays as long as the document does: it is stored, and can be repaired.
func TestWhatIsLeftOutHoldsWhatItRefersTo(t *testing.T) {
	s := openMem(t)
	foreign(t, s, "upstreams/u", oneNode)
	foreign(t, s, "routes/1", `{"uri":"/1","upstream_id":"u","plugins":{"tag":{"id":"broken"}}}`)
	r := startRig(t, s, nil)
	var refused *resource.Error
	if err := r.write("upstreams/u", ""); !errors.As(err, &refused) || !strings.Contains(err.Error(), "route [1] is still using it now") {
		t.Errorf("deleting what is referred to: %v", err)
	}
	r.must("routes/1", "")
	r.must("upstreams/u", "")
}

// A list is of one moment, and whoever reads it holds up nobody.
func TestAListHoldsUpNobody(t *testing.T) {
	s := openMem(t)
	for i := range 1000 {
		doc := oneNode
		if i%3 == 0 {
			doc = `{"nodes":7}`
		}
		foreign(t, s, fmt.Sprintf("upstreams/%04d", i), doc)
	}
	r := startRig(t, s, nil)
	n := 0
	r.Applier.mu.RLock()
	list := merged(r.left.below("upstreams"), r.docs.below("upstreams"))
	r.Applier.mu.RUnlock()
	var before []string
	for item := range list {
		if n%10 == 0 { // would wait for ever for a reader that holds a lock
			r.must(item.Key, "")
			r.must(item.Key+"-next", oneNode)
		}
		before = append(before, item.Key)
		n++
	}
	if n != 1000 || !slices.IsSorted(before) || strings.Contains(strings.Join(before, " "), "next") {
		t.Errorf("a list of %d documents", n)
	}
	if now := r.List("upstreams"); len(now) != 1000 || now[0].Key != "upstreams/0000-next" {
		t.Errorf("now %d documents, the first is %s", len(now), now[0].Key)
	}
}
