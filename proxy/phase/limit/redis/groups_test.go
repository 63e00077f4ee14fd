package redis

import (
	"encoding/json"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"headgate/proxy/phase/limit"
	"headgate/proxy/phase/limit/redis/redistest"
)

// When the master dies another takes its place, and requests go on without a restart.
func TestFailover(t *testing.T) {
	t.Parallel() // with the other that takes seconds to begin
	master, replica, sentinels := redistest.Replicated(t, "mymaster")
	var list []map[string]any
	for _, s := range sentinels {
		list = append(list, map[string]any{"host": "127.0.0.1", "port": s.Port})
	}
	b, _ := json.Marshal(list)
	s := open(t, settingsOf(t, `{"policy":"redis-sentinel","redis_master_name":"mymaster","redis_sentinels":`+string(b)+`}`), 20*time.Millisecond)
	l := begin(s, "k")
	l.until(t, &l.passed, 500)
	master.Kill()
	l.until(t, &l.failed, 500)
	l.until(t, &l.passed, 500) // on the former replica
	l.end(t)
	if got := replica.Do("role"); got[:7] != "[master" {
		t.Errorf("the replica is %s", got)
	}
	// What the old master had not told yet is lost: at most what was on its way, and what passed in the moment before.
	var n int64
	_, _ = fmt.Sscan(replica.Do("get", "k"), &n)
	if passed := l.passed.Load(); n < passed-10*loaders || n > passed+4*loaders {
		t.Errorf("%d are counted, %d have passed", n, passed)
	}
}

func TestCluster(t *testing.T) {
	t.Parallel()
	nodes := redistest.Cluster(t)
	settings := settingsOf(t, fmt.Sprintf(`{"policy":"redis-cluster","redis_cluster_nodes":[%q],"redis_cluster_name":"c"}`, nodes[1].Addr()))
	if !settings.Clustered() {
		t.Error("is no cluster")
	}
	gateways := []*Server{open(t, settings, patient), open(t, settings, patient), open(t, settings, patient)}
	const keys = 20 // on all nodes
	for _, sliding := range []bool{false, true} {
		shape := limit.Shape{Count: 10, Window: 86400 * 365 * second, Sliding: sliding}
		var passed [keys]atomic.Int64
		var failed atomic.Int64
		var done sync.WaitGroup
		for _, g := range gateways {
			for range 4 {
				done.Go(func() {
					for k := range keys {
						for range 2 {
							q, err := g.Window([]byte(fmt.Sprintf("{k%d%v}", k, sliding)), shape)
							if err != nil {
								failed.Add(1)
							} else if q.OK {
								passed[k].Add(1)
							}
						}
					}
				})
			}
		}
		done.Wait()
		for k := range passed {
			if n := passed[k].Load(); n != 10 {
				t.Errorf("sliding %v, key %d: %d passed", sliding, k, n)
			}
		}
		if n := failed.Load(); n > 0 {
			t.Errorf("%d failed", n)
		}
	}
	if _, ok, err := gateways[0].Bucket([]byte("bucket"), limit.PerSecond(1, 0)); !ok || err != nil {
		t.Errorf("a bucket: %v %v", ok, err)
	}
	v, _, err := gateways[0].Enter([]byte("visits"), 1, 1000_000)
	if v == nil {
		t.Fatal(err)
	}
	v.Leave()
	redistest.Eventually(t, func() bool { v, _, _ := gateways[1].Enter([]byte("visits"), 1, 1000); return v != nil })

	// A node that stops makes nobody wait.
	quick := open(t, settings, 20*time.Millisecond)
	l := begin(quick, "load")
	l.until(t, &l.passed, 200)
	for _, n := range nodes {
		n.Pause()
	}
	l.until(t, &l.failed, 500)
	for _, n := range nodes {
		n.Resume()
	}
	l.until(t, &l.passed, 200)
	l.end(t)
}
