package embedded

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	bolt "go.etcd.io/bbolt"
	"go.uber.org/goleak"

	"headgate/conf/store"
	"headgate/conf/store/storetest"
)

func TestMain(m *testing.M) {
	if path := os.Getenv(childEnv); path != "" {
		child(path)
		return
	}
	goleak.VerifyTestMain(m)
}

func mustOpen(t *testing.T, path string) *Store {
	t.Helper()
	s, err := Open(path, Options{LockWait: 30 * time.Millisecond})
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	return s
}

func mustClose(t *testing.T, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}
}

func mustPut(t *testing.T, s *Store, key, value string, expires time.Time) store.Item {
	t.Helper()
	it, err := s.Put(t.Context(), key, []byte(value), store.AnyRevision, expires)
	if err != nil {
		t.Fatalf("Put: %v", err)
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

func TestConformance(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store { return mustOpen(t, filepath.Join(t.TempDir(), "s.db")) })
}

func TestReopen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data", "s.db")
	s := mustOpen(t, path)
	if s.Unclean() {
		t.Error("a new file counts as not closed")
	}
	for i := range 40 {
		mustPut(t, s, fmt.Sprintf("routes/%d", i), strings.Repeat("x", i*200), time.Time{})
	}
	mustPut(t, s, "ends", "x", time.Now().Add(time.Hour).Truncate(time.Second))
	mustPut(t, s, "ended", "x", time.Now().Add(-time.Second))
	if _, err := s.Delete(t.Context(), "routes/7", store.AnyRevision); err != nil {
		t.Fatal(err)
	}
	want, _ := mustList(t, s)
	mustClose(t, s)

	for name, mode := range map[string]os.FileMode{path: 0o600, filepath.Dir(path): os.ModeDir | 0o700} {
		if info, err := os.Stat(name); err != nil || info.Mode() != mode {
			t.Errorf("%s: got mode %v, %v, want %v", name, info.Mode(), err, mode)
		}
	}
	if names, _ := filepath.Glob(path + "*"); len(names) != 1 {
		t.Errorf("files left behind: %v", names)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}

	s = mustOpen(t, path)
	defer mustClose(t, s)
	got, revision := mustList(t, s)
	if !reflect.DeepEqual(want, got) || s.Unclean() {
		t.Errorf("unclean %v, items %v, want %v", s.Unclean(), got, want)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("documents stay readable by others: %v, %v", info.Mode(), err)
	}
	if _, err := s.Watch(t.Context(), 3); !errors.Is(err, store.ErrCompacted) {
		t.Errorf("events of an earlier run: got %v, want ErrCompacted", err)
	}
	if it := mustPut(t, s, "new", "", time.Time{}); it.ModRevision <= revision {
		t.Errorf("revision %d after %d", it.ModRevision, revision)
	}
}

func TestLocked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.db")
	s := mustOpen(t, path)
	_, err := Open(path, Options{LockWait: 30 * time.Millisecond})
	if err == nil || !strings.Contains(err.Error(), path+": another process has the file open") {
		t.Errorf("got %v, want an error that says who is in the way", err)
	}
	mustPut(t, s, "a", "still works", time.Time{})
	mustClose(t, s)
	mustClose(t, mustOpen(t, path))
}

func TestFormat(t *testing.T) {
	f := func(name, want string, change func(tx *bolt.Tx) error) {
		t.Helper()
		path := filepath.Join(t.TempDir(), "s.db")
		mustClose(t, mustOpen(t, path))
		db, err := bolt.Open(path, 0o600, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(db.Update(change), db.Close()); err != nil {
			t.Fatal(err)
		}
		_, err = Open(path, Options{LockWait: time.Millisecond})
		if err == nil || !strings.Contains(err.Error(), path+": "+want) || !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("%s: got %v, want %q", name, err, want)
		}
	}
	put := func(bucket, key, value []byte) func(tx *bolt.Tx) error {
		return func(tx *bolt.Tx) error { return tx.Bucket(bucket).Put(key, value) }
	}
	f("newer format", "format version 2, this program reads and writes version 1", put(metaBucket, formatKey, binary.BigEndian.AppendUint32(nil, 2)))
	f("no format", "damaged: no format version", func(tx *bolt.Tx) error { return tx.Bucket(metaBucket).Delete(formatKey) })
	f("another program's file", "damaged, or not a Headgate store", func(tx *bolt.Tx) error { return tx.DeleteBucket(metaBucket) })
	f("foreign document", "damaged: a document fails its checksum (key \"routes/1\")", put(documentsBucket, []byte("routes/1"), []byte("{}")))
	f("foreign state", "damaged: the store's state fails its checksum", put(metaBucket, stateKey, []byte("x")))
	record, _ := encodeRecord(store.Item{Key: "routes/1"})
	f("uncounted document", "damaged: 1 documents instead of 0", put(documentsBucket, []byte("routes/1"), record))
	f("moved document", "damaged: a document fails its checksum (key \"routes/2\")", put(documentsBucket, []byte("routes/2"), record))
}

