package main

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
)

// TestFault14Drain: 400 clients with idle connections ask once more after SIGTERM, others never stop asking, and streams of events are
// running. While load balancers are given time to notice, readiness is down, newcomers are served, and every answer tells its
// client to go; nobody is cut off, and the process ends with status 0.
func TestFault14Drain(t *testing.T) {
	const idleClients = 400
	slow, quick := newScripted(t), newUpstream(t, "quick", nil)
	dir := t.TempDir()
	file := childConfig(t, dir, fmt.Sprintf("[status]\nenabled = true\nlisten = \"127.0.0.1:0\"\n"+
		"[[routes]]\nid = \"slow\"\nuri = \"/slow\"\n[routes.upstream]\nnodes = { %q = 1 }\n"+
		"[[routes]]\nid = \"quick\"\nuri = \"/quick\"\n[routes.upstream]\nnodes = { %q = 1 }\n", slow.addr, quick.addr))
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	// Long enough for everybody to ask once more, however slow the machine is.
	writeFile(t, file, strings.Replace(string(text), "[gateway]\n", "[gateway]\ndrain_delay = \"4s\"\n", 1))
	c := startChild(t, dir, "run", "-c", file)
	gateway, ready := c.addr("gateway"), "http://"+c.addr("status")+"/status/ready"
	client := newClient(t)
	if got := send(t, client, "GET", ready, ""); got.status != 200 {
		t.Fatal(got)
	}
	idle := make([]*wireConn, idleClients)
	each := func(f func(i int)) {
		var all sync.WaitGroup
		for i := range idle {
			all.Go(func() { f(i) })
		}
		all.Wait()
	}
	for i := range idle { // one after the other: how fast they come is not the matter
		idle[i] = dialWire(t, gateway)
	}
	var served, told atomic.Int64
	ask := func(i int) {
		switch res, body, err := idle[i].exchange(quickRequest); {
		case err != nil || res.StatusCode != http.StatusOK || body != "quick\n":
			t.Errorf("client %d: %+v %q %v", i, res, body, err)
		case res.Close:
			told.Add(1)
			fallthrough
		default:
			served.Add(1)
		}
	}
	each(ask)
	if served.Load() != idleClients || told.Load() != 0 {
		t.Fatalf("before: %d served, %d told to go", served.Load(), told.Load())
	}
	running := openStreams(t, gateway, slow, 16)
	running.event(t)
	load := &clients{addr: gateway}
	for range 4 {
		load.run(1)
		load.run(1 << 30)
	}

	more := func() {
		t.Helper()
		before := load.answers.Load()
		eventually(t, "clients to be served", func() bool { return load.answers.Load() > before+200 })
	}
	more()

	c.signal(syscall.SIGTERM)
	c.says("draining")
	more()
	eventually(t, "readiness to go down", func() bool { return send(t, client, "GET", ready, "").status == 503 })
	each(ask)
	if served.Load() != 2*idleClients || told.Load() != idleClients {
		t.Errorf("while draining: %d of %d served, %d told to go", served.Load()-idleClients, idleClients, told.Load())
	}
	if res, body, err := dialWire(t, gateway).exchange(quickRequest); err != nil || !res.Close || body != "quick\n" {
		t.Errorf("a newcomer: %+v %q %v", res, body, err)
	}
	load.end(t)
	running.event(t)
	whole := running.end(t)
	client.CloseIdleConnections()
	if status := c.wait(); status != 0 {
		t.Errorf("status %d", status)
	}
	t.Logf("F14: at SIGTERM %d of %d requests of idle clients lost, %d of %d under load, %d of 16 event streams whole, exit status 0",
		2*idleClients-served.Load(), idleClients, len(load.lost), load.answers.Load(), whole)
}
