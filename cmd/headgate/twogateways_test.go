package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"headgate/conf/store/etcd/etcdtest"
)

// pair is two gateways on one etcd.
type pair struct {
	gates  [2]*gate
	server *etcdtest.Server
	u      *upstreamServer
}

func startPair(t testing.TB) *pair {
	t.Helper()
	p := &pair{server: etcdtest.Start(t, etcdtest.Options{}), u: newUpstream(t, "alive", nil)}
	for i := range p.gates {
		p.gates[i] = startGate(t, onEtcd(t, p.server.Endpoint()))
	}
	return p
}

// TestTwoGateways: what is written through one gateway is in force on the other.
func TestTwoGateways(t *testing.T) {
	p := startPair(t)
	t.Run("effect", p.effect)
	t.Run("consumers", p.consumers)
	t.Run("ttl", p.ttl)
	t.Run("patches", p.patches)
	t.Run("turns", p.turns)
	t.Run("twins", p.twins)
}

// twins: of routes that are equal to the router the one that was stored first serves, on every gateway, also on one that starts later.
func (p *pair) twins(t *testing.T) {
	ids := []string{"twin-5", "twin-9", "twin-1", "twin-7"}
	for i, id := range ids {
		p.gates[i%2].configure("PUT", "/routes/"+id, fmt.Sprintf(`{"uri":"/twin",%s}`, answering(id)))
	}
	gates := append(p.gates[:], startGate(t, onEtcd(t, p.server.Endpoint())))
	p.gates[1].configure("PATCH", "/routes/twin-5", `{"desc":"edited"}`) // which keeps its place
	for i, id := range ids {
		for n, g := range gates {
			eventually(t, fmt.Sprintf("%s on gateway %d", id, n), func() bool { return g.answers("/twin", id) })
		}
		gates[i%3].configure("DELETE", "/routes/"+id, "")
	}
}

// effect measures from the acknowledgement on one gateway to the effect on the other.
func (p *pair) effect(t *testing.T) {
	const writes = 150
	var took []time.Duration
	for i := range writes {
		from, to := p.gates[i%2], p.gates[1-i%2]
		text := strconv.Itoa(i)
		from.configure("PUT", "/routes/shared", fmt.Sprintf(`{"uri":"/shared",%s}`, answering(text)))
		begun := time.Now()
		if !from.answers("/shared", text) {
			t.Fatal("what was acknowledged is not in force where it was written")
		}
		eventually(t, "the effect", func() bool { return to.answers("/shared", text) })
		took = append(took, time.Since(begun))
	}
	slices.Sort(took)
	t.Logf("from the acknowledgement on one gateway to the effect on the other, %d writes: p50 %v, p90 %v, p99 %v, longest %v",
		writes, took[writes/2], took[writes*9/10], took[writes*99/100], took[writes-1])

	p.gates[0].configure("DELETE", "/routes/shared", "")
	eventually(t, "the deletion", func() bool { return p.gates[1].isGone("/shared") })
}

// turns: what one gateway has acknowledged, the other takes into account at once, as behind a load balancer.
func (p *pair) turns(t *testing.T) {
	a, b := p.gates[0], p.gates[1]
	for i := range 50 {
		upstream, route := fmt.Sprintf("/upstreams/turn-%d", i), fmt.Sprintf("/routes/turn-%d", i)
		a.configure("PUT", upstream, `{"nodes":{"127.0.0.1:1":1}}`)
		b.configure("PUT", route, fmt.Sprintf(`{"uri":"/turn","upstream_id":"turn-%d"}`, i))
		a.configure("PATCH", route, `{"desc":"patched"}`)
		a.configure("DELETE", route, "")
		b.configure("DELETE", upstream, "")
	}
}

