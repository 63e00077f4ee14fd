package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"headgate/conf/resource"
	"headgate/conf/store"
)

func TestOrderOfAChange(t *testing.T) {
	s := &spyStore{Store: openMem(t)}
	r := startRig(t, s, nil)
	s.set(func() {
		s.onPut = func() {
			r.note("save")
			if r.serves("/x") != "" || r.shown() != "" {
				t.Error("in force before it was saved")
			}
		}
	})
	result, err := r.Apply(context.Background(), Change{Key: "routes/1", Edit: func(old *store.Item) ([]byte, error) {
		r.note("edit")
		if old != nil {
			t.Errorf("a new document has an old one: %v", old)
		}
		return []byte(tagged("/x", "a")), nil
	}})
	if err != nil || result.Old != nil || result.Revision != 1 || result.Item.ModRevision != 1 || string(result.Item.Value) != tagged("/x", "a") {
		t.Fatalf("%+v, %v", result, err)
	}
	if r.serves("/x") != "a" || r.live.Current().Revision != 1 || r.Revision() != 1 {
		t.Error("not in force when it was acknowledged")
	}
	eventually(t, "the plugin's goroutine starts", func() bool { r.mu.Lock(); defer r.mu.Unlock(); return len(r.seen) == 5 })
	if got := strings.Join(r.seen, " "); got != "edit validate compile save start" {
		t.Errorf("happened: %s", got)
	}
	s.set(func() { s.onPut = nil })
	result, err = r.Apply(context.Background(), Change{Key: "routes/1", Edit: func(old *store.Item) ([]byte, error) {
		return bytes.Replace(old.Value, []byte(`"a"`), []byte(`"b"`), 1), nil
	}})
	if err != nil || string(result.Old.Value) != tagged("/x", "a") || r.serves("/x") != "b" || result.Item.CreateRevision != 1 {
		t.Errorf("%+v, %v", result, err)
	}
	result, err = r.Apply(context.Background(), Change{Key: "routes/1", Edit: func(*store.Item) ([]byte, error) { return nil, nil }})
	if err != nil || result.Old == nil || result.Revision != 3 || r.serves("/x") != "" || r.shown() != "" {
		t.Errorf("%+v, %v", result, err)
	}
}

