package redis

import (
	"fmt"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"headgate/proxy/phase/limit"
	"headgate/proxy/phase/limit/redis/redistest"
	"headgate/proxy/phase/phasetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patient is a wait for what is about counts: the machine of a test may be busy.
const patient = 5 * time.Second

const second = int64(time.Second)

func settingsOf(t testing.TB, conf string) Settings {
	t.Helper()
	doc, err := limit.Decode([]byte(conf))
	if err != nil {
		t.Fatal(err)
	}
	s, ok := Read(doc)
	if !ok {
		t.Fatalf("%s is local", conf)
	}
	return s
}

func single(t testing.TB, s *redistest.Server, more string) Settings {
	return settingsOf(t, fmt.Sprintf(`{"policy":"redis","redis_host":"127.0.0.1","redis_port":%d%s}`, s.Port, more))
}

// open returns a server of a pool of its own, as another gateway has.
func open(t testing.TB, s Settings, wait time.Duration) *Server {
	server := NewPool("plugin-limit-count:v1:", wait).Acquire(s)
	t.Cleanup(server.Release)
	return server
}

func take(t testing.TB, s *Server, key string, shape limit.Shape) limit.Quota {
	t.Helper()
	q, err := s.Window([]byte(key), shape)
	if err != nil {
		t.Fatalf("%s: %v", key, err)
	}
	return q
}

func TestFixedWindow(t *testing.T) {
	r := redistest.Start(t)
	s := open(t, single(t, r, ""), patient)
	shape := limit.Shape{Count: 2, Window: 60 * second}
	for i, want := range []string{"true 1", "true 0", "false 0", "false 0"} {
		q := take(t, s, "plugin-limit-count:v1:a", shape)
		if got := fmt.Sprint(q.OK, q.Remaining); strings.ReplaceAll(got, "  ", " ") != want || q.Reset > 60*second || q.Reset < 30*second {
			t.Errorf("request %d: %s, reset %v; want %s", i, got, time.Duration(q.Reset), want)
		}
	}
	if got := r.Do("get", "plugin-limit-count:v1:a"); got != "4" {
		t.Errorf("the key holds %s", got)
	}
	// A key that lost its end, as a restored one does, gets it back.
	r.Do("persist", "plugin-limit-count:v1:a")
	take(t, s, "plugin-limit-count:v1:a", shape)
	if ttl, _ := strconv.Atoi(r.Do("ttl", "plugin-limit-count:v1:a")); ttl < 30 || ttl > 60 {
		t.Errorf("the key ends in %d s", ttl)
	}
	// The next window begins with the next request.
	short := limit.Shape{Count: 1, Window: second}
	take(t, s, "b", short)
	r.Do("pexpire", "b", 1)
	redistest.Eventually(t, func() bool { return r.Do("exists", "b") == "0" })
	if q := take(t, s, "b", short); !q.OK {
		t.Errorf("the window has not ended: %+v", q)
	}
}

func TestSlidingWindow(t *testing.T) {
	r := redistest.Start(t)
	s := open(t, single(t, r, ""), patient)
	const hour = 3600 * second // no window ends during the test but with a chance that is small
	shape := limit.Shape{Count: 4, Window: hour, Sliding: true}
	var passed int
	for range 6 {
		if take(t, s, "k", shape).OK {
			passed++
		}
	}
	if passed != 4 {
		t.Errorf("%d passed", passed)
	}
	now, _ := strconv.ParseInt(strings.Fields(strings.Trim(r.Do("time"), "[]"))[0], 10, 64)
	id := now / 3600
	key := fmt.Sprintf("k.%d.counter", id)
	if got := r.Do("get", key); got != "4" { // refusals do not count
		t.Errorf("%s holds %s", key, got)
	}
	if ttl, _ := strconv.Atoi(r.Do("ttl", key)); ttl < 7000 || ttl > 7200 {
		t.Errorf("it ends in %d s", ttl)
	}
	// The window before counts with the share that is left.
	rest := float64(3600-now%3600) / 3600
	r.Do("set", fmt.Sprintf("j.%d.counter", id-1), 1000)
	wide := limit.Shape{Count: 1000, Window: hour, Sliding: true}
	q := take(t, s, "j", wide)
	if want := 1000 - 1 - 1000*rest; rest > 0.01 && rest < 0.99 && (float64(q.Remaining) < want-10 || float64(q.Remaining) > want+10) {
		t.Errorf("remaining %d, want about %.0f", q.Remaining, want)
	}
	r.Do("set", fmt.Sprintf("i.%d.counter", id-1), 1<<40) // counts as the limit at most
	r.Do("set", fmt.Sprintf("i.%d.counter", id), 999)
	if q = take(t, s, "i", wide); rest > 0.01 && (q.OK || q.Reset < 1 || q.Reset > hour) {
		t.Errorf("%+v", q)
	}
}

// A limit of N passes exactly N, from three gateways with many goroutines each.
func TestExact(t *testing.T) {
	r := redistest.Start(t)
	for _, sliding := range []bool{false, true} {
		shape := limit.Shape{Count: 500, Window: 86400 * 365 * second, Sliding: sliding}
		var passed, failed atomic.Int64
		var done sync.WaitGroup
		for range 3 {
			s := open(t, single(t, r, ""), patient)
			for range 16 {
				done.Go(func() {
					for range 25 {
						q, err := s.Window([]byte(fmt.Sprint("exact", sliding)), shape)
						if err != nil {
							failed.Add(1)
						} else if q.OK {
							passed.Add(1)
						}
					}
				})
			}
		}
		done.Wait()
		if passed.Load() != 500 || failed.Load() != 0 {
			t.Errorf("sliding %v: %d passed, %d failed", sliding, passed.Load(), failed.Load())
		}
	}
}

func TestBucket(t *testing.T) {
	r := redistest.Start(t)
	a, b := open(t, single(t, r, ""), patient), open(t, single(t, r, ""), patient)
	rate := limit.PerSecond(0.001, 2.5)
	for i, want := range []int64{0, 1000, 2000, -1, -1} {
		s := a
		if i%2 == 1 {
			s = b
		}
		wait, ok, err := s.Bucket([]byte("k"), rate)
		if err != nil || ok != (want >= 0) || ok && (wait > want*second || wait < want*second-10*second) {
			t.Errorf("request %d: %v %v %v, want %d s", i, time.Duration(wait), ok, err, want)
		}
	}
	if ttl, _ := strconv.Atoi(r.Do("ttl", "k")); ttl < 2980 || ttl > 3000 {
		t.Errorf("the key ends in %d s", ttl)
	}
	if _, ok, err := a.Bucket([]byte("slow"), limit.PerSecond(1e-300, 0)); !ok || err != nil {
		t.Errorf("the slowest rate: %v %v", ok, err)
	}
}

func TestVisits(t *testing.T) {
	r := redistest.Start(t)
	a, b := open(t, single(t, r, ""), patient), open(t, single(t, r, ""), patient)
	enter := func(s *Server, want int64) *Visit {
		t.Helper()
		v, n, err := s.Enter([]byte("k"), 2, 60_000)
		if err != nil || n != want {
			t.Errorf("%d %v, want %d", n, err, want)
		}
		return v
	}
	first, second := enter(a, 1), enter(b, 2)
	if v := enter(a, 2); v != nil {
		t.Error("a third came in")
	}
	if ttl, _ := strconv.Atoi(r.Do("ttl", "k")); ttl < 50 || ttl > 60 {
		t.Errorf("the key ends in %d s", ttl)
	}
	first.Leave()
	redistest.Eventually(t, func() bool { return r.Do("zcard", "k") == "1" })
	third := enter(b, 2)
	second.Leave()
	third.Leave()
	redistest.Eventually(t, func() bool { return r.Do("exists", "k") == "0" })

	// Who never leaves is forgotten after a while.
	for range 2 {
		if _, _, err := a.Enter([]byte("j"), 2, 1); err != nil {
			t.Fatal(err)
		}
	}
	redistest.Eventually(t, func() bool { v, _, _ := a.Enter([]byte("j"), 1, 1); return v != nil })
}

// An edit of a route does not open connections anew, and the last who goes closes them.
func TestServersAreShared(t *testing.T) {
	r := redistest.Start(t)
	p := NewPool("p:", patient)
	a, b := p.Acquire(single(t, r, "")), p.Acquire(single(t, r, `,"count":5,"redis_timeout":1000`))
	if a != b || p.Len() != 1 {
		t.Error("the same Redis twice")
	}
	for _, other := range []string{`,"redis_database":1`, `,"redis_password":"x"`, `,"redis_timeout":999`, `,"redis_ssl":true`} {
		c := p.Acquire(single(t, r, other))
		if c == a {
			t.Errorf("%s is shared", other)
		}
		c.Release()
	}
	a.Release()
	take(t, b, "k", limit.Shape{Count: 1, Window: second})
	b.Release()
	if p.Len() != 0 {
		t.Errorf("%d servers are left", p.Len())
	}
	redistest.Eventually(t, func() bool { return strings.Contains(r.Do("info", "clients"), "connected_clients:1\r") })
}

func TestSecretsAreNotPrinted(t *testing.T) {
	s := settingsOf(t, `{"policy":"redis-sentinel","redis_sentinels":[{"host":"h","port":1}],"redis_master_name":"m","redis_password":"canary",
		"redis_username":"bird","sentinel_password":"canary"}`)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
		got := fmt.Sprintf(verb, s) + fmt.Sprintf(verb, &s) + fmt.Sprintf(verb, struct{ S Settings }{s})
		if strings.Contains(got, "canary") || strings.Contains(got, "bird") {
			t.Errorf("%s: %s", verb, got)
		}
	}
	if got := s.String(); got != "redis-sentinel m h:1/0" {
		t.Errorf("%s", got)
	}
}

