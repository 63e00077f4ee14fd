package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// streams are event streams through a gateway, of which a test plays the upstream.
type streams struct {
	clients []*wireConn
	served  []*servedRequest
	bodies  []io.ReadCloser
	sent    int
}

const slowRequest = "GET /slow HTTP/1.1\r\nHost: a\r\n\r\n"

// openStreams opens n of them on the route /slow of the gateway.
func openStreams(t testing.TB, gateway string, up *scripted, n int) *streams {
	t.Helper()
	s := &streams{}
	for range n {
		c := dialWire(t, gateway)
		_ = c.SetDeadline(time.Now().Add(10 * patience))
		if _, err := io.WriteString(c, slowRequest); err != nil {
			t.Fatal(err)
		}
		served := up.next(t)
		served.send(t, sseHead)
		res, err := http.ReadResponse(c.in, nil)
		if err != nil || res.StatusCode != http.StatusOK {
			t.Fatalf("%+v, %v", res, err)
		}
		s.clients, s.served, s.bodies = append(s.clients, c), append(s.served, served), append(s.bodies, res.Body)
	}
	return s
}

// event sends one through every stream and waits until it has arrived.
func (s *streams) event(t testing.TB) {
	t.Helper()
	s.sent++
	event := fmt.Sprintf("data: %d\n\n", s.sent)
	for i, up := range s.served {
		up.send(t, chunk(event))
		got := make([]byte, len(event))
		if _, err := io.ReadFull(s.bodies[i], got); err != nil || string(got) != event {
			t.Fatalf("stream %d, event %d: %q, %v", i, s.sent, got, err)
		}
	}
}

// end ends every stream, and returns how many were whole.
func (s *streams) end(t testing.TB) (whole int) {
	t.Helper()
	for i, up := range s.served {
		up.send(t, "0\r\n\r\n")
		if rest, err := io.ReadAll(s.bodies[i]); err != nil || len(rest) > 0 {
			t.Errorf("stream %d ends with %q, %v", i, rest, err)
			continue
		}
		whole++
	}
	return whole
}

// twoRoutes are /slow and /quick.
func twoRoutes(slow, quick string) string {
	return fmt.Sprintf("[[routes]]\nid = \"slow\"\nuri = \"/slow\"\n[routes.upstream]\nnodes = { %q = 1 }\n"+
		"[[routes]]\nid = \"quick\"\nuri = \"/quick\"\n[routes.upstream]\nnodes = { %q = 1 }\n", slow, quick)
}

// served says whether a new client gets its answer, and the next one over the same connection if next.
func served(gateway string, next bool) bool {
	nc, err := net.DialTimeout("tcp", gateway, patience)
	if err != nil {
		return false
	}
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(patience))
	c := newWireConn(nc)
	for range 2 {
		res, _, err := c.exchange(quickRequest)
		if err != nil || res.StatusCode != http.StatusOK || next && res.Close {
			return false
		}
		if !next {
			break
		}
	}
	return true
}

// pressureEnv is how many seconds TestFault26Descriptors keeps up the pressure.
const pressureEnv = "HEADGATE_PRESSURE_SECONDS"

// TestFault26Descriptors: a thousand clients at a process with 256 descriptors. It lives, the streams that run go on, newcomers are told, and when
// the others are gone it serves as before; whether the bound of connections keeps descriptors free, or they run out.
func TestFault26Descriptors(t *testing.T) {
	const clients = 1000
	lasts := 2 * time.Second
	if n, err := strconv.Atoi(os.Getenv(pressureEnv)); err == nil {
		lasts = time.Duration(n) * time.Second
	}
	for _, tt := range []struct{ name, settings string }{
		{"bounded", ""},
		{"exhausted", "max_connections = 100000\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			slow, quick := newScripted(t), newUpstream(t, "quick", nil)
			dir := t.TempDir()
			config := childConfigText(t, dir, twoRoutes(slow.addr, quick.addr))
			file := dir + "/few.toml"
			writeFile(t, file, strings.Replace(config, "[gateway]\n", "[gateway]\n"+tt.settings, 1))
			c := startChildWith(t, dir, childOptions{files: 256}, "run", "-c", file)
			gateway := c.addr("gateway")
			running := openStreams(t, gateway, slow, 8)
			running.event(t)

			var stop atomic.Bool
			var answered, refused, closed atomic.Int64
			var all sync.WaitGroup
			for range clients {
				all.Go(func() {
					for !stop.Load() {
						switch ask503(gateway, &stop) {
						case http.StatusOK:
							answered.Add(1)
						case 0:
							closed.Add(1)
						default:
							refused.Add(1)
						}
					}
				})
			}
			for end := time.Now().Add(lasts); time.Now().Before(end) || answered.Load()+refused.Load()+closed.Load() < clients; time.Sleep(100 * time.Millisecond) {
				running.event(t)
			}
			stop.Store(true)
			all.Wait()
			released := time.Now()
			eventually(t, "clients to be served again", func() bool { return served(gateway, true) })
			recovered := time.Since(released)
			running.event(t)
			whole := running.end(t)
			select {
			case <-c.ended:
				t.Error("the process has ended")
			default:
			}
			if refused.Load()+closed.Load() == 0 {
				t.Error("there was room for all")
			}
			t.Logf("F26: 256 descriptors (%s), %d clients for %v: %d requests served, %d refused with an answer, %d without; %d of 8 streams untouched, served again %v after the release",
				tt.name, clients, lasts, answered.Load(), refused.Load(), closed.Load(), whole, recovered.Round(time.Millisecond))
		})
	}
}

