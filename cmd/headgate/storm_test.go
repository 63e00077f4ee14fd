package main

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"headgate/conf"
)

const (
	stormTime  = 3 * time.Second
	stormPause = 20 * time.Millisecond // between two changes
)

// TestStorm is the short form of `make storm`: full load on keep-alive connections while weights and routes change all the time. No
// request may be lost, and every change is in force for the next request after its acknowledgement.
func TestStorm(t *testing.T) {
	g := startGuide(t)
	v1, v2 := g.upstreams["v1"].addr, g.upstreams["v2"].addr
	g.configure("PUT", "/routes", splitRoute(v1, v2))

	var served atomic.Int64
	var clients sync.WaitGroup
	stop := make(chan struct{})
	failures := make(chan error, 8)
	for range 4 {
		c := dialWire(t, g.addr)
		clients.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := c.chat(); err != nil {
					failures <- err
					return
				}
				served.Add(1)
			}
		})
	}

	s := storm{guide: g, rand: rand.New(rand.NewPCG(1, 2)), routes: map[int]int{}}
	tick := time.NewTicker(stormPause)
	defer tick.Stop()
	for end := time.Now().Add(stormTime); time.Now().Before(end) && len(failures) == 0; {
		<-tick.C
		s.change()
	}
	close(stop)
	clients.Wait()
	close(failures)
	for err := range failures {
		t.Errorf("a request was lost: %v", err)
	}

	if s.changes < 50 {
		t.Errorf("only %d changes were made", s.changes)
	}
	// Nothing was sent twice, nothing got lost: every answered request, and no other, is on one of the two branches.
	total := int64(len(g.upstreams["v1"].take()) + len(g.upstreams["v2"].take()))
	if want := served.Load() + int64(s.probes); total != want {
		t.Errorf("the upstreams saw %d requests, the clients have %d answers", total, want)
	}
	if n := int64(g.requests("aimlapi-split", "v1") + g.requests("aimlapi-split", "v2")); n != served.Load() {
		t.Errorf("the metric counts %d requests, the clients have %d answers", n, served.Load())
	}
	t.Logf("%d requests during %d changes", served.Load(), s.changes)
}

// chat sends one request of the storm and judges the answer.
func (c *wireConn) chat() error {
	const body = `{"messages":[]}`
	res, text, err := c.exchange("POST /chat/completions HTTP/1.1\r\nHost: storm\r\nContent-Length: 15\r\n\r\n" + body)
	switch {
	case err != nil:
		return err
	case res.StatusCode != http.StatusOK:
		return fmt.Errorf("status %d: %s", res.StatusCode, text)
	case text != "v1\n" && text != "v2\n":
		return fmt.Errorf("body %q", text)
	case res.Close:
		return errors.New("the connection is closed after an answer")
	}
	return nil
}

// storm makes changes and looks at once whether each is in force.
type storm struct {
	*guide
	rand    *rand.Rand
	routes  map[int]int // the routes that exist, and the upstream that each leads to
	changes int
	probes  int // requests that reached an upstream
}

func (s *storm) change() {
	s.changes++
	if s.changes%2 == 0 {
		v1 := s.rand.IntN(101)
		s.configure("PATCH", "/routes/aimlapi-split/weights", fmt.Sprintf("v1=%d&v2=%d", v1, 100-v1))
		return
	}
	i := s.rand.IntN(10)
	uri := fmt.Sprintf("/storm/%d", i)
	if at, exists := s.routes[i]; exists && s.rand.IntN(2) == 0 {
		if a := s.admin("DELETE", fmt.Sprintf("/routes/storm-%d", i), ""); a.status != http.StatusOK {
			s.t.Errorf("deleting a route to v%d: %v", at, a)
		}
		delete(s.routes, i)
		s.probe(uri, http.StatusNotFound, `{"error_msg":"404 Route Not Found"}`+"\n")
		return
	}
	to := 1 + s.rand.IntN(2)
	s.configure("PUT", fmt.Sprintf("/routes/storm-%d", i), fmt.Sprintf(
		`{"uri":%q,"desc":"change %d","upstream":{"scheme":"https","nodes":{%q:1}}}`, uri, s.changes, s.upstreams[fmt.Sprintf("v%d", to)].addr))
	s.routes[i] = to
	s.probes++
	s.probe(uri, http.StatusOK, fmt.Sprintf("v%d\n", to))
}

func (s *storm) probe(uri string, status int, body string) {
	if a := s.send("GET", "http://"+s.addr+uri, ""); a.status != status || a.body != body {
		s.t.Errorf("after change %d: %v, want %d %s", s.changes, a, status, body)
	}
}

// A change during a long answer leaves the answer alone, and its route's upstream is let go only when it has ended.
func TestChangeDuringAnswer(t *testing.T) {
	g := startGate(t, onLoopback(t, conf.Default()))
	u := newScripted(t)
	g.configure("PUT", "/routes/long", fmt.Sprintf(`{"uri":"/long","upstream":{"nodes":{%q:1}}}`, u.addr))
	c := dialWire(t, g.addr)
	if _, err := io.WriteString(c, "GET /long HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	served := u.next(t)
	served.send(t, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"+chunk("hello"))
	res, err := http.ReadResponse(c.in, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	head := make([]byte, 5)
	if _, err := io.ReadFull(res.Body, head); err != nil {
		t.Fatal(err)
	}
	if a := g.admin("DELETE", "/routes/long", ""); a.status != http.StatusOK {
		t.Fatal(a)
	}
	if a := g.send("GET", "http://"+g.addr+"/long", ""); a.status != http.StatusNotFound {
		t.Errorf("after the deletion: %v", a)
	}
	served.send(t, chunk("world")+"0\r\n\r\n")
	rest, err := io.ReadAll(res.Body)
	if err != nil || string(head)+string(rest) != "helloworld" {
		t.Errorf("%q, %v", string(head)+string(rest), err)
	}
	eventually(t, "the end of the old snapshot", func() bool { return g.metric("headgate_snapshot_pending") == 0 })
}
