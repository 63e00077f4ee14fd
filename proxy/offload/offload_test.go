package offload

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func open(t *testing.T, size int) (*Pool, *atomic.Int64) {
	t.Helper()
	var panics atomic.Int64
	p, err := New(size, func(any) { panics.Add(1) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close(time.Second) })
	return p, &panics
}

func TestBoundIsKept(t *testing.T) {
	p, _ := open(t, 2)
	hold := make(chan struct{})
	var running sync.WaitGroup
	for range 2 {
		running.Add(1)
		if !p.Try(func() { running.Done(); <-hold }) {
			t.Fatal("a free worker was not used")
		}
	}
	running.Wait()
	if p.Try(func() { t.Error("ran though there was no worker") }) {
		t.Error("a third task was taken by two workers")
	}
	here := false
	p.Do(func() { here = true }) // unsynchronised: it must have run on this goroutine
	if !here {
		t.Error("Do dropped a task")
	}
	close(hold)
}

func TestPanicsAreReported(t *testing.T) {
	p, panics := open(t, 1)
	done := make(chan struct{})
	p.Do(func() { defer close(done); panic("on a worker") })
	<-done
	hold, running := make(chan struct{}), make(chan struct{})
	for !p.Try(func() { close(running); <-hold }) { // until the worker is free again
		time.Sleep(time.Millisecond)
	}
	<-running
	p.Do(func() { panic("right here") })
	close(hold)
	for range 1000 { // a worker counts as free a little before its panic has been reported
		if panics.Load() == 2 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if panics.Load() != 2 {
		t.Errorf("%d panics were reported, want 2", panics.Load())
	}
}

func TestClosedPool(t *testing.T) {
	p, _ := open(t, 1)
	var ran atomic.Bool
	p.Do(func() { time.Sleep(20 * time.Millisecond); ran.Store(true) })
	if err := p.Close(time.Second); err != nil {
		t.Fatal(err)
	}
	if !ran.Load() {
		t.Error("Close did not wait for the task that ran")
	}
	if p.Try(func() {}) {
		t.Error("a closed pool took a task")
	}
	here := false
	p.Do(func() { here = true })
	if !here {
		t.Error("Do dropped a task")
	}
}

func TestCloseIsBounded(t *testing.T) {
	p, _ := open(t, 1)
	hold := make(chan struct{})
	defer close(hold)
	p.Do(func() { <-hold })
	if err := p.Close(10 * time.Millisecond); err == nil {
		t.Error("a task still runs, and nobody says so")
	}
}