func TestWhatFailsChangesNothing(t *testing.T) {
	s := &spyStore{Store: openMem(t)}
	r := startRig(t, s, nil)
	r.must("upstreams/u", `{"nodes":{"127.0.0.1:1":1}}`)
	r.must("routes/1", `{"uri":"/x","upstream_id":"u","plugins":{"tag":{"id":"a"}}}`)
	mine := errors.New("mine")
	var refusal *resource.Error
	tests := []struct {
		name, key, doc, want string
		edit, store          error
		as                   any
		is                   error
	}{
		{name: "edit", key: "routes/1", edit: mine, is: mine, want: "mine"},
		{name: "schema", key: "routes/1", doc: `{"uri":7}`, as: &refusal, want: "invalid configuration"},
		{name: "JSON", key: "routes/1", doc: `{`, as: &refusal, want: "invalid configuration"},
		{name: "no object", key: "routes/1", doc: `[1]`, as: &refusal, want: "invalid configuration"},
		{name: "plugin", key: "routes/1", doc: tagged("/x", "invalid"), as: &refusal, want: "not this id"},
		{name: "_meta", key: "routes/1", doc: `{"uri":"/x","plugins":{"tag":{"_meta":{"disable":1}}}}`, as: &refusal, want: "_meta"},
		{name: "reference", key: "routes/1", doc: `{"uri":"/x","upstream_id":"none"}`, as: &refusal, want: "failed to fetch upstream info"},
		{name: "compile", key: "routes/1", doc: tagged("/x", "broken"), as: &refusal, want: "told to fail"},
		{name: "compile of what depends on it", key: "upstreams/u", doc: `{"nodes":{"127.0.0.1:1":1},"scheme":"grpc"}`, as: &refusal, want: "scheme grpc"},
		{name: "in use", key: "upstreams/u", as: &refusal, want: "can not delete this upstream, route [1] is still using it now"},
		{name: "not there", key: "routes/none", as: &refusal, want: "Key not found"},
		{name: "unknown kind", key: "things/1", doc: `{}`, want: "unknown key"},
		{name: "no id", key: "routes/", doc: `{}`, as: &refusal, want: `property "id" validation failed`},
		{name: "store", key: "routes/1", doc: tagged("/x", "b"), store: fmt.Errorf("%w: disk full", store.ErrUnavailable), is: store.ErrUnavailable, want: "disk full"},
		{name: "store, deletion", key: "routes/1", store: store.ErrUnavailable, is: store.ErrUnavailable, want: "unavailable"},
		{name: "lost race", key: "routes/1", doc: tagged("/x", "b"), store: store.ErrConflict, is: store.ErrConflict, want: "value changed"},
	}
	for _, tt := range tests {
		s.set(func() { s.putErr = tt.store })
		found, snap, shown, revision := r.find("/x"), r.live.Current(), r.shown(), r.Revision()
		_, err := r.Apply(context.Background(), Change{Key: tt.key, Edit: func(*store.Item) ([]byte, error) {
			if tt.doc == "" {
				return nil, tt.edit
			}
			return []byte(tt.doc), tt.edit
		}})
		switch {
		case err == nil:
			t.Errorf("%s: was taken", tt.name)
		case !strings.Contains(err.Error(), tt.want) || tt.is != nil && !errors.Is(err, tt.is) || tt.as != nil && !errors.As(err, tt.as):
			t.Errorf("%s: %v", tt.name, err)
		}
		if r.find("/x") != found || r.live.Current() != snap || r.shown() != shown || r.Revision() != revision {
			t.Errorf("%s: something was changed", tt.name)
		}
	}
	s.set(func() { s.putErr = nil })
	r.must("routes/1", tagged("/x", "after")) // and the way is free again
	if r.serves("/x") != "after" {
		t.Error("the change is not in force")
	}
	var b bytes.Buffer
	r.meter.Write(&b)
	for result, n := range map[string]int{applied: 3, refused: 11, failed: 5} {
		if want := fmt.Sprintf("config_changes_total{result=%q} %d\n", result, n); !strings.Contains(b.String(), want) {
			t.Errorf("metrics lack %s", want)
		}
	}
}

// Of two gateways on one store, one is behind: its write is refused, nothing happens, and it catches up.
func TestLostRace(t *testing.T) {
	s := &spyStore{Store: openMem(t), events: make(chan store.Event)}
	r := startRig(t, s, nil)
	r.must("routes/1", tagged("/x", "a"))
	item := foreign(t, s.Store, "routes/1", tagged("/x", "theirs"))
	if err := r.write("routes/1", tagged("/x", "mine")); !errors.Is(err, store.ErrConflict) {
		t.Fatalf("%v, want a conflict", err)
	}
	if err := r.write("routes/1", ""); !errors.Is(err, store.ErrConflict) {
		t.Fatalf("deletion: %v, want a conflict", err)
	}
	if r.serves("/x") != "a" {
		t.Errorf("in force is %q", r.serves("/x"))
	}
	s.events <- store.Event{Item: item}
	r.must("routes/1", tagged("/x", "mine"))
	if r.serves("/x") != "mine" {
		t.Errorf("in force is %q", r.serves("/x"))
	}
}

func TestForceDeletesWhatIsInUse(t *testing.T) {
	r := startRig(t, openMem(t), nil)
	r.must("upstreams/u", `{"nodes":{"127.0.0.1:1":1}}`)
	r.must("routes/1", `{"uri":"/x","upstream_id":"u"}`)
	if _, err := r.Apply(context.Background(), Change{Key: "upstreams/u", Force: true, Edit: func(*store.Item) ([]byte, error) { return nil, nil }}); err != nil {
		t.Fatal(err)
	}
	if got := r.find("/x"); got.Upstream != nil || got.Missing == nil {
		t.Error("the route still has the upstream")
	}
}

