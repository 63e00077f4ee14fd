package route

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// reference answers like find, from a flat list and with regular expressions. It shares no code with the table.
type reference struct {
	compiled map[string]*regexp.Regexp
}

func (ref *reference) find(mode Mode, rules map[string]rule, q *Query) string {
	type hit struct {
		class, stored, urlen int
		exact                bool
		uriN, hostN          int
		r                    rule
		host, uri            string
		params               string
	}
	var hits []hit
	for _, r := range rules {
		if r.Methods != 0 && r.Methods&q.Method == 0 {
			continue
		}
		if len(r.RemoteAddrs) > 0 && !slices.ContainsFunc(r.RemoteAddrs, func(p netip.Prefix) bool { return p.Masked().Contains(q.Remote) }) {
			continue
		}
		hosts := r.Hosts
		if len(hosts) == 0 {
			hosts = []string{""}
		}
		for i, uri := range r.URIs {
			special := "*"
			if mode == URIWithParameter {
				special = "*:"
			}
			stored := strings.IndexAny(uri, special)
			exact := stored < 0
			if exact {
				stored = len(uri)
			}
			params, ok := ref.path(mode, uri, string(q.Path))
			if !ok {
				continue
			}
			for j, host := range hosts {
				class, ok := refHost(mode, host, q)
				if !ok {
					continue
				}
				if mode != HostURI {
					class = 0
				}
				hits = append(hits, hit{class, stored, len(uri), exact, i, j, r, host, uri, params})
			}
		}
	}
	if len(hits) == 0 {
		return "-"
	}
	best := slices.MinFunc(hits, func(a, b hit) int {
		if a.exact != b.exact {
			if a.class == b.class && a.exact {
				return -1
			}
			if a.class == b.class {
				return 1
			}
		}
		return cmp.Or(cmp.Compare(b.class, a.class), cmp.Compare(b.stored, a.stored), cmp.Compare(b.r.Priority, a.r.Priority), cmp.Compare(b.urlen, a.urlen),
			cmp.Compare(a.r.Order, b.r.Order), cmp.Compare(a.uriN, b.uriN), cmp.Compare(a.hostN, b.hostN))
	})
	s := best.r.ID + " " + best.uri
	if best.host != "" {
		s += " " + best.host
	}
	return s + best.params
}

// refHost ranks a host pattern: 0 none, 1+n wildcard with n bytes behind the star, 1000 exact.
func refHost(mode Mode, pattern string, q *Query) (class int, ok bool) {
	host := string(q.Host)
	if mode != HostURI && strings.Contains(pattern, ":") {
		host = string(q.HostPort)
	}
	switch {
	case pattern == "":
		return 0, true
	case pattern[0] == '*':
		return len(pattern), strings.HasSuffix(host, pattern[1:])
	}
	return 1000, host == pattern
}

func (ref *reference) path(mode Mode, uri, path string) (params string, ok bool) {
	var names []string
	segments := strings.Split(uri, "/")
	for i, s := range segments {
		switch {
		case strings.HasPrefix(s, "*"):
			names = append(names, cmp.Or(s[1:], ":ext"))
			segments[i] = "(.*)"
		case strings.HasPrefix(s, ":") && mode == URIWithParameter:
			names = append(names, s[1:])
			segments[i] = "([^/]+)"
		default:
			segments[i] = strings.ReplaceAll(regexp.QuoteMeta(s), `\*`, ".*")
		}
	}
	text := strings.Join(segments, "/")
	re := ref.compiled[text]
	if re == nil {
		re = regexp.MustCompile("(?s)^(?:" + text + ")$")
		ref.compiled[text] = re
	}
	found := re.FindStringSubmatch(path)
	if found == nil {
		return "", false
	}
	for i, name := range names {
		params += fmt.Sprintf(" %s=%s", name, found[i+1])
	}
	return params, true
}

