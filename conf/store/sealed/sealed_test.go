package sealed

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"headgate/conf/seal"
	"headgate/conf/store"
	"headgate/conf/store/mem"
	"headgate/conf/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func sealer(t *testing.T, keyring ...string) *seal.Sealer {
	t.Helper()
	s, err := seal.New(keyring, func(plugin string) (route, consumer []string) {
		if plugin == "key-auth" {
			return nil, []string{"key"}
		}
		return nil, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

const (
	older = "edd1c9f0985e76a2"
	newer = "qeddd145sfvddff3"
)

func TestConformance(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store { return New(mem.Open(), sealer(t, newer)) })
}

const (
	clear      = `{"username":"jack","plugins":{"key-auth":{"key":"auth-one"}}}` // not in the order of an encoder
	ciphertext = `{"plugins":{"key-auth":{"key":"4y+JvURBE6ZwRbbgaryrhg=="}},"username":"jack"}`
	opened     = `{"plugins":{"key-auth":{"key":"auth-one"}},"username":"jack"}`
)

func value(t *testing.T, s store.Store, key string) string {
	t.Helper()
	items, _, err := s.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, it := range items {
		if it.Key == key {
			return string(it.Value)
		}
	}
	return ""
}

func TestSealed(t *testing.T) {
	inner := mem.Open()
	s := New(inner, sealer(t, newer, older))
	defer s.Close()
	events, err := s.Watch(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	it, err := s.Put(t.Context(), "consumers/jack", []byte(clear), store.Absent, time.Time{})
	if err != nil || string(it.Value) != clear {
		t.Errorf("Put: got %s, %v, want what was sent", it.Value, err)
	}
	items, revision, err := s.Batch(t.Context(), []store.Write{
		{Key: "consumers/jack/credentials/a", Value: []byte(clear), IfRevision: store.Absent},
		{Key: "consumers/jack", IfRevision: it.ModRevision},
		{Key: "consumers/text", Value: []byte(`"key-auth":{`), IfRevision: store.Absent},
	})
	if err != nil || revision != 2 || len(items) != 3 || string(items[0].Value) != clear || items[1].Value != nil {
		t.Errorf("Batch: got %v at %d, %v", items, revision, err)
	}
	if got := value(t, inner, "consumers/jack/credentials/a"); got != ciphertext {
		t.Errorf("underneath stands %s", got)
	}
	if got := value(t, s, "consumers/jack/credentials/a"); got != opened {
		t.Errorf("List: got %s", got)
	}
	if got := value(t, s, "consumers/text"); got != `"key-auth":{` {
		t.Errorf("what is no document came back as %s", got)
	}
	want := []store.Event{
		{Item: store.Item{Key: "consumers/jack", Value: []byte(opened), CreateRevision: 1, ModRevision: 1}},
		{Item: store.Item{Key: "consumers/jack/credentials/a", Value: []byte(opened), CreateRevision: 2, ModRevision: 2}, More: true},
		{Item: store.Item{Key: "consumers/jack", ModRevision: 2}, Deleted: true, More: true},
		{Item: store.Item{Key: "consumers/text", Value: []byte(`"key-auth":{`), CreateRevision: 2, ModRevision: 2}},
	}
	for i := range want {
		select {
		case e := <-events:
			if diff := cmp.Diff(want[i], e); diff != "" {
				t.Errorf("event %d:\n%s", i, diff)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("no event")
		}
	}
}

// What was written under an older keyring is read, and sealed under the newest key with the next write.
func TestKeyChange(t *testing.T) {
	inner := mem.Open()
	before := New(inner, sealer(t, older))
	if _, err := before.Put(t.Context(), "consumers/jack", []byte(clear), store.Absent, time.Time{}); err != nil {
		t.Fatal(err)
	}
	if got := value(t, inner, "consumers/jack"); got == ciphertext || got == opened {
		t.Fatalf("under the older key stands %s", got)
	}
	after := New(inner, sealer(t, newer, older))
	defer after.Close()
	if got := value(t, after, "consumers/jack"); got != opened {
		t.Errorf("List: got %s", got)
	}
	if _, err := after.Put(t.Context(), "consumers/jack", []byte(opened), store.AnyRevision, time.Time{}); err != nil {
		t.Fatal(err)
	}
	if got := value(t, inner, "consumers/jack"); got != ciphertext {
		t.Errorf("underneath stands %s", got)
	}
}

func TestRefused(t *testing.T) {
	inner := mem.Open()
	s := New(inner, sealer(t, newer))
	defer s.Close()
	bad := []byte(`{"key":"neither"}`)
	if _, err := s.Put(t.Context(), "ssls/1", bad, store.AnyRevision, time.Time{}); !errors.Is(err, seal.ErrForeign) {
		t.Errorf("Put: got %v, want ErrForeign", err)
	}
	_, _, err := s.Batch(t.Context(), []store.Write{{Key: "a", Value: []byte("{}"), IfRevision: store.Absent}, {Key: "ssls/1", Value: bad, IfRevision: store.Absent}})
	if !errors.Is(err, seal.ErrForeign) {
		t.Errorf("Batch: got %v, want ErrForeign", err)
	}
	if items, _, err := inner.List(t.Context()); len(items) != 0 || err != nil {
		t.Errorf("something was written: %v, %v", items, err)
	}
}

type awayStore struct{ *mem.Store }

func (awayStore) Status() store.Status { return store.Status{LastError: "away"} }

func TestStatus(t *testing.T) {
	plain := New(mem.Open(), sealer(t, newer))
	defer plain.Close()
	if _, ok := plain.(store.Reporter); ok {
		t.Error("a store without health reports one")
	}
	away := New(awayStore{mem.Open()}, sealer(t, newer))
	defer away.Close()
	if r, ok := away.(store.Reporter); !ok || r.Status().LastError != "away" {
		t.Error("the inner store's health is hidden")
	}
}