// consumers with credentials authenticate on both gateways, whoever wrote them.
func (p *pair) consumers(t *testing.T) {
	a, b := p.gates[0], p.gates[1]
	a.configure("PUT", "/routes/guarded", fmt.Sprintf(`{"uri":"/guarded","plugins":{"key-auth":{}},"upstream":{"nodes":{%q:1}}}`, p.u.addr))
	b.configure("PUT", "/consumers", `{"username":"jack"}`)
	status := func(g *gate, key string) int {
		return g.send("GET", "http://"+g.addr+"/guarded", "", "apikey: "+key).status
	}
	eventually(t, "the consumer", func() bool { return a.admin("GET", "/consumers/jack", "").status == http.StatusOK })
	a.configure("PUT", "/consumers/jack/credentials/one", `{"plugins":{"key-auth":{"key":"one-key"}}}`)
	for _, g := range p.gates {
		eventually(t, "the credential", func() bool { return status(g, "one-key") == http.StatusOK })
		if got := status(g, "other-key"); got != http.StatusUnauthorized {
			t.Errorf("with another key: %d", got)
		}
	}
	b.configure("PUT", "/consumers/jack/credentials/one", `{"plugins":{"key-auth":{"key":"other-key"}}}`)
	for _, g := range p.gates {
		eventually(t, "the other key", func() bool {
			return status(g, "other-key") == http.StatusOK && status(g, "one-key") == http.StatusUnauthorized
		})
	}
	a.configure("DELETE", "/consumers/jack", "")
	for _, g := range p.gates {
		eventually(t, "the end of the consumer", func() bool { return status(g, "other-key") == http.StatusUnauthorized })
		if got := g.admin("GET", "/consumers/jack/credentials", ""); got.status != http.StatusNotFound {
			t.Errorf("credentials outlive their consumer: %v", got)
		}
	}
}

// ttl: a document with a limited life ends on both gateways.
func (p *pair) ttl(t *testing.T) {
	p.gates[0].configure("PUT", "/routes/brief?ttl=1", fmt.Sprintf(`{"uri":"/brief",%s}`, answering("brief")))
	eventually(t, "the route", func() bool { return p.gates[1].answers("/brief", "brief") })
	for _, g := range p.gates {
		eventually(t, "the end of the route", func() bool { return g.isGone("/brief") })
		if got := g.admin("GET", "/routes/brief", ""); got.status != http.StatusNotFound {
			t.Errorf("the document outlives its time: %v", got)
		}
	}
}

// patches of one document through both gateways at a time: each that was acknowledged is in the document.
func (p *pair) patches(t *testing.T) {
	const each = 40
	p.gates[0].configure("PUT", "/routes/labelled", fmt.Sprintf(`{"uri":"/labelled","labels":{"zero":"0"},%s}`, answering("x")))
	eventually(t, "the route", func() bool { return p.gates[1].answers("/labelled", "x") })
	var writing sync.WaitGroup
	conflicts := [2]int{}
	for i, g := range p.gates {
		writing.Go(func() {
			for n := range each {
				label := fmt.Sprintf("%d-%d", i, n)
				for deadline := time.Now().Add(patience); ; {
					a := g.admin("PATCH", "/routes/labelled", fmt.Sprintf(`{"labels":{%q:"set"}}`, label))
					if a.status == http.StatusOK {
						break
					}
					// A lost race is told, in the contract's words, and nothing has happened.
					const lost = "value changed before overwritten"
					if a.status != http.StatusServiceUnavailable || !strings.Contains(a.body, lost) || time.Now().After(deadline) {
						t.Errorf("PATCH: %v", a)
						return
					}
					conflicts[i]++
				}
			}
		})
	}
	writing.Wait()
	t.Logf("%d patches, %v lost races", 2*each, conflicts)
	for _, g := range p.gates {
		eventually(t, "all labels", func() bool {
			var got struct {
				Value struct{ Labels map[string]string }
			}
			if err := json.Unmarshal([]byte(g.admin("GET", "/routes/labelled", "").body), &got); err != nil {
				t.Fatal(err)
			}
			return len(got.Value.Labels) == 2*each+1
		})
	}
}

