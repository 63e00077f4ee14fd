package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"headgate/conf/store/etcd/etcdtest"
	"headgate/proxy/leaktest"
)

const (
	reachable = "apisix_etcd_reachable"
	storeLag  = "headgate_store_lag_seconds"

	// writeBound is how long a write may take while etcd is away: twice the timeout (the try, and the look whether it took place), and
	// as much again for a machine that is busy.
	writeBound = 4 * etcdTimeout
	// lagBound is above every lag of a store that is well: a watch asks for a proof every three seconds.
	lagBound = 4.0
)

// TestEtcdOutage: whatever happens to etcd, requests go on, writes are refused in bounded time, and everything that others wrote
// meanwhile is in force afterwards without a restart.
func TestEtcdOutage(t *testing.T) {
	leaktest.Check(t, patience) // a server that is started again is another one than that which was there before the gateway
	server := etcdtest.Start(t, etcdtest.Options{})
	network := newPartition(t, server.Endpoint())
	u := newUpstream(t, "alive", nil)
	g := startGate(t, onEtcd(t, network.endpoint()))
	g.configure("PUT", "/upstreams/u", fmt.Sprintf(`{"nodes":{%q:1}}`, u.addr))
	g.configure("PUT", "/routes/fixed", `{"uri":"/fixed","upstream_id":"u"}`)
	g.configure("PUT", "/routes/later", fmt.Sprintf(`{"uri":"/later",%s}`, answering("0")))
	o := &outage{g: g, server: server, network: network, flow: startTraffic(t, g, 2, "/fixed", "alive\n")}
	o.well(t)
	for _, tt := range []struct {
		name string
		run  func(t *testing.T)
	}{{"killed", o.killed}, {"paused", o.paused}, {"compacted", o.compacted}, {"restarted", o.restarted}} {
		o.prepare(t)
		if !t.Run(tt.name, tt.run) {
			return
		}
	}
	o.flow.end()
}

type outage struct {
	g       *gate
	server  *etcdtest.Server
	network *partition
	flow    *traffic
	round   int
	certain []string          // keys of writes that certainly failed
	before  map[string]string // values in etcd by key
}

// well waits until the gateway is in touch with etcd, makes a write through it, and one beside it.
func (o *outage) well(t *testing.T) {
	t.Helper()
	g := o.g
	eventually(t, "an admin write", func() bool {
		return g.admin("PUT", "/routes/own", fmt.Sprintf(`{"uri":"/own",%s}`, answering(fmt.Sprint(o.round)))).status < 300
	})
	if !g.answers("/own", fmt.Sprint(o.round)) {
		t.Error("a write that was acknowledged is not in force")
	}
	o.round++
	newNeighbour(t, o.server).put("routes/later", fmt.Sprintf(`{"id":"later","uri":"/later",%s}`, answering(fmt.Sprint(o.round))))
	eventually(t, "what another wrote", func() bool { return g.answers("/later", fmt.Sprint(o.round)) })
	eventually(t, "etcd to be reachable", func() bool { return g.gauge(reachable) == 1 })
	eventually(t, "a small lag", func() bool { return g.gauge(storeLag) < lagBound })
	o.flow.flows(t)
}

// refused makes writes that have to be refused with 503 in bounded time. Where the answer says that the outcome is unknown, the write may
// take place when etcd is back; else it must not.
func (o *outage) refused(t *testing.T) {
	t.Helper()
	for _, write := range []struct{ method, path, body string }{
		{"PUT", "routes/refused", fmt.Sprintf(`{"uri":"/refused",%s}`, answering("refused"))},
		{"PATCH", "routes/patched", `{"uri":"/patched-away"}`},
		{"DELETE", "routes/deleted", ""},
		{"POST", "routes", `{"uri":"/posted","upstream_id":"u"}`},
	} {
		begun := time.Now()
		a := o.g.admin(write.method, "/"+write.path, write.body)
		took := time.Since(begun)
		var said struct {
			ErrorMsg string `json:"error_msg"`
		}
		if err := json.Unmarshal([]byte(a.body), &said); err != nil || a.status != http.StatusServiceUnavailable || said.ErrorMsg == "" {
			t.Errorf("%s %s: %v", write.method, write.path, a)
		}
		if took > writeBound {
			t.Errorf("%s %s took %v", write.method, write.path, took)
		}
		if !strings.Contains(said.ErrorMsg, "outcome unknown") {
			o.certain = append(o.certain, write.path)
		}
		t.Logf("%s: %v after %v", write.method, a, took.Round(time.Millisecond))
	}
	// What is in force can be read all the time.
	if a := o.g.admin("GET", "/routes/fixed", ""); a.status != http.StatusOK || !strings.Contains(a.body, `"uri":"/fixed"`) {
		t.Errorf("while etcd is away: %v", a)
	}
	o.flow.flows(t)
}

