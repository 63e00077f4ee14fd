package leaktest

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
	"time"
)

// fakeTest is a test that ends when we say so.
type fakeTest struct {
	testing.TB
	name     string
	failed   bool
	cleanups []func()
	errors   []string
}

func (f *fakeTest) Name() string              { return f.name }
func (f *fakeTest) Failed() bool              { return f.failed }
func (f *fakeTest) Cleanup(c func())          { f.cleanups = append(f.cleanups, c) }
func (f *fakeTest) Errorf(s string, a ...any) { f.errors = append(f.errors, fmt.Sprintf(s, a...)) }

// end runs what a test runs at its end, last first.
func (f *fakeTest) end() {
	for _, c := range slices.Backward(f.cleanups) {
		c()
	}
}

const (
	// short is how long a leak that stays is waited for, long is for what goes away.
	short, long = 20 * time.Millisecond, 30 * time.Second
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func stuck(end chan struct{}) { <-end }

func TestCheck(t *testing.T) {
	file := filepath.Join(t.TempDir(), "left.log")
	peer := must(net.Listen("tcp", "127.0.0.1:0"))
	defer peer.Close()
	for _, tt := range []struct {
		name string
		// leak makes something and returns what ends it.
		leak func() func()
		want string
	}{
		{"goroutine", func() func() {
			end := make(chan struct{})
			go stuck(end)
			return func() { close(end) }
		}, `proxy/leaktest\.stuck`},
		{"file", func() func() {
			f := must(os.Create(file))
			return func() { f.Close() }
		}, `descriptor \d+ ` + regexp.QuoteMeta(file)},
		{"listener", func() func() {
			l := must(net.Listen("tcp", "[::]:0"))
			return func() { l.Close() }
		}, `descriptor \d+ socket:\[\d+\] listening on \[::\]:\d+`},
		{"connection", func() func() {
			c := must(net.Dial("tcp", peer.Addr().String()))
			return func() { c.Close() }
		}, `descriptor \d+ socket:\[\d+\] from 127\.0\.0\.1:\d+ to ` + regexp.QuoteMeta(peer.Addr().String())},
		{"the second of a kind", func() func() {
			f := must(os.Open("/dev/null"))
			return func() { f.Close() }
		}, `descriptor \d+ /dev/null`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var w watch
			f := &fakeTest{TB: t, name: "TestSomething"}
			w.check(f, short)
			release := tt.leak()
			f.end()
			if len(f.errors) != 1 || !regexp.MustCompile(`^TestSomething left behind:\n(?s:.*)`+tt.want).MatchString(f.errors[0]) {
				t.Errorf("it says %q, want %s", f.errors, tt.want)
			}
			// What is there already is not held against the next one, and what is closed by a later cleanup is not left.
			next := &fakeTest{TB: t, name: "TestNext"}
			w.check(next, long)
			next.Cleanup(tt.leak())
			if next.end(); len(next.errors) > 0 {
				t.Errorf("nothing was left, and it says %q", next.errors)
			}
			release()
		})
	}
}

// What ends soon after the test has is waited for.
func TestCheckWaits(t *testing.T) {
	var w watch
	f := &fakeTest{TB: t, name: "TestSomething"}
	w.check(f, long)
	end, looked := make(chan struct{}), make(chan struct{})
	go stuck(end)
	go func() {
		defer close(looked)
		f.end()
	}()
	time.Sleep(short) // most likely it has looked; if not, nothing is wrong
	close(end)
	if <-looked; len(f.errors) > 0 {
		t.Errorf("it says %q", f.errors)
	}
}

// Of tests that run at the same time, the last one that ends looks for all.
func TestCheckShared(t *testing.T) {
	var w watch
	first, second := &fakeTest{TB: t, name: "TestFirst"}, &fakeTest{TB: t, name: "TestSecond"}
	w.check(first, short)
	end := make(chan struct{})
	go stuck(end)
	w.check(second, short)
	if first.end(); len(first.errors) > 0 {
		t.Errorf("the first one says %q", first.errors)
	}
	second.end()
	if len(second.errors) != 1 || !regexp.MustCompile(`^TestFirst, TestSecond left behind:`).MatchString(second.errors[0]) {
		t.Errorf("the last one says %q", second.errors)
	}
	failed := &fakeTest{TB: t, name: "TestFailed", failed: true}
	w.check(failed, long)
	if w.open != 1 {
		t.Errorf("%d tests are open", w.open)
	}
	if failed.end(); len(failed.errors) > 0 || w.open != 0 {
		t.Errorf("a test that has failed says %q, %d are open", failed.errors, w.open)
	}
	close(end)
}