// TestTwoGatewaysRace: both gateways accept in the same moment what each would refuse after the other (an identity of two consumers, a
// plugin of two global rules). The document that is too many is known on both, and when it goes both are in the same state again.
func TestTwoGatewaysRace(t *testing.T) {
	p := startPair(t)
	for _, who := range []string{"jack", "jill"} {
		p.gates[0].configure("PUT", "/consumers", fmt.Sprintf(`{"username":%q}`, who))
	}
	p.gates[0].configure("PUT", "/routes/guarded", fmt.Sprintf(`{"uri":"/guarded","plugins":{"key-auth":{}},"upstream":{"nodes":{%q:1}}}`, p.u.addr))
	p.converge(t)
	for _, tt := range []struct{ stays, goes, body string }{
		{"/consumers/jack/credentials/%d", "/consumers/jill/credentials/%d", `{"plugins":{"key-auth":{"key":"key-%d"}}}`},
		{"/consumers/jill/credentials/%d", "/consumers/jack/credentials/%d", `{"plugins":{"key-auth":{"key":"key-%d"}}}`},
		{"/global_rules/a%d", "/global_rules/b%d", `{"plugins":{"request-id":{"header_name":"X-%d"}}}`},
	} {
		both := 0
		for i := range 10 {
			var writing sync.WaitGroup
			var accepted [2]bool
			paths := [2]string{fmt.Sprintf(tt.stays, i), fmt.Sprintf(tt.goes, i)}
			for n, g := range p.gates {
				writing.Go(func() { accepted[n] = g.admin("PUT", paths[n], fmt.Sprintf(tt.body, i)).status == http.StatusCreated })
			}
			writing.Wait()
			if !accepted[0] && !accepted[1] {
				t.Errorf("%v: both were refused", paths)
			}
			if accepted[0] && accepted[1] {
				both++
				p.agree(t, paths)
			}
			if accepted[1] {
				eventually(t, "the deletion", func() bool { return p.gates[i%2].admin("DELETE", paths[1], "").status == http.StatusOK })
			}
			if !accepted[0] {
				continue
			}
			for _, g := range p.gates {
				eventually(t, "what is left to be in force", func() bool {
					return g.admin("GET", paths[0], "").status == http.StatusOK && g.admin("GET", paths[1], "").status == http.StatusNotFound &&
						len(g.applier.LeftOut()) == 0
				})
			}
			p.converge(t)
			p.gates[0].configure("DELETE", paths[0], "")
			p.converge(t)
		}
		t.Logf("%s: accepted by both %d times of 10", tt.stays, both)
	}
}

// agree waits until both gateways have left out the same one of two documents, wholly or what it claims: the one that was stored later.
// Both are shown.
func (p *pair) agree(t *testing.T, paths [2]string) {
	t.Helper()
	var created [2]uint64
	for n, path := range paths {
		var got struct{ CreatedIndex uint64 }
		eventually(t, "both documents", func() bool {
			shown := [2]answer{p.gates[0].admin("GET", path, ""), p.gates[1].admin("GET", path, "")}
			return shown[0].status == http.StatusOK && shown[0].body == shown[1].body && json.Unmarshal([]byte(shown[0].body), &got) == nil
		})
		created[n] = got.CreatedIndex
	}
	later := paths[0][1:]
	if created[1] > created[0] {
		later = paths[1][1:]
	}
	for n, g := range p.gates {
		eventually(t, fmt.Sprintf("gateway %d to leave out %s alone", n, later), func() bool {
			left := g.applier.LeftOut()
			return len(left) == 1 && left[later] != nil
		})
	}
}

