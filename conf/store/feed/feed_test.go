package feed

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"headgate/conf/store"
)

const patience = 10 * time.Second

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func publish(f *Feed, from, to uint64) {
	for r := from; r <= to; r++ {
		f.Publish(store.Event{Item: store.Item{ModRevision: r}})
	}
}

func receive(t *testing.T, events <-chan store.Event) (uint64, bool) {
	t.Helper()
	select {
	case e, ok := <-events:
		return e.Item.ModRevision, ok
	case <-time.After(patience):
		t.Fatal("nothing came")
		return 0, false
	}
}

// A feed that began at a revision replays what the ring still holds and refuses the rest.
func TestWindow(t *testing.T) {
	const start = 5000
	f := New(start)
	defer f.Close()
	check := func(from uint64, want error) {
		t.Helper()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		events, err := f.Watch(ctx, from)
		if !errors.Is(err, want) {
			t.Errorf("from %d: got %v, want %v", from, err, want)
		}
		if err == nil && from < f.last {
			if got, _ := receive(t, events); got != from+1 {
				t.Errorf("from %d: the first event is %d", from, got)
			}
		}
	}
	check(start-1, store.ErrCompacted)
	check(start, nil)
	check(start+1, store.ErrCompacted)
	publish(f, start+1, start+Capacity)
	check(start-1, store.ErrCompacted)
	check(start, nil)
	check(start+Capacity, nil)
	publish(f, start+Capacity+1, start+Capacity+1)
	check(start, store.ErrCompacted)
	check(start+1, nil)
	publish(f, start+Capacity+2, start+3*Capacity)
	check(start+2*Capacity-1, store.ErrCompacted)
	check(start+2*Capacity, nil)
}

// A write whose first events have left the ring cannot be replayed, and nothing of it is.
func TestWindowCutsBatch(t *testing.T) {
	f := New(0)
	defer f.Close()
	event := func(revision uint64) store.Event { return store.Event{Item: store.Item{ModRevision: revision}} }
	f.Publish(event(1), event(1), event(1))
	f.Publish(event(2), event(2))
	publish(f, 3, Capacity-3)
	for from := range uint64(3) { // 3 + 2 + Capacity - 5 events: all there
		if events, err := f.Watch(t.Context(), from); err != nil {
			t.Errorf("from %d: %v", from, err)
		} else if got, _ := receive(t, events); got != from+1 {
			t.Errorf("from %d: the first event is %d", from, got)
		}
	}
	publish(f, Capacity-2, Capacity-2)
	if _, err := f.Watch(t.Context(), 0); !errors.Is(err, store.ErrCompacted) {
		t.Errorf("two of three events of revision 1 are left: got %v, want ErrCompacted", err)
	}
	events, err := f.Watch(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	for i, more := range []bool{true, false, false} {
		if e := <-events; e.More != more || e.Item.ModRevision != uint64(2+i/2) {
			t.Errorf("event %d: got %+v", i, e)
		}
	}
}

// A watcher that stands still while the ring turns over is told by the end of the channel; it never sees a gap.
func TestSlowWatcher(t *testing.T) {
	f := New(0)
	defer f.Close()
	events, err := f.Watch(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	publish(f, 1, 3*Capacity)
	last := uint64(0)
	for {
		r, ok := receive(t, events)
		if !ok {
			break
		}
		if r != last+1 {
			t.Fatalf("event %d follows %d", r, last)
		}
		last = r
	}
	if last >= 3*Capacity {
		t.Errorf("all %d events came through a ring of %d", last, Capacity)
	}
}

func TestCloseDeliversTheRest(t *testing.T) {
	f := New(0)
	events, err := f.Watch(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	publish(f, 1, 10)
	f.Close()
	f.Close()
	for want := uint64(1); want <= 10; want++ {
		if got, ok := receive(t, events); !ok || got != want {
			t.Errorf("got %d, %v, want %d", got, ok, want)
		}
	}
	if _, ok := receive(t, events); ok {
		t.Error("the watch did not end")
	}
	if _, err := f.Watch(t.Context(), 10); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("got %v, want ErrUnavailable", err)
	}
}

func TestExpiryOrderAndRetry(t *testing.T) {
	calls := make(chan string, 10)
	var failed atomic.Bool
	x := NewExpiry(func(key string) error {
		calls <- key
		if key == "b" && !failed.Swap(true) {
			return errors.New("try again")
		}
		return nil
	})
	base := time.Now().Add(20 * time.Millisecond)
	x.Add("never", time.Time{})
	x.Add("far", base.Add(time.Hour))
	x.Add("c", base.Add(2*time.Millisecond))
	x.Add("b", base.Add(time.Millisecond))
	x.Add("a", base)
	for _, want := range []string{"a", "b", "b", "c"} {
		select {
		case got := <-calls:
			if got != want {
				t.Errorf("got %s, want %s", got, want)
			}
		case <-time.After(patience):
			t.Fatalf("%s did not expire", want)
		}
	}
	x.Close()
	x.Close()
	if len(calls) != 0 {
		t.Errorf("%s expired too", <-calls)
	}
}
