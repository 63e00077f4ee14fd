package proxy

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"headgate/conf/resource"
	"headgate/conf/store"
)

// Documents are a map in the order of keys, and a list that was taken shows its own moment whatever happens afterwards.
func TestDocumentsAreAnOrderedMap(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	d, model := newDocuments(), map[string]uint64{}
	kinds := []string{"routes", "services", "consumers/jack/credentials"}
	type moment struct {
		path string
		list func(func(*store.Item) bool)
		want []string
	}
	expect := func(path string) (want []string) {
		for _, key := range slices.Sorted(maps.Keys(model)) {
			if strings.HasPrefix(key, path+"/") {
				want = append(want, fmt.Sprint(key, "@", model[key]))
			}
		}
		return want
	}
	var moments []moment
	for i := range uint64(20_000) {
		key := fmt.Sprintf("%s/%d", kinds[rng.IntN(3)], rng.IntN(1500))
		if i < 600 {
			key = fmt.Sprintf("routes/%05d", i) // in order, as a store lists them
		}
		if rng.IntN(5) < 2 && i > 3000 {
			d.remove(key)
			delete(model, key)
		} else {
			d.put(store.Item{Key: key, ModRevision: i, Value: []byte(`{}`)})
			model[key] = i
		}
		if i%1000 == 999 {
			for _, path := range append(kinds, "consumers", "rout", "none") {
				moments = append(moments, moment{path, d.below(path), expect(path)})
			}
		}
	}
	for n, m := range moments {
		var got []string
		for item := range m.list {
			got = append(got, fmt.Sprint(item.Key, "@", item.ModRevision))
		}
		if !slices.Equal(got, m.want) {
			t.Fatalf("list %d of %s has %d documents, want %d", n, m.path, len(got), len(m.want))
		}
	}
	if d.count != len(model) {
		t.Errorf("%d documents, want %d", d.count, len(model))
	}
	for key, revision := range model {
		if item, ok := d.get(key); !ok || item.ModRevision != revision {
			t.Fatalf("%s is at %d, want %d", key, item.ModRevision, revision)
		}
		d.remove(key)
	}
	d.remove("routes/none")
	if d.count != 0 || len(d.kinds) != 0 || len(d.items) != 0 || len(d.users.users)+len(d.users.odd) != 0 {
		t.Errorf("something is left: %+v", d)
	}
}

// A list can be read while the documents change.
func TestDocumentsAreListedWhileTheyChange(t *testing.T) {
	r := startRig(t, openMem(t), nil)
	for i := range 300 {
		r.must(fmt.Sprintf("upstreams/%03d", i), oneNode)
	}
	stop, done := make(chan struct{}), make(chan struct{})
	var lists atomic.Int64
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
			}
			list := r.List("upstreams")
			if !slices.IsSortedFunc(list, func(a, b store.Item) int { return strings.Compare(a.Key, b.Key) }) || len(list) < 300 {
				t.Errorf("a list of %d documents, or out of order", len(list))
			}
			lists.Add(1)
		}
	}()
	eventually(t, "somebody looks", func() bool { return lists.Load() > 0 })
	for i := range 200 {
		r.must(fmt.Sprintf("upstreams/%03d-%d", i, i), oneNode)
	}
	close(stop)
	<-done
}

func TestReferred(t *testing.T) {
	for in, want := range map[string]string{
		`{}`: "[] false",
		`{"upstream_id":"u1","plugins":{"traffic-split":{"rules":[{"weighted_upstreams":[{"upstream_id":7}]}]}}}`: "[u1 7] false",
		"{\"service_id\" :\t\n\"s\" , \"group_id\" : 12 }":                                                        "[s 12] false",
		`{"desc":"upstream_id","name":"_id"}`:                                                                     "[] false",
		`{"desc":"\"upstream_id\":\"x\""}`:                                                                        "[] false",
		`{"upstream_id":7.0}`:                                                                                     "[7] true",
		`{"upstream_id":70e-1}`:                                                                                   "[70] true",
		`{"upstream_\u0069d":"u"}`:                                                                                "[] true",
		`{"regex":"^\\d+$","proto_id":"p.1-a_b"}`:                                                                 "[p.1-a_b] false",
		`{"upstream_id":""}`:                                                                                      "[] false",
		`{"upstream_id":null,"x_id":[1]}`:                                                                         "[] false",
		`{"upstream_id":"u`:                                                                                       "[] false",
		`{"upstream_id"`:                                                                                          "[] false",
		`{"upstream_id":`:                                                                                         "[] false",
	} {
		ids, odd := referred([]byte(in))
		if got := fmt.Sprintf("%s %v", ids, odd); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

// Whatever resource.CheckUnused finds in all documents, it finds in those that may refer to the id.
func TestReferencesMissNothing(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	ids := []string{"1", "2", "abc", "a-b", "70"}
	spell := func(id string) string {
		switch rng.IntN(5) {
		case 0:
			return `"\u00` + fmt.Sprintf("%02x", id[0]) + id[1:] + `"`
		case 1:
			if id[0] <= '9' {
				return []string{id, id + ".0", id + "e0"}[rng.IntN(3)]
			}
		}
		return `"` + id + `"`
	}
	forms := []string{
		"routes", `{"uri":"/x","upstream_id":%s}`, "routes", `{"uri":"/x", "service_id" : %s}`, "routes", `{"plugin_config_id":%s}`,
		"services", `{"upstream_id":%s}`, "consumers", `{"username":"c","group_id":%s}`, "upstreams", `{"tls":{"client_cert_id":%s}}`,
		"plugin_configs", `{"plugins":{"traffic-split":{"rules":[{"weighted_upstreams":[{"upstream_id":%s}]}]}}}`,
		"global_rules", `{"plugins":{"grpc-transcode":{"proto_id":%s}}}`,
	}
	a := &Applier{docs: newDocuments(), left: newDocuments()}
	all := view{a, nil}
	for i := range 2000 {
		n := 2 * rng.IntN(len(forms)/2)
		key := fmt.Sprintf("%s/k%d", forms[n], rng.IntN(6))
		if rng.IntN(3) == 0 {
			a.docs.remove(key)
		} else {
			a.docs.put(store.Item{Key: key, Value: fmt.Appendf(nil, forms[n+1], spell(ids[rng.IntN(len(ids))]))})
		}
		id := ids[rng.IntN(len(ids))]
		for _, segment := range []string{"upstreams", "services", "plugin_configs", "consumer_groups", "ssls", "protos"} {
			kind, _ := resource.KindOf(segment)
			got, want := resource.CheckUnused(kind, id, all.mentioning(id)), resource.CheckUnused(kind, id, everyDocument{a.docs})
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Fatalf("step %d, %s/%s: %v, want %v", i, segment, id, got, want)
			}
		}
	}
}

// everyDocument implements resource.Docs without any index.
type everyDocument struct{ *documents }

func (d everyDocument) Range(kind string, f func(key string, value []byte) bool) {
	for item := range d.below(kind) {
		if !f(item.Key, item.Value) {
			return
		}
	}
}

func FuzzReferred(f *testing.F) {
	f.Add([]byte(`{"upstream_id":"u1","a":{"x_id" : 7}}`))
	f.Add([]byte(`{"a_id":-1,"b_id":1.5,"c_id":"\"`))
	f.Fuzz(func(t *testing.T, doc []byte) {
		ids, _ := referred(doc)
		for _, id := range ids {
			if len(id) == 0 {
				t.Errorf("%q: an empty id", doc)
			}
		}
	})
}
