package limitcount

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"headgate/proxy/phase"
	"headgate/proxy/phase/limit/redis/redistest"
	"headgate/proxy/phase/phasetest"
)

// asGateway is the environment of a process that plays a gateway: see TestExactAcrossProcesses.
const asGateway = "HEADGATE_TEST_LIMIT_COUNT"

func TestMain(m *testing.M) {
	if conf := os.Getenv(asGateway); conf != "" {
		playGateway(conf)
		return
	}
	goleak.VerifyTestMain(m)
}

// patient is a wait for what is about counts: the machine of a test may be busy.
const patient = 5 * time.Second

// gateway is a process's plugin, whose goroutines run.
type gateway struct {
	*counters
	t       testing.TB
	stop    chan struct{}
	running sync.WaitGroup
	plugins []*plugin
}

func newGateway(t testing.TB, wait time.Duration) *gateway {
	g := &gateway{counters: newCounters(wait), t: t, stop: make(chan struct{})}
	t.Cleanup(func() {
		close(g.stop)
		g.running.Wait()
		for _, p := range g.plugins {
			p.Close()
		}
		if n := g.pool.Len(); n != 0 {
			t.Errorf("%d servers are still in use", n)
		}
	})
	return g
}

func (g *gateway) build(owner, conf string) *plugin {
	g.t.Helper()
	e := phasetest.Env{OwnerKey: owner}
	p := e.Build(g.t, g.kind(), conf).(*plugin)
	for _, f := range e.Started {
		g.running.Go(func() { f(g.stop) })
	}
	g.plugins = append(g.plugins, p)
	return p
}

func withRedis(r *redistest.Server, conf string) string {
	return strings.Replace(conf, "{", fmt.Sprintf(`{"policy":"redis","redis_host":"127.0.0.1","redis_port":%d,`, r.Port), 1)
}

// playGateway lets many requests ask for the limit of conf and prints how many passed.
func playGateway(conf string) {
	c := newCounters(patient)
	k := c.kind()
	e := phasetest.Env{}
	built, err := k.Build([]byte(conf), &e)
	if err != nil {
		panic(err)
	}
	p := built.(*plugin)
	var passed atomic.Int64
	var done sync.WaitGroup
	for range 16 {
		done.Go(func() {
			for range 25 {
				if p.Access(phasetest.Exchange("GET /")) == phase.Continue {
					passed.Add(1)
				}
			}
		})
	}
	done.Wait()
	p.Close()
	fmt.Println("passed", passed.Load())
}

// A limit of N passes exactly N in a window, through three processes.
func TestExactAcrossProcesses(t *testing.T) {
	r := redistest.Start(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"fixed", "sliding"} {
		conf := withRedis(r, `{"count":700,"time_window":31536000,"key":"constant","window_type":"`+kind+`"}`)
		var out [3]bytes.Buffer
		var gateways [3]*exec.Cmd
		for i := range gateways {
			gateways[i] = exec.Command(self)
			gateways[i].Env = append(os.Environ(), asGateway+"="+conf)
			gateways[i].Stdout, gateways[i].Stderr = &out[i], &out[i]
			if err := gateways[i].Start(); err != nil {
				t.Fatal(err)
			}
		}
		total := 0
		for i, g := range gateways {
			if err := g.Wait(); err != nil {
				t.Fatalf("%v\n%s", err, &out[i])
			}
			var n int
			if _, err := fmt.Sscanf(out[i].String(), "passed %d", &n); err != nil {
				t.Fatalf("%v: %s", err, &out[i])
			}
			total += n
		}
		if total != 700 {
			t.Errorf("%s: %d passed", kind, total)
		}
	}
}

