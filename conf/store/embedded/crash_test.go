package embedded

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"headgate/conf/store"
)

// childEnv makes the test binary a writer on the file that it names; childModeEnv chooses what it does.
const (
	childEnv     = "HEADGATE_TEST_STORE"
	childModeEnv = "HEADGATE_TEST_STORE_MODE"
)

func child(path string) {
	s, err := Open(path, Options{})
	if err != nil {
		fmt.Println("open:", err)
		os.Exit(1)
	}
	switch os.Getenv(childModeEnv) {
	case "full":
		err = fillDisk(s, path)
	default:
		err = writeForEver(s)
	}
	fmt.Println("end:", err)
}

// writeForEver announces each write before it starts ("try") and after it is acknowledged ("ok"), until it is killed.
func writeForEver(s *Store) error {
	for i := uint64(1); ; i++ {
		key, size := fmt.Sprintf("routes/%d", i%7), int(i*i%6000)
		if i%5 == 0 {
			size = -1
		}
		var revision uint64
		var err error
		if i%3 == 0 {
			key = batchKey
		}
		fmt.Println("try", key, size)
		switch {
		case key == batchKey:
			var writes []store.Write
			for k, n := range batchSizes(size) {
				writes = append(writes, store.Write{Key: k, Value: bytes.Repeat([]byte("v"), n), IfRevision: store.AnyRevision})
			}
			_, revision, err = s.Batch(context.Background(), writes)
		case size < 0:
			revision, err = s.Delete(context.Background(), key, store.AnyRevision)
			if errors.Is(err, store.ErrNotFound) {
				fmt.Println("ok 0")
				continue
			}
		default:
			var it store.Item
			it, err = s.Put(context.Background(), key, []byte(strings.Repeat("v", size)), store.AnyRevision, time.Time{})
			revision = it.ModRevision
		}
		if err != nil {
			return err
		}
		fmt.Println("ok", revision)
	}
}

// batchKey stands for the keys of one batch in what the writer announces.
const batchKey = "batch"

// batchSizes returns what a batch announced with size makes of its keys: sizes of values by key.
func batchSizes(size int) map[string]int {
	size = max(size, 0)
	return map[string]int{"batch/a": size, "batch/b": size + 1, "batch/c": size + 2, "batch/d": size % 2000}
}

// announced returns what a write makes of the sizes by key; -1 deletes.
func announced(sizes map[string]int, key string, size int) map[string]int {
	sizes = maps.Clone(sizes)
	switch {
	case key == batchKey:
		maps.Copy(sizes, batchSizes(size))
	case size < 0:
		delete(sizes, key)
	default:
		sizes[key] = size
	}
	return sizes
}

// TestKilled: whatever was acknowledged before SIGKILL is there afterwards, and of what was not acknowledged at most the one write
// that was under way, as a whole.
func TestKilled(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.db")
	random := rand.New(rand.NewPCG(3, 4))
	sizes := map[string]int{} // what must be there: size of the value by key
	last := uint64(0)
	for round := range 10 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), childEnv+"="+path)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		tried, acknowledged := "", 0
		size := 0
		open := false // a write is under way
		kill := func() { _ = cmd.Process.Kill() }
		for stop := 3 + random.IntN(60); lines.Scan(); {
			line := lines.Text()
			if n, _ := fmt.Sscanf(line, "try %s %d", &tried, &size); n == 2 {
				open = true
				if acknowledged == stop {
					time.AfterFunc(time.Duration(random.IntN(1500))*time.Microsecond, kill)
				}
				continue
			}
			var revision uint64
			if n, _ := fmt.Sscanf(line, "ok %d", &revision); n != 1 {
				t.Fatalf("round %d: the writer says %q", round, line)
			}
			open = false
			acknowledged++
			last = max(last, revision)
			sizes = announced(sizes, tried, size)
		}
		_ = cmd.Wait()

		s := mustOpen(t, path)
		if !s.Unclean() {
			t.Errorf("round %d: a killed writer counts as closed", round)
		}
		items, revision := mustList(t, s)
		mustClose(t, s)
		got := map[string]int{}
		for _, it := range items {
			got[it.Key] = len(it.Value)
		}
		withOpen := announced(sizes, tried, size)
		switch {
		case revision == last && cmp.Equal(sizes, got):
		case open && revision == last+1 && cmp.Equal(withOpen, got):
			sizes, last = withOpen, revision
		default:
			t.Fatalf("round %d: revision %d after acknowledged %d, write under way: %v %s %d\n%s",
				round, revision, last, open, tried, size, cmp.Diff(sizes, got))
		}
	}
	if last < 20 {
		t.Errorf("only %d writes were made", last)
	}
}

// fillDisk makes a write fail for lack of space and then tries to go on. The limit on file sizes stands in for a full disk.
func fillDisk(s *Store, path string) error {
	signal.Ignore(syscall.SIGXFSZ)
	ctx := context.Background()
	if _, err := s.Put(ctx, "a", []byte("before"), store.AnyRevision, time.Time{}); err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		return err
	}
	low := limit
	low.Cur = uint64(info.Size())
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &low); err != nil {
		return err
	}
	_, err = s.Put(ctx, "b", make([]byte, 4<<20), store.AnyRevision, time.Time{})
	if !errors.Is(err, store.ErrUnavailable) || !strings.Contains(err.Error(), path) {
		return fmt.Errorf("on a full disk: %w", err)
	}
	if items, revision, err := s.List(ctx); err != nil || len(items) != 1 || revision != 1 {
		return fmt.Errorf("reading on a full disk: %d items at %d, %w", len(items), revision, err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		return err
	}
	it, err := s.Put(ctx, "b", make([]byte, 4<<20), store.AnyRevision, time.Time{})
	if err != nil || it.ModRevision != 2 {
		return fmt.Errorf("after there was space again: revision %d, %w", it.ModRevision, err)
	}
	return s.Close()
}

func TestFullDisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.db")
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+path, childModeEnv+"=full")
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, io.Discard
	if err := cmd.Run(); err != nil || out.String() != "end: <nil>\n" {
		t.Fatalf("got %v and %q", err, out.String())
	}
	s := mustOpen(t, path)
	defer mustClose(t, s)
	if items, revision := mustList(t, s); len(items) != 2 || revision != 2 || s.Unclean() {
		t.Errorf("got %d items at %d, unclean %v", len(items), revision, s.Unclean())
	}
}