// A write that failed while it was committed may be in the file all the same: then it is published before anything else.
func TestDoubtfulWrite(t *testing.T) {
	s := mustOpen(t, filepath.Join(t.TempDir(), "s.db"))
	defer mustClose(t, s)
	mustPut(t, s, "a", "1", time.Time{})
	events, err := s.Watch(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	it := store.Item{Key: "b", Value: []byte("2"), CreateRevision: 2, ModRevision: 2}
	err = s.db.Update(func(tx *bolt.Tx) error {
		st, err := readState(tx)
		if err != nil {
			return err
		}
		record, sum := encodeRecord(it)
		st.revision, st.count, st.digest = 2, st.count+1, st.digest^sum
		return errors.Join(tx.Bucket(documentsBucket).Put([]byte("b"), record), tx.Bucket(metaBucket).Put(stateKey, st.encode()))
	})
	if err != nil {
		t.Fatal(err)
	}
	s.doubt = []store.Event{{Item: it}}
	c := mustPut(t, s, "c", "3", time.Time{})
	for _, want := range []store.Item{it, c} {
		select {
		case e := <-events:
			if diff := cmp.Diff(store.Event{Item: want}, e); diff != "" {
				t.Error(diff)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("no event")
		}
	}
}

// Nobody else may have written: a revision that this process does not know ends the use of the file.
func TestForeignWrite(t *testing.T) {
	s := mustOpen(t, filepath.Join(t.TempDir(), "s.db"))
	defer s.Close()
	err := s.db.Update(func(tx *bolt.Tx) error {
		return tx.Bucket(metaBucket).Put(stateKey, state{revision: 9}.encode())
	})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, _, err := s.List(t.Context()); !errors.Is(err, ErrDamaged) || !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("List: got %v, want ErrDamaged", err)
		}
		if _, err := s.Put(t.Context(), "a", nil, store.AnyRevision, time.Time{}); !errors.Is(err, ErrDamaged) {
			t.Errorf("Put: got %v, want ErrDamaged", err)
		}
	}
}

func TestRecord(t *testing.T) {
	f := func(it store.Item) {
		t.Helper()
		b, sum := encodeRecord(it)
		got, gotSum, err := decodeRecord([]byte(it.Key), b)
		if diff := cmp.Diff(it, got); diff != "" || sum != gotSum || err != nil {
			t.Errorf("checksums %x and %x, %v:\n%s", sum, gotSum, err, diff)
		}
		for i := range b {
			b[i] ^= 0x10
			if _, _, err := decodeRecord([]byte(it.Key), b); err == nil {
				t.Errorf("a change of byte %d goes unnoticed", i)
			}
			b[i] ^= 0x10
		}
		if _, _, err := decodeRecord([]byte(it.Key+"x"), b); err == nil {
			t.Error("a change of the key goes unnoticed")
		}
	}
	f(store.Item{Key: "a", Value: []byte{}, CreateRevision: 1, ModRevision: 2})
	f(store.Item{Key: "b", Value: []byte("value"), CreateRevision: 1 << 60, ModRevision: 1 << 61, Expires: time.Unix(1_900_000_000, 5)})
}

func FuzzDecodeRecord(f *testing.F) {
	b, _ := encodeRecord(store.Item{Key: "a", Value: []byte("x"), ModRevision: 7})
	f.Add([]byte("a"), b)
	f.Add([]byte{}, []byte{1})
	f.Fuzz(func(t *testing.T, key, b []byte) {
		it, sum, err := decodeRecord(key, b)
		if err != nil {
			return
		}
		if again, sum2 := encodeRecord(it); sum != sum2 || string(again) != string(b) {
			t.Errorf("%x does not come back: %x", b, again)
		}
	})
}