// Names are the contract's; whatever a request says, it cannot make its key that of somebody else.
func TestNames(t *testing.T) {
	p := NewPool("plugin-limit-count:v1:", patient)
	key, err := limit.NewKey("var", "http_x_a")
	if err != nil {
		t.Fatal(err)
	}
	name := func(n Names, value string) string {
		return string(n.Append(nil, phasetest.Exchange("GET /", "X-A: "+value), &key))
	}
	of := func(owner, conf string) Names {
		n, err := p.Names(owner, []byte(conf), false)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	conf := `{"count":1,"time_window":60}`
	a := name(of("routes/1", conf), "x")
	if !regexp.MustCompile(`^plugin-limit-count:v1:/apisix/routes/1:\d+:x$`).MatchString(a) {
		t.Errorf("%s", a)
	}
	for _, same := range []string{`{"time_window":60,"count":1,"_meta":{}}`, `{"count":1,"time_window":60,"redis_host":"a","redis_password":"b"}`} {
		if got := name(of("routes/1", same), "x"); got != a {
			t.Errorf("%s: %s", same, got)
		}
	}
	if name(of("routes/1", `{"count":2,"time_window":60}`), "x") == a || name(of("routes/1", conf).Part(1), "x") == a {
		t.Error("another limit has the same key")
	}
	for _, tt := range []struct{ group, value, want string }{
		{"g", "x", "plugin-limit-count:v1:g:x"},
		{"g:h", "x", "plugin-limit-count:v1:g%3Ah:x"},
		{"g", "h:x", "plugin-limit-count:v1:g:h:x"},
		{"g%3Ah", "x", "plugin-limit-count:v1:g%253Ah:x"},
	} {
		if got := name(p.NamesOfGroup(tt.group, false), tt.value); got != tt.want {
			t.Errorf("group %s, key %s: %s", tt.group, tt.value, got)
		}
	}
	long := strings.Repeat("y", maxKey)
	if got := name(p.NamesOfGroup("g", false), long); !strings.HasSuffix(got, ":"+long) {
		t.Errorf("%s", got)
	}
	if got := name(p.NamesOfGroup("g", false), long+"y"); !regexp.MustCompile(`^plugin-limit-count:v1:g:sha256:[0-9a-f]{64}$`).MatchString(got) {
		t.Errorf("%s", got)
	}
	if got := name(p.NamesOfGroup("g", true), "}x"); got != "{plugin-limit-count:v1:g:}x}" {
		t.Errorf("%s", got)
	}
}

// BenchmarkWindow is what a request waits for a Redis on the same machine.
func BenchmarkWindow(b *testing.B) {
	r := redistest.Start(b)
	for _, sliding := range []bool{false, true} {
		for _, clients := range []int{1, 32} {
			b.Run(fmt.Sprintf("sliding=%v/clients=%d", sliding, clients), func(b *testing.B) {
				s := open(b, single(b, r, ""), patient)
				shape := limit.Shape{Count: limit.Largest, Window: 3600 * second, Sliding: sliding}
				var mu sync.Mutex
				var took []time.Duration
				take(b, s, "k", shape)
				b.ReportAllocs()
				b.SetParallelism(max(clients/runtime.GOMAXPROCS(0), 1))
				each := func(next func() bool) {
					var own []time.Duration
					for next() {
						start := time.Now()
						take(b, s, "k", shape)
						own = append(own, time.Since(start))
					}
					mu.Lock()
					took = append(took, own...)
					mu.Unlock()
				}
				if clients == 1 {
					each(b.Loop)
				} else {
					b.RunParallel(func(p *testing.PB) { each(p.Next) })
				}
				slices.Sort(took)
				for name, q := range map[string]float64{"p50-ns": 0.5, "p99-ns": 0.99} {
					b.ReportMetric(float64(took[int(q*float64(len(took)-1))]), name)
				}
			})
		}
	}
}
