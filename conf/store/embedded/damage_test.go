package embedded

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"headgate/conf/store"
)

// sample makes a closed file with a tree of several levels, overflow pages and free pages.
func sample(t *testing.T) (content []byte, items []store.Item) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s.db")
	s := mustOpen(t, path)
	for i := range 24 {
		mustPut(t, s, fmt.Sprintf("routes/%03d", i), strings.Repeat("v", 300+i*30), time.Time{})
	}
	mustPut(t, s, "routes/large", strings.Repeat("v", 9_000), time.Time{})
	mustPut(t, s, "routes/000", "again", time.Time{})
	items, _ = mustList(t, s)
	mustClose(t, s)
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return content, items
}

// openDamaged opens content as a file and reports whether everything in it is as it was. Anything else must be an error that names
// the file.
func openDamaged(t *testing.T, name string, content []byte, want []store.Item) (intact bool) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s.db")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := Open(path, Options{LockWait: time.Millisecond})
	if err != nil {
		if !errors.Is(err, ErrDamaged) || !errors.Is(err, store.ErrUnavailable) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: got %v, want ErrDamaged with the name of the file", name, err)
		}
		return false
	}
	defer s.Close()
	got, _ := mustList(t, s)
	if !reflect.DeepEqual(want, got) {
		t.Errorf("%s: a damaged file was served: %d items of %d", name, len(got), len(want))
	}
	return true
}

// inUse returns the number of bytes up to the last page in use; the file grows ahead of its use.
func inUse(t *testing.T, content []byte) int {
	t.Helper()
	m, err := readMeta(bytes.NewReader(content), int64(len(content)))
	if err != nil {
		t.Fatal(err)
	}
	return int(m.pages) * int(m.pageSize)
}

func TestTruncated(t *testing.T) {
	content, items := sample(t)
	used := inUse(t, content)
	if !openDamaged(t, "cut to what is in use", content[:used], items) {
		t.Error("a file without its spare pages was refused")
	}
	for n := used - 4096; n >= 0; n -= 4096 {
		if openDamaged(t, fmt.Sprintf("cut to %d of %d bytes", n, len(content)), content[:n], items) {
			t.Errorf("a file cut to %d of %d bytes was opened", n, used)
		}
	}
	for _, n := range []int{1, 17, 4095, 4097, 8191, used - 1} {
		if openDamaged(t, fmt.Sprintf("cut to %d bytes", n), content[:n], items) {
			t.Errorf("a file cut to %d bytes was opened", n)
		}
	}
}

func TestFlippedBytes(t *testing.T) {
	content, items := sample(t)
	random := rand.New(rand.NewPCG(1, 2))
	noticed := 0
	flip := func(at int, bit byte) {
		damaged := append([]byte(nil), content...)
		damaged[at] ^= bit
		if !openDamaged(t, fmt.Sprintf("byte %d xor %#x", at, bit), damaged, items) {
			noticed++
		}
	}
	// The headers of all pages, where a wild number leads bbolt astray, and a sample of everything else.
	for page := 0; page < inUse(t, content); page += 4096 {
		for range 3 {
			flip(page+random.IntN(80), 1<<random.IntN(8))
		}
		flip(page+random.IntN(4096), 1<<random.IntN(8))
	}
	if noticed < 20 {
		t.Errorf("only %d flips were noticed", noticed)
	}
}

// Damage to the newest header page of a closed file costs the mark of the close and nothing else.
func TestNewestHeaderLost(t *testing.T) {
	content, items := sample(t)
	for page := range 2 {
		damaged := append([]byte(nil), content...)
		copy(damaged[page*4096+16:], make([]byte, 64))
		if !openDamaged(t, fmt.Sprintf("header page %d", page), damaged, items) {
			t.Errorf("header page %d: one of two is enough", page)
		}
	}
	damaged := append([]byte(nil), content...)
	copy(damaged, make([]byte, 2*4096))
	if openDamaged(t, "both header pages", damaged, items) {
		t.Error("a file without header was opened")
	}
}

// FuzzVerifyFile: whatever the file contains, the check ends, does not panic, and what it passes can be read to the end.
func FuzzVerifyFile(f *testing.F) {
	path := filepath.Join(f.TempDir(), "s.db")
	s, err := Open(path, Options{})
	if err != nil {
		f.Fatal(err)
	}
	for i := range 20 {
		if _, err := s.Put(f.Context(), fmt.Sprint(i), make([]byte, 400), store.AnyRevision, time.Time{}); err != nil {
			f.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		f.Fatal(err)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(uint32(8200), []byte{1, 2, 3})
	f.Add(uint32(3*4096+10), []byte{0xff, 0xff, 0xff, 0xff})
	f.Add(uint32(4*4096), []byte{})
	f.Fuzz(func(t *testing.T, at uint32, patch []byte) {
		damaged := append([]byte(nil), content...)
		copy(damaged[int(at)%len(damaged):], patch)
		damagedPath := filepath.Join(t.TempDir(), "s.db")
		if err := os.WriteFile(damagedPath, damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := Open(damagedPath, Options{LockWait: time.Millisecond})
		if err != nil {
			return
		}
		defer s.Close()
		if items, _, err := s.List(t.Context()); err != nil || len(items) != 20 {
			t.Errorf("opened, but %d items, %v", len(items), err)
		}
	})
}
