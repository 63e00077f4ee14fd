package limitconn

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"headgate/proxy/phase"
	"headgate/proxy/phase/limit/redis/redistest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patient is a wait for what is about counts: the machine of a test may be busy.
const patient = 5 * time.Second

// remote is a gateway of its own.
func remote(t *testing.T, wait time.Duration, s *redistest.Server, conf string) *guest {
	t.Helper()
	r := newRig()
	clock, sleep := r.clock, r.sleep
	r.gauges = newGauges(wait)
	r.clock, r.sleep = clock, sleep
	g := r.build(t, "routes/1", strings.Replace(conf, "{", fmt.Sprintf(`{"policy":"redis","redis_host":"127.0.0.1","redis_port":%d,`, s.Port), 1))
	t.Cleanup(g.p.Close)
	return g
}

func TestInRedis(t *testing.T) {
	s := redistest.Start(t)
	const conf = `{"conn":2,"burst":2,"default_conn_delay":0.1,"only_use_default_delay":true,"key":"remote_addr","rejected_code":429,"key_ttl":60}`
	gateways := []*guest{remote(t, patient, s, conf), remote(t, patient, s, conf), remote(t, patient, s, conf)}
	var inside []*phase.Exchange
	for i, want := range []string{"0 0s", "0 0s", "0 100ms", "0 100ms", "429 0s", "429 0s"} {
		x, got := gateways[i%3].enter()
		if got != want {
			t.Errorf("request %d: %s, want %s", i, got, want)
		}
		inside = append(inside, x)
	}
	key := strings.Trim(s.Do("keys", "plugin-limit-conn:v1:/apisix/routes/1:*:127.0.0.1"), "[]")
	if n := s.Do("zcard", key); n != "4" {
		t.Errorf("%s holds %s", key, n)
	}
	for _, x := range inside { // the refused ones too: they were not counted
		leave(x)
		leave(x)
	}
	redistest.Eventually(t, func() bool { return s.Do("exists", key) == "0" })
	x, got := gateways[0].enter()
	if got != "0 0s" {
		t.Errorf("after all had left: %s", got)
	}
	leave(x)
}

func TestRulesInRedis(t *testing.T) {
	s := redistest.Start(t)
	g := remote(t, patient, s, `{"default_conn_delay":1,"rules":[{"conn":2,"burst":0,"key":"$http_x_a"},{"conn":1,"burst":0,"key":"$http_x_b"}]}`)
	first, _ := g.enter("X-A: same", "X-B: same")
	second, got := g.enter("X-A: same", "X-B: same")
	if got != "503 0s" {
		t.Errorf("the second rule: %s", got)
	}
	leave(first)
	leave(second)
	redistest.Eventually(t, func() bool { return s.Do("dbsize") == "0" })
}

func TestWithoutRedis(t *testing.T) {
	s := redistest.Start(t)
	s.Kill()
	for _, tt := range []struct{ more, want string }{
		{``, "500 0s|500 0s"},
		{`,"allow_degradation":true`, "0 0s|0 0s"},
		{`,"degradation":"local"`, "0 0s|503 0s"},
		{`,"degradation":"local","allow_degradation":true`, "0 0s|503 0s"},
	} {
		g := remote(t, 20*time.Millisecond, s, `{"conn":1,"burst":0,"default_conn_delay":1,"key":"remote_addr"`+tt.more+`}`)
		x, a := g.enter()
		y, b := g.enter()
		if got := a + "|" + b; got != tt.want {
			t.Errorf("%s: %s, want %s", tt.more, got, tt.want)
		}
		leave(x)
		leave(y)
		x, again := g.enter() // who was counted here has left here
		if again != a {
			t.Errorf("%s: %s after all had left, want %s", tt.more, again, a)
		}
		leave(x)
	}
}
