package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"headgate/conf"
	"headgate/conf/store/etcd/etcdtest"
)

// etcdTimeout is store.etcd.timeout of the tests: short, because some of them wait for it.
const etcdTimeout = 700 * time.Millisecond

// onEtcd is onLoopback with the etcd at endpoint as the store.
func onEtcd(t testing.TB, endpoint string) *conf.Config {
	t.Helper()
	c := onLoopback(t, conf.Default())
	c.Store.Provider = conf.StoreEtcd
	c.Store.Etcd.Endpoints = []string{endpoint}
	c.Store.Etcd.Timeout = conf.Duration(etcdTimeout)
	return c
}

// neighbour is somebody else who uses the same etcd.
type neighbour struct {
	t      testing.TB
	client *clientv3.Client
}

func newNeighbour(t testing.TB, s *etcdtest.Server) neighbour { return neighbour{t, s.Client()} }

// put writes a document as it is; key is what follows /apisix/.
func (n neighbour) put(key, value string) {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if _, err := n.client.Put(ctx, "/apisix/"+key, value); err != nil {
		n.t.Fatal(err)
	}
}

func (n neighbour) remove(key string) {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if _, err := n.client.Delete(ctx, "/apisix/"+key); err != nil {
		n.t.Fatal(err)
	}
}

// value returns the bytes under key, "" when there are none.
func (n neighbour) value(key string) string {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	r, err := n.client.Get(ctx, "/apisix/"+key)
	if err != nil {
		n.t.Fatal(err)
	}
	if len(r.Kvs) == 0 {
		return ""
	}
	return string(r.Kvs[0].Value)
}

// gauge returns the value of a series without labels.
func (g *gate) gauge(name string) float64 {
	g.t.Helper()
	for line := range strings.Lines(g.send("GET", "http://"+g.process.addr("metrics")+"/metrics", "").body) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			f, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil {
				g.t.Fatal(err)
			}
			return f
		}
	}
	g.t.Fatalf("there is no %s", name)
	return 0
}

// answers reports whether path of the gateway answers 200 with body.
func (g *gate) answers(path, body string) bool {
	g.t.Helper()
	a := g.send("GET", "http://"+g.addr+path, "")
	return a.status == http.StatusOK && a.body == body
}

// isGone reports whether no route has path.
func (g *gate) isGone(path string) bool {
	g.t.Helper()
	return g.send("GET", "http://"+g.addr+path, "").status == http.StatusNotFound
}

// traffic sends requests without a pause until it is told to stop. No answer may differ from the expected one.
type traffic struct {
	t       testing.TB
	stop    chan struct{}
	clients sync.WaitGroup
	served  atomic.Int64
	longest atomic.Int64 // time that an answer took, in nanoseconds
	failure chan error
}

// startTraffic asks path of g for body.
func startTraffic(t testing.TB, g *gate, clients int, path, body string) *traffic {
	t.Helper()
	f := &traffic{t: t, stop: make(chan struct{}), failure: make(chan error, clients)}
	for range clients {
		c := dialWire(t, g.addr)
		f.clients.Go(func() {
			for {
				select {
				case <-f.stop:
					return
				default:
				}
				if err := f.one(c, path, body); err != nil {
					f.failure <- err
					return
				}
			}
		})
	}
	t.Cleanup(f.end)
	return f
}

func (f *traffic) one(c *wireConn, path, body string) error {
	begun := time.Now()
	if err := c.SetDeadline(begun.Add(patience)); err != nil {
		return err
	}
	res, text, err := c.exchange("GET " + path + " HTTP/1.1\r\nHost: traffic\r\n\r\n")
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK || text != body {
		return fmt.Errorf("%d %q", res.StatusCode, text)
	}
	f.served.Add(1)
	if took := int64(time.Since(begun)); took > f.longest.Load() {
		f.longest.Store(took) // of two at once either may stay: it is a figure to look at
	}
	return nil
}

// flows waits until a hundred more requests were served, and fails with the first that was not.
func (f *traffic) flows(t testing.TB) {
	t.Helper()
	want := f.served.Load() + 100
	eventually(t, "a hundred requests", func() bool {
		select {
		case err := <-f.failure:
			t.Fatalf("a request failed: %v", err)
		default:
		}
		return f.served.Load() >= want
	})
}

// end stops the clients and fails when one of them had to.
func (f *traffic) end() {
	select {
	case <-f.stop:
		return
	default:
	}
	close(f.stop)
	f.clients.Wait()
	select {
	case err := <-f.failure:
		f.t.Errorf("a request failed: %v", err)
	default:
	}
	f.t.Logf("%d requests, the slowest took %v", f.served.Load(), time.Duration(f.longest.Load()).Round(10*time.Microsecond))
}

// partition is the network between a gateway and etcd.
type partition struct {
	target   string
	listener net.Listener
	done     sync.WaitGroup
	mu       sync.Mutex
	closed   bool
	conns    map[net.Conn]bool
}

func newPartition(t testing.TB, endpoint string) *partition {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &partition{target: strings.TrimPrefix(endpoint, "http://"), listener: l, conns: map[net.Conn]bool{}}
	p.done.Go(p.serve)
	t.Cleanup(func() {
		_ = l.Close()
		p.cut()
		p.done.Wait()
	})
	return p
}

func (p *partition) endpoint() string { return "http://" + p.listener.Addr().String() }

func (p *partition) serve() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", p.target)
		if err != nil || !p.keep(client, server) {
			_ = client.Close()
			if err == nil {
				_ = server.Close()
			}
			continue
		}
		for from, to := range map[net.Conn]net.Conn{client: server, server: client} {
			p.done.Go(func() {
				_, _ = io.Copy(to, from) // until one of them ends
				_ = to.Close()
				_ = from.Close()
			})
		}
	}
}

func (p *partition) keep(conns ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		p.conns[c] = true
	}
	return !p.closed
}

// cut ends all connections, and new ones at once, until heal.
func (p *partition) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for c := range p.conns {
		_ = c.Close()
	}
	clear(p.conns)
}

func (p *partition) heal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = false
}