func TestTTLRemovesTheRoute(t *testing.T) {
	r := startRig(t, openMem(t), nil)
	_, err := r.Apply(context.Background(), Change{
		Key: "routes/1", TTL: 50 * time.Millisecond, Edit: func(*store.Item) ([]byte, error) { return []byte(tagged("/x", "a")), nil },
	})
	if err != nil || r.serves("/x") != "a" {
		t.Fatalf("%v, in force %q", err, r.serves("/x"))
	}
	eventually(t, "the route expires", func() bool { return r.serves("/x") == "" && r.shown() == "" })
	r.must("routes/1", tagged("/x", "b"))
}

// Sixteen clients write at once: what was acknowledged is in force for whoever asks after that, and no write is lost.
func TestAcknowledgedIsInForce(t *testing.T) {
	const clients, rounds = 16, 25
	r := startRig(t, openMem(t), nil)
	r.must("routes/shared", tagged("/shared", "0"))
	var all sync.WaitGroup
	for n := range clients {
		all.Go(func() {
			key, path := fmt.Sprintf("routes/%d", n), fmt.Sprintf("/own/%d", n)
			for i := range rounds {
				id := strconv.Itoa(i)
				if err := r.write(key, tagged(path, id)); err != nil {
					t.Errorf("%s: %v", key, err)
					return
				}
				if got := r.serves(path); got != id {
					t.Errorf("%s: %q is in force after %q was acknowledged", key, got, id)
				}
				if item, _ := r.Get(key); string(item.Value) != tagged(path, id) {
					t.Errorf("%s: shown is %s", key, item.Value)
				}
				var mine int
				_, err := r.Apply(context.Background(), Change{Key: "routes/shared", Edit: func(old *store.Item) ([]byte, error) {
					_, after, _ := strings.Cut(string(old.Value), `"id":"`)
					text, _, _ := strings.Cut(after, `"`)
					var err error
					if mine, err = strconv.Atoi(text); err != nil {
						return nil, err
					}
					mine++
					return []byte(tagged("/shared", strconv.Itoa(mine))), nil
				}})
				if err != nil {
					t.Error(err)
					return
				}
				if now, err := strconv.Atoi(r.serves("/shared")); err != nil || now < mine {
					t.Errorf("shared: %d is in force after %d was acknowledged", now, mine)
				}
			}
			if err := r.write(key, ""); err != nil {
				t.Error(err)
			}
			if got := r.serves(path); got != "" {
				t.Errorf("%s: %q is in force after the deletion was acknowledged", key, got)
			}
		})
	}
	all.Wait()
	if got := r.serves("/shared"); got != strconv.Itoa(clients*rounds) {
		t.Errorf("%s of %d writes counted", got, clients*rounds)
	}
	if want := "routes/shared " + tagged("/shared", strconv.Itoa(clients*rounds)) + "\n"; r.shown() != want {
		t.Errorf("shown:\n%s", r.shown())
	}
}

func TestClose(t *testing.T) {
	s := &spyStore{Store: openMem(t)}
	r := startRig(t, s, nil)
	r.must("routes/1", tagged("/x", "a"))
	saving, goOn := make(chan struct{}), make(chan struct{})
	s.set(func() { s.onPut = func() { close(saving); <-goOn } })
	running := make(chan error)
	go func() { running <- r.write("routes/1", tagged("/x", "b")) }()
	<-saving
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	if _, err := r.Apply(ctx, Change{Key: "routes/1"}); !errors.Is(err, store.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("behind one that takes too long: %v", err)
	}
	closed := make(chan struct{})
	go func() { r.Close(); close(closed) }()
	close(goOn)
	if err := <-running; err != nil { // what has begun is carried to its end
		t.Errorf("the change that was running: %v", err)
	}
	<-closed
	if r.serves("/x") != "b" {
		t.Errorf("in force is %q: the last snapshot must stay", r.serves("/x"))
	}
	if err := r.write("routes/1", tagged("/x", "c")); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("after Close: %v", err)
	}
	if err := r.Reload(context.Background(), nil); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("Reload after Close: %v", err)
	}
	r.Close()
}
