package main

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"headgate/conf"
)

// patient is an upstream whose probes (GET /probe) fail while it is sick. It serves requests all the same.
type patient struct {
	*faultUpstream
	sick   atomic.Bool
	served atomic.Int64
	probes atomic.Int64
}

// newPatient starts one; flips makes it sick at every other probe.
func newPatient(t testing.TB, flips bool) *patient {
	t.Helper()
	h := &patient{}
	h.faultUpstream = newFaultUpstream(t, nil, func(p *faultPeer) {
		for req := p.next(); req != nil; req = p.next() {
			switch {
			case req.URL.Path != "/probe":
				h.served.Add(1)
				p.send(whole("ok"))
			case flips && h.probes.Add(1)%2 == 0 || h.sick.Load():
				p.send("HTTP/1.1 500 Sick\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
				return
			default:
				p.send("HTTP/1.1 200 Well\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
				return
			}
		}
	})
	return h
}

// TestFault32Flapping: a node that is sick is left out and comes back, again and again, under load; one that is sick at every other probe is not,
// where three failures in a row are asked for. When all nodes are sick, all are used, and a metric says so.
func TestFault32Flapping(t *testing.T) {
	const flaps = 3
	g := startGate(t, onLoopback(t, conf.Default()))
	all := []*patient{newPatient(t, false), newPatient(t, false), newPatient(t, false)}
	nervous, calm, alone := newPatient(t, true), newPatient(t, false), newPatient(t, false)
	alone.sick.Store(true)
	checked := func(id string, failures int, on ...*patient) {
		var addrs []string
		for _, h := range on {
			addrs = append(addrs, h.addr)
		}
		g.configure("PUT", "/routes/"+id, fmt.Sprintf(`{"uri":"/%s","upstream":{"nodes":%s,"checks":{"active":{"http_path":"/probe","timeout":30,
			"healthy":{"interval":1,"successes":1},"unhealthy":{"interval":1,"http_failures":%d}}}}}`, id, nodesOf(addrs...), failures))
	}
	checked("flap", 1, all...)
	checked("nervous", 3, nervous, calm)
	checked("alone", 1, alone)
	status := func(id string, h *patient) int {
		return g.metric(fmt.Sprintf(`apisix_upstream_status{name="/apisix/routes/%s",ip="127.0.0.1",port=%q}`, id, portOf(h.addr)))
	}
	allDown := func(id string) int {
		return g.metric(fmt.Sprintf(`headgate_upstream_all_down{upstream="routes/%s"}`, id))
	}

	// Clients ask all the time, and look at nothing but their answers.
	var lost atomic.Int64
	var served [2]atomic.Int64
	var asking sync.WaitGroup
	stop := make(chan struct{})
	for i := range served {
		c := dialWire(t, g.addr)
		asking.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				_ = c.SetDeadline(time.Now().Add(patience))
				if res, _, err := c.exchange("GET /flap HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil || res.StatusCode != http.StatusOK {
					lost.Add(1)
					return
				}
				served[i].Add(1)
			}
		})
	}
	// settle returns when every request has been served that had been begun before.
	settle := func() {
		for i := range served {
			begun := served[i].Load()
			eventually(t, "another answer", func() bool { return served[i].Load() > begun || lost.Load() > 0 })
		}
	}
	strayed := int64(0)
	for i := range flaps {
		h := all[i%len(all)]
		h.sick.Store(true)
		eventually(t, "a sick node to be left out", func() bool { return status("flap", h) == 0 })
		settle()
		before := h.served.Load()
		g.tallyOK(t, 50)
		strayed += h.served.Load() - before
		h.sick.Store(false)
		eventually(t, "a node that has recovered to be back", func() bool { return status("flap", h) == 1 })
		before = h.served.Load()
		eventually(t, "requests to it", func() bool { return h.served.Load() > before })
	}
	if strayed > 0 {
		t.Errorf("%d requests went to nodes that were left out", strayed)
	}
	if allDown("flap") != 0 {
		t.Error("all are said to be down")
	}

	// One after another falls sick. The last one is not left out: then all are used.
	for i, h := range all {
		h.sick.Store(true)
		eventually(t, "another node to be unhealthy", func() bool { return status("flap", h) == 0 })
		if last := i == len(all)-1; !last && allDown("flap") != 0 {
			t.Errorf("all are said to be down, with %d of %d", i+1, len(all))
		}
	}
	eventually(t, "the metric to say so", func() bool { return allDown("flap") == 1 })
	var before [3]int64
	settle()
	for i, h := range all {
		before[i] = h.served.Load()
	}
	g.tallyOK(t, 60)
	used := 0
	for i, h := range all {
		if h.served.Load() > before[i] {
			used++
		}
	}
	if used != len(all) {
		t.Errorf("%d of %d nodes are used when all are unhealthy", used, len(all))
	}
	all[1].sick.Store(false)
	eventually(t, "the end of it", func() bool { return status("flap", all[1]) == 1 && allDown("flap") == 0 })

	eventually(t, "the only node to be unhealthy", func() bool { return status("alone", alone) == 0 && allDown("alone") == 1 })
	if a := g.get("/alone"); a.status != http.StatusOK {
		t.Errorf("the only node: %v", a)
	}
	eventually(t, "enough probes of the nervous node", func() bool { return nervous.probes.Load() >= 8 })
	flips := strings.Count(g.logged.String(), nervous.addr+" is unhealthy")
	if flips != 0 || status("nervous", nervous) != 1 {
		t.Errorf("a node that fails every other probe was left out %d times", flips)
	}
	close(stop)
	asking.Wait()
	if lost.Load() > 0 {
		t.Errorf("%d requests were lost", lost.Load())
	}
	t.Logf("F32: a node left out and back %d times under load: %d of %d requests lost, %d of 150 at a node that was out; "+
		"left out for failing every other probe: %d of 1; all unhealthy: %d of %d used, headgate_upstream_all_down 1; the only node never ejected",
		flaps, lost.Load(), served[0].Load()+served[1].Load()+lost.Load(), strayed, flips, used, len(all))
}

// tallyOK sends n requests to /flap, which have to be answered.
func (g *gate) tallyOK(t testing.TB, n int) {
	t.Helper()
	for range n {
		if a := g.get("/flap"); a.status != http.StatusOK {
			t.Fatal(a)
		}
	}
}
