package main

import (
	"fmt"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"headgate/proxy/phase/limit/redis/redistest"
)

// limitedGateways starts processes that serve one configuration: a limit in redis that refuses when it cannot ask, one that lets pass, and
// one that counts by itself meanwhile.
func limitedGateways(t *testing.T, r *redistest.Server, upstream string, n int) (addrs []string) {
	t.Helper()
	for range n {
		dir := t.TempDir()
		file := filepath.Join(dir, "headgate.toml")
		text := "[gateway]\nlisten = [\"127.0.0.1:0\"]\n[admin]\nlisten = \"127.0.0.1:0\"\n[metrics]\nlisten = \"127.0.0.1:0\"\n" +
			"[control]\nlisten = \"127.0.0.1:0\"\n[store]\nprovider = \"mem\"\n[access_log]\npath = \"off\"\n[audit]\npath = \"off\"\n"
		for id, plugin := range map[string]string{
			"exact": `count = 500, time_window = 31536000, key_type = "constant", key = "k", show_limit_quota_header = false`,
			"open":  `count = 1000000, time_window = 31536000, key_type = "constant", key = "k", allow_degradation = true`,
			"shut":  `count = 1000000, time_window = 31536000, key_type = "constant", key = "k"`,
		} {
			text += fmt.Sprintf("[[routes]]\nid = %q\nuri = \"/%[1]s\"\nupstream = { nodes = { %q = 1 } }\n"+
				"plugins = { limit-count = { policy = \"redis\", redis_host = \"127.0.0.1\", redis_port = %d, %s } }\n", id, upstream, r.Port, plugin)
		}
		writeFile(t, file, text)
		c := startChild(t, dir, "run", "-c", file)
		c.keeps(fmt.Sprintf("127.0.0.1:%d", r.Port))
		addrs = append(addrs, c.addr("gateway"))
	}
	return addrs
}

// The limit of 500 passes exactly 500, through three gateways and 64 clients at a time.
func TestLimitAcrossGateways(t *testing.T) {
	up := newUpstream(t, "up", nil)
	addrs := limitedGateways(t, redistest.Start(t), up.addr, 3)
	client := newClient(t)
	var passed, refused, other atomic.Int64
	var done sync.WaitGroup
	for i := range 64 {
		done.Go(func() {
			for j := range 20 {
				a, err := trySend(client, "GET", "http://"+addrs[(i+j)%len(addrs)]+"/exact", "")
				switch {
				case err == nil && a.status == http.StatusOK:
					passed.Add(1)
				case err == nil && a.status == http.StatusServiceUnavailable:
					refused.Add(1)
				default:
					other.Add(1)
				}
			}
		})
	}
	done.Wait()
	// On a machine where redis is not heard within the time that a request may wait, an answer is 500: counted perhaps, and not passed.
	if p, o := passed.Load(), other.Load(); p > 500 || p+o < 500 || refused.Load() < 64*20-500-o {
		t.Errorf("%d passed, %d were refused, %d got something else", p, refused.Load(), o)
	}
	if n := int64(up.hits()); n != passed.Load() {
		t.Errorf("the upstream saw %d requests, %d passed", n, passed.Load())
	}
}

// Redis paused, killed and back again under load: where the route says so requests pass meanwhile, elsewhere they get 500 and nothing
// else; and when it is back both are served without anybody's doing.
func TestRedisAwayUnderLoad(t *testing.T) {
	up := newUpstream(t, "up", nil)
	r := redistest.Start(t)
	addr := limitedGateways(t, r, up.addr, 1)[0]
	client := newClient(t)
	var statuses [2][600]atomic.Int64
	stop := make(chan struct{})
	var done sync.WaitGroup
	for i := range 8 {
		done.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				a, err := trySend(client, "GET", "http://"+addr+[2]string{"/open", "/shut"}[i%2], "")
				if err != nil {
					t.Errorf("a request was lost: %v", err)
					return
				}
				statuses[i%2][a.status].Add(1)
			}
		})
	}
	defer func() {
		close(stop)
		done.Wait()
		for i, route := range []string{"open", "shut"} {
			for status := range statuses[i] {
				n := statuses[i][status].Load()
				if n > 0 && status != 200 && !(i == 1 && status == 500) {
					t.Errorf("%s: %d answers with %d", route, n, status)
				}
			}
		}
	}()
	grows := func(what string, status int) {
		t.Helper()
		before := [2]int64{statuses[0][200].Load(), statuses[1][status].Load()}
		eventually(t, what, func() bool {
			return statuses[0][200].Load() > before[0]+20 && statuses[1][status].Load() > before[1]+20
		})
	}
	grows("both are served", 200)
	r.Pause()
	grows("one passes, the other fails, while redis says nothing", 500)
	r.Resume()
	grows("both are served again", 200)
	r.Kill()
	grows("one passes, the other fails, without redis", 500)
	r.Restart()
	grows("both are served by a new redis", 200)
}
