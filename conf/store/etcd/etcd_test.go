package etcd

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"

	"headgate/conf/store"
	"headgate/conf/store/etcd/etcdtest"
	"headgate/conf/store/storetest"
)

// patience bounds every wait for something that must happen. It is not a measure of speed.
const patience = 20 * time.Second

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func mustOpen(t *testing.T, o Options) *Store {
	t.Helper()
	s, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return s
}

func mustPut(t *testing.T, s *Store, key, value string) store.Item {
	t.Helper()
	it, err := s.Put(t.Context(), key, []byte(value), store.AnyRevision, time.Time{})
	if err != nil {
		t.Fatalf("Put %s: %v", key, err)
	}
	return it
}

func mustList(t *testing.T, s *Store) ([]store.Item, uint64) {
	t.Helper()
	items, revision, err := s.List(t.Context())
	if err != nil {
		t.Fatalf("List: %v", err)
	}
	return items, revision
}

func mustWatch(t *testing.T, s *Store, from uint64) <-chan store.Event {
	t.Helper()
	events, err := s.Watch(t.Context(), from)
	if err != nil {
		t.Fatalf("Watch: %v", err)
	}
	return events
}

func next(t *testing.T, events <-chan store.Event) store.Event {
	t.Helper()
	select {
	case e, ok := <-events:
		if !ok {
			t.Fatal("the watch ended")
		}
		return e
	case <-time.After(patience):
		t.Fatal("no event came")
	}
	panic("unreachable")
}

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !f(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s did not happen", what)
		}
	}
}

// anything makes the suite's values documents, which they need not be for other stores.
func anything(string, []byte) bool { return true }

func TestConformance(t *testing.T) {
	server := etcdtest.Start(t, etcdtest.Options{})
	var n atomic.Int64
	storetest.RunCoarse(t, func(t *testing.T) store.Store {
		s, err := Open(t.Context(), Options{Endpoints: []string{server.Endpoint()}, Prefix: fmt.Sprintf("/p%d", n.Add(1)), Keep: anything, pageSize: 2})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}, 5*time.Second)
}

