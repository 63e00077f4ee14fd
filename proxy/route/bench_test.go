package route

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	benchRoutes = 100_000
	benchHosts  = 10_000
)

type target struct{ id int }

// benchRules spreads the routes over the hosts: half exact paths, half prefixes.
func benchRules() []Rule[*target] {
	rules := make([]Rule[*target], benchRoutes)
	for i := range rules {
		host := fmt.Sprintf("tenant-%d.gateway.example.com", i%benchHosts)
		uri := fmt.Sprintf("/api/v1/service-%d/items", i/benchHosts)
		if i/benchHosts%2 == 1 {
			uri = fmt.Sprintf("/api/v1/service-%d/*", i/benchHosts)
		}
		rules[i] = Rule[*target]{ID: fmt.Sprint(i), URIs: []string{uri}, Hosts: []string{host}, Methods: GET | POST, Order: uint64(i), Target: &target{i}}
	}
	return rules
}

// pathRules puts everything under one host, with a path of its own for each route.
func pathRules() []Rule[*target] {
	rules := make([]Rule[*target], benchRoutes)
	for i := range rules {
		uri := fmt.Sprintf("/tenant-%d/v1/service-%d/items", i%benchHosts, i/benchHosts)
		if i/benchHosts%2 == 1 {
			uri = fmt.Sprintf("/tenant-%d/v1/service-%d/*", i%benchHosts, i/benchHosts)
		}
		rules[i] = Rule[*target]{ID: fmt.Sprint(i), URIs: []string{uri}, Methods: GET | POST, Order: uint64(i), Target: &target{i}}
	}
	return rules
}

// traffic holds a request for every route in random order, laid out so that reading one costs what reading a request just parsed costs.
type traffic struct {
	text []byte
	cuts []uint32 // ends of host and path, alternating
	at   int
	q    Query
}

func newTraffic(rules []Rule[*target], tail string) *traffic {
	w := &traffic{q: Query{Method: GET, Remote: netip.AddrFrom4([4]byte{10, 0, 0, 1})}}
	for _, j := range rand.New(rand.NewPCG(1, 2)).Perm(len(rules)) {
		host := "other.example.com"
		if len(rules[j].Hosts) > 0 {
			host = rules[j].Hosts[0]
		}
		w.text = append(w.text, host...)
		w.cuts = append(w.cuts, uint32(len(w.text)))
		path, prefix := strings.CutSuffix(rules[j].URIs[0], "*")
		w.text = append(w.text, path...)
		if prefix {
			w.text = append(w.text, "17"...)
		}
		w.text = append(w.text, tail...)
		w.cuts = append(w.cuts, uint32(len(w.text)))
	}
	return w
}

func (w *traffic) next() *Query {
	start := uint32(0)
	if w.at > 0 {
		start = w.cuts[w.at-1]
	}
	host, end := w.cuts[w.at], w.cuts[w.at+1]
	w.q.Host, w.q.HostPort, w.q.Path = w.text[start:host], w.text[start:host], w.text[host:end]
	if w.at += 2; w.at == len(w.cuts) {
		w.at = 0
	}
	return &w.q
}

func load(tb testing.TB, mode Mode, rules []Rule[*target]) *Table[*target] {
	tb.Helper()
	table, err := New[*target](mode).With(nil, rules)
	if err != nil {
		tb.Fatal(err)
	}
	return table
}

// link is as large as a bucket.
type link struct {
	next *link
	_    [15]uint64
}

// newMisses returns a ring of as many links as there are routes, each of which leads to one at random: to follow it is one miss of the
// processor's caches after the other, none of which can begin before the last has ended.
func newMisses() *link {
	links := make([]*link, benchRoutes)
	for i := range links {
		links[i] = new(link)
	}
	order := rand.New(rand.NewPCG(3, 4)).Perm(benchRoutes)
	for i, at := range order {
		links[at].next = links[order[(i+1)%benchRoutes]]
	}
	return links[order[0]]
}

// miss returns what one of a ring takes now, in nanoseconds of processor time: the least that the machine needs for memory that it has not
// read lately, with the translation of the address. It depends on what others do with the memory, so that it is measured again and again.
func miss(b *testing.B, ring *link) float64 {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before := threadTime(b)
	for range benchRoutes {
		ring = ring.next
	}
	took := float64(threadTime(b)-before) / benchRoutes
	if ring == nil {
		b.Fatal("the ring is broken")
	}
	return took
}

// measure runs work b.N times and reports what it cost in processor time too: unlike the clock that doesn't see what else the machine does.
// It returns that, in nanoseconds for each.
func measure(b *testing.B, work func()) float64 {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	b.ReportAllocs()
	b.ResetTimer()
	before := threadTime(b)
	for range b.N {
		work()
	}
	took := float64(threadTime(b)-before) / float64(b.N)
	b.ReportMetric(took, "cpu-ns/op")
	return took
}

func threadTime(b *testing.B) int64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_THREAD, &u); err != nil {
		b.Fatal(err)
	}
	return u.Utime.Nano() + u.Stime.Nano()
}

