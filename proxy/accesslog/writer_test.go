package accesslog

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// never is a flush interval that does not pass in a test: what gets written was written for another reason.
const never = time.Hour

func open(t *testing.T, opt Options) (*Writer, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "access.log")
	w, err := Open(path, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return w, path
}

func content(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func mustFlush(t *testing.T, w *Writer) {
	t.Helper()
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
}

func TestFlush(t *testing.T) {
	w, path := open(t, Options{Flush: never, Shards: 1})
	w.Write(0, []byte("one\n"))
	w.Write(7, []byte("two")) // the newline is added
	w.Write(0, nil)
	mustFlush(t, w)
	if got := content(t, path); got != "one\ntwo\n" {
		t.Errorf("log = %q", got)
	}
	mustFlush(t, w) // nothing to do
	if info, err := os.Stat(path); err != nil || info.Mode().Perm()&0o027 != 0 {
		t.Errorf("mode %v, %v: others can read or write it", info.Mode(), err)
	}
}

func TestWrittenWithoutFlushCall(t *testing.T) {
	r, p, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for name, opt := range map[string]Options{
		"interval":  {Flush: time.Millisecond},
		"half full": {Flush: never, Buffer: 8},
	} {
		t.Run(name, func(t *testing.T) {
			w := start(shared{p}, "", opt)
			defer w.Close()
			w.Write(3, []byte("line\n"))
			if got, err := bufio.NewReader(r).ReadString('\n'); got != "line\n" {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
	p.Close()
}

func TestAppendsAndClose(t *testing.T) {
	var lost atomic.Int64
	w, path := open(t, Options{Flush: never, Dropped: func(n int) { lost.Add(int64(n)) }})
	w.Write(1, []byte("first\n"))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	w.Write(1, []byte("late\n"))
	if err := w.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	if err := w.Flush(); err != ErrClosed {
		t.Errorf("Flush after Close: %v", err)
	}
	w, err := Open(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	w.Write(0, []byte("second\n"))
	w.Close()
	if got := content(t, path); got != "first\nsecond\n" || lost.Load() != 1 {
		t.Errorf("log = %q, %d lost", got, lost.Load())
	}
}

func TestOffAndBadPath(t *testing.T) {
	for _, path := range []string{Off, ""} {
		w, err := Open(path, Options{})
		if err != nil || w.Enabled() {
			t.Fatalf("%q: enabled %t, %v", path, w.Enabled(), err)
		}
		w.Write(0, []byte("x"))
		if err := errors.Join(w.Flush(), w.Reopen(), w.Close()); err != nil {
			t.Error(err)
		}
	}
	if _, err := Open(filepath.Join(t.TempDir(), "no", "such", "dir"), Options{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error = %v", err)
	}
	w, err := Open(Stdout, Options{})
	if err != nil || !w.Enabled() {
		t.Fatal(err)
	}
	if err := errors.Join(w.Reopen(), w.Close()); err != nil {
		t.Error(err)
	}
	if _, err := os.Stdout.Stat(); err != nil {
		t.Errorf("stdout was closed: %v", err)
	}
}

// TestConcurrentWriters: every line is whole, none is lost or doubled beyond those counted, and each shard keeps its order while the
// file is rotated below it.
func TestConcurrentWriters(t *testing.T) {
	var lost atomic.Int64
	w, path := open(t, Options{Buffer: 4 << 10, Flush: time.Millisecond, Shards: 4, Dropped: func(n int) { lost.Add(int64(n)) }})
	const writers, lines = 8, 2000
	var wg sync.WaitGroup
	for id := range writers {
		wg.Go(func() {
			var buf []byte
			for i := range lines {
				buf = fmt.Appendf(buf[:0], "%d %d %s end\n", id, i, strings.Repeat("x", i%200))
				w.Write(uint32(id), buf)
			}
		})
	}
	var rotated []string
	for i := range 3 {
		old := fmt.Sprint(path, ".", i)
		if err := os.Rename(path, old); err != nil {
			t.Fatal(err)
		}
		if err := w.Reopen(); err != nil {
			t.Fatal(err)
		}
		rotated = append(rotated, old)
	}
	wg.Wait()
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	next := make([]int, writers)
	kept := 0
	for _, file := range append(rotated, path) {
		for line := range strings.Lines(content(t, file)) {
			var id, i int
			if _, err := fmt.Sscanf(line, "%d %d ", &id, &i); err != nil || line != fmt.Sprintf("%d %d %s end\n", id, i, strings.Repeat("x", i%200)) {
				t.Fatalf("broken line %q", line)
			}
			if i < next[id] {
				t.Fatalf("writer %d: line %d after %d", id, i, next[id]-1)
			}
			next[id] = i + 1
			kept++
		}
	}
	if kept+int(lost.Load()) != writers*lines {
		t.Errorf("%d lines kept, %d counted as lost, of %d", kept, lost.Load(), writers*lines)
	}
	if kept == 0 {
		t.Error("everything was lost")
	}
}

func TestReopen(t *testing.T) {
	w, path := open(t, Options{Flush: never, Shards: 2})
	w.Write(0, []byte("before\n"))
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	if err := w.Reopen(); err != nil {
		t.Fatal(err)
	}
	w.Write(0, []byte("after\n"))
	mustFlush(t, w)
	if a, b := content(t, path+".1"), content(t, path); a != "before\n" || b != "after\n" {
		t.Errorf("old %q, new %q", a, b)
	}
	// A directory in the way: the old file stays in use.
	if err := errors.Join(os.Rename(path, path+".2"), os.Mkdir(path, 0o700)); err != nil {
		t.Fatal(err)
	}
	if err := w.Reopen(); err == nil {
		t.Error("no error for a path that is a directory")
	}
	w.Write(0, []byte("still here\n"))
	mustFlush(t, w)
	if got := content(t, path+".2"); got != "after\nstill here\n" {
		t.Errorf("old %q", got)
	}
}

// TestBlockedSink writes far more than fits while nobody reads the pipe: it ends only if Write never waits.
func TestBlockedSink(t *testing.T) {
	r, p, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	var lost atomic.Int64
	w := start(p, "", Options{Buffer: 1 << 10, Flush: never, Shards: 1, Dropped: func(n int) { lost.Add(int64(n)) }})
	line := []byte(strings.Repeat("a", 99) + "\n")
	const lines = 20_000 // 2 MB; a pipe holds 64 KiB
	for range lines {
		w.Write(0, line)
	}
	if lost.Load() == 0 {
		t.Error("nothing was dropped")
	}
	got := make(chan []byte)
	go func() {
		b, _ := io.ReadAll(r)
		got <- b
	}()
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	text := <-got
	r.Close()
	if kept := bytes.Count(text, line); kept*len(line) != len(text) || kept+int(lost.Load()) != lines || kept < 20 {
		t.Errorf("%d lines in %d bytes kept, %d lost, of %d", kept, len(text), lost.Load(), lines)
	}
}

func TestCloseOfStuckSinkIsBounded(t *testing.T) {
	r, p, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var lost atomic.Int64
	w := start(p, "", Options{Buffer: 1 << 20, Flush: never, Wait: 10 * time.Millisecond, Dropped: func(n int) { lost.Add(int64(n)) }})
	line := []byte(strings.Repeat("a", 999) + "\n")
	for range 500 {
		w.Write(0, line)
	}
	if err := w.Flush(); err != ErrStuck {
		t.Errorf("Flush: %v", err)
	}
	if err := w.Close(); err != ErrStuck {
		t.Errorf("Close: %v", err)
	}
	text, err := io.ReadAll(r) // ends, because the writer's side was closed all the same
	if err != nil {
		t.Fatal(err)
	}
	if kept := bytes.Count(text, line); kept == 0 || kept+int(lost.Load()) != 500 {
		t.Errorf("%d whole lines kept, %d counted as lost, of 500", kept, lost.Load())
	}
}

func TestLineLongerThanBuffer(t *testing.T) {
	var lost atomic.Int64
	w, path := open(t, Options{Buffer: 8, Flush: never, Shards: 1, Dropped: func(n int) { lost.Add(int64(n)) }})
	w.Write(0, []byte("12345678"))
	w.Write(0, []byte("1234567"))
	mustFlush(t, w)
	if got := content(t, path); got != "1234567\n" || lost.Load() != 1 {
		t.Errorf("log %q, %d lost", got, lost.Load())
	}
}

// faulty is a sink that takes some bytes of the next writes and then fails or falls short.
type faulty struct {
	bytes.Buffer
	script []step
}

type step struct {
	take int
	err  error
}

func (f *faulty) Write(p []byte) (int, error) {
	if len(f.script) == 0 {
		return f.Buffer.Write(p)
	}
	s := f.script[0]
	f.script = f.script[1:]
	n, _ := f.Buffer.Write(p[:min(s.take, len(p))])
	return n, s.err
}

func (f *faulty) Close() error { return nil }

func TestWriteErrors(t *testing.T) {
	eio := errors.New("input/output error")
	for _, tc := range []struct {
		name   string
		script []step
		want   string
		lost   int64
		err    error
	}{
		{"none", nil, "a1\na2\nb1\nc1\n", 0, nil},
		{"nothing taken", []step{{0, eio}}, "b1\nc1\n", 2, eio},
		{"cut between lines", []step{{3, eio}}, "a1\nb1\nc1\n", 1, eio},
		{"cut inside a line", []step{{4, eio}}, "a1\na\nb1\nc1\n", 1, eio},
		{"short without error", []step{{1, nil}}, "a\nb1\nc1\n", 2, io.ErrShortWrite},
		{"cannot end the torn line", []step{{1, eio}, {0, eio}}, "a\nc1\n", 3, eio},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var lost int64 // touched by the writing goroutine, read after Close
			sink := &faulty{script: tc.script}
			w := start(sink, "", Options{Flush: never, Shards: 1, Dropped: func(n int) { lost += int64(n) }})
			w.Write(0, []byte("a1\n"))
			w.Write(0, []byte("a2\n"))
			if err := w.Flush(); !errors.Is(err, tc.err) {
				t.Errorf("Flush: %v, want %v", err, tc.err)
			}
			w.Write(0, []byte("b1\n"))
			w.Flush()
			w.Write(0, []byte("c1\n"))
			mustFlush(t, w) // a failure is reported once and does not stop the log
			w.Close()
			if got := sink.String(); got != tc.want || lost != tc.lost {
				t.Errorf("log %q, %d lost; want %q, %d", got, lost, tc.want, tc.lost)
			}
		})
	}
}

func TestWriteDoesNotAllocate(t *testing.T) {
	w, _ := open(t, Options{Buffer: 1 << 10})
	line := []byte(strings.Repeat("a", 200) + "\n")
	if n := testing.AllocsPerRun(1000, func() { w.Write(1, line) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkWrite(b *testing.B) {
	var lost atomic.Int64
	w, err := Open(filepath.Join(b.TempDir(), "log"), Options{Dropped: func(n int) { lost.Add(int64(n)) }})
	if err != nil {
		b.Fatal(err)
	}
	defer w.Close()
	line := []byte(strings.Repeat("a", 250) + "\n")
	var next atomic.Uint32
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		shard := next.Add(1)
		for i := 0; pb.Next(); i++ {
			w.Write(shard, line)
			if i%16 == 0 {
				runtime.Gosched() // requests yield to the network; without it the writing goroutine starves
			}
		}
	})
	b.ReportMetric(float64(lost.Load())/float64(b.N), "lost/op")
}
