package redis

import (
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"headgate/proxy/phase/limit"
	"headgate/proxy/phase/limit/redis/redistest"
)

// gateway counts with a ledger that is pushed when the test says so.
type gateway struct {
	*Ledger
	now *int64
}

func newGateway(t testing.TB, settings Settings, now *int64) *gateway {
	s := open(t, settings, patient)
	s.start()
	return &gateway{NewLedger(s, NewTallies(), func() int64 { return *now }, time.Hour), now}
}

func (g *gateway) take(s limit.Shape, times int) (passed int) {
	for range times {
		if g.Take([]byte("k"), s).OK {
			passed++
		}
	}
	return passed
}

func TestTallies(t *testing.T) {
	r := redistest.Start(t)
	now := time.Now().UnixNano()
	a, b := newGateway(t, single(t, r, ""), &now), newGateway(t, single(t, r, ""), &now)
	s := limit.Shape{Count: 100, Window: 60 * second}
	expect := func(what string, got, want int) {
		t.Helper()
		if got != want {
			t.Errorf("%s: %d, want %d", what, got, want)
		}
	}
	expect("a", a.take(s, 60), 60)
	if got := r.Do("exists", "k"); got != "0" {
		t.Error("was told at once")
	}
	a.push()
	if got := r.Do("get", "k"); got != "60" {
		t.Errorf("the key holds %s", got)
	}
	expect("b, which knows of itself only", b.take(s, 10), 10)
	b.push()
	expect("b, which knows of all", b.take(s, 100), 30)
	expect("a, which has not heard since", a.take(s, 10), 10)
	a.push() // 80, with what b has told
	expect("a", a.take(s, 100), 20)
	b.push() // 110
	a.push() // 130: the error is what came to a between its visits
	if got := r.Do("get", "k"); got != "130" {
		t.Errorf("the key holds %s", got)
	}
	q := a.Take([]byte("k"), s)
	if q.OK || q.Remaining != 0 || q.Reset <= 0 || q.Reset > 60*second {
		t.Errorf("%+v", q)
	}
	now += 61 * second
	r.Do("del", "k")
	expect("the next window", a.take(s, 200), 100)
}

// A window ends for everybody when it ends in the Redis.
func TestTallyLearnsTheEnd(t *testing.T) {
	r := redistest.Start(t)
	r.Do("set", "k", 5, "px", 10_000)
	now := time.Now().UnixNano()
	g := newGateway(t, single(t, r, ""), &now)
	s := limit.Shape{Count: 10, Window: 60 * second}
	g.take(s, 1)
	g.push()
	if q := g.Take([]byte("k"), s); !q.OK || q.Remaining != 3 || q.Reset > 10*second {
		t.Errorf("%+v", q)
	}
}

func TestSlidingTallies(t *testing.T) {
	r := redistest.Start(t)
	now := 1000 * 60 * second
	a, b := newGateway(t, single(t, r, ""), &now), newGateway(t, single(t, r, ""), &now)
	s := limit.Shape{Count: 100, Window: 60 * second, Sliding: true}
	if n := a.take(s, 200); n != 100 {
		t.Errorf("%d passed", n)
	}
	a.push()
	if got := r.Do("get", "k.1000.counter"); got != "100" {
		t.Errorf("the key holds %s", got)
	}
	now += 90 * second // half of it still counts
	if n := a.take(s, 200); n != 50 {
		t.Errorf("a: %d passed", n)
	}
	a.push()
	b.take(s, 1)
	b.push()
	if n := b.take(s, 200); n != 0 {
		t.Errorf("b: %d passed", n)
	}
	if ttl, _ := strconv.Atoi(r.Do("ttl", "k.1001.counter")); ttl < 100 || ttl > 120 {
		t.Errorf("it ends in %d s", ttl)
	}
}

// Without the Redis each gateway counts what it sees, and tells it later.
func TestTalliesWithoutRedis(t *testing.T) {
	r := redistest.Start(t)
	r.Kill()
	now := time.Now().UnixNano()
	g := newGateway(t, single(t, r, ""), &now)
	s := limit.Shape{Count: 100, Window: 3600 * second}
	if n := g.take(s, 50); n != 50 {
		t.Errorf("%d passed", n)
	}
	redistest.Eventually(t, func() bool { return g.server.away.Load() })
	g.push()
	if n := g.take(s, 100); n != 50 {
		t.Errorf("%d passed", n)
	}
	r.Restart()
	redistest.Eventually(t, func() bool { return !g.server.away.Load() })
	g.push()
	if got := r.Do("get", "k"); got != "100" {
		t.Errorf("the key holds %s", got)
	}
}

// Nothing that passed is forgotten, whatever comes together; and without anybody else the limit is exact.
func TestTalliesTogether(t *testing.T) {
	r := redistest.Start(t)
	now := time.Now().UnixNano()
	g := newGateway(t, single(t, r, ""), &now)
	g.interval = time.Millisecond
	stop := make(chan struct{})
	var running, done sync.WaitGroup
	running.Go(func() { g.Run(stop) })
	var passed [4]atomic.Int64
	for range 16 {
		done.Go(func() {
			for i := range 400 {
				k := i % len(passed)
				if g.Take(fmt.Appendf(nil, "key %d", k), limit.Shape{Count: 500, Window: 3600 * second}).OK {
					passed[k].Add(1)
				}
			}
		})
	}
	done.Wait()
	close(stop)
	running.Wait()
	for k := range passed {
		if n, told := passed[k].Load(), r.Do("get", fmt.Sprint("key ", k)); n != 500 || told != "500" {
			t.Errorf("%d passed, %s were told", n, told)
		}
	}
}
