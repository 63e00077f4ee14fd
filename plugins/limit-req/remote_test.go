package limitreq

import (
	"fmt"
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

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patient is a wait for what is about counts: the machine of a test may be busy.
const patient = 5 * time.Second

func (r *rig) remote(t *testing.T, wait time.Duration, s *redistest.Server, conf string) *plugin {
	t.Helper()
	clock, sleep := r.clock, r.sleep
	r.buckets = newBuckets(wait)
	r.clock, r.sleep = clock, sleep
	p := r.build(t, "routes/1", strings.Replace(conf, "{", fmt.Sprintf(`{"policy":"redis","redis_host":"127.0.0.1","redis_port":%d,`, s.Port), 1))
	t.Cleanup(p.Close)
	return p
}

// Three gateways share a bucket.
func TestInRedis(t *testing.T) {
	s := redistest.Start(t)
	const conf = `{"rate":0.001,"burst":99,"nodelay":true,"key":"remote_addr","rejected_code":429}`
	var passed atomic.Int64
	var done sync.WaitGroup
	for range 3 {
		p := newRig().remote(t, patient, s, conf)
		for range 10 {
			done.Go(func() {
				for range 10 {
					if p.Access(phasetest.Exchange("GET /")) == phase.Continue {
						passed.Add(1)
					}
				}
			})
		}
	}
	done.Wait()
	if n := passed.Load(); n != 100 {
		t.Errorf("%d passed", n)
	}
	if keys := s.Do("keys", "plugin-limit-req:v1:/apisix/routes/1:*:127.0.0.1"); len(strings.Fields(keys)) != 1 {
		t.Errorf("the keys are %s", s.Do("keys", "*"))
	}
}

func TestDelayInRedis(t *testing.T) {
	s := redistest.Start(t)
	r := newRig()
	p := r.remote(t, patient, s, `{"rate":0.01,"burst":1,"key":"remote_addr","rejected_code":429}`)
	for i, want := range []string{"200 0s", "200 1m", "429 0s"} { // somewhat less than 100 s
		if got := r.visit(p); !strings.HasPrefix(got, want) {
			t.Errorf("request %d: %s", i, got)
		}
	}
}

func TestWithoutRedis(t *testing.T) {
	s := redistest.Start(t)
	s.Kill()
	for _, tt := range []struct{ more, want string }{
		{``, "500 0s|500 0s"},
		{`,"allow_degradation":true`, "200 0s|200 0s"},
		{`,"degradation":"local"`, "200 0s|503 0s"},
		{`,"degradation":"local","allow_degradation":true`, "200 0s|503 0s"},
	} {
		r := newRig()
		p := r.remote(t, 20*time.Millisecond, s, `{"rate":1,"burst":0,"key":"remote_addr"`+tt.more+`}`)
		if got := r.visit(p) + "|" + r.visit(p); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.more, got, tt.want)
		}
	}
}
