package snapshot

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"headgate/proxy/phase"
	"headgate/proxy/route"
)

// unseen accepts the routes that were not found yet.
type unseen map[*Route]bool

func (u unseen) Accept(r *Route) bool { return !u[r] }

// crowd fills the rig with n routes that overlap in many ways, and returns their rules without methods and addresses.
func (r *rig) crowd(n int) []route.Rule[*Route] {
	r.t.Helper()
	random := rand.New(rand.NewPCG(1, 2))
	one := func(list ...string) string { return list[random.IntN(len(list))] }
	pairs := make([]string, 0, 2*n)
	for i := range n {
		var uris []string
		for range 1 + random.IntN(2) {
			uri := one("/", "/a", "/a/", "/a/b", "/a/b/c", "/z")
			if random.IntN(10) > 0 {
				uri = fmt.Sprintf("%s/r%d", strings.TrimSuffix(uri, "/"), i) // most are alone
			}
			uris = append(uris, `"`+uri+one("", "*", "/*", "*/c", "/*/c")+`"`)
		}
		slices.Sort(uris)
		doc := `{"uris":[` + strings.Join(slices.Compact(uris), ",") + `],"status":` + one("1", "1", "1", "0") + `,"priority":` + one("0", "1", "-3")
		doc += one("", "", `,"host":"a.com"`, `,"hosts":["*.com","b.a.com"]`, `,"hosts":["a.com","*.a.com"]`, `,"host":"b.com"`, `,"host":"*"`)
		doc += one("", "", `,"methods":["GET"]`, `,"methods":["POST","PUT"]`, `,"remote_addr":"10.0.0.0/8"`, `,"remote_addr":"11.0.0.0/8"`)
		pairs = append(pairs, fmt.Sprintf("routes/%d", i), doc+"}")
	}
	r.put(pairs...)
	rules := make([]route.Rule[*Route], 0, n)
	for _, compiled := range r.c.routes {
		rule := compiled.rule
		rule.Methods, rule.RemoteAddrs = 0, nil
		rules = append(rules, rule)
	}
	return rules
}

// The candidates are what the router finds when it is asked again and again for a route that it has not found yet.
func TestCandidatesAreInTheOrderOfTheRouter(t *testing.T) {
	for mode, routes := range map[route.Mode]int{route.HostURI: 20_000, route.URI: 3000, route.URIWithParameter: 3000} {
		t.Run(mode.String(), func(t *testing.T) {
			r := newRig(t)
			r.c.opt.Mode, r.c.table = mode, route.New[*Route](mode)
			table, err := route.New[*Route](mode).With(nil, r.crowd(routes))
			if err != nil {
				t.Fatal(err)
			}
			s := r.c.Look()
			defer s.Release()
			most := 0
			for _, host := range []string{"", "a.com", "b.a.com"} {
				for _, path := range []string{"/", "/a/b", "/a/b/x/c", "/a/r17", "/nothing"} {
					q := route.Query{Host: []byte(host), HostPort: []byte(host), Path: []byte(path), Method: route.PATCH, Remote: netip.MustParseAddr("10.1.1.1")}
					got := s.Candidates(&q)
					seen := unseen{}
					for i := 0; ; i++ {
						var m route.Match
						want, ok := table.Find(&q, seen, &m)
						if !ok {
							if len(got) != i {
								t.Fatalf("%s%s: %d candidates, want %d", host, path, len(got), i)
							}
							break
						}
						seen[want] = true
						if i >= len(got) || got[i].Route != want || got[i].URI != m.URI || got[i].Host != m.Host {
							t.Fatalf("%s%s: candidate %d of %d is not %s by %s %s", host, path, i, len(got), want.Key, m.Host, m.URI)
						}
					}
					most = max(most, len(got))
				}
			}
			if most < 100 {
				t.Errorf("at most %d candidates: that tests little", most)
			}
		})
	}
}

// Where the router finds a route, it is the first candidate that is not refused.
func TestTheRouteIsTheFirstThatIsNotRefused(t *testing.T) {
	r := newRig(t)
	r.crowd(2000)
	s := r.c.Look()
	defer s.Release()
	found := 0
	for _, host := range []string{"a.com", "b.a.com", "x"} {
		for _, path := range []string{"/", "/a", "/a/b", "/a/b/c", "/z"} {
			for _, method := range []string{"GET", "PUT", "LOCK"} {
				for _, addr := range []string{"10.1.1.1", "::1"} {
					q := route.Query{Host: []byte(host), Path: []byte(path), Method: route.MethodBit(method), Remote: netip.MustParseAddr(addr)}
					x := &phase.Exchange{}
					x.Request.Method = []byte(method)
					var m route.Match
					want, _ := s.Find(&q, nil, &m)
					var got *Route
					for _, c := range s.Candidates(&q) {
						if c.Refusal(&q, x, &Papers{}) == "" {
							got, found = c.Route, found+1
							break
						}
					}
					if got != want {
						t.Errorf("%s %s%s from %s: %v, want %v", method, host, path, addr, got, want)
					}
				}
			}
		}
	}
	if found == 0 {
		t.Error("nothing was found")
	}
}