// TestTwoGatewaysAgreeOnWhoHasAnIdentity: whatever is in the store, and whichever came first, gateways that have seen it happen and one that
// starts later give the same answers. Who was stored first has it; when that one goes, the other does.
func TestTwoGatewaysAgreeOnWhoHasAnIdentity(t *testing.T) {
	p := startPair(t)
	n := newNeighbour(t, p.server)
	a := p.gates[0]
	a.configure("PUT", "/consumers", `{"username":"jill","plugins":{"key-auth":{"key":"jills"}}}`)
	a.configure("PUT", "/consumers", `{"username":"jack"}`)
	a.configure("PUT", "/consumers/jack/credentials/one", `{"plugins":{"key-auth":{"key":"shared"}}}`)
	a.configure("PUT", "/routes/guarded", `{"uri":"/guarded","plugins":{"key-auth":{}},`+
		`"upstream":{"nodes":{"`+p.u.addr+`":1}}}`)
	for _, who := range []string{"jack", "jill"} {
		a.configure("PUT", "/routes/"+who, fmt.Sprintf(`{"uri":"/%s","plugins":{"key-auth":{},"consumer-restriction":{"whitelist":[%q]}},`+
			`"upstream":{"nodes":{%q:1}}}`, who, who, p.u.addr))
	}
	// is reports whether key is that of who on g: who alone may pass.
	is := func(g *gate, key, who string) bool {
		for _, name := range []string{"jack", "jill"} {
			want := http.StatusForbidden
			switch who {
			case name:
				want = http.StatusOK
			case "":
				want = http.StatusUnauthorized
			}
			if g.send("GET", "http://"+g.addr+"/"+name, "", "apikey: "+key).status != want {
				return false
			}
		}
		return true
	}
	agree := func(what, shared, jills string, left ...string) {
		t.Helper()
		for n, g := range append(p.gates[:], startGate(t, onEtcd(t, p.server.Endpoint()))) {
			eventually(t, fmt.Sprintf("%s: gateway %d", what, n), func() bool {
				return is(g, "shared", shared) && is(g, "jills", jills) && slices.Equal(slices.Sorted(maps.Keys(g.applier.LeftOut())), left)
			})
		}
	}
	agree("at first", "jack", "jill")
	if got := p.gates[1].admin("PUT", "/consumers", `{"username":"jill","plugins":{"key-auth":{"key":"shared"}}}`); got.status != http.StatusBadRequest {
		t.Errorf("what another one has: %v", got)
	}
	// Stored all the same, by somebody who does not look: jill, who was stored first, has it.
	n.put("consumers/jill", `{"username":"jill","plugins":{"key-auth":{"key":"shared"}}}`)
	agree("jill has taken it", "jill", "", "consumers/jack/credentials/one")
	// What is left out can be seen and changed, through either gateway.
	if got := p.gates[1].admin("GET", "/consumers/jack/credentials", ""); got.status != http.StatusOK || !strings.Contains(got.body, `"shared"`) {
		t.Errorf("what is left out: %v", got)
	}
	a.configure("PUT", "/consumers", `{"username":"jill","desc":"edited","plugins":{"key-auth":{"key":"shared"}}}`)
	agree("after an edit", "jill", "", "consumers/jack/credentials/one")
	p.gates[1].configure("PUT", "/consumers", `{"username":"jill","plugins":{"key-auth":{"key":"jills"}}}`)
	agree("jill has given it up", "jack", "jill")
	n.put("consumers/late", `{"username":"late","plugins":{"key-auth":{"key":"shared"}}}`)
	n.put("consumers/late/credentials/two", `{"id":"two","plugins":{"key-auth":{"key":"jills"}}}`)
	agree("late comes last", "jack", "jill", "consumers/late")
	a.configure("DELETE", "/consumers/late", "")
	agree("late has gone", "jack", "jill")
	if got := p.gates[1].admin("GET", "/consumers/late/credentials/two", ""); got.status != http.StatusNotFound {
		t.Errorf("a credential of who has gone: %v", got)
	}
	n.put("consumers/jack/credentials/two", `{"id":"two","plugins":{"key-auth":{"key":"jills"}}}`)
	agree("a credential that is too many", "jack", "jill", "consumers/jack/credentials/two")
	a.configure("DELETE", "/consumers/jack", "")
	agree("jack has gone, with what was left out", "", "jill")
	if got := n.value("consumers/jack/credentials/two"); got != "" {
		t.Errorf("a credential of who has gone is still stored: %s", got)
	}
}

// dumped are the collections that a dump compares.
var dumped = [...]string{
	"/routes", "/services", "/upstreams", "/consumers", "/consumers/jack/credentials", "/consumers/jill/credentials", "/plugin_configs",
	"/global_rules", "/plugin_metadata",
}

// dump returns everything that the Admin API of g shows.
func dump(g *gate) map[string]string {
	g.t.Helper()
	all := map[string]string{}
	for _, path := range dumped {
		all[path] = g.admin("GET", path, "").body
	}
	return all
}

// TestTwoGatewaysStorm: after random writes through both gateways, they show the same documents with the same revisions, and what is in
// force on them is the same.
func TestTwoGatewaysStorm(t *testing.T) {
	p := startPair(t)
	storm := runStorm(t, p)
	p.converge(t)
	for i := range stormDocuments {
		path := fmt.Sprintf("http://%%s/storm-%d", i)
		one, two := p.gates[0].send("GET", fmt.Sprintf(path, p.gates[0].addr), ""), p.gates[1].send("GET", fmt.Sprintf(path, p.gates[1].addr), "")
		if one.status != two.status || one.body != two.body {
			t.Errorf("/storm-%d: %v and %v", i, one, two)
		}
	}
	// A gateway that starts now agrees with both.
	third := startGate(t, onEtcd(t, p.server.Endpoint()))
	if diff := cmp.Diff(dump(p.gates[0]), dump(third)); diff != "" {
		t.Errorf("a gateway that starts later differs:\n%s", diff)
	}
	t.Logf("answers by status: %v", storm.answers)
}

