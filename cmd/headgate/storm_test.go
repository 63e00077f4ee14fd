package main

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"headgate/conf"
)

// swaps is how many changes are made under load: one after another, or evenly over HEADGATE_SWAP_TIME ("60s").
const swaps = 1000

// TestFault13ConfigSwaps is full load on keep-alive connections while weights, routes and upstreams change all the time. No request may be
// lost, every answer comes of one revision as a whole, every change is in force for the next request after its acknowledgement, and streams
// that are open stay so.
func TestFault13ConfigSwaps(t *testing.T) {
	g := startGuide(t)
	v1, v2 := g.upstreams["v1"].addr, g.upstreams["v2"].addr
	g.configure("PUT", "/routes", splitRoute(v1, v2))
	s := storm{guide: g, rand: rand.New(rand.NewPCG(1, 2)), routes: map[int]int{}, failures: make(chan error, 16)}
	s.startNodes()
	s.revise()
	s.configure("PUT", "/upstreams/swapped", fmt.Sprintf(`{"nodes":{%q:1}}`, s.nodes[0].addr))
	s.configure("PUT", "/routes/events", `{"uri":"/events","upstream_id":"swapped"}`)
	streams := s.open(8)
	var pause time.Duration
	if over := os.Getenv("HEADGATE_SWAP_TIME"); over != "" {
		d, err := time.ParseDuration(over)
		if err != nil {
			t.Fatal(err)
		}
		pause = d / swaps
	}

	s.play(func() bool { return len(s.failures) == 0 && s.asked.Load() < 500 }) // so that connections are there
	before := s.play(func() bool { return len(s.failures) == 0 && s.asked.Load() < 4000 })
	stop := make(chan struct{})
	var during *volley
	var playing sync.WaitGroup
	playing.Go(func() {
		during = s.play(func() bool {
			select {
			case <-stop:
				return false
			default:
				return true
			}
		})
	})
	begun := time.Now()
	for s.changes < swaps && len(s.failures) == 0 {
		s.change()
		time.Sleep(time.Until(begun.Add(time.Duration(s.changes) * pause)))
	}
	took := time.Since(begun)
	close(stop)
	playing.Wait()
	complete := s.end(streams)
	lost := len(s.failures)
	close(s.failures)
	for err := range s.failures {
		t.Errorf("a request was lost: %v", err)
	}
	if n := s.mixed.Load(); n > 0 {
		t.Errorf("%d answers came of more than one revision", n)
	}
	if complete != len(streams) {
		t.Errorf("%d of %d streams stayed open and came to their end", complete, len(streams))
	}
	// Nothing was sent twice, nothing got lost: every answered request, and no other, is on one of the two branches.
	total := int64(len(g.upstreams["v1"].take()) + len(g.upstreams["v2"].take()))
	if want := s.chats.Load() + int64(s.probes); total != want {
		t.Errorf("the upstreams saw %d requests, the clients have %d answers", total, want)
	}
	eventually(t, "the metric to count what the clients have got", func() bool { // the last ones may be counted after they have been sent
		return int64(g.requests("aimlapi-split", "v1")+g.requests("aimlapi-split", "v2")) == s.chats.Load()
	})
	t.Logf("F13: %d changes of routes, upstreams and weights in %v under load: %d of %d requests lost, %d answers of mixed revisions, "+
		"%d of %d event streams untouched; p99 %v, before %v", s.changes, took.Round(10*time.Millisecond), lost,
		during.served+int64(lost), s.mixed.Load(), complete, len(streams), during.quantile(0.99), before.quantile(0.99))
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
	probes  int // requests that reached v1 or v2

	nodes      [2]*faultUpstream // of the route /revision, in turns
	endStreams func()
	revision   atomic.Int64 // the one that was acknowledged last

	asked, chats, mixed atomic.Int64
	failures            chan error
}

// play has clients ask as long as more says so.
func (s *storm) play(more func() bool) *volley {
	s.asked.Store(0)
	v := &volley{}
	var mu sync.Mutex
	var clients sync.WaitGroup
	for i := range 4 {
		c := dialWire(s.t, s.addr)
		ask := c.chat
		if i%2 == 1 {
			ask = func() error { return s.look(c) }
		}
		clients.Go(func() {
			var took []time.Duration
			for more() {
				begun := time.Now()
				_ = c.SetDeadline(begun.Add(patience))
				if err := ask(); err != nil {
					s.failures <- err
					break
				}
				took = append(took, time.Since(begun))
				if s.asked.Add(1); i%2 == 0 {
					s.chats.Add(1)
				}
			}
			mu.Lock()
			defer mu.Unlock()
			v.took = append(v.took, took...)
			v.served += int64(len(took))
		})
	}
	clients.Wait()
	return v
}