func TestElsewhereIsBounded(t *testing.T) {
	r := newRig(t)
	for i := range 7 {
		r.put(fmt.Sprintf("routes/%d", i), fmt.Sprintf(`{"uri":"/*","host":"h%d","priority":%d}`, i, i))
	}
	r.put("routes/other", `{"uri":"/b","host":"h"}`)
	s := r.c.Look()
	defer s.Release()
	list, more := s.Elsewhere(&route.Query{Host: []byte("x"), Path: []byte("/a")}, 3)
	if len(list) != 3 || more != 4 || list[0].Route.Key != "routes/6" || list[0].URI != "/*" {
		t.Errorf("%+v and %d more", list, more)
	}
	if list, more := s.Elsewhere(&route.Query{Host: []byte("h1"), Path: []byte("/a")}, 0); len(list) != 0 || more != 6 {
		t.Errorf("%+v and %d more", list, more)
	}
}

// What is said to run, in its order, is the chain that was compiled.
func TestPluginsAreThoseOfTheChain(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	plugins := func() string {
		var list []string
		for _, name := range []string{"high", "mid", "low", "prometheus"} {
			switch random.IntN(5) {
			case 0:
				list = append(list, `"`+name+`":{}`)
			case 1:
				list = append(list, `"`+name+`":{"_meta":{"disable":true}}`)
			case 2:
				list = append(list, fmt.Sprintf(`"%s":{"_meta":{"priority":%d}}`, name, random.IntN(4)*10))
			}
		}
		return `"plugins":{` + strings.Join(list, ",") + `}`
	}
	r := newRig(t)
	running := 0
	for round := range 200 {
		r.put("services/s", `{`+plugins()+`}`, "plugin_configs/p", `{"id":"p",`+plugins()+`}`, "global_rules/1", `{"id":"1",`+plugins()+`}`,
			"routes/1", `{"uri":"/*","service_id":"s","plugin_config_id":"p",`+plugins()+`}`)
		s := r.c.Look()
		one := r.must("/")
		p, ok := s.Papers(r.lookup, one, nil, nil)
		if !ok {
			t.Fatal("what is in force is said not to be")
		}
		x := &phase.Exchange{}
		x.Enter(s.Global(), one.Chain)
		list, err := s.Plugins(p, one, x)
		if err != nil {
			t.Fatal(err)
		}
		var global, own []string
		for _, e := range list {
			if !e.Runs() {
				continue
			}
			running++
			if e.Global() {
				global = append(global, e.Name)
			} else {
				own = append(own, e.Name)
			}
			if len(e.Phases) == 0 {
				t.Errorf("round %d: %+v runs in no phase", round, e)
			}
		}
		for _, c := range []struct {
			got   []string
			chain *phase.Chain
		}{{global, s.Global()}, {own, one.Chain}} {
			var want []string
			if c.chain != nil {
				want = c.chain.Names
			}
			if !slices.Equal(c.got, want) {
				t.Fatalf("round %d: got %v, want %v of\n%v", round, c.got, want, list)
			}
		}
		s.Release()
	}
	if running == 0 {
		t.Error("nothing ran")
	}
}

// Papers are refused when what is explained has been edited since, and only then.
func TestPapersAreOfOneConfiguration(t *testing.T) {
	r := newRig(t)
	r.put("routes/1", `{"uri":"/a","service_id":"s"}`, "routes/2", `{"uri":"/b"}`, "services/s", `{}`, "global_rules/1", `{"id":"1","plugins":{"low":{}}}`,
		"consumer_groups/g", `{"id":"g","plugins":{"low":{}}}`, "consumers/jack", `{"username":"jack","group_id":"g","plugins":{"auth":{"key":"k"}}}`)
	tests := []struct {
		name    string
		current bool
		pairs   []string
	}{
		{"another route", true, []string{"routes/2", `{"uri":"/c"}`}},
		{"the route", false, []string{"routes/1", `{"uri":"/a","name":"n"}`}},
		{"its service", false, []string{"services/s", `{"name":"n"}`, "routes/1", `{"uri":"/a","service_id":"s"}`}},
		{"a global rule", false, []string{"global_rules/1", `{"id":"1","plugins":{"mid":{}}}`}},
		{"the consumer", false, []string{"consumers/jack", `{"username":"jack","group_id":"g","plugins":{"auth":{"key":"k2"}}}`}},
		{"the group", false, []string{"consumer_groups/g", `{"id":"g","plugins":{"mid":{}}}`}},
	}
	for _, tt := range tests {
		s := r.c.Look()
		one, who := r.must("/a"), s.Principal("jack")
		r.put(tt.pairs...)
		if _, ok := s.Papers(r.lookup, one, who, nil); ok != tt.current {
			t.Errorf("after an edit of %s: current is %v", tt.name, ok)
		}
		s.Release()
	}
	if r.collect() != 0 {
		t.Error("a snapshot is held")
	}
}

func BenchmarkCandidates(b *testing.B) {
	r := newRig(b)
	r.crowd(100_000)
	for name, path := range map[string]string{"many": "/a/b/c", "one": "/a/r17/c"} {
		b.Run(name, func(b *testing.B) {
			s := r.c.Look()
			defer s.Release()
			q := route.Query{Host: []byte("a.com"), Path: []byte(path), Method: route.GET, Remote: netip.MustParseAddr("10.1.1.1")}
			n := 0
			for b.Loop() {
				n = len(s.Candidates(&q))
			}
			b.ReportMetric(float64(n), "candidates")
		})
	}
	b.Run("elsewhere", func(b *testing.B) {
		s := r.c.Look()
		defer s.Release()
		q := route.Query{Host: []byte("no"), Path: []byte("/a/b/c"), Method: route.GET}
		for b.Loop() {
			s.Elsewhere(&q, 20)
		}
	})
	b.Run("look", func(b *testing.B) {
		for b.Loop() {
			r.c.Look().Release()
		}
	})
}
