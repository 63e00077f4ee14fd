package proxy

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"headgate/conf/store"
)

// A start with many documents, which are judged and compiled side by side, treats each as a start with that one alone does.
func TestStartWithManyDocuments(t *testing.T) {
	const n = 2 * manyDocuments
	s := openMem(t)
	put := func(key, doc string) {
		if _, err := s.Put(context.Background(), key, []byte(doc), store.AnyRevision, time.Time{}); err != nil {
			t.Fatal(err)
		}
	}
	wrong := map[string]string{} // key -> the reason that is to be told
	for i := range n {
		key := fmt.Sprintf("routes/%d", i)
		switch doc := tagged(fmt.Sprintf("/%d", i), "same"); {
		case i%100 == 3:
			put(key, strings.Replace(doc, "same", "invalid", 1)) // for the plugin
			wrong[key] = "not this id"
		case i%100 == 4:
			put(key, strings.Replace(doc, `"uri"`, `"url"`, 1)) // for the schema
			wrong[key] = "additional properties forbidden, found url"
		case i%100 == 5:
			put(key, strings.Replace(doc, "same", "broken", 1)) // for the compiler
			wrong[key] = "told to fail"
		case i%100 == 6:
			put(key, doc[:len(doc)-1]) // no JSON
			wrong[key] = "unexpected end of the document"
		default:
			put(key, doc)
		}
	}
	r := startRig(t, s, nil)
	left := r.LeftOut()
	if len(left) != len(wrong) {
		t.Errorf("%d are left out, want %d", len(left), len(wrong))
	}
	for key, want := range wrong {
		if err := left[key]; err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", key, err, want)
		}
	}
	for i := range n {
		path := fmt.Sprintf("/%d", i)
		if in, out := r.serves(path) != "", wrong["routes"+path] != ""; in == out {
			t.Errorf("%s is served: %v, left out: %v", path, in, out)
		}
	}
	if got := len(r.List("routes")); got != n-len(wrong) {
		t.Errorf("%d routes are listed", got)
	}
	// Only what may compile another time is tried again.
	r.must("upstreams/u", oneNode)
	if len(r.LeftOut()) != len(wrong) {
		t.Errorf("%d are left out after an edit of something else", len(r.LeftOut()))
	}
	r.must("routes/3", tagged("/3", "same"))
	if _, still := r.LeftOut()["routes/3"]; still || r.serves("/3") == "" {
		t.Error("what was put right is not in force")
	}
}

// Many changes at once are refused for the first mistake in their order, whoever found which one first.
func TestManyChangesAreRefusedTheSameWayEveryTime(t *testing.T) {
	r := startRig(t, openMem(t), nil)
	var list []Change
	for i := range 2 * manyDocuments {
		id := "same"
		if i > 700 && i%50 == 0 {
			id = "invalid"
		}
		list = append(list, changes(fmt.Sprintf("routes/%d", i), tagged(fmt.Sprintf("/%d", i), id))...)
	}
	for range 3 {
		if _, err := r.ApplyAll(context.Background(), list); err == nil || !strings.HasPrefix(err.Error(), "routes/750: ") {
			t.Errorf("got %v, want the one about routes/750", err)
		}
	}
	if len(r.List("routes")) != 0 {
		t.Error("some of a refused list are in force")
	}
	if _, err := r.ApplyAll(context.Background(), list[:701]); err != nil || r.serves("/700") != "same" {
		t.Errorf("the right ones: %v", err)
	}
}