// revise writes the next revision of the route /revision. One plugin tells it to the upstream, another one to the client, and the node changes
// with every one of them.
func (s *storm) revise() {
	next := s.revision.Load() + 1
	s.configure("PUT", "/routes/revision", fmt.Sprintf(`{"uri":"/revision","plugins":{
		"proxy-rewrite":{"headers":{"set":{"X-Revision":"%d"}}},"response-rewrite":{"headers":{"set":{"X-Revision":"%d"}}}},
		"upstream":{"nodes":{%q:1}}}`, next, next, s.nodes[next%2].addr))
	s.revision.Store(next)
}

// look asks for /revision and judges the answer: it says three times of which revision it is.
func (s *storm) look(c *wireConn) error {
	acknowledged := s.revision.Load()
	res, body, err := c.exchange("GET /revision HTTP/1.1\r\nHost: storm\r\n\r\n")
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK || res.Close {
		return fmt.Errorf("status %d, closes: %t: %s", res.StatusCode, res.Close, body)
	}
	var node, told int64
	if _, err := fmt.Sscanf(body, "%d %d", &node, &told); err != nil {
		return fmt.Errorf("body %q", body)
	}
	if res.Header.Get("X-Revision") != fmt.Sprint(told) || node != told%2 {
		s.mixed.Add(1)
	}
	if told < acknowledged {
		return fmt.Errorf("revision %d after %d had been acknowledged", told, acknowledged)
	}
	return nil
}

// startNodes starts the upstreams of the route /revision: each says who it is and which revision it was told. /events is a stream of
// numbered events that goes on until endStreams is called.
func (s *storm) startNodes() {
	ended := make(chan struct{})
	s.endStreams = sync.OnceFunc(func() { close(ended) })
	for i := range s.nodes {
		s.nodes[i] = newFaultUpstream(s.t, nil, func(p *faultPeer) {
			for req := p.next(); req != nil; req = p.next() {
				if req.URL.Path != "/events" {
					p.send(whole(fmt.Sprintf("%d %s", i, req.Header.Get("X-Revision"))))
					continue
				}
				p.send(sseHead)
				beat := time.NewTicker(100 * time.Millisecond)
				for n, on := 0, true; on; n++ {
					p.send(chunk(fmt.Sprintf("data: %d\n\n", n)))
					select {
					case <-ended:
						on = false
					case <-beat.C:
					}
				}
				beat.Stop()
				p.send(chunk("data: last\n\n") + "0\r\n\r\n")
			}
		})
	}
	s.t.Cleanup(s.endStreams)
}

// openStream is a stream of events that has begun.
type openStream struct {
	*wireConn
	body io.Reader
}

// open begins n streams through a route whose upstream is changed while they run.
func (s *storm) open(n int) (streams []openStream) {
	for range n {
		c := dialWire(s.t, s.addr)
		if _, err := io.WriteString(c, "GET /events HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
			s.t.Fatal(err)
		}
		res, err := http.ReadResponse(c.in, nil)
		if err != nil {
			s.t.Fatal(err)
		}
		first := make([]byte, len("data: 0\n\n"))
		if _, err := io.ReadFull(res.Body, first); err != nil {
			s.t.Fatal(err)
		}
		streams = append(streams, openStream{c, res.Body})
	}
	return streams
}

// end lets the streams end and returns how many were whole.
func (s *storm) end(streams []openStream) (complete int) {
	s.endStreams()
	for _, o := range streams {
		_ = o.SetDeadline(time.Now().Add(patience))
		rest, err := io.ReadAll(o.body)
		events, last := strings.CutSuffix(string(rest), "data: last\n\n")
		n := 1
		for event := range strings.SplitAfterSeq(events, "\n\n") {
			if event == fmt.Sprintf("data: %d\n\n", n) {
				n++
			} else {
				last = last && event == ""
			}
		}
		if err == nil && last {
			complete++
		} else {
			s.t.Errorf("a stream: %q, %v", rest, err)
		}
	}
	return complete
}

func (s *storm) change() {
	s.changes++
	switch s.changes % 4 {
	case 0:
		v1 := s.rand.IntN(101)
		s.configure("PATCH", "/routes/aimlapi-split/weights", fmt.Sprintf("v1=%d&v2=%d", v1, 100-v1))
	case 1:
		s.changeRoute()
	case 2:
		s.revise()
	case 3: // the upstream of a route that has open streams
		s.configure("PUT", "/upstreams/swapped", fmt.Sprintf(`{"nodes":{%q:%d},"retries":%d}`, s.nodes[s.changes/4%2].addr, 1+s.rand.IntN(9), s.rand.IntN(3)))
	}
}

// changeRoute adds, changes or deletes a route.
func (s *storm) changeRoute() {
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
