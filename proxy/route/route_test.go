package route

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// rule is the short form used by the tables below: the target is the ID.
type rule = Rule[string]

func mustWith(t testing.TB, table *Table[string], remove []string, put ...rule) *Table[string] {
	t.Helper()
	for i := range put {
		put[i].Target = put[i].ID
		if put[i].Order == 0 {
			put[i].Order = uint64(i + 1)
		}
	}
	next, err := table.With(remove, put)
	if err != nil {
		t.Fatal(err)
	}
	return next
}

// ask turns "METHOD HOST[:port]PATH" into a Query; METHOD may be left out.
func ask(s string) *Query {
	method, target, found := strings.Cut(s, " ")
	if !found {
		method, target = "GET", s
	}
	i := strings.IndexByte(target, '/')
	hostport := target[:i]
	host := hostport
	if j := strings.LastIndexByte(hostport, ':'); j >= 0 && !strings.HasSuffix(hostport, "]") {
		host = hostport[:j]
	}
	return &Query{
		Host: []byte(host), HostPort: []byte(hostport), Path: []byte(target[i:]),
		Method: MethodBit(method), Remote: netip.MustParseAddr("10.1.2.3"),
	}
}

// find returns "ID pattern host name=value..." of a hit, the host only when there is one, or "-".
func find(table *Table[string], q *Query) string {
	m := Match{NParams: 3, URI: "stale", Host: "stale"}
	id, ok := table.Find(q, nil, &m)
	if !ok {
		if m.NParams != 0 || m.URI != "" || m.Host != "" {
			return "a miss that left " + m.URI + m.Host
		}
		return "-"
	}
	s := id + " " + m.URI
	if m.Host != "" {
		s += " " + m.Host
	}
	for _, p := range m.Params[:m.NParams] {
		s += fmt.Sprintf(" %s=%s", p.Name, p.Value)
	}
	return s
}

const (
	all  = 1<<HostURI | 1<<URI | 1<<URIWithParameter
	uris = 1<<URI | 1<<URIWithParameter
)

