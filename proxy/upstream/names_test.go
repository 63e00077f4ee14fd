package upstream

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"headgate/conf/resource"
	"headgate/proxy/fault"
	"headgate/proxy/upstream/dns"
	"headgate/proxy/upstream/dns/dnstest"
)

// newNamed is a rig that asks a name server of the test's, and nobody else.
func newNamed(t testing.TB, minTTL time.Duration) (*rig, *dnstest.Server) {
	ns := dnstest.Start(t)
	none := filepath.Join(t.TempDir(), "none")
	r := &rig{t: t}
	return r.open(dns.Options{
		Source: dns.System(dns.SystemOptions{Servers: []string{ns.Addr()}, Refresh: time.Minute, Hosts: none, ResolvConf: none}),
		MinTTL: minTTL, Stale: time.Hour,
	}), ns
}

// answerOn answers every request that comes to ln with text, on connections that stay open.
func answerOn(t testing.TB, ln net.Listener, text string) {
	var running sync.WaitGroup
	var mu sync.Mutex
	var open []net.Conn
	running.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open = append(open, c)
			mu.Unlock()
			running.Go(func() {
				defer c.Close()
				br := bufio.NewReader(c)
				for {
					if _, err := http.ReadRequest(br); err != nil {
						return
					}
					if _, err := fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(text), text); err != nil {
						return
					}
				}
			})
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		mu.Lock()
		for _, c := range open {
			_ = c.Close()
		}
		mu.Unlock()
		running.Wait()
	})
}

// twins are servers on one port of 127.0.0.1 and 127.0.0.2, which say "one" and "two".
func twins(t testing.TB) (port int) {
	t.Helper()
	for range 50 {
		one := listen(t)
		port = one.Addr().(*net.TCPAddr).Port
		two, err := net.Listen("tcp", fmt.Sprintf("127.0.0.2:%d", port))
		if err != nil {
			_ = one.Close()
			continue
		}
		answerOn(t, one, "one")
		answerOn(t, two, "two")
		return port
	}
	t.Fatal("no port is free on both addresses")
	return 0
}