// away waits until the metrics say that etcd is away and for how long.
func (o *outage) away(t *testing.T) {
	t.Helper()
	eventually(t, "etcd to be out of reach", func() bool { return o.g.gauge(reachable) == 0 })
	eventually(t, "a lag that grows", func() bool { return o.g.gauge(storeLag) > lagBound })
}

// settled waits until what is in force is what is stored, and makes sure that writes of which the gateway knew that they had failed have
// not taken place after all.
func (o *outage) settled(t *testing.T) {
	t.Helper()
	n := newNeighbour(t, o.server)
	for _, w := range []struct{ key, uri, before, after string }{ // before and after the write; "" is 404
		{"routes/refused", "/refused", "", "refused"},
		{"routes/patched", "/patched", "patched", ""},
		{"routes/deleted", "/deleted", "deleted", ""},
	} {
		if stored := n.value(w.key); stored != o.before[w.key] && slices.Contains(o.certain, w.key) {
			t.Errorf("%s was refused for certain, and is %q; before it was %q", w.key, stored, o.before[w.key])
			continue
		}
		eventually(t, w.key+" to be in force as it is stored", func() bool {
			want := w.before
			if n.value(w.key) != o.before[w.key] {
				want = w.after
			}
			return want == "" && o.g.isGone(w.uri) || want != "" && o.g.answers(w.uri, want)
		})
	}
	o.certain = nil
}

// prepare writes the documents that refused tries to change.
func (o *outage) prepare(t *testing.T) {
	t.Helper()
	n := newNeighbour(t, o.server)
	if n.value("routes/refused") != "" {
		o.g.configure("DELETE", "/routes/refused", "")
	}
	o.before = map[string]string{}
	for _, id := range []string{"patched", "deleted"} {
		o.g.configure("PUT", "/routes/"+id, fmt.Sprintf(`{"uri":"/%s",%s}`, id, answering(id)))
		o.before["routes/"+id] = n.value("routes/" + id)
	}
}

func (o *outage) killed(t *testing.T) {
	o.server.Stop()
	o.refused(t)
	o.away(t)
	o.server.Restart()
	o.well(t)
	o.settled(t)
}

func (o *outage) paused(t *testing.T) {
	o.server.Pause()
	o.refused(t)
	o.away(t)
	o.server.Resume()
	o.well(t)
	o.settled(t)
}

// compacted: what the gateway missed cannot be told as events any more.
func (o *outage) compacted(t *testing.T) {
	o.network.cut()
	o.refused(t)
	n := newNeighbour(t, o.server)
	n.put("routes/new", fmt.Sprintf(`{"id":"new","uri":"/new",%s}`, answering("new")))
	n.put("routes/later", fmt.Sprintf(`{"id":"later","uri":"/later",%s}`, answering("missed")))
	n.remove("routes/own")
	o.server.Compact()
	if !o.g.answers("/own", fmt.Sprint(o.round-1)) || !o.g.isGone("/new") {
		t.Error("the gateway is not cut off")
	}
	o.network.heal()
	eventually(t, "what was written during the partition", func() bool { return o.g.answers("/new", "new") && o.g.answers("/later", "missed") })
	eventually(t, "what was deleted during the partition", func() bool { return o.g.isGone("/own") })
	o.well(t)
	o.settled(t)
}

// restarted: a short absence that no write of the gateway meets.
func (o *outage) restarted(t *testing.T) {
	o.server.Restart()
	newNeighbour(t, o.server).remove("routes/new")
	eventually(t, "the deletion", func() bool { return o.g.isGone("/new") })
	o.well(t)
}

// TestEtcdAwayAtStart: without its store a gateway does not start, and says in bounded time what is missing.
func TestEtcdAwayAtStart(t *testing.T) {
	server := etcdtest.Start(t, etcdtest.Options{})
	endpoint := server.Endpoint()
	dir := t.TempDir()
	binary(t) // building it takes no part in the time that is measured
	childConfig(t, dir, fmt.Sprintf("[store]\nprovider = \"etcd\"\n[store.etcd]\nendpoints = [%q]\ntimeout = \"500ms\"\nstartup_retry = 0\n", endpoint))
	for _, tt := range []struct {
		name string
		away func()
	}{{"paused", server.Pause}, {"killed", server.Stop}} {
		tt.away()
		begun := time.Now()
		_, stderr, status := runChild(t, dir, "run", "-c", filepath.Join(dir, "headgate.toml"))
		took := time.Since(begun)
		if lines := strings.Split(strings.TrimSpace(stderr), "\n"); status != 1 || !strings.Contains(lines[len(lines)-1], "store.etcd: ") ||
			!strings.Contains(lines[len(lines)-1], endpoint) {
			t.Errorf("%s: status %d: %s", tt.name, status, stderr)
		}
		if took > 8*time.Second {
			t.Errorf("%s: the start failed only after %v", tt.name, took)
		}
		t.Logf("%s: after %v: %s", tt.name, took.Round(time.Millisecond), strings.TrimSpace(stderr))
	}
}