// converge waits until both gateways show the same.
func (p *pair) converge(t *testing.T) {
	t.Helper()
	var one, two map[string]string
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		if one, two = dump(p.gates[0]), dump(p.gates[1]); maps.Equal(one, two) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the gateways differ:\n%s\nleft out: %v and %v", cmp.Diff(one, two), p.gates[0].applier.LeftOut(), p.gates[1].applier.LeftOut())
		}
	}
}

const (
	stormSeed      = 7
	stormWrites    = 150 // of each client
	stormDocuments = 6   // of each kind
)

// writeStorm counts the answers of a storm by status.
type writeStorm struct {
	mu      sync.Mutex
	answers map[int]int
}

// runStorm lets two clients at each gateway write at random, and waits until they are done.
func runStorm(t *testing.T, p *pair) *writeStorm {
	t.Helper()
	s := &writeStorm{answers: map[int]int{}}
	var clients sync.WaitGroup
	for i := range 4 {
		clients.Go(func() {
			random := rand.New(rand.NewPCG(stormSeed, uint64(i)))
			g := p.gates[i%2]
			for range stormWrites {
				s.write(t, g, random)
			}
		})
	}
	clients.Wait()
	return s
}

// write makes one random write. It may be refused for what exists and what does not, and a patch may lose a race; nothing else may fail.
func (s *writeStorm) write(t *testing.T, g *gate, random *rand.Rand) {
	n, m := random.IntN(stormDocuments), random.IntN(stormDocuments)
	text := strconv.Itoa(random.IntN(1000))
	who := [...]string{"jack", "jill"}[random.IntN(2)]
	put := func(path, body string) answer { return g.admin("PUT", path, body) }
	var a answer
	patched := false // only a patch may lose a race
	kind := random.IntN(12)
	switch kind {
	case 0, 1:
		a = put(fmt.Sprintf("/routes/%d", n), fmt.Sprintf(`{"uri":"/storm-%d",%s}`, n, answering(text)))
	case 2:
		a = put(fmt.Sprintf("/routes/%d", n), fmt.Sprintf(`{"uri":"/storm-%d","service_id":"%d"}`, n, m))
	case 3:
		a = put(fmt.Sprintf("/services/%d", n), fmt.Sprintf(`{"upstream_id":"%d",%s}`, m, answering("service "+text)))
	case 4:
		a = put(fmt.Sprintf("/upstreams/%d", n), fmt.Sprintf(`{"nodes":{"127.0.0.1:1":%s}}`, text))
	case 5:
		a = put("/consumers", fmt.Sprintf(`{"username":%q,"desc":%q}`, who, text))
	case 6:
		a = put(fmt.Sprintf("/consumers/%s/credentials/%d", who, n), fmt.Sprintf(`{"plugins":{"key-auth":{"key":"%s-%d"}}}`, who, n))
	case 7:
		a = g.admin("DELETE", [...]string{"/routes/", "/services/", "/upstreams/"}[random.IntN(3)]+strconv.Itoa(n), "")
	case 8:
		a = g.admin("DELETE", "/consumers/"+who, "")
	case 9:
		patched = true
		a = g.admin("PATCH", fmt.Sprintf("/routes/%d", n), fmt.Sprintf(`{"desc":%q}`, text))
	case 10:
		a = put("/plugin_configs/"+strconv.Itoa(n), fmt.Sprintf(`{%s}`, answering(text)))
	case 11:
		a = put("/plugin_metadata/cors", fmt.Sprintf(`{"allow_origins":{"a":"http://%s.example"}}`, text))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answers[a.status]++
	if lost := strings.Contains(a.body, "value changed before overwritten"); a.status >= 500 && (!lost || !patched) {
		t.Errorf("kind %d: %v", kind, a)
	}
}