// TestFault31Names: what becomes of requests to a node with a name, on connections that are kept, when the name server gives other
// addresses, fails, keeps silent, or says that there is nothing. It is about 0 errors; how soon a change is seen is logged.
func TestFault31Names(t *testing.T) {
	t.Parallel()
	r, ns := newNamed(t, time.Second)
	s := &server{host: "name.test", port: twins(t)}
	ns.Set("name.test.", dnstest.A("127.0.0.1", 1))
	u := r.upstream(nil, s)
	u.Publish("upstreams/1")

	var requests, errs atomic.Int64
	var seen atomic.Value // the last body, or fault
	seen.Store("")
	stop := make(chan struct{})
	var running sync.WaitGroup
	for range 3 {
		running.Go(func() {
			for {
				got := get(u)
				if requests.Add(1); got.code() != "" {
					errs.Add(1)
					seen.Store(got.code())
				} else {
					seen.Store(got.body)
				}
				select {
				case <-stop:
					return
				case <-time.After(time.Millisecond):
				}
			}
		})
	}
	defer running.Wait()
	defer close(stop)
	var changes, during, failures int64
	var usual, afterTrouble time.Duration // the slowest change seen, also of those that the name server could not tell at first
	within := &usual
	becomes := func(want string) {
		t.Helper()
		begun := time.Now()
		for seen.Load() != want { // a question to a server that keeps silent takes some seconds
			if time.Since(begun) > time.Minute {
				t.Fatalf("never came about: %s", want)
			}
			time.Sleep(time.Millisecond)
		}
		changes++
		*within = max(*within, time.Since(begun))
		if within = &usual; want == fault.UnknownNode.Code { // no address: asked for again by a clock of its own
			within = &afterTrouble
		}
	}
	stays := func(what string) {
		t.Helper()
		before, asked, failed := requests.Load(), ns.Asked("name.test."), errs.Load()
		for begun := time.Now(); ns.Asked("name.test.") < asked+3 || requests.Load() < before+50; time.Sleep(time.Millisecond) {
			if time.Since(begun) > time.Minute {
				t.Fatal("nobody asks")
			}
		}
		if n := errs.Load() - failed; n > 0 {
			t.Errorf("%s: %d of %d requests failed, the last with %v", what, n, requests.Load()-before, seen.Load())
		}
		during += requests.Load() - before
		failures += errs.Load() - failed
		within = &afterTrouble
	}
	becomes("one")
	before := errs.Load()
	ns.Set("name.test.", dnstest.A("127.0.0.2", 1))
	becomes("two")
	if n := errs.Load() - before; n > 0 {
		failures += n
		t.Errorf("%d requests failed when all addresses changed", n)
	}
	eventually(t, "the connections of the old address are left", func() bool {
		for range 20 {
			if seen.Load() != "two" {
				return false
			}
			time.Sleep(time.Millisecond)
		}
		return true
	})
	ns.Fail("name.test.", dnsmessage.RCodeServerFailure)
	stays("SERVFAIL")
	ns.Set("name.test.", dnstest.A("127.0.0.1", 1))
	becomes("one")
	ns.Silence(func(string, dnsmessage.Type) bool { return true })
	stays("a name server that keeps silent")
	ns.Silence(nil)
	ns.Set("name.test.", dnstest.A("127.0.0.2", 1))
	becomes("two")

	ns.Set("name.test.") // definite answers count
	becomes(fault.UnknownNode.Code)
	ns.Set("name.test.", dnstest.A("127.0.0.1", 1))
	becomes("one")
	ns.Fail("name.test.", dnsmessage.RCodeNameError)
	becomes(fault.UnknownNode.Code)
	ns.Set("name.test.", dnstest.A("127.0.0.2", 1))
	becomes("two")
	t.Logf("F31: %d errors in %d requests while all addresses changed, the name server failed and kept silent; %d changes seen, the slowest after %v (TTL 1 s), of those after a failure or no address after %v",
		failures, during, changes, usual.Round(time.Millisecond), afterTrouble.Round(time.Millisecond))
}

// TestNameServerDown: without any answer a request fails as the contract says, and works as soon as there is one.
func TestNameServerDown(t *testing.T) {
	r, ns := newNamed(t, 10*time.Millisecond)
	s := says(t, "ok")
	s.host = "name.test"
	ns.Fail("name.test.", dnsmessage.RCodeServerFailure)
	u := r.upstream(nil, s)
	u.Publish("upstreams/1")
	if got := post(u); got.fault != fault.UnknownNode || got.fault.Status != 503 {
		t.Fatalf("got %q", got.code())
	}
	ns.Set("name.test.", dnstest.A("127.0.0.1", 1))
	eventually(t, "an answer", func() bool { return post(u).body == "ok" })
}

// TestNamesAreWatched from Publish to Withdraw, once for each upstream that has them in force.
func TestNamesAreWatched(t *testing.T) {
	r, ns := newNamed(t, time.Millisecond)
	s := says(t, "ok")
	s.host = "name.test"
	ns.Set("name.test.", dnstest.A("127.0.0.1", 0))
	a := r.upstream(nil, s, s)
	b := r.upstream(nil, s)
	if ns.Asked("name.test.") != 0 {
		t.Error("something was asked before the publication")
	}
	goesOn := func() {
		t.Helper()
		asked := ns.Asked("name.test.")
		eventually(t, "questions", func() bool { return ns.Asked("name.test.") > asked+6 })
	}
	a.Publish("upstreams/1")
	a.Publish("upstreams/1")
	b.Publish("upstreams/2")
	goesOn()
	a.Withdraw()
	a.Withdraw()
	goesOn()
	b.Withdraw()
	post(b).want(t, 200, "ok") // exchanges of before still find their way
}

