package redis

import (
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"headgate/proxy/phase/limit"
	"headgate/proxy/phase/limit/redis/redistest"
)

// load asks for the limit of one key from several goroutines until it is ended.
type load struct {
	server          *Server
	passed, refused atomic.Int64
	failed          atomic.Int64
	stop            chan struct{}
	done            sync.WaitGroup
	mu              sync.Mutex
	took            []time.Duration
}

const loaders = 32

func begin(s *Server, key string) *load {
	l := &load{server: s, stop: make(chan struct{})}
	for range loaders {
		l.done.Go(func() {
			var took []time.Duration
			for {
				select {
				case <-l.stop:
					l.mu.Lock()
					l.took = append(l.took, took...)
					l.mu.Unlock()
					return
				case <-time.After(time.Millisecond): // the rate of a gateway, not of a benchmark
				}
				start := time.Now()
				q, err := s.Window([]byte(key), limit.Shape{Count: 1 << 40, Window: 86400 * second})
				took = append(took, time.Since(start))
				switch {
				case err != nil:
					l.failed.Add(1)
				case q.OK:
					l.passed.Add(1)
				default:
					l.refused.Add(1)
				}
			}
		})
	}
	return l
}

// until waits until the load has been one of its numbers has grown by more.
func (l *load) until(t *testing.T, n *atomic.Int64, more int64) {
	t.Helper()
	goal := n.Load() + more
	redistest.Eventually(t, func() bool { return n.Load() >= goal })
}

// end ends the load and checks that no request waited for as long as the client itself would. That is a hundred times what it may wait: the
// machine may be busy.
func (l *load) end(t *testing.T) {
	t.Helper()
	close(l.stop)
	l.done.Wait()
	slices.Sort(l.took)
	p := func(q float64) time.Duration { return l.took[int(q*float64(len(l.took)-1))] }
	t.Logf("%d requests, %d not counted: p50 %v, p99 %v, p99.9 %v, longest %v", len(l.took), l.failed.Load(), p(0.5), p(0.99), p(0.999), p(1))
	if p(1) >= longest {
		t.Errorf("a request waited for %v", p(1))
	}
}

// counted checks the key against what was told to requests: whatever passed is in it, and besides that only what was on its way when the
// server went away, times times.
func (l *load) counted(t *testing.T, r *redistest.Server, key string, times int64) {
	t.Helper()
	n, _ := strconv.ParseInt(r.Do("get", key), 10, 64)
	if passed := l.passed.Load(); n < passed || n > passed+times*loaders {
		t.Errorf("%d are counted, %d have passed", n, passed)
	}
}

func TestPaused(t *testing.T) {
	r := redistest.Start(t)
	s := open(t, single(t, r, `,"redis_timeout":60000`), 20*time.Millisecond)
	l := begin(s, "k")
	l.until(t, &l.passed, 500)
	r.Pause()
	before := runtime.NumGoroutine()
	l.until(t, &l.failed, 1000)
	if after := runtime.NumGoroutine(); after > before+2*maxWorkers {
		t.Errorf("%d goroutines more", after-before)
	}
	r.Resume()
	l.until(t, &l.passed, 500)
	l.end(t)
	l.counted(t, r, "k", 4)
}

func TestKilled(t *testing.T) {
	r := redistest.Start(t)
	s := open(t, single(t, r, ""), 20*time.Millisecond)
	l := begin(s, "k")
	l.until(t, &l.passed, 500)
	r.Kill()
	l.until(t, &l.failed, 1000)
	passed := l.passed.Load()
	r.Restart() // empty
	l.until(t, &l.passed, 500)
	l.end(t)
	l.passed.Add(-passed)
	l.counted(t, r, "k", 4)
}

// A server that was never there costs nothing, and is used when it comes.
func TestComesLater(t *testing.T) {
	r := redistest.Start(t)
	r.Kill()
	s := open(t, single(t, r, ""), 20*time.Millisecond)
	l := begin(s, "k")
	l.until(t, &l.failed, 500)
	r.Restart()
	l.until(t, &l.passed, 500)
	l.end(t)
	l.counted(t, r, "k", 4)
}

// relay stands between a client and a server and is as slow as the test says.
type relay struct {
	*redistest.Server
	port  int
	delay atomic.Int64
}

func newRelay(t *testing.T, r *redistest.Server) *relay {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	y := &relay{Server: r, port: l.Addr().(*net.TCPAddr).Port}
	var done sync.WaitGroup
	pipe := func(from, to net.Conn, slow bool) {
		defer from.Close()
		defer to.Close()
		b := make([]byte, 64<<10)
		for {
			n, err := from.Read(b)
			if slow {
				time.Sleep(time.Duration(y.delay.Load()))
			}
			if _, failed := to.Write(b[:n]); err != nil || failed != nil {
				return
			}
		}
	}
	done.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", r.Addr())
			if err != nil {
				_ = client.Close()
				continue
			}
			done.Go(func() { pipe(client, server, false) })
			done.Go(func() { pipe(server, client, true) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		done.Wait()
	})
	return y
}

