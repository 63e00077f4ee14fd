package main

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"headgate/conf"
	"headgate/proxy/upstream/dns/dnstest"
)

// withNames starts a gateway that asks a name server of the test's.
func withNames(t *testing.T) (*gate, *dnstest.Server) {
	t.Helper()
	ns := dnstest.Start(t)
	c := onLoopback(t, conf.Default())
	c.Upstream.DNSServers, c.Discovery.DNS.Servers = []string{ns.Addr()}, []string{ns.Addr()}
	c.Upstream.DNSMinTTL = conf.Duration(100 * time.Millisecond)
	return startGate(t, c), ns
}

func portNumber(t *testing.T, addr string) uint16 {
	t.Helper()
	a, err := netip.ParseAddrPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	return a.Port()
}

// bodies are the different answers to so many requests.
func (g *gate) bodies(path string, n int) string {
	g.t.Helper()
	var list []string
	for range n {
		a := g.send("GET", "http://"+g.addr+path, "")
		if a.status != 200 {
			g.t.Fatalf("%s: %v", path, a)
		}
		if text := strings.TrimSpace(a.body); !slices.Contains(list, text) {
			list = append(list, text)
		}
	}
	slices.Sort(list)
	return strings.Join(list, " ")
}

// TestDiscoveryByDNS: nodes of upstreams, of services and inline, come and go while their documents stay.
func TestDiscoveryByDNS(t *testing.T) {
	g, ns := withNames(t)
	one, two := newUpstream(t, "one", nil), newUpstream(t, "two", nil)
	srv := func(u *upstreamServer) dnstest.Record {
		return dnstest.SRV(10, 5, portNumber(t, u.addr), "here.test.", 0)
	}
	ns.Set("here.test.", dnstest.A("127.0.0.1", 0))
	ns.Set("web.test.", srv(one))
	const discovered = `"service_name":"web.test","discovery_type":"dns","type":"roundrobin"`
	g.configure("PUT", "/upstreams/1", `{`+discovered+`,"checks":{"active":{"type":"tcp"}}}`)
	g.configure("PUT", "/services/1", `{"upstream":{`+discovered+`}}`)
	g.configure("PUT", "/routes/1", `{"uri":"/shared","upstream_id":"1","timeout":{"connect":30,"send":30,"read":30}}`)
	g.configure("PUT", "/routes/2", `{"uri":"/inline","upstream":{`+discovered+`}}`)
	g.configure("PUT", "/routes/3", `{"uri":"/service","service_id":"1"}`)
	g.configure("PUT", "/routes/4", `{"uri":"/split","upstream_id":"1","plugins":{"traffic-split":{"rules":[{"weighted_upstreams":[{"upstream":{`+discovered+`}}]}]}}}`)
	revision := g.applier.Revision()
	paths := []string{"/shared", "/inline", "/service", "/split"}
	for _, path := range paths {
		if got := g.bodies(path, 4); got != "one" {
			t.Fatalf("%s: %s", path, got)
		}
	}
	ns.Set("web.test.", srv(one), srv(two))
	for _, path := range paths {
		eventually(t, "both nodes of "+path, func() bool { return g.bodies(path, 4) == "one two" })
	}
	ns.Set("web.test.", srv(two))
	for _, path := range paths {
		eventually(t, "the other node of "+path, func() bool { return g.bodies(path, 4) == "two" })
	}
	ns.Fail("web.test.", dnsmessage.RCodeServerFailure)
	asked := ns.Asked("web.test.")
	eventually(t, "failures", func() bool { return ns.Asked("web.test.") > asked })
	for _, path := range paths {
		if got := g.bodies(path, 4); got != "two" {
			t.Fatalf("%s: %s", path, got)
		}
	}
	if g.applier.Revision() != revision || strings.Contains(g.admin("GET", "/upstreams/1", "").body, "127.0.0.1") {
		t.Error("the document has changed")
	}
	control := "http://" + g.process.addr("control")
	var checked []struct {
		Name  string
		Nodes []struct{ IP string }
	}
	eventually(t, "the node in /v1/healthcheck", func() bool {
		a := g.send("GET", control+"/v1/healthcheck", "")
		err := json.Unmarshal([]byte(a.body), &checked)
		return err == nil && len(checked) == 1 && len(checked[0].Nodes) == 1
	})
	a := g.send("POST", control+"/v1/explain", `{"method":"GET","path":"/shared"}`)
	if !strings.Contains(a.body, two.addr) || strings.Contains(a.body, one.addr) {
		t.Errorf("/v1/explain: %v", a)
	}
	if a = g.send("GET", control+"/v1/upstream/1", ""); a.status != 200 || !strings.Contains(a.body, "web.test") {
		t.Errorf("/v1/upstream/1: %v", a)
	}
	if a = g.send("GET", control+"/v1/discovery/dns/dump", ""); a.status != 200 || !strings.HasPrefix(a.body, fmt.Sprintf(
		`{"config":{"servers":[%q]},"services":{"web.test":[{"host":"127.0.0.1","port":%d,"weight":5,"priority":-10}]},"until":{"web.test":"20`,
		ns.Addr(), portNumber(t, two.addr))) {
		t.Errorf("/v1/discovery/dns/dump: %v", a)
	}
	if n := g.metric(`headgate_dns_resolutions_total{resolver="discovery",result="ok"}`); n < 3 {
		t.Errorf("%d questions", n)
	}
	eventually(t, "failures in the metrics", func() bool {
		return g.metric(`headgate_dns_resolutions_total{resolver="discovery",result="failed"}`) > 0
	})
	if g.metric(`headgate_dns_oldest_answer_seconds{resolver="discovery"}`) < 0 {
		t.Error("the age of answers is not shown")
	}
	want := "upstreams/1: web.test has 1 nodes now: -" + one.addr
	eventually(t, want, func() bool { return strings.Contains(g.logged.String(), want) })
	// Nothing is left of what is deleted: nobody asks any more.
	for _, path := range []string{"/routes/1", "/routes/2", "/routes/3", "/routes/4", "/services/1", "/upstreams/1"} {
		g.configure("DELETE", path, "")
	}
	eventually(t, "a dump of nothing", func() bool {
		return strings.HasSuffix(g.send("GET", control+"/v1/discovery/dns/dump", "").body, `,"services":{},"until":{},"errors":{}}`+"\n")
	})
	eventually(t, "the age of nothing", func() bool { return g.metric(`headgate_dns_oldest_answer_seconds{resolver="discovery"}`) == 0 })
}