// Requests at random over all routes, so that next to nothing of what a look-up reads is in a cache of the processor; "hot" asks for the same
// few again and again, "miss" for paths that are not there. miss-ns is what one dependent read of such memory takes at the time: a look-up
// that finds something cannot take less than that and "hot" together.
func BenchmarkFind(b *testing.B) {
	for _, bb := range []struct {
		name  string
		mode  Mode
		rules []Rule[*target]
	}{
		{"HostURI/hosts", HostURI, benchRules()},
		{"HostURI/paths", HostURI, pathRules()},
		{"URI/hosts", URI, benchRules()},
		{"URI/paths", URI, pathRules()},
	} {
		table, ring := load(b, bb.mode, bb.rules), newMisses()
		var exact, prefix []Rule[*target]
		for _, r := range bb.rules {
			if strings.HasSuffix(r.URIs[0], "*") {
				prefix = append(prefix, r)
			} else {
				exact = append(exact, r)
			}
		}
		for _, kind := range []struct {
			name  string
			rules []Rule[*target]
			tail  string
		}{{"exact", exact, ""}, {"prefix", prefix, ""}, {"mixed", bb.rules, ""}, {"hot", bb.rules[:100], ""}, {"miss", exact, "x"}} {
			requests := newTraffic(kind.rules, kind.tail)
			b.Run(bb.name+"/"+kind.name, func(b *testing.B) {
				var m Match
				before := miss(b, ring)
				took := measure(b, func() {
					if _, ok := table.Find(requests.next(), nil, &m); ok != (kind.tail == "") {
						b.Fatal("wrong answer")
					}
				})
				b.StopTimer()
				one := (before + miss(b, ring)) / 2
				b.ReportMetric(one, "miss-ns")
				b.ReportMetric(took/one, "misses/op")
			})
		}
	}
}

// One rule replaced by another in a table of 100,000.
func BenchmarkWithOneEdit(b *testing.B) {
	for _, mode := range []Mode{HostURI, URI} {
		b.Run(mode.String(), func(b *testing.B) {
			rules := benchRules()
			table := load(b, mode, rules)
			took := make([]time.Duration, 0, b.N)
			i := 0
			measure(b, func() {
				start := time.Now()
				next, err := table.With(nil, rules[i:i+1])
				if err != nil {
					b.Fatal(err)
				}
				table = next
				took = append(took, time.Since(start))
				i = (i + 7919) % len(rules)
			})
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2]), "p50-ns")
			b.ReportMetric(float64(took[len(took)*99/100]), "p99-ns")
		})
	}
}

func BenchmarkBulkLoad(b *testing.B) {
	rules := benchRules()
	before := heap()
	table := load(b, HostURI, rules)
	perRoute := float64(heap()-before) / benchRoutes
	b.ReportAllocs()
	for b.Loop() {
		table = load(b, HostURI, rules)
	}
	b.ReportMetric(perRoute, "B/route")
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/benchRoutes, "ns/route")
	runtime.KeepAlive(table)
	runtime.KeepAlive(rules)
}

func heap() uint64 {
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return s.HeapAlloc
}

func BenchmarkNormalize(b *testing.B) {
	clean, dirty := []byte("/api/v1/service-12/items/1234567"), []byte("/api//v1/./service%2D12/x/../items/1234567")
	b.Run("Clean", func(b *testing.B) {
		for b.Loop() {
			if !Clean(clean) {
				b.Fatal("not clean")
			}
		}
	})
	buf := make([]byte, 0, 64)
	b.Run("AppendNormalized", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := AppendNormalized(buf, dirty); err != nil {
				b.Fatal(err)
			}
		}
	})
	host := []byte("tenant-1234.Gateway.example.com:8080")
	b.Run("AppendHost", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, _, err := AppendHost(buf, host); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func TestRequestPathDoesNotAllocate(t *testing.T) {
	buf := make([]byte, 0, 128)
	for mode := HostURI; mode <= URIWithParameter; mode++ {
		table := mustWith(t, New[string](mode), nil,
			rule{ID: "1", URIs: []string{"/a/:x/*/c", "/a/lit"}, Hosts: []string{"*.foo.com", "w.foo.com:80"}, Methods: GET, RemoteAddrs: prefixes("10.0.0.0/8")},
			rule{ID: "2", URIs: []string{"/a/*t/b", "/*"}, Hosts: []string{"*"}},
			rule{ID: "3", URIs: []string{"*"}})
		queries := []*Query{ask("w.foo.com:80/a/1/2/c"), ask("w.foo.com:80/a/lit"), ask("x.org/a/1/b"), ask("x.org/b"), ask("POST x.org/a/lit")}
		var m Match
		var asked int
		filter := filterFunc(func(target string) bool {
			asked++
			return target == "3"
		})
		if n := testing.AllocsPerRun(100, func() {
			for _, q := range queries {
				table.Find(q, nil, &m)
				table.Find(q, filter, &m)
			}
		}); n != 0 || asked == 0 {
			t.Errorf("%v: Find allocates %v times", mode, n)
		}
	}
	clean, dirty, bad := []byte("/a/b"), []byte("//a/%41/../b"), []byte("/%zz")
	hosts := [][]byte{[]byte("Foo.com.:80"), []byte("[::1]:80"), []byte("a@b")}
	if n := testing.AllocsPerRun(100, func() {
		if !Clean(clean) || Clean(dirty) {
			t.Fatal("Clean")
		}
		for _, p := range [][]byte{dirty, bad} {
			_, _ = AppendNormalized(buf, p)
		}
		for _, h := range hosts {
			_, _, _ = AppendHost(buf, h)
		}
	}); n != 0 {
		t.Errorf("normalisation allocates %v times", n)
	}
}