var (
	modelURIs = []string{
		"/", "/a", "/b", "/a/b", "/a/b/c", "/ab", "/abc", "/a/", "*", "/*", "/a*", "/a/*", "/a/b*", "/a/b/*", "/ab*", "/a/*rest", "/a/*/c", "/a/*/b/*/c", "/*/c",
		"/a*/c", "/a/*b*/c", "/:x", "/a/:x", "/:x/:y", "/a/:x/c", "/a/:x/*", "/a/*/:y", "/:x/*t/c/:y", "/a:b", "/a/b:c", "/a/**",
	}
	modelPaths = []string{
		"/", "/a", "/b", "/c", "/a/b", "/a/b/c", "/ab", "/abc", "/abcd", "/a/", "/a/b/", "/a/c", "/a/x/c", "/a/x/y/c", "/a/b/b/b/c", "/a/xb/c", "/x/c", "/a:b", "/a/b:c",
		"/a/x/c/y", "/a/x/y/c/z/c/w", "/ax/c", "/a/\n/c", "/:x", "/a/*", "*",
	}
	modelHosts = []string{"h", "a.h", "b.a.h", "*.h", "*h", "*", "*.a.h", "h:80", "*:80", "[::1]", "a.h:81", "c"}
	modelAsked = []string{"h", "a.h", "b.a.h", "c.b.a.h", "xh", "h:80", "a.h:81", "a.h:80", "[::1]", "[::1]:80", "", "zzz"}
)

func randomRule(rnd *rand.Rand, order uint64) rule {
	r := rule{ID: fmt.Sprint("r", rnd.IntN(30)), Order: order, Priority: rnd.IntN(3) - 1}
	r.Target = r.ID
	for range 1 + rnd.IntN(3) {
		r.URIs = append(r.URIs, modelURIs[rnd.IntN(len(modelURIs))])
	}
	for range max(0, rnd.IntN(5)-1) {
		r.Hosts = append(r.Hosts, modelHosts[rnd.IntN(len(modelHosts))])
	}
	if rnd.IntN(3) == 0 {
		r.Methods = Methods(1 + rnd.IntN(3))
	}
	if rnd.IntN(4) == 0 {
		r.RemoteAddrs = []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(rnd.IntN(2)), 9, 9}), 8*(1+rnd.IntN(2)))}
	}
	return r
}

func randomQuery(rnd *rand.Rand) *Query {
	q := ask(modelAsked[rnd.IntN(len(modelAsked))] + "/")
	q.Path = []byte(modelPaths[rnd.IntN(len(modelPaths))])
	q.Method = Methods(1<<rnd.IntN(4)) &^ 8
	q.Remote = netip.AddrFrom4([4]byte{10, byte(rnd.IntN(3)), 1, 1})
	return q
}

// Every table of a random chain of edits answers like the reference, also after its successors were made.
func TestModel(t *testing.T) {
	ref := reference{compiled: map[string]*regexp.Regexp{}}
	type version struct {
		table *Table[string]
		rules map[string]rule
	}
	for mode := HostURI; mode <= URIWithParameter; mode++ {
		for seed := range uint64(5) {
			rnd := rand.New(rand.NewPCG(seed, uint64(mode)))
			versions := []version{{New[string](mode), map[string]rule{}}}
			order := uint64(1000)
			for range 40 {
				last := versions[len(versions)-1]
				rules := maps.Clone(last.rules)
				var remove []string
				var put []rule
				for range rnd.IntN(5) {
					id := fmt.Sprint("r", rnd.IntN(30))
					remove = append(remove, id)
					delete(rules, id)
				}
				for range rnd.IntN(6) {
					order++
					r := randomRule(rnd, order)
					if rnd.IntN(3) == 0 {
						r.Order = 10_000 - order
					}
					put = append(put, r)
					rules[r.ID] = r
				}
				table, err := last.table.With(remove, put)
				if err != nil {
					t.Fatal(err)
				}
				versions = append(versions, version{table, rules})
			}
			for i, v := range versions {
				if v.table.Len() != len(v.rules) {
					t.Fatalf("%v seed %d version %d: %d rules, want %d", mode, seed, i, v.table.Len(), len(v.rules))
				}
				for r := range v.table.All {
					if v.rules[r.ID].Order != r.Order {
						t.Fatalf("%v seed %d version %d: rule %s is not the last one put", mode, seed, i, r.ID)
					}
				}
				for range 25 {
					q := randomQuery(rnd)
					if got, want := find(v.table, q), ref.find(mode, v.rules, q); got != want {
						t.Fatalf("%v seed %d version %d: %s %s %v %v: got %q, want %q\nrules %+v", mode, seed, i, q.HostPort, q.Path, q.Method, q.Remote, got, want, v.rules)
					}
				}
				checkTree(t, &v.table.ids, true)
				checkTree(t, &v.table.sites, true)
				checkBuckets(t, v.table)
			}
		}
	}
}

