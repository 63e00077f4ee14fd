// Package leaktest shows what a test that runs servers in its own process leaves behind: goroutines and open descriptors. It is imported by
// tests only.
package leaktest

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// Foreign are the goroutines that belong to libraries and not to a test: what fasthttp leaves behind, one clock for all servers of a process,
// and for each server that was shut down a cleaner that wakes up within ten seconds and ends.
func Foreign() []goleak.Option {
	return []goleak.Option{
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.updateServerDate.func1"),
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.(*workerPool).Start.func2"),
	}
}

// watch is one check, shared by all tests that run at the same time: goroutines and descriptors are the process's, and nothing says which
// test has opened one.
type watch struct {
	mu         sync.Mutex
	tests      []string // that have begun since there was none, oldest first
	open       int      // those of them that have not ended
	goroutines goleak.Option
	files      map[string]int
}

// shared is the process's: this is state of a process, not of a test.
var shared watch

// Check sees to it that at t's end there is no goroutine and no descriptor that was not there when Check was called. Everything that was
// made for t later is closed before it looks; things get patience to end. While other checked tests run, the last one that ends looks for
// all of them; tests in parallel therefore need a Check in their parent, or one looks while another still closes what it made before its
// Check. A test that has failed is not checked: it did not come to its end.
func Check(t testing.TB, patience time.Duration) {
	t.Helper()
	shared.check(t, patience)
}

func (w *watch) check(t testing.TB, patience time.Duration) {
	t.Helper()
	if err := w.begin(t.Name()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		t.Helper()
		if tests, left := w.end(patience, t.Failed()); left != "" {
			t.Errorf("%s left behind:\n%s", strings.Join(tests, ", "), left)
		}
	})
}

func (w *watch) begin(test string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.open == 0 {
		files, err := baseline()
		if err != nil {
			return err
		}
		w.tests, w.files, w.goroutines = nil, files, goleak.IgnoreCurrent()
	}
	w.open++
	if !slices.Contains(w.tests, test) {
		w.tests = append(w.tests, test)
	}
	return nil
}

// end returns what is left when the last test has ended, and the tests that may have left it.
func (w *watch) end(patience time.Duration, failed bool) (tests []string, left string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.open--; w.open > 0 || failed {
		return nil, ""
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		if left = w.left(); left == "" || time.Now().After(deadline) {
			return w.tests, left
		}
	}
}

// left describes what was not there when the first of the tests began.
func (w *watch) left() string {
	var out strings.Builder
	if err := goleak.Find(append(Foreign(), w.goroutines)...); err != nil {
		fmt.Fprintf(&out, "%v\n", err)
	}
	more, err := descriptorsSince(w.files)
	if err != nil {
		return err.Error()
	}
	for _, d := range more {
		fmt.Fprintf(&out, "descriptor %s\n", d)
	}
	return out.String()
}