func TestQuotaInRedis(t *testing.T) {
	r := redistest.Start(t)
	a, b := newGateway(t, patient), newGateway(t, patient)
	seconds := regexp.MustCompile(`(59(\.\d+)?|60)$`)
	conf := withRedis(r, `{"count":2,"time_window":60,"rejected_code":429}`)
	for i, want := range []string{"200 2 1 S", "200 2 0 S", "429 2 0 S", "429 2 0 S"} {
		g := a
		if i%2 == 1 {
			g = b
		}
		if got := seconds.ReplaceAllString(visit(t, g.build("routes/1", conf), "GET /"), "S"); got != want {
			t.Errorf("request %d: %s, want %s", i, got, want)
		}
	}
	if got := visit(t, a.build("routes/2", conf), "GET /"); !strings.HasPrefix(got, "200 2 1") {
		t.Errorf("another route: %s", got)
	}
	if got := visit(t, a.build("routes/1", strings.Replace(conf, "60", "61", 1)), "GET /"); !strings.HasPrefix(got, "200 2 1") {
		t.Errorf("another limit: %s", got)
	}
	keys := r.Do("keys", "plugin-limit-count:v1:/apisix/routes/*:127.0.0.1")
	if n := len(strings.Fields(keys)); n != 3 {
		t.Errorf("the keys are %s", r.Do("keys", "*"))
	}

	grouped := withRedis(r, `{"count":1,"time_window":60,"group":"g","show_limit_quota_header":false}`)
	for i, want := range []string{"200", "503"} {
		if got := visit(t, a.build(fmt.Sprintf("routes/%d", i), grouped), "GET /"); got != want {
			t.Errorf("request %d of the group: %s", i, got)
		}
	}
	if got := r.Do("get", "plugin-limit-count:v1:g:127.0.0.1"); got != "2" {
		t.Errorf("the group's key holds %s", got)
	}

	rules := a.build("routes/3", withRedis(r, `{"show_limit_quota_header":false,"rules":[{"count":2,"time_window":60,"key":"$http_x_a"},{"count":1,"time_window":60,"key":"$http_x_b"}]}`))
	for i, want := range []string{"200", "503"} {
		if got := visit(t, rules, "GET /", "X-A: same", "X-B: same"); got != want {
			t.Errorf("request %d under rules: %s", i, got)
		}
	}
	if got := visit(t, rules, "GET /"); got != "500" {
		t.Errorf("no rule applies: %s", got)
	}
}

func TestSlidingInRedis(t *testing.T) {
	r := redistest.Start(t)
	g := newGateway(t, patient)
	p := g.build("routes/1", withRedis(r, `{"count":2,"time_window":31536000,"window_type":"sliding"}`))
	for i, want := range []string{"200 2 1 ", "200 2 0 ", "503 2 0 "} {
		if got := visit(t, p, "GET /"); !strings.HasPrefix(got, want) {
			t.Errorf("request %d: %s", i, got)
		}
	}
	if keys := r.Do("keys", "*"); !regexp.MustCompile(`plugin-limit-count:v1:/apisix/routes/1:\d+:127\.0\.0\.1\.\d+\.counter`).MatchString(keys) {
		t.Errorf("the keys are %s", keys)
	}
}

// What becomes of requests without redis is for the operator to say.
func TestWithoutRedis(t *testing.T) {
	r := redistest.Start(t)
	r.Kill()
	failed := "500\nContent-Type: text/plain; charset=utf-8\n\n{\"error_msg\":\"failed to limit count\"}\n"
	for _, tt := range []struct {
		conf string
		want []string
	}{
		{`{"count":1,"time_window":60}`, []string{failed, failed}},
		{`{"count":1,"time_window":60,"allow_degradation":true}`, []string{"200\n\n", "200\n\n"}},
		{`{"count":1,"time_window":60,"degradation":"local","rejected_msg":"no","show_limit_quota_header":false}`,
			[]string{"200\n\n", "503\nContent-Type: text/plain; charset=utf-8\n\n{\"error_msg\":\"no\"}\n"}},
		{`{"count":1,"time_window":60,"degradation":"local","allow_degradation":true,"rejected_msg":"no","show_limit_quota_header":false}`,
			[]string{"200\n\n", "503\nContent-Type: text/plain; charset=utf-8\n\n{\"error_msg\":\"no\"}\n"}},
		{`{"count":1,"time_window":60,"sync_interval":0.1,"rejected_msg":"no","show_limit_quota_header":false}`,
			[]string{"200\n\n", "503\nContent-Type: text/plain; charset=utf-8\n\n{\"error_msg\":\"no\"}\n"}},
		{`{"allow_degradation":true,"rules":[{"count":1,"time_window":60,"key":"$uri"},{"count":1,"time_window":60,"key":"$host"}]}`, []string{"200\n\n", "200\n\n"}},
	} {
		p := newGateway(t, 20*time.Millisecond).build("routes/1", withRedis(r, tt.conf))
		for i, want := range tt.want {
			x, e := phasetest.Exchange("GET /"), phasetest.Env{}
			if got := phasetest.Run(x, &e, phasetest.Reply(200, ""), phase.Instance{Plugin: p}); got != want {
				t.Errorf("%s\nrequest %d: got %q, want %q", tt.conf, i, got, want)
			}
		}
	}
}