// TestFilter: what is never dialled, and what is when the operator allows it.
func TestFilter(t *testing.T) {
	var deny filter
	allow := filter{allow: []netip.Prefix{netip.MustParsePrefix("169.254.0.0/16"), netip.MustParsePrefix("fe80::/10")}}
	for addr, want := range map[string][2]bool{ // passes by default, passes allow
		"127.0.0.1": {true, true}, "::1": {true, true}, "10.0.0.1": {true, true}, "192.168.1.1": {true, true}, "fd00::1": {true, true}, "8.8.8.8": {true, true},
		"2001:db8::1": {true, true}, "100.64.0.1": {true, true}, "::ffff:10.0.0.1": {true, true}, "64:ff9b::808:808": {true, true},
		"169.254.169.254": {false, true}, "169.254.0.0": {false, true}, "::ffff:169.254.169.254": {false, true}, "64:ff9b::a9fe:a9fe": {false, true},
		"fe80::1": {false, true}, "fe80::1%eth0": {false, true}, "febf::1": {false, true}, "fd00:ec2::254": {false, false},
		"224.0.0.1": {false, false}, "239.1.1.1": {false, false}, "ff02::1": {false, false}, "0.0.0.0": {false, false}, "0.1.2.3": {false, false}, "::": {false, false},
		"255.255.255.255": {false, false}, "::ffff:0.0.0.0": {false, false},
	} {
		a := netip.MustParseAddr(addr)
		if got := [2]bool{deny.refuses(a) == "", allow.refuses(a) == ""}; got != want {
			t.Errorf("%s passes: %v, want %v", addr, got, want)
		}
	}
}

// TestRefusedAddress: neither a document nor a name server makes the gateway connect to one, and of several addresses the others are used.
func TestRefusedAddress(t *testing.T) {
	r, ns := newNamed(t, time.Second)
	doc := func(host string) *resource.Upstream {
		return &resource.Upstream{Type: "roundrobin", Scheme: "http", Nodes: []resource.Node{{Host: host, Port: 80, Weight: 1}}}
	}
	for _, host := range []string{"169.254.169.254", "::ffff:169.254.169.254", "fe80::1", "0.0.0.0"} {
		if _, err := Compile(r.hub, doc(host), "test", r.def, nil); err == nil || !strings.Contains(err.Error(), "allow_addresses of [upstream]") {
			t.Errorf("%s: %v", host, err)
		}
	}
	ns.Set("metadata.test.", dnstest.A("169.254.169.254", 60), dnstest.A("fe80::1", 60))
	s := says(t, "ok")
	s.host = "metadata.test"
	x := request("POST", "/", "data")
	do(r.upstream(nil, s), x).wantFault(t, fault.RefusedNode)
	if statuses(x) != "503" || r.faults[0] != "refused_node_address" {
		t.Errorf("statuses %q, reported %q", statuses(x), r.faults)
	}
	ns.Set("mixed.test.", dnstest.A("169.254.169.254", 60), dnstest.A("127.0.0.1", 60))
	s.host = "mixed.test"
	for range 3 {
		post(r.upstream(nil, s)).want(t, 200, "ok")
	}
	if _, err := r.hub.dialProbe(t.Context(), "169.254.169.254", 80); err == nil || !strings.Contains(err.Error(), "link-local") {
		t.Errorf("a probe: %v", err)
	}
	// In the way of the contract's gateway the document is accepted; the address is not dialled all the same.
	r.hub.Restrict(nil, true)
	u, err := Compile(r.hub, doc("169.254.169.254"), "test", r.def, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	post(u).wantFault(t, fault.RefusedNode)
	r.hub.Restrict([]netip.Prefix{netip.MustParsePrefix("169.254.0.0/16")}, false)
	allowed, err := Compile(r.hub, doc("169.254.169.254"), "test", r.def, nil)
	if err != nil {
		t.Fatal(err)
	}
	allowed.Close()
}