// ask503 asks once and stays connected for a while. It returns the status, 0 when there was no answer.
func ask503(gateway string, stop *atomic.Bool) int {
	nc, err := net.DialTimeout("tcp", gateway, patience)
	if err != nil {
		return 0
	}
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(patience))
	res, _, err := newWireConn(nc).exchange(quickRequest)
	for i := 0; i < 20 && !stop.Load(); i++ {
		time.Sleep(10 * time.Millisecond)
	}
	if err != nil {
		return 0
	}
	return res.StatusCode
}

// TestFault27MemoryCap: clients bring more than twice what a process with 128 MiB can hold, slowly, to a plugin that needs bodies whole. It stays
// below, refuses what it has no room for, and serves everybody when the others are gone.
func TestFault27MemoryCap(t *testing.T) {
	const (
		limit   = 128 << 20
		large   = 40
		small   = 1000
		uploads = large + small
	)
	slow, quick := newScripted(t), newUpstream(t, "quick", nil)
	dir := t.TempDir()
	config := childConfigText(t, dir, twoRoutes(slow.addr, quick.addr)+fmt.Sprintf(`
[[routes]]
id = "held"
uri = "/held"
[routes.plugins.request-validation.body_schema]
type = "object"
[routes.upstream]
nodes = { %q = 1 }
`, quick.addr))
	file := dir + "/small.toml"
	writeFile(t, file, strings.Replace(config, "[gateway]\n", "[gateway]\nmemory_limit = \"128MiB\"\n", 1))
	v := &volume{child: startChild(t, dir, "run", "-c", file)}
	gateway := v.addr("gateway")
	running := openStreams(t, gateway, slow, 8)
	running.event(t)
	idle := dialWire(t, gateway)
	if _, _, err := idle.exchange(quickRequest); err != nil {
		t.Fatal(err)
	}
	before, _ := v.memory()

	total := 0
	var offered, taken, refused, lost atomic.Int64
	release := make(chan struct{})
	var all sync.WaitGroup
	piece := bytes.Repeat([]byte("x"), 64<<10)
	for i := range uploads {
		size := 8 << 20
		if i >= large {
			size = 128 << 10
		}
		total += size
		all.Go(func() {
			nc, err := net.DialTimeout("tcp", gateway, patience)
			if err != nil {
				t.Error(err)
				return
			}
			defer nc.Close()
			_ = nc.SetDeadline(time.Now().Add(10 * patience))
			c := newWireConn(nc)
			answer := make(chan int, 1)
			go func() {
				res, _, err := c.read()
				if err != nil {
					answer <- 0
					return
				}
				answer <- res.StatusCode
			}()
			_, err = fmt.Fprintf(c, "POST /held HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", size)
			for sent := 0; sent < size-len(piece) && err == nil; sent += len(piece) {
				_, err = c.Write(piece)
			}
			offered.Add(1)
			select {
			case status := <-answer:
				if status != http.StatusServiceUnavailable {
					lost.Add(1)
				}
				refused.Add(1)
				return
			case <-release:
			}
			taken.Add(1)
			_ = nc.Close()
			<-answer
		})
	}
	eventually(t, "the uploads to come as far as they can", func() bool { return offered.Load() == uploads })
	asked, turnedAway := 0, 0
	for range 200 {
		asked++
		nc, err := net.DialTimeout("tcp", gateway, patience)
		if err != nil {
			t.Fatal(err)
		}
		_ = nc.SetDeadline(time.Now().Add(patience))
		res, _, err := newWireConn(nc).exchange(quickRequest)
		if err != nil || res.StatusCode != http.StatusOK && (res.StatusCode != http.StatusServiceUnavailable || res.Header.Get("Retry-After") == "") {
			t.Fatalf("%+v, %v", res, err)
		}
		if res.StatusCode != http.StatusOK {
			turnedAway++
		}
		_ = nc.Close()
	}
	running.event(t)
	now, highest := v.memory()
	close(release)
	all.Wait()
	released := time.Now()
	eventually(t, "clients to be served again, and kept", func() bool { return served(gateway, true) })
	recovered := time.Since(released)
	running.event(t)
	whole := running.end(t)
	if highest > limit {
		t.Errorf("%d bytes were resident, %d are allowed", highest, limit)
	}
	// An answer may be lost to a client that is slow to stop sending: who is refused is waited for, but not for ever.
	if refused.Load() == lost.Load() || taken.Load() == 0 {
		t.Errorf("%d uploads had room, %d were refused, %d of them without a 503", taken.Load(), refused.Load(), lost.Load())
	}
	t.Logf("F27: 128 MiB allowed, %d MiB offered: %d MiB resident before, %d during, %d at most; %d uploads held, %d refused with a 503 and %d without; %d of %d new requests refused; %d of 8 streams untouched, served again %v after the release",
		total>>20, before>>20, now>>20, highest>>20, taken.Load(), refused.Load()-lost.Load(), lost.Load(), turnedAway, asked, whole, recovered.Round(time.Millisecond))
}