// The limits come back with the server, without anybody's help.
func TestRedisComesBack(t *testing.T) {
	r := redistest.Start(t)
	p := newGateway(t, 50*time.Millisecond).build("routes/1", withRedis(r, `{"count":1000000,"time_window":60,"show_limit_quota_header":false}`))
	until := func(want string) {
		t.Helper()
		redistest.Eventually(t, func() bool { return visit(t, p, "GET /") == want })
	}
	until("200")
	r.Pause()
	until("500")
	r.Resume()
	until("200")
	r.Kill()
	until("500")
	r.Restart()
	until("200")
}

// With an interval redis hears of requests later, and the gateways of each other.
func TestSyncInterval(t *testing.T) {
	r := redistest.Start(t)
	a, b := newGateway(t, patient), newGateway(t, patient)
	conf := withRedis(r, `{"count":100,"time_window":3600,"sync_interval":0.1,"show_limit_quota_header":false}`)
	pa, pb := a.build("routes/1", conf), b.build("routes/1", conf)
	for range 60 {
		visit(t, pa, "GET /")
	}
	key := func() string { return strings.Trim(r.Do("keys", "plugin-limit-count:v1:/*"), "[]") }
	redistest.Eventually(t, func() bool { return key() != "" && r.Do("get", key()) == "60" })
	if got := visit(t, pb, "GET /"); got != "200" {
		t.Errorf("the other gateway: %s", got)
	}
	redistest.Eventually(t, func() bool { return r.Do("get", key()) == "61" })
	passed := 1
	redistest.Eventually(t, func() bool { // b has heard of a's by now, or will have
		if visit(t, pb, "GET /") == "200" {
			passed++
			return false
		}
		return true
	})
	if passed > 100 {
		t.Errorf("%d passed", passed)
	}
	redistest.Eventually(t, func() bool { return r.Do("get", key()) == strconv.Itoa(60+passed) })
}

// Building reaches nothing and starts nothing: a configuration can be checked and dropped.
func TestBuildIsPure(t *testing.T) {
	r := redistest.Start(t)
	c := newCounters(patient)
	k := c.kind()
	before := r.Do("info", "stats")
	for _, conf := range []string{`{"count":1,"time_window":60}`, `{"count":1,"time_window":60,"sync_interval":1}`, `{"count":1,"time_window":60,"group":"g"}`} {
		var e phasetest.Env
		p, err := k.Build([]byte(withRedis(r, conf)), &e)
		if err != nil {
			t.Fatal(err)
		}
		if len(e.Started) != 1 {
			t.Errorf("%d goroutines are noted", len(e.Started))
		}
		p.(phase.Closer).Close()
	}
	connections := regexp.MustCompile(`total_connections_received:\d+`)
	if was, is := connections.FindString(before), connections.FindString(r.Do("info", "stats")); was != is {
		t.Errorf("%s, then %s", was, is)
	}
	if c.pool.Len() != 0 {
		t.Error("a server is still in use")
	}
	// A build that is refused keeps nothing.
	var e, other phasetest.Env
	other.OwnerKey = "routes/2"
	p, err := k.Build([]byte(withRedis(r, `{"count":1,"time_window":60,"group":"g"}`)), &e)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.Build([]byte(withRedis(r, `{"count":2,"time_window":60,"group":"g"}`)), &other); err == nil {
		t.Error("the group's second form was accepted")
	}
	p.(phase.Closer).Close()
	if c.pool.Len() != 0 {
		t.Error("a server is still in use after a refusal")
	}
}