// TestNamesOfNodes are asked for where the configuration says, and an address that must not be dialled is not.
func TestNamesOfNodes(t *testing.T) {
	g, ns := withNames(t)
	one := newUpstream(t, "one", nil)
	ns.Set("node.test.", dnstest.A("127.0.0.1", 60), dnstest.A("::1", 60))
	ns.Set("metadata.test.", dnstest.A("169.254.169.254", 60))
	g.configure("PUT", "/routes/1", fmt.Sprintf(`{"uri":"/a","upstream":{"nodes":{"node.test:%d":1}}}`, portNumber(t, one.addr)))
	g.configure("PUT", "/routes/2", `{"uri":"/b","upstream":{"nodes":{"metadata.test:80":1}}}`)
	if got := g.bodies("/a", 3); got != "one" {
		t.Fatal(got)
	}
	if a := g.send("GET", "http://"+g.addr+"/b", ""); a.status != 503 {
		t.Errorf("got %v", a)
	}
	const want = "upstream metadata.test:80: refused_node_address: 169.254.169.254 is a link-local address and allow_addresses of [upstream] does not allow it"
	if !strings.Contains(g.logged.String(), want) {
		t.Errorf("nobody has logged %q", want)
	}
	if n := g.metric(`headgate_faults_total{side="gateway",code="refused_node_address"}`); n != 1 {
		t.Errorf("the fault is counted %d times", n)
	}
}

// TestCompatibleDiscovery: in the way of APISIX an upstream that nobody can discover is stored and serves nobody, and a node that is never
// dialled is stored as well.
func TestCompatibleDiscovery(t *testing.T) {
	c := onLoopback(t, conf.Default())
	c.Compat.Mode = conf.CompatAPISIX
	g := startGate(t, c)
	g.configure("PUT", "/upstreams/1", `{"service_name":"localhost:80","discovery_type":"dns"}`)
	g.configure("PUT", "/upstreams/2", `{"service_name":"a","discovery_type":"nacos"}`)
	g.configure("PUT", "/upstreams/3", `{"nodes":{"169.254.169.254:80":1}}`)
	for _, id := range []string{"1", "2", "3"} {
		g.configure("PUT", "/routes/"+id, `{"uri":"/`+id+`","upstream_id":"`+id+`"}`)
		if a := g.send("GET", "http://"+g.addr+"/"+id, ""); a.status != 503 {
			t.Errorf("upstream %s: %v", id, a)
		}
	}
	for _, want := range []string{"upstreams/1: its nodes are left to a discovery that is not configured", "upstreams/2: its nodes are left", "upstream 169.254.169.254:80: refused_node_address"} {
		if !strings.Contains(g.logged.String(), want) {
			t.Errorf("nobody has logged %q", want)
		}
	}
}

// TestTrialAsksNobody: a configuration that is only tried sends no question.
func TestTrialAsksNobody(t *testing.T) {
	ns := dnstest.Start(t)
	file := t.TempDir() + "/headgate.toml"
	text := fmt.Sprintf(`
[upstream]
dns_servers = [%[1]q]
[discovery.dns]
servers = [%[1]q]
[[upstreams]]
id = "1"
nodes = {"node.test:80" = 1}
[[upstreams]]
id = "2"
service_name = "web.test"
discovery_type = "dns"
[[routes]]
id = "1"
uri = "/"
upstream_id = "2"
`, ns.Addr())
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := check(file, &out); err != nil {
		t.Fatal(err)
	}
	ns.Close() // everything that was sent has arrived before
	if n := ns.Asked("node.test.") + ns.Asked("web.test."); n > 0 {
		t.Errorf("%d questions", n)
	}
}