// checkTree verifies the invariants stated at node.
func checkTree[V any](t *testing.T, n *node[V], root bool) {
	t.Helper()
	if !root && (n.vacant() || n.size == 0) {
		t.Fatalf("node %q is vacant or has no label", n.text())
	}
	if n.exact == nil && n.prefix == nil && len(n.kids) == 1 && int(n.size+n.kids[0].size) <= labelMax {
		t.Fatalf("%q and %q are not folded", n.text(), n.kids[0].text())
	}
	for i := range n.kids {
		k := &n.kids[i]
		if i < indexed && n.index[i] != k.label[0] || n.find(k.label[0]) != i {
			t.Fatalf("index %q does not fit kid %d, %q", n.index, i, k.text())
		}
		checkTree(t, k, false)
	}
}

// checkBuckets verifies what the table counts against what it holds, and the invariants of its buckets.
func checkBuckets(t *testing.T, table *Table[string]) {
	t.Helper()
	var free, named, ported int
	stored := map[sizeCount]uint32{}
	for r := range table.All {
		compiled, err := compilePlaces(table.mode, r.ID, r.URIs)
		if err != nil {
			t.Fatal(err)
		}
		hosts := r.Hosts
		if len(hosts) == 0 {
			hosts = []string{""}
		}
		for _, host := range hosts {
			switch {
			case host == "" || host[0] == '*' && table.mode != HostURI:
				free += len(compiled)
			case host[0] != '*':
				named += len(compiled)
				if strings.Contains(host, ":") {
					ported += len(compiled)
				}
			}
			for _, p := range compiled {
				if p.slot == prefixSlot {
					stored[sizeCount{size: uint16(len(p.stored)), slash: strings.HasSuffix(p.stored, "/")}]++
				}
			}
		}
	}
	if table.free != free || table.named != named || table.ported != ported {
		t.Fatalf("counts %d, %d, %d, want %d, %d, %d", table.free, table.named, table.ported, free, named, ported)
	}
	got := map[sizeCount]uint32{}
	for _, c := range table.sizes.counts {
		got[sizeCount{size: c.size, slash: c.slash}] = c.n
	}
	if !maps.Equal(got, stored) || !slices.IsSortedFunc(table.sizes.counts, func(a, b sizeCount) int { return cmp.Compare(b.size, a.size) }) {
		t.Fatalf("sizes %v, want %v", table.sizes.counts, stored)
	}
	for _, s := range table.buckets.shelves {
		if s != nil {
			checkShelf(t, table, s)
		}
	}
}

func checkShelf(t *testing.T, table *Table[string], s *shelf[string]) {
	t.Helper()
	used, gone := 0, 0
	for i := range len(s.rows) * rowSize {
		switch r := s.rows[i/rowSize]; r.tag(i % rowSize) {
		case freePlace:
		case gonePlace:
			if gone++; r.hasFree() {
				t.Fatalf("a row with a free place remembers that one was given up")
			}
		default:
			used++
			checkBucket(t, table, s.at(i))
			continue
		}
		if c := s.trays[i/traySize]; c != nil && c[i%traySize] != (bucket[string]{}) {
			t.Fatalf("place %d of a shelf is empty and has %+v", i, c[i%traySize])
		}
	}
	if used == 0 || used != s.used || gone != s.gone || (used+gone)*8 > len(s.rows)*rowSize*7 {
		t.Fatalf("of %d places %d are used and %d given up; counted are %d and %d", len(s.rows)*rowSize, used, gone, s.used, s.gone)
	}
}

