package proxy

import (
	"context"
	"strings"
	"testing"
)

// published counts the changes of what is in force.
func (r *applierRig) published() (n uint64) {
	r.t.Helper()
	if err := r.submit(context.Background(), func() { n = r.changed }); err != nil {
		r.t.Fatal(err)
	}
	return n
}

// A reload that hands keys over from the file to the store is one change: nobody sees a moment without both.
func TestHandingOverIsOneChange(t *testing.T) {
	s := openMem(t)
	foreign(t, s, "routes/1", tagged("/1", "stored"))
	foreign(t, s, "upstreams/u", oneNode)
	foreign(t, s, "routes/3", tagged("/3", "broken"))
	r := startRig(t, s, inlineDocs("routes/1", tagged("/1", "file"), "routes/2", tagged("/2", "file"), "routes/3", tagged("/3", "file"), "upstreams/u", oneNode))
	before := r.published()
	// A resource of the file may refer to what is handed over with the same reload.
	next := inlineDocs("routes/2", `{"uri":"/2","upstream_id":"u","plugins":{"tag":{"id":"needs u"}}}`, "routes/3", tagged("/3", "file"))
	if err := r.Reload(context.Background(), next); err != nil {
		t.Fatal(err)
	}
	if n := r.published() - before; n != 1 {
		t.Errorf("published %d times", n)
	}
	if r.serves("/1") != "stored" || r.serves("/2") != "needs u" || r.ReadOnly("routes/1") != "" || r.ReadOnly("upstreams/u") != "" {
		t.Errorf("in force %q and %q, read-only %q", r.serves("/1"), r.serves("/2"), r.ReadOnly("routes/1"))
	}
	if item, ok := r.Get("routes/1"); !ok || item.ModRevision != 1 {
		t.Errorf("shown: %+v", item)
	}
	r.mu.Lock()
	if audit := strings.Join(r.audited, "\n"); !strings.Contains(audit, "from=file routes/1: changed ~plugins.tag, revision 1 -> 1") || strings.Contains(audit, "deleted") {
		t.Errorf("the audit says:\n%s", audit)
	}
	r.mu.Unlock()
	r.must("routes/1", tagged("/1", "edited"))
	// What the store has cannot be used: the file's does not stay for that, and what else is handed over comes into force.
	if err := r.Reload(context.Background(), nil); err != nil {
		t.Fatal(err)
	}
	if r.serves("/1") != "edited" || r.serves("/2") != "" || r.serves("/3") != "" || r.LeftOut()["routes/3"] == nil {
		t.Errorf("in force %q, %q and %q, left out %v", r.serves("/1"), r.serves("/2"), r.serves("/3"), r.LeftOut())
	}
	r.must("routes/3", tagged("/3", "repaired"))
}