// TestInterop: what APISIX wrote is read, what is no document is not, and what is written stands where APISIX looks for it.
func TestInterop(t *testing.T) {
	server := etcdtest.Start(t, etcdtest.Options{})
	client := server.Client()
	raw := func(key, value string) {
		t.Helper()
		if _, err := client.Put(t.Context(), key, value); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{"consumers", "global_rules", "plugin_metadata", "plugins", "routes", "secrets", "services", "ssls", "upstreams"} {
		raw("/apisix/"+dir+"/", "init_dir")
	}
	documents := map[string]string{
		"routes/1":                      `{"uri":"\/a\/*","id":1,"update_time":1700000000,"priority":0,"upstream":{"nodes":{"127.0.0.1:1980":1},"type":"roundrobin"}}`,
		"consumers/jack":                `{"username":"jack","plugins":{"key-auth":{"key":"4y+JvURBE6ZwRbbgaryrhg=="}}}`,
		"consumers/jack/credentials/c1": `{"id":"c1","plugins":{"basic-auth":{"username":"u","password":"COpyH5JDkbewEUE9BOa3Fw=="}}}`,
		"secrets/vault/v1":              ` {"id":"vault/v1","uri":"http://127.0.0.1:8200"}`,
		"routes/text":                   `"not an object"`, // the reader has to see it, to say that it is wrong and to replace it
	}
	for key, value := range documents {
		raw("/apisix/"+key, value)
	}
	raw("/apisix/gen_id", "1")
	raw("/apisix/plugins", `[{"name":"key-auth"}]`)
	raw("/apisix/routes/text", documents["routes/text"])
	raw("/apisix/data_plane/server_info/x", `{"id":"x"}`)
	raw("/apisix2/routes/9", `{}`)
	raw("/apisix", `{}`)

	s := mustOpen(t, Options{Endpoints: []string{server.Endpoint()}, pageSize: 3})
	items, revision := mustList(t, s)
	got := map[string]string{}
	for i, it := range items {
		got[it.Key] = string(it.Value)
		if i > 0 && items[i-1].Key >= it.Key {
			t.Errorf("%s is listed after %s", it.Key, items[i-1].Key)
		}
	}
	if diff := cmp.Diff(documents, got); diff != "" {
		t.Errorf("List:\n%s", diff)
	}

	events := mustWatch(t, s, revision)
	raw("/apisix/routes/", "init_dir")
	raw("/apisix/gen_id", "1")
	raw("/apisix/data_plane/server_info/x", `{"id":"x","n":2}`)
	raw("/apisix2/routes/9", `{"n":2}`)
	raw("/apisix/routes/2", `{"uri":"/b"}`)
	if _, err := client.Delete(t.Context(), "/apisix/routes/1"); err != nil {
		t.Fatal(err)
	}
	if e := next(t, events); e.Item.Key != "routes/2" || string(e.Item.Value) != `{"uri":"/b"}` {
		t.Errorf("got %+v, want routes/2 and nothing before it", e)
	}
	if e := next(t, events); e.Item.Key != "routes/1" || !e.Deleted {
		t.Errorf("got %+v, want the deletion of routes/1", e)
	}

	r, err := client.Get(t.Context(), "/apisix/routes/2")
	if err != nil || string(r.Kvs[0].Value) != `{"uri":"/b"}` {
		t.Errorf("%v, %v", r, err)
	}
	r, err = client.Get(t.Context(), "/apisix/"+ownDir, clientv3.WithPrefix())
	if err != nil || len(r.Kvs) != 0 {
		t.Errorf("left behind: %v, %v", r.Kvs, err)
	}
}

func TestDocument(t *testing.T) {
	f := func(key, value string, want bool) {
		t.Helper()
		if got := Document(key, []byte(value)); got != want {
			t.Errorf("%s %q: got %v, want %v", key, value, got, want)
		}
	}
	f("routes/1", "{}", true)
	f("routes/1", " \n\t{", true)
	f("plugins/x", "{}", true)
	f("routes/1", "", true)
	f("routes/1", "[]", true)
	f("routes/", "{}", false)
	f("gen_id", "{}", false)
	f("plugins", "{}", false)
	f("data_plane/server_info/1", "{}", false)
	if !Document("routes/1", nil) || Document("routes/", nil) {
		t.Error("deletions are told apart by the key alone")
	}
}

// TestTooLarge: what the server does not take is refused as a whole and leaves the store usable.
func TestTooLarge(t *testing.T) {
	server := etcdtest.Start(t, etcdtest.Options{})
	s := mustOpen(t, Options{Endpoints: []string{server.Endpoint()}})
	batch := func(n, size int) error {
		var writes []store.Write
		for i := range n {
			value := `{"a":"` + strings.Repeat("x", size) + `"}`
			writes = append(writes, store.Write{Key: fmt.Sprintf("routes/%d", i), Value: []byte(value), IfRevision: store.Absent})
		}
		_, _, err := s.Batch(t.Context(), writes)
		return err
	}
	for name, err := range map[string]error{"too many": batch(128, 1), "too long": batch(20, 100_000), "far too long": batch(1, 3<<20)} {
		if !errors.Is(err, store.ErrTooLarge) || errors.Is(err, store.ErrUnavailable) {
			t.Errorf("%s: got %v, want ErrTooLarge", name, err)
		}
	}
	if items, _ := mustList(t, s); len(items) != 0 || !s.Status().Reachable {
		t.Errorf("%d items were written, %+v", len(items), s.Status())
	}
	if err := batch(127, 1000); err != nil {
		t.Errorf("a batch of 127: %v", err)
	}
	if items, _ := mustList(t, s); len(items) != 127 {
		t.Errorf("got %d items, want 127", len(items))
	}
}

// TestTwoGateways: what one writes the other sees, and of two that write the same only one wins.
func TestTwoGateways(t *testing.T) {
	server := etcdtest.Start(t, etcdtest.Options{})
	a := mustOpen(t, Options{Endpoints: []string{server.Endpoint()}})
	b := mustOpen(t, Options{Endpoints: []string{server.Endpoint()}})
	_, revision := mustList(t, a)
	seenByA, seenByB := mustWatch(t, a, revision), mustWatch(t, b, revision)
	var total, worst time.Duration
	const rounds = 100
	for i := range rounds {
		writer, reader, own := a, seenByB, seenByA
		if i%2 == 1 {
			writer, reader, own = b, seenByA, seenByB
		}
		it := mustPut(t, writer, fmt.Sprintf("routes/%d", i%7), fmt.Sprintf(`{"n":%d}`, i))
		start := time.Now()
		if diff := cmp.Diff(store.Event{Item: it}, next(t, reader)); diff != "" {
			t.Fatalf("round %d:\n%s", i, diff)
		}
		delay := time.Since(start)
		total, worst = total+delay, max(worst, delay)
		next(t, own)
	}
	t.Logf("a write was seen by the other gateway %v after it was acknowledged (mean of %d, worst %v)", total/rounds, rounds, worst)
	old := mustPut(t, a, "routes/x", "{}")
	mustPut(t, b, "routes/x", "{}")
	if _, err := a.Put(t.Context(), "routes/x", []byte("{}"), old.ModRevision, time.Time{}); !errors.Is(err, store.ErrConflict) {
		t.Errorf("got %v, want ErrConflict", err)
	}
}

// A quiet watch proves that it is alive, and Status says so.
func TestStatus(t *testing.T) {
	server := etcdtest.Start(t, etcdtest.Options{})
	s := mustOpen(t, Options{Endpoints: []string{server.Endpoint()}, Progress: 20 * time.Millisecond})
	before := s.Status()
	if !before.Reachable || before.Revision == 0 || before.LastError != "" {
		t.Errorf("after Open: %+v", before)
	}
	_, revision := mustList(t, s)
	mustWatch(t, s, revision)
	for range 3 {
		proof := func() time.Time { s.mu.Lock(); defer s.mu.Unlock(); return s.proof }
		last := proof()
		eventually(t, "a new proof of a quiet watch", func() bool { return proof().After(last) })
	}
	if _, err := server.Client().Put(t.Context(), "/elsewhere", ""); err != nil {
		t.Fatal(err)
	}
	eventually(t, "seeing the revision of a write elsewhere", func() bool { return s.Status().Revision > revision })
}

func TestOptions(t *testing.T) {
	f := func(want string, o Options) {
		t.Helper()
		_, err := Open(t.Context(), o)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	http, https := []string{"http://127.0.0.1:1"}, []string{"https://127.0.0.1:1"}
	f("no endpoints", Options{})
	f(`invalid endpoint "127.0.0.1:2379"`, Options{Endpoints: []string{"127.0.0.1:2379"}})
	f(`invalid endpoint "...@127.0.0.1:2379"`, Options{Endpoints: []string{"http://u:p@127.0.0.1:2379"}})
	f("partly http and partly https", Options{Endpoints: append(http, https...)})
	f("TLS is configured", Options{Endpoints: http, TLS: &TLS{}})
	f("user and password", Options{Endpoints: http, User: "u"})
	f("prefix is empty", Options{Endpoints: http, Prefix: "/"})
	f("no such file", Options{Endpoints: https, TLS: &TLS{CA: "/nowhere/ca.pem"}})
	f("no certificate in it", Options{Endpoints: https, TLS: &TLS{CA: "etcd.go"}})
	f("cert and key belong together", Options{Endpoints: https, TLS: &TLS{Cert: "x"}})
	f("client certificate", Options{Endpoints: https, TLS: &TLS{Cert: "etcd.go", Key: "etcd.go"}})
}

// etcd away at start is an error after a bounded number of tries.
func TestAwayAtStart(t *testing.T) {
	start := time.Now()
	_, err := Open(t.Context(), Options{Endpoints: []string{"http://127.0.0.1:1"}, Timeout: 200 * time.Millisecond, StartupRetry: 1})
	if !errors.Is(err, store.ErrUnavailable) || !strings.Contains(err.Error(), "http://127.0.0.1:1") {
		t.Errorf("got %v, want ErrUnavailable with the endpoint", err)
	}
	if time.Since(start) > patience {
		t.Errorf("it took %v", time.Since(start))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Open(ctx, Options{Endpoints: []string{"http://127.0.0.1:1"}, StartupRetry: 1000}); err == nil {
		t.Error("Open succeeded")
	}
}
