package main

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"headgate/proxy/leaktest"
)

// spareGoroutines is how many more goroutines a process may have when its clients have gone than after its start. A server keeps the
// goroutines of connections that have ended for up to twenty seconds; each test would have to wait for the last of them. Less is seen by
// the tests whose gateway runs in their own process.
const spareGoroutines = 16

// footprint is what a process holds: descriptors by what they are for, and goroutines.
type footprint struct {
	files      map[string]int
	goroutines int
	idle, busy int // connections to upstreams, by the process's own count
}

const (
	toClients = "connection of a client"
	toOthers  = "connection to another server"
	toKept    = "connection of a pool"
)

// purpose says what a descriptor of c is for. ports are those that the process listens on.
func (c *child) purpose(d leaktest.Descriptor, ports []uint16) string {
	switch {
	case d.Listening:
		return "listener on " + d.Local.String()
	case d.Local.IsValid() && slices.Contains(ports, d.Local.Port()):
		return toClients
	case slices.Contains(c.kept, d.Remote.String()):
		return toKept
	case d.Local.IsValid():
		return toOthers
	}
	kind, _, _ := strings.Cut(d.Target, ":[") // what is in brackets is another number in each process
	return kind
}

// look takes the footprint of the process that serves now.
func (c *child) look() (f footprint, list []leaktest.Descriptor, err error) {
	if f.goroutines, f.idle, f.busy, err = c.counts(); err != nil {
		return f, nil, err
	}
	pid, _ := c.latest()
	if list, err = leaktest.Descriptors(pid); err != nil {
		return f, nil, err
	}
	var ports []uint16
	for _, d := range list {
		if d.Listening {
			ports = append(ports, d.Local.Port())
		}
	}
	f.files = map[string]int{}
	for _, d := range list {
		f.files[c.purpose(d, ports)]++
	}
	return f, list, nil
}

// counts asks the process what it counts itself, over a connection that is closed then.
func (c *child) counts() (goroutines, idle, busy int, err error) {
	transport := &http.Transport{DisableKeepAlives: true}
	client := &http.Client{Transport: transport, Timeout: patience}
	res, err := client.Get("http://" + c.listener("metrics") + "/apisix/prometheus/metrics")
	if err != nil {
		return 0, 0, 0, err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		n, _ := strconv.Atoi(value)
		switch name {
		case "go_goroutines":
			goroutines = n
		case `headgate_upstream_connections{state="idle"}`:
			idle = n
		case `headgate_upstream_connections{state="busy"}`:
			busy = n
		}
	}
	return goroutines, idle, busy, err
}

// keeps says that c may keep as many connections to addr as its own pool there wants.
func (c *child) keeps(addr string) { c.kept = append(c.kept, addr) }

// begin remembers the footprint of a process that has just started.
func (c *child) begin() {
	c.t.Helper()
	if c.started != nil {
		return
	}
	if f, _, err := c.look(); err != nil {
		c.t.Fatal(err)
	} else {
		c.started = &f
	}
}

// left compares what the process holds with what it held after its start; it is empty when nobody is left. Connections that are kept for
// the next request to an upstream are not left behind.
func (c *child) left() string {
	now, list, err := c.look()
	if err != nil {
		return err.Error()
	}
	var out strings.Builder
	if now.busy > 0 {
		fmt.Fprintf(&out, "%d connections to upstreams are in use\n", now.busy)
	}
	if most := c.started.goroutines + spareGoroutines; now.goroutines > most {
		fmt.Fprintf(&out, "%d goroutines, %d after the start\n", now.goroutines, c.started.goroutines)
	}
	for what, n := range now.files {
		allowed := c.started.files[what]
		switch what {
		case toClients:
			allowed = 0
		case toOthers:
			allowed += now.idle
		case toKept:
			allowed = n
		}
		if n > allowed {
			fmt.Fprintf(&out, "%s: %d, expected at most %d\n", what, n, allowed)
		}
	}
	if out.Len() > 0 {
		for _, d := range list {
			fmt.Fprintf(&out, "  %s\n", d)
		}
	}
	return out.String()
}

// end is the end of every test with a child. What serves still must have let go of everything that its clients brought, and end with
// status 0 when it is told to; what has ended must have done so with status 0, unless the test has killed it or has asked for the status.
func (c *child) end() {
	c.t.Helper()
	defer c.kill()
	if c.t.Failed() || c.killed || c.asked || c.args[0] != "run" && c.args[0] != "demo" {
		return
	}
	select {
	case <-c.ended:
	default:
		if c.stopping {
			break
		}
		closeIdle()
		if c.started != nil && !c.settle(patience) {
			return
		}
		pid, _ := c.latest()
		if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
			c.t.Errorf("it cannot be told to stop: %v", err)
		}
	}
	if status := c.wait(); status != 0 {
		c.t.Errorf("%v ended with status %d", c.args, status)
	}
}

// settle waits until the process holds what it held after its start. If it doesn't come to that, the process is made to tell its goroutines,
// and ends.
func (c *child) settle(patience time.Duration) bool {
	c.t.Helper()
	left := ""
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		if left = c.left(); left == "" {
			return true
		}
		if time.Now().After(deadline) {
			break
		}
	}
	c.t.Errorf("%v: its clients have gone, and this is left:\n%s", c.args, left)
	pid, _ := c.latest()
	_ = syscall.Kill(pid, syscall.SIGQUIT) // its stacks are in what it said
	c.wait()
	return false
}