func TestSlow(t *testing.T) {
	y := newRelay(t, redistest.Start(t))
	s := open(t, settingsOf(t, fmt.Sprintf(`{"policy":"redis","redis_host":"127.0.0.1","redis_port":%d}`, y.port)), 20*time.Millisecond)
	l := begin(s, "k")
	l.until(t, &l.passed, 500)
	y.delay.Store(int64(200 * time.Millisecond))
	l.until(t, &l.failed, 1000)
	passed := l.passed.Load()
	l.until(t, &l.failed, 1000)
	if n := l.passed.Load() - passed; n > loaders {
		t.Errorf("%d were counted in time", n)
	}
	y.delay.Store(0)
	l.until(t, &l.passed, 500)
	l.end(t)
	l.counted(t, y.Server, "k", 20)
}

// A server that answers but does not let us write is away as well, until it does.
func TestRefusals(t *testing.T) {
	r := redistest.Start(t)
	s := open(t, single(t, r, `,"redis_password":"canary"`), patient)
	take := func() error {
		_, err := s.Window([]byte("k"), limit.Shape{Count: 1 << 40, Window: 3600 * second})
		if err != nil && strings.Contains(err.Error(), "canary") {
			t.Errorf("the error tells the password: %v", err)
		}
		return err
	}
	for _, trouble := range []struct{ begin, end []any }{
		{[]any{"replicaof", "127.0.0.1", "1"}, []any{"replicaof", "no", "one"}},
		{[]any{"config", "set", "maxmemory", "1"}, []any{"config", "set", "maxmemory", "0"}},
		{[]any{"acl", "setuser", "default", "-eval", "-evalsha"}, []any{"acl", "setuser", "default", "+eval", "+evalsha"}},
	} {
		r.Do("config", "set", "requirepass", "canary")
		redistest.Eventually(t, func() bool { return take() == nil })
		r.Do("config", "set", "requirepass", "")
		r.Do(trouble.begin...)
		redistest.Eventually(t, func() bool { return errors.Is(take(), ErrAway) })
		r.Do(trouble.end...)
		redistest.Eventually(t, func() bool { return take() == nil })
	}
	r.Do("script", "flush") // as after a restart: nothing is lost
	before := r.Do("get", "k")
	if err := take(); err != nil {
		t.Error(err)
	}
	if a, _ := strconv.Atoi(before); r.Do("get", "k") != strconv.Itoa(a+1) {
		t.Errorf("%s is followed by %s", before, r.Do("get", "k"))
	}
	r.Do("del", "k")
	r.Do("sadd", "k", "something else")
	if err := take(); err == nil || s.away.Load() {
		t.Errorf("a key of another kind: %v, away %v", err, s.away.Load())
	}
}

// Who leaves while the server is away has left when it is back, and nobody whose answer came too late stays.
func TestVisitsEndLater(t *testing.T) {
	r := redistest.Start(t)
	s := open(t, single(t, r, `,"redis_timeout":60000`), 50*time.Millisecond)
	var inside []*Visit
	redistest.Eventually(t, func() bool {
		v, _, err := s.Enter([]byte("k"), 100, 3600_000)
		if err == nil {
			inside = append(inside, v)
		}
		return len(inside) == 5
	})
	r.Pause()
	redistest.Eventually(t, func() bool {
		_, _, err := s.Enter([]byte("k"), 100, 3600_000)
		return errors.Is(err, ErrAway)
	})
	for _, v := range inside {
		v.Leave()
	}
	r.Resume()
	redistest.Eventually(t, func() bool { return r.Do("exists", "k") == "0" })
}

func TestTLS(t *testing.T) {
	r := redistest.StartTLS(t)
	host := `{"policy":"redis","redis_host":"127.0.0.1","redis_port":` + strconv.Itoa(r.TLSPort)
	open := func(more string) error {
		p := NewPool("p:", patient)
		s := p.Acquire(settingsOf(t, host+more))
		defer s.Release()
		_, err := s.Window([]byte("k"), limit.Shape{Count: 9, Window: second})
		return err
	}
	if err := open(`,"redis_ssl":true}`); err != nil {
		t.Errorf("TLS: %v", err)
	}
	if err := open(`,"redis_ssl":true,"redis_ssl_verify":true}`); err == nil {
		t.Error("a certificate of nobody was accepted")
	}
	if err := open(`}`); err == nil {
		t.Error("went without TLS")
	}
}

// What accepts connections and says nothing does not keep anybody who leaves.
func TestCloseIsBounded(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var done sync.WaitGroup
	done.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			done.Go(func() { _, _ = io.Copy(io.Discard, c); _ = c.Close() })
		}
	})
	p := NewPool("p:", time.Millisecond)
	s := p.Acquire(settingsOf(t, fmt.Sprintf(`{"policy":"redis","redis_host":"127.0.0.1","redis_port":%d,"redis_timeout":60000}`, l.Addr().(*net.TCPAddr).Port)))
	if _, err := s.Window([]byte("k"), limit.Shape{Count: 9, Window: second}); err == nil {
		t.Error("an answer out of nothing")
	}
	s.Release() // does not wait for what will never come
	_ = l.Close()
	done.Wait()
}