func checkBucket(t *testing.T, table *Table[string], b *bucket[string]) {
	t.Helper()
	host, text := b.key()
	if table.buckets.find(table.buckets.keyOf(b.slot, host, text)) != b {
		t.Fatalf("%s%s is not found", host, text)
	}
	m := b.more
	if m == nil {
		if b.one.entry == nil || b.one.host != string(host) || !strings.HasPrefix(b.one.uri, string(text)) {
			t.Fatalf("%s%s has %s%s", host, text, b.one.host, b.one.uri)
		}
		return
	}
	n := len(m.list.candidates)
	if b.one.entry != nil || m.hosts == nil && m.ports == nil && (n == 0 || n == 1 && m.list.candidates[0].pattern == nil && b.isShort()) {
		t.Fatalf("%s%s is not settled", host, text)
	}
	if m.list.unsorted || !slices.IsSortedFunc(m.list.candidates, func(a, b listed[string]) int { return a.compare(&b.candidate) }) {
		t.Fatalf("%s%s is not sorted", host, text)
	}
}

// Readers of published tables run beside edits; the race detector watches.
func TestReadersBesideEdits(t *testing.T) {
	table := New[string](URI)
	done := make(chan struct{})
	readers := 0
	rnd := rand.New(rand.NewPCG(1, 2))
	for i := range 60 {
		next, err := table.With(nil, []rule{randomRule(rnd, uint64(i)), randomRule(rnd, uint64(i))})
		if err != nil {
			t.Fatal(err)
		}
		table = next
		queries := []*Query{randomQuery(rnd), randomQuery(rnd)}
		readers++
		go func() {
			for _, q := range queries {
				first := find(next, q)
				if again := find(next, q); again != first {
					t.Errorf("%q, then %q", first, again)
				}
			}
			done <- struct{}{}
		}()
	}
	for range readers {
		<-done
	}
}

func FuzzPattern(f *testing.F) {
	for _, uri := range modelURIs {
		for i, path := range modelPaths {
			if i%5 == 0 {
				f.Add(uri, path)
			}
		}
	}
	f.Fuzz(func(t *testing.T, uri, path string) {
		if uri == "" || len(uri) > 100 || len(path) > 200 {
			return
		}
		// The regular expressions of the reference see runes, patterns see bytes.
		for _, s := range []string{uri, path} {
			if strings.ContainsFunc(s, func(r rune) bool { return r > 0x7e }) {
				return
			}
		}
		for mode := URI; mode <= URIWithParameter; mode++ {
			table, err := New[string](mode).With(nil, []rule{{ID: "1", URIs: []string{uri}, Target: "1"}})
			if err != nil {
				if strings.Count(uri, "/:")+strings.Count(uri, "/*") >= MaxParams {
					continue
				}
				t.Fatal(err)
			}
			q := &Query{Path: []byte(path)}
			ref := reference{compiled: map[string]*regexp.Regexp{}}
			want := ref.find(mode, map[string]rule{"1": {ID: "1", URIs: []string{uri}}}, q)
			if got := find(table, q); got != want {
				t.Errorf("%v %q %q: got %q, want %q", mode, uri, path, got, want)
			}
		}
	})
}

// A matcher that backtracks over its stars would not come back from these.
func TestPatternWorkIsBounded(t *testing.T) {
	for _, tt := range []struct{ uri, path string }{
		{"/" + strings.Repeat("*a/", 15) + "b", "/" + strings.Repeat("a/", 4000) + "c"},
		{"/x" + strings.Repeat("*a", 200) + "b", "/x" + strings.Repeat("a", 8000)},
		{"/" + strings.Repeat("*/:p/", 8) + "b", "/" + strings.Repeat("aa/", 2700)},
		{"/" + strings.Repeat("*/:p/", 7) + "b/*/:p/c", "/" + strings.Repeat("aa/", 2700)},
		{"/x*" + strings.Repeat("a", 500) + "b*a", "/x" + strings.Repeat("a", 8000)},
	} {
		table := mustWith(t, New[string](URIWithParameter), nil, rule{ID: "1", URIs: []string{tt.uri}})
		for _, path := range []string{tt.path, tt.path + "b/c/d"} {
			if got := find(table, &Query{Path: []byte(path)}); got != "-" {
				t.Errorf("%s: got %s", tt.uri, got)
			}
		}
	}
}