func prefixes(s ...string) (out []netip.Prefix) {
	for _, p := range s {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}

func TestFind(t *testing.T) {
	tests := []struct {
		name  string
		modes int
		rules []rule
		want  []string // "query => hit"
	}{
		{"exact", all, []rule{{ID: "1", URIs: []string{"/a"}}}, []string{
			"h/a => 1 /a", "h/b => -", "h/A => -", "h/a/ => -", "h/ => -", "h/ab => -"}},
		{"no regular expressions in literals", all, []rule{{ID: "1", URIs: []string{"/a.b"}}, {ID: "2", URIs: []string{"/c.d/*/e.f"}}}, []string{
			"h/a.b => 1 /a.b", "h/axb => -", "h/c.d/x/e.f => 2 /c.d/*/e.f :ext=x", "h/c.d/x/exf => -"}},
		{"exact before prefix against priority", all, []rule{{ID: "1", URIs: []string{"/a/*"}, Priority: 10}, {ID: "2", URIs: []string{"/a/b"}}}, []string{
			"h/a/b => 2 /a/b", "h/a/c => 1 /a/* :ext=c"}},
		{"exact that fails falls through to the prefix", all, []rule{{ID: "1", URIs: []string{"/a/*"}}, {ID: "2", URIs: []string{"/a/b"}, Methods: PUT}}, []string{
			"h/a/b => 1 /a/* :ext=b", "PUT h/a/b => 2 /a/b"}},
		{"prefix with slash", all, []rule{{ID: "1", URIs: []string{"/foo/*"}}}, []string{
			"h/foo => -", "h/foo/ => 1 /foo/* :ext=", "h/foo/b/c => 1 /foo/* :ext=b/c", "h/foobar => -"}},
		{"prefix without slash", all, []rule{{ID: "1", URIs: []string{"/foo*"}}}, []string{
			"h/foo => 1 /foo*", "h/foobar => 1 /foo*", "h/foo/bar => 1 /foo*", "h/fo => -"}},
		{"longest prefix first against priority", all, []rule{{ID: "1", URIs: []string{"/a/*"}, Priority: 100}, {ID: "2", URIs: []string{"/a/b/*"}}, {ID: "3", URIs: []string{"/*"}}}, []string{
			"h/a/b/x => 2 /a/b/* :ext=x", "h/a/x => 1 /a/* :ext=x", "h/z => 3 /* :ext=z"}},
		{"star alone", all, []rule{{ID: "1", URIs: []string{"*"}}}, []string{"h/x/y => 1 * :ext=/x/y"}},
		{"named tail", all, []rule{{ID: "1", URIs: []string{"/blog/*rest"}}}, []string{"h/blog/x/y => 1 /blog/*rest rest=x/y", "h/blog => -"}},
		{"star in the middle", all, []rule{{ID: "1", URIs: []string{"/a/*/c"}}}, []string{
			"h/a/b/c => 1 /a/*/c :ext=b", "h/a/b/x/c => 1 /a/*/c :ext=b/x", "h/a/b => -", "h/a/b/c/d => -", "h/a/c => -", "h/a/b/xc => -"}},
		{"stars are greedy from the left", all, []rule{{ID: "1", URIs: []string{"/a/*x/b/*y/c"}}}, []string{
			"h/a/1/b/2/b/3/c => 1 /a/*x/b/*y/c x=1/b/2 y=3", "h/a/1/b/2/c/b/c => 1 /a/*x/b/*y/c x=1 y=2/c/b", "h/a/b/b/b/c => 1 /a/*x/b/*y/c x=b y=b", "h/a/1/b/c => -"}},
		{"star inside a segment", all, []rule{{ID: "1", URIs: []string{"/v*/x"}}, {ID: "2", URIs: []string{"/w*a**b"}}}, []string{
			"h/v1/x => 1 /v*/x", "h/v/x => 1 /v*/x", "h/v1/y/x => 1 /v*/x", "h/v1/y => -", "h/wab => 2 /w*a**b", "h/wxayzb => 2 /w*a**b", "h/wb => -"}},
		{"a pattern that fails falls through to a shorter prefix", all, []rule{{ID: "1", URIs: []string{"/a/*/c"}}, {ID: "2", URIs: []string{"/*"}}}, []string{
			"h/a/b/d => 2 /* :ext=a/b/d"}},
		{"priority, then length, then order", all, []rule{
			{ID: "1", URIs: []string{"/a/*"}, Priority: 1, Methods: GET | PUT | POST | PATCH}, {ID: "2", URIs: []string{"/a/*"}, Priority: 2, Methods: GET},
			{ID: "3", URIs: []string{"/a/*/c"}, Priority: 1, Methods: GET | PUT}, {ID: "4", URIs: []string{"/a/*"}, Priority: 1}, {ID: "5", URIs: []string{"/a/*"}, Priority: -1}}, []string{
			"GET h/a/b/c => 2 /a/* :ext=b/c", "PUT h/a/b/c => 3 /a/*/c :ext=b", "POST h/a/b/c => 1 /a/* :ext=b/c", "DELETE h/a/b/c => 4 /a/* :ext=b/c"}},
		{"lower order first", all, []rule{{ID: "1", URIs: []string{"/a"}, Order: 7}, {ID: "2", URIs: []string{"/a"}, Order: 3}}, []string{"h/a => 2 /a"}},
		{"several URIs", all, []rule{{ID: "1", URIs: []string{"/a", "/b/*"}}}, []string{"h/a => 1 /a", "h/b/x => 1 /b/* :ext=x", "h/c => -"}},
		{"methods", all, []rule{{ID: "1", URIs: []string{"/a"}, Methods: GET}, {ID: "2", URIs: []string{"/a"}, Methods: POST | PURGE}}, []string{
			"GET h/a => 1 /a", "POST h/a => 2 /a", "PURGE h/a => 2 /a", "HEAD h/a => -", "PROPFIND h/a => -"}},
		{"any method takes unknown ones too", all, []rule{{ID: "1", URIs: []string{"/a"}}}, []string{"PROPFIND h/a => 1 /a"}},
		{"peer address", all, []rule{{ID: "1", URIs: []string{"/a"}, RemoteAddrs: prefixes("10.0.0.1/32")}, {ID: "2", URIs: []string{"/b"}, RemoteAddrs: prefixes("::1/128", "10.9.9.9/8")}}, []string{
			"h/a => -", "h/b => 2 /b"}},
		{"exact host", all, []rule{{ID: "1", URIs: []string{"/a"}, Hosts: []string{"Foo.com"}}}, []string{
			"foo.com/a => 1 /a foo.com", "foo.com:8080/a => 1 /a foo.com", "bar.com/a => -", "www.foo.com/a => -", "oo.com/a => -", "/a => -"}},
		{"wildcard host", all, []rule{{ID: "1", URIs: []string{"/a"}, Hosts: []string{"*.foo.com"}}}, []string{
			"a.foo.com/a => 1 /a *.foo.com", "a.b.foo.com/a => 1 /a *.foo.com", "foo.com/a => -", "xfoo.com/a => -"}},
		{"wildcard host without dot", all, []rule{{ID: "1", URIs: []string{"/a"}, Hosts: []string{"*foo.com"}}}, []string{
			"foo.com/a => 1 /a *foo.com", "xfoo.com/a => 1 /a *foo.com", "a.foo.com/a => 1 /a *foo.com", "oo.com/a => -"}},
		{"star host", all, []rule{{ID: "1", URIs: []string{"/a"}, Hosts: []string{"*"}}}, []string{"any.thing/a => 1 /a *", "/a => 1 /a *"}},
		{"hosts list", all, []rule{{ID: "1", URIs: []string{"/a"}, Hosts: []string{"foo.com", "*.bar.com"}}}, []string{
			"foo.com/a => 1 /a foo.com", "x.bar.com/a => 1 /a *.bar.com", "bar.com/a => -"}},
		{"host first: exact, longest suffix, star, none", 1 << HostURI, []rule{
			{ID: "none", URIs: []string{"/a"}, Priority: 100}, {ID: "star", URIs: []string{"/a"}, Hosts: []string{"*"}, Priority: 50},
			{ID: "wild", URIs: []string{"/a"}, Hosts: []string{"*.foo.com"}, Priority: 10}, {ID: "wilder", URIs: []string{"/a"}, Hosts: []string{"*.b.foo.com"}},
			{ID: "exact", URIs: []string{"/a"}, Hosts: []string{"a.foo.com"}}}, []string{
			"a.foo.com/a => exact /a a.foo.com", "b.foo.com/a => wild /a *.foo.com", "x.b.foo.com/a => wilder /a *.b.foo.com", "bar.com/a => star /a *"}},
		{"host first against the longer path", 1 << HostURI, []rule{{ID: "1", URIs: []string{"/a/b/c"}}, {ID: "2", URIs: []string{"/*"}, Hosts: []string{"foo.com"}}}, []string{
			"foo.com/a/b/c => 2 /* foo.com :ext=a/b/c", "bar.com/a/b/c => 1 /a/b/c"}},
		{"falls through the hosts when nothing inside fits", 1 << HostURI, []rule{
			{ID: "1", URIs: []string{"/d"}}, {ID: "2", URIs: []string{"/c"}, Hosts: []string{"*.com"}}, {ID: "3", URIs: []string{"/b"}, Hosts: []string{"*.foo.com"}},
			{ID: "4", URIs: []string{"/a", "/c", "/d"}, Hosts: []string{"w.foo.com"}, Methods: PUT}}, []string{
			"w.foo.com/a => -", "w.foo.com/b => 3 /b *.foo.com", "w.foo.com/c => 2 /c *.com", "w.foo.com/d => 1 /d", "PUT w.foo.com/d => 4 /d w.foo.com"}},
		{"host as a condition: path and priority first", uris, []rule{
			{ID: "1", URIs: []string{"/a/b"}}, {ID: "2", URIs: []string{"/*"}, Hosts: []string{"foo.com"}}, {ID: "3", URIs: []string{"/a"}, Hosts: []string{"foo.com"}},
			{ID: "4", URIs: []string{"/a"}, Priority: 1, Methods: GET}, {ID: "5", URIs: []string{"/a"}, Hosts: []string{"*.com", "foo.com"}}}, []string{
			"foo.com/a/b => 1 /a/b", "foo.com/a => 4 /a", "PUT foo.com/a => 3 /a foo.com", "PUT bar.com/a => 5 /a *.com", "foo.com/x => 2 /* foo.com :ext=x", "bar.com/x => -"}},
		{"host with a colon: the raw header", uris, []rule{{ID: "1", URIs: []string{"/a"}, Hosts: []string{"foo.com:8080"}}, {ID: "2", URIs: []string{"/a"}, Hosts: []string{"[::1]"}}, {ID: "3", URIs: []string{"/a"}, Hosts: []string{"*:81"}}}, []string{
			"foo.com:8080/a => 1 /a foo.com:8080", "foo.com/a => -", "foo.com:80/a => -", "[::1]/a => 2 /a [::1]", "x.org:81/a => 3 /a *:81"}},
		{"host with a colon: host without port", 1 << HostURI, []rule{{ID: "1", URIs: []string{"/a"}, Hosts: []string{"foo.com:8080"}}, {ID: "2", URIs: []string{"/a"}, Hosts: []string{"[::1]"}}}, []string{
			"foo.com:8080/a => -", "[::1]/a => 2 /a [::1]"}},
		{"colon is literal without parameter mode", 1<<HostURI | 1<<URI, []rule{{ID: "1", URIs: []string{"/a/:x"}}, {ID: "2", URIs: []string{"/b/*/:x"}}}, []string{
			"h/a/:x => 1 /a/:x", "h/a/y => -", "h/b/1/:x => 2 /b/*/:x :ext=1", "h/b/1/y => -"}},
		{"parameters", 1 << URIWithParameter, []rule{{ID: "1", URIs: []string{"/a/:x/b/:y"}}, {ID: "2", URIs: []string{"/a/:x"}}, {ID: "3", URIs: []string{"/a/lit"}}, {ID: "4", URIs: []string{"/a/*"}}}, []string{
			"h/a/1/b/2 => 1 /a/:x/b/:y x=1 y=2", "h/a/1 => 2 /a/:x x=1", "h/a/lit => 3 /a/lit", "h/a/ => 4 /a/* :ext=", "h/a/1/2 => 4 /a/* :ext=1/2", "h/a/1/b/2/ => 4 /a/* :ext=1/b/2/"}},
		{"parameters and stars", 1 << URIWithParameter, []rule{{ID: "1", URIs: []string{"/a/*/:x"}}, {ID: "2", URIs: []string{"/b/:x/*t/c/:y/d"}}, {ID: "3", URIs: []string{"/c/:x/*"}}}, []string{
			"h/a/1/2/3 => 1 /a/*/:x :ext=1/2 x=3", "h/a/1/ => -", "h/b/1/2/c/3/d => 2 /b/:x/*t/c/:y/d x=1 t=2 y=3", "h/b/1/2/c/3/d/c/4/d => 2 /b/:x/*t/c/:y/d x=1 t=2/c/3/d y=4", "h/b/1/2/c//d => -", "h/c/1/2/3 => 3 /c/:x/* x=1 :ext=2/3"}},
		{"colon inside a segment is literal", 1 << URIWithParameter, []rule{{ID: "1", URIs: []string{"/file:list"}}, {ID: "2", URIs: []string{"/:v/file:list"}}}, []string{
			"h/file:list => 1 /file:list", "h/filex => -", "h/1/file:list => 2 /:v/file:list v=1"}},
	}
	for _, tt := range tests {
		for mode := HostURI; mode <= URIWithParameter; mode++ {
			if tt.modes&(1<<mode) == 0 {
				continue
			}
			t.Run(tt.name+"/"+mode.String(), func(t *testing.T) {
				table := mustWith(t, New[string](mode), nil, slices.Clone(tt.rules)...)
				for _, line := range tt.want {
					q, want, _ := strings.Cut(line, " => ")
					if got := find(table, ask(q)); got != want {
						t.Errorf("%s: got %q, want %q", q, got, want)
					}
				}
			})
		}
	}
}

type filterFunc func(string) bool

func (f filterFunc) Accept(target string) bool { return f(target) }

func TestFilterFallsThroughInOrder(t *testing.T) {
	for mode := HostURI; mode <= URIWithParameter; mode++ {
		table := mustWith(t, New[string](mode), nil,
			rule{ID: "prefix", URIs: []string{"/*"}},
			rule{ID: "second", URIs: []string{"/a"}, Hosts: []string{"h"}},
			rule{ID: "first", URIs: []string{"/a"}, Hosts: []string{"*", "h"}, Priority: 1},
			rule{ID: "put", URIs: []string{"/a"}, Hosts: []string{"h"}, Methods: PUT, Priority: 9})
		var seen []string
		var m Match
		_, ok := table.Find(ask("h/a"), filterFunc(func(target string) bool {
			seen = append(seen, target)
			return false
		}), &m)
		want := "first,first,second,prefix"
		if mode == HostURI {
			want = "first,second,first,prefix"
		}
		if got := strings.Join(seen, ","); ok || got != want {
			t.Errorf("%v: asked for %s, want %s", mode, got, want)
		}
		target, ok := table.Find(ask("h/a"), filterFunc(func(target string) bool { return target == "second" }), &m)
		if !ok || target != "second" || m.URI != "/a" || m.Host != "h" {
			t.Errorf("%v: got %q %v %q %q", mode, target, ok, m.URI, m.Host)
		}
	}
}

func TestMorePrefixesThanTheStackHolds(t *testing.T) {
	for mode := HostURI; mode <= URIWithParameter; mode++ {
		table := New[string](mode)
		const n = 3*depth + 1
		for i := 1; i <= n; i++ {
			table = mustWith(t, table, nil,
				rule{ID: fmt.Sprint("p", i), URIs: []string{strings.Repeat("/", i) + "*"}},
				rule{ID: fmt.Sprint("h", i), URIs: []string{"/x"}, Hosts: []string{"*" + strings.Repeat("h", i)}, Priority: i})
		}
		path := []byte(strings.Repeat("/", n))
		host := []byte(strings.Repeat("h", n))
		for _, try := range []Query{{Path: path}, {Path: []byte("/x"), Host: host}} {
			var seen []string
			var m Match
			table.Find(&try, filterFunc(func(target string) bool {
				seen = append(seen, target)
				return false
			}), &m)
			kind, count := "p", n
			if string(try.Path) == "/x" {
				kind, count = "h", n
				if seen[len(seen)-1] != "p1" {
					t.Errorf("%v: the prefix comes last, got %v", mode, seen)
				}
				seen = seen[:len(seen)-1]
			}
			if len(seen) != count {
				t.Fatalf("%v: %d candidates, want %d", mode, len(seen), count)
			}
			for i, id := range seen {
				if want := fmt.Sprint(kind, count-i); id != want {
					t.Errorf("%v: candidate %d is %s, want %s", mode, i, id, want)
				}
			}
		}
	}
}

func TestWithLeavesOldTables(t *testing.T) {
	for mode := HostURI; mode <= URIWithParameter; mode++ {
		empty := New[string](mode)
		one := mustWith(t, empty, nil, rule{ID: "1", URIs: []string{"/a", "/b/*"}, Hosts: []string{"h", "*.h"}})
		two := mustWith(t, one, nil, rule{ID: "1", URIs: []string{"/c"}}, rule{ID: "2", URIs: []string{"/a"}})
		three := mustWith(t, two, []string{"1", "unknown"})
		four := mustWith(t, three, []string{"2"})
		for i, tt := range []struct {
			table *Table[string]
			len   int
			want  string
		}{
			{empty, 0, "- - - -"},
			{one, 1, "1 /a h;1 /b/* *.h :ext=x;-;-"},
			{two, 2, "2 /a;-;1 /c;2 /a"},
			{three, 1, "2 /a;-;-;2 /a"},
			{four, 0, "- - - -"},
		} {
			var got []string
			for _, q := range []string{"h/a", "x.h/b/x", "h/c", "i/a"} {
				got = append(got, find(tt.table, ask(q)))
			}
			if want := strings.ReplaceAll(tt.want, "- - - -", "-;-;-;-"); strings.Join(got, ";") != want || tt.table.Len() != tt.len {
				t.Errorf("%v: table %d has %d rules and answers %q, want %d and %q", mode, i, tt.table.Len(), strings.Join(got, ";"), tt.len, want)
			}
		}
		if !four.buckets.vacant() || !four.sites.vacant() || !four.ids.vacant() {
			t.Errorf("%v: an emptied table keeps nodes", mode)
		}
	}
}

func TestWithKeepsNoneOfTheCallersSlices(t *testing.T) {
	r := rule{ID: "1", URIs: []string{"/a"}, Hosts: []string{"h"}, RemoteAddrs: prefixes("10.0.0.0/8"), Target: "1"}
	table, err := New[string](HostURI).With(nil, []rule{r})
	if err != nil {
		t.Fatal(err)
	}
	r.URIs[0], r.Hosts[0], r.RemoteAddrs[0] = "/x", "x", netip.Prefix{}
	if got := find(table, ask("h/a")); got != "1 /a h" {
		t.Errorf("got %q", got)
	}
	got, ok := table.Get("1")
	if !ok || got.URIs[0] != "/a" || got.Hosts[0] != "h" || got.RemoteAddrs[0] != netip.MustParsePrefix("10.0.0.0/8") {
		t.Errorf("got %+v %v", got, ok)
	}
	if _, ok := table.Get("2"); ok {
		t.Error("found a rule that is not there")
	}
	if got := mustWith(t, table, []string{"1"}); got.Len() != 0 || !got.buckets.vacant() {
		t.Error("the rule was not removed")
	}
}

func TestWithSameIDTwiceKeepsTheLast(t *testing.T) {
	table := mustWith(t, New[string](URI), nil, rule{ID: "1", URIs: []string{"/a"}}, rule{ID: "1", URIs: []string{"/b"}})
	if a, b := find(table, ask("h/a")), find(table, ask("h/b")); a != "-" || b != "1 /b" || table.Len() != 1 {
		t.Errorf("got %q, %q and %d rules", a, b, table.Len())
	}
}

func TestAllStops(t *testing.T) {
	table := mustWith(t, New[string](HostURI), nil, rule{ID: "1", URIs: []string{"/a"}}, rule{ID: "12", URIs: []string{"/a"}}, rule{ID: "2", URIs: []string{"/a"}})
	var ids []string
	for r := range table.All {
		ids = append(ids, r.ID)
	}
	slices.Sort(ids)
	if got := strings.Join(ids, " "); got != "1 12 2" {
		t.Errorf("got %s", got)
	}
	for range table.All {
		break // a walk that goes on after false panics
	}
}

func TestWithRefuses(t *testing.T) {
	for name, r := range map[string]rule{
		"no ID":            {URIs: []string{"/a"}},
		"no URI":           {ID: "1"},
		"empty URI":        {ID: "1", URIs: []string{"/a", ""}},
		"empty host":       {ID: "1", URIs: []string{"/a"}, Hosts: []string{""}},
		"star in the host": {ID: "1", URIs: []string{"/a"}, Hosts: []string{"a.*.b"}},
		"two stars":        {ID: "1", URIs: []string{"/a"}, Hosts: []string{"**"}},
		"zero prefix":      {ID: "1", URIs: []string{"/a"}, RemoteAddrs: make([]netip.Prefix, 1)},
		"17 captures":      {ID: "1", URIs: []string{strings.Repeat("/:x", 17)}},
	} {
		table := mustWith(t, New[string](URIWithParameter), nil, rule{ID: "1", URIs: []string{"/old"}})
		next, err := table.With([]string{"1"}, []rule{{ID: "2", URIs: []string{"/b"}}, r})
		if !errors.Is(err, ErrBadRule) || next != nil {
			t.Errorf("%s: got %v, %v", name, next, err)
		}
		if got := find(table, ask("h/old")); got != "1 /old" {
			t.Errorf("%s: the old table answers %q", name, got)
		}
	}
	if _, err := New[string](URIWithParameter).With(nil, []rule{{ID: "1", URIs: []string{strings.Repeat("/:x", 16)}}}); err != nil {
		t.Errorf("16 captures: %v", err)
	}
}

func TestParam(t *testing.T) {
	table := mustWith(t, New[string](URIWithParameter), nil, rule{ID: "1", URIs: []string{"/:a/:b/:a/*"}})
	var m Match
	if _, ok := table.Find(ask("h/1/2/3/4"), nil, &m); !ok {
		t.Fatal("no match")
	}
	for name, want := range map[string]string{"a": "3", "b": "2", ":ext": "4"} {
		if got, ok := m.Param(name); !ok || string(got) != want {
			t.Errorf("%s: got %q %v, want %q", name, got, ok, want)
		}
	}
	if _, ok := m.Param("c"); ok {
		t.Error("c was not captured")
	}
}

func TestMethods(t *testing.T) {
	names := []string{"GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "CONNECT", "TRACE", "PURGE"}
	set, err := ParseMethods(names)
	if err != nil || set != 1<<len(names)-1 {
		t.Errorf("got %b, %v", set, err)
	}
	if set, err := ParseMethods(nil); set != 0 || err != nil {
		t.Errorf("got %b, %v", set, err)
	}
	if _, err := ParseMethods([]string{"GET", "get"}); err == nil {
		t.Error("methods are case-sensitive")
	}
	if MethodBit([]byte("HEAD")) != HEAD || MethodBit("PROPFIND") != 0 {
		t.Error("MethodBit")
	}
}

func TestParseMode(t *testing.T) {
	for mode := HostURI; mode <= URIWithParameter; mode++ {
		if got, err := ParseMode(mode.String()); got != mode || err != nil {
			t.Errorf("%v: got %v, %v", mode, got, err)
		}
	}
	if _, err := ParseMode("radixtree"); err == nil {
		t.Error("radixtree is no mode")
	}
}
